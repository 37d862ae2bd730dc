//! Hardened builds: freed blocks that wait before they can be handed out again.
//!
//! A ring per slab class: freed blocks go in at one end, and malloc takes from the other. When it finds none
//! ready, the oldest batch that has waited for [`DELAY`] frees is looked at and made ready. A ring is a
//! thread's cache of blocks at the same time: what goes through it is live as far as spans know, costs no
//! link, and may be of any thread's span. When there are too many, the oldest are freed in earnest. All larger
//! blocks share one more ring, of 4. A double free finds the block's mark, a late write its zeros changed, and
//! an attacker does not get the address back at once.
//!
//! Costs per thread and slab class in use up to 64 blocks that must wait and [`BYTES`] of others, and 4 MiB
//! in all for larger blocks. A free stores the block and one number, a malloc loads the block and stores
//! one number. malloc loads nothing that a free has just stored (but for the block that waited): where a
//! free stores depends on the block's class, and the processor would wait each time until it knows. With
//! ready blocks on a stack, filled by free, a pair took 10 ns instead of 8.

use core::mem::replace;
use core::ptr::null_mut;

use crate::slab::{CLASSES, SizeClass};

/// Blocks that are looked at together: the processor then guesses right what depends on their size.
pub(crate) const BATCH: usize = 16;
/// Blocks of a slab class that are freed before one can be handed out again.
const DELAY: usize = 48;
/// Positions of a ring: all numbers that a position can hold.
const POSITIONS: usize = 256;
/// Blocks that wait no longer: as many as these bytes hold, but within limits.
const BYTES: usize = 32 << 10;
const LEAST: usize = BATCH;
const MOST: usize = POSITIONS - DELAY - 2 * BATCH;
const MEDIUM: usize = 4;

/// Ends the process if somebody wrote into a block that waited.
pub(crate) type Look = unsafe fn(*mut u8);

/// The freed blocks of one heap. Zeroed memory is an empty one.
#[derive(Debug)]
pub(crate) struct Quarantine {
    /// For those that leave because the quarantine is emptied; known once there are any.
    look: Option<Look>,
    rings: [Ring; CLASSES],
    blocks: [[*mut u8; POSITIONS]; CLASSES],
    medium: [*mut u8; MEDIUM],
    medium_at: usize,
}

/// Which positions of a class hold what, oldest first; they begin again at 0 after 255. Apart from the blocks,
/// so that those of all classes lie together.
///
/// # Invariants
/// 1. From `first` up to `ready` stand blocks that may be handed out, from there up to `next` those that
///    must wait: `limit` in all at most.
/// 2. `ready` is a multiple of [`BATCH`].
#[derive(Debug)]
struct Ring {
    first: u8,
    ready: u8,
    next: u8,
    /// Blocks at most; 0 before the first, and then `capacity` is not right either.
    limit: u8,
    /// Bytes of a block.
    capacity: u16,
}

impl Quarantine {
    /// The block of a class that has been ready longest, and its bytes; it leaves the quarantine.
    #[inline(always)]
    pub(crate) fn take(&mut self, class: SizeClass) -> Option<(*mut u8, usize)> {
        // SAFETY: a class is below CLASSES, and there are as many positions as numbers.
        unsafe {
            let ring = self.rings.get_unchecked_mut(class.index());
            if ring.first == ring.ready {
                return None;
            }
            let at = ring.first as usize;
            ring.first = ring.first.wrapping_add(1);
            let blocks = self.blocks.get_unchecked(class.index());
            Some((*blocks.get_unchecked(at), ring.capacity as usize))
        }
    }

    /// Lets a freed block wait; false if there is no room, or never was a block before: then
    /// the oldest must leave.
    #[inline(always)]
    pub(crate) fn put(&mut self, class: SizeClass, block: *mut u8) -> bool {
        let (ring, blocks) = self.parts(class);
        let at = ring.next;
        if at.wrapping_sub(ring.first) >= ring.limit {
            return false;
        }
        ring.next = at.wrapping_add(1);
        // SAFETY: there are as many positions as numbers.
        unsafe { *blocks.get_unchecked_mut(at as usize) = block };
        true
    }

    /// Makes the batch ready that has waited longest, if it has long enough, or `at_once` if it is full,
    /// after `look` saw it; false if there is none.
    #[inline(always)]
    pub(crate) fn make_ready(
        &mut self,
        class: SizeClass,
        at_once: bool,
        look: impl FnOnce(&[*mut u8]),
    ) -> bool {
        let (ring, blocks) = self.parts(class);
        let wait = if at_once { BATCH } else { DELAY + BATCH };
        if (ring.next.wrapping_sub(ring.ready) as usize) < wait {
            return false;
        }
        let at = ring.ready as usize;
        look(blocks.get(at..at + BATCH).unwrap_or(&[]));
        ring.ready = ring.ready.wrapping_add(BATCH as u8);
        true
    }

