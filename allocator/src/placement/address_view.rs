//! The side index of one region: where free blocks start, how large they are at most, where to look
//! first.
//!
//! ```text
//! base (a cache line)   bitmap                  tree, from its root
//! +---------------------+-----------------------+---------------------------+
//! | 16 hints            | a word per slice      | bounds of 16 bits, by 32  |
//! +---------------------+-----------------------+---------------------------+
//! ```
//! Owns those bytes, at the front of the region: 1/128 of it for the bitmap, 1/512 for the tree. What
//! the numbers mean is `address_index`'s; here they are found and kept consistent with each other.
//!
//! Cost: one cache line per level of the tree (three for 32 MiB); a hint is one line.

use crate::block::{GRAIN, Region, load, store};

/// Bytes of a slice: those that one word of the bitmap covers.
pub(super) const SLICE: usize = 64 * GRAIN;
/// Entries of a group of the tree: a cache line.
const FAN: usize = 32;

/// Requests that have a hint, in grains: every small one, and a few above.
const HINTED: [u32; 16] = [2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 16, 24, 32, 64, 256, 1024];
/// [`HINTED`], where vectors are loaded from.
#[cfg(target_arch = "x86_64")]
static LEASTS: [u32; HINTED.len()] = HINTED;
/// By grains, the last of [`HINTED`] that is not larger; whatever is larger has the last entry's.
#[expect(clippy::indexing_slicing, reason = "computed at compile time")]
const ROWS: [u8; 65] = {
    let mut rows = [0; 65];
    let mut grains = 3;
    while grains < rows.len() {
        rows[grains] = rows[grains - 1];
        if HINTED[rows[grains] as usize + 1] as usize == grains {
            rows[grains] += 1;
        }
        grains += 1;
    }
    rows
};
/// The row of a request that is larger than [`ROWS`] knows: that of 64 grains.
const LARGE: u8 = 13;
const LINE: usize = 64;
const _: () = assert!(size_of::<[u32; HINTED.len()]>() == LINE && FAN * 2 == LINE);

/// Where the side index of a region lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    /// Start of the region, rounded up to a cache line: the hints; 0: no region.
    pub(super) base: usize,
    /// The root of the tree.
    tree: usize,
    /// Number of slices.
    pub(super) slices: usize,
    /// Number of the first leaf among the entries of the tree.
    leaf: usize,
}

/// Entries above the leaves for `slices` leaves: entry e has children 32 (e + 1) and on.
const fn leaf_of(slices: usize) -> usize {
    let (mut leaf, mut reach) = (0, FAN);
    while reach < slices {
        leaf = FAN * (leaf + 1);
        reach *= FAN;
    }
    leaf
}

/// What the tree says of a block: its grains, as far as 16 bits reach.
#[inline(always)]
const fn bound_of(grains: usize) -> u16 {
    if grains > u16::MAX as usize { u16::MAX } else { grains as u16 }
}

impl View {
    pub(super) const NONE: Self = Self { base: 0, tree: 0, slices: 0, leaf: 0 };

    /// Bytes of side index for a region of at most `limit` bytes.
    pub(super) fn bytes(limit: usize) -> usize {
        let slices = limit.div_ceil(SLICE);
        let entries = leaf_of(slices) + slices.next_multiple_of(FAN);
        LINE + LINE + slices.next_multiple_of(LINE / 8) * 8 + entries * 2
    }

    #[inline(always)]
    pub(super) const fn of(region: &Region) -> Self {
        let base = (region.base + LINE - 1) & !(LINE - 1);
        let slices = (region.limit - base).div_ceil(SLICE);
        let tree = base + LINE + slices.next_multiple_of(LINE / 8) * 8;
        Self { base, tree, slices, leaf: leaf_of(slices) }
    }

    #[inline(always)]
    pub(super) const fn grain(&self, at: usize) -> usize {
        (at - self.base) / GRAIN
    }

    /// The blocks that start in `slice`, as bits.
    #[inline(always)]
    pub(super) fn word(&self, slice: usize) -> u64 {
        // SAFETY: the bitmap covers every slice of the region.
        unsafe { load(self.base + LINE + slice * 8) }
    }

