//! A treap through free blocks or runs: ordered by size and then by address, its heap order a hash of the
//! address, so that no balance is stored. Where a node keeps its two links is the affair of [`Nodes`].
//!
//! Owns the root. Cost: O(log n) expected.
//!
//! # Invariants
//! 1. In-order, nodes rise by (size, address); no node's priority exceeds its parent's.
//!
//! Source: Seidel, Aragon: Randomized search trees (1996).

use crate::block::{Fault, FaultKind, fault_at};

/// Which of a node's two links.
#[derive(Clone, Copy, Debug)]
pub(super) enum Side {
    /// To what is smaller.
    Left,
    /// To what is larger.
    Right,
}

/// What is known of a node by its address, which is never 0; an address that is no node's is a fault.
pub(super) trait Nodes {
    /// What comes first in the order.
    fn size(&self, at: usize) -> Result<usize, Fault>;

    /// The node that a link leads to; 0: none.
    fn child(&self, at: usize, side: Side) -> Result<usize, Fault>;

    /// Changes a link.
    fn set_child(&self, at: usize, side: Side, node: usize) -> Result<(), Fault>;
}

/// The root of a treap; 0 if it is empty.
#[derive(Debug)]
pub(super) struct Treap(usize);

/// Where a link stands: in a node, or in the root.
type Slot = Option<(usize, Side)>;

#[inline(always)]
const fn priority(at: usize) -> u64 {
    let mixed = (at as u64 >> 4).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed ^ (mixed >> 29)).wrapping_mul(0x94d0_49bb_1331_11eb)
}

impl Treap {
    pub(super) const EMPTY: Self = Self(0);

    #[inline(always)]
    fn get(&self, nodes: &impl Nodes, slot: Slot) -> Result<usize, Fault> {
        match slot {
            None => Ok(self.0),
            Some((at, side)) => nodes.child(at, side),
        }
    }

    #[inline(always)]
    fn set(&mut self, nodes: &impl Nodes, slot: Slot, node: usize) -> Result<(), Fault> {
        match slot {
            None => self.0 = node,
            Some((at, side)) => nodes.set_child(at, side, node)?,
        }
        Ok(())
    }

    /// Takes in a node that is in no treap.
    pub(super) fn insert(
        &mut self,
        nodes: &impl Nodes,
        at: usize,
        size: usize,
    ) -> Result<(), Fault> {
        let (key, mine) = ((size, at), priority(at));
        let (mut slot, mut node) = (None, self.0);
        while node != 0 && priority(node) >= mine {
            let side = if key < (nodes.size(node)?, node) { Side::Left } else { Side::Right };
            slot = Some((node, side));
            node = self.get(nodes, slot)?;
        }
        self.set(nodes, slot, at)?;
        // What hung there is split into what comes before and behind the new node.
        let (mut before, mut behind) = (Some((at, Side::Left)), Some((at, Side::Right)));
        while node != 0 {
            if (nodes.size(node)?, node) < key {
                self.set(nodes, before, node)?;
                before = Some((node, Side::Right));
                node = self.get(nodes, before)?;
            } else {
                self.set(nodes, behind, node)?;
                behind = Some((node, Side::Left));
                node = self.get(nodes, behind)?;
            }
        }
        self.set(nodes, before, 0)?;
        self.set(nodes, behind, 0)
    }

    /// Lets go of a node.
    pub(super) fn remove(
        &mut self,
        nodes: &impl Nodes,
        at: usize,
        size: usize,
    ) -> Result<(), Fault> {
        let (mut slot, mut node) = (None, self.0);
        while node != at {
            if node == 0 {
                return Err(fault_at(FaultKind::CorruptIndex, at, size));
            }
            let side =
                if (size, at) < (nodes.size(node)?, node) { Side::Left } else { Side::Right };
            slot = Some((node, side));
            node = self.get(nodes, slot)?;
        }
        let mut left = nodes.child(node, Side::Left)?;
        let mut right = nodes.child(node, Side::Right)?;
        while left != 0 && right != 0 {
            if priority(left) >= priority(right) {
                self.set(nodes, slot, left)?;
                slot = Some((left, Side::Right));
                left = self.get(nodes, slot)?;
            } else {
                self.set(nodes, slot, right)?;
                slot = Some((right, Side::Left));
                right = self.get(nodes, slot)?;
            }
        }
        self.set(nodes, slot, if left != 0 { left } else { right })
    }

    /// The smallest node of at least `size`, or 0; counts the nodes it looked at.
    #[inline(always)]
    pub(super) fn at_least(
        &self,
        nodes: &impl Nodes,
        size: usize,
        examined: &mut u64,
    ) -> Result<usize, Fault> {
        let (mut best, mut node) = (0, self.0);
        while node != 0 {
            *examined += 1;
            let fits = nodes.size(node)? >= size;
            if fits {
                best = node;
            }
            node = nodes.child(node, if fits { Side::Left } else { Side::Right })?;
        }
        Ok(best)
    }

    /// The largest node, or 0; counts as `at_least` does.
    #[inline(always)]
    pub(super) fn last(&self, nodes: &impl Nodes, examined: &mut u64) -> Result<usize, Fault> {
        let (mut best, mut node) = (0, self.0);
        while node != 0 {
            *examined += 1;
            best = node;
            node = nodes.child(node, Side::Right)?;
        }
        Ok(best)
    }

    /// Tests the invariant; how many nodes there are, none smaller than `least`, and the sum of their
    /// sizes.
    pub(super) fn check(&self, nodes: &impl Nodes, least: usize) -> Result<(usize, usize), Fault> {
        let mut sum = (0, 0);
        Self::walk(nodes, self.0, ((least, 0), (usize::MAX, 0)), u64::MAX, &mut sum)?;
        Ok(sum)
    }

    /// Recursion is as deep as the treap, O(log n) expected; keys narrow, so damage cannot loop.
    fn walk(
        nodes: &impl Nodes,
        node: usize,
        (above, below): ((usize, usize), (usize, usize)),
        bound: u64,
        sum: &mut (usize, usize),
    ) -> Result<(), Fault> {
        if node == 0 {
            return Ok(());
        }
        let (key, priority) = ((nodes.size(node)?, node), priority(node));
        if key <= above || key >= below || priority > bound {
            return Err(fault_at(FaultKind::CorruptIndex, node, key.0));
        }
        *sum = (sum.0 + 1, sum.1 + key.0);
        Self::walk(nodes, nodes.child(node, Side::Left)?, (above, key), priority, sum)?;
        Self::walk(nodes, nodes.child(node, Side::Right)?, (key, below), priority, sum)
    }
}
