//! The binary buddy heap: blocks are powers of two, aligned to their size, without any header.
//!
//! A block splits into two halves, its buddies, and merges with its buddy as soon as both are free.
//! At the front of each region stands one byte per 32 bytes: the order of the block that starts
//! there, and whether it is free. So the misuse of a free is seen without reading the object, and a
//! stale write cannot hurt the map; a write past the end of an object is not seen, as no header
//! follows it.
//!
//! Owns the maps (1/32 of each region), one list head per order, two sealed words per free block.
//! Cost: O(log(size of the largest block)) per call, no search. Up to half of a block is lost inside:
//! a request of 2ⁿ + 1 bytes gets 2ⁿ⁺¹.
//!
//! # Invariants (tested by `check`)
//! 1. The blocks of a region lie end to end, each at a multiple of its size.
//! 2. No two buddies of one order are both free.
//! 3. List k holds exactly the free blocks of order k.
//!
//! Source: Knowlton: A fast storage allocator (1965); Knuth, The Art of Computer Programming 1, 2.5.

use super::list;
use crate::block::{
    BlockInfo, Counters, Fault, FaultKind, GRAIN, Ground, HEADER, HeapCore, Policy, Region, Source,
    Strategy, Totals,
};

/// Smallest block.
const UNIT: usize = 32;
const ORDERS: usize = 25;
const FREE: u8 = 0x40;

/// Binary buddies.
#[derive(Clone, Copy, Debug)]
pub struct Buddy;

impl Strategy for Buddy {
    const NAME: &'static str = "buddy";
    type Core<S: Source> = BuddyHeap<S>;
}

/// A heap of binary buddies over the regions of `S`. For one thread at a time.
#[derive(Debug)]
pub struct BuddyHeap<S> {
    ground: Ground,
    source: S,
    policy: Policy,
    counters: Counters,
    heads: [usize; ORDERS],
    examined: u64,
    hint: usize,
}

const fn bytes_of(order: usize) -> usize {
    UNIT << order
}

/// The order that serves `size` bytes at `align`; `None` beyond the largest.
#[inline(always)]
const fn order_of(size: usize, align: usize) -> Option<usize> {
    let size = if size < align { align } else { size };
    if size > bytes_of(ORDERS - 1) {
        return None;
    }
    let units = size.div_ceil(UNIT).next_power_of_two();
    Some(if units == 0 { 0 } else { units.trailing_zeros() as usize })
}

/// The map of a region, one byte per unit from its aligned base.
#[inline(always)]
fn mark_at(region: &Region, at: usize) -> *mut u8 {
    let base = (region.base + 63) & !63;
    core::ptr::with_exposed_provenance_mut(base + (at - base) / UNIT)
}

#[inline(always)]
fn mark(region: &Region, at: usize) -> u8 {
    // SAFETY: callers pass addresses inside the region, whose map covers it up to its limit.
    unsafe { *mark_at(region, at) }
}

#[inline(always)]
fn set_mark(region: &Region, at: usize, value: u8) {
    // SAFETY: as in `mark`; the map is written by the heap's one user only.
    unsafe { *mark_at(region, at) = value };
}

/// Where the blocks of a region end.
const fn end_of(region: &Region) -> usize {
    region.end & !(UNIT - 1)
}

impl<S: Source> BuddyHeap<S> {
    fn push(&mut self, region: &Region, at: usize, order: usize) {
        set_mark(region, at, FREE | (order as u8 + 1));
        if let Some(head) = self.heads.get_mut(order) {
            // SAFETY: the block is free and in no list; links are written where a block with a
            // header would have its payload, which is where this block starts.
            unsafe { list::push(&self.ground, head, at - HEADER) };
        }
    }

    fn unlist(&mut self, at: usize, order: usize) -> Result<(), Fault> {
        match self.heads.get_mut(order) {
            // SAFETY: the map says that the block is free, so by invariant 3 it is in this list.
            Some(head) => unsafe { list::unlink(&self.ground, head, at - HEADER) },
            None => Err(Fault::new(FaultKind::CorruptIndex, at, 0)),
        }
    }

