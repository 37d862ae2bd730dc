//! Free blocks in address order, found without walking them.
//!
//! At the front of each region stand one bit per 16 bytes ("a free block starts here") and, per
//! slice of 4 KiB, a bound on its largest free block, under a tree of maxima of sixteen. A search
//! follows bounds to the first slice that may serve the request and reads the blocks of that slice.
//!
//! Owns that side index (1/128 + 1/1024 of a region, and what the tree adds: under 1 %) and two
//! guard words in each listed block.
//!
//! Cost: insert and remove set one bit; an insert raises bounds until one is high enough already.
//! A search reads one cache line per level (three for 16 MiB) and the free blocks of the slices it
//! visits. Bounds are lowered lazily: a slice that disappoints a search gets its true maximum then,
//! which the removal before it has paid for. So a search is bounded by 128 blocks per slice visited
//! and visits few: 100,000 free blocks cost what 1,000 do.
//!
//! # Invariants
//! 1. A bit is set exactly while a listed block starts at its grain.
//! 2. The bound of a slice is at least the largest listed block that starts in it.
//! 3. The bound of an inner entry is at least each of its sixteen children's.

use crate::block::{Fault, FaultKind, FreeBlock, GRAIN, Ground, HEADER, Listed, Region};
use crate::block::{fault_at, fit, follow, link, load, store};

const SLICE: usize = 4096;
const FAN: usize = 16;
/// Bitmap words per slice.
const WORDS: usize = SLICE / GRAIN / 64;

/// Where the side index of a region lies.
#[derive(Clone, Copy, Debug)]
struct View {
    /// Start of the region, rounded up to a cache line: bitmap first, then the tree from its root.
    base: usize,
    /// Number of slices.
    slices: usize,
    /// Number of the first leaf among the entries of the tree.
    leaf: usize,
}

/// Entries above the leaves for `slices` leaves: entry e has children 16 (e + 1) and on.
const fn leaf_of(slices: usize) -> usize {
    let (mut leaf, mut reach) = (0, FAN);
    while reach < slices {
        leaf = FAN * (leaf + 1);
        reach *= FAN;
    }
    leaf
}

impl View {
    const NONE: Self = Self { base: 0, slices: 0, leaf: 0 };

    #[inline(always)]
    const fn of(region: &Region) -> Self {
        let base = (region.base + 63) & !63;
        let slices = (region.limit - base).div_ceil(SLICE);
        Self { base, slices, leaf: leaf_of(slices) }
    }

    #[inline(always)]
    const fn grain(&self, at: usize) -> usize {
        (at - self.base) / GRAIN
    }

    #[inline(always)]
    fn word(&self, index: usize) -> u64 {
        // SAFETY: the bitmap covers every grain of the region and begins at `base`.
        unsafe { load(self.base + index * 8) }
    }

    #[inline(always)]
    fn set_word(&self, index: usize, bits: u64) {
        // SAFETY: as in `word`; the side index is written by the heap's one user only.
        unsafe { store(self.base + index * 8, bits) };
    }

    #[inline(always)]
    fn entry(&self, index: usize) -> *mut u32 {
        let tree = self.base + self.slices * WORDS * 8;
        core::ptr::with_exposed_provenance_mut::<u32>(tree + index * 4)
    }

    #[inline(always)]
    fn bound(&self, index: usize) -> u32 {
        // SAFETY: `index` is an entry of the tree: a leaf below `slices` rounded up to 16, or above.
        unsafe { *self.entry(index) }
    }

    #[inline(always)]
    fn set_bound(&self, index: usize, grains: u32) {
        // SAFETY: as in `bound`.
        unsafe { *self.entry(index) = grains };
    }

    /// The entries of a group of sixteen, from entry `first` (a multiple of 16).
    #[inline(always)]
    fn group(&self, first: usize) -> [u32; FAN] {
        // SAFETY: groups are whole and aligned to 64 bytes, as `base` and the bitmap's length are.
        unsafe { *self.entry(first).cast::<[u32; FAN]>() }
    }

