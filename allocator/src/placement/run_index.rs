//! Free runs of pages of the slab heap in order of length.
//!
//! One list per length below 64 pages, the run freed last in front; longer runs in a treap through
//! their page records, ordered by length and then by address, whose heap order is a hash of the address.
//!
//! Owns 64 list heads, a bitmap, the root, and the two links in the record of each listed run's first
//! page (next and previous, or left and right). Cost: O(1) below 64 pages, else O(log n) expected.
//!
//! # Invariants
//! 1. A free run of less than 64 pages hangs in the list of its length; bit n is set exactly while list
//!    n is not empty.
//! 2. In-order, nodes rise by (pages, address); no node's priority exceeds its parent's.
//!
//! Source: Seidel, Aragon: Randomized search trees (1996).

use super::size_index::priority;
use super::slab_page::{Kind, PAGE, end_of, page};
use crate::block::{Fault, FaultKind, Ground, Region};

const BINS: usize = 64;

/// The free runs of a heap.
#[derive(Debug)]
pub(super) struct RunIndex {
    heads: [usize; BINS],
    bits: u64,
    root: usize,
    hint: usize,
    pub(super) examined: u64,
}

/// Where a link to a node stands: in the root, or before or behind another node.
#[derive(Clone, Copy)]
enum Slot {
    Root,
    Before(usize),
    Behind(usize),
}

/// A free run: its region, its first page, its number of pages.
#[derive(Clone, Copy)]
pub(super) struct Run {
    pub(super) region: Region,
    pub(super) at: usize,
    pub(super) pages: usize,
}

const fn broken(at: usize) -> Fault {
    Fault::new(FaultKind::CorruptIndex, at, 0)
}

impl RunIndex {
    pub(super) const EMPTY: Self =
        Self { heads: [0; BINS], bits: 0, root: 0, hint: 0, examined: 0 };

    /// The run that starts at `at`, if one that is free does.
    #[inline(always)]
    fn run(&self, ground: &Ground, at: usize) -> Result<Run, Fault> {
        let found = ground.regions.find(at, self.hint).and_then(|index| ground.regions.get(index));
        let Some(&region) = found else { return Err(broken(at)) };
        if at < region.first || at >= end_of(&region) || page(&region, at).kind != Kind::Free {
            return Err(broken(at));
        }
        Ok(Run { region, at, pages: page(&region, at).pages as usize })
    }

    fn key(&self, ground: &Ground, at: usize) -> Result<(usize, usize), Fault> {
        Ok((self.run(ground, at)?.pages, at))
    }

    fn get(&self, ground: &Ground, slot: Slot) -> Result<usize, Fault> {
        Ok(match slot {
            Slot::Root => self.root,
            Slot::Before(at) => page(&self.run(ground, at)?.region, at).prev,
            Slot::Behind(at) => page(&self.run(ground, at)?.region, at).next,
        })
    }

    fn set(&mut self, ground: &Ground, slot: Slot, node: usize) -> Result<(), Fault> {
        match slot {
            Slot::Root => self.root = node,
            Slot::Before(at) => page(&self.run(ground, at)?.region, at).prev = node,
            Slot::Behind(at) => page(&self.run(ground, at)?.region, at).next = node,
        }
        Ok(())
    }

    /// Lists a free run, whose record says so.
    pub(super) fn insert(&mut self, ground: &Ground, run: Run) -> Result<(), Fault> {
        let Some(head) = self.heads.get_mut(run.pages) else { return self.plant(ground, run) };
        let after = core::mem::replace(head, run.at);
        self.bits |= 1 << run.pages;
        let record = page(&run.region, run.at);
        (record.next, record.prev) = (after, 0);
        if after != 0 {
            page(&self.run(ground, after)?.region, after).prev = run.at;
        }
        Ok(())
    }

    /// Unlists a run.
    pub(super) fn remove(&mut self, ground: &Ground, run: Run) -> Result<(), Fault> {
        if run.pages >= BINS {
            return self.uproot(ground, run);
        }
        let (next, prev) = {
            let record = page(&run.region, run.at);
            (record.next, record.prev)
        };
        if next != 0 {
            page(&self.run(ground, next)?.region, next).prev = prev;
        }
        if prev != 0 {
            page(&self.run(ground, prev)?.region, prev).next = next;
        } else if let Some(head) = self.heads.get_mut(run.pages) {
            *head = next;
            if next == 0 {
                self.bits &= !(1 << run.pages);
            }
        }
        Ok(())
    }

