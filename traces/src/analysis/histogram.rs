//! Counts of integers in buckets of one sixteenth of their value: exact up to 32, then within 6.25 %.
#![forbid(unsafe_code)]

use serde::Serialize;

const SUB_BITS: u32 = 4;
const SUB: u64 = 1 << SUB_BITS;

/// Counts of `u64` values, at most 976 buckets.
#[derive(Clone, Debug, Default)]
pub struct LogHistogram {
    counts: Vec<u64>,
    total: u64,
    sum: u128,
    min: u64,
    max: u64,
}

/// One bucket: values `from..=to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Bucket {
    /// The least value counted here.
    pub from: u64,
    /// The greatest value counted here.
    pub to: u64,
    /// How many values.
    pub count: u64,
}

/// A histogram as it is reported.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Distribution {
    /// How many values.
    pub count: u64,
    /// Their least.
    pub min: u64,
    /// Their greatest.
    pub max: u64,
    /// Their mean.
    pub mean: f64,
    /// Half of them are no greater.
    pub p50: u64,
    /// Nine tenths of them are no greater.
    pub p90: u64,
    /// 99 % of them are no greater.
    pub p99: u64,
    /// 99.9 % of them are no greater.
    pub p999: u64,
    /// The buckets that hold any.
    pub buckets: Vec<Bucket>,
}

/// The bucket of a value.
#[must_use]
pub(crate) fn bucket_of(value: u64) -> usize {
    if value < 2 * SUB {
        return value as usize;
    }
    let octave = value.ilog2() - SUB_BITS;
    (u64::from(octave) * SUB + (value >> octave)) as usize
}

/// The least and greatest value of a bucket.
#[must_use]
pub(crate) fn bucket_range(index: usize) -> (u64, u64) {
    let index = index as u64;
    if index < 2 * SUB {
        return (index, index);
    }
    let octave = index / SUB - 1;
    let from = (index % SUB + SUB) << octave;
    (from, from + ((1 << octave) - 1))
}

impl LogHistogram {
    /// Counts one value.
    pub fn record(&mut self, value: u64) {
        let bucket = bucket_of(value);
        if bucket >= self.counts.len() {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
        self.min = if self.total == 0 { value } else { self.min.min(value) };
        self.max = self.max.max(value);
        self.total += 1;
        self.sum += u128::from(value);
    }

    /// How many values were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.total
    }

    /// A value that the share `q` of all values does not exceed, to within its bucket.
    #[must_use]
    pub fn quantile(&self, q: f64) -> u64 {
        let rank = ((self.total as f64 * q).ceil() as u64).clamp(1, self.total.max(1));
        let mut seen = 0;
        for (index, &count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return bucket_range(index).1.min(self.max);
            }
        }
        self.max
    }

    /// The greatest distance between this distribution and another, in shares: the statistic of
    /// Kolmogorov and Smirnov, over the buckets.
    #[must_use]
    pub fn distance(&self, other: &LogHistogram) -> f64 {
        if self.total == 0 || other.total == 0 {
            return if self.total == other.total { 0.0 } else { 1.0 };
        }
        let (mut mine, mut theirs, mut greatest) = (0_u64, 0_u64, 0.0_f64);
        for index in 0..self.counts.len().max(other.counts.len()) {
            mine += self.counts.get(index).copied().unwrap_or(0);
            theirs += other.counts.get(index).copied().unwrap_or(0);
            let gap = mine as f64 / self.total as f64 - theirs as f64 / other.total as f64;
            greatest = greatest.max(gap.abs());
        }
        greatest
    }

    /// The histogram as it is reported.
    #[must_use]
    pub fn distribution(&self) -> Distribution {
        let buckets = self.counts.iter().enumerate().filter(|&(_, &count)| count > 0);
        Distribution {
            count: self.total,
            min: self.min,
            max: self.max,
            mean: if self.total == 0 { 0.0 } else { self.sum as f64 / self.total as f64 },
            p50: self.quantile(0.5),
            p90: self.quantile(0.9),
            p99: self.quantile(0.99),
            p999: self.quantile(0.999),
            buckets: buckets
                .map(|(index, &count)| {
                    let (from, to) = bucket_range(index);
                    Bucket { from, to, count }
                })
                .collect(),
        }
    }
}

impl Distribution {
    /// The greatest distance between this distribution and another, in shares, over the buckets.
    #[must_use]
    pub fn distance(&self, other: &Distribution) -> f64 {
        let mut steps: Vec<(u64, f64)> = Vec::new();
        for (distribution, sign) in [(self, 1.0), (other, -1.0)] {
            let total = distribution.count.max(1) as f64;
            let step = |bucket: &Bucket| (bucket.from, sign * bucket.count as f64 / total);
            steps.extend(distribution.buckets.iter().map(step));
        }
        steps.sort_by_key(|&(from, _)| from);
        let (mut gap, mut greatest) = (0.0_f64, 0.0_f64);
        for (index, &(from, step)) in steps.iter().enumerate() {
            gap += step;
            if steps.get(index + 1).is_none_or(|&(next, _)| next != from) {
                greatest = greatest.max(gap.abs());
            }
        }
        greatest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_one_another_without_gap_or_overlap() {
        let mut next = 0_u64;
        for index in 0..=bucket_of(u64::MAX) {
            let (from, to) = bucket_range(index);
            assert_eq!(from, next);
            assert_eq!((bucket_of(from), bucket_of(to)), (index, index));
            next = to.wrapping_add(1);
        }
        assert_eq!(next, 0, "the last bucket ends at u64::MAX");
    }

    #[test]
    fn a_quantile_is_within_a_sixteenth_of_the_true_one() {
        let mut histogram = LogHistogram::default();
        (1..=10_000).for_each(|value| histogram.record(value));
        let median = histogram.quantile(0.5);
        assert!((5_000..=5_000 + 5_000 / 16).contains(&median), "{median}");
        assert_eq!(histogram.quantile(1.0), 10_000);
    }

    #[test]
    fn the_distance_of_equal_distributions_is_zero_and_of_disjoint_ones_one() {
        let (mut low, mut high) = (LogHistogram::default(), LogHistogram::default());
        (0..100).for_each(|value| low.record(value));
        (1_000..1_100).for_each(|value| high.record(value));
        assert_eq!(low.distance(&low.clone()), 0.0);
        assert_eq!(low.distance(&high), 1.0);
    }
}
