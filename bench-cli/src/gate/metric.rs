//! Deterministic metrics: what the same work costs in things that can be counted.
//!
//! They may be compared with a stored baseline, because they do not depend on the machine's mood.
//! They can fail a change; alone they never pass one.

#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

use super::quantity;

/// A count that the same work repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Instructions executed, counted by callgrind; only where they are asked for.
    Instructions,
    /// Calls of the kernel that map memory or give it back: mmap, mremap, munmap, brk.
    MappingCalls,
    /// Peak of committed memory, which is what the kernel has promised: private writable mappings.
    /// Both sides have the same live bytes, so it grows as committed over live does. Not averaged
    /// over time, which is the machine's mood.
    CommittedBytes,
    /// Page faults without disk access.
    MinorFaults,
    /// Peak of resident memory above the harness's own.
    PeakRssBytes,
    /// Allocations that returned NULL.
    FailedAllocations,
}

/// How much a metric may grow: by the larger of a share of the base and a fixed amount.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    /// Of the base.
    pub share: f64,
    /// In the metric's own unit.
    pub absolute: u64,
}

impl Limit {
    /// The largest value of the head that is allowed.
    #[must_use]
    pub fn allowed(self, base: u64) -> u64 {
        base.saturating_add(self.absolute.max((base as f64 * self.share) as u64))
    }
}

impl Metric {
    /// Every metric.
    pub const ALL: [Metric; 6] = [
        Metric::Instructions,
        Metric::MappingCalls,
        Metric::CommittedBytes,
        Metric::MinorFaults,
        Metric::PeakRssBytes,
        Metric::FailedAllocations,
    ];

    /// The name in files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Metric::Instructions => "instructions",
            Metric::MappingCalls => "mapping_calls",
            Metric::CommittedBytes => "committed_bytes",
            Metric::MinorFaults => "minor_faults",
            Metric::PeakRssBytes => "peak_rss_bytes",
            Metric::FailedAllocations => "failed_allocations",
        }
    }

    /// The metric of that name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.name() == name)
    }

    /// Whether it counts bytes.
    #[must_use]
    pub fn is_bytes(self) -> bool {
        matches!(self, Metric::PeakRssBytes | Metric::CommittedBytes)
    }

    /// What is allowed where no file says otherwise.
    #[must_use]
    pub fn default_limit(self) -> Limit {
        match self {
            Metric::Instructions => Limit { share: 0.01, absolute: 0 },
            Metric::MappingCalls => Limit { share: 0.02, absolute: 2 },
            Metric::CommittedBytes => Limit { share: 0.02, absolute: 64 << 10 },
            Metric::MinorFaults => Limit { share: 0.05, absolute: 16 },
            Metric::PeakRssBytes => Limit { share: 0.03, absolute: 256 << 10 },
            Metric::FailedAllocations => Limit { share: 0.0, absolute: 0 },
        }
    }

    /// A value as people read it.
    #[must_use]
    pub fn show(self, value: u64) -> String {
        if self.is_bytes() { quantity::spoken_bytes(value) } else { grouped(value) }
    }
}

/// `1 234 567`: digits in groups of three, by narrow no-break spaces.
fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_the_larger_of_its_share_and_its_amount() {
        let limit = Limit { share: 0.05, absolute: 16 };
        assert_eq!(limit.allowed(100), 116);
        assert_eq!(limit.allowed(10_000), 10_500);
        assert_eq!(limit.allowed(0), 16);
        assert_eq!(Metric::FailedAllocations.default_limit().allowed(0), 0);
    }

    #[test]
    fn every_metric_is_found_by_its_name() {
        for metric in Metric::ALL {
            assert_eq!(Metric::of_name(metric.name()), Some(metric));
        }
        assert_eq!(Metric::of_name("latency"), None);
    }

    #[test]
    fn large_numbers_are_grouped() {
        assert_eq!(Metric::Instructions.show(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(Metric::PeakRssBytes.show(3 << 20), "3.0 MiB");
    }
}
