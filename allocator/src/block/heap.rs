//! Allocating and freeing in one boundary-tag heap.
//!
//! Owns the ground, the placement and the source. Each public call verifies every header it reads
//! before it believes it, and changes nothing once a fault is found; but where more is free in one piece than a block
//! may hold, and a neighbour of what is left over turns out to be damaged, what was taken is lost.

use super::Placement;
use super::check::Counters;
use super::fault::{Fault, FaultKind};
use super::ground::{FreeBlock, Ground, block_size, fault, fit};
use super::header::{GRAIN, HEADER, Header, MAX_BLOCK, MIN_BLOCK, footer, store};
use super::region::Source;

/// How a heap grows and shrinks. All in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Least amount asked of the source at once.
    pub grow: usize,
    /// A free block of this size at the end of a region is given back …
    pub trim: usize,
    /// … but for this much.
    pub keep: usize,
}

impl Policy {
    /// Grow by 128 KiB, trim from 256 KiB, keep 128 KiB.
    pub const DEFAULT: Self = Self { grow: 128 << 10, trim: 256 << 10, keep: 128 << 10 };
}

impl Default for Policy {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// A heap with boundary tags over the regions of `S`, placed by `P`. For one thread at a time.
#[derive(Debug)]
pub struct BlockHeap<P, S> {
    pub(super) ground: Ground,
    pub(crate) placement: P,
    pub(super) source: S,
    pub(super) policy: Policy,
    pub(super) counters: Counters,
    pub(super) hint: usize,
}

impl<P: Placement, S: Source> BlockHeap<P, S> {
    /// An empty heap. `secret` seeds its checksums, `arena` (0–15) marks its blocks.
    #[must_use]
    pub const fn new(source: S, policy: Policy, secret: u64, arena: u8) -> Self {
        Self {
            ground: Ground::new(secret, arena),
            placement: P::EMPTY,
            source,
            policy,
            counters: Counters::ZERO,
            hint: 0,
        }
    }

    /// An object of `size` bytes at `align` (a power of two), zeroed if asked; `None` out of memory.
    ///
    /// # Errors
    /// A fault if a block that was to be used turned out to be damaged.
    #[inline]
    pub fn allocate(
        &mut self,
        size: usize,
        align: usize,
        zero: bool,
    ) -> Result<Option<usize>, Fault> {
        let Some(need) = block_size(size) else { return Ok(None) };
        if align <= GRAIN
            && let Some(at) = self.placement.unpark(&self.ground, need)?
        {
            return self.reissue(at, need, zero).map(Some);
        }
        let found = if align <= GRAIN {
            match self.placement.cut(&self.ground, need)? {
                Some((block, true)) => return self.cut(block, need, zero).map(Some),
                Some((block, false)) => Some(block),
                None => None,
            }
        } else {
            self.placement.take(&self.ground, need, align)?
        };
        let block = match found {
            Some(block) => block,
            None => match self.take_after_growth(need, align)? {
                Some(block) => block,
                None => return Ok(None),
            },
        };
        self.carve(block, need, align, zero).map(Some)
    }

    /// Gives back the object at `payload`; returns the bytes of its block.
    ///
    /// # Errors
    /// The rule that the call or the block's neighbourhood breaks; then nothing was changed.
    #[inline]
    pub fn free(&mut self, payload: usize) -> Result<usize, Fault> {
        let (block, header) = self.live(payload)?;
        let next = block.at + block.size;
        // SAFETY: a sealed live block ends at a block or a fence of its region.
        if unsafe { self.ground.header(next) }.is_none() {
            return Err(fault(FaultKind::Overflow, block.at, block.size));
        }
        // SAFETY: the block was in use by the caller, who gives it up with this call.
        if unsafe { self.placement.park(&self.ground, block) } {
            // SAFETY: the header of a block of ours.
            unsafe { header.with_mark(true).write(block.at, self.ground.secret) };
            self.counters.parked(block.size);
            return Ok(block.size);
        }
        let merged = self.give(block, header.prev_in_use(), false)?;
        self.counters.freed(block.size);
        if merged.size >= self.policy.trim {
            self.trim_end(merged)?;
        }
        Ok(block.size)
    }

