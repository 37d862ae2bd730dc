//! Growing a heap and giving memory back.
//!
//! Owns the policy of both. Cost: one call of the source per growth or trim, two where it keeps a region that is free;
//! neither is on the path of an ordinary allocation or free.
//!
//! A region is extended in place while its source can; then a new one is acquired, an eighth of the
//! heap at least, so that the region table never fills. Whole free regions are released, except for
//! the first. What is free at a region's end goes back whether it is one block or, too large for that,
//! several.

use super::Placement;
use super::fault::{Fault, FaultKind};
use super::ground::{FreeBlock, fault, padded};
use super::header::{GRAIN, HEADER, Header, MAX_BLOCK, MIN_BLOCK};
use super::heap::BlockHeap;
use super::region::{Extent, Region, Source};

impl<P: Placement, S: Source> BlockHeap<P, S> {
    #[cold]
    #[inline(never)]
    pub(super) fn take_after_growth(
        &mut self,
        need: usize,
        align: usize,
    ) -> Result<Option<FreeBlock>, Fault> {
        if self.counters.parked_blocks != 0 {
            self.flush()?;
            if let Some(block) = self.placement.take(&self.ground, need, align)? {
                return Ok(Some(block));
            }
        }
        let want = padded(need, align);
        if want > MAX_BLOCK || !self.grow(want)? {
            return Ok(None);
        }
        self.placement.take(&self.ground, need, align)
    }

    /// Merges every parked block.
    ///
    /// # Errors
    /// A fault if a parked block was damaged.
    pub fn flush(&mut self) -> Result<(), Fault> {
        while let Some(at) = self.placement.unpark_any(&self.ground)? {
            // SAFETY: a parked block lies in a region.
            let header = match unsafe { self.ground.header(at) } {
                Some(header) if header.is_parked() => header,
                _ => return Err(fault(FaultKind::CorruptHeader, at, 0)),
            };
            let size = header.size();
            let Some(region) = self.ground.regions.find(at, self.hint) else {
                return Err(fault(FaultKind::CorruptIndex, at, size));
            };
            self.counters.flushed(size);
            self.give(FreeBlock { at, size, region }, header.prev_in_use(), false)?;
        }
        Ok(())
    }

    /// Makes room for a block of `want` bytes. `false`: the source has nothing.
    fn grow(&mut self, want: usize) -> Result<bool, Fault> {
        for index in (0..self.ground.regions.len()).rev() {
            if self.extend(index, want)? {
                return Ok(true);
            }
        }
        if self.ground.regions.is_full() {
            return Ok(false);
        }
        let frame = 64 + GRAIN + HEADER + HEADER;
        let least = want.saturating_add(frame);
        let wish = least.max(self.policy.grow).max(self.counters.committed / 8);
        for bytes in [wish, least] {
            // The index covers what the region may become, not only what it is now.
            let ask = bytes.saturating_add(P::index_bytes(bytes));
            let ask = ask.max(least.saturating_add(P::index_bytes(self.source.reach(ask))));
            if let Some(extent) = self.source.acquire(ask) {
                return Ok(self.add_region(extent));
            }
        }
        Ok(false)
    }

    /// Adds at least `want` bytes to the end of the region at `index`.
    fn extend(&mut self, index: usize, want: usize) -> Result<bool, Fault> {
        let Some(&region) = self.ground.regions.get(index) else { return Ok(false) };
        let room = region.limit - region.end;
        if room < want {
            return Ok(false);
        }
        let wish = want.max(self.policy.grow).min(room);
        let mut added = self.source.extend(region.base, region.end, wish);
        if added.bytes < want {
            added = self.source.extend(region.base, region.end, want);
        }
        let bytes = added.bytes & !(GRAIN - 1);
        if bytes < want.max(MIN_BLOCK) {
            return Ok(false);
        }
        let fence = region.fence();
        // SAFETY: every region ends with a fence.
        let Some(old) = (unsafe { self.ground.header(fence) }) else {
            return Err(fault(FaultKind::Overflow, fence, 0));
        };
        self.counters.grown(bytes);
        let end = region.end + bytes;
        if let Some(region) = self.ground.regions.get_mut(index) {
            region.end = end;
        }
        self.fill(index, fence, end - HEADER, old.prev_in_use(), added.zeroed)?;
        Ok(true)
    }

    /// Makes the bytes from `at` to `fence` free blocks and writes the fence.
    fn fill(
        &mut self,
        region: usize,
        at: usize,
        fence: usize,
        prev_in_use: bool,
        zero: bool,
    ) -> Result<(), Fault> {
        let (mut at, mut prev_in_use) = (at, prev_in_use);
        let secret = self.ground.secret;
        while at < fence {
            let mut size = (fence - at).min(MAX_BLOCK);
            if fence - at - size < MIN_BLOCK && fence - at != size {
                size -= MIN_BLOCK;
            }
            let next = Header::new(0, true, true, self.ground.arena);
            // SAFETY: `at + size <= fence`, whose word belongs to the region; for all but the last
            // round this stands in for the header that the next round writes.
            unsafe { next.write(at + size, secret) };
            self.give(FreeBlock { at, size, region }, prev_in_use, zero)?;
            prev_in_use = false;
            at += size;
        }
        Ok(())
    }

