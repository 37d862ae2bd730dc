//! Counting, and walking a whole heap to see whether it is sound.
//!
//! Owns the counters. Counting costs a few additions per call; a check visits every block once and
//! the placement's index once, allocates nothing and changes nothing.

use super::fault::{Fault, FaultKind};
use super::ground::fault;
use super::header::{HEADER, MAX_BLOCK, MIN_BLOCK, footer_size, load};
use super::heap::BlockHeap;
use super::region::{Region, Source};
use super::{Listed, Placement};

/// What a heap holds, kept up to date by every call. Bytes count whole blocks, headers included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Blocks in use by the program.
    pub live_blocks: usize,
    /// Their bytes.
    pub live_bytes: usize,
    /// Blocks freed and set aside without merging.
    pub parked_blocks: usize,
    /// Their bytes.
    pub parked_bytes: usize,
    /// Bytes of all regions.
    pub committed: usize,
    /// Highest `committed` so far.
    pub peak_committed: usize,
    /// Highest `live_bytes` so far.
    pub peak_live: usize,
    /// Bytes of regions that are no block: side index, alignment, fences.
    pub overhead: usize,
    /// Allocations so far.
    pub allocations: u64,
    /// Frees so far.
    pub frees: u64,
}

impl Counters {
    pub(crate) const ZERO: Self = Self {
        live_blocks: 0,
        live_bytes: 0,
        parked_blocks: 0,
        parked_bytes: 0,
        committed: 0,
        peak_committed: 0,
        peak_live: 0,
        overhead: 0,
        allocations: 0,
        frees: 0,
    };

    #[inline(always)]
    pub(crate) fn taken(&mut self, bytes: usize) {
        self.allocations += 1;
        self.live_blocks += 1;
        self.resized(0, bytes);
    }

    #[inline(always)]
    pub(crate) fn freed(&mut self, bytes: usize) {
        self.frees += 1;
        self.live_blocks -= 1;
        self.live_bytes -= bytes;
    }

    #[inline(always)]
    pub(crate) fn parked(&mut self, bytes: usize) {
        self.freed(bytes);
        self.parked_blocks += 1;
        self.parked_bytes += bytes;
    }

    #[inline(always)]
    pub(crate) fn unparked(&mut self, bytes: usize) {
        self.flushed(bytes);
        self.taken(bytes);
    }

    #[inline(always)]
    pub(crate) fn flushed(&mut self, bytes: usize) {
        self.parked_blocks -= 1;
        self.parked_bytes -= bytes;
    }

    #[inline(always)]
    pub(crate) fn resized(&mut self, from: usize, to: usize) {
        self.live_bytes = self.live_bytes - from + to;
        if self.live_bytes > self.peak_live {
            self.peak_live = self.live_bytes;
        }
    }

    pub(crate) fn grown(&mut self, bytes: usize) {
        self.committed += bytes;
        self.peak_committed = self.peak_committed.max(self.committed);
    }
}

/// One block as a walk sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockInfo {
    /// Address of the payload.
    pub address: usize,
    /// Bytes, header included.
    pub bytes: usize,
    /// In use by the program.
    pub live: bool,
    /// Freed and set aside without merging.
    pub parked: bool,
}

/// What a walk over a whole heap found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Blocks in use.
    pub live_blocks: usize,
    /// Their bytes.
    pub live_bytes: usize,
    /// Blocks set aside.
    pub parked_blocks: usize,
    /// Their bytes.
    pub parked_bytes: usize,
    /// Free blocks.
    pub free_blocks: usize,
    /// Their bytes.
    pub free_bytes: usize,
    /// The largest of them.
    pub largest_free: usize,
    /// Bytes of regions that are no block.
    pub overhead: usize,
    /// Bytes of all regions.
    pub committed: usize,
}