    /// Bytes that the program may use at `payload`.
    ///
    /// # Errors
    /// As for [`BlockHeap::free`].
    pub fn usable(&self, payload: usize) -> Result<usize, Fault> {
        let region = self.ground.regions.find(payload, self.hint);
        let (block, _) = self.live_in(payload, region)?;
        Ok(block.size - HEADER)
    }

    /// Whether `payload` lies in a region of this heap.
    #[must_use]
    pub fn owns(&self, payload: usize) -> bool {
        self.ground.regions.find(payload, self.hint).is_some()
    }

    #[inline(always)]
    pub(super) fn live(&mut self, payload: usize) -> Result<(FreeBlock, Header), Fault> {
        let region = self.ground.regions.find(payload, self.hint);
        if let Some(region) = region {
            self.hint = region;
        }
        self.live_in(payload, region)
    }

    /// The block in use whose payload starts at `payload`.
    #[inline(always)]
    fn live_in(&self, payload: usize, region: Option<usize>) -> Result<(FreeBlock, Header), Fault> {
        if payload & (GRAIN - 1) != 0 {
            return Err(Fault::new(FaultKind::MisalignedFree, payload, 0));
        }
        let at = payload.wrapping_sub(HEADER);
        let found = region.and_then(|index| Some((index, self.ground.regions.get(index)?)));
        let Some((index, region)) = found else {
            return Err(Fault::new(FaultKind::ForeignFree, payload, 0));
        };
        if !region.holds(at) {
            return Err(Fault::new(FaultKind::InvalidFree, payload, 0));
        }
        // SAFETY: `holds` says that a block can start here.
        let Some(header) = (unsafe { self.ground.header(at) }) else {
            return Err(self.ground.diagnose(payload, region));
        };
        if !header.in_use() || header.is_parked() {
            return Err(fault(FaultKind::DoubleFree, at, header.size()));
        }
        Ok((FreeBlock { at, size: header.size(), region: index }, header))
    }

    /// Makes an object of the last `need` bytes of `block`, which stays listed.
    #[inline(always)]
    fn cut(&mut self, block: FreeBlock, need: usize, zero: bool) -> Result<usize, Fault> {
        let FreeBlock { at, size, .. } = block;
        let (next, start) = (at + size, at + size - need);
        // SAFETY: a block ends at a block or a fence of its region.
        let Some(after) = (unsafe { self.ground.header(next) }) else {
            return Err(fault(FaultKind::CorruptHeader, next, 0));
        };
        // SAFETY: the placement read this header's seal when it found the block.
        let header = unsafe { Header::read(at) };
        let left = FreeBlock { size: size - need, ..block };
        self.tag(left, header.prev_in_use(), header.is_zero());
        // SAFETY: `next` was verified above and we hold the heap alone.
        unsafe { after.with_prev_in_use(true).write(next, self.ground.secret) };
        let object = Header::new(need, true, false, self.ground.arena);
        // SAFETY: `start..next` is the end of the block.
        unsafe { object.write(start, self.ground.secret) };
        self.counters.taken(need);
        if zero {
            // SAFETY: the object is ours until it is returned; of the words that a free block holds
            // only the old footer lies in it.
            unsafe { clear(start, need, header.is_zero(), false, true) };
        }
        if !header.prev_in_use() {
            self.list_anew(left, header.is_zero())?;
        }
        Ok(start + HEADER)
    }

