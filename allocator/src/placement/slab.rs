//! The slab heap: slots of fixed sizes in runs of pages, without any header.
//!
//! Requests up to 4 KiB take a slot of one of 48 sizes; a run of one to eight pages holds up to 256
//! slots of one size and a bitmap of those in use. Larger requests take a run of pages of their own.
//! All bookkeeping lies in a table at the front of each region, one record per page, so nothing that
//! a program writes can hurt it, and a free slot holds no word of ours.
//!
//! Owns the tables (64 bytes per page of 4 KiB: 1/64). Cost: a slot is found by at most four bit
//! scans; a free is a division and a bit; runs of pages are found by best fit (see `run_index.rs`).
//! A write past the end of an object is not seen, as no header follows it.
//!
//! # Invariants (tested by `check`)
//! 1. The runs of a region lie end to end; every page of a run but the first says how far back the
//!    first is.
//! 2. `used` counts the set bits; a slab is in its class's list exactly while it has a free slot.
//! 3. The index lists exactly the free runs.
//!
//! Source: Bonwick: The slab allocator (1994).

use super::run_index::RunIndex;
use super::slab_page::{
    CLASSES, Kind, LARGEST, NONE, PAGE, Page, SIZES, SLOTS, class_of, end_of, page, pages_of,
    slots_of,
};
use crate::block::{
    BlockInfo, Counters, Fault, FaultKind, GRAIN, Ground, HeapCore, Policy, Region, Source,
    Strategy, Totals,
};

/// Fixed sizes in slabs.
#[derive(Clone, Copy, Debug)]
pub struct Slab;

impl Strategy for Slab {
    const NAME: &'static str = "slab";
    type Core<S: Source> = SlabHeap<S>;
}

/// A heap of slabs over the regions of `S`. For one thread at a time.
#[derive(Debug)]
pub struct SlabHeap<S> {
    pub(super) ground: Ground,
    pub(super) source: S,
    pub(super) policy: Policy,
    pub(super) counters: Counters,
    /// Per class: the slab that serves next, 0 if none has a free slot.
    pub(super) heads: [usize; CLASSES],
    pub(super) runs: RunIndex,
    pub(super) examined: u64,
    pub(super) hint: usize,
}

impl<S: Source> SlabHeap<S> {
    fn region_of(&self, at: usize) -> Option<(usize, Region)> {
        let index = self.ground.regions.find(at, self.hint)?;
        Some((index, *self.ground.regions.get(index)?))
    }

    fn unlist(&mut self, region: &Region, at: usize) {
        let slab = page(region, at);
        let (next, prev, class) = (slab.next, slab.prev, slab.class);
        (slab.next, slab.prev) = (0, 0);
        match self.region_of(prev) {
            Some((_, before)) if prev != 0 => page(&before, prev).next = next,
            _ => {
                if let Some(head) = self.heads.get_mut(class as usize) {
                    *head = next;
                }
            }
        }
        if let Some((_, after)) = self.region_of(next) {
            page(&after, next).prev = prev;
        }
    }

    fn list(&mut self, region: &Region, at: usize) {
        let class = page(region, at).class as usize;
        let first = self.heads.get(class).copied().unwrap_or(0);
        if let Some((_, after)) = self.region_of(first) {
            page(&after, first).prev = at;
        }
        let slab = page(region, at);
        (slab.next, slab.prev) = (first, 0);
        if let Some(head) = self.heads.get_mut(class) {
            *head = at;
        }
    }

    fn take_slot(&mut self, class: usize) -> Result<Option<usize>, Fault> {
        let size = SIZES.get(class).copied().unwrap_or(LARGEST);
        let mut at = self.heads.get(class).copied().unwrap_or(0);
        if at == 0 {
            let Some((region, start)) = self.run(pages_of(size), PAGE)? else { return Ok(None) };
            Self::set_run(&region, start, pages_of(size), Kind::Slab);
            let slab = page(&region, start);
            (slab.used, slab.class, slab.used_bits) = (0, class as u8, [0; SLOTS / 64]);
            self.list(&region, start);
            at = start;
        }
        let Some((index, region)) = self.region_of(at) else {
            return Err(Fault::new(FaultKind::CorruptIndex, at, size));
        };
        self.hint = index;
        self.examined += 1;
        let slab = page(&region, at);
        for (number, bits) in slab.used_bits.iter_mut().enumerate() {
            let slot = number * 64 + bits.trailing_ones() as usize;
            if *bits != u64::MAX && slot < slots_of(size) {
                *bits |= 1 << (slot % 64);
                slab.used += 1;
                if slab.used as usize == slots_of(size) {
                    self.unlist(&region, at);
                }
                return Ok(Some(at + slot * size));
            }
        }
        Err(Fault::new(FaultKind::CorruptIndex, at, size))
    }

