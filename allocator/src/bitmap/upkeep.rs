//! Upkeep of a heap's bitmap spans: letting go, giving up, checking.
//!
//! Most threads use few classes, and all threads come by here when they end: only the classes that the
//! heap ever had a span of are looked at.

use core::iter::from_fn;
use core::ptr::null_mut;

use super::local::Bitmaps;
use super::protocol::FULL;
use super::span::{
    LISTED, OWNED, check_span, for_each_record, free_before, locate, no_span, zero_mask,
};
use super::{CLASSES, KNOWS_ZERO, SizeClass, protocol};
use crate::os;
use crate::segment::{Depth, Reading, Reaped, Span, SpanList, Supply, record_of, slice_of};
use crate::slab::LimboQueue;
use crate::sync::Ordering;
use crate::units::PAGE;

/// Which pages of free blocks go back to the kernel while the blocks around them are live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Pages {
    /// None.
    Stay,
    /// Those of blocks that others freed since the last look.
    New,
    /// All.
    All,
}

impl Pages {
    /// Gives them back, of a span of `class`, where others freed the blocks `taken`. Blocks of a class that
    /// knows what is zero are so afterwards, and are left alone from then on. Not in hardened builds, where a
    /// freed block is looked at when it is next handed out.
    ///
    /// # Safety
    /// The span is current or listed in a heap that the caller owns, or is inside the door of.
    unsafe fn give_back(self, span: *mut Span, class: SizeClass, taken: u64, supply: &impl Supply) {
        if self == Pages::Stay || cfg!(feature = "hardened") {
            return;
        }
        // SAFETY: the caller's promise.
        unsafe {
            let wanted = if self == Pages::All { (*span).free & !LISTED } else { taken };
            purge(span, class, wanted, supply);
        }
    }
}

/// Gives the pages of the free blocks `wanted` back, but for those that are zero already.
///
/// # Safety
/// As [`Pages::give_back`].
unsafe fn purge(span: *mut Span, class: SizeClass, wanted: u64, supply: &impl Supply) {
    // SAFETY: the caller's promise: free blocks are nobody's; bit i stands for the block at i times the
    // class's size.
    unsafe {
        let zero = if class.knows_zero() { *zero_mask(span) } else { 0 };
        let mut blocks = wanted & !zero;
        while blocks != 0 {
            let first = blocks.trailing_zeros();
            let count = (blocks >> first).trailing_ones();
            let these = (u64::MAX >> (64 - count)) << first;
            let from = slice_of(span).add(first as usize * class.size());
            let bytes = count as usize * class.size();
            if supply.purge(from, bytes) && class.knows_zero() {
                *zero_mask(span) |= these;
                supply.note_purged(bytes);
            }
            blocks &= !these;
        }
    }
}

/// Takes over what others freed in a span that stands in no queue; which blocks it was.
///
/// # Safety
/// As [`Bitmaps::sweep`], of a span of that heap.
unsafe fn take_over(span: *mut Span) -> u64 {
    // SAFETY: the caller's promise.
    unsafe {
        if (*span).remote.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        let taken = protocol::take(&(*span).remote);
        (*span).free |= taken;
        taken
    }
}

impl Bitmaps {
    /// The classes from `first` on that this heap ever had a span of, smallest first.
    fn used_from(&self, first: SizeClass) -> impl Iterator<Item = SizeClass> + use<> {
        let mut rest = self.used & (u128::MAX << first.index());
        from_fn(move || {
            let class = (rest != 0).then(|| SizeClass::from_index(rest.trailing_zeros() as u8));
            rest &= rest.wrapping_sub(1);
            class
        })
    }

    /// Lets go of what the classes from `first` on hold for their next requests: the stashed blocks,
    /// and the spans of which nothing is in use.
    ///
    /// A program whose arrays grow passes through all classes once: without this each of them would
    /// go on holding a block.
    ///
    /// # Safety
    /// The caller's thread owns this heap.
    pub(crate) unsafe fn let_go(&mut self, first: SizeClass, supply: &mut impl Supply) {
        for class in self.used_from(first) {
            // SAFETY: the class is in range; a stashed block, the current span and those listed are
            // this heap's.
            unsafe {
                self.empty_stash(class, supply);
                let span = *self.current.get_unchecked(class.index());
                if (*span).free == (*span).full && span != no_span() {
                    *self.current.get_unchecked_mut(class.index()) = no_span();
                    self.release(span, supply);
                }
                self.release_empty(class.index(), supply);
            }
        }
        // SAFETY: the caller's promise.
        unsafe { self.dismantle_retired(first, supply) };
    }

