//! Hardened builds: freed blocks of slabs set to zero.
//!
//! Sizes come at random, and a branch that depends on one is guessed wrong at the price of a whole malloc.
//! So all blocks up to 64 bytes are set to zero by the same instructions, whose offsets stop at the last 16
//! bytes, those up to 128 from both ends, and longer ones by libc, which knows the processor.

use crate::sync::{AtomicU64, Ordering};
use crate::units::{MIN_ALIGN, TRAILER, set_zero};

/// Blocks up to this size are short.
const SHORT: usize = 64;

/// Sixteen bytes, read or written at once.
type Pair = [u64; 2];

/// Sets a block to zero but for its trailer, which becomes `mark`.
///
/// # Safety
/// The block is of a slab of `capacity` bytes, and the caller's.
#[inline(always)]
pub(super) unsafe fn wipe(block: *mut u8, capacity: usize, mark: u64) {
    // SAFETY: every offset is at most that of the last pair.
    unsafe {
        if capacity > SHORT {
            return wipe_long(block, capacity, mark);
        }
        let last = capacity - MIN_ALIGN;
        for at in [0, 16.min(last), 32.min(last), last] {
            block.add(at).cast::<Pair>().write([0; 2]);
        }
        set_trailer(block, capacity, mark);
    }
}

/// # Safety
/// As [`wipe`].
#[inline(always)]
unsafe fn set_trailer(block: *mut u8, capacity: usize, mark: u64) {
    // SAFETY: the last word of the caller's block.
    let trailer = unsafe { AtomicU64::from_ptr(block.add(capacity - TRAILER).cast()) };
    trailer.store(mark, Ordering::Relaxed);
}

/// # Safety
/// As [`wipe`], for blocks that are not short.
#[inline(never)]
unsafe fn wipe_long(block: *mut u8, capacity: usize, mark: u64) {
    // SAFETY: either end of a block has half of the smallest step that holds the block.
    unsafe {
        if capacity > 128 {
            set_trailer(block, capacity, mark);
            return set_zero(block, capacity - TRAILER);
        }
        block.write_bytes(0, 64);
        block.add(capacity - 64).write_bytes(0, 64);
        set_trailer(block, capacity, mark);
    }
}
