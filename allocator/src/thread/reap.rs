//! Taking spans back of which others freed the last live blocks: before a heap takes more memory, and in time.
//!
//! What one thread frees for another waits until that thread's slow paths come by. A thread that sleeps has
//! none: the main thread of a server that set everything up, a worker without work, a thread that is
//! about to end but does not get the processor. A thread that has ended left a heap that nobody uses. All that
//! was ever freed for them would stay, and the threads that are at work would take fresh memory instead. So a
//! heap that took slices without pages first looks through its own lists, and then visits a few heaps whose
//! threads ended or made no slow call lately; a heap at work does so from time to time anyway, and all heaps are
//! visited after a second without a look, by the purging thread, when a program asks for a trim, and when memory is
//! exhausted.
//!
//! A thread is inside its heap's door (see `lock::door`) on its slow paths and while it touches its bitmap spans:
//! a visitor does there what their thread would do. The fast paths of slabs know no visitors. So of those a
//! visitor takes a span only if none of its blocks is live: whoever frees a block holds a live one, so its thread
//! cannot be at such a span. Where processors reorder stores it takes none of an owner who may be at work.
//!
//! A heap at work gives back the pages of blocks from 32 KiB on that were free among live ones at two looks, a second
//! apart. After an idle second a visitor also takes what a thread keeps for its next requests: the stash, the
//! spans that it allocates from, and the pages of free blocks in spans that are partly live. Slabs keep theirs.
//!
//! # Cost
//! On the fast paths of bitmap spans two stores, a load and a branch. A look: a line of cache per listed span,
//! and a system call of half a microsecond per visit. There is one for 64 KiB of fresh memory at least, whose
//! page faults cost more, and seldomer the more spans there are and the more looks were in vain; without fresh
//! memory every quarter of a second, or every second while it is in vain. A process of one thread never looks.
//! A thread that wakes while its heap is visited waits: for as many system calls, at worst, as there are runs of
//! free blocks in its spans, once after each idle second.
//!
//! larson, whose main thread sleeps while others free what it made, peaks at 0.81, 0.75 and 0.79 of the resident
//! memory it took without this, on two, four and eight threads, in the same time (the public program, `larson 1
//! 8 1000 5000 100 4141 THREADS`, medians of 5 rounds, both builds in one run; a thread slept after 20 ms there).
//! After 10 ms it peaks at 0.98 of that on two threads and 0.94 on eight: 20 ms come too late in one run of five.
//! After 2 ms xmalloc on eight threads, which wait for the processor, takes 1.15 times as long.

use super::global::GLOBAL;
use super::local::ThreadHeap;
use super::tls::Tls;
use crate::bitmap::{self, Pages};
use crate::lock::Inside;
use crate::os;
use crate::segment::{Kind, Reaped};
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// Slices without pages after which a heap first looks.
const FRESH: u32 = 2;
/// Spans looked at last time for which it waits one slice longer.
const LOOKED_PER_FRESH: u32 = 128;
/// Of the time in milliseconds: bits that tell it within a second, about, after which free blocks among live ones are
/// looked at for pages to give back.
const PAGES_SHIFT: u32 = 10;
/// Times that looking in vain may double the wait.
const DOUBLINGS: u32 = 5;
/// Heaps visited in one look, and heaps looked at for that.
const VISITS: usize = 2;
const LOOKS: usize = 8;
/// Periods of upkeep after which looks in vain are repeated.
const PERIODS: u32 = 4;
/// Milliseconds without a slow call after which a thread is taken to sleep, and after which to sleep on.
pub(super) const IDLE_MS: u32 = 10;
const LONG_IDLE_MS: u32 = 1000;
/// Milliseconds by which the time that a looker read may be behind that of another; what seems to be more is a sleep of
/// weeks, for which the bits do not suffice.
const LATE_MS: u32 = 1 << 20;

/// What others saw of a heap. Zeroed memory is a right one.
#[derive(Debug)]
pub(super) struct Seen {
    /// Its number of slow calls when somebody last looked, and the time from which on it is that.
    calls: AtomicU64,
    /// That number, plus one, when all its free pages last went back.
    purged: AtomicU32,
}