    /// The live object at `at`: its region, the first page of its run, its slot and its size.
    #[inline(always)]
    fn live(&self, at: usize) -> Result<(Region, usize, usize, usize), Fault> {
        if at & (GRAIN - 1) != 0 {
            return Err(Fault::new(FaultKind::MisalignedFree, at, 0));
        }
        let Some((_, region)) = self.region_of(at) else {
            return Err(Fault::new(FaultKind::ForeignFree, at, 0));
        };
        if at < region.first || at >= end_of(&region) {
            return Err(Fault::new(FaultKind::InvalidFree, at, 0));
        }
        let mut start = at & !(PAGE - 1);
        if page(&region, start).kind == Kind::Tail {
            start -= page(&region, start).pages as usize * PAGE;
        }
        let head = page(&region, start);
        let invalid = Err(Fault::new(FaultKind::DoubleFree, at, 0));
        match head.kind {
            Kind::Large if at == start => Ok((region, start, 0, head.pages as usize * PAGE)),
            Kind::Large => Err(Fault::new(FaultKind::InteriorFree, at, head.pages as usize * PAGE)),
            Kind::Slab => {
                let size = SIZES.get(head.class as usize).copied().unwrap_or(LARGEST);
                let slot = (at - start) / size.max(1);
                if !(at - start).is_multiple_of(size) {
                    return Err(Fault::new(FaultKind::InteriorFree, at, size));
                }
                match head.used_bits.get(slot / 64) {
                    Some(bits) if bits >> (slot % 64) & 1 == 1 => Ok((region, start, slot, size)),
                    _ => invalid,
                }
            }
            Kind::Free | Kind::Tail => invalid,
        }
    }
}

impl<S: Source> HeapCore<S> for SlabHeap<S> {
    const HEADERS: bool = false;

    fn new(source: S, policy: Policy, secret: u64, arena: u8) -> Self {
        Self {
            ground: Ground::new(secret, arena),
            source,
            policy,
            counters: Counters::ZERO,
            heads: [0; CLASSES],
            runs: RunIndex::EMPTY,
            examined: 0,
            hint: 0,
        }
    }

    fn allocate(&mut self, size: usize, align: usize, zero: bool) -> Result<Option<usize>, Fault> {
        let small = if size <= LARGEST && align <= PAGE { class_of(size, align) } else { None };
        let (at, bytes) = if let Some(class) = small {
            let Some(at) = self.take_slot(class)? else { return Ok(None) };
            (at, SIZES.get(class).copied().unwrap_or(LARGEST))
        } else {
            if size > isize::MAX as usize / 2 {
                return Ok(None);
            }
            let pages = size.div_ceil(PAGE).max(1);
            let Some((region, at)) = self.run(pages, align.max(PAGE))? else { return Ok(None) };
            Self::set_run(&region, at, pages, Kind::Large);
            page(&region, at).class = NONE;
            (at, pages * PAGE)
        };
        self.counters.taken(bytes);
        if zero {
            let object = core::ptr::with_exposed_provenance_mut::<u8>(at);
            // SAFETY: the object is ours until it is returned.
            unsafe { object.write_bytes(0, bytes) };
        }
        Ok(Some(at))
    }

    fn free(&mut self, payload: usize) -> Result<usize, Fault> {
        let (region, start, slot, size) = self.live(payload)?;
        self.counters.freed(size);
        let slab = page(&region, start);
        let pages = slab.pages as usize;
        if slab.kind == Kind::Large {
            self.give_run(&region, start, pages)?;
            return Ok(size);
        }
        if let Some(bits) = slab.used_bits.get_mut(slot / 64) {
            *bits &= !(1 << (slot % 64));
        }
        let was_full = slab.used as usize == slots_of(size);
        slab.used -= 1;
        let (empty, alone) = (slab.used == 0, slab.next == 0 && slab.prev == 0);
        if was_full {
            self.list(&region, start);
        } else if empty && !alone {
            // The last slab with free slots stays, so that a pair at the edge costs no run.
            self.unlist(&region, start);
            self.give_run(&region, start, pages)?;
        }
        Ok(size)
    }

    fn resize(&mut self, payload: usize, size: usize) -> Result<bool, Fault> {
        let (region, start, _, have) = self.live(payload)?;
        if page(&region, start).kind == Kind::Slab {
            return Ok(size <= have
                && class_of(size, 1).is_some_and(|class| SIZES.get(class) == Some(&have)));
        }
        let want = size.div_ceil(PAGE).max(1);
        let pages = have / PAGE;
        if size <= LARGEST || want > pages {
            return Ok(false);
        }
        if want < pages {
            Self::set_run(&region, start, want, Kind::Large);
            self.give_run(&region, start + want * PAGE, pages - want)?;
            self.counters.resized(have, want * PAGE);
        }
        Ok(true)
    }

    fn usable(&self, payload: usize) -> Result<usize, Fault> {
        self.live(payload).map(|live| live.3)
    }

    fn owns(&self, payload: usize) -> bool {
        self.ground.regions.find(payload, self.hint).is_some()
    }

