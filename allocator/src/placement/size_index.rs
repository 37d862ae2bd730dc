//! Free blocks in order of size.
//!
//! Below 1 KiB one list per size; above, a treap through the blocks themselves (see `treap.rs`).
//!
//! Owns 64 list heads, a bitmap and the treap; two sealed words in each listed block (next and
//! previous, or left and right). Cost: O(1) below 1 KiB, else O(log n) expected, one multiplication
//! per node to verify its links.
//!
//! # Invariants
//! 1. A block of less than 64 grains hangs in the list of its size; bit g is set exactly while
//!    list g is not empty.

use super::list;
use super::treap::{Nodes, Side, Treap};
use crate::block::{Fault, FaultKind, FreeBlock, GRAIN, Ground, HEADER, Listed, fault_at, link};

const BINS: usize = 64;

/// The blocks of a heap in order of size.
#[derive(Debug)]
pub(super) struct SizeIndex {
    heads: [usize; BINS],
    bits: u64,
    tree: Treap,
    hint: usize,
    pub(super) examined: u64,
}

/// A node keeps its links in its first two words, sealed.
impl Nodes for Ground {
    #[inline(always)]
    fn size(&self, at: usize) -> Result<usize, Fault> {
        // SAFETY: `at` came from the root or a sealed link, so it is listed.
        unsafe { self.free_size(at) }
    }

    #[inline(always)]
    fn child(&self, at: usize, side: Side) -> Result<usize, Fault> {
        // SAFETY: as above.
        unsafe { list::step(self, at, word(side)) }
    }

    #[inline(always)]
    fn set_child(&self, at: usize, side: Side, node: usize) -> Result<(), Fault> {
        // SAFETY: `at` is listed, so its first words are ours.
        unsafe { link(at + word(side), node, self.secret) };
        Ok(())
    }
}

/// Where a link stands in a block.
#[inline(always)]
const fn word(side: Side) -> usize {
    match side {
        Side::Left => HEADER,
        Side::Right => HEADER + 8,
    }
}

impl SizeIndex {
    pub(super) const EMPTY: Self =
        Self { heads: [0; BINS], bits: 0, tree: Treap::EMPTY, hint: 0, examined: 0 };

    /// # Safety
    /// As for `Placement::insert`.
    #[inline(always)]
    pub(super) unsafe fn insert(&mut self, ground: &Ground, block: FreeBlock) -> Result<(), Fault> {
        let grains = block.size / GRAIN;
        if let Some(head) = self.heads.get_mut(grains) {
            // SAFETY: the caller's promise: free, and in no list.
            unsafe { list::push(ground, head, block.at) };
            self.bits |= 1 << grains;
            return Ok(());
        }
        self.tree.insert(ground, block.at, block.size)
    }

    /// # Safety
    /// As for `Placement::remove`.
    #[inline(always)]
    pub(super) unsafe fn remove(&mut self, ground: &Ground, block: FreeBlock) -> Result<(), Fault> {
        let grains = block.size / GRAIN;
        if let Some(head) = self.heads.get_mut(grains) {
            // SAFETY: by invariant 1 the block hangs in this list.
            unsafe { list::unlink(ground, head, block.at) }?;
            if *head == 0 {
                self.bits &= !(1 << grains);
            }
            return Ok(());
        }
        self.tree.remove(ground, block.at, block.size)
    }

    fn found(&mut self, ground: &Ground, at: usize) -> Result<Option<FreeBlock>, Fault> {
        if at == 0 {
            return Ok(None);
        }
        let size = ground.size(at)?;
        let Some(region) = ground.regions.find(at, self.hint) else {
            return Err(fault_at(FaultKind::CorruptIndex, at, size));
        };
        self.hint = region;
        Ok(Some(FreeBlock { at, size, region }))
    }

    /// The smallest block of at least `need` bytes, still listed.
    #[inline(always)]
    pub(super) fn smallest(
        &mut self,
        ground: &Ground,
        need: usize,
    ) -> Result<Option<FreeBlock>, Fault> {
        let grains = need / GRAIN;
        if grains < BINS {
            let bits = self.bits & (u64::MAX << grains);
            if bits != 0 {
                self.examined += 1;
                let head = self.heads.get(bits.trailing_zeros() as usize).copied();
                return self.found(ground, head.unwrap_or(0));
            }
        }
        let best = self.tree.at_least(ground, need, &mut self.examined)?;
        self.found(ground, best)
    }

    /// The largest block, still listed.
    #[inline(always)]
    pub(super) fn largest(&mut self, ground: &Ground) -> Result<Option<FreeBlock>, Fault> {
        let mut best = self.tree.last(ground, &mut self.examined)?;
        if best == 0 && self.bits != 0 {
            self.examined += 1;
            best = self.heads.get((self.bits | 1).ilog2() as usize).copied().unwrap_or(0);
        }
        self.found(ground, best)
    }

    pub(super) fn check(&self, ground: &Ground) -> Result<Listed, Fault> {
        let mut listed = Listed::default();
        for (grains, &head) in self.heads.iter().enumerate() {
            if (self.bits >> grains & 1 == 1) != (head != 0) {
                return Err(fault_at(FaultKind::CorruptIndex, head, 0));
            }
            let (blocks, bytes) = list::walk(ground, head, &mut |_, size| size == grains * GRAIN)?;
            listed.blocks += blocks;
            listed.bytes += bytes;
        }
        let (blocks, bytes) = self.tree.check(ground, BINS * GRAIN)?;
        listed.blocks += blocks;
        listed.bytes += bytes;
        Ok(listed)
    }
}
