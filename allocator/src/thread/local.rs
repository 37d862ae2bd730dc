//! A thread's heap: its slabs and bitmap spans, what it freed for others, a few empty slices; and
//! the slow paths, which run on it.

use core::ptr::null_mut;

use super::empties::Empties;
use super::global::GLOBAL;
use super::reap::{Reach, Reaping, Seen};
use super::registry::FROZEN;
use super::sampled::{Limit, Sampled};
use super::spares::Spares;
use super::supplies::{Node, Supplies};
use super::tls::Tls;
use crate::bitmap::{self, Bitmaps, Left, MaskBatches, Pages};
use crate::lock::{Door, LINEAGE};
use crate::probe::fire;
use crate::sampling;
use crate::segment::{Depth, Kind, Span};
use crate::slab::{Block, LimboQueue, RemoteBatches, Slabs};
use crate::sync::{AtomicU32, Ordering};
use crate::units::set_zero;
use crate::{fatal, huge, slab};

/// Slow calls between two sendings of what was freed for others.
const FLUSH_EVERY: u32 = 16;
/// Slow calls between two looks at the clock.
const LOOK_EVERY: u32 = 4;
/// Milliseconds after which a heap lets go of medium blocks that it holds for classes out of use.
const LET_GO_MS: u64 = 250;
/// Refills from the current span after which one goes the long way, upkeep included.
pub(super) const QUICK_CALLS: u32 = 64;
/// Remote frees that a thread makes one by one before it is given a heap to batch them in.
const FREES_WITHOUT_HEAP: u32 = 64;

/// All that one thread allocates from.
#[derive(Debug)]
#[repr(C, align(128))]
pub(crate) struct ThreadHeap {
    /// First, so that a slab's `owner` is also the address of its queue.
    pub(super) slab_queue: LimboQueue,
    pub(super) bitmap_queue: LimboQueue,
    /// Its thread is inside on every slow path; see `reap`.
    pub(super) door: Door,
    pub(super) slabs: Slabs,
    pub(super) bitmaps: Bitmaps,
    batches: RemoteBatches,
    masks: MaskBatches,
    #[cfg(feature = "hardened")]
    pub(crate) quarantine: super::quarantine::Quarantine,
    pub(super) upkeep: Upkeep,
    /// The next parked heap, and the heap created before this one.
    pub(super) next_parked: *mut ThreadHeap,
    pub(super) next: *mut ThreadHeap,
    /// Kernel id of the thread that uses it.
    pub(super) thread: AtomicU32,
    /// When another thread last saw this heap at work.
    pub(super) seen: Seen,
    pub(super) sampled: Sampled,
}

/// What is not about blocks.
#[derive(Debug)]
pub(super) struct Upkeep {
    pub(super) spares: Spares,
    pub(super) empties: Empties,
    pub(super) node: Node,
    pub(super) slow_calls: AtomicU32,
    /// Calls that wanted a huge object.
    huge_calls: u32,
    /// Refills from the current span that may still go the short way.
    pub(super) quick_calls: u32,
    pub(super) limit: Limit,
    /// When this heap last let go of medium blocks.
    let_go: u64,
    pub(super) reaping: Reaping,
    /// Where the last search for an idle heap's queue ended.
    pub(super) cursor: *mut ThreadHeap,
}

/// The heap's address without tags, from a span's `owner`.
pub(super) fn heap_of(owner: usize) -> *mut ThreadHeap {
    core::ptr::with_exposed_provenance_mut(owner & !7)
}

/// Queues a span whose FULL this thread cleared; tends the heap if its thread is dead.
///
/// # Safety
/// As [`LimboQueue::push`].
unsafe fn queue(span: *mut Span) {
    if span.is_null() {
        return;
    }
    // SAFETY: read after FULL was cleared, `owner` names the heap that let go of the span. Heap
    // records stay mapped for ever.
    unsafe {
        let heap = heap_of((*span).owner.load(Ordering::Relaxed));
        let queue = match (*span).kind {
            Kind::Bitmap => &(*heap).bitmap_queue,
            _ => &(*heap).slab_queue,
        };
        queue.push(span);
        if (*heap).slab_queue.is_parked() {
            GLOBAL.registry.tend(heap);
        }
    }
}

impl ThreadHeap {
    /// Makes zeroed memory a heap.
    ///
    /// # Safety
    /// `place` is zeroed, exclusively the caller's, and stays mapped for ever.
    pub(super) unsafe fn create(place: *mut ThreadHeap) {
        // SAFETY: the caller's promise; all other fields are right when zero.
        unsafe { (*place).bitmaps.prepare() };
        let _: usize = place.expose_provenance();
    }