    #[inline(always)]
    pub(super) fn set_word(&self, slice: usize, bits: u64) {
        // SAFETY: as in `word`; the side index is written by the heap's one user only.
        unsafe { store(self.base + LINE + slice * 8, bits) };
    }

    #[inline(always)]
    fn hints(&self) -> *mut [u32; HINTED.len()] {
        core::ptr::with_exposed_provenance_mut(self.base)
    }

    /// A slice before which no listed block holds `grains`.
    #[inline(always)]
    pub(super) fn hint(&self, grains: usize) -> usize {
        let row = ROWS.get(grains).copied().unwrap_or(LARGE);
        // SAFETY: the first line of the side index; rows are below 16.
        unsafe { *self.hints().cast::<u32>().add(usize::from(row)) as usize }
    }

    /// Says that a block of `grains` starts in `slice`.
    #[inline(always)]
    pub(super) fn hint_at_most(&self, grains: usize, slice: usize) {
        // Hints never fall from one request to a larger one.
        if self.hint(grains) <= slice {
            return;
        }
        // SAFETY: the first line of the side index, which nobody else uses.
        let hints = unsafe { &mut *self.hints() };
        for (hint, least) in hints.iter_mut().zip(HINTED) {
            // As signed numbers and without a jump: every x86_64 does four at a time.
            let holds = (least as i32 <= grains as i32) & (*hint as i32 > slice as i32);
            *hint = if holds { slice as u32 } else { *hint };
        }
    }

