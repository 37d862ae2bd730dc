//! Where a heap's next span of a class comes from, how a span begins and how it ends.

use core::ptr::null_mut;

use super::local::Bitmaps;
use super::protocol::{self, FULL};
use super::retired::Retired;
use super::span::{OWNED, for_each_record, free_before, no_span, zero_mask};
use super::{KNOWS_ZERO, SizeClass};
use crate::probe::fire;
use crate::segment::{
    Kind, NOBODY, Run, Span, Supply, clear_trailers, prepare_blocks, slice_of, unguard,
};
use crate::slab::LimboQueue;
use crate::sync::Ordering;
use crate::units::SLICE;

/// What bitmap spans need from the floors above.
pub(crate) trait BitmapSupply: Supply {
    /// A span of `class` with free blocks from a heap whose thread has ended; its `owner` is already
    /// this heap. Null if there is none.
    fn foreign_bitmap(&mut self, class: SizeClass) -> *mut Span;

    /// A span of `class` that [`Supply::keep`] kept, which is kept no longer; null if there is none.
    fn kept_bitmap(&mut self, _class: SizeClass) -> *mut Span {
        null_mut()
    }
}

impl Bitmaps {
    /// An empty span of `class` that is still laid out; null if there is none.
    fn take_empty(&mut self, class: SizeClass, supply: &mut impl BitmapSupply) -> *mut Span {
        let mut span = null_mut();
        if Retired::keeps(class) {
            span = self.retired.take(class);
        }
        if span.is_null() {
            span = supply.kept_bitmap(class);
        }
        if !span.is_null() {
            // SAFETY: the class is in range.
            let spans = unsafe { self.spans.get_unchecked_mut(class.index()) };
            *spans = spans.saturating_add(1);
        }
        span
    }

    /// # Safety
    /// The span is nobody's any more and holds no live block.
    #[cfg_attr(not(feature = "hardened"), inline(never))]
    pub(crate) unsafe fn dismantle(span: *mut Span, supply: &mut impl Supply) {
        // SAFETY: the caller's promise.
        unsafe {
            let class = SizeClass::from_index((*span).class);
            clear_trailers(slice_of(span), class.size(), 64 - (*span).full.leading_zeros());
            for_each_record(span, |record, _| {
                (*record).owner.store(NOBODY, Ordering::Relaxed);
                Span::end_use(record);
            });
            let slices = (*span).live as usize;
            let lost = !unguard(span, class.tail() * slices);
            supply.give_back(span, slices - usize::from(lost));
        }
    }

    /// After [`Bitmaps::pop`] had no block: makes a span with free blocks current. False when
    /// memory is exhausted.
    ///
    /// # Safety
    /// The caller's thread owns this heap.
    pub(crate) unsafe fn refill(
        &mut self,
        class: SizeClass,
        queue: &LimboQueue,
        supply: &mut impl BitmapSupply,
    ) -> bool {
        fire!("refill", class.size(), supply.identity());
        // SAFETY: current and listed spans are this heap's; the class is in range.
        unsafe {
            loop {
                let span = *self.current.get_unchecked(class.index());
                if span != no_span() {
                    if (*span).free == 0 && (*span).remote.load(Ordering::Relaxed) != 0 {
                        (*span).free = protocol::take(&(*span).remote);
                    }
                    if (*span).free != 0 {
                        return true;
                    }
                    if !protocol::mark_full(&(*span).remote, supply.alone()) {
                        continue;
                    }
                    *self.current.get_unchecked_mut(class.index()) = no_span();
                }
                self.collect_queue(queue, supply);
                let mut span = self.partial.get_unchecked(class.index()).first();
                if !span.is_null() {
                    self.unlist(span);
                } else {
                    span = self.take_empty(class, supply);
                }
                if span.is_null() {
                    span = supply.foreign_bitmap(class);
                    if !span.is_null() {
                        self.adopt(span);
                    } else {
                        span = self.begin(class, supply);
                        if span.is_null() {
                            return false;
                        }
                    }
                }
                *self.current.get_unchecked_mut(class.index()) = span;
            }
        }
    }