    pub(super) fn supplies(&mut self) -> Supplies<'_> {
        Supplies::new(core::ptr::from_mut(self).addr(), &mut self.upkeep)
    }

    pub(super) fn split(
        &mut self,
    ) -> (&mut Slabs, &mut Bitmaps, &LimboQueue, &LimboQueue, Supplies<'_>) {
        let identity = core::ptr::from_mut(self).addr();
        (
            &mut self.slabs,
            &mut self.bitmaps,
            &self.slab_queue,
            &self.bitmap_queue,
            Supplies::new(identity, &mut self.upkeep),
        )
    }

    /// Upkeep that each slow call does its share of.
    #[inline(always)]
    fn slow_call(&mut self) {
        if self.upkeep.reaping.is_due() {
            self.reap(Reach::Few);
        }
        let calls = self.upkeep.slow_calls.load(Ordering::Relaxed).wrapping_add(1);
        self.upkeep.slow_calls.store(calls, Ordering::Relaxed);
        if calls.is_multiple_of(LOOK_EVERY) {
            self.look_around(calls);
        }
    }

    #[inline(never)]
    fn look_around(&mut self, calls: u32) {
        if self.thread.load(Ordering::Relaxed) == FROZEN {
            self.thread.store(GLOBAL.registry.thread_here(), Ordering::Relaxed);
        }
        if calls.is_multiple_of(FLUSH_EVERY) {
            self.flush();
        }
        let now = GLOBAL.now();
        if now.wrapping_sub(self.upkeep.let_go) >= LET_GO_MS {
            let before = core::mem::replace(&mut self.upkeep.let_go, now);
            self.let_go(now, before);
        }
        GLOBAL.tick();
    }

    /// Sends what this thread freed for others.
    pub(super) fn flush(&mut self) {
        // SAFETY: the batches name spans whose FULL their sending cleared.
        self.batches.flush(|span| unsafe { queue(span) });
        // SAFETY: as above.
        self.masks.flush(|span| unsafe { queue(span) });
    }

    /// A block of a slab class that was freed in the current span, when the bin is empty; null if
    /// there is none, or if upkeep is due.
    #[inline(always)]
    pub(crate) fn slab_at_hand(&mut self, class: slab::SizeClass, tls: Tls) -> *mut u8 {
        let Some(left) = self.upkeep.quick_calls.checked_sub(1) else { return null_mut() };
        self.upkeep.quick_calls = left;
        // SAFETY: `self` is the calling thread's heap, and the bin is empty.
        unsafe {
            let list = self.slabs.take_freed(class);
            if list.is_null() {
                return null_mut();
            }
            tls.set_bin(class.index(), Block::next(list));
            list.cast()
        }
    }

    /// A block of a slab class, when the bin is empty; null when memory is exhausted.
    pub(crate) fn allocate_slab(&mut self, class: slab::SizeClass, tls: Tls) -> *mut u8 {
        let _inside = self.enter();
        self.slow_call();
        self.upkeep.quick_calls = if sampling::is_on() { 0 } else { QUICK_CALLS };
        fire!("refill", class.size(), core::ptr::from_mut(self).addr());
        let (slabs, _, queue, _, mut supply) = self.split();
        // SAFETY: `self` is the calling thread's heap, and the bin is empty.
        unsafe {
            let list = slabs.refill(class, queue, &mut supply);
            if list.is_null() {
                return null_mut();
            }
            tls.set_bin(class.index(), Block::next(list));
            list.cast()
        }
    }

    /// The size up to which [`ThreadHeap::bitmap_at_hand`] may be asked.
    #[inline(always)]
    pub(crate) fn quick_limit(&self) -> usize {
        self.upkeep.limit.get()
    }

    /// A block of a bitmap class that is stashed or free in the current span; null if there is none.
    #[inline(always)]
    pub(crate) fn bitmap_at_hand(&mut self, class: bitmap::SizeClass) -> *mut u8 {
        let Some(_inside) = self.door.enter_if_free() else { return null_mut() };
        // SAFETY: `self` is the calling thread's heap.
        unsafe { self.bitmaps.pop(class) }
    }

    /// A block of a bitmap class; null when memory is exhausted.
    pub(crate) fn allocate_bitmap(&mut self, class: bitmap::SizeClass) -> *mut u8 {
        let block = self.bitmap_at_hand(class);
        if block.is_null() { self.refill_bitmap(class) } else { block }
    }

    /// As `allocate_bitmap`, with the first `size` bytes zero.
    pub(crate) fn allocate_zeroed_bitmap(
        &mut self,
        class: bitmap::SizeClass,
        size: usize,
    ) -> *mut u8 {
        let _inside = self.enter();
        // SAFETY: `self` is the calling thread's heap, and nobody else has the new block.
        unsafe {
            let mut zero = self.bitmaps.next_is_zero(class);
            let mut block = self.bitmaps.pop(class);
            if block.is_null() {
                self.slow_call();
                let (_, bitmaps, _, queue, mut supply) = self.split();
                zero = bitmaps.refill(class, queue, &mut supply) && bitmaps.next_is_zero(class);
                block = bitmaps.pop(class);
            }
            if !zero && !block.is_null() {
                set_zero(block, size);
            }
            block
        }
    }

    #[cold]
    #[inline(never)]
    fn refill_bitmap(&mut self, class: bitmap::SizeClass) -> *mut u8 {
        let _inside = self.enter();
        self.slow_call();
        self.upkeep.limit.renew(bitmap::MAX_BITMAP);
        let (_, bitmaps, _, queue, mut supply) = self.split();
        // SAFETY: `self` is the calling thread's heap.
        unsafe {
            if bitmaps.refill(class, queue, &mut supply) { bitmaps.pop(class) } else { null_mut() }
        }
    }

    /// Frees a block of one of this heap's bitmap spans.
    ///
    /// # Safety
    /// `record` is the block's, and its owner is this heap.
    #[inline(always)]
    pub(crate) unsafe fn free_bitmap(&mut self, record: *mut Span, block: *mut u8) {
        // SAFETY: the caller's promise.
        unsafe {
            let left = {
                let Some(_inside) = self.door.enter_if_free() else {
                    return self.finish_free(Left::Span, record, block);
                };
                self.bitmaps.push_at_hand(record, block)
            };
            if left != Left::Nothing {
                self.finish_free(left, record, block);
            }
        }
    }

    /// Does what is left to do of [`ThreadHeap::free_bitmap`]. A visitor may have come meanwhile: nobody else
    /// has the block, so it can go back to its span in any case.
    ///
    /// # Safety
    /// As there.
    #[cold]
    #[inline(never)]
    unsafe fn finish_free(&mut self, left: Left, record: *mut Span, block: *mut u8) {
        let _inside = self.enter();
        let (_, bitmaps, _, _, mut supply) = self.split();
        // SAFETY: the caller's promise.
        unsafe { bitmaps.finish_push(left, record, block, &mut supply) }
    }

    /// A listed slab has no live block any more.
    ///
    /// # Safety
    /// As [`Slabs::emptied`].
    #[cold]
    #[inline(never)]
    pub(crate) unsafe fn slab_emptied(&mut self, span: *mut Span) {
        let _inside = self.enter();
        let (slabs, _, _, _, mut supply) = self.split();
        // SAFETY: the caller's promise.
        unsafe { slabs.emptied(span, &mut supply) }
    }

    /// Frees a slab block that the fast path could not: of a span in limbo, or another's.
    ///
    /// # Safety
    /// `block` is a live block of the slab `span`, which this heap does not own.
    unsafe fn free_slab(&mut self, span: *mut Span, block: *mut u8) {
        // SAFETY: the caller's promise.
        unsafe {
            let identity = core::ptr::from_mut(self).addr();
            if slab::leave_limbo(span, identity, GLOBAL.alone()) {
                let _inside = self.enter();
                let (slabs, _, _, _, mut supply) = self.split();
                return slabs.free_after_limbo(span, block.cast(), &mut supply);
            }
            queue(self.batches.add(span, block));
        }
    }

    /// Frees a block of another heap's bitmap span.
    ///
    /// # Safety
    /// `block` is a live block, and `record` its slice's.
    unsafe fn free_foreign_bitmap(&mut self, record: *mut Span, block: *mut u8) {
        // SAFETY: the caller's promise.
        unsafe {
            let (span, bit) = bitmap::locate(record, block);
            queue(self.masks.add(span, bit));
        }
    }

    /// Puts every block this thread holds back on its span, and gives back the empty spans, and of bitmap spans in
    /// use the pages that `pages` says.
    pub(crate) fn rest(&mut self, pages: Pages, tls: Tls) {
        let _inside = self.enter();
        #[cfg(feature = "hardened")]
        self.empty_quarantine();
        self.flush();
        // SAFETY: `self` is the calling thread's heap.
        unsafe {
            for class in slab::SizeClass::all() {
                let list = tls.take_bin(class.index());
                self.slabs.return_bin(class, list);
                let rest = self.take_rest(class);
                self.slabs.return_bin(class, rest);
            }
            self.collect(pages);
        }
        self.supplies().clear();
    }

    /// Frees what waits in the quarantine, after a look at it, as another thread would: that works for any span.
    #[cfg(feature = "hardened")]
    fn empty_quarantine(&mut self) {
        let heap = core::ptr::from_mut(self);
        // SAFETY: `self` is the calling thread's heap; what waits was freed and belongs to no one.
        unsafe {
            (*heap).quarantine.empty(|block| {
                free_elsewhere(block, crate::segment::record_of(block), heap);
            });
        }
    }

    /// Collects what others freed and gives back empty spans, and of bitmap spans in use the pages that `pages`
    /// says.
    ///
    /// # Safety
    /// The caller owns this heap, whose bins are empty.
    pub(super) unsafe fn collect(&mut self, pages: Pages) {
        let (slabs, bitmaps, slab_queue, bitmap_queue, mut supply) = self.split();
        // SAFETY: the caller's promise.
        unsafe {
            bitmaps.sweep(bitmap_queue, pages, &mut supply);
            slabs.sweep(slab_queue, &mut supply);
        }
    }

    /// The share of upkeep of a call that wants a huge object, which the other slow calls of its program may do none
    /// of, once in so many; gives up what is kept for other requests before that takes memory.
    #[inline]
    pub(crate) fn make_room(&mut self) {
        self.upkeep.huge_calls = self.upkeep.huge_calls.wrapping_add(1);
        let due = self.upkeep.huge_calls.is_multiple_of(FLUSH_EVERY);
        if !due && self.upkeep.empties.is_empty() {
            return;
        }
        let _inside = self.enter();
        if due {
            // The next one of slow calls that flushes.
            let calls = self.upkeep.slow_calls.load(Ordering::Relaxed);
            self.upkeep.slow_calls.store(calls | (FLUSH_EVERY - 1), Ordering::Relaxed);
            self.slow_call();
        }
        self.supplies().give_up_empties();
    }

    /// Tests the invariants of the spans in this heap's lists; the first broken one is named.
    ///
    /// # Safety
    /// The caller owns this heap, or tests its [`Depth::Records`] and is visiting.
    pub(super) unsafe fn check(&self, depth: Depth) -> Result<(), (&'static str, usize)> {
        let identity = core::ptr::from_ref(self).addr();
        // SAFETY: the caller's promise.
        unsafe {
            self.slabs.check(identity, depth)?;
            self.upkeep.empties.each().try_for_each(|span| Bitmaps::check_empty(span, identity))?;
            self.bitmaps.check(identity, depth)
        }
    }
}

