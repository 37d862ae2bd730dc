//! What stands around an object in a hardened build: trailer, canary, zeros.
//!
//! Pure arithmetic and the reads and writes of the words concerned; who judges what is found is
//! `hardened`. The layout, from the block's start: what was asked for, up to 8 bytes of canary, unused,
//! 8 bytes of trailer.
//!
//! A trailer is the block's key, with a number mixed into its upper half, so that a changed first or last
//! byte makes an impossible one: the size of the object; in a free block of a slab [`FREED`] or [`FRESH`].
//! A free block above slabs has the complement of its object's trailer, or zero if it never held one.

#![expect(clippy::indexing_slicing, reason = "only while a table is computed, at compile time")]

use crate::slab::{self, FREED, FRESH, MAX_SLAB};
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
        Key(slab::key(block.addr()))
    }

    /// The key of the block of `capacity` bytes in front of this one.
    #[inline(always)]
    pub(super) fn before(self, capacity: usize) -> Self {
        Key(self.0.wrapping_sub(capacity as u64))
    }

    /// What stands behind the object. No byte of it is zero or ASCII, so that the end of a string and what
    /// is copied from one are found; the first byte differs between neighbours.
    #[inline(always)]
    pub(super) fn canary(self) -> u64 {
        self.0.rotate_right(4) | 0x8080_8080_8080_8080
    }

    /// The trailer that says `number`.
    #[inline(always)]
    pub(super) fn mark(self, number: u64) -> u64 {
        self.0 ^ number.rotate_left(32)
    }

    /// The number in a trailer; of what is none above what a block can hold.
    #[inline(always)]
    pub(super) fn number(self, stored: u64) -> u64 {
        (stored ^ self.0).rotate_right(32)
    }

    /// What the trailer of a slab's block says, with `room` bytes in front of it.
    pub(super) fn slab_state(self, stored: u64, room: usize) -> State {
        match self.number(stored) {
            FREED => State::Freed,
            FRESH => State::Fresh,
            size if size <= room as u64 => State::Live(size as usize),
            _ => State::Damaged,
        }
    }

    /// What the trailer of a larger block says, with `room` bytes in front of it.
    #[inline(always)]
    pub(super) fn state(self, stored: u64, room: usize) -> State {
        let room = room as u64;
        if self.number(stored) <= room {
            State::Live(self.number(stored) as usize)
        } else if self.number(!stored) <= room {
            State::Freed
        } else if stored == 0 {
            State::Fresh
        } else {
            State::Damaged
        }
    }
}

impl Key {
    /// Whether another thread may be in the middle of [`seal`]: a canary with less than its length in front of
    /// the trailer lies in the trailer's first bytes for a moment, or in all of it. Or in the middle of a wipe,
    /// which sets a short block's trailer to zero before it marks it.
    #[cold]
    #[inline(never)]
    pub(super) fn is_being_written(self, stored: u64) -> bool {
        stored == 0
            || (1..=8).any(|bytes| {
                let spilt = self.canary() >> (64 - 8 * bytes);
                (stored ^ spilt) << (64 - 8 * bytes) == 0
            })
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
static CANARY: [u64; MAX_SLAB] = {
    let mut masks = [u64::MAX; MAX_SLAB];
    let mut bytes = 0;
    while bytes < 8 {
        masks[bytes] = (1 << (8 * bytes)) - 1;
        bytes += 1;
    }
    masks
};

/// Whether the canary of an object of `size` bytes is whole, in a block of a slab with `room` bytes in
/// front of its trailer.
///
/// # Safety
/// The block is the caller's; `size <= room < MAX_SLAB`.
#[inline(always)]
pub(super) unsafe fn small_canary_is_whole(
    block: *mut u8,
    key: Key,
    size: usize,
    room: usize,
) -> bool {
    // SAFETY: the word ends at the end of the block at the latest; the index is below MAX_SLAB.
    unsafe {
        let found = block.add(size).cast::<u64>().read_unaligned();
        (found ^ key.canary()) & *CANARY.as_ptr().add(room - size) == 0
    }
}

/// As [`small_canary_is_whole`], in any block.
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
    // SAFETY: as if the block ended after all of the canary.
    unsafe { small_canary_is_whole(block, key, size, size + (capacity - TRAILER - size).min(8)) }
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
        trailer(block, capacity).store(key.mark(size as u64), Ordering::Relaxed);
    }
    block
}

/// Bytes of a freed object of `size` bytes that are set to zero, in a block above slabs: its own and its
/// canary, in words. In a block of a slab it is all but the trailer.
#[inline(always)]
pub(super) fn wiped(size: usize, capacity: usize) -> usize {
    ((size + 2 * TRAILER - 1) & !(TRAILER - 1)).min(capacity - TRAILER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trailer_that_is_being_written_is_told_from_a_damaged_one() {
        #[repr(align(16))]
        struct Block([u8; 64]);
        let mut block = Block([0; 64]);
        let address = block.0.as_mut_ptr();
        let key = Key::of(address);
        for size in 49..=56 {
            // SAFETY: the block has 64 bytes, of which the last 8 are its trailer.
            let stored = unsafe {
                trailer(address, 64).store(key.mark(FREED), Ordering::Relaxed);
                address.add(size).cast::<u64>().write_unaligned(key.canary());
                trailer(address, 64).load(Ordering::Relaxed)
            };
            assert!(matches!(key.slab_state(stored, 56), State::Damaged), "{size}");
            assert!(key.is_being_written(stored), "{size}");
        }
        assert!(key.is_being_written(0), "a wipe");
        for overwritten in [0, b'a'] {
            let stored = key.mark(48) & !0xff | u64::from(overwritten);
            assert!(!key.is_being_written(stored), "no canary has such a byte");
        }
    }
}
