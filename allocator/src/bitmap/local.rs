//! The bitmap spans of one heap.
//!
//! Whoever touches any of this is inside the heap's door (see `lock::door`): its thread, or a visitor.
//!
//! # Invariants
//! 1. A span of this heap is current, listed as partly free, or has no free block as far as this
//!    heap knows. `free` carries [`LISTED`] exactly while the span is listed.
//! 2. Of a class at most one listed span holds no live block, and then no other span is listed: it
//!    is what the next refill takes. Of all spans above [`SHORT`] slices, current or listed, at most
//!    one holds no live block, and `idle` names it: a thread that sleeps lets go of nothing by itself. (In
//!    the child of a fork there may be more of both until they are allocated from.)
//! 3. A retired span holds no live block and counts as none of `spans`.
//! 4. `current` is never null: `no_span`, which has no free block, stands for none.
//! 5. Of a class whose bit in `used` is 0 this heap never had a span, so it holds nothing of it.

use core::ptr::null_mut;

use super::protocol;
use super::retired::Retired;
use super::span::{LISTED, freed_twice, locate, no_span, not_a_block, take_lowest, zero_mask};
use super::stash::{Offer, Stash};
use super::{CLASSES, SizeClass};
use crate::segment::{Span, SpanList, Supply, record_of};

/// Slices of spans of which every class may keep an empty one.
const SHORT: u32 = 2;

/// What is left to do of a free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    Nothing,
    /// The block goes back to its span, whose place in the heap changes.
    Span,
    /// The block takes another class's place in the stash.
    Stash,
    /// To say that it was freed before.
    Twice,
    /// To say that no block begins there.
    NotABlock,
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

    /// Frees a block of one of this heap's spans, as far as that takes few instructions; what is left to do.
    ///
    /// # Safety
    /// The caller's thread owns this heap and `record`'s span, is inside, and has just freed `block`.
    #[inline(always)]
    pub(crate) unsafe fn push_at_hand(&mut self, record: *mut Span, block: *mut u8) -> Left {
        // SAFETY: the record is of a span of this heap; a stashed block is this heap's.
        unsafe {
            match self.stash.push((*record).class, block) {
                Offer::Kept => return Left::Nothing,
                Offer::Full => {}
                Offer::Claims => return Left::Stash,
                Offer::Twice => return Left::Twice,
                Offer::Inside => return Left::NotABlock,
            }
            let (span, bit) = locate(record, block);
            let free = (*span).free;
            // The first and the last one to be freed, and one that is free.
            if free == 0 || free & bit != 0 || free | bit | LISTED == (*span).full | LISTED {
                return Left::Span;
            }
            (*span).free = free | bit;
        }
        Left::Nothing
    }

    /// Frees a block of one of this heap's spans.
    ///
    /// # Safety
    /// As [`Bitmaps::push_at_hand`].
    #[cfg(test)]
    pub(super) unsafe fn push(
        &mut self,
        record: *mut Span,
        block: *mut u8,
        supply: &mut impl Supply,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            let left = self.push_at_hand(record, block);
            self.finish_push(left, record, block, supply);
        }
    }

    /// Does what is left to do.
    ///
    /// # Safety
    /// As [`Bitmaps::push_at_hand`], which left that.
    pub(crate) unsafe fn finish_push(
        &mut self,
        left: Left,
        record: *mut Span,
        block: *mut u8,
        supply: &mut impl Supply,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            match left {
                Left::Nothing => {}
                Left::Span => self.put_back(record, block, supply),
                Left::Stash => self.evict(record, block, supply),
                Left::Twice => freed_twice(block),
                Left::NotABlock => not_a_block(block),
            }
        }
    }

    /// Stashes a large block; another class's goes back to its span.
    ///
    /// # Safety
    /// As [`Bitmaps::push_at_hand`].
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
    /// As [`Bitmaps::push_at_hand`].
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
                let alone = self.partial.get_unchecked(class).only() == span;
                if !(alone && (*current).free == 0) {
                    self.unlist(span);
                    return self.release(span, supply);
                }
            }
            if (*span).live > SHORT && self.idle != span {
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
            if !span.is_null() && !supply.keep(span) {
                Self::dismantle(span, supply);
            }
        }
    }
}
