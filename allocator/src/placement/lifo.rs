//! First fit over a list in which the block freed last stands first.
//!
//! Free blocks hang in one list per doubling of size; each carries the stamp of its insertion in its
//! footer, so that the newest of all can be told across lists. A search takes the newest block that
//! fits: every block of a list above the request's own does, and in its own list at most [`LOOK`]
//! blocks are tried.
//!
//! Owns 26 list heads and their stamps. Cost: at most 25 comparisons and [`LOOK`] blocks, however
//! long the lists are; the classic single list walks all of them.
//!
//! # Invariants
//! 1. A block of s grains of 16 bytes hangs in list ⌊log2 s⌋; stamps fall along each list, until they begin anew
//!    after 5 × 10¹¹ insertions: then the order is wrong once, and nothing else.
//! 2. `stamps[b]` is the stamp of list b's first block, 0 if it is empty.

use super::list;
use crate::block::{Fault, FaultKind, FreeBlock, GRAIN, Ground, HEADER, Listed, Placement};
use crate::block::{fault_at, fit, footer, footer_stamp, load, padded, store};

const BANDS: usize = 26;
/// Blocks of the request's own band that are tried.
const LOOK: usize = 64;

/// First fit, newest block first.
#[derive(Debug)]
pub struct FirstFitLifo {
    heads: [usize; BANDS],
    stamps: [u64; BANDS],
    /// Insertions so far; its low bits are the stamp of the last one, which is never 0.
    clock: u64,
    examined: u64,
    hint: usize,
}

/// What of the clock a footer has room for: 39 bits.
const STAMP: u64 = (1 << 39) - 1;

#[inline(always)]
const fn band(size: usize) -> usize {
    ((size / GRAIN) | 1).ilog2() as usize
}

/// The stamp of the listed block at `at`.
///
/// # Safety
/// The block is free and `size` bytes long.
#[inline(always)]
unsafe fn stamp(at: usize, size: usize) -> u64 {
    // SAFETY: the last word of a free block is its footer.
    footer_stamp(unsafe { load(at + size - HEADER) })
}

impl FirstFitLifo {
    #[inline(always)]
    fn unlist(&mut self, ground: &Ground, at: usize, size: usize) -> Result<(), Fault> {
        let band = band(size);
        let (Some(head), Some(newest)) = (self.heads.get_mut(band), self.stamps.get_mut(band))
        else {
            return Err(fault_at(FaultKind::CorruptIndex, at, size));
        };
        let first = *head;
        // SAFETY: by invariant 1 the block hangs in this list.
        unsafe { list::unlink(ground, head, at) }?;
        if first == at {
            *newest = match *head {
                0 => 0,
                // SAFETY: the new head is listed, so its header tells where its footer is.
                head => unsafe { stamp(head, ground.free_size(head)?) },
            };
        }
        Ok(())
    }

    /// As after nearly as many insertions as there are stamps.
    #[cfg(test)]
    pub(super) fn near_the_last_stamp(&mut self) {
        self.clock = STAMP - 3;
    }

    /// The newest block above the request's own list: its address (0: none) and stamp.
    #[inline(always)]
    fn newest_above(&self, own: usize) -> (usize, u64) {
        let lists = self.heads.iter().zip(&self.stamps).skip(own + 1);
        lists
            .fold((0, 0), |best, (&head, &stamp)| if stamp > best.1 { (head, stamp) } else { best })
    }
}

// SAFETY: a block is linked into exactly one list by `insert` and unlinked by `remove` and `take`;
// only its link words and the stamp of its footer are written.
unsafe impl Placement for FirstFitLifo {
    const NAME: &'static str = "first-fit-lifo";
    const EMPTY: Self =
        Self { heads: [0; BANDS], stamps: [0; BANDS], clock: 0, examined: 0, hint: 0 };

    #[inline(always)]
    unsafe fn insert(&mut self, ground: &Ground, block: FreeBlock) -> Result<(), Fault> {
        let band = band(block.size);
        self.clock += 1;
        if self.clock & STAMP == 0 {
            self.clock += 1;
        }
        let now = self.clock & STAMP;
        if let (Some(head), Some(newest)) = (self.heads.get_mut(band), self.stamps.get_mut(band)) {
            // SAFETY: the last word of the block is its footer, whose stamp is ours.
            unsafe { store(block.at + block.size - HEADER, footer(block.size, now)) };
            // SAFETY: the caller's promise: free, and in no list.
            unsafe { list::push(ground, head, block.at) };
            *newest = now;
        }
        Ok(())
    }

    #[inline(always)]
    unsafe fn remove(&mut self, ground: &Ground, block: FreeBlock) -> Result<(), Fault> {
        self.unlist(ground, block.at, block.size)
    }

    #[inline(always)]
    fn take(
        &mut self,
        ground: &Ground,
        need: usize,
        align: usize,
    ) -> Result<Option<FreeBlock>, Fault> {
        let own = band(padded(need, align));
        let (mut best, newest) = self.newest_above(own);
        self.examined += u64::from(best != 0);
        for band in band(need)..=own {
            let mut at = self.heads.get(band).copied().unwrap_or(0);
            for _ in 0..LOOK {
                if at == 0 {
                    break;
                }
                self.examined += 1;
                // SAFETY: `at` is listed.
                let size = unsafe { ground.free_size(at) }?;
                // SAFETY: as above.
                if unsafe { stamp(at, size) } < newest {
                    break;
                }
                if fit(at, size, need, align).is_some() {
                    best = at;
                    break;
                }
                // SAFETY: `at` is listed.
                at = unsafe { list::next(ground, at) }?;
            }
        }
        if best == 0 {
            return Ok(None);
        }
        // SAFETY: `best` is listed.
        let size = unsafe { ground.free_size(best) }?;
        self.unlist(ground, best, size)?;
        let Some(region) = ground.regions.find(best, self.hint) else {
            return Err(fault_at(FaultKind::CorruptIndex, best, size));
        };
        self.hint = region;
        Ok(Some(FreeBlock { at: best, size, region }))
    }

    fn check(&self, ground: &Ground) -> Result<Listed, Fault> {
        let mut listed = Listed::default();
        for (number, (&head, &newest)) in self.heads.iter().zip(&self.stamps).enumerate() {
            let mut expected = newest;
            let (blocks, bytes) = list::walk(ground, head, &mut |at, size| {
                // SAFETY: `walk` shows listed blocks.
                let stamp = unsafe { stamp(at, size) };
                let ordered = stamp <= expected || self.clock > STAMP;
                let sound = band(size) == number && ordered;
                expected = stamp;
                sound
            })?;
            if (head == 0) != (newest == 0) {
                return Err(fault_at(FaultKind::CorruptIndex, head, 0));
            }
            listed.blocks += blocks;
            listed.bytes += bytes;
        }
        Ok(listed)
    }

    fn examined(&self) -> u64 {
        self.examined
    }
}
