//! All heaps there ever were, and those whose threads have ended.
//!
//! Cost: one lock, taken when a thread begins or ends and when a thread that runs short looks for
//! partly used spans of dead threads; nothing is taken to find a sleeping thread's queue.

use core::ptr::null_mut;

use super::global::GLOBAL;
use super::local::ThreadHeap;
use super::reap::{IDLE_MS, Reach};
use crate::bitmap::{self, Pages};
use crate::lock::Lock;
use crate::os;
use crate::probe::fire;
use crate::segment::Reaped;
use crate::segment::{Span, slice_of};
use crate::slab::{self, LimboQueue};
use crate::sync::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};

/// Parked heaps looked at in one search.
const PARKED_TRIES: usize = 4;
/// Heaps looked at for a long queue in one search.
const QUEUE_TRIES: usize = 4;
/// A queue this long is not being emptied by its thread.
const IDLE_QUEUE: u32 = 8;
/// `thread` of a heap whose thread did not survive a fork, or is not known.
pub(super) const FROZEN: u32 = 0;
/// Bytes mapped for heap records at a time.
const METADATA: usize = 256 << 10;

/// All heaps.
#[derive(Debug)]
pub(crate) struct Registry {
    /// The heap created last; the others follow by `next`.
    all: AtomicPtr<ThreadHeap>,
    /// Number of parked heaps, to look before locking.
    parked: AtomicUsize,
    /// Number of heaps ever created; written under the lock.
    created: AtomicUsize,
    /// The process that created the heaps, or was told of its fork.
    process: AtomicU32,
    state: Lock<State>,
}

#[derive(Debug)]
struct State {
    parked: *mut ThreadHeap,
    /// The parked heap at which the search for a span goes on; null: at the first.
    searched: *mut ThreadHeap,
    /// Where the search for vanished threads goes on.
    looked_at: *mut ThreadHeap,
    /// Unused metadata: next byte and end.
    free: *mut u8,
    left: usize,
}

// SAFETY: parked heaps and unused metadata belong to whoever holds the lock.
unsafe impl Send for State {}

impl Registry {
    pub(super) const fn new() -> Self {
        Registry {
            all: AtomicPtr::new(null_mut()),
            parked: AtomicUsize::new(0),
            created: AtomicUsize::new(0),
            process: AtomicU32::new(0),
            state: Lock::new(State {
                parked: null_mut(),
                searched: null_mut(),
                looked_at: null_mut(),
                free: null_mut(),
                left: 0,
            }),
        }
    }

    /// A heap for the calling thread: a parked one, one whose thread vanished, or a new one. Null
    /// when memory is exhausted.
    pub(super) fn obtain(&self) -> *mut ThreadHeap {
        let mut state = self.state.lock();
        let mut heap = state.parked;
        // SAFETY: parked heaps, and those of vanished threads, belong to the lock's holder; a new
        // one is nobody else's.
        unsafe {
            if !heap.is_null() {
                state.parked = (*heap).next_parked;
                if state.searched == heap {
                    state.searched = state.parked;
                }
                (*heap).slab_queue.set_parked(false);
                self.parked.fetch_sub(1, Ordering::Relaxed);
            } else {
                heap = self.vanished(&mut state);
                if heap.is_null() {
                    heap = self.create(&mut state);
                }
            }
            if !heap.is_null() {
                let thread = self.thread_here();
                (*heap).thread.store(thread, Ordering::Relaxed);
                fire!("heap_obtain", heap.addr(), thread as usize);
            }
        }
        heap
    }

    /// What the calling thread's heap says of its thread. A child of `vfork` runs in its parent's memory as the thread
    /// that waits for it: the heap is that thread's, which says so at its next look around. Where the first heap of all
    /// is obtained in such a child, the parent finds heaps of a process that is not its own parent.
    pub(super) fn thread_here(&self) -> u32 {
        let process = self.process.load(Ordering::Relaxed);
        if process != os::process_id() {
            if process == os::parent_id() {
                return FROZEN;
            }
            self.freeze_others(null_mut());
        }
        os::thread_id()
    }

    /// A heap whose thread ended without telling: its last allocations came after libc's last
    /// round of destructors. Looks at one heap a call.
    fn vanished(&self, state: &mut State) -> *mut ThreadHeap {
        let mut heap = state.looked_at;
        if heap.is_null() {
            heap = self.all.load(Ordering::Relaxed);
        }
        if heap.is_null() {
            return null_mut();
        }
        // SAFETY: heap records are never freed; `thread` changes under this lock only. In a child
        // that was not told of its fork other threads seem to have vanished: their heaps may be in
        // the middle of a change, so nothing is taken there.
        unsafe {
            state.looked_at = (*heap).next;
            let thread = (*heap).thread.load(Ordering::Relaxed);
            let gone = thread != FROZEN
                && !(*heap).slab_queue.is_parked()
                && self.process.load(Ordering::Relaxed) == os::process_id()
                && !os::thread_alive(thread);
            if gone { heap } else { null_mut() }
        }
    }

