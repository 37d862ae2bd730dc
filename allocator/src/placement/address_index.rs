//! Free blocks in address order, found without walking them.
//!
//! At the front of each region stand, beside its blocks: one bit per 16 bytes ("a free block starts
//! here"); per slice of 1 KiB, which is a word of bits, a bound on its largest free block, under a tree
//! of maxima of 32; and for sixteen request sizes the slice before which nothing fits. A search starts
//! at that slice, follows bounds to the first slice that may serve the request, and reads the blocks of
//! that slice. Layout and upkeep of the tree are `address_view`'s.
//!
//! Owns that side index (1 % of a region) and two guard words in each listed block.
//!
//! Cost: insert and remove set one bit, and a block that takes in its successor keeps its own; an
//! insert raises bounds until one is high enough already, and lowers hints in one pass over their line. A search reads one cache line per level that it climbs
//! (none where the hint leads to a neighbour) and the free blocks of the slices it visits. Bounds are
//! lowered lazily: a slice, or a group of slices, that disappoints a search gets its true maximum then,
//! which the removal before it has paid for. So a search is bounded by 32 blocks per slice visited and
//! visits few: 100,000 free blocks cost what 1,000 do.
//!
//! # Invariants
//! 1. A bit is set exactly while a listed block starts at its grain.
//! 2. The bound of a slice is at least the largest listed block that starts in it.
//! 3. The bound of an inner entry is at least each of its children's.
//! 4. No listed block that starts before a hint's slice serves the hint's request.

use super::address_view::{SLICE, View};
use crate::block::{Fault, FaultKind, FreeBlock, GRAIN, Ground, HEADER, Listed};
use crate::block::{fault_at, fit, follow, link, load, store};

/// The index over all regions of a heap.
#[derive(Debug)]
pub(super) struct AddressIndex {
    view: View,
    region: usize,
    pub(super) examined: u64,
}

impl AddressIndex {
    pub(super) const EMPTY: Self = Self { view: View::NONE, region: 0, examined: 0 };

    pub(super) fn bytes(limit: usize) -> usize {
        View::bytes(limit)
    }

    pub(super) fn forget(&mut self) {
        self.view = View::NONE;
    }

    #[inline(always)]
    fn view(&mut self, ground: &Ground, region: usize) -> View {
        if self.view.base == 0 || self.region != region {
            self.view = ground.regions.get(region).map_or(View::NONE, View::of);
            self.region = region;
        }
        self.view
    }

    /// # Safety
    /// As for `Placement::insert`.
    #[inline(always)]
    pub(super) unsafe fn insert(&mut self, ground: &Ground, block: FreeBlock) {
        let view = self.view(ground, block.region);
        let grain = view.grain(block.at);
        let (slice, grains) = (grain / 64, block.size / GRAIN);
        view.set_word(slice, view.word(slice) | 1 << (grain % 64));
        view.raise(slice, grains);
        view.hint_at_most(grains, slice);
        // SAFETY: the first words of a free block are the placement's.
        unsafe { guard(ground, block.at) };
    }

    /// # Safety
    /// As for `Placement::remove`.
    #[inline(always)]
    pub(super) unsafe fn remove(&mut self, ground: &Ground, block: FreeBlock) -> Result<(), Fault> {
        // SAFETY: the caller's promise.
        unsafe { self.listed(ground, block) }?;
        let view = self.view(ground, block.region);
        let grain = view.grain(block.at);
        // The slice's bound stays: a search that it misleads lowers it.
        view.set_word(grain / 64, view.word(grain / 64) & !(1 << (grain % 64)));
        Ok(())
    }

    /// As `remove`, for a block that a search has just found: its slice is where the next one looks.
    ///
    /// # Safety
    /// As for `Placement::remove`.
    #[inline(always)]
    pub(super) unsafe fn take_out(
        &mut self,
        ground: &Ground,
        block: FreeBlock,
    ) -> Result<(), Fault> {
        // SAFETY: the caller's promise.
        unsafe { self.remove(ground, block) }?;
        let view = self.view(ground, block.region);
        let slice = view.grain(block.at) / 64;
        view.lower_if(slice, view.word(slice), 0);
        Ok(())
    }

    /// Says that a listed block that a search has just found will have `size` bytes.
    ///
    /// # Errors
    /// As for `remove`.
    ///
    /// # Safety
    /// As for `Placement::remove`.
    #[inline(always)]
    pub(super) unsafe fn shrink(
        &mut self,
        ground: &Ground,
        block: FreeBlock,
        size: usize,
    ) -> Result<(), Fault> {
        // SAFETY: the caller's promise.
        unsafe { self.listed(ground, block) }?;
        let view = self.view(ground, block.region);
        let grain = view.grain(block.at);
        let others = view.word(grain / 64) & !(1 << (grain % 64));
        view.lower_if(grain / 64, others, size / GRAIN);
        Ok(())
    }

