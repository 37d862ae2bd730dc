//! Counts by key, exact for as many keys as memory is granted for.
#![forbid(unsafe_code)]

use crate::import::IntMap;

/// Keys counted exactly; what comes after is counted together.
const MOST_KEYS: usize = 1 << 16;

/// Counts by key, exact for the first 65,536 keys: at most about 3 MiB.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counter {
    counts: IntMap<u64, u64>,
    others: u64,
}

impl Counter {
    pub(super) fn add(&mut self, key: u64) {
        if let Some(count) = self.counts.get_mut(&key) {
            *count += 1;
        } else if self.counts.len() < MOST_KEYS {
            self.counts.insert(key, 1);
        } else {
            self.others += 1;
        }
    }

    /// How often `key` came; `None` where it may be one of those counted together.
    #[must_use]
    pub fn of(&self, key: u64) -> Option<u64> {
        self.counts.get(&key).copied().or_else(|| (self.others == 0).then_some(0))
    }

    /// The keys that are counted exactly, in no order.
    pub fn keys(&self) -> impl Iterator<Item = u64> {
        self.counts.keys().copied()
    }

    /// The `shown` most frequent keys, and how much fell on all others.
    pub(super) fn most(&self, shown: usize) -> (Vec<(u64, u64)>, u64) {
        let mut all: Vec<(u64, u64)> = self.counts.iter().map(|(&k, &n)| (k, n)).collect();
        all.sort_by_key(|&(key, count)| (std::cmp::Reverse(count), key));
        let omitted: u64 = all.iter().skip(shown).map(|&(_, count)| count).sum();
        all.truncate(shown);
        (all, omitted + self.others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_may_be_among_those_counted_together_has_no_count() {
        let mut counter = Counter::default();
        (0..MOST_KEYS as u64).for_each(|key| counter.add(key));
        assert_eq!((counter.of(7), counter.of(1 << 40)), (Some(1), Some(0)));
        counter.add(1 << 40);
        assert_eq!(
            (counter.of(7), counter.of(1 << 40), counter.of(1 << 41)),
            (Some(1), None, None)
        );
    }
}
