//! Hardened builds: freed blocks that wait before they can be handed out again.
//!
//! A ring per slab class: a freed block goes in at one end, and malloc takes from the other, but never one
//! of the last [`DELAY`]. It is a thread's cache of blocks at the same time: what goes through it is live as
//! far as spans know, costs no link, and may be of any thread's span. When the ring is full the oldest are
//! freed in earnest. One ring of 4 more for all larger blocks. A double free finds the block's mark, a late
//! write its zeros changed, and an attacker does not get the address back at once.
//!
//! Costs per thread and slab class in use 64 to 255 blocks, 32 KiB of them beside those that must wait, and
//! 4 MiB in all for larger blocks. A free stores the block and one number, a malloc loads the block and
//! stores one number.

use core::mem::replace;
use core::ptr::null_mut;

use crate::slab::{CLASSES, SizeClass};

/// Blocks of a slab class that are freed before one can be handed out again.
const DELAY: u8 = 48;
/// Positions of a ring: all numbers that a position can hold.
const SMALL: usize = 256;
/// Blocks of a ring that waited long enough: as many as these bytes hold, but within limits.
const BYTES: usize = 32 << 10;
const LEAST: usize = LOOKED_AT as usize;
const MOST: usize = SMALL - DELAY as usize - 1;
/// Blocks looked at together: the processor then guesses right what depends on their size.
pub(crate) const LOOKED_AT: u8 = 16;
const MEDIUM: usize = 4;

/// The freed blocks of one heap. Zeroed memory is an empty one.
#[derive(Debug)]
pub(crate) struct Quarantine {
    rings: [Ring; CLASSES],
    medium: [*mut u8; MEDIUM],
    medium_at: usize,
}

/// The freed blocks of one slab class, oldest first. Positions begin again at 0 after 255.
///
/// # Invariants
/// 1. From `first` up to `ready` stand those that were looked at and may be handed out, then up to `last`
///    those that waited long enough: `limit` in all at most. After them stand [`DELAY`] more.
/// 2. Any but the ready ones may be null.
#[derive(Debug)]
pub(crate) struct Ring {
    first: u8,
    ready: u8,
    last: u8,
    /// 0 before the first block.
    limit: u8,
    /// Bytes of a block; right as soon as there are ready ones.
    capacity: u16,
    blocks: [*mut u8; SMALL],
}

impl Ring {
    /// The block that waited longest and its bytes, if one is ready; it leaves the quarantine.
    #[inline(always)]
    pub(crate) fn take(&mut self) -> Option<(*mut u8, usize)> {
        if self.first == self.ready {
            return None;
        }
        let at = self.first as usize;
        self.first = self.first.wrapping_add(1);
        // SAFETY: there are as many positions as numbers.
        Some((unsafe { *self.blocks.get_unchecked(at) }, self.capacity as usize))
    }

    /// Makes [`LOOKED_AT`] blocks ready, if none is and so many waited long enough: `look` is called with
    /// each.
    #[inline(always)]
    pub(crate) fn make_ready(&mut self, look: impl FnMut(*mut u8)) {
        self.make_some_ready(LOOKED_AT, look);
    }

    /// As [`Ring::make_ready`], but `count` of them, 1 to [`LOOKED_AT`].
    #[inline(always)]
    pub(crate) fn make_some_ready(&mut self, count: u8, mut look: impl FnMut(*mut u8)) {
        while self.first == self.ready && self.last.wrapping_sub(self.ready) >= LOOKED_AT {
            for _ in 0..count {
                // SAFETY: there are as many positions as numbers.
                let block = unsafe { *self.blocks.get_unchecked(self.ready as usize) };
                self.ready = self.ready.wrapping_add(1);
                if block.is_null() {
                    // Then so are those before it.
                    self.first = self.ready;
                } else {
                    look(block);
                }
            }
        }
    }

    /// Takes a freed block in; false if there is no room.
    #[inline(always)]
    pub(crate) fn put(&mut self, block: *mut u8) -> bool {
        if self.last.wrapping_sub(self.first) >= self.limit {
            return false;
        }
        let at = self.last.wrapping_add(DELAY);
        self.last = self.last.wrapping_add(1);
        // SAFETY: there are as many positions as numbers.
        unsafe { *self.blocks.get_unchecked_mut(at as usize) = block };
        true
    }

    /// Says what blocks the ring holds.
    pub(crate) fn prepare(&mut self, class: SizeClass) {
        self.limit = (BYTES / class.size().max(1)).clamp(LEAST, MOST) as u8;
        self.capacity = class.size() as u16;
    }
}

impl Quarantine {
    /// The blocks of a slab class.
    #[inline(always)]
    pub(crate) fn ring(&mut self, class: SizeClass) -> &mut Ring {
        // SAFETY: a class is below CLASSES.
        unsafe { self.rings.get_unchecked_mut(class.index()) }
    }

    /// Takes a larger freed block in; the one that leaves for it, or null.
    pub(crate) fn exchange_medium(&mut self, block: *mut u8) -> *mut u8 {
        let here = self.medium_at % MEDIUM;
        self.medium_at = here + 1;
        self.medium.get_mut(here).map_or(block, |slot| replace(slot, block))
    }

    /// Hands every block to `release`.
    pub(super) fn empty(&mut self, mut release: impl FnMut(*mut u8)) {
        for ring in &mut self.rings {
            let end = ring.last.wrapping_add(DELAY);
            let mut at = ring.first;
            while at != end {
                // Always there; what was never used is not written either, for it has no page yet.
                if let Some(slot) = ring.blocks.get_mut(at as usize)
                    && !slot.is_null()
                {
                    release(replace(slot, null_mut()));
                }
                at = at.wrapping_add(1);
            }
            if ring.first != ring.last {
                (ring.first, ring.ready) = (ring.last, ring.last);
            }
        }
        for slot in &mut self.medium {
            if !slot.is_null() {
                release(replace(slot, null_mut()));
            }
        }
    }
}