    /// Whether a block is listed and its guard words are as they were written.
    ///
    /// # Safety
    /// As for `Placement::absorb`.
    #[inline(always)]
    pub(super) unsafe fn listed(&mut self, ground: &Ground, block: FreeBlock) -> Result<(), Fault> {
        let view = self.view(ground, block.region);
        let grain = view.grain(block.at);
        if view.word(grain / 64) >> (grain % 64) & 1 == 0 {
            return Err(fault_at(FaultKind::CorruptIndex, block.at, block.size));
        }
        // SAFETY: the block is listed.
        if !unsafe { guarded(ground, block.at) } {
            return Err(fault_at(FaultKind::UseAfterFree, block.at, block.size));
        }
        Ok(())
    }

    /// Says how large a listed block has become.
    #[inline(always)]
    pub(super) fn grew(&mut self, ground: &Ground, block: FreeBlock) {
        let view = self.view(ground, block.region);
        let (slice, grains) = (view.grain(block.at) / 64, block.size / GRAIN);
        view.raise(slice, grains);
        view.hint_at_most(grains, slice);
    }

    /// The first block at or after address `from` in `region` that serves the request; still listed.
    #[inline(always)]
    pub(super) fn find(
        &mut self,
        ground: &Ground,
        region: usize,
        from: usize,
        need: usize,
        align: usize,
    ) -> Result<Option<FreeBlock>, Fault> {
        let view = self.view(ground, region);
        let grains = need / GRAIN;
        let hint = view.hint(grains);
        let mut grain = if from <= view.base { 0 } else { view.grain(from) };
        // What a search from the hint passes over, nothing will find until a block comes there.
        let learns = grain <= hint * 64 && align <= GRAIN;
        grain = grain.max(hint * 64);
        while let Some(slice) = view.next_slice(grain / 64, grains) {
            let begin = grain.max(slice * 64);
            let mut bits = view.word(slice) & (u64::MAX << (begin % 64));
            let mut largest = 0;
            while bits != 0 {
                let at = view.base + (slice * 64 + bits.trailing_zeros() as usize) * GRAIN + HEADER;
                self.examined += 1;
                // SAFETY: a set bit marks a listed block.
                let size = unsafe { ground.free_size(at) }?;
                if fit(at, size, need, align).is_some() {
                    if learns && slice != hint {
                        view.hint_at_least(grains, slice);
                    }
                    return Ok(Some(FreeBlock { at, size, region }));
                }
                largest = largest.max(size / GRAIN);
                bits &= bits - 1;
            }
            grain = slice * 64 + 64;
            if begin % 64 == 0 {
                view.lower(slice, largest);
            }
        }
        if learns {
            view.hint_at_least(grains, view.slices);
        }
        Ok(None)
    }

    pub(super) fn check(&self, ground: &Ground) -> Result<Listed, Fault> {
        let mut listed = Listed::default();
        for region in ground.regions.iter() {
            let view = View::of(region);
            for slice in 0..view.slices {
                let mut largest = 0;
                let mut bits = view.word(slice);
                while bits != 0 {
                    let grain = slice * 64 + bits.trailing_zeros() as usize;
                    let at = view.base + grain * GRAIN + HEADER;
                    // SAFETY: a set bit marks a listed block.
                    let size = unsafe { ground.free_size(at) }?;
                    // SAFETY: as above.
                    if !unsafe { guarded(ground, at) } {
                        return Err(fault_at(FaultKind::UseAfterFree, at, size));
                    }
                    listed.blocks += 1;
                    listed.bytes += size;
                    largest = largest.max(size / GRAIN);
                    bits &= bits - 1;
                }
                if !view.covers(slice, largest) {
                    return Err(fault_at(FaultKind::CorruptIndex, view.base + slice * SLICE, 0));
                }
            }
        }
        Ok(listed)
    }
}

/// Writes the guard words of a listed block: they hold no link, only evidence of stale writes.
///
/// # Safety
/// The block is free.
#[inline(always)]
unsafe fn guard(ground: &Ground, at: usize) {
    // SAFETY: the first payload word of a free block.
    unsafe { link(at + HEADER, at, ground.secret) };
    // SAFETY: just written.
    let word = unsafe { load(at + HEADER) };
    // SAFETY: the second payload word of a free block.
    unsafe { store(at + HEADER + 8, !word) };
}

/// Whether the guard words are as they were written.
///
/// # Safety
/// The block is listed.
#[inline(always)]
unsafe fn guarded(ground: &Ground, at: usize) -> bool {
    // SAFETY: both words lie in the block.
    let words = unsafe { (load(at + HEADER), load(at + HEADER + 8)) };
    // SAFETY: as above.
    words.0 == !words.1 && unsafe { follow(at + HEADER, ground.secret) } == Some(at)
}
