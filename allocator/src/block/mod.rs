//! The boundary-tag heap: blocks with an eight-byte header, merged with their neighbours in O(1).
//!
//! What it is: one single-threaded heap over regions that a [`Source`] gives it. Which free block
//! serves a request is decided by a [`Placement`]; locks, arenas, caches and routing stand above.
//! Owns its regions and every block in them.
//!
//! Cost: 8 bytes per object, rounded up to 16; a free block costs nothing more. Allocating is what
//! the placement costs plus one split; freeing touches the block's header, the next header and, if
//! the predecessor is free, its footer and header.
//!
//! # Invariants (tested by [`BlockHeap::check`])
//! 1. The blocks of a region lie end to end from its first header to its fence.
//! 2. Every header is sealed; `prev` tells the truth about the predecessor; a free block's footer
//!    repeats its size.
//! 3. No two neighbours are both free (unless they would exceed [`MAX_BLOCK`] together).
//! 4. The placement lists exactly the free blocks.
//! 5. The counters equal what a walk finds: head + blocks + fence = region.
//!
//! Source: Knuth's boundary tags (The Art of Computer Programming 1, 2.5), with the in-use
//! predecessor bit that spares live blocks their footer.
#![cfg_attr(
    not(test),
    deny(clippy::panic, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)
)]

mod check;
mod core_heap;
mod fault;
mod fixed;
mod ground;
mod header;
mod heap;
mod region;
mod resize;
mod supply;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use check::{BlockInfo, Counters, Totals};
pub use core_heap::{HeapCore, Strategy};
pub use fault::{Fault, FaultKind};
pub use fixed::FixedRegion;
pub use ground::{FreeBlock, Ground, block_size};
pub(crate) use ground::{fault as fault_at, fit, live_bytes, padded};
pub use header::{GRAIN, HEADER, MAX_BLOCK, MIN_BLOCK};
pub(crate) use header::{follow, footer, footer_stamp, link, load, store};
pub use heap::{BlockHeap, Policy};
pub use region::{Added, Extent, MAX_REGIONS, Region, Source};

/// Decides which free block serves a request, and keeps the free blocks findable.
///
/// A strategy owns the first two payload words of every block it lists and the stamp in its footer,
/// and whatever side index it asked for at the front of each region.
///
/// # Safety
/// Implementations list a block exactly from `insert` until `remove` or `take`, hand out only
/// blocks that are listed and fit, and write nowhere else.
pub unsafe trait Placement {
    /// Name as options spell it.
    const NAME: &'static str;

    /// A strategy that lists nothing.
    const EMPTY: Self;

    /// Bytes of side index for a region that may reach `limit` bytes. They start out as zeros.
    #[must_use]
    fn index_bytes(limit: usize) -> usize {
        let _ = limit;
        0
    }

    /// Tells that the region at `index` came (`true`) or is about to go, with no block listed.
    fn region_changed(&mut self, ground: &Ground, index: usize, came: bool) {
        let _ = (ground, index, came);
    }

    /// Lists a block.
    ///
    /// # Errors
    /// A fault if the words of a listed block on the way were damaged; then it is not listed.
    ///
    /// # Safety
    /// The block is free, its header and footer are written, and it is not listed.
    unsafe fn insert(&mut self, ground: &Ground, block: FreeBlock) -> Result<(), Fault>;

    /// Unlists a block.
    ///
    /// # Errors
    /// A fault if the words that list it were damaged; then nothing was changed.
    ///
    /// # Safety
    /// The block is listed, with this size.
    unsafe fn remove(&mut self, ground: &Ground, block: FreeBlock) -> Result<(), Fault>;

    /// A listed block is about to take in what follows it. `true`: it stays listed, and `grew` is
    /// called when its tags are written; `false`: it was unlisted, and `insert` is called.
    ///
    /// # Errors
    /// As for `remove`.
    ///
    /// # Safety
    /// The block is listed, with this size.
    unsafe fn absorb(&mut self, ground: &Ground, block: FreeBlock) -> Result<bool, Fault> {
        // SAFETY: the caller's promise.
        unsafe { self.remove(ground, block) }?;
        Ok(false)
    }

    /// A block for which `absorb` was `true` has this size now.
    ///
    /// # Safety
    /// The block is listed, and its tags are written.
    unsafe fn grew(&mut self, ground: &Ground, block: FreeBlock) {
        let _ = (ground, block);
    }

    /// Unlists a block that holds `need` bytes at `align` and returns it; `None` if there is none.
    ///
    /// # Errors
    /// A fault if a block or the words that list it were damaged.
    fn take(
        &mut self,
        ground: &Ground,
        need: usize,
        align: usize,
    ) -> Result<Option<FreeBlock>, Fault>;

    /// As `take` for an object without alignment of its own. `true`: the block stays listed, loses
    /// `need` bytes at its end and keeps at least [`MIN_BLOCK`]; it does not end its region.
    ///
    /// # Errors
    /// As for `take`.
    #[inline(always)]
    fn cut(&mut self, ground: &Ground, need: usize) -> Result<Option<(FreeBlock, bool)>, Fault> {
        Ok(self.take(ground, need, GRAIN)?.map(|block| (block, false)))
    }

    /// Walks the index: how many blocks and bytes it lists.
    ///
    /// # Errors
    /// The first broken link, order or bound.
    fn check(&self, ground: &Ground) -> Result<Listed, Fault>;

    /// Blocks examined by all searches so far.
    fn examined(&self) -> u64 {
        0
    }

    /// Keeps a freed block aside without merging it. `false`: the strategy does not, merge it now.
    ///
    /// # Safety
    /// The block is in use by nobody; its header is marked as parked if this returns `true`.
    unsafe fn park(&mut self, ground: &Ground, block: FreeBlock) -> bool {
        let _ = (ground, block);
        false
    }

    /// A parked block of exactly `need` bytes.
    ///
    /// # Errors
    /// A fault if the words that list it were damaged.
    fn unpark(&mut self, ground: &Ground, need: usize) -> Result<Option<usize>, Fault> {
        let _ = (ground, need);
        Ok(None)
    }

    /// Any parked block, so that it can be merged.
    ///
    /// # Errors
    /// As for `unpark`.
    fn unpark_any(&mut self, ground: &Ground) -> Result<Option<usize>, Fault> {
        let _ = ground;
        Ok(None)
    }

    /// Switches deferred coalescing, where the strategy has a choice. Nothing is parked.
    fn set_deferred(&mut self, deferred: bool) {
        let _ = deferred;
    }
}

/// What a strategy lists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// Free blocks.
    pub blocks: usize,
    /// Their bytes.
    pub bytes: usize,
    /// Blocks set aside without merging.
    pub parked: usize,
}

#[cfg(test)]
extern crate std;
