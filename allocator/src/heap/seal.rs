//! What stands around an object in a hardened build: trailer, canary, zeros.
//!
//! Pure arithmetic and the reads and writes of the words concerned; who judges what is found is
//! `hardened`. The layout, from the block's start: what was asked for, up to 8 bytes of canary, unused,
//! 8 bytes of trailer.

use crate::slab;
use crate::sync::{AtomicU64, Ordering};
use crate::units::TRAILER;

/// What a trailer says.
pub(super) enum State {
    /// Handed out for this many bytes.
    Live(usize),
    /// Free; this many bytes of it were in use.
    Freed(usize),
    /// Never handed out.
    Fresh,
    /// Overwritten.
    Damaged,
}

/// The word that belongs to a block.
#[inline(always)]
pub(super) fn secret_of(block: *mut u8) -> u64 {
    slab::mix(block.addr()) as u64
}

/// No byte of it is zero, so that the end of a string is found too.
#[inline(always)]
pub(super) fn canary_of(block: *mut u8) -> u64 {
    secret_of(block).rotate_left(17) | 0x0101_0101_0101_0101
}

/// # Safety
/// The block has `capacity` bytes, which is a multiple of 8.
#[inline(always)]
pub(super) unsafe fn trailer<'a>(block: *mut u8, capacity: usize) -> &'a AtomicU64 {
    // SAFETY: the block's last word, which nothing but trailers uses; neighbours may look at it at
    // any time, hence atomic.
    unsafe { AtomicU64::from_ptr(block.add(capacity - TRAILER).cast()) }
}

/// A size in the upper half, so that a changed first or last byte makes an impossible one.
#[inline(always)]
pub(super) fn live_mark(block: *mut u8, size: usize) -> u64 {
    secret_of(block) ^ (size as u64).rotate_left(32)
}

#[inline(always)]
pub(super) fn read_mark(block: *mut u8, capacity: usize, stored: u64) -> State {
    let size = |stored: u64| (stored ^ secret_of(block)).rotate_right(32) as usize;
    let room = capacity - TRAILER;
    if size(stored) <= room {
        State::Live(size(stored))
    } else if size(!stored) <= room {
        State::Freed(size(!stored))
    } else if stored == 0 {
        State::Fresh
    } else {
        State::Damaged
    }
}

/// Which bytes of the word behind the object are canary and not trailer.
#[inline(always)]
pub(super) fn canary_mask(size: usize, capacity: usize) -> u64 {
    let room = capacity - TRAILER - size;
    if room >= 8 { u64::MAX } else { (1 << (8 * room)) - 1 }
}

/// Makes a block an object of `size` bytes.
///
/// # Safety
/// The block is the caller's and has `capacity` bytes, at least `size + TRAILER`.
#[inline(always)]
pub(super) unsafe fn seal(block: *mut u8, size: usize, capacity: usize) -> *mut u8 {
    // SAFETY: the caller's promise; the canary ends at the end of the block at the latest.
    unsafe {
        block.add(size).cast::<u64>().write_unaligned(canary_of(block));
        trailer(block, capacity).store(live_mark(block, size), Ordering::Relaxed);
    }
    block
}

/// Bytes of a freed object of `size` bytes that were set to zero: its own and its canary.
#[inline(always)]
pub(super) fn wiped(size: usize, capacity: usize) -> usize {
    (size + TRAILER).min(capacity - TRAILER)
}

/// # Safety
/// The bytes are the caller's.
#[inline(always)]
pub(super) unsafe fn is_zero(start: *mut u8, len: usize) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let words = len / 8;
        let mut sum = 0u64;
        for i in 0..words {
            sum |= start.cast::<u64>().add(i).read_unaligned();
        }
        for i in words * 8..len {
            sum |= u64::from(start.add(i).read());
        }
        sum == 0
    }
}
