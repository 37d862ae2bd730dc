//! Size classes of slabs: multiples of 16 to 256 bytes, then eight to a doubling, up to 960: of blocks of
//! 1 KiB a slice holds too few to be worth a refill.
//!
//! Finer classes above 256 bytes waste less inside blocks, but every class a thread uses holds a
//! span that is partly unused; with 63 classes of 16 bytes that costs more than it saves.
#![expect(clippy::indexing_slicing, reason = "only while tables are computed, at compile time")]

use crate::units::{MIN_ALIGN, SLICE};

/// The largest request a slab serves.
pub(crate) const MAX_SLAB: usize = 960;
/// Number of classes, with the unused class 0.
pub(crate) const CLASSES: usize = 32;
/// 16-byte steps up to [`MAX_SLAB`], and step 0.
pub(crate) const GRANULES: usize = MAX_SLAB / MIN_ALIGN + 1;

/// A row of the class table. Invariant: between 1 and `CLASSES - 1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SizeClass(u8);

const SIZES: [u16; CLASSES] = {
    // Not 0 even for the unused class, so that the compiler sees no division by it.
    let mut sizes = [MIN_ALIGN as u16; CLASSES];
    let mut class = 1;
    while class < CLASSES {
        sizes[class] = if class <= 16 {
            class * MIN_ALIGN
        } else {
            let (doubling, step) = ((class - 17) / 8, (class - 17) % 8);
            (256 << doubling) + (step + 1) * (32 << doubling)
        } as u16;
        class += 1;
    }
    sizes
};
const _: () = assert!(SIZES[CLASSES - 1] as usize == MAX_SLAB, "the classes end where slabs do");

const MAP: [u8; GRANULES] = {
    let mut map = [1; GRANULES];
    let mut granule = 1;
    while granule < GRANULES {
        let mut class = 1;
        while (SIZES[class] as usize) < granule * MIN_ALIGN {
            class += 1;
        }
        map[granule] = class as u8;
        granule += 1;
    }
    map
};

/// Class by size in 16-byte steps, rounded up; `class_map()[0]` is the class of `malloc(0)`.
pub(crate) const fn class_map() -> &'static [u8; GRANULES] {
    &MAP
}

impl SizeClass {
    /// The class that serves `size` bytes, at most [`MAX_SLAB`].
    #[inline(always)]
    pub(crate) const fn of(size: usize) -> Self {
        debug_assert!(size <= MAX_SLAB);
        // SAFETY: `size <= MAX_SLAB` gives a granule below GRANULES.
        SizeClass(unsafe { *MAP.as_ptr().add((size + MIN_ALIGN - 1) >> MIN_ALIGN.ilog2()) })
    }

    /// The class with this number; it came from [`SizeClass::index`].
    #[inline(always)]
    pub(crate) const fn from_index(index: u8) -> Self {
        debug_assert!(index >= 1 && (index as usize) < CLASSES);
        SizeClass(index)
    }

    /// The class with this number, if there is one.
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        (1..CLASSES).contains(&(number as usize)).then_some(SizeClass(number))
    }

    /// All classes, smallest first.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (1..CLASSES as u8).map(SizeClass)
    }

    /// The smallest class that serves `size` bytes at a multiple of `align`, if a slab can:
    /// blocks lie at multiples of their size from the start of a slice.
    pub(crate) fn aligned(size: usize, align: usize) -> Option<Self> {
        if size > MAX_SLAB || align > MAX_SLAB {
            return None;
        }
        (SizeClass::of(size).0..CLASSES as u8)
            .map(SizeClass)
            .find(|class| class.size() & (align - 1) == 0)
    }

    /// Position in tables of [`CLASSES`] entries.
    #[inline(always)]
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }

    /// Bytes of one block.
    #[inline(always)]
    pub(crate) const fn size(self) -> usize {
        // SAFETY: below CLASSES by the type's invariant.
        unsafe { *SIZES.as_ptr().add(self.0 as usize) as usize }
    }

    /// Blocks of a span.
    pub(crate) const fn capacity(self) -> usize {
        SLICE / self.size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_has_the_smallest_class_that_holds_it() {
        for size in 0..=MAX_SLAB {
            let class = SizeClass::of(size);
            assert!(class.size() >= size.max(1));
            if class.index() > 1 {
                assert!(SizeClass::from_index(class.0 - 1).size() < size);
            }
            assert!(class.size() - size <= 16.max(size / 8), "{size} in {}", class.size());
        }
    }

    #[test]
    fn an_aligned_class_divides_by_the_alignment() {
        for align in [16, 32, 64, 128, 256, 512] {
            for size in 0..=MAX_SLAB {
                // A block of 512 bytes is the last that serves all of these alignments.
                let Some(class) = SizeClass::aligned(size, align) else {
                    assert!(align >= 128 && size > 512);
                    continue;
                };
                assert!(class.size() >= size && class.size().is_multiple_of(align));
            }
        }
        assert!(SizeClass::aligned(16, 1024).is_none());
    }
}
