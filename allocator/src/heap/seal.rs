//! What stands around an object in a hardened build: trailer, canary, zeros.
//!
//! Pure arithmetic and the reads and writes of the words concerned; who judges what is found is
//! `hardened`. The layout, from the block's start: what was asked for, up to 8 bytes of canary, unused,
//! 8 bytes of trailer.

#![expect(clippy::indexing_slicing, reason = "only while a table is computed, at compile time")]

use crate::slab;
use crate::sync::{AtomicU64, Ordering};
use crate::units::TRAILER;

/// What a trailer says.
pub(super) enum State {
    /// Handed out for this many bytes.
    Live(usize),
    /// Free, after it was in use.
    Freed,
    /// Never handed out.
    Fresh,
    /// Overwritten.
    Damaged,
}

/// The word that belongs to a block, and what is mixed with it.
#[derive(Clone, Copy)]
pub(super) struct Key(u64);

impl Key {
    #[inline(always)]
    pub(super) fn of(block: *mut u8) -> Self {
        Key(slab::mix(block.addr()) as u64)
    }

    /// What stands behind the object. No byte of it is zero, so that the end of a string is found too.
    #[inline(always)]
    pub(super) fn canary(self) -> u64 {
        self.0.rotate_left(17) | 0x0101_0101_0101_0101
    }

    /// The trailer of a live object: its size in the upper half, so that a changed first or last byte
    /// makes an impossible one. That of a freed one is the complement.
    #[inline(always)]
    pub(super) fn live_mark(self, size: usize) -> u64 {
        self.0 ^ (size as u64).rotate_left(32)
    }

    /// The size in the trailer of a live object; of any other a number above what a block can hold.
    #[inline(always)]
    pub(super) fn live_size(self, stored: u64) -> usize {
        (stored ^ self.0).rotate_right(32) as usize
    }

    /// What a trailer says of a block with `room` bytes in front of it.
    #[inline(always)]
    pub(super) fn state(self, stored: u64, room: usize) -> State {
        if self.live_size(stored) <= room {
            State::Live(self.live_size(stored))
        } else if self.live_size(!stored) <= room {
            State::Freed
        } else if stored == 0 {
            State::Fresh
        } else {
            State::Damaged
        }
    }
}

/// # Safety
/// The block has `capacity` bytes, which is a multiple of 8.
#[inline(always)]
pub(super) unsafe fn trailer<'a>(block: *mut u8, capacity: usize) -> &'a AtomicU64 {
    // SAFETY: the block's last word, which nothing but trailers uses; neighbours may look at it at
    // any time, hence atomic.
    unsafe { AtomicU64::from_ptr(block.add(capacity - TRAILER).cast()) }
}

/// Which bytes of the word behind the object are canary and not trailer, by how many there are.
static CANARY: [u64; 9] = {
    let mut masks = [u64::MAX; 9];
    let mut bytes = 0;
    while bytes < 8 {
        masks[bytes] = (1 << (8 * bytes)) - 1;
        bytes += 1;
    }
    masks
};

/// Whether the canary of an object of `size` bytes is whole.
///
/// # Safety
/// The block is the caller's and has `capacity` bytes, at least `size + TRAILER`.
#[inline(always)]
pub(super) unsafe fn canary_is_whole(
    block: *mut u8,
    key: Key,
    size: usize,
    capacity: usize,
) -> bool {
    // SAFETY: the word ends at the end of the block at the latest; the index is below 9.
    unsafe {
        let found = block.add(size).cast::<u64>().read_unaligned();
        let mask = *CANARY.as_ptr().add((capacity - TRAILER - size).min(8));
        (found ^ key.canary()) & mask == 0
    }
}

/// Makes a block an object of `size` bytes.
///
/// # Safety
/// The block is the caller's and has `capacity` bytes, at least `size + TRAILER`.
#[inline(always)]
pub(super) unsafe fn seal(block: *mut u8, size: usize, capacity: usize) -> *mut u8 {
    // SAFETY: the caller's promise; the canary ends at the end of the block at the latest.
    unsafe {
        let key = Key::of(block);
        block.add(size).cast::<u64>().write_unaligned(key.canary());
        trailer(block, capacity).store(key.live_mark(size), Ordering::Relaxed);
    }
    block
}

/// Bytes of a freed object of `size` bytes that are set to zero: its own and its canary, in words.
#[inline(always)]
pub(super) fn wiped(size: usize, capacity: usize) -> usize {
    ((size + 2 * TRAILER - 1) & !(TRAILER - 1)).min(capacity - TRAILER)
}

/// Whether `len` bytes, a multiple of 8, are all zero.
///
/// # Safety
/// The bytes are the caller's, and begin at a multiple of 8.
#[inline(always)]
pub(super) unsafe fn is_zero(start: *mut u8, len: usize) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let mut sum = 0u64;
        for i in 0..len / 8 {
            sum |= start.cast::<u64>().add(i).read();
        }
        sum == 0
    }
}
