//! Free address ranges that still hold pages, sorted by address and merged with their neighbours.
//!
//! # Invariants
//! 1. Entries ascend, do not touch, and are whole multiples of [`SEGMENT`].
//! 2. `bytes` is the sum of their lengths, `resident` of what they hold in pages; `least` is at most that.

use crate::units::SEGMENT;

const ROOM: usize = 512;

#[derive(Clone, Copy, Debug)]
struct Extent {
    base: usize,
    len: usize,
    /// Bytes that may hold pages, spread evenly as far as is known.
    resident: usize,
}

impl Extent {
    const NONE: Self = Extent { base: 0, len: 0, resident: 0 };

    /// What of its `resident` bytes lies in `len` of it.
    fn share(&self, len: usize) -> usize {
        if len >= self.len { self.resident } else { self.resident_of_each() * (len / SEGMENT) }
    }

    fn resident_of_each(&self) -> usize {
        self.resident / (self.len / SEGMENT).max(1)
    }

    /// How many bytes at its end hold `resident` of its bytes: whole segments, at most all.
    fn part_with(&self, resident: usize) -> usize {
        resident.div_ceil(self.resident_of_each().max(1)).saturating_mul(SEGMENT).min(self.len)
    }
}

/// A part of an extent that serves a request again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reused {
    pub(super) base: usize,
    /// Bytes that may hold pages.
    pub(super) resident: usize,
}

impl Reused {
    /// Bytes of its `mapped` ones that may hold pages once an object uses `used` of them.
    pub(super) fn with(self, used: usize, mapped: usize) -> usize {
        used.max(self.resident).min(mapped)
    }
}

/// A sorted list of free extents.
#[derive(Debug)]
pub(super) struct Extents {
    entries: [Extent; ROOM],
    count: usize,
    bytes: usize,
    resident: usize,
    /// The least that `resident` was since the epoch began: so much nobody needed.
    least: usize,
}

impl Extents {
    pub(super) const EMPTY: Self =
        Extents { entries: [Extent::NONE; ROOM], count: 0, bytes: 0, resident: 0, least: 0 };

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes that may hold pages.
    pub(super) fn resident(&self) -> usize {
        self.resident
    }

    fn live(&self) -> &[Extent] {
        self.entries.get(..self.count).unwrap_or(&[])
    }

    fn at(&mut self, index: usize) -> Option<&mut Extent> {
        if index < self.count { self.entries.get_mut(index) } else { None }
    }

    fn remove(&mut self, index: usize) {
        if index < self.count {
            for next in index + 1..self.count.min(ROOM) {
                self.entries.swap(next - 1, next);
            }
            self.count -= 1;
        }
    }

    /// Takes `len` bytes from the smallest extent that has them.
    pub(super) fn take(&mut self, len: usize) -> Option<Reused> {
        let (index, _) = self
            .live()
            .iter()
            .enumerate()
            .filter(|(_, extent)| extent.len >= len)
            .min_by_key(|(_, extent)| extent.len)?;
        let extent = self.at(index)?;
        let reused = Reused { base: extent.base, resident: extent.share(len) };
        extent.base += len;
        extent.len -= len;
        extent.resident -= reused.resident;
        let empty = extent.len == 0;
        self.bytes -= len;
        self.resident -= reused.resident;
        self.least = self.least.min(self.resident);
        if empty {
            self.remove(index);
        }
        Some(reused)
    }

    /// Adds an extent, of which `resident` bytes may hold pages, and merges it with its neighbours; false when
    /// there is no room.
    pub(super) fn insert(&mut self, base: usize, len: usize, resident: usize) -> bool {
        let index = self.live().partition_point(|extent| extent.base < base);
        let end = base + len;
        let joins_next = self.at(index).is_some_and(|next| next.base == end);
        let joins_prev =
            index > 0 && self.at(index - 1).is_some_and(|prev| prev.base + prev.len == base);
        let next = if joins_next { self.at(index).map(|next| *next) } else { None };
        let next = next.unwrap_or(Extent::NONE);
        let joined = Extent { base, len: len + next.len, resident: resident + next.resident };
        if joins_prev {
            if let Some(prev) = self.at(index - 1) {
                prev.len += joined.len;
                prev.resident += joined.resident;
            }
            if joins_next {
                self.remove(index);
            }
        } else if joins_next {
            if let Some(next) = self.at(index) {
                *next = joined;
            }
        } else {
            if self.count == ROOM {
                return false;
            }
            for last in (index..self.count.min(ROOM - 1)).rev() {
                self.entries.swap(last, last + 1);
            }
            self.count += 1;
            if let Some(slot) = self.at(index) {
                *slot = joined;
            }
        }
        self.bytes += len;
        self.resident += resident;
        true
    }

    /// Ends an epoch: gives `unmap` as much as was never needed in it, all if it was an `idle` one.
    pub(super) fn pass_epoch(&mut self, idle: bool, unmap: impl FnMut(usize, usize) -> bool) {
        let needed = if idle { 0 } else { self.resident - self.least };
        self.drop_above(needed, unmap);
        self.least = self.resident;
    }