    /// A new heap.
    fn create(&self, state: &mut State) -> *mut ThreadHeap {
        let size = size_of::<ThreadHeap>();
        if state.left < size {
            let memory = GLOBAL.map_metadata(METADATA);
            if memory.is_null() {
                return null_mut();
            }
            (state.free, state.left) = (memory, METADATA);
        }
        if self.heaps() == 0 {
            self.process.store(os::process_id(), Ordering::Relaxed);
        }
        let heap = state.free.cast::<ThreadHeap>();
        state.free = state.free.wrapping_add(size);
        state.left -= size;
        self.created.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the place is zeroed, ours alone, and never unmapped.
        unsafe {
            ThreadHeap::create(heap);
            (*heap).next = self.all.load(Ordering::Relaxed);
        }
        self.all.store(heap, Ordering::Release);
        heap
    }

    /// Whether no heap was ever created.
    pub(crate) fn is_empty(&self) -> bool {
        self.heaps() == 0
    }

    /// Number of heaps ever created.
    pub(super) fn heaps(&self) -> usize {
        self.created.load(Ordering::Relaxed)
    }

    /// In a forked child: freezes all heaps but `mine`. A thread that is there all the same (the first one,
    /// when another mends) says so at its next look around.
    pub(super) fn freeze_others(&self, mine: *mut ThreadHeap) {
        self.process.store(os::process_id(), Ordering::Relaxed);
        self.for_each(|heap| {
            // SAFETY: heap records are never freed.
            unsafe {
                if heap == mine {
                    (*heap).thread.store(os::thread_id(), Ordering::Relaxed);
                } else if !(*heap).slab_queue.is_parked() {
                    (*heap).thread.store(FROZEN, Ordering::Relaxed);
                }
            }
        });
    }

    /// In a child that was not told of its fork: freezes all heaps but `mine`, and the parked ones
    /// too if one of those was in the middle of a change.
    pub(super) fn mend(&self, mine: *mut ThreadHeap) {
        // SAFETY: heap records are never freed, and who wants a lock meanwhile waits.
        self.for_each(|heap| unsafe { (*heap).mend() });
        self.state.mend(|state| {
            (state.parked, state.searched) = (null_mut(), null_mut());
            self.parked.store(0, Ordering::Relaxed);
            state.looked_at = null_mut();
            (state.free, state.left) = (null_mut(), 0);
            // SAFETY: heap records are never freed; nobody else in the child changes the flag.
            self.for_each(|heap| unsafe { (*heap).slab_queue.set_parked(false) });
        });
        self.freeze_others(mine);
    }

    /// Keeps the heap of a thread that ends for a later one.
    ///
    /// # Safety
    /// The calling thread owned the heap and forgets it.
    pub(super) unsafe fn park(&self, heap: *mut ThreadHeap) {
        let mut state = self.state.lock();
        // SAFETY: the heap is the lock's from here on, and nobody visits it.
        unsafe {
            let _inside = (*heap).enter();
            (*heap).next_parked = state.parked;
            (*heap).slab_queue.set_parked(true);
            state.parked = heap;
            self.parked.fetch_add(1, Ordering::Relaxed);
            // Whatever was queued before the flag was seen is collected now. Not after a look, which
            // could pass the flag's store: then neither side would see the other.
            (*heap).take_queues();
            (*heap).supplies().clear();
            fire!("heap_park", heap.addr(), (*heap).thread.load(Ordering::Relaxed) as usize);
        }
    }

    /// Collects what was freed for a parked heap, whose own thread will not.
    pub(super) fn tend(&self, heap: *mut ThreadHeap) {
        let Some(_state) = self.state.try_lock() else { return };
        // SAFETY: while it is parked, which only this lock changes, the heap is the lock's.
        unsafe {
            if (*heap).slab_queue.is_parked() {
                (*heap).collect_queues();
                (*heap).supplies().clear();
            }
        }
    }

    /// Calls `take` on a few parked heaps until it gives a span; the next search begins where this one ended.
    fn search_parked(&self, take: impl Fn(&mut ThreadHeap) -> *mut Span) -> *mut Span {
        if self.parked.load(Ordering::Relaxed) == 0 {
            return null_mut();
        }
        let mut state = self.state.lock();
        for _ in 0..self.parked.load(Ordering::Relaxed).min(PARKED_TRIES) {
            let heap = if state.searched.is_null() { state.parked } else { state.searched };
            state.searched = heap;
            // SAFETY: parked heaps belong to the lock's holder.
            unsafe {
                (*heap).collect_queues();
                let span = take(&mut *heap);
                if !span.is_null() {
                    fire!("span_adopt", slice_of(span).addr(), heap.addr());
                    return span;
                }
                state.searched = (*heap).next_parked;
            }
        }
        null_mut()
    }

    /// A partly free slab of a dead thread, now owned by `identity`; null if there is none.
    #[inline(never)]
    pub(super) fn take_slab(&self, class: slab::SizeClass, identity: usize) -> *mut Span {
        // SAFETY: parked heaps are nobody's.
        self.search_parked(|heap| unsafe { heap.slabs.give_up(class, identity) })
    }