    /// Puts a region into service. `false` if it is too small to hold a block, or the table is full.
    fn add_region(&mut self, extent: Extent) -> bool {
        let base = (extent.base + 63) & !63;
        let index_bytes = P::index_bytes(extent.limit);
        let first = ((base + index_bytes + GRAIN - 1) & !(GRAIN - 1)) + HEADER;
        let end = (extent.base + extent.bytes) & !(GRAIN - 1);
        let limit = (extent.base + extent.limit) & !(GRAIN - 1);
        if end < first + MIN_BLOCK + HEADER {
            return false;
        }
        if !extent.zeroed {
            let side = core::ptr::with_exposed_provenance_mut::<u8>(base);
            // SAFETY: `base + index_bytes <= first < end`: inside the region, not yet in use.
            unsafe { side.write_bytes(0, index_bytes) };
        }
        let region = Region { base: extent.base, first, end, limit };
        let Some(index) = self.ground.regions.insert(region) else { return false };
        self.counters.grown(end - extent.base);
        self.counters.overhead += first - extent.base + HEADER;
        self.placement.region_changed(&self.ground, index, true);
        self.fill(index, first, end - HEADER, true, extent.zeroed).is_ok()
    }

    /// Gives back the end of the region of the free block `last`, if nothing behind it is in use.
    #[cold]
    #[inline(never)]
    pub(super) fn trim_end(&mut self, last: FreeBlock) -> Result<usize, Fault> {
        self.shrink(last, self.policy.keep)
    }

    fn shrink(&mut self, last: FreeBlock, keep: usize) -> Result<usize, Fault> {
        let Some(&region) = self.ground.regions.get(last.region) else { return Ok(0) };
        let Some(free) = self.free_end(last, &region)? else { return Ok(0) };
        let page = self.source.page().max(GRAIN);
        let give = free.size.saturating_sub(keep.max(MIN_BLOCK)) / page * page;
        let whole = free.at == region.first && free.region != 0;
        if give == 0 && !whole {
            return Ok(0);
        }
        let zero = self.unlist(free)?;
        if whole && self.release(free.region, region) {
            return Ok(region.end - region.base);
        }
        let mut given = 0;
        if give != 0 {
            given = self.source.shrink(region.base, region.end, give).min(give) & !(GRAIN - 1);
        }
        let end = region.end - given;
        if let Some(region) = self.ground.regions.get_mut(free.region) {
            region.end = end;
        }
        self.counters.committed -= given;
        // At least MIN_BLOCK is left, and before it lies a block in use or the region's start.
        self.fill(free.region, free.at, end - HEADER, true, zero)?;
        Ok(given)
    }

    /// All that is free at the end of the region of the free block `of`, which is part of it: one
    /// block, or several that would exceed [`MAX_BLOCK`] together. `None`: it does not reach the end.
    fn free_end(&self, of: FreeBlock, region: &Region) -> Result<Option<FreeBlock>, Fault> {
        let mut end = of.at + of.size;
        while end != region.fence() {
            // SAFETY: a block ends at a block or a fence of its region.
            match unsafe { self.ground.header(end) } {
                Some(header) if !header.in_use() => end += header.size(),
                // Damage is for whoever uses that block to find.
                _ => return Ok(None),
            }
        }
        let mut at = of.at;
        // SAFETY: verified when it was merged; those before it by `previous`.
        while !unsafe { Header::read(at) }.prev_in_use() {
            // SAFETY: the header says that its predecessor is free.
            at = unsafe { self.ground.previous(at, region) }?;
        }
        Ok(Some(FreeBlock { at, size: end - at, ..of }))
    }

    /// Unlists every block of what `free_end` found; whether it is one that is zero.
    fn unlist(&mut self, free: FreeBlock) -> Result<bool, Fault> {
        // SAFETY: `free_end` came by this header.
        let first = unsafe { Header::read(free.at) };
        let (mut at, end) = (free.at, free.at + free.size);
        while at < end {
            // SAFETY: as above.
            let size = unsafe { Header::read(at) }.size();
            // SAFETY: free blocks are listed.
            unsafe { self.placement.remove(&self.ground, FreeBlock { at, size, ..free }) }?;
            at += size;
        }
        Ok(first.size() == free.size && first.is_zero())
    }

    /// Hands back a region of which nothing is in use or listed. `false`: its source wants it to
    /// stay.
    fn release(&mut self, index: usize, region: Region) -> bool {
        self.placement.region_changed(&self.ground, index, false);
        let (bytes, limit) = (region.end - region.base, region.limit - region.base);
        if self.source.release(region.base, bytes, limit) {
            self.ground.regions.remove(index);
            self.hint = 0;
            self.counters.committed -= bytes;
            self.counters.overhead -= region.first - region.base + HEADER;
            return true;
        }
        self.placement.region_changed(&self.ground, index, true);
        false
    }

    /// Gives back what it can but for `keep` bytes per region; returns the bytes given.
    ///
    /// # Errors
    /// A fault if a block on the way was damaged.
    pub fn trim(&mut self, keep: usize) -> Result<usize, Fault> {
        self.flush()?;
        let mut given = 0;
        for index in (0..self.ground.regions.len()).rev() {
            let Some(&region) = self.ground.regions.get(index) else { continue };
            let fence = region.fence();
            // SAFETY: every region ends with a fence.
            let Some(header) = (unsafe { self.ground.header(fence) }) else {
                return Err(fault(FaultKind::Overflow, fence, 0));
            };
            if !header.prev_in_use() {
                // SAFETY: the fence says that its predecessor is free.
                let at = unsafe { self.ground.previous(fence, &region) }?;
                given += self.shrink(FreeBlock { at, size: fence - at, region: index }, keep)?;
            }
        }
        Ok(given)
    }
}
