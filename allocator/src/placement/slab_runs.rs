//! Runs of pages of the slab heap: found by best fit, split, merged, and had from the source.
//!
//! Owns nothing of its own: free runs are found by `run_index`. Cost: a search is O(1) below 64 pages,
//! else O(log n); what becomes a run costs a record per page.

use super::run_index::Run;
use super::slab::SlabHeap;
use super::slab_page::{Kind, PAGE, Page, end_of, frame, page};
use crate::block::{Extent, Fault, Region, Source};

impl<S: Source> SlabHeap<S> {
    /// Makes `at` the first page of a run.
    pub(super) fn set_run(region: &Region, at: usize, pages: usize, kind: Kind) {
        let head = page(region, at);
        (head.kind, head.pages) = (kind, pages as u32);
        if kind == Kind::Free {
            // Only the last page of a free run must know its first: that is how it is merged.
            if pages > 1 {
                let last = page(region, at + (pages - 1) * PAGE);
                (last.kind, last.pages) = (Kind::Tail, pages as u32 - 1);
            }
            return;
        }
        for index in 1..pages {
            let tail = page(region, at + index * PAGE);
            (tail.kind, tail.pages) = (Kind::Tail, index as u32);
        }
    }

    /// Writes the records of a free run and lists it.
    fn list_run(&mut self, run: Run) -> Result<(), Fault> {
        Self::set_run(&run.region, run.at, run.pages, Kind::Free);
        self.runs.insert(&self.ground, run)
    }

    /// A run of `pages` whose first page is at `align`: of the runs that surely hold one, a shortest.
    fn take_run(&mut self, pages: usize, align: usize) -> Result<Option<(Region, usize)>, Fault> {
        let padded = pages.saturating_add(align / PAGE - 1);
        let Some(Run { region, at, pages: found }) = self.runs.take(&self.ground, padded)? else {
            return Ok(None);
        };
        let start = (at + align - 1) & !(align - 1);
        let gap = (start - at) / PAGE;
        if gap > 0 {
            self.list_run(Run { region, at, pages: gap })?;
        }
        let rest = found - gap - pages;
        if rest > 0 {
            self.list_run(Run { region, at: start + pages * PAGE, pages: rest })?;
        }
        Ok(Some((region, start)))
    }

    pub(super) fn run(
        &mut self,
        pages: usize,
        align: usize,
    ) -> Result<Option<(Region, usize)>, Fault> {
        let found = self.take_run(pages, align)?;
        if found.is_none() && self.grow(pages * PAGE + if align > PAGE { align } else { 0 })? {
            return self.take_run(pages, align);
        }
        Ok(found)
    }

    /// Makes a run free and merges it with free neighbours.
    pub(super) fn give_run(
        &mut self,
        region: &Region,
        at: usize,
        pages: usize,
    ) -> Result<(), Fault> {
        let mut run = Run { region: *region, at, pages };
        for index in 0..pages {
            // No record may go on saying that an object starts here.
            let page = page(region, at + index * PAGE);
            (page.kind, page.pages) = (Kind::Free, 0);
        }
        let next = at + pages * PAGE;
        if next < end_of(region) && page(region, next).kind == Kind::Free {
            let after = page(region, next).pages as usize;
            self.runs.remove(&self.ground, Run { region: *region, at: next, pages: after })?;
            run.pages += after;
        }
        if at > region.first {
            let last = at - PAGE;
            let back = match page(region, last) {
                Page { kind: Kind::Tail, pages, .. } => *pages as usize,
                _ => 0,
            };
            let first = last - back * PAGE;
            let head = page(region, first);
            if head.kind == Kind::Free && head.pages as usize == back + 1 {
                let before = Run { region: *region, at: first, pages: back + 1 };
                self.runs.remove(&self.ground, before)?;
                run = Run { at: first, pages: run.pages + back + 1, ..run };
            }
        }
        self.list_run(run)
    }

    /// Takes the run that fills all of `region` out of the index, if that is free.
    pub(super) fn unlist_region(&mut self, region: &Region) -> Result<bool, Fault> {
        let pages = (end_of(region) - region.first) / PAGE;
        let head = page(region, region.first);
        if head.kind != Kind::Free || head.pages as usize != pages {
            return Ok(false);
        }
        self.runs.remove(&self.ground, Run { region: *region, at: region.first, pages })?;
        Ok(true)
    }

    #[cold]
    pub(super) fn grow(&mut self, want: usize) -> Result<bool, Fault> {
        for index in (0..self.ground.regions.len()).rev() {
            let Some(&region) = self.ground.regions.get(index) else { continue };
            let (old, room) = (end_of(&region), region.limit - region.end);
            let need = want + (PAGE - (region.end - old)) % PAGE;
            if need > room {
                continue;
            }
            let wish = need.max(self.policy.grow).min(room);
            let mut added = self.source.extend(region.base, region.end, wish).bytes;
            if added < need {
                added = self.source.extend(region.base, region.end, need).bytes;
            }
            if added >= need {
                self.counters.grown(added);
                let grown = Region { end: region.end + added, ..region };
                if let Some(entry) = self.ground.regions.get_mut(index) {
                    *entry = grown;
                }
                self.counters.overhead += added;
                self.counters.overhead -= end_of(&grown) - old;
                self.give_run(&grown, old, (end_of(&grown) - old) / PAGE)?;
                return Ok(true);
            }
        }
        let least = want + 2 * PAGE;
        for bytes in [least.max(self.policy.grow).max(self.counters.committed / 8), least] {
            let ask = bytes + bytes / 63 + 128;
            let ask = ask.max(least + self.source.reach(ask) / 64 + 128);
            if !self.ground.regions.is_full()
                && let Some(extent) = self.source.acquire(ask)
            {
                return self.add_region(extent);
            }
        }
        Ok(false)
    }

    pub(super) fn add_region(&mut self, extent: Extent) -> Result<bool, Fault> {
        let (end, limit) = (extent.base + extent.bytes, extent.base + extent.limit);
        let (table, first) = frame(extent.base, limit);
        if end < first + PAGE {
            return Ok(false);
        }
        if !extent.zeroed {
            let side = core::ptr::with_exposed_provenance_mut::<u8>(table);
            // SAFETY: the table ends at `first`, below `end`: inside the region, not yet in use.
            unsafe { side.write_bytes(0, first - table) };
        }
        let region = Region { base: extent.base, first, end, limit };
        if self.ground.regions.insert(region).is_none() {
            return Ok(false);
        }
        self.counters.grown(extent.bytes);
        self.counters.overhead += extent.bytes - (end_of(&region) - first);
        self.list_run(Run { region, at: first, pages: (end_of(&region) - first) / PAGE })?;
        Ok(true)
    }
}