    /// Gives the pages back of blocks that were free already when this was last called: of the classes that know what
    /// is zero, so that none goes back twice, hence only where their blocks are of whole pages. Not in hardened builds, as
    /// [`Pages::give_back`].
    ///
    /// # Safety
    /// The caller's thread owns this heap.
    pub(crate) unsafe fn let_go_of_pages(&mut self, supply: &impl Supply) {
        if cfg!(feature = "hardened") || os::page_size() > PAGE {
            return;
        }
        // SAFETY: the class is in range; current and listed spans are this heap's.
        unsafe {
            let look = |span: *mut Span, class| {
                let free = (*span).free & !LISTED;
                let before = core::mem::replace(&mut *free_before(span), free);
                purge(span, class, free & before, supply);
            };
            for class in self.used_from(SizeClass::of(KNOWS_ZERO)) {
                let mut span = self.partial.get_unchecked(class.index()).first();
                while !span.is_null() {
                    look(span, class);
                    span = (*span).next;
                }
                let span = *self.current.get_unchecked(class.index());
                if span != no_span() {
                    look(span, class);
                }
            }
        }
    }

    /// Empties the stash, collects what others freed, and gives back the empty spans, and of the others the
    /// pages that `pages` says.
    ///
    /// # Safety
    /// The caller owns this heap, whose queue it is, or is inside its door.
    pub(crate) unsafe fn sweep(
        &mut self,
        queue: &LimboQueue,
        pages: Pages,
        supply: &mut impl Supply,
    ) {
        // SAFETY: stashed blocks, current and listed spans are this heap's.
        unsafe {
            for class in self.used_from(SizeClass::SMALLEST) {
                self.empty_stash(class, supply);
            }
            self.collect_queue(queue, supply);
            for class in self.used_from(SizeClass::SMALLEST) {
                let mut span = self.partial.get_unchecked(class.index()).first();
                while !span.is_null() {
                    let next = (*span).next;
                    let taken = take_over(span);
                    if (*span).free == (*span).full | LISTED {
                        self.unlist(span);
                        self.release(span, supply);
                    } else {
                        pages.give_back(span, class, taken, supply);
                    }
                    span = next;
                }
                let span = *self.current.get_unchecked(class.index());
                if span != no_span() {
                    let taken = take_over(span);
                    if (*span).free == (*span).full {
                        *self.current.get_unchecked_mut(class.index()) = no_span();
                        self.release(span, supply);
                    } else {
                        pages.give_back(span, class, taken, supply);
                    }
                }
            }
            self.dismantle_retired(SizeClass::SMALLEST, supply);
        }
    }

    /// Gives back the queued and the listed spans whose last live blocks were freed by others, and of the others
    /// the pages that `pages` says.
    ///
    /// # Safety
    /// As [`Bitmaps::sweep`].
    pub(crate) unsafe fn reap(
        &mut self,
        queue: &LimboQueue,
        pages: Pages,
        supply: &mut impl Supply,
        reaped: &mut Reaped,
    ) {
        // SAFETY: whoever takes a queue decides about the spans in it; listed ones are this heap's; the class
        // is in range.
        unsafe {
            let mut span = queue.take_all();
            while !span.is_null() {
                let next = (*span).next;
                let taken = protocol::take(&(*span).remote) & !FULL;
                (*span).free |= taken;
                if (*span).free == (*span).full {
                    reaped.taken += 1;
                    self.forget(span);
                    Self::dismantle(span, supply);
                } else {
                    pages.give_back(span, SizeClass::from_index((*span).class), taken, supply);
                    self.settle(span, supply);
                }
                span = next;
            }
            for class in self.used_from(SizeClass::SMALLEST) {
                let mut span = self.partial.get_unchecked(class.index()).first();
                while !span.is_null() {
                    let next = (*span).next;
                    reaped.looked += 1;
                    let taken = take_over(span);
                    if taken != 0 && (*span).free == (*span).full | LISTED {
                        self.unlist(span);
                        self.forget(span);
                        reaped.taken += 1;
                        Self::dismantle(span, supply);
                    } else {
                        pages.give_back(span, class, taken, supply);
                    }
                    span = next;
                }
            }
        }
    }

    /// In a child of a fork, if a visitor was at work on this heap: forgets what it holds, whatever state that is
    /// in, but for the blocks that are live. [`Bitmaps::list_again`] finds the spans, those that were
    /// retired too. Blocks that were stashed are lost.
    pub(crate) fn forget_lists(&mut self) {
        // SAFETY: zeroed memory is what `prepare` makes usable.
        self.stash = unsafe { core::mem::zeroed() };
        self.prepare();
        self.partial = [const { SpanList::EMPTY }; CLASSES];
        self.retired.forget();
        self.idle = null_mut();
    }

    /// Lists a span that this heap had and forgot, if a block of it is free.
    ///
    /// # Safety
    /// `span` is the first record of one of this heap's spans, whose lists were forgotten; nobody else in the
    /// child uses it yet.
    pub(crate) unsafe fn list_again(&mut self, span: *mut Span) {
        // SAFETY: the caller's promise; the class is in range.
        unsafe {
            (*span).free = ((*span).free | protocol::take(&(*span).remote)) & (*span).full;
            if (*span).free == 0 {
                (*span).remote.store(FULL, Ordering::Relaxed);
            } else {
                (*span).free |= LISTED;
                self.partial.get_unchecked_mut((*span).class as usize).push(span);
            }
        }
    }