    /// Says that no block before `slice` holds `grains`.
    #[inline(always)]
    pub(super) fn hint_at_least(&self, grains: usize, slice: usize) {
        #[cfg(target_arch = "x86_64")]
        {
            use core::arch::x86_64::{
                __m128i, _mm_and_si128, _mm_andnot_si128, _mm_cmpgt_epi32, _mm_load_si128,
                _mm_loadu_si128, _mm_or_si128, _mm_set1_epi32, _mm_store_si128,
            };
            let (hints, leasts) =
                (self.hints().cast::<__m128i>(), LEASTS.as_ptr().cast::<__m128i>());
            // SAFETY: every x86_64 has SSE2; the hints are one aligned line, and as many leasts.
            unsafe {
                let (slice, grains) = (_mm_set1_epi32(slice as i32), _mm_set1_epi32(grains as i32));
                for part in 0..HINTED.len() / 4 {
                    let hint = _mm_load_si128(hints.add(part));
                    let smaller = _mm_cmpgt_epi32(grains, _mm_loadu_si128(leasts.add(part)));
                    let lacks = _mm_andnot_si128(smaller, _mm_cmpgt_epi32(slice, hint));
                    let kept = _mm_andnot_si128(lacks, hint);
                    _mm_store_si128(
                        hints.add(part),
                        _mm_or_si128(_mm_and_si128(lacks, slice), kept),
                    );
                }
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            // SAFETY: as in `hint_at_most`.
            let hints = unsafe { &mut *self.hints() };
            for (hint, least) in hints.iter_mut().zip(HINTED) {
                let lacks = (least as i32 >= grains as i32) & ((*hint as i32) < slice as i32);
                *hint = if lacks { slice as u32 } else { *hint };
            }
        }
    }

    #[inline(always)]
    fn entry(&self, index: usize) -> *mut u16 {
        core::ptr::with_exposed_provenance_mut::<u16>(self.tree + index * 2)
    }

    #[inline(always)]
    fn bound(&self, index: usize) -> u16 {
        // SAFETY: `index` is an entry of the tree: a leaf below `slices` rounded up to 32, or above.
        unsafe { *self.entry(index) }
    }

    #[inline(always)]
    fn set_bound(&self, index: usize, bound: u16) {
        // SAFETY: as in `bound`.
        unsafe { *self.entry(index) = bound };
    }

    /// The entries of a group, from entry `first` (a multiple of 32).
    #[inline(always)]
    fn group(&self, first: usize) -> [u16; FAN] {
        // SAFETY: groups are whole and aligned to 64 bytes, as `base` and the bitmap's length are.
        unsafe { *self.entry(first).cast::<[u16; FAN]>() }
    }

    /// Which entries of a group reach `bound` (not 0), as bits.
    #[inline(always)]
    fn reaching(&self, first: usize, bound: u16) -> u32 {
        #[cfg(target_arch = "x86_64")]
        {
            use core::arch::x86_64::{
                __m128i, _mm_cmpeq_epi16, _mm_load_si128, _mm_movemask_epi8, _mm_packs_epi16,
                _mm_set1_epi16, _mm_setzero_si128, _mm_subs_epu16,
            };
            let group = self.entry(first).cast::<__m128i>();
            // SAFETY: every x86_64 has SSE2; groups are whole and aligned to 64 bytes, as `base` and
            // the bitmap's length are.
            unsafe {
                let wanted = _mm_set1_epi16(bound as i16);
                let none = _mm_setzero_si128();
                let reach = |part| {
                    let lacking = _mm_subs_epu16(wanted, _mm_load_si128(group.add(part)));
                    _mm_cmpeq_epi16(lacking, none)
                };
                let low = _mm_movemask_epi8(_mm_packs_epi16(reach(0), reach(1))) as u32;
                let high = _mm_movemask_epi8(_mm_packs_epi16(reach(2), reach(3))) as u32;
                low | high << 16
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            let mut mask = 0;
            for (bit, entry) in self.group(first).into_iter().enumerate() {
                mask |= u32::from(entry >= bound) << bit;
            }
            mask
        }
    }

    /// Raises the bounds above `slice` to at least `grains`.
    #[inline(always)]
    pub(super) fn raise(&self, slice: usize, grains: usize) {
        let bound = bound_of(grains);
        let mut entry = self.leaf + slice;
        while self.bound(entry) < bound {
            self.set_bound(entry, bound);
            if entry < FAN {
                break;
            }
            entry = entry / FAN - 1;
        }
    }

    /// Sets the bound of `slice` to its true maximum. Those above stay until a search finds them wrong.
    #[inline(always)]
    pub(super) fn lower(&self, slice: usize, grains: usize) {
        self.set_bound(self.leaf + slice, bound_of(grains));
    }

    /// Sets the bound of `slice` to that of its only block, or to 0, if `bits` holds no other.
    #[inline(always)]
    pub(super) fn lower_if(&self, slice: usize, bits: u64, grains: usize) {
        let entry = self.leaf + slice;
        // Without a jump: whether a block was the last of its slice cannot be guessed.
        let bound = if bits == 0 { bound_of(grains) } else { self.bound(entry) };
        self.set_bound(entry, bound);
    }

    /// The first slice at or after `slice` whose bound reaches `grains`.
    #[inline(always)]
    pub(super) fn next_slice(&self, slice: usize, grains: usize) -> Option<usize> {
        if slice >= self.slices {
            return None;
        }
        let bound = bound_of(grains);
        let mut entry = self.leaf + slice;
        if self.bound(entry) >= bound {
            return Some(slice);
        }
        // Upwards, to the right of what was asked for, until some bound reaches.
        loop {
            let group = entry / FAN * FAN;
            let right = self.reaching(group, bound) & (u32::MAX << (entry % FAN));
            if right != 0 {
                entry = group + right.trailing_zeros() as usize;
                if let Some(slice) = self.leftmost(&mut entry, bound) {
                    return Some(slice);
                }
                continue;
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
    }

    /// The first slice under `entry` that reaches `bound`; if there is none, the bound that said so is
    /// set to what is true, and `entry` to its place.
    #[inline(always)]
    fn leftmost(&self, entry: &mut usize, bound: u16) -> Option<usize> {
        while *entry < self.leaf {
            let group = FAN * (*entry + 1);
            let mask = self.reaching(group, bound);
            if mask == 0 {
                let truth = self.group(group).into_iter().fold(0, u16::max);
                self.set_bound(*entry, truth);
                return None;
            }
            *entry = group + mask.trailing_zeros() as usize;
        }
        Some(*entry - self.leaf)
    }

    /// Whether every bound above `slice` reaches `grains`, the largest block that starts there, and no
    /// hint passes it over.
    pub(super) fn covers(&self, slice: usize, grains: usize) -> bool {
        if grains >= 2 && self.hint(grains) > slice {
            return false;
        }
        let mut least = bound_of(grains);
        let mut entry = self.leaf + slice;
        loop {
            if self.bound(entry) < least {
                return false;
            }
            if entry < FAN {
                return true;
            }
            least = self.bound(entry);
            entry = entry / FAN - 1;
        }
    }
}
