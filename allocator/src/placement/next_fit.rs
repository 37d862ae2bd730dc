//! Next fit: the search goes on where the last one ended, and wraps around once.
//!
//! Owns the address index and the rover. Cost: as first fit. It spreads objects over the whole heap,
//! which is why it fragments more; it is here to be compared.
//!
//! Source: Knuth, The Art of Computer Programming 1, 2.5, exercise 6.

use super::address_index::AddressIndex;
use crate::block::{Fault, FreeBlock, Ground, Listed, Placement};

/// Next fit in address order.
#[derive(Debug)]
pub struct NextFit {
    index: AddressIndex,
    rover: usize,
}

impl NextFit {
    /// Searches all regions from address `from` on.
    #[inline(always)]
    fn search(
        &mut self,
        ground: &Ground,
        from: usize,
        need: usize,
        align: usize,
    ) -> Result<Option<FreeBlock>, Fault> {
        let mut found = None;
        for (number, region) in ground.regions.iter().enumerate() {
            if region.end > from && found.is_none() {
                found = self.index.find(ground, number, from, need, align)?;
            }
        }
        Ok(found)
    }
}

// SAFETY: every call goes to the address index, which keeps the contract.
unsafe impl Placement for NextFit {
    const NAME: &'static str = "next-fit";
    const EMPTY: Self = Self { index: AddressIndex::EMPTY, rover: 0 };

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
        let mut found = self.search(ground, self.rover, need, align)?;
        if found.is_none() && self.rover != 0 {
            found = self.search(ground, 0, need, align)?;
        }
        if let Some(block) = found {
            self.rover = block.at + need;
            // SAFETY: `search` returns listed blocks.
            unsafe { self.index.take_out(ground, block) }?;
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
