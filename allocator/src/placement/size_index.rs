//! Free blocks in order of size.
//!
//! Below 1 KiB one list per size; above, a treap through the blocks themselves, ordered by size and
//! then by address, whose heap order is a hash of the address: no balance is stored.
//!
//! Owns 64 list heads, a bitmap and the root; two sealed words in each listed block (next and
//! previous, or left and right). Cost: O(1) below 1 KiB, else O(log n) expected, one multiplication
//! per node to verify its links.
//!
//! # Invariants
//! 1. A block of less than 64 grains hangs in the list of its size; bit g is set exactly while
//!    list g is not empty.
//! 2. In-order, nodes rise by (size, address); no node's priority exceeds its parent's.
//!
//! Source: Seidel, Aragon: Randomized search trees (1996).

use super::list;
use crate::block::{Fault, FaultKind, FreeBlock, GRAIN, Ground, HEADER, Listed, fault_at, link};

const BINS: usize = 64;
const LEFT: usize = HEADER;
const RIGHT: usize = HEADER + 8;

/// The blocks of a heap in order of size.
#[derive(Debug)]
pub(super) struct SizeIndex {
    heads: [usize; BINS],
    bits: u64,
    root: usize,
    hint: usize,
    pub(super) examined: u64,
}

#[inline(always)]
pub(super) const fn priority(at: usize) -> u64 {
    let mixed = (at as u64 >> 4).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed ^ (mixed >> 29)).wrapping_mul(0x94d0_49bb_1331_11eb)
}

impl SizeIndex {
    pub(super) const EMPTY: Self =
        Self { heads: [0; BINS], bits: 0, root: 0, hint: 0, examined: 0 };

    /// Reads the link in `slot`; 0 stands for the root.
    #[inline(always)]
    fn get(&self, ground: &Ground, slot: (usize, usize)) -> Result<usize, Fault> {
        if slot.0 == 0 {
            return Ok(self.root);
        }
        // SAFETY: slots are formed from listed nodes only.
        unsafe { list::step(ground, slot.0, slot.1) }
    }

    #[inline(always)]
    fn set(&mut self, ground: &Ground, slot: (usize, usize), node: usize) {
        if slot.0 == 0 {
            self.root = node;
        } else {
            // SAFETY: slots are formed from listed nodes only, whose first words are ours.
            unsafe { link(slot.0 + slot.1, node, ground.secret) };
        }
    }

    /// The size of the node at `at`.
    #[inline(always)]
    fn size(ground: &Ground, at: usize) -> Result<usize, Fault> {
        // SAFETY: `at` came from the root or a sealed link, so it is listed.
        unsafe { ground.free_size(at) }
    }

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
        self.plant(ground, block)
    }

    fn plant(&mut self, ground: &Ground, block: FreeBlock) -> Result<(), Fault> {
        let key = (block.size, block.at);
        let mine = priority(block.at);
        let mut slot = (0, 0);
        let mut node = self.root;
        while node != 0 && priority(node) >= mine {
            let side = if key < (Self::size(ground, node)?, node) { LEFT } else { RIGHT };
            slot = (node, side);
            node = self.get(ground, slot)?;
        }
        self.set(ground, slot, block.at);
        // What hung there is split into what comes before and after the new node.
        let (mut before, mut after) = ((block.at, LEFT), (block.at, RIGHT));
        while node != 0 {
            if (Self::size(ground, node)?, node) < key {
                self.set(ground, before, node);
                before = (node, RIGHT);
                node = self.get(ground, before)?;
            } else {
                self.set(ground, after, node);
                after = (node, LEFT);
                node = self.get(ground, after)?;
            }
        }
        self.set(ground, before, 0);
        self.set(ground, after, 0);
        Ok(())
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
        self.uproot(ground, block)
    }

    fn uproot(&mut self, ground: &Ground, block: FreeBlock) -> Result<(), Fault> {
        let key = (block.size, block.at);
        let mut slot = (0, 0);
        let mut node = self.root;
        while node != block.at {
            if node == 0 {
                return Err(fault_at(FaultKind::CorruptIndex, block.at, block.size));
            }
            let side = if key < (Self::size(ground, node)?, node) { LEFT } else { RIGHT };
            slot = (node, side);
            node = self.get(ground, slot)?;
        }
        let mut left = self.get(ground, (node, LEFT))?;
        let mut right = self.get(ground, (node, RIGHT))?;
        while left != 0 && right != 0 {
            if priority(left) >= priority(right) {
                self.set(ground, slot, left);
                slot = (left, RIGHT);
                left = self.get(ground, slot)?;
            } else {
                self.set(ground, slot, right);
                slot = (right, LEFT);
                right = self.get(ground, slot)?;
            }
        }
        self.set(ground, slot, if left != 0 { left } else { right });
        Ok(())
    }

    fn found(&mut self, ground: &Ground, at: usize) -> Result<Option<FreeBlock>, Fault> {
        if at == 0 {
            return Ok(None);
        }
        let size = Self::size(ground, at)?;
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
        let (mut best, mut node) = (0, self.root);
        while node != 0 {
            self.examined += 1;
            let fits = Self::size(ground, node)? >= need;
            if fits {
                best = node;
            }
            node = self.get(ground, (node, if fits { LEFT } else { RIGHT }))?;
        }
        self.found(ground, best)
    }

    /// The largest block, still listed.
    #[inline(always)]
    pub(super) fn largest(&mut self, ground: &Ground) -> Result<Option<FreeBlock>, Fault> {
        let (mut best, mut node) = (0, self.root);
        while node != 0 {
            self.examined += 1;
            best = node;
            node = self.get(ground, (node, RIGHT))?;
        }
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
        self.check_tree(ground, self.root, (0, 0), (usize::MAX, 0), u64::MAX, &mut listed)?;
        Ok(listed)
    }

    /// Recursion is as deep as the treap, O(log n) expected; keys narrow, so damage cannot loop.
    fn check_tree(
        &self,
        ground: &Ground,
        node: usize,
        above: (usize, usize),
        below: (usize, usize),
        bound: u64,
        listed: &mut Listed,
    ) -> Result<(), Fault> {
        if node == 0 {
            return Ok(());
        }
        let key = (Self::size(ground, node)?, node);
        let priority = priority(node);
        if key <= above || key >= below || priority > bound || key.0 < BINS * GRAIN {
            return Err(fault_at(FaultKind::CorruptIndex, node, key.0));
        }
        listed.blocks += 1;
        listed.bytes += key.0;
        let left = self.get(ground, (node, LEFT))?;
        self.check_tree(ground, left, above, key, priority, listed)?;
        let right = self.get(ground, (node, RIGHT))?;
        self.check_tree(ground, right, key, below, priority, listed)
    }
}
