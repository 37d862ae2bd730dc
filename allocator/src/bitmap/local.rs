//! The bitmap spans of one heap.
//!
//! # Invariants
//! 1. A span of this heap is current, listed as partly free, or has no free block as far as this
//!    heap knows. `free` carries [`LISTED`] exactly while the span is listed.
//! 2. Of a class at most one listed span holds no live block, and then no other span is listed: it
//!    is what the next refill takes. Of all spans above [`SHORT`] slices, current or listed, at most
//!    one holds no live block, and `idle` names it: a thread that sleeps can let go of nothing.
//! 3. A retired span holds no live block and counts as none of `spans`.
//! 4. `current` is never null: `no_span`, which has no free block, stands for none.
//! 5. Of a class whose bit in `used` is 0 this heap never had a span, so it holds nothing of it.

use core::ptr::null_mut;

use super::protocol::{self, FULL};
use super::retired::Retired;
use super::span::{
    LISTED, OWNED, for_each_record, freed_twice, locate, no_span, not_a_block, take_lowest,
    zero_mask,
};
use super::stash::{Offer, Stash};
use super::{CLASSES, KNOWS_ZERO, SizeClass};
use crate::probe::fire;
use crate::segment::{
    Kind, NOBODY, Run, Span, SpanList, Supply, prepare_blocks, record_of, slice_of, unguard,
};
use crate::slab::LimboQueue;
use crate::sync::Ordering;
use crate::units::SLICE;

/// Slices of spans of which every class may keep an empty one.
const SHORT: u32 = 2;

/// What bitmap spans need from the floors above.
pub(crate) trait BitmapSupply: Supply {
    /// A span of `class` with free blocks from a heap whose thread has ended; its `owner` is already
    /// this heap. Null if there is none.
    fn foreign_bitmap(&mut self, class: SizeClass) -> *mut Span;
}

/// The bitmap spans of one heap.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Bitmaps {
    pub(super) stash: Stash,
    pub(super) current: [*mut Span; CLASSES],
    pub(super) partial: [SpanList; CLASSES],
    pub(super) spans: [u16; CLASSES],
    pub(super) retired: Retired,
    /// A span above [`SHORT`] slices that was empty when a block of it was last freed, or null.
    pub(super) idle: *mut Span,
    /// A bit per class.
    pub(super) used: u128,
}

impl Bitmaps {
    /// Makes a zeroed one usable.
    pub(crate) fn prepare(&mut self) {
        self.current = [no_span(); CLASSES];
        self.stash.prepare();
    }

    /// A block of `class`, if the stash or the current span has one.
    ///
    /// # Safety
    /// The caller's thread owns this heap.
    #[inline(always)]
    pub(crate) unsafe fn pop(&mut self, class: SizeClass) -> *mut u8 {
        let block = self.stash.pop(class);
        if !block.is_null() {
            return block;
        }
        // SAFETY: the class is in range; the current span is this heap's.
        unsafe {
            let span = *self.current.get_unchecked(class.index());
            let free = (*span).free;
            if free == 0 { null_mut() } else { take_lowest(span, free, class) }
        }
    }

    /// Whether the block that the current span would hand out next is still zero.
    ///
    /// # Safety
    /// The caller's thread owns this heap.
    pub(crate) unsafe fn next_is_zero(&self, class: SizeClass) -> bool {
        // SAFETY: the class is in range; the current span is this heap's.
        unsafe {
            let span = *self.current.get_unchecked(class.index());
            let free = (*span).free;
            let next = free & free.wrapping_neg();
            self.stash.is_empty(class)
                && class.knows_zero()
                && next != 0
                && *zero_mask(span) & next != 0
        }
    }

    /// Frees a block of one of this heap's spans.
    ///
    /// # Safety
    /// The caller's thread owns this heap and `record`'s span, and has just freed `block`.
    #[inline(always)]
    pub(crate) unsafe fn push(
        &mut self,
        record: *mut Span,
        block: *mut u8,
        supply: &mut impl Supply,
    ) {
        // SAFETY: the record is of a span of this heap; a stashed block is this heap's.
        unsafe {
            match self.stash.push((*record).class, block) {
                Offer::Kept => {}
                Offer::Full => self.put_back(record, block, supply),
                Offer::Claims => self.evict(record, block, supply),
                Offer::Twice => freed_twice(block),
                Offer::Inside => not_a_block(block),
            }
        }
    }

    /// Stashes a large block; another class's goes back to its span.
    ///
    /// # Safety
    /// As [`Bitmaps::push`].
    #[inline(never)]
    unsafe fn evict(&mut self, record: *mut Span, block: *mut u8, supply: &mut impl Supply) {
        // SAFETY: a stashed block is this heap's.
        unsafe {
            let evicted = self.stash.claim((*record).class, block);
            if !evicted.is_null() {
                self.put_back(record_of(evicted), evicted, supply);
            }
        }
    }