impl Seen {
    /// For how many milliseconds at least the number has been `calls`. Several lookers may be wrong about each
    /// other's times: a hint. None for who read the clock before another who was here.
    pub(super) fn idle_ms(&self, calls: u32, now_ms: u64) -> u32 {
        let seen = self.calls.load(Ordering::Relaxed);
        let (since, now) = (seen as u32, now_ms as u32);
        if seen >> 32 != u64::from(calls) {
            self.calls.store(u64::from(calls) << 32 | u64::from(now), Ordering::Relaxed);
            return 0;
        }
        if since.wrapping_sub(now) < LATE_MS { 0 } else { now.wrapping_sub(since) }
    }

    /// The pages to give back now that the number is `calls`. A thread that has made no slow call since then
    /// has freed a few blocks more at most.
    fn pages(&self, calls: u32) -> Pages {
        let before = self.purged.swap(calls.wrapping_add(1), Ordering::Relaxed);
        if before == calls.wrapping_add(1) { Pages::New } else { Pages::All }
    }
}

/// How many heaps a look takes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// A few that are idle; others come next time.
    Few,
    /// All that are idle.
    Idle,
    /// All there are, for spans that are empty: pages stay.
    Empty,
    /// All there are.
    All,
}

impl Reach {
    /// Heaps looked at, and visited, at most.
    pub(super) fn limits(self) -> (usize, usize) {
        if self == Reach::Few { (LOOKS, VISITS) } else { (usize::MAX, usize::MAX) }
    }

    /// Whether heaps are visited whose threads are at work.
    pub(super) fn is_of_all(self) -> bool {
        matches!(self, Reach::Empty | Reach::All)
    }

    /// Whether pages of spans in use go back, too.
    pub(super) fn takes_pages(self) -> bool {
        matches!(self, Reach::Idle | Reach::All)
    }
}

/// When a heap is to look again. Zeroed memory is a right one.
#[derive(Debug)]
pub(super) struct Reaping {
    /// Slices taken that held no pages, since the last look.
    fresh: u32,
    /// Spans seen in the last look.
    looked: u32,
    /// Looks in vain.
    vain: u32,
    /// Periods of upkeep without a look.
    periods: u32,
}

impl Reaping {
    /// Counts slices without pages.
    #[inline]
    pub(super) fn count(&mut self, slices: usize) {
        self.fresh += slices as u32;
    }

    #[inline(always)]
    pub(super) fn is_due(&self) -> bool {
        self.fresh >= FRESH && self.fresh >= (FRESH + self.looked / LOOKED_PER_FRESH) << self.vain
    }

    /// Counts a period of upkeep; whether it is time for a look even without fresh memory.
    fn is_time(&mut self) -> bool {
        self.periods += 1;
        self.periods > self.vain.min(PERIODS - 1)
    }

    fn learn(&mut self, reaped: Reaped) {
        let vain = if reaped.taken == 0 { (self.vain + 1).min(DOUBLINGS) } else { 0 };
        *self = Reaping { fresh: 0, looked: reaped.looked, vain, periods: 0 };
    }
}

