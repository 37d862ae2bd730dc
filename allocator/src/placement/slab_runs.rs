//! Runs of pages of the slab heap: found by first fit over the page records, split, merged, and had
//! from the source.
//!
//! Owns nothing of its own. Cost: a search walks the runs of each region from its front.

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

    /// A run of `pages` whose first page is at `align`: first fit in address order.
    pub(super) fn take_run(&mut self, pages: usize, align: usize) -> Option<(Region, usize)> {
        for region in self.ground.regions.iter() {
            let (mut at, end) = (region.first, end_of(region));
            while at < end {
                let (kind, length) = (page(region, at).kind, page(region, at).pages as usize);
                self.examined += 1;
                let next = at + length * PAGE;
                let start = (at + align - 1) & !(align - 1);
                if kind == Kind::Free && start + pages * PAGE <= next {
                    if start > at {
                        Self::set_run(region, at, (start - at) / PAGE, Kind::Free);
                    }
                    let rest = (next - start) / PAGE - pages;
                    if rest > 0 {
                        Self::set_run(region, start + pages * PAGE, rest, Kind::Free);
                    }
                    return Some((*region, start));
                }
                at = next;
            }
        }
        None
    }

    pub(super) fn run(
        &mut self,
        pages: usize,
        align: usize,
    ) -> Result<Option<(Region, usize)>, Fault> {
        let found = self.take_run(pages, align);
        if found.is_none() && self.grow(pages * PAGE + if align > PAGE { align } else { 0 }) {
            return Ok(self.take_run(pages, align));
        }
        Ok(found)
    }

    /// Makes a run free and merges it with free neighbours.
    pub(super) fn give_run(region: &Region, at: usize, pages: usize) {
        let (mut at, mut pages) = (at, pages);
        for index in 0..pages {
            // No record may go on saying that an object starts here.
            let page = page(region, at + index * PAGE);
            (page.kind, page.pages) = (Kind::Free, 0);
        }
        let next = at + pages * PAGE;
        if next < end_of(region) && page(region, next).kind == Kind::Free {
            pages += page(region, next).pages as usize;
        }
        if at > region.first {
            let last = at - PAGE;
            let back = match page(region, last) {
                Page { kind: Kind::Tail, pages, .. } => *pages as usize,
                _ => 0,
            };
            let head = page(region, last - back * PAGE);
            if head.kind == Kind::Free && head.pages as usize == back + 1 {
                at = last - back * PAGE;
                pages += back + 1;
            }
        }
        Self::set_run(region, at, pages, Kind::Free);
    }

    #[cold]
    pub(super) fn grow(&mut self, want: usize) -> bool {
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
                Self::give_run(&grown, old, (end_of(&grown) - old) / PAGE);
                return true;
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
        false
    }

    pub(super) fn add_region(&mut self, extent: Extent) -> bool {
        let (end, limit) = (extent.base + extent.bytes, extent.base + extent.limit);
        let (table, first) = frame(extent.base, limit);
        if end < first + PAGE {
            return false;
        }
        if !extent.zeroed {
            let side = core::ptr::with_exposed_provenance_mut::<u8>(table);
            // SAFETY: the table ends at `first`, below `end`: inside the region, not yet in use.
            unsafe { side.write_bytes(0, first - table) };
        }
        let region = Region { base: extent.base, first, end, limit };
        if self.ground.regions.insert(region).is_none() {
            return false;
        }
        self.counters.grown(extent.bytes);
        self.counters.overhead += extent.bytes - (end_of(&region) - first);
        Self::set_run(&region, first, (end_of(&region) - first) / PAGE, Kind::Free);
        true
    }
}