    /// Gives one span of `class` with free blocks to the heap `identity`, if there is one. Its owner
    /// changes here: a thread that uses this heap next must find that the span is another's.
    ///
    /// # Safety
    /// Nobody uses this heap: its thread has ended, and the caller holds the lock that says so.
    pub(crate) unsafe fn give_up(&mut self, class: SizeClass, identity: usize) -> *mut Span {
        // SAFETY: the class is in range; current and listed spans are this heap's.
        unsafe {
            let mut span = self.partial.get_unchecked(class.index()).first();
            if !span.is_null() {
                self.unlist(span);
            } else {
                span = *self.current.get_unchecked(class.index());
                if (*span).free == 0 && (*span).remote.load(Ordering::Relaxed) == 0 {
                    return null_mut();
                }
                *self.current.get_unchecked_mut(class.index()) = no_span();
            }
            for_each_record(span, |record, _| {
                (*record).owner.store(identity | OWNED, Ordering::Relaxed);
            });
            self.forget(span);
            span
        }
    }

    /// Tests the invariants over the spans of the heap `owner`, but for those without a free block, which no
    /// list names; the first broken one is named.
    ///
    /// # Safety
    /// The caller owns this heap, or tests its [`Depth::Records`] and is inside its door.
    pub(crate) unsafe fn check(
        &self,
        owner: usize,
        depth: Depth,
    ) -> Result<(), (&'static str, usize)> {
        for span in self.retired.each() {
            // SAFETY: retired spans are this heap's.
            unsafe { Self::check_empty(span, owner)? };
        }
        for class in SizeClass::all() {
            // SAFETY: the class is in range; listed and current spans are this heap's.
            unsafe {
                let partial = self.partial.get_unchecked(class.index());
                partial.check(|span| check_span(span, class, LISTED, owner))?;
                let current = *self.current.get_unchecked(class.index());
                if current != no_span() {
                    check_span(current, class, 0, owner)?;
                }
                if depth == Depth::Blocks {
                    self.check_stash(class)?;
                }
            }
        }
        Ok(())
    }

    /// Tests a span that the heap `owner` keeps laid out though nothing of it is in use.
    ///
    /// # Safety
    /// As [`Bitmaps::check`].
    pub(crate) unsafe fn check_empty(
        span: *mut Span,
        owner: usize,
    ) -> Result<(), (&'static str, usize)> {
        // SAFETY: the caller's promise.
        unsafe {
            let says = Reading::of(span);
            let class = SizeClass::from_number(says.class);
            let class = class.ok_or(("a span record was overwritten", slice_of(span).addr()))?;
            check_span(span, class, 0, owner)?;
            let whole = says.free == says.full && says.remote == 0;
            if whole {
                Ok(())
            } else {
                Err(("a block of an empty span is in use", slice_of(span).addr()))
            }
        }
    }

    /// Tests the stashed blocks of `class`, and whether the heap knows that it uses that.
    ///
    /// # Safety
    /// The caller owns this heap, whose spans were tested.
    unsafe fn check_stash(&self, class: SizeClass) -> Result<(), (&'static str, usize)> {
        // SAFETY: the class is in range; a stashed block is of a span of this heap's.
        unsafe {
            let holds = !self.partial.get_unchecked(class.index()).first().is_null()
                || *self.current.get_unchecked(class.index()) != no_span()
                || !self.stash.is_empty(class);
            if holds && self.used & (1 << class.index()) == 0 {
                return Err(("a class in use is marked as never used", class.size()));
            }
            for stashed in self.stash.each(class) {
                let (span, bit) = locate(record_of(stashed), stashed);
                if (*span).free & bit != 0 {
                    return Err(("a block is free twice", stashed.addr()));
                }
            }
        }
        Ok(())
    }

    /// Puts the stashed blocks of `class` back on their spans.
    ///
    /// # Safety
    /// The caller owns this heap.
    unsafe fn empty_stash(&mut self, class: SizeClass, supply: &mut impl Supply) {
        loop {
            let block = self.stash.pop(class);
            if block.is_null() {
                return;
            }
            // SAFETY: a stashed block is this heap's.
            unsafe { self.put_back(record_of(block), block, supply) };
        }
    }

    /// Gives the retired spans of the classes from `first` on back.
    ///
    /// # Safety
    /// The caller owns this heap or is inside its door.
    pub(crate) unsafe fn dismantle_retired(&mut self, first: SizeClass, supply: &mut impl Supply) {
        while let Some(span) = self.retired.take_from(first) {
            // SAFETY: retired spans are this heap's and hold no live block.
            unsafe { Self::dismantle(span, supply) };
        }
    }
}
