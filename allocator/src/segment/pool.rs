//! The segments of one origin and node: hands out runs of slices, takes them back, and gives
//! memory that stayed unused back to the kernel.
//!
//! Placement is address-ordered first fit: the first segment with room, the first dirty run in it
//! before the first clean one. Purging is decayed by time and happens on the way of a release: a
//! run that was dirty two epochs (of 250 ms) ago is purged; beyond that, dirty slices are capped
//! at a quarter above the recent peak of use. A cap by address alone would purge and refault the
//! leftovers beside runs in each round of a phase-like program.
//!
//! Cost: one lock; a scan from the lowest segment that may have room for a run of that length.
//!
//! # Invariants
//! 1. `dirty` and `old` are subsets of `free` in every header.
//! 2. `dirty_slices` is the number of dirty bits, `used` the number of slices handed out.
//! 3. No segment below `hints[k]` has a free run of `k` slices. Hence `hints` never falls from a length
//!    to the next.

mod directory;
mod held;
mod purge;
mod scarce;
mod view;

use core::{iter, ptr};

use self::directory::Directory;
pub(crate) use self::held::Held;
use super::{Header, NOBODY, Span, slice_of};
use crate::lock::Lock;
use crate::os::{self, Kernel, OsError};
use crate::probe::fire;
use crate::sync::{AtomicU32, Ordering};
use crate::units::{SEGMENT, SLICE, SLICES};

/// Where a pool's segments come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// `mmap`.
    Map,
    /// `sbrk`, and `mmap` once the break refuses.
    Break,
}

/// A run of slices just handed out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// Record of the first slice. No record of the run names a heap.
    pub(crate) head: *mut Span,
    /// In slices.
    pub(crate) len: u32,
    /// Whether every byte of the run is still zero.
    pub(crate) zeroed: bool,
}

/// What a pool holds, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PoolUsage {
    /// Mapped segments.
    pub(crate) mapped: usize,
    /// Slices handed out.
    pub(crate) used: usize,
    /// Free slices that hold pages.
    pub(crate) dirty: usize,
    /// Given back to the kernel so far.
    pub(crate) purged: usize,
    /// Times the lock was taken / waited for.
    pub(crate) lock: (usize, usize),
}

/// Length of a purge epoch in milliseconds.
const EPOCH_MS: u64 = 250;

/// The segments of one origin and node.
#[derive(Debug)]
pub(crate) struct Pool<K> {
    kernel: K,
    /// The node its segments prefer, plus one; 0 for none.
    node: AtomicU32,
    /// Slices without pages that were handed out since [`Pool::take_fresh`] told so: an estimate.
    fresh: AtomicU32,
    state: Lock<State>,
}

#[derive(Debug)]
struct State {
    number: u16,
    origin: Origin,
    directory: Directory,
    /// Per run length: the lowest segment that may have room, or one below.
    hints: [i16; SLICES + 1],
    used: usize,
    dirty_slices: usize,
    purged: usize,
    /// Highest `used` of this epoch and the one before.
    peak: usize,
    peak_before: usize,
    epoch_began: u64,
    releases: u32,
    /// The kernel refused so much in this epoch that more stays dirty than is kept.
    purge_refused: bool,
    /// Dirty slices kept at least, and the share of the peak kept besides, in sixteenths.
    floor: usize,
    sixteenths: usize,
    /// Whether new segments ask for huge pages.
    huge_pages: bool,
}

// SAFETY: the pointers lead to segments, which belong to the pool and not to a thread.
unsafe impl Send for State {}

/// Hints below it tell a segment's number; those from there on one in so many.
const EXACT: u32 = 1 << 14;
const STEP: u32 = 64;

/// A segment's number as far as a hint can tell it, or that of one below: a change of segment updates up to 127 of
/// them, and eight numbers of 16 bits are one vector.
fn hint_of(index: u32) -> i16 {
    let coarse = EXACT + index.saturating_sub(EXACT) / STEP;
    index.min(coarse).min(i16::MAX as u32) as i16
}

/// The first segment that a hint stands for.
fn index_of(hint: i16) -> u32 {
    let hint = hint as u32;
    hint + hint.saturating_sub(EXACT) * (STEP - 1)
}