    /// Marks `at` free and merges it with its buddies.
    fn give(&mut self, region: &Region, at: usize, order: usize) -> Result<(), Fault> {
        let (mut at, mut order) = (at, order);
        set_mark(region, at, 0);
        while order + 1 < ORDERS {
            let buddy = at ^ bytes_of(order);
            if buddy < region.first || buddy + bytes_of(order) > end_of(region) {
                break;
            }
            if mark(region, buddy) != FREE | (order as u8 + 1) {
                break;
            }
            self.unlist(buddy, order)?;
            set_mark(region, buddy, 0);
            at &= !bytes_of(order);
            order += 1;
        }
        self.push(region, at, order);
        Ok(())
    }

    /// Makes `from..to` free blocks, as large as alignment allows.
    fn fill(&mut self, region: &Region, from: usize, to: usize) -> Result<(), Fault> {
        let mut at = from;
        while at + UNIT <= to {
            let aligned = (at / UNIT).trailing_zeros() as usize;
            let fits = (((to - at) / UNIT) | 1).ilog2() as usize;
            let order = aligned.min(fits).min(ORDERS - 1);
            self.give(region, at, order)?;
            at += bytes_of(order);
        }
        Ok(())
    }

    #[cold]
    fn grow(&mut self, order: usize) -> Result<bool, Fault> {
        let size = bytes_of(order);
        for index in (0..self.ground.regions.len()).rev() {
            let Some(&region) = self.ground.regions.get(index) else { continue };
            let aligned = (end_of(&region) + size - 1) & !(size - 1);
            let want = aligned + size - region.end;
            let room = region.limit - region.end;
            if want > room {
                continue;
            }
            let wish = want.max(self.policy.grow).min(room);
            let mut added = self.source.extend(region.base, region.end, wish).bytes;
            if added < want {
                added = self.source.extend(region.base, region.end, want).bytes;
            }
            if added < want {
                continue;
            }
            self.counters.grown(added);
            let grown = Region { end: region.end + added, ..region };
            if let Some(entry) = self.ground.regions.get_mut(index) {
                *entry = grown;
            }
            let (old, new) = (end_of(&region), end_of(&grown));
            self.counters.overhead += added - (new - old);
            self.fill(&grown, old, new)?;
            return Ok(true);
        }
        let least = 2 * size + UNIT + 64;
        for bytes in [least.max(self.policy.grow).max(self.counters.committed / 8), least] {
            let ask = bytes + bytes / (UNIT - 1) + 128;
            let ask = ask.max(least + self.source.reach(ask) / UNIT + 128);
            if !self.ground.regions.is_full()
                && let Some(extent) = self.source.acquire(ask)
            {
                return self.add_region(extent);
            }
        }
        Ok(false)
    }

    fn add_region(&mut self, extent: crate::block::Extent) -> Result<bool, Fault> {
        let base = (extent.base + 63) & !63;
        let map = extent.limit / UNIT + 1;
        let first = (base + map + UNIT - 1) & !(UNIT - 1);
        let (end, limit) = (extent.base + extent.bytes, extent.base + extent.limit);
        if end < first + UNIT {
            return Ok(false);
        }
        if !extent.zeroed {
            let side = core::ptr::with_exposed_provenance_mut::<u8>(base);
            // SAFETY: `base + map <= first < end`: inside the region, not yet in use.
            unsafe { side.write_bytes(0, map) };
        }
        let region = Region { base: extent.base, first, end, limit };
        if self.ground.regions.insert(region).is_none() {
            return Ok(false);
        }
        self.counters.grown(extent.bytes);
        self.counters.overhead += extent.bytes - (end_of(&region) - first);
        self.fill(&region, first, end_of(&region))?;
        Ok(true)
    }

