//! Worst fit: the largest free block, so that what is left of it stays useful.
//!
//! Owns the size index; cost: see `size_index.rs`. It
//! breaks up large blocks first and keeps the whole heap in use; it is here to be compared.
//!
//! Source: Wilson, Johnstone, Neely, Boles: Dynamic Storage Allocation (1995), section 3.4.

use super::size_index::SizeIndex;
use crate::block::{Fault, FreeBlock, Ground, Listed, Placement, fit};

/// Worst fit.
#[derive(Debug)]
pub struct WorstFit {
    index: SizeIndex,
}

// SAFETY: every call goes to the size index, which keeps the contract.
unsafe impl Placement for WorstFit {
    const NAME: &'static str = "worst-fit";
    const EMPTY: Self = Self { index: SizeIndex::EMPTY };

    #[inline(always)]
    unsafe fn insert(&mut self, ground: &Ground, block: FreeBlock) -> Result<(), Fault> {
        // SAFETY: the caller's promise.
        unsafe { self.index.insert(ground, block) }
    }

    #[inline(always)]
    unsafe fn remove(&mut self, ground: &Ground, block: FreeBlock) -> Result<(), Fault> {
        // SAFETY: the caller's promise.
        unsafe { self.index.remove(ground, block) }
    }

    #[inline(always)]
    fn take(
        &mut self,
        ground: &Ground,
        need: usize,
        align: usize,
    ) -> Result<Option<FreeBlock>, Fault> {
        let largest = self.index.largest(ground)?;
        let found = largest.filter(|block| fit(block.at, block.size, need, align).is_some());
        if let Some(block) = found {
            // SAFETY: the index returns listed blocks.
            unsafe { self.index.remove(ground, block) }?;
        }
        Ok(found)
    }

    fn check(&self, ground: &Ground) -> Result<Listed, Fault> {
        self.index.check(ground)
    }

    fn examined(&self) -> u64 {
        self.index.examined
    }
}