/// Bits where a run of `len` set bits begins.
#[inline]
fn run_starts(mut bits: u128, len: usize) -> u128 {
    let mut have = 1;
    while have < len && bits != 0 {
        let step = have.min(len - have);
        bits &= bits >> step;
        have += step;
    }
    bits
}

/// The lowest `len` bits, `len` between 1 and 128.
#[inline]
fn low_bits(len: usize) -> u128 {
    u128::MAX >> (128 - len)
}

impl<K: Kernel> Pool<K> {
    /// An empty pool, all zero; it is configured before it is used.
    pub(crate) const fn new(kernel: K) -> Self {
        Pool {
            kernel,
            node: AtomicU32::new(0),
            fresh: AtomicU32::new(0),
            state: Lock::new(State {
                number: 0,
                origin: Origin::Map,
                directory: Directory::EMPTY,
                hints: [0; SLICES + 1],
                used: 0,
                dirty_slices: 0,
                purged: 0,
                peak: 0,
                peak_before: 0,
                epoch_began: 0,
                releases: 0,
                purge_refused: false,
                floor: 0,
                sixteenths: 0,
                huge_pages: false,
            }),
        }
    }

    /// Sets the number its segments carry, where they come from and, on machines of several nodes,
    /// which node they prefer.
    pub(crate) fn configure(&self, number: u16, origin: Origin, node: Option<u32>) {
        self.node.store(node.map_or(0, |node| node + 1), Ordering::Relaxed);
        let mut state = self.state.lock();
        state.number = number;
        state.origin = origin;
    }

    /// Keeps at most `floor` bytes, or `sixteenths`/16 of the recent peak, of dirty slices.
    pub(crate) fn configure_purge(&self, floor: usize, sixteenths: usize) {
        let mut state = self.state.lock();
        state.floor = floor / SLICE;
        state.sixteenths = sixteenths;
    }

    /// Whether segments from now on ask for huge pages.
    pub(crate) fn configure_huge_pages(&self, wanted: bool) {
        self.state.lock().huge_pages = wanted;
    }

    /// A run of `len` slices (1 to 127), or `None` when the kernel has no more memory.
    pub(crate) fn allocate(&self, len: usize) -> Option<Run> {
        debug_assert!((1..SLICES).contains(&len));
        let mut state = self.state.lock();
        let dirty = state.dirty_slices;
        let run = state.find(len).or_else(|| {
            let index = self.grow(&mut state, len)?;
            state.raise_hint(len, index);
            state.find(len)
        })?;
        self.count_fresh(len + state.dirty_slices - dirty);
        Some(run)
    }

    /// Fills `batch` with runs of one slice, as far as there are any; how many there were.
    pub(crate) fn allocate_each(&self, batch: &mut [*mut Span]) -> usize {
        let mut state = self.state.lock();
        let dirty = state.dirty_slices;
        let mut count = 0;
        for (slot, run) in batch.iter_mut().zip(iter::from_fn(|| state.find(1))) {
            *slot = run.head;
            count += 1;
        }
        self.count_fresh(count + state.dirty_slices - dirty);
        count
    }

    /// Takes a run back.
    ///
    /// # Safety
    /// As [`Pool::release_each`].
    pub(crate) unsafe fn release(&self, head: *mut Span, len: usize) {
        // SAFETY: the caller's promise.
        unsafe { self.release_each(&[head], len) };
    }

    /// Takes runs of `len` slices each back.
    ///
    /// # Safety
    /// The runs came from this pool, nobody uses them any more, and their records say so: their kind
    /// is free and their owner [`NOBODY`].
    pub(crate) unsafe fn release_each(&self, heads: &[*mut Span], len: usize) {
        let mut state = self.state.lock();
        for &head in heads {
            // SAFETY: the caller's promise.
            unsafe { state.put_back(head, len) };
        }
        self.maintain(&mut state);
    }

    /// Purges all that is free.
    pub(crate) fn purge_all(&self) {
        self.purge_down_to(&mut self.state.lock(), 0, false);
    }

    /// Gives back what time has made due; cheap when nothing is.
    pub(crate) fn tick(&self) {
        if let Some(mut state) = self.state.try_lock() {
            self.pass_epoch(&mut state);
        }
    }