    fn check(&self) -> Result<Totals, Fault> {
        let mut totals = Totals::default();
        self.for_each(&mut |info| totals.add(info))?;
        for region in self.ground.regions.iter() {
            totals.committed += region.end - region.base;
            totals.overhead += region.end - region.base - (end_of(region) - region.first);
        }
        // The tail of a slab that holds no whole slot is in no block.
        let slack = totals.committed - totals.overhead - totals.live_bytes - totals.free_bytes;
        totals.overhead += slack;
        let mut listed = 0;
        for (class, &head) in self.heads.iter().enumerate() {
            let (mut at, mut before) = (head, 0);
            while at != 0 {
                let Some((_, region)) = self.region_of(at) else {
                    return Err(Fault::new(FaultKind::CorruptIndex, at, 0));
                };
                let slab = page(&region, at);
                let size = SIZES.get(class).copied().unwrap_or(LARGEST);
                let sound = slab.kind == Kind::Slab
                    && slab.class as usize == class
                    && slab.prev == before
                    && (slab.used as usize) < slots_of(size);
                if !sound {
                    return Err(Fault::new(FaultKind::CorruptIndex, at, size));
                }
                (before, at) = (at, slab.next);
                listed += 1;
            }
        }
        let (mut partial, mut free) = (0, (0, 0));
        self.each_run(&mut |_, slab| {
            if slab.kind == Kind::Free {
                free = (free.0 + 1, free.1 + slab.pages as usize);
            }
            let size = SIZES.get(slab.class as usize).copied().unwrap_or(LARGEST);
            partial +=
                usize::from(slab.kind == Kind::Slab && (slab.used as usize) < slots_of(size));
        })?;
        let sound = listed == partial
            && self.runs.check(&self.ground)? == free
            && slack <= totals.committed / 8 + PAGE
            && totals.live_blocks == self.counters.live_blocks
            && totals.live_bytes == self.counters.live_bytes
            && totals.committed == self.counters.committed;
        if sound { Ok(totals) } else { Err(Fault::new(FaultKind::CorruptIndex, 0, 0)) }
    }

    fn for_each(&self, visit: &mut dyn FnMut(BlockInfo)) -> Result<(), Fault> {
        self.each_run(&mut |at, head| {
            if head.kind != Kind::Slab {
                let live = head.kind == Kind::Large;
                let bytes = head.pages as usize * PAGE;
                visit(BlockInfo { address: at, bytes, live, parked: false });
                return;
            }
            let size = SIZES.get(head.class as usize).copied().unwrap_or(LARGEST);
            for slot in 0..slots_of(size) {
                let bits = head.used_bits.get(slot / 64).copied().unwrap_or(0);
                let live = bits >> (slot % 64) & 1 == 1;
                visit(BlockInfo { address: at + slot * size, bytes: size, live, parked: false });
            }
        })
    }

    fn flush(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    /// Gives back empty slabs' pages, then regions of which no page is in use, except for the first.
    fn trim(&mut self, _keep: usize) -> Result<usize, Fault> {
        let mut given = 0;
        for class in 0..CLASSES {
            let mut at = self.heads.get(class).copied().unwrap_or(0);
            while let Some((_, region)) = self.region_of(at) {
                let (used, next, pages) = {
                    let slab = page(&region, at);
                    (slab.used, slab.next, slab.pages as usize)
                };
                if used == 0 {
                    self.unlist(&region, at);
                    self.give_run(&region, at, pages)?;
                }
                at = next;
            }
        }
        for index in (1..self.ground.regions.len()).rev() {
            let Some(&region) = self.ground.regions.get(index) else { continue };
            if !self.unlist_region(&region)? {
                continue;
            }
            let (bytes, pages) = (region.end - region.base, end_of(&region) - region.first);
            if self.source.release(region.base, bytes, region.limit - region.base) {
                self.ground.regions.remove(index);
                self.hint = 0;
                self.counters.committed -= bytes;
                self.counters.overhead -= bytes - pages;
                given += bytes;
            } else {
                self.give_run(&region, region.first, pages / PAGE)?;
            }
        }
        Ok(given)
    }

    fn counters(&self) -> Counters {
        self.counters
    }

    fn examined(&self) -> u64 {
        self.examined + self.runs.examined
    }

    fn set_deferred(&mut self, _deferred: bool) {}

    fn source(&self) -> &S {
        &self.source
    }
}

impl<S: Source> SlabHeap<S> {
    /// Shows the first page of every run, in address order.
    fn each_run(&self, visit: &mut dyn FnMut(usize, &Page)) -> Result<(), Fault> {
        for region in self.ground.regions.iter() {
            let (mut at, end) = (region.first, end_of(region));
            let mut before_free = false;
            while at < end {
                let head = *page(region, at);
                let (pages, free) = (head.pages as usize, head.kind == Kind::Free);
                let bits: u32 = head.used_bits.iter().map(|bits| bits.count_ones()).sum();
                let broken = pages == 0
                    || head.kind == Kind::Tail
                    || at + pages * PAGE > end
                    || (free && before_free)
                    || (head.kind == Kind::Slab && bits != u32::from(head.used));
                let last = at + pages.saturating_sub(1) * PAGE;
                if broken || (pages > 1 && page(region, last).pages as usize != pages - 1) {
                    return Err(Fault::new(FaultKind::CorruptIndex, at, 0));
                }
                visit(at, &head);
                before_free = free;
                at += pages * PAGE;
            }
        }
        Ok(())
    }
}
