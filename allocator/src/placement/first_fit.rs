//! First fit in address order: the lowest free block that is large enough.
//!
//! An object is cut from its block's end, so that what is left stays listed where it is; only the block at
//! the end of a region is cut from its front, as what is left there can be given back.
//!
//! Owns the address index. Cost: see `address_index.rs`.
//!
//! Sources: Knuth, The Art of Computer Programming 1, 2.5, algorithm A; Wilson, Johnstone, Neely, Boles:
//! Dynamic Storage Allocation (1995), section 3.4.

use super::address_index::AddressIndex;
use crate::block::{Fault, FreeBlock, GRAIN, Ground, Listed, MIN_BLOCK, Placement};

/// First fit in address order.
#[derive(Debug)]
pub struct FirstFit {
    index: AddressIndex,
}

impl FirstFit {
    #[inline(always)]
    fn find(
        &mut self,
        ground: &Ground,
        need: usize,
        align: usize,
    ) -> Result<Option<FreeBlock>, Fault> {
        for region in 0..ground.regions.len() {
            let found = self.index.find(ground, region, 0, need, align)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }
}

// SAFETY: every call goes to the address index, which keeps the contract.
unsafe impl Placement for FirstFit {
    const NAME: &'static str = "first-fit";
    const EMPTY: Self = Self { index: AddressIndex::EMPTY };

    fn index_bytes(limit: usize) -> usize {
        AddressIndex::bytes(limit)
    }

    fn region_changed(&mut self, _ground: &Ground, _index: usize, _came: bool) {
        self.index.forget();
    }

    #[inline(always)]
    unsafe fn insert(&mut self, ground: &Ground, block: FreeBlock) -> Result<(), Fault> {
        // SAFETY: the caller's promise.
        unsafe { self.index.insert(ground, block) };
        Ok(())
    }

    #[inline(always)]
    unsafe fn remove(&mut self, ground: &Ground, block: FreeBlock) -> Result<(), Fault> {
        // SAFETY: the caller's promise.
        unsafe { self.index.remove(ground, block) }
    }

    #[inline(always)]
    unsafe fn absorb(&mut self, ground: &Ground, block: FreeBlock) -> Result<bool, Fault> {
        // SAFETY: the caller's promise.
        unsafe { self.index.listed(ground, block) }?;
        Ok(true)
    }

    #[inline(always)]
    unsafe fn grew(&mut self, ground: &Ground, block: FreeBlock) {
        self.index.grew(ground, block);
    }

    #[inline(always)]
    fn take(
        &mut self,
        ground: &Ground,
        need: usize,
        align: usize,
    ) -> Result<Option<FreeBlock>, Fault> {
        let found = self.find(ground, need, align)?;
        if let Some(block) = found {
            // SAFETY: `find` returns listed blocks.
            unsafe { self.index.take_out(ground, block) }?;
        }
        Ok(found)
    }

    #[inline(always)]
    fn cut(&mut self, ground: &Ground, need: usize) -> Result<Option<(FreeBlock, bool)>, Fault> {
        let Some(block) = self.find(ground, need, GRAIN)? else { return Ok(None) };
        let at_the_end =
            ground.regions.get(block.region).is_some_and(|r| block.at + block.size == r.fence());
        let stays = block.size - need >= MIN_BLOCK && !at_the_end;
        if stays {
            // SAFETY: `find` returns listed blocks.
            unsafe { self.index.shrink(ground, block, block.size - need) }?;
        } else {
            // SAFETY: as above.
            unsafe { self.index.take_out(ground, block) }?;
        }
        Ok(Some((block, stays)))
    }

    fn check(&self, ground: &Ground) -> Result<Listed, Fault> {
        self.index.check(ground)
    }

    fn examined(&self) -> u64 {
        self.index.examined
    }
}
