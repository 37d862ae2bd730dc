//! Empty slices that a heap keeps for its next slabs, and their way to and from the pool.
//!
//! A program that allocates and frees in phases passes slices to and fro. Each passage takes the pool's
//! lock, for which threads wait, and what one thread gives back another gets, whose processor then
//! fetches it line by line. So a heap keeps the slices it used last and, once it gave some back, passes
//! several at a time. Against 8 slices kept and one passed at a time, `bench-cli run threadtest` takes 0.91
//! of the time with four passed at once and 0.82 with 16 kept and eight passed, at the same peak of
//! resident memory. With 32 kept it is 0.73, but what a sleeping thread holds back after a burst would
//! pass 8 MiB.

use core::ptr::{self, null_mut};

use super::global::GLOBAL;
use crate::segment::Span;

/// Slices kept at most, while there are few heaps.
const KEPT: usize = 16;
/// Slices that a heap may keep however many there are.
const ALLOWED: usize = 8;
/// Slices that all heaps together keep, but for those that each may keep anyway.
const KEPT_BY_ALL: usize = 128;
/// Slices that travel at once.
const BATCH: usize = 8;

/// The spare slices of one heap, oldest first. Nobody owns them, and their records say so.
#[derive(Debug)]
pub(super) struct Spares {
    slices: [*mut Span; KEPT],
    count: usize,
    /// Whether this heap ever had too many.
    overflowed: bool,
}

impl Spares {
    /// The slice that was kept last; null if there is none and `node`'s pool has no batch.
    pub(super) fn take(&mut self, node: u32) -> *mut Span {
        if self.count == 0 && self.overflowed {
            let batch = self.slices.get_mut(..BATCH).unwrap_or_default();
            self.count = GLOBAL.spare_slices(node, batch);
        }
        let Some(last) = self.count.checked_sub(1) else { return null_mut() };
        self.count = last;
        self.slices.get(last).map_or(null_mut(), |&slice| slice)
    }

    /// Keeps an empty slice; what was kept longest may leave.
    ///
    /// # Safety
    /// The slice came from the pools as a run of one, and nobody owns it.
    pub(super) unsafe fn keep(&mut self, slice: *mut Span) {
        let most = (KEPT_BY_ALL / GLOBAL.registry().heaps().max(1)).clamp(ALLOWED, KEPT);
        if self.count >= most {
            self.overflowed = true;
            // SAFETY: spares are nobody's.
            unsafe { self.give_back(BATCH) };
        }
        if let Some(slot) = self.slices.get_mut(self.count) {
            *slot = slice;
            self.count += 1;
        }
    }

    /// Gives all of them back.
    pub(super) fn clear(&mut self) {
        self.overflowed = false;
        // SAFETY: spares are nobody's.
        unsafe { self.give_back(self.count) };
    }

    /// In a child of a fork: keeps none of them, since a visitor may have been giving them back. They are lost.
    pub(super) fn forget(&mut self) {
        self.count = 0;
    }

    /// Gives the `count` oldest back.
    ///
    /// # Safety
    /// So many are kept.
    unsafe fn give_back(&mut self, count: usize) {
        let Some(rest) = self.count.checked_sub(count) else { return };
        if let Some(oldest) = self.slices.get(..count) {
            // SAFETY: spares came from the pools, one slice each, and are nobody's.
            unsafe { GLOBAL.give_back_each(oldest) };
        }
        let slices = self.slices.as_mut_ptr();
        // SAFETY: both ranges lie within the first `self.count` slices.
        unsafe { ptr::copy(slices.add(count), slices, rest) };
        self.count = rest;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::vec::Vec;

    use super::*;

    #[test]
    fn what_is_kept_is_bounded_and_no_slice_is_lost_or_given_twice() {
        GLOBAL.ensure_ready();
        let mut spares = Spares { slices: [null_mut(); KEPT], count: 0, overflowed: false };
        assert!(spares.take(0).is_null(), "nothing is fetched before something was given back");
        let slices: Vec<_> =
            (0..3 * KEPT).map(|_| GLOBAL.slices(0, 1, 1, false).expect("memory").head).collect();
        for &slice in &slices {
            // SAFETY: fresh runs of one slice, which nobody owns.
            unsafe { spares.keep(slice) };
            assert!((1..=KEPT).contains(&spares.count));
        }
        let last = slices.last().copied().expect("not empty");
        assert_eq!(spares.take(0), last, "the slice used last comes first");
        // More than were kept come from the pool, unless another test has them all.
        let kept = spares.count;
        let taken: Vec<_> =
            (0..2 * KEPT).map(|_| spares.take(0)).take_while(|slice| !slice.is_null()).collect();
        assert!(taken.len() >= kept);
        assert_eq!(taken.iter().chain([&last]).collect::<HashSet<_>>().len(), taken.len() + 1);
        for slice in taken.into_iter().chain([last]) {
            // SAFETY: as above.
            unsafe { spares.keep(slice) };
        }
        spares.clear();
        assert_eq!((spares.count, spares.overflowed), (0, false));
        // SAFETY: as above.
        unsafe { spares.keep(GLOBAL.slices(0, 1, 1, false).expect("memory").head) };
        spares.forget();
        assert!(
            spares.take(0).is_null(),
            "a visitor that a fork interrupted may have given it back"
        );
        assert!(GLOBAL.used_pools().all(|pool| pool.check().is_ok()));
    }
}