    /// Turns the free, unlisted `block` into an object and lists what is left of it.
    #[inline(always)]
    fn carve(
        &mut self,
        block: FreeBlock,
        need: usize,
        align: usize,
        zero: bool,
    ) -> Result<usize, Fault> {
        let FreeBlock { at, size, region } = block;
        let secret = self.ground.secret;
        // SAFETY: the placement handed out a listed block, which lies in a region.
        let Some(header) = (unsafe { self.ground.header(at) }) else {
            return Err(fault(FaultKind::CorruptHeader, at, 0));
        };
        let next = at + size;
        // SAFETY: a block ends at a block or a fence of its region.
        let Some(after) = (unsafe { self.ground.header(next) }) else {
            return Err(fault(FaultKind::CorruptHeader, next, 0));
        };
        let Some(start) = fit(at, size, need, align) else {
            return Err(fault(FaultKind::CorruptIndex, at, size));
        };
        let gap = start - at;
        let rest = size - gap - need;
        let taken = if rest >= MIN_BLOCK { need } else { need + rest };
        // The object first: what is left in front of it may be merged, and then its header is read.
        let object = Header::new(taken, true, gap == 0 && header.prev_in_use(), self.ground.arena);
        // SAFETY: `start..start + taken` lies inside the block that was taken.
        unsafe { object.write(start, secret) };
        if gap != 0 {
            let front = FreeBlock { at, size: gap, region };
            self.list_rest(front, header.prev_in_use(), true, header.is_zero())?;
        }
        if taken == need && rest != 0 {
            let tail = FreeBlock { at: start + need, size: rest, region };
            self.list_rest(tail, true, after.in_use(), header.is_zero())?;
        } else {
            // SAFETY: `next` was verified above and we hold the heap alone.
            unsafe { after.with_prev_in_use(true).write(next, secret) };
        }
        self.counters.taken(taken);
        if zero {
            // SAFETY: the object is ours until it is returned.
            unsafe { clear(start, taken, header.is_zero(), gap == 0, taken != need || rest == 0) };
        }
        Ok(start + HEADER)
    }

    /// Hands out a parked block again.
    #[inline(always)]
    fn reissue(&mut self, at: usize, need: usize, zero: bool) -> Result<usize, Fault> {
        // SAFETY: a parked block lies in a region.
        let header = match unsafe { self.ground.header(at) } {
            Some(header) if header.is_parked() && header.size() == need => header,
            _ => return Err(fault(FaultKind::CorruptHeader, at, 0)),
        };
        // SAFETY: the header of a block of ours.
        unsafe { header.with_mark(false).write(at, self.ground.secret) };
        self.counters.unparked(need);
        if zero {
            // SAFETY: the object is ours until it is returned.
            unsafe { clear(at, need, false, true, true) };
        }
        Ok(at + HEADER)
    }

    /// Lists what is left of a free block. A free neighbour was too large to be one with the whole
    /// of it, and may be one with the rest.
    #[inline(always)]
    pub(super) fn list_rest(
        &mut self,
        rest: FreeBlock,
        prev_in_use: bool,
        next_in_use: bool,
        zero: bool,
    ) -> Result<(), Fault> {
        if prev_in_use && next_in_use {
            self.list(rest, prev_in_use, zero)
        } else {
            self.merge(rest, prev_in_use, zero)
        }
    }

    /// As `list_rest`, for a block that stayed listed, behind a free one.
    #[cold]
    #[inline(never)]
    fn list_anew(&mut self, left: FreeBlock, zero: bool) -> Result<(), Fault> {
        // SAFETY: the placement kept it listed, with the size that its tags say.
        unsafe { self.placement.remove(&self.ground, left) }?;
        self.merge(left, false, zero)
    }

    /// As `give`, where that is rare.
    #[cold]
    #[inline(never)]
    fn merge(&mut self, block: FreeBlock, prev_in_use: bool, zero: bool) -> Result<(), Fault> {
        self.give(block, prev_in_use, zero).map(drop)
    }

    /// Writes the tags of a free block and lists it. Neighbours are not looked at.
    #[inline(always)]
    fn list(&mut self, block: FreeBlock, prev_in_use: bool, zero: bool) -> Result<(), Fault> {
        self.tag(block, prev_in_use, zero);
        // SAFETY: tags are written, and a block that was not free a moment ago is not listed.
        unsafe { self.placement.insert(&self.ground, block) }
    }

    /// Writes the tags of a free block that belongs to the caller.
    #[inline(always)]
    fn tag(&self, block: FreeBlock, prev_in_use: bool, zero: bool) {
        let header = Header::new(block.size, false, prev_in_use, self.ground.arena);
        // SAFETY: the caller hands over the block; its last word is its footer.
        unsafe { header.with_mark(zero).write(block.at, self.ground.secret) };
        // SAFETY: as above.
        unsafe { store(block.at + block.size - HEADER, footer(block.size, 0)) };
    }

