//! Resizing an object where it stands.
//!
//! Cost: as one free and one allocation, without a search. Growing takes what it needs from a free
//! successor; shrinking gives the tail back if it makes a block of its own.

use super::Placement;
use super::fault::{Fault, FaultKind};
use super::ground::{FreeBlock, block_size, fault};
use super::header::{GRAIN, HEADER, Header, MIN_BLOCK};
use super::heap::BlockHeap;
use super::region::Source;

impl<P: Placement, S: Source> BlockHeap<P, S> {
    /// Makes the object at `payload` hold `size` bytes without moving it. `false`: it must move.
    ///
    /// # Errors
    /// As for [`BlockHeap::free`].
    pub fn resize(&mut self, payload: usize, size: usize) -> Result<bool, Fault> {
        let (block, header) = self.live(payload)?;
        let next = block.at + block.size;
        // SAFETY: a sealed live block ends at a block or a fence of its region.
        let Some(after) = (unsafe { self.ground.header(next) }) else {
            return Err(fault(FaultKind::Overflow, block.at, block.size));
        };
        let Some(need) = block_size(size) else { return Ok(false) };
        if need <= block.size {
            self.split(block, header, need)?;
            return Ok(true);
        }
        if after.in_use() || block.size + after.size() < need {
            return Ok(false);
        }
        let free = FreeBlock { at: next, size: after.size(), region: block.region };
        let end = next + free.size;
        // SAFETY: a block ends at a block or a fence of its region.
        let Some(behind) = (unsafe { self.ground.header(end) }) else {
            return Err(fault(FaultKind::CorruptHeader, end, 0));
        };
        // SAFETY: a sealed header of a free block; free blocks are listed.
        unsafe { self.placement.remove(&self.ground, free) }?;
        let whole = block.size + free.size;
        let rest = whole - need;
        let taken = if rest >= MIN_BLOCK { need } else { whole };
        if taken == need && rest != 0 {
            let tail = FreeBlock { at: block.at + need, size: rest, region: block.region };
            self.list_rest(tail, true, behind.in_use(), after.is_zero())?;
        } else {
            // SAFETY: verified above.
            unsafe { behind.with_prev_in_use(true).write(end, self.ground.secret) };
        }
        let grown = Header::new(taken, true, header.prev_in_use(), self.ground.arena);
        // SAFETY: the header of the object that was verified above.
        unsafe { grown.write(block.at, self.ground.secret) };
        self.counters.resized(block.size, taken);
        Ok(true)
    }

    /// Cuts the tail off an object, if the tail makes a block.
    fn split(&mut self, block: FreeBlock, header: Header, need: usize) -> Result<(), Fault> {
        let rest = block.size - need;
        if rest < MIN_BLOCK.max(GRAIN) {
            return Ok(());
        }
        let kept = Header::new(need, true, header.prev_in_use(), self.ground.arena);
        // SAFETY: the header of the object that was verified by the caller.
        unsafe { kept.write(block.at, self.ground.secret) };
        self.counters.resized(block.size, need);
        let tail = FreeBlock { at: block.at + need, size: rest, region: block.region };
        let merged = self.give(tail, true, false)?;
        debug_assert!(merged.size >= HEADER);
        if merged.size >= self.policy.trim {
            self.trim_end(merged)?;
        }
        Ok(())
    }
}