    fn plant(&mut self, ground: &Ground, run: Run) -> Result<(), Fault> {
        let key = (run.pages, run.at);
        let mine = priority(run.at);
        let (mut slot, mut node) = (Slot::Root, self.root);
        while node != 0 && priority(node) >= mine {
            let before = key < self.key(ground, node)?;
            slot = if before { Slot::Before(node) } else { Slot::Behind(node) };
            node = self.get(ground, slot)?;
        }
        self.set(ground, slot, run.at)?;
        // What hung there is split into what comes before and behind the new node.
        let (mut before, mut behind) = (Slot::Before(run.at), Slot::Behind(run.at));
        while node != 0 {
            if self.key(ground, node)? < key {
                self.set(ground, before, node)?;
                before = Slot::Behind(node);
                node = self.get(ground, before)?;
            } else {
                self.set(ground, behind, node)?;
                behind = Slot::Before(node);
                node = self.get(ground, behind)?;
            }
        }
        self.set(ground, before, 0)?;
        self.set(ground, behind, 0)
    }

    fn uproot(&mut self, ground: &Ground, run: Run) -> Result<(), Fault> {
        let key = (run.pages, run.at);
        let (mut slot, mut node) = (Slot::Root, self.root);
        while node != run.at {
            if node == 0 {
                return Err(broken(run.at));
            }
            let before = key < self.key(ground, node)?;
            slot = if before { Slot::Before(node) } else { Slot::Behind(node) };
            node = self.get(ground, slot)?;
        }
        let mut left = self.get(ground, Slot::Before(node))?;
        let mut right = self.get(ground, Slot::Behind(node))?;
        while left != 0 && right != 0 {
            if priority(left) >= priority(right) {
                self.set(ground, slot, left)?;
                slot = Slot::Behind(left);
                left = self.get(ground, slot)?;
            } else {
                self.set(ground, slot, right)?;
                slot = Slot::Before(right);
                right = self.get(ground, slot)?;
            }
        }
        self.set(ground, slot, if left != 0 { left } else { right })
    }

    /// A shortest run of at least `pages`, unlisted.
    pub(super) fn take(&mut self, ground: &Ground, pages: usize) -> Result<Option<Run>, Fault> {
        let bits = if pages < BINS { self.bits & (u64::MAX << pages) } else { 0 };
        let mut best = 0;
        if bits != 0 {
            self.examined += 1;
            best = self.heads.get(bits.trailing_zeros() as usize).copied().unwrap_or(0);
        } else {
            let mut node = self.root;
            while node != 0 {
                self.examined += 1;
                let fits = self.run(ground, node)?.pages >= pages;
                if fits {
                    best = node;
                }
                let slot = if fits { Slot::Before(node) } else { Slot::Behind(node) };
                node = self.get(ground, slot)?;
            }
        }
        if best == 0 {
            return Ok(None);
        }
        let run = self.run(ground, best)?;
        self.remove(ground, run)?;
        self.hint = ground.regions.find(run.at, self.hint).unwrap_or(0);
        Ok(Some(run))
    }

    /// How many runs of how many pages are listed.
    pub(super) fn check(&self, ground: &Ground) -> Result<(usize, usize), Fault> {
        let mut sum = (0, 0);
        let most: usize = ground.regions.iter().map(|r| (r.end - r.base) / PAGE).sum();
        for (pages, &head) in self.heads.iter().enumerate() {
            let (mut at, mut before) = (head, 0);
            while at != 0 {
                let run = self.run(ground, at)?;
                if run.pages != pages || page(&run.region, at).prev != before || sum.0 > most {
                    return Err(broken(at));
                }
                sum = (sum.0 + 1, sum.1 + pages);
                (before, at) = (at, page(&run.region, at).next);
            }
            if (self.bits >> pages & 1 == 1) != (head != 0) {
                return Err(broken(head));
            }
        }
        self.check_tree(ground, self.root, (0, 0), (usize::MAX, 0), u64::MAX, &mut sum)?;
        Ok(sum)
    }

    /// Recursion is as deep as the treap, O(log n) expected; keys narrow, so damage cannot loop.
    fn check_tree(
        &self,
        ground: &Ground,
        node: usize,
        above: (usize, usize),
        below: (usize, usize),
        bound: u64,
        sum: &mut (usize, usize),
    ) -> Result<(), Fault> {
        if node == 0 {
            return Ok(());
        }
        let key = self.key(ground, node)?;
        let priority = priority(node);
        if key <= above || key >= below || priority > bound || key.0 < BINS {
            return Err(broken(node));
        }
        *sum = (sum.0 + 1, sum.1 + key.0);
        let left = self.get(ground, Slot::Before(node))?;
        self.check_tree(ground, left, above, key, priority, sum)?;
        let right = self.get(ground, Slot::Behind(node))?;
        self.check_tree(ground, right, key, below, priority, sum)
    }
}
