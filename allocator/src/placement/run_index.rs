//! Free runs of pages of the slab heap in order of length.
//!
//! One list per length below 64 pages, the run freed last in front; longer runs in a treap through
//! their page records (see `treap.rs`).
//!
//! Owns 64 list heads, a bitmap, the treap, and the two links in the record of each listed run's first
//! page (next and previous, or left and right). Cost: O(1) below 64 pages, else O(log n) expected.
//!
//! # Invariants
//! 1. A free run of less than 64 pages hangs in the list of its length; bit n is set exactly while list
//!    n is not empty.

use super::slab_page::{Kind, PAGE, end_of, page};
use super::treap::{Nodes, Side, Treap};
use crate::block::{Fault, FaultKind, Ground, Region};

const BINS: usize = 64;

/// The free runs of a heap.
#[derive(Debug)]
pub(super) struct RunIndex {
    heads: [usize; BINS],
    bits: u64,
    tree: Treap,
    hint: usize,
    pub(super) examined: u64,
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

/// The free runs of a ground's regions; `hint` is the number of a region that some lie in.
struct Runs<'a> {
    ground: &'a Ground,
    hint: usize,
}

impl Runs<'_> {
    /// The run that starts at `at`, if one that is free does.
    #[inline(always)]
    fn run(&self, at: usize) -> Result<Run, Fault> {
        let regions = &self.ground.regions;
        let found = regions.find(at, self.hint).and_then(|index| regions.get(index));
        let Some(&region) = found else { return Err(broken(at)) };
        if at < region.first || at >= end_of(&region) || page(&region, at).kind != Kind::Free {
            return Err(broken(at));
        }
        Ok(Run { region, at, pages: page(&region, at).pages as usize })
    }
}

impl Nodes for Runs<'_> {
    fn size(&self, at: usize) -> Result<usize, Fault> {
        Ok(self.run(at)?.pages)
    }

    fn child(&self, at: usize, side: Side) -> Result<usize, Fault> {
        let record = page(&self.run(at)?.region, at);
        Ok(match side {
            Side::Left => record.prev,
            Side::Right => record.next,
        })
    }

    fn set_child(&self, at: usize, side: Side, node: usize) -> Result<(), Fault> {
        let record = page(&self.run(at)?.region, at);
        match side {
            Side::Left => record.prev = node,
            Side::Right => record.next = node,
        }
        Ok(())
    }
}

impl RunIndex {
    pub(super) const EMPTY: Self =
        Self { heads: [0; BINS], bits: 0, tree: Treap::EMPTY, hint: 0, examined: 0 };

    fn runs<'a>(&self, ground: &'a Ground) -> Runs<'a> {
        Runs { ground, hint: self.hint }
    }

    /// Lists a free run, whose record says so.
    pub(super) fn insert(&mut self, ground: &Ground, run: Run) -> Result<(), Fault> {
        let runs = self.runs(ground);
        let Some(head) = self.heads.get_mut(run.pages) else {
            return self.tree.insert(&runs, run.at, run.pages);
        };
        let after = core::mem::replace(head, run.at);
        self.bits |= 1 << run.pages;
        let record = page(&run.region, run.at);
        (record.next, record.prev) = (after, 0);
        if after != 0 {
            page(&runs.run(after)?.region, after).prev = run.at;
        }
        Ok(())
    }

    /// Unlists a run.
    pub(super) fn remove(&mut self, ground: &Ground, run: Run) -> Result<(), Fault> {
        let runs = self.runs(ground);
        if run.pages >= BINS {
            return self.tree.remove(&runs, run.at, run.pages);
        }
        let (next, prev) = {
            let record = page(&run.region, run.at);
            (record.next, record.prev)
        };
        if next != 0 {
            page(&runs.run(next)?.region, next).prev = prev;
        }
        if prev != 0 {
            page(&runs.run(prev)?.region, prev).next = next;
        } else if let Some(head) = self.heads.get_mut(run.pages) {
            *head = next;
            if next == 0 {
                self.bits &= !(1 << run.pages);
            }
        }
        Ok(())
    }

    /// A shortest run of at least `pages`, unlisted.
    pub(super) fn take(&mut self, ground: &Ground, pages: usize) -> Result<Option<Run>, Fault> {
        let bits = if pages < BINS { self.bits & (u64::MAX << pages) } else { 0 };
        let runs = self.runs(ground);
        let best = if bits != 0 {
            self.examined += 1;
            self.heads.get(bits.trailing_zeros() as usize).copied().unwrap_or(0)
        } else {
            self.tree.at_least(&runs, pages, &mut self.examined)?
        };
        if best == 0 {
            return Ok(None);
        }
        let run = runs.run(best)?;
        self.remove(ground, run)?;
        self.hint = ground.regions.find(run.at, self.hint).unwrap_or(0);
        Ok(Some(run))
    }

    /// How many runs of how many pages are listed.
    pub(super) fn check(&self, ground: &Ground) -> Result<(usize, usize), Fault> {
        let runs = self.runs(ground);
        let mut sum = (0, 0);
        let most: usize = ground.regions.iter().map(|r| (r.end - r.base) / PAGE).sum();
        for (pages, &head) in self.heads.iter().enumerate() {
            let (mut at, mut before) = (head, 0);
            while at != 0 {
                let run = runs.run(at)?;
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
        let (runs, pages) = self.tree.check(&runs, BINS)?;
        Ok((sum.0 + runs, sum.1 + pages))
    }
}
