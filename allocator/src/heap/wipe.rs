//! Hardened builds: zeros in freed blocks of slabs, written and looked at.
//!
//! Sizes come at random, and a branch that depends on one is guessed wrong at the price of a whole malloc.
//! So all blocks up to 64 bytes are set to zero by the same instructions, whose offsets stop at the last 16
//! bytes, and longer ones in steps of twice the size, from both ends. Zeros are looked at in many blocks of
//! one size at a time.

use crate::sync::{AtomicU64, Ordering};
use crate::units::{MIN_ALIGN, TRAILER};

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
        if capacity <= 128 {
            wipe_ends::<64>(block, capacity);
        } else if capacity <= 256 {
            wipe_ends::<128>(block, capacity);
        } else {
            block.write_bytes(0, capacity);
        }
        set_trailer(block, capacity, mark);
    }
}

/// # Safety
/// The block has `capacity` bytes, at least `N`, and is the caller's.
#[inline(always)]
unsafe fn wipe_ends<const N: usize>(block: *mut u8, capacity: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        block.write_bytes(0, N);
        block.add(capacity - N).write_bytes(0, N);
    }
}

/// Zero if a block is zero and its trailer is `mark`.
///
/// # Safety
/// The block is of a slab of `capacity` bytes, and the caller's.
#[inline(always)]
pub(super) unsafe fn changes(block: *mut u8, capacity: usize, mark: u64) -> u64 {
    let room = capacity - TRAILER;
    // SAFETY: either end of a block has half of the smallest step that holds the block; a short one has a
    // word more than a multiple of 16.
    unsafe {
        let word = |at: usize| block.add(at).cast::<u64>().read();
        let filled = if capacity <= SHORT {
            let mut filled = word(0);
            if capacity > 16 {
                filled |= word(8) | word(16) | word(room - 8);
                if capacity > 32 {
                    filled |= word(24) | word(room - 24) | word(room - 16);
                }
            }
            filled
        } else if capacity <= 128 {
            ends::<1>(block, room)
        } else if capacity <= 256 {
            ends::<2>(block, room)
        } else {
            lines(block, room)
        };
        filled | (word(room) ^ mark)
    }
}

/// Bytes looked at together.
const LINE: usize = 64;

/// Zero if `N` lines at either end of `bytes` bytes are zero.
///
/// # Safety
/// There are as many lines, and they are the caller's.
#[inline(always)]
unsafe fn ends<const N: usize>(block: *mut u8, bytes: usize) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { sum::<N>(block) | sum::<N>(block.add(bytes - N * LINE)) }
}

/// Zero if `N` lines are zero.
///
/// # Safety
/// They are the caller's.
#[inline(always)]
unsafe fn sum<const N: usize>(block: *mut u8) -> u64 {
    let mut sum: Pair = [0; 2];
    for at in 0..N {
        // SAFETY: the caller's promise.
        let [a, b, c, d] = unsafe { block.add(at * LINE).cast::<[Pair; 4]>().read_unaligned() };
        sum = [sum[0] | a[0] | b[0] | c[0] | d[0], sum[1] | a[1] | b[1] | c[1] | d[1]];
    }
    sum[0] | sum[1]
}

/// Zero if the first `bytes` bytes, a multiple of 8, are zero.
///
/// # Safety
/// They are the caller's.
#[inline(always)]
pub(super) unsafe fn lines(block: *mut u8, bytes: usize) -> u64 {
    // SAFETY: the last line ends where the bytes do.
    unsafe {
        if bytes < LINE {
            return (0..bytes / 8).fold(0, |sum, at| sum | block.cast::<u64>().add(at).read());
        }
        let mut filled = sum::<1>(block.add(bytes - LINE));
        let mut at = 0;
        while at + LINE < bytes {
            filled |= sum::<1>(block.add(at));
            at += LINE;
        }
        filled
    }
}

/// Bytes at either end of a freed object whose zeros are looked at.
const LOOKED_AT: usize = 1024;

/// Whether the first and last [`LOOKED_AT`] of `bytes` bytes, a multiple of 8, are zero.
///
/// # Safety
/// The bytes are the caller's.
pub(super) unsafe fn ends_are_zero(block: *mut u8, bytes: usize) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let ends = bytes.min(LOOKED_AT);
        lines(block, ends) | lines(block.add(bytes - ends), ends) == 0
    }
}