    /// The live block that starts at `at`: its region and order.
    #[inline(always)]
    fn live(&self, at: usize) -> Result<(Region, usize), Fault> {
        if at & (GRAIN - 1) != 0 {
            return Err(Fault::new(FaultKind::MisalignedFree, at, 0));
        }
        let found = self.ground.regions.find(at, self.hint);
        let Some(&region) = found.and_then(|index| self.ground.regions.get(index)) else {
            return Err(Fault::new(FaultKind::ForeignFree, at, 0));
        };
        if at < region.first || at >= end_of(&region) {
            return Err(Fault::new(FaultKind::InvalidFree, at, 0));
        }
        match mark(&region, at) {
            value @ 1..FREE if at & (UNIT - 1) == 0 => Ok((region, value as usize - 1)),
            _ => Err(Self::diagnose(&region, at)),
        }
    }

    #[cold]
    fn diagnose(region: &Region, at: usize) -> Fault {
        let mut start = at & !(UNIT - 1);
        while start > region.first && mark(region, start) == 0 {
            start -= UNIT;
        }
        let value = mark(region, start);
        let size = bytes_of((value & (FREE - 1)).saturating_sub(1) as usize);
        let kind = if value & FREE != 0 { FaultKind::DoubleFree } else { FaultKind::InteriorFree };
        Fault::new(kind, at, size)
    }
}

impl<S: Source> HeapCore<S> for BuddyHeap<S> {
    const HEADERS: bool = false;

    fn new(source: S, policy: Policy, secret: u64, arena: u8) -> Self {
        Self {
            ground: Ground::new(secret, arena),
            source,
            policy,
            counters: Counters::ZERO,
            heads: [0; ORDERS],
            examined: 0,
            hint: 0,
        }
    }

    fn allocate(&mut self, size: usize, align: usize, zero: bool) -> Result<Option<usize>, Fault> {
        let Some(order) = order_of(size, align) else { return Ok(None) };
        let smallest = |heads: &[usize; ORDERS]| {
            heads.iter().enumerate().skip(order).find(|(_, head)| **head != 0).map(|found| found.0)
        };
        let mut found = smallest(&self.heads);
        if found.is_none() && self.grow(order)? {
            found = smallest(&self.heads);
        }
        let Some(mut split) = found else { return Ok(None) };
        self.examined += 1;
        let at = self.heads.get(split).map_or(0, |head| head + HEADER);
        let index = self.ground.regions.find(at, self.hint);
        let Some((index, &region)) = index.and_then(|i| Some((i, self.ground.regions.get(i)?)))
        else {
            return Err(Fault::new(FaultKind::CorruptIndex, at, 0));
        };
        self.hint = index;
        if mark(&region, at) != FREE | (split as u8 + 1) {
            return Err(Fault::new(FaultKind::CorruptIndex, at, bytes_of(split)));
        }
        self.unlist(at, split)?;
        while split > order {
            split -= 1;
            self.push(&region, at + bytes_of(split), split);
        }
        set_mark(&region, at, order as u8 + 1);
        self.counters.taken(bytes_of(order));
        if zero {
            let object = core::ptr::with_exposed_provenance_mut::<u8>(at);
            // SAFETY: the block is ours until it is returned.
            unsafe { object.write_bytes(0, bytes_of(order)) };
        }
        Ok(Some(at))
    }

    fn free(&mut self, payload: usize) -> Result<usize, Fault> {
        let (region, order) = self.live(payload)?;
        self.give(&region, payload, order)?;
        self.counters.freed(bytes_of(order));
        Ok(bytes_of(order))
    }

    fn resize(&mut self, payload: usize, size: usize) -> Result<bool, Fault> {
        let (region, have) = self.live(payload)?;
        let Some(want) = order_of(size, 1) else { return Ok(false) };
        // Growing takes the upper buddies, all of which must be free and whole.
        for order in have..want {
            let buddy = payload + bytes_of(order);
            let aligned = payload & bytes_of(order) == 0;
            let inside = buddy + bytes_of(order) <= end_of(&region);
            if !aligned || !inside || mark(&region, buddy) != FREE | (order as u8 + 1) {
                return Ok(false);
            }
        }
        for order in have..want {
            let buddy = payload + bytes_of(order);
            self.unlist(buddy, order)?;
            set_mark(&region, buddy, 0);
        }
        set_mark(&region, payload, want as u8 + 1);
        for order in (want..have).rev() {
            self.give(&region, payload + bytes_of(order), order)?;
        }
        self.counters.resized(bytes_of(have), bytes_of(want));
        Ok(true)
    }

