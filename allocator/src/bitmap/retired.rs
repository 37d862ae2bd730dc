//! Short spans that were emptied lately, laid out as they were: most are asked for again.

use core::mem::replace;
use core::ptr::null_mut;

use super::SizeClass;
use crate::segment::Span;

/// How many are kept, and how long in slices they may be.
const KEPT: usize = 8;
const MAX_SLICES: u32 = 4;

/// The retired spans of one heap. None of them holds a live block.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Retired {
    spans: [*mut Span; KEPT],
    next: u8,
}

impl Retired {
    /// Whether a span of `class` may ever be kept.
    #[inline]
    pub(super) fn keeps(class: SizeClass) -> bool {
        class.span_slices(0) <= MAX_SLICES as usize && !cfg!(feature = "hardened")
    }

    /// Keeps `span` and returns the one that it drives out, or null; `span` itself if it is long.
    /// Hardened builds keep none: what is freed there leaves the process as soon as it can.
    ///
    /// # Safety
    /// `span` is a span of this heap's without a live block.
    pub(super) unsafe fn exchange(&mut self, span: *mut Span) -> *mut Span {
        // SAFETY: the caller's promise; the remainder is in range.
        unsafe {
            if (*span).live > MAX_SLICES || cfg!(feature = "hardened") {
                return span;
            }
            let number = self.next as usize % KEPT;
            self.next = self.next.wrapping_add(1);
            replace(self.spans.get_unchecked_mut(number), span)
        }
    }

    /// The one of `class` that was emptied last, which is kept no longer; null if there is none.
    pub(super) fn take(&mut self, class: SizeClass) -> *mut Span {
        for back in 1..=KEPT {
            let number = (self.next as usize).wrapping_sub(back) % KEPT;
            // SAFETY: the remainder is in range; retired spans are this heap's.
            unsafe {
                let slot = self.spans.get_unchecked_mut(number);
                if !slot.is_null() && (**slot).class as usize == class.index() {
                    return replace(slot, null_mut());
                }
            }
        }
        null_mut()
    }

    /// Any one of the classes from `first` on, which is kept no longer.
    pub(super) fn take_from(&mut self, first: SizeClass) -> Option<*mut Span> {
        // SAFETY: retired spans are this heap's.
        let due =
            |span: *mut Span| unsafe { !span.is_null() && (*span).class as usize >= first.index() };
        self.spans.iter_mut().find(|slot| due(**slot)).map(|slot| replace(slot, null_mut()))
    }

    /// Keeps none of them. They are lost.
    pub(super) fn forget(&mut self) {
        self.spans = [null_mut(); KEPT];
    }

    /// All of them.
    pub(super) fn each(&self) -> impl Iterator<Item = *mut Span> + '_ {
        self.spans.iter().copied().filter(|span| !span.is_null())
    }
}
