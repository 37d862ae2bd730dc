//! Empty bitmap spans that a heap keeps as they are laid out, for its next requests of the same classes.
//!
//! To lay out a span and to give it back takes some 1600 instructions, of which a span of two large blocks has
//! little use. A program that allocates and frees in phases of the same sizes would pay that for each of its
//! spans in each phase. So they stay, however many, until this heap takes slices or huge objects for something
//! else, or for a quarter of a second: then the pools have all that they would have had, and a program whose
//! phases ask for other sizes needs no byte more.
//!
//! That holds only for a heap that has the pools to itself: a process of several threads keeps none. Nor does one
//! with `memory=low`, or near the limit of its control group, nor hardened builds: what is freed there leaves the
//! process as soon as it can.
//!
//! With this `lifo100-524288`, all of whose spans hold two blocks, takes 1.8 times as long as with the best other
//! allocator where it took 3.6 times as long, and `rand10k-524288` 1.4 where it was 2.7 (`ci/figures.sh`, 9 rounds
//! each). The peaks of `bench-cli run profile interpreter-like compiler-like gui-like cfrac-like espresso-like
//! malloc-large mleak --pass throughput --runs 5 --duration 200ms` are as they were, to 1 % where they pass 1 MiB.

use core::iter::successors;
use core::ptr::null_mut;

use crate::bitmap::SizeClass;
use crate::segment::Span;

/// Spans looked at for one of a class: a program that goes through its sizes in another order than before gets on
/// without them.
const TRIES: usize = 8;

/// The empty spans that one heap keeps. None of them holds a live block, and no list of the heap's names it.
#[derive(Debug)]
pub(super) struct Empties {
    /// The one that was emptied last; `next` leads to the one before.
    last: *mut Span,
}

impl Empties {
    /// Keeps a span.
    ///
    /// # Safety
    /// It is this heap's, in no list, and holds no live block.
    pub(super) unsafe fn keep(&mut self, span: *mut Span) {
        // SAFETY: the caller's promise.
        unsafe { (*span).next = self.last };
        self.last = span;
    }

    /// One of `class` that was emptied lately, which is kept no longer; null if there is none.
    pub(super) fn take(&mut self, class: SizeClass) -> *mut Span {
        let mut link = &raw mut self.last;
        for _ in 0..TRIES {
            // SAFETY: `link` is this field or in a span that is kept.
            unsafe {
                let span = *link;
                if span.is_null() {
                    break;
                }
                if (*span).class as usize == class.index() {
                    *link = (*span).next;
                    return span;
                }
                link = &raw mut (*span).next;
            }
        }
        null_mut()
    }

    /// The one that was emptied last, which is kept no longer.
    pub(super) fn take_any(&mut self) -> Option<*mut Span> {
        let last = self.each().next()?;
        // SAFETY: what is kept is a span.
        self.last = unsafe { (*last).next };
        Some(last)
    }

    /// Whether there is none.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.last.is_null()
    }

    /// Keeps none of them: whoever calls this finds them elsewhere.
    pub(super) fn forget(&mut self) {
        self.last = null_mut();
    }

    /// All of them, the one that was emptied last first.
    pub(super) fn each(&self) -> impl Iterator<Item = *mut Span> + use<> {
        let there = |span: *mut Span| (!span.is_null()).then_some(span);
        // SAFETY: what is kept is a span.
        successors(there(self.last), move |&span| unsafe { there((*span).next) })
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::super::global::GLOBAL;
    use super::*;

    #[test]
    fn the_span_emptied_last_comes_first_and_none_is_lost() {
        GLOBAL.ensure_ready();
        let mut empties = Empties { last: null_mut() };
        let [small, large] = [1024, 512 << 10].map(SizeClass::of);
        let span_of = |class: SizeClass| {
            let span = GLOBAL.slices(0, 1, 1, false).expect("memory").head;
            // SAFETY: a fresh run of one slice, which nobody owns: only its record is used.
            unsafe { (*span).class = class.index() as u8 };
            span
        };
        assert!(empties.is_empty() && empties.take(small).is_null());
        let spans = [small, large, small, large, large].map(span_of);
        let [first, second, third, fourth, fifth] = spans;
        for span in spans {
            // SAFETY: as above.
            unsafe { empties.keep(span) };
        }
        assert_eq!(empties.each().collect::<Vec<_>>(), [fifth, fourth, third, second, first]);
        assert_eq!((empties.take(small), empties.take(small)), (third, first));
        assert!(empties.take(small).is_null(), "the others are of another class");
        assert_eq!(empties.take(large), fifth);
        assert_eq!([(); 3].map(|()| empties.take_any()), [Some(fourth), Some(second), None]);
        assert!(empties.is_empty());
        let far = (0..TRIES).map(|_| span_of(large)).collect::<Vec<_>>();
        for &span in [first].iter().chain(&far) {
            // SAFETY: as above.
            unsafe { empties.keep(span) };
        }
        assert!(empties.take(small).is_null(), "it is further down than anybody looks");
        assert_eq!(empties.each().count(), TRIES + 1);
        empties.forget();
        assert!(empties.is_empty() && empties.take(large).is_null());
        for span in spans.into_iter().chain(far) {
            // SAFETY: as above; nobody uses the runs any more.
            unsafe { GLOBAL.give_back(span, 1) };
        }
    }
}
