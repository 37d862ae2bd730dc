//! First fit in address order: the lowest free block that is large enough.
//!
//! Owns the address index. Cost: see `address_index.rs`. Low addresses fill first, so the end of the
//! heap tends to be free and can be given back.
//!
//! Source: Wilson, Johnstone, Neely, Boles: Dynamic Storage Allocation (1995), section 3.4.

use super::address_index::AddressIndex;
use crate::block::{Fault, FreeBlock, Ground, Listed, Placement};

/// First fit in address order.
#[derive(Debug)]
pub struct FirstFit {
    index: AddressIndex,
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
        for region in 0..ground.regions.len() {
            if let Some(block) = self.index.find(ground, region, 0, need, align)? {
                // SAFETY: `find` returns listed blocks.
                unsafe { self.index.remove(ground, block) }?;
                return Ok(Some(block));
            }
        }
        Ok(None)
    }

    fn check(&self, ground: &Ground) -> Result<Listed, Fault> {
        self.index.check(ground)
    }

    fn examined(&self) -> u64 {
        self.index.examined
    }
}