    fn maintain(&self, state: &mut State) {
        state.releases = state.releases.wrapping_add(1);
        if state.dirty_slices > state.floor && state.releases.is_multiple_of(16) {
            self.pass_epoch(state);
        }
        let peak = state.peak.max(state.peak_before);
        // What is in use counts too: the whole stays a quarter above what was needed recently.
        let cap = (peak * state.sixteenths / 16).saturating_sub(state.used).max(state.floor);
        if state.dirty_slices > cap && !state.purge_refused {
            let goal = cap - cap / 8;
            let refused =
                self.purge_down_to(state, goal, true) | self.purge_down_to(state, goal, false);
            // Locked memory, say: each release would ask for every run of it again.
            state.purge_refused = refused && state.dirty_slices > cap;
        }
    }

    /// When an epoch is over: purges what was dirty before it began.
    fn pass_epoch(&self, state: &mut State) {
        let now = self.kernel.now_ms();
        let elapsed = now.wrapping_sub(state.epoch_began);
        if elapsed < EPOCH_MS {
            return;
        }
        state.epoch_began = now;
        state.purge_refused = false;
        state.peak_before = state.peak;
        state.peak = state.used;
        for index in (0..state.directory.count()).rev() {
            let segment = state.directory.get(index);
            // SAFETY: headers belong to the pool, and its lock is held.
            unsafe {
                // After an idle second nothing that is dirty was dirtied recently.
                let idle = elapsed >= 4 * EPOCH_MS;
                let due = if idle { (*segment).dirty } else { (*segment).old };
                self.purge(state, segment, due);
                (*segment).old = (*segment).dirty;
            }
        }
    }

    /// One more segment with a run of `len` slices; its index.
    #[cold]
    fn grow(&self, state: &mut State, len: usize) -> Option<u32> {
        if !state.directory.make_room(&self.kernel) {
            return None;
        }
        let mut slices = SLICES;
        let segment = loop {
            if let Ok(address) = self.obtain(state, slices * SLICE) {
                break ptr::with_exposed_provenance_mut::<Header>(address);
            }
            // Memory is short: a part of a segment still serves this request.
            slices /= 2;
            if slices < len + 1 || slices < 2 {
                return None;
            }
        };
        let index = state.directory.count();
        // SAFETY: just mapped, so zeroed and ours; a zeroed record is `Kind::Free`.
        unsafe {
            (*segment).owner.store(NOBODY, Ordering::Relaxed);
            (*segment).index = index;
            (*segment).slices = slices as u16;
            (*segment).pool = state.number;
            (*segment).free = low_bits(slices) & !1;
        }
        state.directory.push(segment);
        #[cfg(feature = "hardened")]
        // SAFETY: the segment is the pool's, and nobody has any of its slices yet.
        (state.used += unsafe { super::guard_slices(segment, state.number) });
        self.kernel.label(segment.addr(), slices * SLICE);
        if state.huge_pages {
            self.kernel.prefer_huge_pages(segment.addr(), slices * SLICE);
        }
        fire!("segment_new", segment.addr(), slices * SLICE);
        if let Some(node) = self.node.load(Ordering::Relaxed).checked_sub(1) {
            // Without it the memory is only farther away.
            let _ = self.kernel.bind(segment.addr(), slices * SLICE, node);
        }
        Some(index)
    }

    fn obtain(&self, state: &mut State, len: usize) -> Result<usize, OsError> {
        if state.origin == Origin::Break {
            if let Ok((address, lead)) = os::extend_break(len, SEGMENT) {
                // SAFETY: what lies between the break as it was and the segment is of no use.
                unsafe { self.unmap_lead(address, lead) };
                return Ok(address);
            }
            if len == SEGMENT {
                // Blocked for good: asking again would burn a system call per segment.
                state.origin = Origin::Map;
            }
        }
        let hint = os::next_place(&self.kernel, SEGMENT);
        os::map_aligned(&self.kernel, hint, len, SEGMENT)
    }

    /// What the pool holds.
    pub(crate) fn usage(&self) -> PoolUsage {
        let state = self.state.lock();
        let mapped = state.segments().map(|s| {
            // SAFETY: headers belong to the pool, and its lock is held.
            unsafe { (*s).slices as usize * SLICE }
        });
        PoolUsage {
            mapped: mapped.sum(),
            used: state.used * SLICE,
            dirty: state.dirty_slices * SLICE,
            purged: state.purged,
            lock: self.state.contention(),
        }
    }

