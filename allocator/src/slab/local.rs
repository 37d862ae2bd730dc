//! The slab spans of one heap: current ones, partly free ones, and how a bin is refilled.
//!
//! # Invariants
//! 1. A span that this heap owns is current or listed, never both. A listed one may have no free
//!    block: it goes into limbo only if it still has none when its turn comes, so that the spans of
//!    a program that frees as much as it allocates never go there and back.
//! 2. `live` of a span counts its carved blocks that are not on its own free list; a current span
//!    counts one more, so that it never looks empty to a free.
//! 3. The current span's free list was moved to the bin when it became empty here.

use core::ptr::null_mut;

use super::remote::{self, LimboQueue};
use super::span::carve;
use super::{Block, CLASSES, SizeClass};
use crate::probe::fire;
use crate::segment::{Kind, Span, SpanList, Supply, slice_of};
use crate::sync::Ordering;
use crate::units::{SKIPPED, SLICE};

/// A listed span is rich, and preferred to carving, when more than 1/RICH of it is free.
const RICH: usize = 8;
/// A listed span is poor, and may be passed over for a fresh one, when less than 1/POOR is free.
const POOR: usize = 16;
/// Passing over poor spans may cost at most one extra span in this many.
const EXTRA: u16 = 16;
/// Spans of fewer blocks may have twice as many extra ones: a refill gives so little.
const FEW: usize = 64;

/// What slabs need from the floors above.
pub(crate) trait SlabSupply: Supply {
    /// A partly free span of `class` from a heap whose thread does not need it; its `owner` is
    /// already this heap. Null if there is none.
    fn foreign_slab(&mut self, class: SizeClass) -> *mut Span;

    /// The queue of a heap that lets it grow: what is in it was freed for a thread that sleeps.
    fn idle_queue(&mut self) -> Option<&'static LimboQueue>;
}

/// The slab spans of one heap.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Slabs {
    pub(super) current: [*mut Span; CLASSES],
    pub(super) partial: [SpanList; CLASSES],
    pub(super) spans: [u16; CLASSES],
    extra: [u16; CLASSES],
}

impl Slabs {
    #[inline]
    pub(super) fn current(&mut self, class: SizeClass) -> &mut *mut Span {
        // SAFETY: a class is below CLASSES.
        unsafe { self.current.get_unchecked_mut(class.index()) }
    }

    #[inline]
    pub(super) fn partial(&mut self, class: SizeClass) -> &mut SpanList {
        // SAFETY: as above.
        unsafe { self.partial.get_unchecked_mut(class.index()) }
    }

    /// The blocks freed in the current span of `class` since this was last asked, as a list; null if
    /// there are none. More than half of all refills end here, so this stands apart from the rest.
    ///
    /// # Safety
    /// The caller's thread owns this heap; its bin for `class` is empty.
    #[inline(always)]
    pub(crate) unsafe fn take_freed(&mut self, class: SizeClass) -> *mut Block {
        // SAFETY: a current span is owned by this heap (invariant 1).
        unsafe {
            let span = *self.current(class);
            if span.is_null() || (*span).free == 0 {
                return null_mut();
            }
            let list = (*span).free as usize as *mut Block;
            if Block::next(list) == list {
                // Freed twice in a row; seen here because here it costs nothing.
                crate::fatal::report("double free", list.addr(), class.size());
            }
            (*span).free = 0;
            (*span).live = u32::from((*span).carved) + 1 - SKIPPED as u32;
            list
        }
    }

    /// A list of free blocks of `class`: the first is to be handed out, the rest goes into the
    /// bin, which is empty. Null when memory is exhausted.
    ///
    /// # Safety
    /// The caller's thread owns this heap; its bin for `class` is empty.
    pub(crate) unsafe fn refill(
        &mut self,
        class: SizeClass,
        queue: &LimboQueue,
        supply: &mut impl SlabSupply,
    ) -> *mut Block {
        // SAFETY: spans that are current or listed are owned by this heap (invariant 1).
        unsafe {
            loop {
                let span = *self.current(class);
                if !span.is_null() {
                    let list = self.take_freed(class);
                    if !list.is_null() {
                        return list;
                    }
                    if (*span).remote.load(Ordering::Relaxed) != 0 {
                        // They stay `live`: the bin gets them at once.
                        remote::collect(span);
                        let list = (*span).free as usize as *mut Block;
                        (*span).free = 0;
                        return list;
                    }
                    if (*span).carved < (*span).capacity {
                        if self.swap_for_richer(class, queue, supply) {
                            continue;
                        }
                        return carve(span, class);
                    }
                    (*span).live -= 1;
                    *self.current(class) = null_mut();
                    self.partial(class).push(span);
                }
                if !self.replace_current(class, queue, supply) {
                    return null_mut();
                }
            }
        }
    }

