//! Size classes of bitmap spans: 1 KiB, and eight to a doubling from there to 1 MiB, and how long a span of
//! each class is.
//!
//! A class's first spans are just long enough for four blocks; later ones are longer, so that a
//! class used in earnest refills rarely. Starting long would leave most of a cold class's span
//! resident and unused.
#![expect(clippy::indexing_slicing, reason = "only while tables are computed, at compile time")]

use crate::slab::MAX_SLAB;
use crate::units::{MMAP_THRESHOLD, SKIPPED, SLICE};

/// The largest request a bitmap span serves.
pub(crate) const MAX_BITMAP: usize = 1 << 20;
/// From this size on a span knows which of its blocks are still zero.
pub(crate) const KNOWS_ZERO: usize = 32 << 10;
/// Number of classes: the smallest, eight for each of the ten doublings, and [`AT_THRESHOLD`].
pub(crate) const CLASSES: usize = 82;
/// Blocks as large as those of the class before it, for requests of [`MMAP_THRESHOLD`] alone: smaller ones
/// may come from the break.
const AT_THRESHOLD: usize = class_number(MMAP_THRESHOLD) - FIRST + 1;
/// Blocks of a span at most; one bit of the word is taken.
const MAX_BLOCKS: usize = 63;
/// How many spans of a class a heap holds before they get longer.
const SHORT_SPANS: u16 = 4;
/// Blocks of every class lie at multiples of this.
pub(super) const BLOCK_ALIGN: usize = 128;

/// A row of the class table. Invariant: below [`CLASSES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SizeClass(usize);

/// Number that makes the class of the smallest size 0.
const FIRST: usize = class_number(MAX_SLAB + 1);

const fn class_number(size: usize) -> usize {
    let last = size - 1;
    let log = last.ilog2() as usize;
    (log << 3) + (last >> (log - 3))
}

const SIZES: [u32; CLASSES] = {
    let mut sizes = [0; CLASSES];
    let mut class = 0;
    while class < CLASSES {
        // The inverse of `class_number`.
        let number = FIRST + class - (class >= AT_THRESHOLD) as usize;
        let log = number / 8 - 1;
        sizes[class] = ((number - 8 * log + 1) as u32) << (log - 3);
        class += 1;
    }
    sizes
};
const _: () = {
    let mut class = 0;
    while class < CLASSES {
        assert!((SIZES[class] as usize).is_multiple_of(BLOCK_ALIGN), "so are all blocks");
        class += 1;
    }
};
const _: () = assert!(SIZES[CLASSES - 1] as usize == MAX_BITMAP, "the classes end at the limit");
const _: () = assert!(class_number(MAX_BITMAP) - FIRST == CLASSES - 2, "sizes and numbers agree");
const _: () = assert!(SIZES[AT_THRESHOLD] as usize == MMAP_THRESHOLD, "it holds what it is for");

/// Slices of a span that wastes least, between `least` and a half more; none that no block reaches into.
const fn best_length(size: usize, least: usize) -> u8 {
    let most = if least < 15 { least + least / 2 } else { least };
    let (mut best, mut best_waste) = (least, usize::MAX);
    let mut slices = least;
    while slices <= most {
        let bytes = slices * SLICE;
        let blocks = if bytes / size > MAX_BLOCKS { MAX_BLOCKS } else { bytes / size };
        let waste = (bytes - blocks * size) * 1024 / bytes;
        if waste < best_waste {
            (best, best_waste) = ((blocks * size).div_ceil(SLICE), waste);
        }
        slices += 1;
    }
    best as u8
}

const fn lengths(short: bool) -> [u8; CLASSES] {
    let mut lengths = [0; CLASSES];
    let mut class = 0;
    while class < CLASSES {
        let size = SIZES[class] as usize;
        let target = if size > 512 << 10 {
            size + SKIPPED * size
        } else if size > 240 << 10 {
            2 * size + SKIPPED * size
        } else if short {
            4 * size
        } else if size <= 8 << 10 {
            64 << 10
        } else if size <= 32 << 10 {
            240 << 10
        } else {
            960 << 10
        };
        lengths[class] = best_length(size, target.div_ceil(SLICE));
        class += 1;
    }
    lengths
}

const SHORT: [u8; CLASSES] = lengths(true);
const LONG: [u8; CLASSES] = lengths(false);

const INVERSES: [u32; CLASSES] = {
    let mut inverses = [0; CLASSES];
    let mut class = 0;
    while class < CLASSES {
        inverses[class] = ((1u64 << 32) / SIZES[class] as u64 + 1) as u32;
        class += 1;
    }
    inverses
};

impl SizeClass {
    pub(crate) const SMALLEST: Self = SizeClass(0);

    /// The class that serves `size` bytes, above [`MAX_SLAB`] and at most [`MAX_BITMAP`].
    #[inline(always)]
    pub(crate) const fn of(size: usize) -> Self {
        debug_assert!(size > MAX_SLAB && size <= MAX_BITMAP);
        let last = size - 1;
        // `^ 63` of the leading zeros is what `bsr` computes; the mask spares a check.
        let log = (last.leading_zeros() ^ 63) as usize;
        let number = (log << 3) + (last >> (log.wrapping_sub(3) & 63));
        SizeClass(number.wrapping_sub(FIRST) + (size >= MMAP_THRESHOLD) as usize)
    }