impl Totals {
    pub(crate) fn add(&mut self, info: BlockInfo) {
        let (blocks, bytes) = if info.live {
            (&mut self.live_blocks, &mut self.live_bytes)
        } else if info.parked {
            (&mut self.parked_blocks, &mut self.parked_bytes)
        } else {
            self.largest_free = self.largest_free.max(info.bytes);
            (&mut self.free_blocks, &mut self.free_bytes)
        };
        *blocks += 1;
        *bytes += info.bytes;
    }

    /// External fragmentation: the share of free bytes that the largest free block does not hold.
    #[must_use]
    pub fn external_fragmentation(&self) -> f64 {
        if self.free_bytes == 0 {
            return 0.0;
        }
        1.0 - self.largest_free as f64 / self.free_bytes as f64
    }
}

impl<P: Placement, S: Source> BlockHeap<P, S> {
    /// Walks every block and the placement's index.
    ///
    /// # Errors
    /// The first invariant found broken, in address order.
    pub fn check(&self) -> Result<Totals, Fault> {
        let mut totals = Totals::default();
        for region in self.ground.regions.iter() {
            self.walk(region, &mut |info| totals.add(info))?;
            totals.committed += region.end - region.base;
            totals.overhead += region.first - region.base + HEADER;
        }
        let listed = self.placement.check(&self.ground)?;
        let expected = Listed {
            blocks: totals.free_blocks,
            bytes: totals.free_bytes,
            parked: totals.parked_blocks,
        };
        let counters = &self.counters;
        let sound = listed == expected
            && totals.live_blocks == counters.live_blocks
            && totals.live_bytes == counters.live_bytes
            && totals.parked_blocks == counters.parked_blocks
            && totals.parked_bytes == counters.parked_bytes
            && totals.committed == counters.committed
            && totals.overhead == counters.overhead
            && totals.live_bytes + totals.parked_bytes + totals.free_bytes + totals.overhead
                == totals.committed;
        if sound { Ok(totals) } else { Err(Fault::new(FaultKind::CorruptIndex, 0, 0)) }
    }

    /// Shows every block to `visit`, in address order.
    ///
    /// # Errors
    /// The first broken block; the walk ends there.
    pub fn for_each(&self, visit: &mut dyn FnMut(BlockInfo)) -> Result<(), Fault> {
        self.ground.regions.iter().try_for_each(|region| self.walk(region, visit))
    }

    fn walk(&self, region: &Region, visit: &mut dyn FnMut(BlockInfo)) -> Result<(), Fault> {
        let mut at = region.first;
        let (mut before_free, mut before_size) = (false, 0);
        loop {
            // SAFETY: the walk starts at the first block and follows verified sizes.
            let Some(header) = (unsafe { self.ground.header(at) }) else {
                return Err(fault(FaultKind::CorruptHeader, at, 0));
            };
            let size = header.size();
            if header.prev_in_use() == before_free || header.arena() != self.ground.arena {
                return Err(fault(FaultKind::CorruptHeader, at, size));
            }
            if at == region.fence() {
                let fence = size == 0 && header.in_use();
                return if fence { Ok(()) } else { Err(fault(FaultKind::CorruptHeader, at, size)) };
            }
            if size < MIN_BLOCK || at + size > region.fence() {
                return Err(fault(FaultKind::CorruptHeader, at, size));
            }
            let free = !header.in_use();
            if free {
                // SAFETY: the block was just bounded by the fence; its last word is its footer.
                let foot = unsafe { load(at + size - HEADER) };
                if footer_size(foot) != size {
                    return Err(fault(FaultKind::UseAfterFree, at, size));
                }
                if before_free && before_size + size <= MAX_BLOCK {
                    return Err(fault(FaultKind::CorruptIndex, at, size));
                }
            }
            let parked = header.is_parked();
            let address = at + HEADER;
            visit(BlockInfo { address, bytes: size, live: !free && !parked, parked });
            (before_free, before_size) = (free, size);
            at += size;
        }
    }

    /// The counters as they stand.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Blocks that all searches of the placement examined so far.
    #[must_use]
    pub fn examined(&self) -> u64 {
        self.placement.examined()
    }
}
