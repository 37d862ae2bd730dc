//! The words of a free block: its link and, in hardened builds, the mark of a freed block.
//!
//! In hardened builds a link is stored mixed with a secret and its own address, and must lead into
//! the same slice when it is read back: a stale pointer's write is found when the block is next
//! taken, and a forged link leads nowhere. The second word says that the block is free.
//!
//! Cost: nothing by default; hardened about 10 instructions for a malloc and 5 for a free.

use super::Block;
#[cfg(feature = "hardened")]
use crate::sync::{AtomicUsize, Ordering};

/// Mixed into links and marks. Set once, before the first block is freed.
#[cfg(feature = "hardened")]
static SECRET: AtomicUsize = AtomicUsize::new(0);

/// Takes the process's secret. Without the hardened feature it has no use.
pub(crate) fn set_secret(secret: u64) {
    #[cfg(feature = "hardened")]
    SECRET.store(secret as usize | 1, Ordering::Relaxed);
    #[cfg(not(feature = "hardened"))]
    let _ = secret;
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

    /// Lets `next` follow `this`.
    ///
    /// # Safety
    /// As [`Block::next`].
    #[inline(always)]
    pub(crate) unsafe fn set_next(this: *mut Block, next: *mut Block) {
        // SAFETY: the caller's promise.
        unsafe { (*this).next = next }
    }

    /// What happens to a block that is handed out: nothing.
    ///
    /// # Safety
    /// As [`Block::next`].
    #[inline(always)]
    pub(crate) unsafe fn unmark(_this: *mut Block) {}
}

#[cfg(feature = "hardened")]
impl Block {
    #[inline(always)]
    fn mix(this: *mut Block) -> usize {
        // Shifted, so that neighbours differ in the bits in which their links differ too.
        SECRET.load(Ordering::Relaxed) ^ (this.addr() >> 4)
    }

    /// The free block after `this`.
    ///
    /// # Safety
    /// `this` is a free block of the caller's.
    #[inline(always)]
    pub(crate) unsafe fn next(this: *mut Block) -> *mut Block {
        use crate::units::SLICE_SHIFT;
        // SAFETY: the caller's promise.
        let next = unsafe { (*this).next }.map_addr(|stored| stored ^ Self::mix(this));
        if !next.is_null() && (next.addr() ^ this.addr()) >> SLICE_SHIFT != 0 {
            crate::fatal::report("write into a freed object", this.addr(), 0);
        }
        next
    }

    /// Lets `next` follow `this`, and marks `this` as free.
    ///
    /// # Safety
    /// As [`Block::next`].
    #[inline(always)]
    pub(crate) unsafe fn set_next(this: *mut Block, next: *mut Block) {
        // SAFETY: the caller's promise; a block holds two words at least.
        unsafe {
            (*this).next = next.map_addr(|next| next ^ Self::mix(this));
            this.cast::<usize>().add(1).write(!Self::mix(this));
        }
    }

    /// Removes the mark of a free block.
    ///
    /// # Safety
    /// As [`Block::next`].
    #[inline(always)]
    pub(crate) unsafe fn unmark(this: *mut Block) {
        // SAFETY: the caller's promise.
        unsafe { this.cast::<usize>().add(1).write(0) }
    }

    /// Whether `this` carries the mark of a free block.
    ///
    /// # Safety
    /// `this` is a block of a slab.
    #[inline(always)]
    pub(crate) unsafe fn is_marked(this: *mut Block) -> bool {
        // SAFETY: the caller's promise.
        unsafe { this.cast::<usize>().add(1).read() == !Self::mix(this) }
    }
}
