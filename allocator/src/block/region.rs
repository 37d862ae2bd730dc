//! Regions: the ranges of memory that a heap is built on, and where they come from.
//!
//! Owns the table of regions, sorted by address. Cost: the region of an address is found by one
//! comparison when it is the last one used, else by binary search over at most [`MAX_REGIONS`].
//!
//! # Invariants of [`Regions`]
//! 1. Entries are sorted by `base` and do not overlap.
//! 2. `base <= first < end <= limit`; `first` and `end - 8` lie 8 above a multiple of 16.
//! 3. Bytes `base..end` are committed and belong to the heap alone.

use super::header::{GRAIN, HEADER};

/// Regions a heap can hold. A heap that grows by an eighth of itself reaches any address space.
pub const MAX_REGIONS: usize = 160;

/// A range of memory given to a heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First byte. Its provenance is exposed.
    pub base: usize,
    /// Bytes usable now.
    pub bytes: usize,
    /// Bytes that [`Source::extend`] may reach in place (≥ `bytes`).
    pub limit: usize,
    /// Whether all bytes are known to be zero.
    pub zeroed: bool,
}

/// What [`Source::extend`] added behind a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Added {
    /// Bytes, 0 if the region cannot grow.
    pub bytes: usize,
    /// Whether they are known to be zero.
    pub zeroed: bool,
}

/// Where a heap gets its regions.
///
/// # Safety
/// A range returned by `acquire` or added by `extend` is readable and writable, overlaps nothing
/// that anyone else uses, has exposed provenance, and stays so until it is given back by `shrink` or
/// `release`. `acquire` returns at least the bytes asked for, and `base + limit` does not overflow.
pub unsafe trait Source {
    /// A new region of at least `bytes`, or `None` if there is none.
    fn acquire(&mut self, bytes: usize) -> Option<Extent>;

    /// At most how long a region becomes that `acquire(bytes)` returns: what its index must cover.
    fn reach(&self, bytes: usize) -> usize {
        bytes
    }

    /// Adds at least `bytes` behind the region that ends at `end`, or nothing.
    fn extend(&mut self, base: usize, end: usize, bytes: usize) -> Added {
        let _ = (base, end, bytes);
        Added { bytes: 0, zeroed: false }
    }

    /// Takes back the last `bytes` of the region that ends at `end`; returns what was taken.
    fn shrink(&mut self, base: usize, end: usize, bytes: usize) -> usize {
        let _ = (base, end, bytes);
        0
    }

    /// Takes back a whole region, now `bytes` long and with the limit it came with. `false`: it
    /// stays the heap's.
    fn release(&mut self, base: usize, bytes: usize, limit: usize) -> bool {
        let _ = (base, bytes, limit);
        false
    }

    /// Granularity in which `shrink` can give back memory.
    fn page(&self) -> usize {
        4096
    }
}

/// One region of a heap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Region {
    /// First byte; the placement's side index lies here.
    pub(crate) base: usize,
    /// Header of the first block.
    pub(crate) first: usize,
    /// End of committed bytes; the fence is the last header before it.
    pub(crate) end: usize,
    /// How far the region may be extended.
    pub(crate) limit: usize,
}

impl Region {
    /// Address of the fence: a header in use, of size 0.
    #[inline(always)]
    pub(crate) const fn fence(&self) -> usize {
        self.end - HEADER
    }

    /// Whether a block can start at `at`.
    #[inline(always)]
    pub(crate) const fn holds(&self, at: usize) -> bool {
        at >= self.first && at < self.fence() && at & (GRAIN - 1) == HEADER
    }
}

/// The regions of one heap.
#[derive(Clone, Debug)]
pub(crate) struct Regions {
    entries: [Region; MAX_REGIONS],
    len: usize,
}

impl Regions {
    pub(crate) const fn new() -> Self {
        let none = Region { base: 0, first: 0, end: 0, limit: 0 };
        Self { entries: [none; MAX_REGIONS], len: 0 }
    }

    #[inline(always)]
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) const fn is_full(&self) -> bool {
        self.len == MAX_REGIONS
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Region> + Clone {
        self.entries.iter().take(self.len)
    }

    #[inline(always)]
    pub(crate) fn get(&self, index: usize) -> Option<&Region> {
        if index < self.len { self.entries.get(index) } else { None }
    }

    #[inline(always)]
    pub(crate) fn get_mut(&mut self, index: usize) -> Option<&mut Region> {
        if index < self.len { self.entries.get_mut(index) } else { None }
    }

    /// Index of the region that holds `address`, `hint` tried first.
    #[inline(always)]
    pub(crate) fn find(&self, address: usize, hint: usize) -> Option<usize> {
        if let Some(region) = self.get(hint)
            && address.wrapping_sub(region.base) < region.end - region.base
        {
            return Some(hint);
        }
        self.search(address)
    }

    fn search(&self, address: usize) -> Option<usize> {
        let after = self.position(address);
        let index = after.checked_sub(1)?;
        let region = self.get(index)?;
        (address < region.end).then_some(index)
    }

    /// How many regions start at or below `address`.
    fn position(&self, address: usize) -> usize {
        let (mut low, mut high) = (0, self.len);
        while low < high {
            let middle = (low + high) / 2;
            match self.entries.get(middle) {
                Some(region) if region.base <= address => low = middle + 1,
                _ => high = middle,
            }
        }
        low
    }

    /// Adds a region; returns its index, `None` if the table is full.
    pub(crate) fn insert(&mut self, region: Region) -> Option<usize> {
        if self.is_full() {
            return None;
        }
        let index = self.position(region.base);
        self.len += 1;
        let tail = self.entries.get_mut(index..self.len)?;
        // By pairs: `rotate_right` has a panic that the optimiser cannot see past.
        for i in (1..tail.len()).rev() {
            swap_with_previous(tail, i);
        }
        *tail.first_mut()? = region;
        Some(index)
    }

    pub(crate) fn remove(&mut self, index: usize) {
        if let Some(tail) = self.entries.get_mut(index..self.len) {
            for i in 1..tail.len() {
                swap_with_previous(tail, i);
            }
            self.len -= 1;
        }
    }
}

fn swap_with_previous(regions: &mut [Region], index: usize) {
    if let Some([previous, this]) = regions.get_mut(index - 1..=index) {
        core::mem::swap(previous, this);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(base: usize, bytes: usize) -> Region {
        Region { base, first: base + 8, end: base + bytes, limit: base + bytes }
    }

    #[test]
    fn the_region_of_an_address_is_found_whatever_the_order_of_arrival() {
        let mut regions = Regions::new();
        for base in [0x30000, 0x10000, 0x50000, 0x20000] {
            assert!(regions.insert(region(base, 0x8000)).is_some());
        }
        for hint in 0..6 {
            assert_eq!(regions.find(0x0ffff, hint), None);
            assert_eq!(regions.find(0x10000, hint), Some(0));
            assert_eq!(regions.find(0x17fff, hint), Some(0));
            assert_eq!(regions.find(0x18000, hint), None);
            assert_eq!(regions.find(0x53333, hint), Some(3));
        }
        regions.remove(1);
        assert_eq!(regions.find(0x20000, 1), None);
        assert_eq!(regions.find(0x30000, 1), Some(1));
        assert_eq!(regions.len(), 3);
    }

    #[test]
    fn a_full_table_refuses_one_more_region() {
        let mut regions = Regions::new();
        for index in 0..MAX_REGIONS {
            assert_eq!(regions.insert(region(0x10000 * (index + 1), 0x1000)), Some(index));
        }
        assert_eq!(regions.insert(region(0x10, 0x10)), None);
    }
}