/// Frees what the fast path does not: blocks in limbo, of other threads, and huge objects.
///
/// # Safety
/// `block` is live, `record` is its slice's, and the calling thread's heap does not own it.
#[inline(never)]
pub(crate) unsafe fn free_elsewhere(block: *mut u8, record: *mut Span, heap: *mut ThreadHeap) {
    // SAFETY: the caller's promise; a non-null heap is the calling thread's.
    unsafe {
        match (*record).kind {
            Kind::Slab if !heap.is_null() => (*heap).free_slab(record, block),
            Kind::Bitmap if !heap.is_null() => (*heap).free_foreign_bitmap(record, block),
            Kind::Slab | Kind::Bitmap => free_without_heap(block, record),
            Kind::Huge => {
                sampling::forget(block.addr());
                GLOBAL.free_huge(huge::huge_record(block));
            }
            Kind::Free => fatal::report("invalid or double free", block.addr(), 0),
        }
    }
}

/// A thread that only frees sends one by one at first; then it gets a heap to batch in.
///
/// # Safety
/// As [`free_elsewhere`].
#[cold]
unsafe fn free_without_heap(block: *mut u8, record: *mut Span) {
    // No lock is taken here, but while those of a child are mended so are the heaps that have the block.
    LINEAGE.look();
    let tls = Tls::here();
    // SAFETY: the caller's promise.
    unsafe {
        if tls.count_free() >= FREES_WITHOUT_HEAP {
            let heap = super::lifecycle::attach(tls);
            if !heap.is_null() {
                return free_elsewhere(block, record, heap);
            }
        }
        if (*record).kind == Kind::Slab {
            queue(slab::send_one(record, block));
        } else {
            let (span, bit) = bitmap::locate(record, block);
            queue(bitmap::send(span, bit));
        }
    }
}
