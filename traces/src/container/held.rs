//! The threads that wait for an address to be released, for the resolver of raw files. (`import::held` is that of the
//! other formats: there single records wait, each for all the addresses that it names.)
//!
//! Cost: a thread that begins or ceases to wait takes two places in ordered sets, a release one
//! hash look-up, however many wait for other addresses.
//!
//! # Invariants
//! 1. `order` and `waiting` hold the same waits, each under its own place.
//! 2. No set in `waiting` is empty.

use std::collections::{BTreeMap, BTreeSet};

use crate::import::IntMap;

/// A thread that waits for an address to be released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wait {
    /// The last stamp at which the release may come.
    pub(super) until: u64,
    pub(super) thread: usize,
    pub(super) address: u64,
}

/// Where a wait stands: the end of its patience, then its number.
type Place = (u64, u64);

/// All that wait, in the order in which their patience ends; of equals the first comer is first.
#[derive(Debug, Default)]
pub(super) struct Held {
    order: BTreeMap<Place, Wait>,
    /// Per address, the places of those who wait for it.
    waiting: IntMap<u64, BTreeSet<Place>>,
    count: u64,
}

impl Held {
    /// From now on a thread waits.
    pub(super) fn wait(&mut self, wait: Wait) {
        let place = (wait.until, self.count);
        self.count += 1;
        self.order.insert(place, wait);
        self.waiting.entry(wait.address).or_default().insert(place);
    }

    /// Takes out the first one, if its patience ends before `stamp`.
    pub(super) fn expired(&mut self, stamp: u64) -> Option<Wait> {
        let (&place, _) = self.order.first_key_value().filter(|(_, wait)| wait.until < stamp)?;
        self.remove(place)
    }

    /// Takes out the first one of those that wait for `address`.
    pub(super) fn released(&mut self, address: u64) -> Option<Wait> {
        let place = self.waiting.get(&address)?.first().copied()?;
        self.remove(place)
    }

    fn remove(&mut self, place: Place) -> Option<Wait> {
        let wait = self.order.remove(&place)?;
        if let Some(places) = self.waiting.get_mut(&wait.address) {
            places.remove(&place);
            if places.is_empty() {
                self.waiting.remove(&wait.address);
            }
        }
        Some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_is_taken_by_address_or_by_the_end_of_its_patience_each_once() {
        let mut held = Held::default();
        let wait = |until, thread, address| Wait { until, thread, address };
        let waits = [wait(30, 0, 0xa0), wait(20, 1, 0xb0), wait(20, 2, 0xa0), wait(20, 3, 0xa0)];
        waits.into_iter().for_each(|wait| held.wait(wait));
        assert_eq!(held.released(0xc0), None);
        assert_eq!(held.released(0xa0), Some(waits[2]), "the least patience, then the first comer");
        assert_eq!(held.expired(20), None);
        assert_eq!(held.expired(21), Some(waits[1]));
        assert_eq!(held.expired(21), Some(waits[3]));
        assert_eq!(held.expired(21), None);
        assert_eq!(held.released(0xa0), Some(waits[0]));
        assert!(held.order.is_empty() && held.waiting.is_empty());
    }
}