impl ThreadHeap {
    /// The calling thread's heap is being changed: no other thread looks at it meanwhile.
    #[inline(always)]
    pub(super) fn enter(&self) -> Inside<'static> {
        // SAFETY: heap records are never freed.
        unsafe { (*core::ptr::from_ref(&self.door)).enter() }
    }

    /// What time makes due: lets go of medium blocks held for classes out of use, and once a second of pages that were
    /// free for one, and has a look around. The last time was `before`.
    pub(super) fn let_go(&mut self, now: u64, before: u64) {
        let idle = GLOBAL.was_idle(now);
        let (_, bitmaps, _, queue, mut supply) = self.split();
        // SAFETY: `self` is the calling thread's heap.
        unsafe {
            if idle {
                // Nobody used lately what is free now.
                bitmaps.sweep(queue, Pages::All, &mut supply);
            } else {
                bitmaps.let_go(bitmap::SizeClass::SMALLEST, &mut supply);
                if now >> PAGES_SHIFT != before >> PAGES_SHIFT {
                    bitmaps.let_go_of_pages(&supply);
                }
            }
            supply.give_up_empties();
        }
        let due = self.upkeep.reaping.is_time();
        if GLOBAL.alone() {
            return;
        }
        if idle {
            self.reap(Reach::All);
            GLOBAL.purge_all();
        } else if due {
            self.reap(Reach::Few);
        }
    }

    /// Gives back the spans of this heap, and of heaps whose threads sleep or have ended, that hold no live
    /// block since others freed the last ones.
    #[cold]
    #[inline(never)]
    pub(super) fn reap(&mut self, reach: Reach) {
        self.flush();
        let mut reaped = Reaped::default();
        // SAFETY: `self` is the calling thread's heap, and it is inside.
        unsafe {
            self.collect_queues();
            self.reap_lists(Pages::Stay, &mut reaped);
        }
        GLOBAL.registry.visit_idle(self, GLOBAL.now(), reach, &mut reaped);
        self.upkeep.reaping.learn(reaped);
    }

    /// The purging thread's look: takes from all heaps that are idle, and keeps nothing.
    pub(super) fn purge_idle(&mut self, tls: Tls) {
        {
            let _inside = self.enter();
            self.reap(Reach::Idle);
        }
        self.rest(Pages::Stay, tls);
    }

    /// Memory is exhausted: as [`ThreadHeap::rest_everywhere`], but pages stay, since what is short is address space.
    /// Whether a slice came.
    pub(crate) fn collect_everywhere(&mut self, tls: Tls) -> bool {
        if GLOBAL.alone() {
            return false;
        }
        let before = GLOBAL.slice_bytes();
        {
            let _inside = self.enter();
            self.reap(Reach::Empty);
        }
        self.rest(Pages::All, tls);
        GLOBAL.slice_bytes() < before
    }

    /// Gives back all that is empty, of this heap, which keeps nothing for its next requests, and of all
    /// others.
    pub(crate) fn rest_everywhere(&mut self, tls: Tls) {
        if !GLOBAL.alone() {
            let _inside = self.enter();
            self.reap(Reach::All);
        }
        self.rest(Pages::All, tls);
    }

    /// Gives back the spans of this heap that hold no live block since others freed the last ones, and of other
    /// bitmap spans the pages that `pages` says.
    ///
    /// # Safety
    /// The caller owns this heap.
    #[inline(never)]
    pub(super) unsafe fn reap_lists(&mut self, pages: Pages, reaped: &mut Reaped) {
        let (slabs, bitmaps, _, queue, mut supply) = self.split();
        // SAFETY: the caller's promise.
        unsafe {
            bitmaps.reap(queue, pages, &mut supply, reaped);
            slabs.reap(&mut supply, reaped);
        }
    }

    /// Takes what it can from another heap: slabs in its queue for this heap, then, visiting, spans without
    /// a live block for everybody, and what is empty there; of a heap whose thread has been `idle_ms` long without
    /// a slow call, or with more than the shortest [`Reach`], what it keeps for its next requests too. Not from a
    /// heap without a thread: the registry's lock keeps those.
    ///
    /// # Safety
    /// `heap` is another heap; the caller's thread owns this one and is inside.
    pub(super) unsafe fn visit(
        &mut self,
        heap: *mut ThreadHeap,
        idle_ms: u32,
        reach: Reach,
        reaped: &mut Reaped,
    ) {
        // SAFETY: heap records are never freed; anybody may take a queue of slabs (see `slab::remote`); what
        // the door protects is the visitor's while it is inside.
        unsafe {
            let (slabs, _, _, _, mut supply) = self.split();
            slabs.collect_queue(&(*heap).slab_queue, &mut supply);
            let Some(_visit) = (*heap).door.visit(os::barrier_everywhere) else { return };
            if !(*heap).slab_queue.is_parked() {
                let pages = (*heap).pages(reach.takes_pages() || idle_ms >= LONG_IDLE_MS);
                let (slabs, bitmaps, _, queue, mut supply) = (*heap).split();
                bitmaps.reap(queue, pages.min(Pages::New), &mut supply, reaped);
                if pages != Pages::Stay {
                    bitmaps.sweep(queue, pages, &mut supply);
                }
                // Other processors may show a visitor that a block is free before they show what its thread
                // wrote into it.
                if cfg!(target_arch = "x86_64") {
                    slabs.reap(&mut supply, reaped);
                }
                (*heap).let_go_of_empty();
            }
        }
    }

    /// The pages of free blocks that others give back now, if the heap's thread `sleeps`.
    pub(super) fn pages(&self, sleeps: bool) -> Pages {
        if !sleeps {
            return Pages::Stay;
        }
        self.seen.pages(self.upkeep.slow_calls.load(Ordering::Relaxed))
    }

    /// Takes over what is queued for this heap.
    ///
    /// # Safety
    /// The caller owns this heap.
    pub(super) unsafe fn collect_queues(&mut self) {
        let (slabs, bitmaps, slab_queue, bitmap_queue, mut supply) = self.split();
        // SAFETY: the caller's promise.
        unsafe {
            bitmaps.collect_queue(bitmap_queue, &mut supply);
            slabs.collect_queue(slab_queue, &mut supply);
        }
    }

    /// As [`ThreadHeap::collect_queues`], without a look first whether anything is queued.
    ///
    /// # Safety
    /// The caller owns this heap.
    pub(super) unsafe fn take_queues(&mut self) {
        let (slabs, bitmaps, slab_queue, bitmap_queue, mut supply) = self.split();
        // SAFETY: the caller's promise.
        unsafe {
            bitmaps.take_over(bitmap_queue, &mut supply);
            slabs.take_over(slab_queue, &mut supply);
        }
    }

    /// Gives back the empty spans and slices that are kept for the next requests and in no list.
    ///
    /// # Safety
    /// The caller owns this heap or is inside its door.
    pub(super) unsafe fn let_go_of_empty(&mut self) {
        let (_, bitmaps, _, _, mut supply) = self.split();
        // SAFETY: the caller's promise.
        unsafe { bitmaps.dismantle_retired(bitmap::SizeClass::SMALLEST, &mut supply) };
        supply.clear();
    }

    /// In a child that was not told of its fork: makes the heap whole if a visitor was changing it.
    ///
    /// # Safety
    /// Who wants a lock in the child waits, and the pools were mended.
    pub(super) unsafe fn mend(&mut self) {
        let owner = core::ptr::from_mut(self).addr() | bitmap::OWNED;
        let Self { door, slabs, bitmaps, bitmap_queue, upkeep, .. } = self;
        // SAFETY: the caller's promise; a span belongs to the heap that its first record names.
        door.mend(|| unsafe {
            slabs.mend();
            upkeep.spares.forget();
            upkeep.empties.forget();
            bitmaps.forget_lists();
            bitmap_queue.take_all();
            for pool in GLOBAL.used_pools() {
                pool.for_each_span_to_mend(|span| {
                    // Of a span that the visitor was giving back the first record says so first.
                    let ours = (*span).owner.load(Ordering::Relaxed) == owner;
                    if ours && (*span).kind == Kind::Bitmap && (*span).back == 0 {
                        bitmaps.list_again(span);
                    }
                });
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heap_is_idle_since_somebody_first_saw_its_calls_and_not_before_for_whoever_comes_late() {
        let seen = Seen { calls: AtomicU64::new(0), purged: AtomicU32::new(0) };
        let began = u64::from(u32::MAX) - 5;
        assert_eq!(seen.idle_ms(7, began), 0);
        assert_eq!(seen.idle_ms(7, began + 20), 20, "across the end of 32 bits");
        assert_eq!(seen.idle_ms(7, began - 1), 0, "a time that was read before somebody else's");
        assert_eq!(seen.idle_ms(7, began - 1000), 0);
        assert_eq!(seen.idle_ms(7, began + 20), 20);
        let month = 30 * 24 * 3600 * 1000;
        assert_eq!(seen.idle_ms(7, began + u64::from(month)), month);
        assert_eq!(seen.idle_ms(8, began + 30), 0, "a call was made");
        assert_eq!(seen.idle_ms(8, began + 41), 11);
    }
}