    /// Merges `block`, in use by nobody, with its free neighbours and lists the result.
    #[inline(always)]
    pub(super) fn give(
        &mut self,
        block: FreeBlock,
        prev_in_use: bool,
        zero: bool,
    ) -> Result<FreeBlock, Fault> {
        let secret = self.ground.secret;
        let mut merged = block;
        let (mut prev_in_use, mut zero, mut listed) = (prev_in_use, zero, false);
        let next = block.at + block.size;
        // SAFETY: a block ends at a block or a fence of its region.
        let Some(after) = (unsafe { self.ground.header(next) }) else {
            return Err(fault(FaultKind::Overflow, block.at, block.size));
        };
        if !prev_in_use {
            let Some(region) = self.ground.regions.get(block.region) else {
                return Err(fault(FaultKind::CorruptIndex, block.at, block.size));
            };
            // SAFETY: the block's sealed header says that its predecessor is free.
            let at = unsafe { self.ground.previous(block.at, region) }?;
            let size = block.at - at;
            if size + block.size <= MAX_BLOCK {
                let before = FreeBlock { at, size, ..block };
                // SAFETY: `previous` verified that a free block lies there; free blocks are listed.
                listed = unsafe { self.placement.absorb(&self.ground, before) }?;
                // SAFETY: verified by `previous`.
                let before = unsafe { Header::read(at) };
                prev_in_use = before.prev_in_use();
                zero = zero && before.is_zero();
                merged = FreeBlock { at, size: size + block.size, ..block };
                // The old header stays in place as "free", so that a second free is recognised.
                let grave = Header::new(block.size, false, false, self.ground.arena);
                // SAFETY: the header of the block that is being given up.
                unsafe { grave.write(block.at, secret) };
                if zero {
                    // SAFETY: the seam lies inside the merged block.
                    unsafe { wipe_seam(block.at) };
                }
            }
        }
        if !after.in_use() && merged.size + after.size() <= MAX_BLOCK {
            let size = after.size();
            // SAFETY: a sealed header of a free block; free blocks are listed.
            unsafe { self.placement.remove(&self.ground, FreeBlock { at: next, size, ..block }) }?;
            merged.size += size;
            zero = zero && after.is_zero();
            if zero {
                // SAFETY: the seam lies inside the merged block.
                unsafe { wipe_seam(next) };
            }
        } else if after.prev_in_use() {
            // SAFETY: `after` was verified above.
            unsafe { after.with_prev_in_use(false).write(next, secret) };
        }
        if listed {
            self.tag(merged, prev_in_use, zero);
            // SAFETY: the block stayed listed, and its tags are written.
            unsafe { self.placement.grew(&self.ground, merged) };
        } else {
            self.list(merged, prev_in_use, zero)?;
        }
        Ok(merged)
    }
}

/// Zeroes the payload of a block of `size` bytes at `at`, or only the words that a free block uses.
///
/// # Safety
/// The block belongs to the caller.
unsafe fn clear(at: usize, size: usize, zero: bool, words: bool, foot: bool) {
    let payload = at + HEADER;
    if !zero {
        let bytes = core::ptr::with_exposed_provenance_mut::<u8>(payload);
        // SAFETY: the payload is ours and `size - HEADER` bytes long.
        unsafe { bytes.write_bytes(0, size - HEADER) };
        return;
    }
    if words {
        // SAFETY: the smallest payload holds two words and a footer.
        unsafe { store(payload, 0) };
        // SAFETY: as above.
        unsafe { store(payload + 8, 0) };
    }
    if foot {
        // SAFETY: the last word of the payload.
        unsafe { store(at + size - HEADER, 0) };
    }
}

/// Zeroes the four words around a header that two zero blocks met at.
///
/// # Safety
/// `at` was a free block with a free block before it, now merged.
unsafe fn wipe_seam(at: usize) {
    for word in [at - 8, at, at + 8, at + 16] {
        // SAFETY: footer before, header and two link words after: all inside the merged block.
        unsafe { store(word, 0) };
    }
}