    /// A bitmap span with free blocks of a dead thread, now owned by `identity`; null if there is
    /// none.
    #[inline(never)]
    pub(super) fn take_bitmap(&self, class: bitmap::SizeClass, identity: usize) -> *mut Span {
        // SAFETY: parked heaps are nobody's.
        self.search_parked(|heap| unsafe { heap.bitmaps.give_up(class, identity) })
    }

    /// A long queue of another heap. `cursor` remembers where to go on looking.
    pub(super) fn idle_queue(
        &self,
        cursor: &mut *mut ThreadHeap,
        identity: usize,
    ) -> Option<&'static LimboQueue> {
        for _ in 0..QUEUE_TRIES {
            if cursor.is_null() {
                *cursor = self.all.load(Ordering::Acquire);
            }
            let heap = *cursor;
            if heap.is_null() {
                return None;
            }
            // SAFETY: heap records are never freed, and `next` never changes once published.
            unsafe {
                *cursor = (*heap).next;
                let queue = &(*heap).slab_queue;
                if heap.addr() != identity && queue.len() >= IDLE_QUEUE && !queue.is_empty() {
                    return Some(queue);
                }
            }
        }
        None
    }

    /// Visits for `mine` heaps whose threads sleep or, with a [`Reach`] of all, do not, and those that have none.
    pub(super) fn visit_idle(
        &self,
        mine: &mut ThreadHeap,
        now: u64,
        reach: Reach,
        reaped: &mut Reaped,
    ) {
        let mut visits = 0;
        let (looks, most) = reach.limits();
        GLOBAL.allow_visits(reach != Reach::Few);
        for _ in 0..looks.min(self.heaps()) {
            if mine.upkeep.cursor.is_null() {
                mine.upkeep.cursor = self.all.load(Ordering::Acquire);
            }
            let heap = mine.upkeep.cursor;
            if heap.is_null() || visits == most {
                return;
            }
            // SAFETY: as in `idle_queue`.
            unsafe {
                mine.upkeep.cursor = (*heap).next;
                if heap == core::ptr::from_mut(mine) {
                    continue;
                }
                if (*heap).slab_queue.is_parked() {
                    visits += 1;
                    self.reap_parked(heap, reach, reaped);
                    continue;
                }
                let calls = (*heap).upkeep.slow_calls.load(Ordering::Relaxed);
                let idle_ms = (*heap).seen.idle_ms(calls, now);
                if (idle_ms >= IDLE_MS || reach.is_of_all())
                    && (*heap).thread.load(Ordering::Relaxed) != FROZEN
                {
                    visits += 1;
                    mine.visit(heap, idle_ms, reach, reaped);
                }
            }
        }
    }

    /// Gives back the empty spans of a parked heap and, with more than the shortest [`Reach`], pages of the others.
    fn reap_parked(&self, heap: *mut ThreadHeap, reach: Reach, reaped: &mut Reaped) {
        let Some(_state) = self.state.try_lock() else { return };
        // SAFETY: as in `tend`.
        unsafe {
            if (*heap).slab_queue.is_parked() {
                (*heap).collect_queues();
                let pages = (*heap).pages(reach.takes_pages());
                (*heap).reap_lists(pages.min(Pages::New), reaped);
                // What its thread allocated from last is in no list.
                (*heap).collect(pages);
                (*heap).supplies().clear();
            }
        }
    }

    /// The kernel's id of the thread that uses `heap`; 0 if it is parked or frozen.
    pub(crate) fn thread_of(&self, heap: *mut ThreadHeap) -> u32 {
        // SAFETY: heap records are never freed; a racing change gives the old or the new thread.
        unsafe {
            if (*heap).slab_queue.is_parked() {
                FROZEN
            } else {
                (*heap).thread.load(Ordering::Relaxed)
            }
        }
    }

    /// Calls `visit` for every heap there is.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(*mut ThreadHeap)) {
        let mut heap = self.all.load(Ordering::Acquire);
        while !heap.is_null() {
            visit(heap);
            // SAFETY: as in `idle_queue`.
            heap = unsafe { (*heap).next };
        }
    }

    /// The heap at `address`; `None` if none lies there.
    pub(super) fn find(&self, address: usize) -> Option<*mut ThreadHeap> {
        let mut found = None;
        self.for_each(|heap| {
            if heap.addr() == address {
                found = Some(heap);
            }
        });
        found
    }

    /// Calls `act` while no heap is created, parked, or taken by a thread, and nobody uses a parked one.
    pub(super) fn hold<R>(&self, act: impl FnOnce() -> R) -> R {
        let _state = self.state.lock();
        act()
    }

    pub(crate) fn contention(&self) -> (usize, usize) {
        self.state.contention()
    }

    /// Whether the calling thread was interrupted while it held the registry.
    pub(crate) fn is_held_by_us(&self) -> bool {
        self.state.is_held_by_us()
    }
}
