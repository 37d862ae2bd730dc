//! Empty bitmap spans that a heap keeps as they are laid out, for its next requests of the same classes.
//!
//! To lay out a span and to give it back takes some 1600 instructions, of which a span of two large blocks has
//! little use. A program that allocates and frees in phases of the same sizes would pay that for each of its
//! spans in each phase. So they stay, however many, until this heap takes slices or huge objects for something
//! else, or for a quarter of a second: then the pools have all that they would have had, and a program whose
//! phases ask for other sizes needs no byte more.
//!
//! That holds only for a heap that has the pools to itself: a process of several threads keeps none. Nor do
//! hardened builds: what is freed there leaves the process as soon as it can.
//!
//! `lifo100` of 512 KiB (all of whose spans hold two blocks) takes 0.35 of the time it took without, `rand10k` 0.49,
//! and the programs of `bench-cli run` as much resident memory as before.

use core::mem::replace;
use core::ptr::null_mut;

use crate::bitmap::{CLASSES, SizeClass};
use crate::segment::Span;

/// The empty spans that one heap keeps. None of them holds a live block, and no list of the heap's names it.
#[derive(Debug)]
pub(super) struct Empties {
    /// Per class the one that was emptied last; `next` leads to the one before.
    last: [*mut Span; CLASSES],
    /// A bit per class of which there is one.
    classes: u128,
}

impl Empties {
    /// Keeps a span.
    ///
    /// # Safety
    /// It is this heap's, in no list, and holds no live block.
    pub(super) unsafe fn keep(&mut self, span: *mut Span) {
        // SAFETY: the caller's promise; the class is in range.
        unsafe {
            let class = (*span).class;
            (*span).next = replace(self.last.get_unchecked_mut(class as usize), span);
            self.classes |= 1 << class;
        }
    }

    /// The one of `class` that was emptied last, which is kept no longer; null if there is none.
    pub(super) fn take(&mut self, class: SizeClass) -> *mut Span {
        // SAFETY: the class is in range; what is kept is a span.
        unsafe {
            let last = self.last.get_unchecked_mut(class.index());
            let span = *last;
            if !span.is_null() {
                *last = (*span).next;
                if last.is_null() {
                    self.classes &= !(1 << class.index());
                }
            }
            span
        }
    }

    /// Any one of them, which is kept no longer.
    pub(super) fn take_any(&mut self) -> Option<*mut Span> {
        let class = self.classes.trailing_zeros();
        (self.classes != 0).then(|| self.take(SizeClass::from_index(class as u8)))
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.classes == 0
    }

    /// Keeps none of them. They are lost.
    pub(super) fn forget(&mut self) {
        (self.last, self.classes) = ([null_mut(); CLASSES], 0);
    }

    /// All of them.
    pub(super) fn each(&self) -> impl Iterator<Item = *mut Span> + '_ {
        self.last.iter().flat_map(|&last| {
            let first = (!last.is_null()).then_some(last);
            // SAFETY: what is kept is a span.
            core::iter::successors(first, |&span| unsafe {
                Some((*span).next).filter(|next| !next.is_null())
            })
        })
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
        let mut empties = Empties { last: [null_mut(); CLASSES], classes: 0 };
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
        assert_eq!(empties.each().collect::<Vec<_>>(), [third, first, fifth, fourth, second]);
        assert_eq!((empties.take(small), empties.take(small)), (third, first));
        assert!(empties.take(small).is_null(), "the others are of another class");
        assert_eq!(empties.take(large), fifth);
        assert_eq!([(); 3].map(|()| empties.take_any()), [Some(fourth), Some(second), None]);
        assert!(empties.is_empty());
        // SAFETY: as above.
        unsafe { empties.keep(fifth) };
        empties.forget();
        assert!(empties.is_empty() && empties.take(large).is_null());
        for span in spans {
            // SAFETY: as above; nobody uses the runs any more.
            unsafe { GLOBAL.give_back(span, 1) };
        }
    }
}
