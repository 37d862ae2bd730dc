//! Upkeep of a heap's slabs: collecting what others freed, giving up, checking.

use core::ptr::null_mut;

use super::SizeClass;
use super::local::{SlabSupply, Slabs};
use super::remote::{self, LimboQueue};
use super::span::check_span;
use crate::segment::{Depth, Reaped, Span, slice_of};
use crate::sync::Ordering;

impl Slabs {
    /// Collects what others freed in all spans and gives back the empty ones.
    ///
    /// # Safety
    /// The caller's thread owns this heap, whose bins are empty.
    pub(crate) unsafe fn sweep(&mut self, queue: &LimboQueue, supply: &mut impl SlabSupply) {
        // SAFETY: current and listed spans are this heap's.
        unsafe {
            self.collect_queue(queue, supply);
            for class in SizeClass::all() {
                let mut span = self.partial(class).first();
                while !span.is_null() {
                    let next = (*span).next;
                    if (*span).remote.load(Ordering::Relaxed) != 0 {
                        (*span).live -= remote::collect(span).blocks;
                        if (*span).live == 0 {
                            self.emptied(span, supply);
                        }
                    } else if (*span).free == 0 {
                        // Nobody may come back to this list: in limbo others can find it.
                        self.partial(class).remove(span);
                        if !remote::enter_limbo(span, supply.identity(), supply.alone()) {
                            self.partial(class).push(span);
                        }
                    }
                    span = next;
                }
                let span = *self.current(class);
                if !span.is_null() {
                    (*span).live -= remote::collect(span).blocks;
                    if (*span).live == 1 {
                        (*span).live = 0;
                        *self.current(class) = null_mut();
                        self.release(span, class, supply);
                    }
                }
            }
        }
    }

    /// In a child of a fork: makes the lists whole if a visitor was changing them.
    ///
    /// # Safety
    /// The caller's thread owns this heap.
    pub(crate) unsafe fn mend(&mut self) {
        // SAFETY: the lists are this heap's.
        self.partial.iter_mut().for_each(|list| unsafe { list.mend() });
    }

    /// Gives back the listed spans whose last live blocks were freed by others.
    ///
    /// # Safety
    /// The caller owns this heap or is inside its door. No block of such a span is live, so that its thread
    /// is in the middle of no free and nothing arrives any more.
    pub(crate) unsafe fn reap(&mut self, supply: &mut impl SlabSupply, reaped: &mut Reaped) {
        // SAFETY: listed spans are this heap's.
        unsafe {
            for class in SizeClass::all() {
                let mut span = self.partial(class).first();
                while !span.is_null() {
                    let next = (*span).next;
                    reaped.looked += 1;
                    let waiting = remote::waiting(span);
                    // Read while the owner may be counting down: only the last value can be equal.
                    if waiting != 0 && waiting == (&raw const (*span).live).read_volatile() {
                        reaped.taken += 1;
                        self.emptied(span, supply);
                    }
                    span = next;
                }
            }
        }
    }

    /// Gives one partly free span of `class` to the heap `identity`, if there is one. Its owner
    /// changes here: a thread that uses this heap next must find that the span is another's.
    ///
    /// # Safety
    /// Nobody uses this heap: its thread has ended, and the caller holds the lock that says so.
    pub(crate) unsafe fn give_up(&mut self, class: SizeClass, identity: usize) -> *mut Span {
        // SAFETY: current and listed spans are this heap's.
        unsafe {
            let mut span = self.partial(class).first();
            if !span.is_null() {
                self.partial(class).remove(span);
            } else {
                span = *self.current(class);
                if span.is_null()
                    || ((*span).free == 0
                        && (*span).remote.load(Ordering::Relaxed) == 0
                        && (*span).carved == (*span).capacity)
                {
                    return null_mut();
                }
                (*span).live -= 1;
                *self.current(class) = null_mut();
            }
            (*span).owner.store(identity, Ordering::Relaxed);
            let spans = self.spans.get_unchecked_mut(class.index());
            *spans = spans.saturating_sub(1);
            span
        }
    }

    /// Tests the invariants over every span of the heap `owner`; the first broken one is named.
    ///
    /// # Safety
    /// The caller owns this heap, or tests its [`Depth::Records`] and is inside its door.
    pub(crate) unsafe fn check(
        &self,
        owner: usize,
        depth: Depth,
    ) -> Result<(), (&'static str, usize)> {
        for class in SizeClass::all() {
            // SAFETY: the class is in range; the spans are this heap's, and change only as `depth` allows.
            unsafe {
                let current = *self.current.get_unchecked(class.index());
                if !current.is_null() {
                    check_span(current, class, 1, owner, depth)?;
                }
                self.partial.get_unchecked(class.index()).check(|span| {
                    if span == current {
                        return Err(("a span is both current and listed", slice_of(span).addr()));
                    }
                    check_span(span, class, 0, owner, depth)
                })?;
            }
        }
        Ok(())
    }
}