    /// Before carving more of the current span: takes a listed or foreign span that has room.
    ///
    /// # Safety
    /// As [`Slabs::refill`].
    unsafe fn swap_for_richer(
        &mut self,
        class: SizeClass,
        queue: &LimboQueue,
        supply: &mut impl SlabSupply,
    ) -> bool {
        // SAFETY: as in `refill`.
        unsafe {
            self.collect_queue(queue, supply);
            let mut other = self.first_with_room(class, supply);
            if other.is_null() {
                other = supply.foreign_slab(class);
                if other.is_null() {
                    return false;
                }
                self.count(class);
            } else {
                let free = (*other).carved as usize - SKIPPED - (*other).live as usize;
                if (*other).remote.load(Ordering::Relaxed) == 0
                    && free * RICH <= (*other).carved as usize
                {
                    return false;
                }
                self.partial(class).remove(other);
            }
            let span = *self.current(class);
            (*span).live -= 1;
            if (*span).live == 0 {
                self.release(span, class, supply);
            } else {
                self.partial(class).push(span);
            }
            (*other).live += 1;
            *self.current(class) = other;
            true
        }
    }

    /// Makes some span current; false when memory is exhausted.
    ///
    /// # Safety
    /// As [`Slabs::refill`]; there is no current span.
    unsafe fn replace_current(
        &mut self,
        class: SizeClass,
        queue: &LimboQueue,
        supply: &mut impl SlabSupply,
    ) -> bool {
        // SAFETY: as in `refill`.
        unsafe {
            self.collect_queue(queue, supply);
            let mut span = self.first_with_room(class, supply);
            if span.is_null()
                && let Some(queue) = supply.idle_queue()
            {
                self.collect_queue(queue, supply);
                span = self.first_with_room(class, supply);
            }
            if !span.is_null() && !self.passes_over(class, span) {
                self.partial(class).remove(span);
            } else {
                let listed = span;
                span = if listed.is_null() { supply.foreign_slab(class) } else { null_mut() };
                if !span.is_null() {
                    self.count(class);
                } else if let Some(run) = supply.slices(1, 1, false) {
                    span = run.head;
                    self.begin(span, class, supply.identity());
                } else if !listed.is_null() {
                    span = listed;
                    self.partial(class).remove(span);
                } else {
                    return false;
                }
            }
            (*span).live += 1;
            *self.current(class) = span;
            true
        }
    }

    /// The listed span that waited longest, of those with a free block; null if there is none.
    /// Spans without one that stand before it go into limbo.
    ///
    /// # Safety
    /// As [`Slabs::refill`].
    unsafe fn first_with_room(&mut self, class: SizeClass, supply: &impl SlabSupply) -> *mut Span {
        // SAFETY: listed spans are this heap's; what is in limbo is forgotten.
        unsafe {
            loop {
                let span = self.partial(class).first();
                if span.is_null()
                    || (*span).free != 0
                    || (*span).remote.load(Ordering::Relaxed) != 0
                {
                    return span;
                }
                self.partial(class).remove(span);
                if !remote::enter_limbo(span, supply.identity(), supply.alone()) {
                    // Blocks arrived just now.
                    self.partial(class).push(span);
                }
            }
        }
    }

    /// Whether a listed span is too poor to be worth a refill, and a fresh one affordable.
    ///
    /// # Safety
    /// `span` is listed under `class`.
    unsafe fn passes_over(&mut self, class: SizeClass, span: *mut Span) -> bool {
        // SAFETY: listed spans are this heap's; the class is in range.
        unsafe {
            let free = (*span).carved as usize - SKIPPED - (*span).live as usize;
            let spans = *self.spans.get_unchecked(class.index());
            let extra = self.extra.get_unchecked_mut(class.index());
            if free * POOR >= (*span).capacity as usize
                || (*span).remote.load(Ordering::Relaxed) != 0
                || *extra >= spans / (if class.capacity() < FEW { EXTRA / 2 } else { EXTRA })
            {
                return false;
            }
            *extra += 1;
            true
        }
    }

