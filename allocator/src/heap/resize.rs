//! Making a block larger or smaller: where it is, by moving pages, or by a copy.

use core::ptr;

use super::routing::{allocate, deallocate, describe, usable_size};
use super::sampled;
use crate::bitmap::MAX_BITMAP;
use crate::classic;
use crate::segment::Kind;
use crate::slab::MAX_SLAB;
use crate::sync::{AtomicBool, Ordering};
use crate::thread::GLOBAL;
use crate::units::MAX_OBJECT;

/// Takes note that a block above [`MAX_BITMAP`], which has room for that, is to hold `size` bytes from here on.
///
/// # Safety
/// `block` is live, and its record says that it is huge.
#[cold]
#[inline(never)]
unsafe fn use_more(block: *mut u8, size: usize) {
    // SAFETY: the caller's promise.
    unsafe { GLOBAL.huge.use_more(describe(block).0, size) };
    GLOBAL.level_huge();
}

/// Whether `block` is to hold its object when that becomes one of `size` bytes: it fits, and fills half of it.
/// Never where what was asked for is noted beside every block, for nobody would note what is asked for now.
///
/// # Safety
/// `block` is live; where this says so, its object has `size` bytes from here on.
pub(crate) unsafe fn stays(block: *mut u8, size: usize) -> bool {
    if cfg!(any(feature = "hardened", feature = "valgrind")) {
        return false;
    }
    // SAFETY: the caller's promise.
    unsafe {
        let usable = usable_size(block);
        let stays = size <= usable && size >= usable / 2;
        if stays && usable > MAX_BITMAP && !classic::is_configured() {
            use_more(block, size);
        }
        stays
    }
}

/// What to ask for when a block of `usable` bytes becomes one of `size`. A medium block that grows by
/// less than a quarter tends to go on growing, and each step to the next class would be a copy; a
/// program that grows by more keeps room itself.
fn with_room(size: usize, usable: usize) -> usize {
    let room = usable + usable / 4;
    let steps = size > usable && size < room && usable > MAX_SLAB && room <= MAX_BITMAP;
    if steps { room } else { size }
}

/// Whether an object had to shrink where it is, for want of memory, and so may fill less than half of its block.
pub(super) static SHRUNK_IN_PLACE: AtomicBool = AtomicBool::new(false);

/// A block of `size` bytes (above 0) that begins as `block` does; `block` is freed. Null when
/// memory is exhausted: then `block` is as it was.
///
/// # Safety
/// `block` is live, and not used any more once this returns another one.
pub unsafe fn reallocate(block: *mut u8, size: usize) -> *mut u8 {
    // SAFETY: the caller's promise.
    unsafe {
        if classic::is_configured() {
            return classic::reallocate(block, size);
        }
        let usable = usable_size(block);
        // Shrinking below half is worth a move, unless there is nothing to gain.
        if size <= usable && (size >= usable / 2 || usable <= 64) {
            if usable > MAX_BITMAP {
                use_more(block, size);
            }
            return block;
        }
        if size > MAX_OBJECT {
            return ptr::null_mut();
        }
        let (record, kind) = describe(block);
        if kind == Kind::Huge && size > MAX_BITMAP {
            let moved = sampled::resize(record, block, size);
            if !moved.is_null() {
                return moved;
            }
        }
        let roomy = with_room(size, usable);
        let mut new = allocate(roomy);
        if new.is_null() && roomy > size {
            new = allocate(size);
        }
        if !new.is_null() {
            ptr::copy_nonoverlapping(block, new, usable.min(size));
            deallocate(block);
        } else if size <= usable {
            SHRUNK_IN_PLACE.store(true, Ordering::Relaxed);
            return block;
        }
        new
    }
}