    /// A new span of this heap's; null when memory is exhausted.
    ///
    /// # Safety
    /// The caller's thread owns this heap.
    unsafe fn begin(&mut self, class: SizeClass, supply: &mut impl Supply) -> *mut Span {
        // SAFETY: the run is ours; the class is in range.
        unsafe {
            let spans = *self.spans.get_unchecked(class.index());
            if spans == 0 && class.knows_zero() {
                self.let_go(SizeClass::of(KNOWS_ZERO), supply);
            }
            // When memory is short one block is better than none.
            let (most, least, tail) =
                (class.span_slices(spans), class.least_slices(), class.tail());
            let run = supply.slices(most + tail, least + tail, class.is_large());
            let Some(mut run) = run else { return null_mut() };
            if (run.len as usize) < most + tail {
                Self::shorten(&mut run, class, supply);
            }
            let (span, slices) = (run.head, run.len as usize);
            let (blocks, full) = (class.blocks(slices - class.tail()), class.mask(slices));
            prepare_blocks(&run, class.size(), blocks, class.tail() * slices);
            (*span).free = full;
            (*span).full = full;
            (*span).class = class.index() as u8;
            (*span).listed = false;
            (*span).live = slices as u32;
            (*span).remote.store(0, Ordering::Relaxed);
            let owner = supply.identity() | OWNED;
            for_each_record(span, |record, back| {
                (*record).class = class.index() as u8;
                (*record).back = back;
                (*record).inverse = class.inverse();
                (*record).owner.store(owner, Ordering::Relaxed);
                Span::begin_use(record, Kind::Bitmap);
            });
            if class.knows_zero() {
                *zero_mask(span) = if run.zeroed { full } else { 0 };
                *free_before(span) = 0;
            }
            *self.spans.get_unchecked_mut(class.index()) = spans.saturating_add(1);
            self.used |= 1 << class.index();
            fire!("span_new", slice_of(span).addr(), slices * SLICE, class.size());
            span
        }
    }

    /// Gives back the slices of a run that no block of `class` reaches into: of a run of any length, as there
    /// are where memory is short, they may be many.
    ///
    /// # Safety
    /// The run is the caller's, and long enough for a span of `class`.
    #[cold]
    unsafe fn shorten(run: &mut Run, class: SizeClass, supply: &mut impl Supply) {
        let (slices, tail) = (run.len as usize, class.tail());
        let used = (class.blocks(slices - tail) * class.size()).div_ceil(SLICE);
        let kept = used.max(class.least_slices()) + tail;
        if kept < slices {
            run.len = kept as u32;
            // SAFETY: the caller's promise; the rest is a run of its own from here on.
            unsafe { supply.give_back(run.head.add(kept), slices - kept) };
        }
    }

    /// Counts a span that another heap gave up to this one.
    ///
    /// # Safety
    /// The span is this heap's.
    unsafe fn adopt(&mut self, span: *mut Span) {
        // SAFETY: the caller's promise, so the class is in range.
        unsafe {
            let spans = self.spans.get_unchecked_mut((*span).class as usize);
            *spans = spans.saturating_add(1);
            self.used |= 1 << (*span).class;
        }
    }

    /// Takes over every span of this heap's queue.
    ///
    /// # Safety
    /// The caller owns this heap.
    #[inline(always)]
    pub(crate) unsafe fn collect_queue(&mut self, queue: &LimboQueue, supply: &mut impl Supply) {
        if !queue.is_empty() {
            // SAFETY: the caller's promise.
            unsafe { self.take_over(queue, supply) };
        }
    }

    /// As [`Bitmaps::collect_queue`], without the look before: that misses what is pushed just now.
    ///
    /// # Safety
    /// As [`Bitmaps::collect_queue`].
    #[inline(never)]
    pub(crate) unsafe fn take_over(&mut self, queue: &LimboQueue, supply: &mut impl Supply) {
        let mut span = queue.take_all();
        while !span.is_null() {
            // SAFETY: whoever takes a queue owns the spans in it.
            unsafe {
                let next = (*span).next;
                (*span).free |= protocol::take(&(*span).remote) & !FULL;
                self.settle(span, supply);
                span = next;
            }
        }
    }
}
