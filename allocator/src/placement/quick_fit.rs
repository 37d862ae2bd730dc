//! Quick fit: a freed block of up to 1 KiB waits, unmerged, for a request of exactly its size.
//!
//! What no list serves goes to a tail strategy (first fit unless named otherwise), and so do larger
//! blocks. The same code is deferred coalescing: `QuickFit<P>` is `P` that merges small blocks only
//! when it would have to grow, when it is trimmed, or when it is flushed.
//!
//! Owns one list head per size, and two sealed words in each block that waits: the next one, and
//! itself as a guard. Cost: O(1), two blocks touched.
//!
//! # Invariants
//! 1. A block that waits is marked as parked in its header, so neighbours never merge with it and a
//!    second free is recognised.
//! 2. Every block in list g has g grains of 16 bytes.
//! 3. A block leaves its list without its guard: left in an object, it would read as "cached" to the caches
//!    of threads, which seal the same word alike.
//!
//! Source: Weinstock, Wulf: Quick fit (1988).

use super::FirstFit;
use crate::block::{Fault, FaultKind, FreeBlock, GRAIN, Ground, HEADER, Listed, Placement};
use crate::block::{fault_at, follow, link, store};

const BINS: usize = 65;

/// Exact lists in front of the strategy `P`; `ON` says whether they are in use from the start.
#[derive(Debug)]
pub struct QuickFit<P = FirstFit, const ON: bool = true> {
    heads: [usize; BINS],
    bits: u128,
    on: bool,
    tail: P,
}

impl<P: Placement, const ON: bool> QuickFit<P, ON> {
    #[inline(always)]
    fn pop(&mut self, ground: &Ground, grains: usize) -> Result<Option<usize>, Fault> {
        let Some(head) = self.heads.get_mut(grains) else { return Ok(None) };
        let at = *head;
        if at == 0 {
            return Ok(None);
        }
        // SAFETY: a block that waits holds two words for us.
        *head = unsafe { waiting(ground, at) }?;
        // SAFETY: as above; the zero is invariant 3.
        unsafe { store(at + HEADER + 8, 0) };
        if *head == 0 {
            self.bits &= !(1 << grains);
        }
        Ok(Some(at))
    }
}

/// The block behind the waiting block `at`, if both of its words are as they were written.
///
/// # Safety
/// The block waits in a list.
#[inline(always)]
unsafe fn waiting(ground: &Ground, at: usize) -> Result<usize, Fault> {
    // SAFETY: the first two payload words of a block that waits.
    let words =
        unsafe { (follow(at + HEADER, ground.secret), follow(at + HEADER + 8, ground.secret)) };
    match words {
        (Some(next), Some(guard)) if guard == at => Ok(next),
        _ => Err(fault_at(FaultKind::UseAfterFree, at, 0)),
    }
}

// SAFETY: free blocks go to the tail, which keeps the contract; parked blocks are in one list each.
unsafe impl<P: Placement, const ON: bool> Placement for QuickFit<P, ON> {
    const NAME: &'static str = "quick-fit";
    const EMPTY: Self = Self { heads: [0; BINS], bits: 0, on: ON, tail: P::EMPTY };

    fn index_bytes(limit: usize) -> usize {
        P::index_bytes(limit)
    }

    fn region_changed(&mut self, ground: &Ground, index: usize, came: bool) {
        self.tail.region_changed(ground, index, came);
    }

    #[inline(always)]
    unsafe fn insert(&mut self, ground: &Ground, block: FreeBlock) -> Result<(), Fault> {
        // SAFETY: the caller's promise.
        unsafe { self.tail.insert(ground, block) }
    }

    #[inline(always)]
    unsafe fn remove(&mut self, ground: &Ground, block: FreeBlock) -> Result<(), Fault> {
        // SAFETY: the caller's promise.
        unsafe { self.tail.remove(ground, block) }
    }

    #[inline(always)]
    unsafe fn absorb(&mut self, ground: &Ground, block: FreeBlock) -> Result<bool, Fault> {
        // SAFETY: the caller's promise.
        unsafe { self.tail.absorb(ground, block) }
    }

    #[inline(always)]
    unsafe fn grew(&mut self, ground: &Ground, block: FreeBlock) {
        // SAFETY: the caller's promise.
        unsafe { self.tail.grew(ground, block) };
    }

    #[inline(always)]
    fn take(
        &mut self,
        ground: &Ground,
        need: usize,
        align: usize,
    ) -> Result<Option<FreeBlock>, Fault> {
        self.tail.take(ground, need, align)
    }

    #[inline(always)]
    fn cut(&mut self, ground: &Ground, need: usize) -> Result<Option<(FreeBlock, bool)>, Fault> {
        self.tail.cut(ground, need)
    }

    fn check(&self, ground: &Ground) -> Result<Listed, Fault> {
        let mut listed = self.tail.check(ground)?;
        for (grains, &head) in self.heads.iter().enumerate() {
            if (self.bits >> grains & 1 == 1) != (head != 0) {
                return Err(fault_at(FaultKind::CorruptIndex, head, 0));
            }
            let mut at = head;
            let mut left: usize =
                ground.regions.iter().map(|region| region.end - region.base).sum();
            while at != 0 {
                // SAFETY: `at` came from a head or a sealed link.
                let header = unsafe { ground.header(at) };
                let size = grains * GRAIN;
                let sound = header.is_some_and(|h| h.is_parked() && h.size() == size);
                if !sound || left < size {
                    return Err(fault_at(FaultKind::CorruptIndex, at, size));
                }
                left -= size;
                listed.parked += 1;
                // SAFETY: as above.
                at = unsafe { waiting(ground, at) }?;
            }
        }
        Ok(listed)
    }

    fn examined(&self) -> u64 {
        self.tail.examined()
    }

    #[inline(always)]
    unsafe fn park(&mut self, ground: &Ground, block: FreeBlock) -> bool {
        if !self.on {
            return false;
        }
        let grains = block.size / GRAIN;
        let Some(head) = self.heads.get_mut(grains) else { return false };
        // SAFETY: nobody uses the block, and it has two payload words.
        unsafe { link(block.at + HEADER, *head, ground.secret) };
        // SAFETY: as above.
        unsafe { link(block.at + HEADER + 8, block.at, ground.secret) };
        *head = block.at;
        self.bits |= 1 << grains;
        true
    }

    #[inline(always)]
    fn unpark(&mut self, ground: &Ground, need: usize) -> Result<Option<usize>, Fault> {
        self.pop(ground, need / GRAIN)
    }

    fn unpark_any(&mut self, ground: &Ground) -> Result<Option<usize>, Fault> {
        self.pop(ground, self.bits.trailing_zeros() as usize)
    }

    fn set_deferred(&mut self, deferred: bool) {
        self.on = deferred;
    }
}
