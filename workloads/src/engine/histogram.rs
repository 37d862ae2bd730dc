//! Counts by value: two decimal digits, 1 ns to 60 s, without allocation while counting.
//!
//! Buckets are those of an HdrHistogram with two significant digits (256 values to a bucket, half
//! of them shared with the next), so that a conversion loses nothing. 30 KiB of counters, of which
//! only the pages that are counted in become resident.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

/// Largest value told apart: 60 s.
pub(crate) const MAX_VALUE: u64 = 60_000_000_000;
/// Counters of one histogram.
pub(crate) const BUCKETS: usize = 3840;

/// Which counter a value belongs to.
#[inline(always)]
pub(crate) fn bucket_of(value: u64) -> usize {
    let value = if value > MAX_VALUE { MAX_VALUE } else { value };
    let shift = 56 - (value | 255).leading_zeros();
    // At most 28 * 128 + 255, since MAX_VALUE < 2^36.
    ((u64::from(shift) << 7) + (value >> shift)) as usize
}

/// Smallest value of a counter.
pub(crate) fn lowest_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < 256 {
        return bucket;
    }
    let shift = (bucket >> 7) - 1;
    (bucket - (shift << 7)) << shift
}

/// Largest value of a counter.
pub(crate) fn highest_of(bucket: usize) -> u64 {
    lowest_of(bucket + 1) - 1
}

/// A finished histogram: only the counters that are not zero.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogram {
    /// Smallest value of the counter, and its count, ascending.
    pub counts: Vec<(u64, u64)>,
}

/// A histogram in seven numbers, in the unit of its values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    /// Number of values.
    pub count: u64,
    /// Arithmetic mean, each value taken as the middle of its counter.
    pub mean: f64,
    /// Median.
    pub p50: u64,
    /// 90th percentile.
    pub p90: u64,
    /// 99th percentile.
    pub p99: u64,
    /// 99.9th percentile.
    pub p999: u64,
    /// Largest.
    pub max: u64,
}

impl Histogram {
    /// From an array of all counters.
    pub(crate) fn from_counters(counters: &[u64]) -> Self {
        let counts = counters
            .iter()
            .enumerate()
            .filter(|(_, count)| **count != 0)
            .map(|(bucket, &count)| (lowest_of(bucket), count))
            .collect();
        Histogram { counts }
    }

    /// Adds the values of another histogram.
    pub fn merge(&mut self, other: &Histogram) {
        let mut all: std::collections::BTreeMap<u64, u64> = self.counts.iter().copied().collect();
        for &(value, count) in &other.counts {
            *all.entry(value).or_default() += count;
        }
        self.counts = all.into_iter().collect();
    }

    /// Number of values.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().map(|&(_, count)| count).sum()
    }

    /// The value that the share `quantile` of all values does not exceed (upper end of its
    /// counter); 0 if there are none.
    #[must_use]
    pub fn quantile(&self, quantile: f64) -> u64 {
        #[expect(clippy::cast_sign_loss, reason = "a share of a count is not negative")]
        let wanted = ((self.total() as f64 * quantile.clamp(0.0, 1.0)).ceil() as u64).max(1);
        let mut seen = 0;
        for &(value, count) in &self.counts {
            seen += count;
            if seen >= wanted {
                return highest_of(bucket_of(value));
            }
        }
        0
    }

    /// Its seven numbers.
    #[must_use]
    pub fn distribution(&self) -> Distribution {
        let total = self.total();
        let sum: f64 = self
            .counts
            .iter()
            .map(|&(v, n)| (v + highest_of(bucket_of(v))) as f64 / 2.0 * n as f64)
            .sum();
        Distribution {
            count: total,
            mean: if total == 0 { 0.0 } else { sum / total as f64 },
            p50: self.quantile(0.5),
            p90: self.quantile(0.9),
            p99: self.quantile(0.99),
            p999: self.quantile(0.999),
            max: self.quantile(1.0),
        }
    }

    /// The same as an HdrHistogram with bounds 1 ns–60 s and two digits. A value of 0 becomes 1,
    /// the smallest that such a histogram can hold apart.
    ///
    /// # Panics
    /// Never: every value lies within the bounds.
    #[must_use]
    pub fn to_hdr(&self) -> hdrhistogram::Histogram<u64> {
        let mut hdr = hdrhistogram::Histogram::new_with_bounds(1, MAX_VALUE, 2)
            .expect("bounds that HdrHistogram accepts");
        for &(value, count) in &self.counts {
            hdr.record_n(value.max(1), count).expect("within the bounds");
        }
        hdr
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_within_its_counter_and_counters_follow_one_another() {
        for value in (0..5000).chain([1 << 20, (1 << 30) + 12345, MAX_VALUE]) {
            let bucket = bucket_of(value);
            assert!(bucket < BUCKETS);
            assert!(lowest_of(bucket) <= value && value <= highest_of(bucket), "{value}");
        }
        for bucket in 1..=bucket_of(MAX_VALUE) {
            assert_eq!(bucket_of(lowest_of(bucket)), bucket);
            assert_eq!(highest_of(bucket - 1) + 1, lowest_of(bucket));
        }
        assert_eq!(bucket_of(u64::MAX), bucket_of(MAX_VALUE));
    }

    #[test]
    fn a_counter_is_never_wider_than_one_percent() {
        for bucket in 256..BUCKETS {
            let (low, high) = (lowest_of(bucket), highest_of(bucket));
            assert!((high - low) as f64 <= low as f64 * 0.01, "{low}..{high}");
        }
    }

    #[test]
    fn the_conversion_to_hdr_keeps_every_count_and_quantile() {
        let mut counters = vec![0; BUCKETS];
        for i in 0..10_000_u64 {
            counters[bucket_of(i * i)] += 1;
        }
        let ours = Histogram::from_counters(&counters);
        let hdr = ours.to_hdr();
        assert_eq!(hdr.len(), 10_000);
        for q in [0.5, 0.9, 0.99, 0.999, 1.0] {
            assert_eq!(hdr.value_at_quantile(q), ours.quantile(q), "{q}");
        }
    }

    #[test]
    fn quantiles_of_a_hundred_values_are_those_values() {
        let mut counters = vec![0; BUCKETS];
        (1..=100).for_each(|v| counters[bucket_of(v)] += 1);
        let d = Histogram::from_counters(&counters).distribution();
        assert_eq!((d.count, d.p50, d.p90, d.p99, d.max), (100, 50, 90, 99, 100));
        assert!((d.mean - 50.5).abs() < 1e-9);
    }
}
