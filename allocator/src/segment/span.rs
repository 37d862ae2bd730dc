//! The 128-byte record of a slice, and lists of such records.
//!
//! Neighbouring slices often belong to different threads, and every free writes to its slice's record.
//! Processors fetch lines in pairs (Intel's spatial prefetcher; on some arm64 a line has 128 bytes),
//! so records of 64 bytes make threads take lines from each other that none of them shares: larson on
//! two threads takes 1.30 times as long with them, sh8bench and glibc-thread 1.21 (`bench-cli run larson
//! sh8bench glibc-thread --runs 9 --duration 60ms`, both builds in one run).

use core::ptr::null_mut;

use super::slice_of;
use crate::sync::{AtomicU64, AtomicUsize};

/// The owner of what belongs to no thread's heap.
pub(crate) const NOBODY: usize = 1;

/// What a slice is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Not in use.
    Free = 0,
    /// Blocks of one size class, linked through themselves.
    Slab = 1,
    /// Blocks of one size class, free ones in a bitmap.
    Bitmap = 2,
    /// An object with a mapping of its own.
    Huge = 3,
}

/// The record of one slice; a run of slices in one use is a span, described by its first record.
///
/// Whoever `owner` names (its thread, and no other) reads and writes the plain fields. In limbo
/// (see `slab::remote`) nobody does, and only `remote` changes.
///
/// | field | slab | bitmap span | huge object |
/// |---|---|---|---|
/// | `free` | first free block | mask of free blocks, bit 63: listed | base address |
/// | `live` | blocks carved and not in `free` | slices of the span | usable bytes, 0: all |
/// | `remote` | first carrier, FULL | mask of blocks, bit 63: FULL | bytes in use |
/// | `full` | – | mask of all blocks | offset of the object |
/// | `next` | list | list | mapped bytes (as address) |
/// | `prev` | list | list | bytes that may hold pages (as address) |
#[derive(Debug)]
#[repr(C, align(128))]
pub(crate) struct Span {
    pub(crate) owner: AtomicUsize,
    pub(crate) free: u64,
    pub(crate) live: u32,
    pub(crate) class: u8,
    pub(crate) kind: Kind,
    /// Slices between this record and its span's first.
    pub(crate) back: u8,
    /// Whether the span stands in a list of partly free spans.
    pub(crate) listed: bool,
    pub(crate) remote: AtomicU64,
    pub(crate) next: *mut Span,
    pub(crate) prev: *mut Span,
    pub(crate) full: u64,
    /// 2^32 / block size, rounded up: turns an offset into a block number.
    pub(crate) inverse: u32,
    /// Blocks handed out at least once, from the start of the span.
    pub(crate) carved: u16,
    pub(crate) capacity: u16,
}

impl Span {
    /// Bytes in use, from the start of a record. A huge object follows its record's at once.
    pub(crate) const BYTES: usize = 64;
}
const _: () = assert!(core::mem::offset_of!(Span, capacity) + size_of::<u16>() == Span::BYTES);

/// Record 0 of a segment: which of its slices are free.
#[derive(Debug)]
#[repr(C, align(128))]
pub(crate) struct Header {
    /// [`NOBODY`]: a stray address in slice 0 must match no heap.
    pub(crate) owner: AtomicUsize,
    /// Position in the pool's directory.
    pub(crate) index: u32,
    /// Slices mapped, slice 0 included; fewer than usual when memory is short.
    pub(crate) slices: u16,
    /// Which pool the segment belongs to, as the pool was told by its owner.
    pub(crate) pool: u16,
    /// Bit i: slice i is free.
    pub(crate) free: u128,
    /// Bit i: slice i is free and holds pages.
    pub(crate) dirty: u128,
    /// The dirty ones that were already dirty an epoch ago.
    pub(crate) old: u128,
    /// Hardened builds: the slices that nobody used yet, which end the process when they are touched.
    #[cfg(feature = "hardened")]
    pub(crate) unused: u128,
}

/// How much of a heap is tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// What its thread changes only inside the heap's door: lists and records.
    Records,
    /// The free blocks too. Nobody uses the heap meanwhile.
    Blocks,
}

/// What looking for empty spans came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reaped {
    /// Looked at.
    pub(crate) looked: u32,
    /// Taken.
    pub(crate) taken: u32,
}

/// Partly free spans of one heap and class, oldest first. Zeroed memory is an empty list.
///
/// # Invariants
/// 1. A span is in at most one list, and `listed` says so.
/// 2. All belong to the heap that owns the list.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct SpanList {
    head: *mut Span,
    tail: *mut Span,
}