    /// Marks a block free in its span.
    ///
    /// # Safety
    /// As [`Bitmaps::push`].
    #[inline(always)]
    pub(super) unsafe fn put_back(
        &mut self,
        record: *mut Span,
        block: *mut u8,
        supply: &mut impl Supply,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            let (span, bit) = locate(record, block);
            let free = (*span).free;
            if free == 0 {
                return self.first_free(span, bit, supply);
            }
            if free & bit != 0 {
                return freed_twice(block);
            }
            (*span).free = free | bit;
            if free | bit | LISTED == (*span).full | LISTED {
                self.emptied(span, supply);
            }
        }
    }

    /// A span holds no live block any more. It is kept if the next refill would miss it.
    ///
    /// # Safety
    /// `span` is current or listed and holds no live block.
    #[inline(never)]
    unsafe fn emptied(&mut self, span: *mut Span, supply: &mut impl Supply) {
        // SAFETY: the caller's promise; the class is in range.
        unsafe {
            let class = (*span).class as usize;
            let current = *self.current.get_unchecked(class);
            if span != current {
                let _inside = supply.enter();
                let alone = self.partial.get_unchecked(class).only() == span;
                if !(alone && (*current).free == 0) {
                    self.unlist(span);
                    return self.release(span, supply);
                }
            }
            if (*span).live > SHORT && self.idle != span {
                let _inside = supply.enter();
                let before = core::mem::replace(&mut self.idle, span);
                if !before.is_null() && (*before).free | LISTED == (*before).full | LISTED {
                    self.let_go_of(before, supply);
                }
            }
        }
    }

    /// Gives an empty span back.
    ///
    /// # Safety
    /// `span` is current or listed and holds no live block.
    unsafe fn let_go_of(&mut self, span: *mut Span, supply: &mut impl Supply) {
        // SAFETY: the caller's promise; the class is in range.
        unsafe {
            if (*span).free & LISTED != 0 {
                self.unlist(span);
            } else {
                *self.current.get_unchecked_mut((*span).class as usize) = no_span();
            }
            self.release(span, supply);
        }
    }

    /// The first block freed in a span that had none free.
    ///
    /// # Safety
    /// As [`Bitmaps::push`]; `bit` is a block of `span`.
    #[inline(never)]
    unsafe fn first_free(&mut self, span: *mut Span, bit: u64, supply: &mut impl Supply) {
        // SAFETY: the local mask is this heap's in every state of the span.
        unsafe {
            if *self.current.get_unchecked((*span).class as usize) == span {
                (*span).free = bit;
                if bit == (*span).full {
                    self.emptied(span, supply);
                }
                return;
            }
            // No visitor takes the span for one without live blocks before its FULL is looked at.
            let _inside = supply.enter();
            (*span).free = bit;
            // Lost: the span is on its way into the queue, and only the mask may change.
            if protocol::clear_full(&(*span).remote, supply.alone()) {
                self.settle(span, supply);
            }
        }
    }

    /// Lists or releases a span that is neither current nor listed nor queued.
    ///
    /// # Safety
    /// The span is this heap's.
    pub(super) unsafe fn settle(&mut self, span: *mut Span, supply: &mut impl Supply) {
        // SAFETY: the caller's promise.
        unsafe {
            self.list(span, supply);
            if (*span).free == (*span).full | LISTED {
                self.emptied(span, supply);
            }
        }
    }

    /// # Safety
    /// The span is this heap's and neither current nor listed.
    unsafe fn list(&mut self, span: *mut Span, supply: &mut impl Supply) {
        // SAFETY: the caller's promise; the class is in range.
        unsafe {
            self.release_empty((*span).class as usize, supply);
            (*span).free |= LISTED;
            self.partial.get_unchecked_mut((*span).class as usize).push(span);
        }
    }

    /// Gives back the one listed span that holds no live block, if there is one.
    ///
    /// # Safety
    /// The class is in range.
    pub(super) unsafe fn release_empty(&mut self, class: usize, supply: &mut impl Supply) {
        // SAFETY: the caller's promise; listed spans are this heap's.
        unsafe {
            let span = self.partial.get_unchecked(class).only();
            if !span.is_null() && (*span).free == (*span).full | LISTED {
                self.unlist(span);
                self.release(span, supply);
            }
        }
    }

    /// # Safety
    /// The span is listed.
    pub(super) unsafe fn unlist(&mut self, span: *mut Span) {
        // SAFETY: the caller's promise; the class is in range.
        unsafe {
            self.partial.get_unchecked_mut((*span).class as usize).remove(span);
            (*span).free &= !LISTED;
        }
    }

    /// Counts a span no longer that is neither current nor listed.
    ///
    /// # Safety
    /// The span was this heap's.
    pub(super) unsafe fn forget(&mut self, span: *mut Span) {
        // SAFETY: the caller's promise, so the class is in range.
        unsafe {
            let spans = self.spans.get_unchecked_mut((*span).class as usize);
            *spans = spans.saturating_sub(1);
        }
        if self.idle == span {
            self.idle = null_mut();
        }
    }

    /// # Safety
    /// The span is this heap's, neither current nor listed, and holds no live block.
    pub(super) unsafe fn release(&mut self, span: *mut Span, supply: &mut impl Supply) {
        // SAFETY: the caller's promise; the class is in range.
        unsafe {
            self.forget(span);
            let span = self.retired.exchange(span);
            if !span.is_null() {
                Self::dismantle(span, supply);
            }
        }
    }

    /// A retired span of `class`; null if there is none.
    fn take_retired(&mut self, class: SizeClass) -> *mut Span {
        if !Retired::keeps(class) {
            return null_mut();
        }
        let span = self.retired.take(class);
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
    pub(super) unsafe fn dismantle(span: *mut Span, supply: &mut impl Supply) {
        // SAFETY: the caller's promise.
        unsafe {
            for_each_record(span, |record, _| {
                (*record).owner.store(NOBODY, Ordering::Relaxed);
                Span::end_use(record);
            });
            let slices = (*span).live as usize;
            let tail = SizeClass::from_index((*span).class).tail();
            let lost = !unguard(span, tail * slices);
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
                    span = self.take_retired(class);
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