    /// Which entries of a group reach `grains`, as bits.
    #[inline(always)]
    fn reaching(&self, first: usize, grains: u32) -> u32 {
        #[cfg(target_arch = "x86_64")]
        {
            use core::arch::x86_64::{
                _mm_cmpgt_epi32, _mm_load_si128, _mm_movemask_epi8, _mm_packs_epi16,
                _mm_packs_epi32, _mm_set1_epi32,
            };
            // Bounds have 25 bits, so comparing them as signed numbers is right.
            let group = self.entry(first).cast::<core::arch::x86_64::__m128i>();
            // SAFETY: every x86_64 has SSE2; groups are whole and aligned to 64 bytes, as `base` and
            // the bitmap's length are.
            unsafe {
                let least = _mm_set1_epi32(grains as i32 - 1);
                let over = |part| _mm_cmpgt_epi32(_mm_load_si128(group.add(part)), least);
                let low = _mm_packs_epi32(over(0), over(1));
                let high = _mm_packs_epi32(over(2), over(3));
                _mm_movemask_epi8(_mm_packs_epi16(low, high)) as u32
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            let mut mask = 0;
            for (bit, bound) in self.group(first).into_iter().enumerate() {
                mask |= u32::from(bound >= grains) << bit;
            }
            mask
        }
    }

    /// Raises the bounds above leaf `slice` to at least `grains`.
    #[inline(always)]
    fn raise(&self, slice: usize, grains: u32) {
        let mut entry = self.leaf + slice;
        while self.bound(entry) < grains {
            self.set_bound(entry, grains);
            if entry < FAN {
                break;
            }
            entry = entry / FAN - 1;
        }
    }

    /// Sets the bound of `slice` to its true maximum, and the bounds above it.
    fn lower(&self, slice: usize, grains: u32) {
        let mut entry = self.leaf + slice;
        let mut bound = grains;
        while self.bound(entry) > bound {
            self.set_bound(entry, bound);
            if entry < FAN {
                break;
            }
            bound = self.group(entry / FAN * FAN).into_iter().fold(0, u32::max);
            entry = entry / FAN - 1;
        }
    }

    /// The first slice at or after `slice` whose bound reaches `grains`.
    #[inline(always)]
    fn next_slice(&self, slice: usize, grains: u32) -> Option<usize> {
        if slice >= self.slices {
            return None;
        }
        let mut entry = self.leaf + slice;
        // Upwards, to the right of what was asked for, until some bound reaches.
        loop {
            let group = entry / FAN * FAN;
            let right = self.reaching(group, grains) & (u32::MAX << (entry % FAN));
            if right != 0 {
                entry = group + right.trailing_zeros() as usize;
                break;
            }
            if entry < FAN {
                return None;
            }
            // The parent itself was just searched: go on with its right neighbour.
            entry /= FAN;
            if entry.is_multiple_of(FAN) {
                // The parent was the last of its group: climb past whole groups.
                loop {
                    if entry <= FAN {
                        return None;
                    }
                    entry = (entry - 1) / FAN;
                    if !entry.is_multiple_of(FAN) {
                        break;
                    }
                }
            }
        }
        // Downwards, leftmost first.
        while entry < self.leaf {
            let group = FAN * (entry + 1);
            let mask = self.reaching(group, grains);
            if mask == 0 {
                return None;
            }
            entry = group + mask.trailing_zeros() as usize;
        }
        Some(entry - self.leaf)
    }
}

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
        let slices = limit.div_ceil(SLICE);
        let entries = leaf_of(slices) + slices.next_multiple_of(FAN);
        64 + slices * WORDS * 8 + entries * 4
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
        view.set_word(grain / 64, view.word(grain / 64) | 1 << (grain % 64));
        // 25 bits of grains: no truncation.
        view.raise(grain / (SLICE / GRAIN), (block.size / GRAIN) as u32);
        // SAFETY: the first words of a free block are the placement's.
        unsafe { guard(ground, block.at) };
    }

    /// # Safety
    /// As for `Placement::remove`.
    #[inline(always)]
    pub(super) unsafe fn remove(&mut self, ground: &Ground, block: FreeBlock) -> Result<(), Fault> {
        let view = self.view(ground, block.region);
        let grain = view.grain(block.at);
        let word = view.word(grain / 64);
        if word >> (grain % 64) & 1 == 0 {
            return Err(fault_at(FaultKind::CorruptIndex, block.at, block.size));
        }
        // SAFETY: the block is listed.
        if !unsafe { guarded(ground, block.at) } {
            return Err(fault_at(FaultKind::UseAfterFree, block.at, block.size));
        }
        view.set_word(grain / 64, word & !(1 << (grain % 64)));
        Ok(())
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
        let first = if from <= view.base { 0 } else { view.grain(from) };
        let grains = (need / GRAIN) as u32;
        let mut grain = first;
        while let Some(slice) = view.next_slice(grain / (SLICE / GRAIN), grains) {
            let start = slice * (SLICE / GRAIN);
            let begin = grain.max(start);
            let mut largest = 0;
            for index in begin / 64..start / 64 + WORDS {
                let mut bits = view.word(index);
                if index == begin / 64 {
                    bits &= u64::MAX << (begin % 64);
                }
                while bits != 0 {
                    let at =
                        view.base + (index * 64 + bits.trailing_zeros() as usize) * GRAIN + HEADER;
                    self.examined += 1;
                    // SAFETY: a set bit marks a listed block.
                    let size = unsafe { ground.free_size(at) }?;
                    if fit(at, size, need, align).is_some() {
                        return Ok(Some(FreeBlock { at, size, region }));
                    }
                    largest = largest.max((size / GRAIN) as u32);
                    bits &= bits - 1;
                }
            }
            if begin == start {
                view.lower(slice, largest);
            }
            grain = start + SLICE / GRAIN;
        }
        Ok(None)
    }

    pub(super) fn check(&self, ground: &Ground) -> Result<Listed, Fault> {
        let mut listed = Listed::default();
        for region in ground.regions.iter() {
            let view = View::of(region);
            for slice in 0..view.slices {
                let mut largest = 0;
                for index in slice * WORDS..(slice + 1) * WORDS {
                    let mut bits = view.word(index);
                    while bits != 0 {
                        let grain = index * 64 + bits.trailing_zeros() as usize;
                        let at = view.base + grain * GRAIN + HEADER;
                        // SAFETY: a set bit marks a listed block.
                        let size = unsafe { ground.free_size(at) }?;
                        // SAFETY: as above.
                        if !unsafe { guarded(ground, at) } {
                            return Err(fault_at(FaultKind::UseAfterFree, at, size));
                        }
                        listed.blocks += 1;
                        listed.bytes += size;
                        largest = largest.max((size / GRAIN) as u32);
                        bits &= bits - 1;
                    }
                }
                let mut entry = view.leaf + slice;
                while view.bound(entry) >= largest {
                    if entry < FAN {
                        largest = 0;
                        break;
                    }
                    largest = view.bound(entry);
                    entry = entry / FAN - 1;
                }
                if view.bound(entry) < largest {
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