impl SpanList {
    pub(crate) const EMPTY: Self = SpanList { head: null_mut(), tail: null_mut() };

    /// The span listed longest; null if there is none.
    #[inline]
    pub(crate) fn first(&self) -> *mut Span {
        self.head
    }

    /// The one span listed; null if there is none, or more.
    #[inline]
    pub(crate) fn only(&self) -> *mut Span {
        if self.head == self.tail { self.head } else { null_mut() }
    }

    /// Lists `span` as the last.
    ///
    /// # Safety
    /// The span belongs to the list's heap and is in no list.
    #[inline]
    pub(crate) unsafe fn push(&mut self, span: *mut Span) {
        // SAFETY: records stay mapped while their segment does, and these are the caller's.
        unsafe {
            (*span).listed = true;
            (*span).next = null_mut();
            (*span).prev = self.tail;
            if self.tail.is_null() {
                self.head = span;
            } else {
                (*self.tail).next = span;
            }
            self.tail = span;
        }
    }

    /// In a child of a fork: makes the list whole if another thread was taking a span out. The way from
    /// the head onwards is whole at every moment of that.
    ///
    /// # Safety
    /// The list belongs to the caller.
    pub(crate) unsafe fn mend(&mut self) {
        let (mut last, mut span) = (null_mut::<Span>(), self.head);
        // SAFETY: spans in the list are the caller's.
        unsafe {
            while !span.is_null() {
                (*span).prev = last;
                (*span).listed = true;
                (last, span) = (span, (*span).next);
            }
        }
        self.tail = last;
    }

    /// Tests the links, and each span by `test`; the first broken invariant is named.
    ///
    /// # Safety
    /// Nobody changes the list meanwhile.
    pub(crate) unsafe fn check(
        &self,
        mut test: impl FnMut(*mut Span) -> Result<(), (&'static str, usize)>,
    ) -> Result<(), (&'static str, usize)> {
        const BROKEN: &str = "a list of spans was overwritten";
        let (mut last, mut span) = (null_mut::<Span>(), self.head);
        while !span.is_null() {
            // SAFETY: what looks like a record is taken to be one of a segment in use.
            unsafe {
                // A span whose link leads back into the list is not the one that stands before there.
                if !super::may_be_record(span)
                    || (*span).prev != last
                    || (&raw const (*span).listed).cast::<u8>().read() != 1
                {
                    let at = if last.is_null() { span.addr() } else { slice_of(last).addr() };
                    return Err((BROKEN, at));
                }
                test(span)?;
                (last, span) = (span, (*span).next);
            }
        }
        if self.tail == last { Ok(()) } else { Err((BROKEN, slice_of(self.tail).addr())) }
    }

    /// Takes `span` out.
    ///
    /// # Safety
    /// The span is in this list.
    #[inline]
    pub(crate) unsafe fn remove(&mut self, span: *mut Span) {
        // SAFETY: its neighbours are in the same list and so belong to the same heap.
        unsafe {
            let (next, prev) = ((*span).next, (*span).prev);
            (*span).listed = false;
            if prev.is_null() {
                self.head = next;
            } else {
                (*prev).next = next;
            }
            if next.is_null() {
                self.tail = prev;
            } else {
                (*next).prev = prev;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Zeroed records.
    fn records() -> [Span; 4] {
        // SAFETY: a record of zeros is one of a free slice.
        unsafe { core::mem::zeroed() }
    }

    #[test]
    fn a_list_is_whole_again_whatever_of_a_removal_a_fork_saw() {
        for removed in 0..4 {
            for steps in 0..=2 {
                let mut records = records();
                let spans = records.each_mut().map(core::ptr::from_mut);
                let mut list = SpanList { head: null_mut(), tail: null_mut() };
                // SAFETY: the records are this test's.
                unsafe {
                    spans.iter().for_each(|&span| list.push(span));
                    // As `remove`, interrupted after so many of its stores.
                    let (span, next, prev) =
                        (spans[removed], (*spans[removed]).next, (*spans[removed]).prev);
                    if steps > 0 {
                        (*span).listed = false;
                    }
                    if steps > 1 {
                        if prev.is_null() { list.head = next } else { (*prev).next = next }
                    }
                    list.mend();
                    let mut seen = std::vec::Vec::new();
                    while !list.first().is_null() {
                        seen.push(list.first());
                        assert!((*list.first()).listed);
                        list.remove(list.first());
                    }
                    let kept = |span: &&*mut Span| steps < 2 || **span != spans[removed];
                    assert_eq!(
                        seen,
                        spans.iter().filter(kept).copied().collect::<std::vec::Vec<_>>()
                    );
                    assert!(list.tail.is_null());
                }
            }
        }
    }
}
