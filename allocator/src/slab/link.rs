//! The first word of a free block: its link.
//!
//! In hardened builds a link is stored mixed with a secret and its own address, and must lead into
//! the same slice when it is read back: a stale pointer's write is found when the block is next
//! taken, and a forged link leads nowhere.
//!
//! Cost: nothing by default; hardened about 8 instructions for a block that comes from a span and 2 for one
//! that goes back.

use super::Block;
#[cfg(feature = "hardened")]
use crate::sync::{AtomicUsize, Ordering};

/// Mixed into links and trailers. Set once, before the first block is freed.
#[cfg(feature = "hardened")]
static SECRET: AtomicUsize = AtomicUsize::new(0);

/// Takes the process's secret. Without the hardened feature it has no use.
pub(crate) fn set_secret(secret: u64) {
    #[cfg(feature = "hardened")]
    SECRET.store(secret as usize | 1, Ordering::Relaxed);
    #[cfg(not(feature = "hardened"))]
    let _ = secret;
}

/// The order in which new blocks are linked, so that the lowest is handed out first.
#[cfg(not(feature = "hardened"))]
#[inline(always)]
pub(super) fn order_of_blocks(from: usize, upto: usize) -> impl Iterator<Item = usize> {
    (from..upto).rev()
}

#[cfg(not(feature = "hardened"))]
impl Block {
    /// The free block after `this`.
    ///
    /// # Safety
    /// `this` is a free block of the caller's.
    #[inline(always)]
    pub(crate) unsafe fn next(this: *mut Block) -> *mut Block {
        // SAFETY: the caller's promise.
        unsafe { (*this).next }
    }

    /// As [`Block::next`], wherever that leads.
    ///
    /// # Safety
    /// As [`Block::next`].
    pub(super) unsafe fn next_unjudged(this: *mut Block) -> *mut Block {
        // SAFETY: the caller's promise.
        unsafe { (*this).next }
    }

    /// Lets `next` follow `this`.
    ///
    /// # Safety
    /// As [`Block::next`].
    #[inline(always)]
    pub(crate) unsafe fn set_next(this: *mut Block, next: *mut Block) {
        // SAFETY: the caller's promise.
        unsafe { (*this).next = next }
    }
}

/// The numbers `from..upto`, in an order that nobody can guess with `shuffle`: steps of a secret length
/// that has no factor in common with their count, from a secret start. Else the highest first.
#[cfg(feature = "hardened")]
pub(super) fn order_of_blocks(from: usize, upto: usize) -> impl Iterator<Item = usize> {
    let shuffle = crate::options::hardening(crate::options::Hardening::Shuffle);
    static TURN: AtomicUsize = AtomicUsize::new(0);
    // A lost update repeats an order, which harms nobody.
    let turn = TURN.load(Ordering::Relaxed).wrapping_add(1);
    TURN.store(turn, Ordering::Relaxed);
    let word = (SECRET.load(Ordering::Relaxed) ^ turn).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let count = (upto - from).max(1);
    let mut step = (word >> 40) % count + 1;
    while common_factor(step, count) != 1 {
        step += 1;
    }
    let mut at = (word >> 20 & 0xfffff) % count;
    if !shuffle {
        (step, at) = (count - 1, 0);
    }
    (0..upto - from).map(move |_| {
        at = (at + step) % count;
        from + at
    })
}

#[cfg(feature = "hardened")]
fn common_factor(mut a: usize, mut b: usize) -> usize {
    while b != 0 {
        (a, b) = (b, a.checked_rem(b).unwrap_or(0));
    }
    a
}

/// A word that belongs to `address` and that nobody outside can guess.
#[cfg(feature = "hardened")]
#[inline(always)]
fn mix(address: usize) -> usize {
    // Shifted, so that neighbours differ in the bits in which their links differ too.
    SECRET.load(Ordering::Relaxed) ^ (address >> 4)
}

/// What is mixed into the trailer of the block at `address`: neighbours of one size differ by that size.
#[cfg(feature = "hardened")]
#[inline(always)]
pub(crate) fn key(address: usize) -> u64 {
    SECRET.load(Ordering::Relaxed).wrapping_add(address) as u64
}

/// What the upper half of a slab block's trailer says, mixed with its key, when it holds no object: the
/// size that was asked for stands there in others, and is smaller. Freed, and never handed out.
#[cfg(feature = "hardened")]
pub(crate) const FREED: u64 = 1 << 10;
#[cfg(feature = "hardened")]
pub(crate) const FRESH: u64 = FREED | 1;

/// Says that a block of `size` bytes was never handed out.
///
/// # Safety
/// The block is the caller's, and so are its last eight bytes.
#[inline(always)]
pub(super) unsafe fn mark_fresh(block: *mut Block, size: usize) {
    #[cfg(feature = "hardened")]
    // SAFETY: the caller's promise; sizes are multiples of 16.
    unsafe {
        use crate::sync::AtomicU64;
        use crate::units::TRAILER;
        let word = block.cast::<u8>().add(size - TRAILER).cast::<u64>();
        let mark = key(block.addr()) ^ (FRESH << 32);
        AtomicU64::from_ptr(word).store(mark, Ordering::Relaxed);
    }
    #[cfg(not(feature = "hardened"))]
    let _ = (block, size);
}

#[cfg(feature = "hardened")]
impl Block {
    /// The free block after `this`.
    ///
    /// # Safety
    /// `this` is a free block of the caller's.
    #[inline(always)]
    pub(crate) unsafe fn next(this: *mut Block) -> *mut Block {
        use crate::units::SLICE_SHIFT;
        // SAFETY: the caller's promise.
        let next = unsafe { Self::next_unjudged(this) };
        if !next.is_null() && (next.addr() ^ this.addr()) >> SLICE_SHIFT != 0 {
            crate::fatal::report(
                "write into a freed object (check use-after-free)",
                this.addr(),
                0,
            );
        }
        next
    }

    /// As [`Block::next`], wherever that leads.
    ///
    /// # Safety
    /// As [`Block::next`].
    #[inline(always)]
    pub(super) unsafe fn next_unjudged(this: *mut Block) -> *mut Block {
        // SAFETY: the caller's promise.
        unsafe { (*this).next }.map_addr(|stored| stored ^ mix(this.addr()))
    }

    /// Lets `next` follow `this`.
    ///
    /// # Safety
    /// As [`Block::next`].
    #[inline(always)]
    pub(crate) unsafe fn set_next(this: *mut Block, next: *mut Block) {
        // SAFETY: the caller's promise.
        unsafe { (*this).next = next.map_addr(|next| next ^ mix(this.addr())) }
    }
}