    /// Says what blocks of a class there may be, and who looks at them: before the first, and whenever there is no
    /// room.
    pub(crate) fn prepare(&mut self, class: SizeClass, look: Look) {
        self.look = Some(look);
        let (ring, _) = self.parts(class);
        let most = (BYTES / class.size().max(1)).clamp(LEAST, MOST) + DELAY + BATCH;
        (ring.limit, ring.capacity) = (most as u8, class.size() as u16);
    }

    #[inline(always)]
    fn parts(&mut self, class: SizeClass) -> (&mut Ring, &mut [*mut u8; POSITIONS]) {
        // SAFETY: a class is below CLASSES.
        unsafe {
            let ring = self.rings.get_unchecked_mut(class.index());
            (ring, self.blocks.get_unchecked_mut(class.index()))
        }
    }

    /// Makes free blocks of a class ready that never waited, when none is: at most a batch, and no more than
    /// there is room for.
    pub(crate) fn add_ready(
        &mut self,
        class: SizeClass,
        look: Look,
        mut next: impl FnMut() -> *mut u8,
    ) {
        self.prepare(class, look);
        let (ring, blocks) = self.parts(class);
        // Up to `limit` blocks may wait where nothing is made ready because the next sample is near.
        let room = ring.limit.saturating_sub(ring.next.wrapping_sub(ring.first));
        for _ in 0..BATCH.min(room as usize) {
            let block = next();
            if block.is_null() {
                return;
            }
            ring.first = ring.first.wrapping_sub(1);
            if let Some(place) = blocks.get_mut(ring.first as usize) {
                *place = block;
            }
        }
    }

    /// Takes a larger freed block in; the one that leaves for it, or null.
    #[inline(always)]
    pub(crate) fn exchange_medium(&mut self, block: *mut u8) -> *mut u8 {
        let here = self.medium_at % MEDIUM;
        self.medium_at = here + 1;
        self.medium.get_mut(here).map_or(block, |slot| replace(slot, block))
    }

    /// Says who looks at larger blocks: with the first of them.
    #[cold]
    pub(crate) fn prepare_medium(&mut self, look: Look) {
        self.look = Some(look);
    }

    /// Hands every block to `release`, those that waited after a look at them.
    ///
    /// # Safety
    /// The blocks are still in spans in use.
    pub(super) unsafe fn empty(&mut self, mut release: impl FnMut(*mut u8)) {
        let look = self.look;
        let mut leave = |block, waited: bool| {
            if let Some(look) = look.filter(|_| waited) {
                // SAFETY: the caller's promise; whoever put the block here says that it is one to look at.
                unsafe { look(block) };
            }
            release(block);
        };
        for (ring, blocks) in self.rings.iter_mut().zip(&self.blocks) {
            let mut waited = false;
            while ring.first != ring.next {
                waited |= ring.first == ring.ready;
                if let Some(&block) = blocks.get(ring.first as usize) {
                    leave(block, waited);
                }
                ring.first = ring.first.wrapping_add(1);
            }
            (ring.first, ring.ready, ring.next) = (0, 0, 0);
        }
        for slot in &mut self.medium {
            if !slot.is_null() {
                leave(replace(slot, null_mut()), true);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::iter;
    use std::boxed::Box;
    use std::vec::Vec;

    #[test]
    fn however_many_blocks_wait_those_added_beside_them_fit_and_each_leaves_once() {
        for class in SizeClass::all() {
            for waiting in 0..POSITIONS {
                // SAFETY: zeroed memory is an empty quarantine.
                let mut ring = unsafe { Box::<Quarantine>::new_zeroed().assume_init() };
                ring.prepare(class, |_| ());
                let limit = ring.rings[class.index()].limit as usize;
                // Nobody reads the blocks.
                let mut number = 0;
                let mut fresh = || {
                    number += 16;
                    core::ptr::without_provenance_mut::<u8>(number)
                };
                let mut put = |ring: &mut Quarantine, count| {
                    let mut blocks: Vec<_> = iter::repeat_with(&mut fresh).take(count).collect();
                    blocks.retain(|&block| ring.put(class, block));
                    blocks
                };
                let waited = put(&mut ring, waiting);
                assert_eq!(waited.len(), waiting.min(limit));
                let mut added = 0;
                ring.add_ready(
                    class,
                    |_| (),
                    || {
                        added += 1;
                        core::ptr::without_provenance_mut(usize::MAX - added)
                    },
                );
                assert_eq!(added, BATCH.min(limit - waited.len()), "beside {waiting}");
                let later = put(&mut ring, POSITIONS);
                let taken: Vec<_> = iter::from_fn(|| ring.take(class)).collect();
                let ready: Vec<_> =
                    taken.iter().map(|(block, _)| usize::MAX - block.addr()).collect();
                assert_eq!(ready, (1..=added).rev().collect::<Vec<_>>(), "beside {waiting}");
                let mut left = Vec::new();
                // SAFETY: nobody looks at the blocks.
                unsafe { ring.empty(|block| left.push(block)) };
                assert_eq!(left, [waited, later].concat(), "beside {waiting}");
            }
        }
    }
}