    /// Gives `unmap` the highest addresses until at most `keep` bytes may hold pages.
    pub(super) fn drop_above(&mut self, keep: usize, mut unmap: impl FnMut(usize, usize) -> bool) {
        let mut index = self.count;
        while index > 0 && self.resident > keep {
            index -= 1;
            let excess = self.resident - keep;
            let Some(extent) = self.at(index) else { continue };
            let len = extent.part_with(excess);
            let resident = extent.share(len);
            let base = extent.base + extent.len - len;
            if !unmap(base, len) {
                continue;
            }
            extent.len -= len;
            extent.resident -= resident;
            let empty = extent.len == 0;
            self.bytes -= len;
            self.resident -= resident;
            if empty {
                self.remove(index);
            }
        }
        self.least = self.least.min(self.resident);
    }

    /// Tests the invariants; the first broken one is named.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let apart = self.live().iter().zip(self.live().iter().skip(1));
        if apart.into_iter().any(|(a, b)| a.base + a.len >= b.base) {
            return Err("free extents touch or overlap");
        }
        if self.live().iter().map(|extent| extent.len).sum::<usize>() != self.bytes {
            return Err("the size of the free extents is miscounted");
        }
        if self.live().iter().map(|extent| extent.resident).sum::<usize>() != self.resident {
            return Err("what free extents hold in pages is miscounted");
        }
        if self.least > self.resident {
            return Err("more free extents were never needed than there are");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    const S: usize = SEGMENT;

    #[test]
    fn neighbours_merge_in_every_order() {
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let mut extents = Extents::EMPTY;
            for i in order {
                assert!(extents.insert((10 + i) * S, S, S));
                extents.check().expect("sound");
            }
            assert_eq!(extents.count, 1);
            assert_eq!(extents.take(3 * S), Some(Reused { base: 10 * S, resident: 3 * S }));
            assert_eq!(extents.bytes(), 0);
        }
    }

    #[test]
    fn the_smallest_extent_that_fits_is_taken() {
        let mut extents = Extents::EMPTY;
        extents.insert(10 * S, 5 * S, 5 * S);
        extents.insert(20 * S, 2 * S, 2 * S);
        extents.insert(30 * S, 3 * S, 3 * S);
        assert_eq!(extents.take(2 * S), Some(Reused { base: 20 * S, resident: 2 * S }));
        assert_eq!(extents.take(2 * S), Some(Reused { base: 30 * S, resident: 2 * S }));
        assert_eq!(extents.take(6 * S), None);
        extents.check().expect("sound");
    }

    #[test]
    fn what_no_moment_of_an_epoch_needed_is_dropped_at_its_end() {
        let mut extents = Extents::EMPTY;
        let mut dropped = Vec::new();
        let mut pass = |extents: &mut Extents, idle| {
            extents.pass_epoch(idle, |base, len| {
                dropped.push((base, len));
                true
            });
            extents.check().expect("sound");
            core::mem::take(&mut dropped)
        };
        extents.insert(10 * S, 4 * S, 4 * S);
        assert_eq!(pass(&mut extents, false), [], "it came in this epoch");
        for _ in 0..2 {
            let used = extents.take(S).expect("there is one");
            assert!(extents.insert(used.base, S, used.resident), "its neighbour's, too");
        }
        assert_eq!(pass(&mut extents, false), [(11 * S, 3 * S)], "one was needed");
        extents.insert(20 * S, S, S);
        assert_eq!(pass(&mut extents, false), [(20 * S, S)], "as much as was never needed");
        extents.insert(30 * S, S, S);
        assert_eq!(pass(&mut extents, true), [(30 * S, S), (10 * S, S)]);
        assert_eq!((extents.bytes(), extents.resident()), (0, 0));
    }

    #[test]
    fn a_refused_unmap_keeps_the_extent() {
        let mut extents = Extents::EMPTY;
        extents.insert(10 * S, 4 * S, 4 * S);
        extents.drop_above(0, |_, _| false);
        assert_eq!(extents.bytes(), 4 * S);
        extents.drop_above(S, |_, _| true);
        assert_eq!(extents.bytes(), S);
        extents.check().expect("sound");
    }

    #[test]
    fn a_full_list_refuses_and_stays_sound() {
        let mut extents = Extents::EMPTY;
        for i in 0..ROOM {
            assert!(extents.insert((2 * i + 2) * S, S, S));
        }
        assert!(!extents.insert(1 << 45, S, S));
        extents.check().expect("sound");
    }

    #[test]
    fn pages_are_counted_with_the_part_that_is_taken_or_dropped() {
        let mut extents = Extents::EMPTY;
        extents.insert(10 * S, 2 * S, S);
        extents.insert(12 * S, 2 * S, S);
        assert_eq!(extents.take(S), Some(Reused { base: 10 * S, resident: S / 2 }));
        extents.drop_above(S, |base, len| {
            assert_eq!((base, len), (13 * S, S), "the least that holds what is too much");
            true
        });
        assert_eq!((extents.bytes(), extents.resident()), (2 * S, S));
        extents.check().expect("sound");
    }
}
