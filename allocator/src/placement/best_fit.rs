//! Best fit: the smallest free block that is large enough, the lowest address among equals.
//!
//! Owns the size index; cost: see `size_index.rs`. An
//! aligned request is padded before the search, so that whatever is found serves it.
//!
//! Source: Wilson, Johnstone, Neely, Boles: Dynamic Storage Allocation (1995), section 3.4.

use super::size_index::SizeIndex;
use crate::block::{Fault, FreeBlock, Ground, Listed, Placement, padded};

/// Best fit.
#[derive(Debug)]
pub struct BestFit {
    index: SizeIndex,
}

// SAFETY: every call goes to the size index, which keeps the contract.
unsafe impl Placement for BestFit {
    const NAME: &'static str = "best-fit";
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
        let found = self.index.smallest(ground, padded(need, align))?;
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