    /// Tests the invariants; the first broken one is named.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let state = self.state.lock();
        let (mut dirty, mut used) = (0, 0);
        for segment in state.segments() {
            // SAFETY: headers belong to the pool, and its lock is held.
            let header = unsafe { &*segment };
            if header.dirty & !header.free != 0 || header.old & !header.dirty != 0 {
                return Err("a used slice is marked dirty");
            }
            if header.owner.load(Ordering::Relaxed) != NOBODY {
                return Err("a segment header was overwritten");
            }
            dirty += header.dirty.count_ones() as usize;
            used += header.slices as usize - 1 - header.free.count_ones() as usize;
        }
        if !state.hints.is_sorted() {
            return Err("a hint falls from a length to the next");
        }
        if dirty != state.dirty_slices || used != state.used {
            return Err("the slice counters disagree with the bitmaps");
        }
        Ok(())
    }
}

impl State {
    fn segments(&self) -> impl Iterator<Item = *mut Header> + '_ {
        (0..self.directory.count()).map(|index| self.directory.get(index))
    }

    /// The lowest segment that may have room for `len` slices.
    fn hint(&self, len: usize) -> u32 {
        self.hints.get(len).map_or(0, |&hint| index_of(hint))
    }

    /// No segment below `index` has room for `len` slices, so none has for more.
    fn raise_hint(&mut self, len: usize, index: u32) {
        let index = hint_of(index);
        let hints = self.hints.get_mut(len..).unwrap_or_default();
        if hints.first().is_some_and(|&hint| hint < index) {
            hints.iter_mut().for_each(|hint| *hint = index.max(*hint));
        }
    }

    /// Segment `index` may have room for up to `len` slices.
    fn lower_hints(&mut self, len: usize, index: u32) {
        let index = hint_of(index);
        let hints = self.hints.get_mut(..=len).unwrap_or_default();
        if hints.last().is_some_and(|&hint| hint > index) {
            hints.iter_mut().for_each(|hint| *hint = index.min(*hint));
        }
    }

    fn find(&mut self, len: usize) -> Option<Run> {
        let first = self.hint(len);
        for index in first..self.directory.count() {
            let segment = self.directory.get(index);
            // SAFETY: headers belong to the pool, and its lock is held.
            let (dirty, free) = unsafe { ((*segment).dirty, (*segment).free) };
            let mut starts = run_starts(dirty, len);
            if starts == 0 {
                starts = run_starts(free, len);
            }
            if starts != 0 {
                self.raise_hint(len, index);
                let start = starts.trailing_zeros() as usize;
                // SAFETY: as above; every set bit of `starts` begins a free run.
                return Some(unsafe { self.take(segment, start, len) });
            }
        }
        self.raise_hint(len, self.directory.count());
        None
    }

    /// # Safety
    /// `segment` is one of the pool's, and a free run of `len` begins at its slice `start`.
    unsafe fn take(&mut self, segment: *mut Header, start: usize, len: usize) -> Run {
        // SAFETY: the caller's promise; the records of free slices are the pool's.
        unsafe {
            let header = &mut *segment;
            let bits = low_bits(len) << start;
            super::begin_to_use(header, start, len);
            let dirty = (header.dirty & bits).count_ones() as usize;
            header.free &= !bits;
            header.dirty &= !bits;
            header.old &= !bits;
            self.dirty_slices -= dirty;
            self.used += len;
            self.peak = self.peak.max(self.used);
            Run { head: segment.cast::<Span>().add(start), len: len as u32, zeroed: dirty == 0 }
        }
    }

    /// # Safety
    /// As [`Pool::release_each`], for one run.
    unsafe fn put_back(&mut self, head: *mut Span, len: usize) {
        let segment = super::header_of(slice_of(head));
        // SAFETY: the run is free from here on, so its records are the pool's.
        unsafe {
            let header = &mut *segment;
            let start = head.offset_from(segment.cast::<Span>()) as usize;
            let bits = low_bits(len) << start;
            header.free |= bits;
            header.dirty |= bits;
            self.dirty_slices += len;
            self.used -= len;
            // The whole free run around: only requests up to its length have a new chance here.
            let below = (header.free << (127 - start)).leading_ones() as usize;
            let run = below + (header.free >> start).trailing_ones() as usize - 1;
            let index = header.index;
            self.lower_hints(run, index);
        }
    }
}

#[cfg(test)]
mod tests;
