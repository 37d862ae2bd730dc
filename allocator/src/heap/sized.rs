//! Frees by callers who know the size: what can be compared without cost to anybody else.

use super::resize::SHRUNK_IN_PLACE;
use super::routing::has_class;
use super::{deallocate, usable_size};
use crate::block::FaultKind;
use crate::classic;
use crate::fatal;
use crate::sync::Ordering;
#[cfg(not(feature = "valgrind"))]
use crate::{
    segment::record_of,
    slab::{self, MAX_SLAB},
    thread::Tls,
    units::SEGMENT,
};

/// As [`deallocate`], by a caller who knows the `size` that was asked for, in bytes. A size that
/// cannot be the block's is a fault, and then nothing is freed.
///
/// # Cost
/// 31 instructions where the size is of the block's class and this thread allocated it.
///
/// # Safety
/// As [`deallocate`].
#[inline(always)]
pub unsafe fn deallocate_sized(block: *mut u8, size: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        #[cfg(not(feature = "valgrind"))]
        if free_of_class(block, size) {
            return;
        }
        compare_and_deallocate(block, size);
    }
}

/// Frees a block of one of this thread's slabs if blocks of `size` bytes come from there; whether it did.
///
/// # Safety
/// As [`deallocate`].
#[cfg(not(feature = "valgrind"))]
#[inline(always)]
unsafe fn free_of_class(block: *mut u8, size: usize) -> bool {
    // SAFETY: the caller's promise, as in `routing::free_block`; a class within bounds is one of the map's.
    unsafe {
        let heap = Tls::here().heap();
        // Null is a multiple of a segment's size, too.
        if heap.is_null() || block.addr() & (SEGMENT - 1) == 0 || size > MAX_SLAB {
            return false;
        }
        let record = record_of(block);
        if (*record).owner.load(Ordering::Relaxed) != heap.addr()
            || (*record).class != slab::SizeClass::of(size).index() as u8
        {
            return false;
        }
        if slab::put_back(record, block.cast()) {
            (*heap).slab_emptied(record);
        }
        true
    }
}

/// As [`deallocate_sized`], for any block.
///
/// # Safety
/// As [`deallocate`].
#[inline(never)]
unsafe fn compare_and_deallocate(block: *mut u8, size: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        if !block.is_null() {
            let usable = usable_size(block);
            if is_told_of(usable) {
                return;
            }
            // No class wastes half of a block. A mapping of its own may, and so may a block of classic mode, and
            // one whose object shrank without memory to move to.
            let too_small = size < usable / 2
                && usable > 64
                && has_class(block)
                && !SHRUNK_IN_PLACE.load(Ordering::Relaxed);
            if size > usable || too_small {
                return fatal::fault(FaultKind::SizeMismatch.line(), block.addr(), usable);
            }
        }
        deallocate(block);
    }
}

/// Whether a block of so many bytes is none, as `usable_size` said aloud: classic mode does, whose objects all have
/// some. To valgrind an object of 0 bytes has none.
fn is_told_of(usable: usize) -> bool {
    usable == 0 && classic::is_configured() && !cfg!(feature = "valgrind")
}

/// As [`deallocate_sized`], for a block of [`allocate_aligned`](super::allocate_aligned).
///
/// # Safety
/// As [`deallocate`].
pub unsafe fn deallocate_aligned(block: *mut u8, align: usize, size: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        if !block.is_null() {
            let usable = usable_size(block);
            if is_told_of(usable) {
                return;
            }
            let aligned = align.is_power_of_two() && block.addr() & (align - 1) == 0;
            if size > usable || !aligned {
                return fatal::fault(FaultKind::SizeMismatch.line(), block.addr(), usable);
            }
        }
        deallocate(block);
    }
}

#[cfg(all(test, not(feature = "hardened")))]
mod tests {
    use super::deallocate_sized;
    use crate::thread::GLOBAL;

    #[test]
    fn an_object_with_a_mapping_of_its_own_for_want_of_memory_is_as_small_as_was_asked_for() {
        for size in [961, 1100, 2015, 40_000] {
            let object = GLOBAL.huge.allocate(size, 16, false);
            assert!(!object.is_null());
            // SAFETY: live, and freed once; a fault would end the process.
            unsafe { deallocate_sized(object, size) };
        }
    }
}