    fn usable(&self, payload: usize) -> Result<usize, Fault> {
        self.live(payload).map(|(_, order)| bytes_of(order))
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
        let (mut blocks, mut bytes) = (0, 0);
        for (order, &head) in self.heads.iter().enumerate() {
            let (mut at, mut before) = (head, 0);
            while at != 0 {
                let block = at + HEADER;
                let region = self.ground.regions.find(block, self.hint);
                let region = region.and_then(|index| self.ground.regions.get(index));
                let listed = region.is_some_and(|r| mark(r, block) == FREE | (order as u8 + 1));
                // SAFETY: `at` is the head or came from a sealed link.
                let back = unsafe { list::step(&self.ground, at, HEADER + 8) }?;
                if !listed || back != before {
                    return Err(Fault::new(FaultKind::CorruptIndex, block, bytes_of(order)));
                }
                (blocks, bytes) = (blocks + 1, bytes + bytes_of(order));
                before = at;
                // SAFETY: as above.
                at = unsafe { list::next(&self.ground, at) }?;
            }
        }
        let counters = &self.counters;
        let sound = (blocks, bytes) == (totals.free_blocks, totals.free_bytes)
            && totals.live_blocks == counters.live_blocks
            && totals.live_bytes == counters.live_bytes
            && totals.committed == counters.committed
            && totals.overhead == counters.overhead
            && totals.live_bytes + totals.free_bytes + totals.overhead == totals.committed;
        if sound { Ok(totals) } else { Err(Fault::new(FaultKind::CorruptIndex, 0, 0)) }
    }

    fn for_each(&self, visit: &mut dyn FnMut(BlockInfo)) -> Result<(), Fault> {
        for region in self.ground.regions.iter() {
            let mut at = region.first;
            while at < end_of(region) {
                let value = mark(region, at);
                let (order, free) = ((value & (FREE - 1)) as usize, value & FREE != 0);
                let size = bytes_of(order.saturating_sub(1));
                let broken = order == 0 || order > ORDERS || at & (size - 1) != 0;
                if broken || at + size > end_of(region) {
                    return Err(Fault::new(FaultKind::CorruptIndex, at, 0));
                }
                let buddy = at ^ size;
                let pair = buddy >= region.first && buddy + size <= end_of(region);
                if free && order < ORDERS && pair && mark(region, buddy) == value {
                    return Err(Fault::new(FaultKind::CorruptIndex, at, size));
                }
                visit(BlockInfo { address: at, bytes: size, live: !free, parked: false });
                at += size;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    /// Gives back regions of which no block is in use, except for the first.
    fn trim(&mut self, _keep: usize) -> Result<usize, Fault> {
        let mut given = 0;
        for index in (1..self.ground.regions.len()).rev() {
            let Some(&region) = self.ground.regions.get(index) else { continue };
            let (mut at, mut live) = (region.first, false);
            while at < end_of(&region) && !live {
                let value = mark(&region, at);
                live = value & FREE == 0;
                at += bytes_of((value & (FREE - 1)).saturating_sub(1) as usize);
            }
            if live {
                continue;
            }
            let mut at = region.first;
            while at < end_of(&region) {
                let order = (mark(&region, at) & (FREE - 1)).saturating_sub(1) as usize;
                self.unlist(at, order)?;
                at += bytes_of(order);
            }
            let bytes = region.end - region.base;
            if self.source.release(region.base, bytes, region.limit - region.base) {
                self.ground.regions.remove(index);
                self.hint = 0;
                self.counters.committed -= bytes;
                self.counters.overhead -= bytes - (end_of(&region) - region.first);
                given += bytes;
            } else {
                self.fill(&region, region.first, end_of(&region))?;
            }
        }
        Ok(given)
    }

    fn counters(&self) -> Counters {
        self.counters
    }

    fn examined(&self) -> u64 {
        self.examined
    }

    fn set_deferred(&mut self, _deferred: bool) {}

    fn source(&self) -> &S {
        &self.source
    }
}