    /// # Safety
    /// The slice is free and the caller's.
    unsafe fn begin(&mut self, span: *mut Span, class: SizeClass, identity: usize) {
        // SAFETY: the record is the caller's until `owner` says so.
        unsafe {
            (*span).free = 0;
            (*span).live = 0;
            (*span).class = class.index() as u8;
            (*span).back = 0;
            (*span).listed = false;
            (*span).remote.store(0, Ordering::Relaxed);
            (*span).next = null_mut();
            (*span).prev = null_mut();
            Span::set_room(span, SKIPPED as u16, class.capacity() as u16);
            super::span::describe_blocks(span, class);
            Span::begin_use(span, Kind::Slab);
            (*span).owner.store(identity, Ordering::Release);
            fire!("span_new", slice_of(span).addr(), SLICE, class.size());
        }
        self.count(class);
    }

    fn count(&mut self, class: SizeClass) {
        // SAFETY: the class is in range.
        let spans = unsafe { self.spans.get_unchecked_mut(class.index()) };
        *spans = spans.saturating_add(1);
    }

    /// # Safety
    /// This heap owns the span, which is neither current nor listed and holds no live block.
    pub(super) unsafe fn release(
        &mut self,
        span: *mut Span,
        class: SizeClass,
        supply: &mut impl SlabSupply,
    ) {
        // SAFETY: the caller's promise; the class is in range.
        unsafe {
            let spans = self.spans.get_unchecked_mut(class.index());
            *spans = spans.saturating_sub(1);
            let extra = self.extra.get_unchecked_mut(class.index());
            *extra = extra.saturating_sub(1);
            super::span::forget_blocks(span);
            supply.give_back(span, 1);
        }
    }

    /// A block of a listed span was freed and was the last live one.
    ///
    /// # Safety
    /// This heap owns the span, and its `live` has just become 0.
    pub(crate) unsafe fn emptied(&mut self, span: *mut Span, supply: &mut impl SlabSupply) {
        // SAFETY: not current (invariant 2), so listed (invariant 1).
        unsafe {
            let class = SizeClass::from_index((*span).class);
            self.partial(class).remove(span);
            self.release(span, class, supply);
        }
    }

    /// Frees the first block of a span that has just left limbo.
    ///
    /// # Safety
    /// The caller's thread owns this heap, took `span` out of limbo, and has just freed `block` of it.
    pub(crate) unsafe fn free_after_limbo(
        &mut self,
        span: *mut Span,
        block: *mut Block,
        supply: &mut impl SlabSupply,
    ) {
        // SAFETY: the span is this heap's now, neither current nor listed.
        unsafe {
            super::put_back(span, block);
            self.settle(span, supply);
        }
    }

    /// Lists or releases a span that came out of limbo.
    ///
    /// # Safety
    /// This heap owns the span, which is neither current nor listed.
    unsafe fn settle(&mut self, span: *mut Span, supply: &mut impl SlabSupply) {
        // SAFETY: the caller's promise.
        unsafe {
            let class = SizeClass::from_index((*span).class);
            if (*span).live == 0 {
                self.release(span, class, supply);
            } else {
                self.partial(class).push(span);
            }
        }
    }

    /// Takes over every span of a queue, this heap's own or another's.
    ///
    /// # Safety
    /// The caller's thread owns this heap.
    #[inline(always)]
    pub(crate) unsafe fn collect_queue(
        &mut self,
        queue: &LimboQueue,
        supply: &mut impl SlabSupply,
    ) {
        if !queue.is_empty() {
            // SAFETY: the caller's promise.
            unsafe { self.take_over(queue, supply) };
        }
    }

    /// # Safety
    /// As [`Slabs::collect_queue`], whose look before it takes misses what is pushed just now.
    #[inline(never)]
    pub(crate) unsafe fn take_over(&mut self, queue: &LimboQueue, supply: &mut impl SlabSupply) {
        let mut span = queue.take_all();
        while !span.is_null() {
            // SAFETY: whoever takes a queue owns the spans in it.
            unsafe {
                let next = (*span).next;
                (*span).owner.store(supply.identity(), Ordering::Relaxed);
                (*span).live -= remote::collect(span).blocks;
                self.settle(span, supply);
                span = next;
            }
        }
    }

    /// Puts a bin's blocks back on their spans.
    ///
    /// # Safety
    /// The caller's thread owns this heap; `list` was its bin for `class` and is forgotten.
    pub(crate) unsafe fn return_bin(&mut self, class: SizeClass, list: *mut Block) {
        let mut block = list;
        while !block.is_null() {
            // SAFETY: a bin holds blocks of the current span only (invariant 3).
            unsafe {
                let next = Block::next(block);
                let span = crate::segment::record_of(block.cast());
                debug_assert_eq!(span, *self.current(class));
                super::put_back(span, block);
                block = next;
            }
        }
    }
}