    /// The class with this number; it came from [`SizeClass::index`].
    #[inline(always)]
    pub(crate) const fn from_index(index: u8) -> Self {
        debug_assert!((index as usize) < CLASSES);
        SizeClass(index as usize)
    }

    /// The class with this number, if there is one.
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        ((number as usize) < CLASSES).then_some(SizeClass(number as usize))
    }

    /// All classes, smallest first.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..CLASSES).map(SizeClass)
    }

    /// The smallest class that serves `size` bytes at a multiple of `align`, if there is one:
    /// blocks lie at multiples of their size from the start of a slice.
    pub(crate) fn aligned(size: usize, align: usize) -> Option<Self> {
        if size > MAX_BITMAP || align > SLICE {
            return None;
        }
        let first = if size > MAX_SLAB { SizeClass::of(size).0 } else { 0 };
        (first..CLASSES).map(SizeClass).find(|class| class.size() & (align - 1) == 0)
    }

    /// Position in tables of [`CLASSES`] entries.
    #[inline(always)]
    pub(crate) const fn index(self) -> usize {
        self.0
    }

    /// Bytes of one block.
    #[inline(always)]
    pub(crate) const fn size(self) -> usize {
        // SAFETY: below CLASSES by the type's invariant.
        unsafe { *SIZES.as_ptr().add(self.0) as usize }
    }

    /// Whether spans of this class know which of their blocks are still zero.
    #[inline(always)]
    pub(crate) const fn knows_zero(self) -> bool {
        const FIRST_TO_KNOW: SizeClass = SizeClass::of(KNOWS_ZERO);
        self.0 >= FIRST_TO_KNOW.0
    }

    /// 2^32 / size, rounded up.
    pub(crate) const fn inverse(self) -> u32 {
        // SAFETY: as above.
        unsafe { *INVERSES.as_ptr().add(self.0) }
    }

    /// Slices of the next span when a heap holds `spans` of this class.
    pub(crate) const fn span_slices(self, spans: u16) -> usize {
        let table = if spans < SHORT_SPANS { &SHORT } else { &LONG };
        // SAFETY: as above.
        unsafe { *table.as_ptr().add(self.0) as usize }
    }

    /// Slices of the shortest span, for when memory is short: one block. Spans that know what is zero note
    /// it in their second record.
    pub(crate) const fn least_slices(self) -> usize {
        let least = ((1 + SKIPPED) * self.size()).div_ceil(SLICE);
        if self.knows_zero() && least < 2 { 2 } else { least }
    }

    /// Blocks of a span of `slices`.
    pub(crate) const fn blocks(self, slices: usize) -> usize {
        let blocks = slices * SLICE / self.size();
        if blocks > MAX_BLOCKS { MAX_BLOCKS } else { blocks }
    }

    /// Whether a span of this class may have so many slices, those of its tail among them. Where memory is
    /// short it has as many as there were.
    pub(crate) fn may_have(self, slices: usize) -> bool {
        let most = self.span_slices(0).max(self.span_slices(SHORT_SPANS));
        (self.least_slices()..=most).contains(&slices.wrapping_sub(self.tail()))
    }

    /// The blocks of a span of so many slices that are handed out, a bit each.
    #[inline(always)]
    pub(crate) const fn mask(self, slices: usize) -> u64 {
        let blocks = self.blocks(slices - self.tail());
        (u64::MAX >> (64 - blocks)) & (u64::MAX << SKIPPED)
    }

    /// Slices at the end of a span in which nobody may write: hardened builds, large classes.
    pub(crate) const fn tail(self) -> usize {
        if cfg!(feature = "hardened") && self.is_large() { 1 } else { 0 }
    }

    /// Whether requests of this class belong to `mmap` rather than `sbrk`.
    pub(crate) const fn is_large(self) -> bool {
        self.0 >= AT_THRESHOLD
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_has_the_smallest_class_that_holds_it() {
        for size in (MAX_SLAB + 1)..=MAX_BITMAP {
            let class = SizeClass::of(size);
            assert!(class.size() >= size);
            assert_eq!(class.is_large(), size >= MMAP_THRESHOLD);
            let smaller = SizeClass(class.0.saturating_sub(1));
            assert!(class.0 == 0 || smaller.size() < size || !smaller.is_large());
        }
    }

    #[test]
    fn the_reciprocal_finds_every_block() {
        for class in SizeClass::all() {
            let lengths = [0, SHORT_SPANS].map(|spans| class.span_slices(spans));
            for slices in lengths.into_iter().chain([class.least_slices()]) {
                let blocks = class.blocks(slices);
                assert!((1..=MAX_BLOCKS).contains(&blocks) && slices < 128);
                for block in 0..blocks {
                    let offset = (block * class.size()) as u64;
                    assert_eq!((offset * u64::from(class.inverse())) >> 32, block as u64);
                }
            }
        }
    }
}
