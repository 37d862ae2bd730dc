//! Records that are looked at while their owners change them: in which order they are written for that,
//! and how they are read.
//!
//! Only slow paths write what stands here, in the order of these invariants; on x86_64 that costs nothing.
//!
//! # Invariants
//! 1. Of a record in use all that its use says from the start on was written before its kind, and its
//!    kind was [`Kind::Free`] between two uses. So the word that holds the kind is of one use at every moment.
//! 2. `carved` and `capacity` are set together, and `carved` never passes `capacity`.

use core::mem::offset_of;
use core::sync::atomic::fence;

use super::{Kind, Span};
use crate::sync::Ordering;

/// What a record says: `live` to `listed` as they stood together at one moment, all others later, of which
/// `inverse` to `capacity` stood together. A slice that is given back and used anew meanwhile may show words
/// of both uses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    pub(crate) live: u32,
    pub(crate) class: u8,
    /// The number of a [`Kind`], or none.
    pub(crate) kind: u8,
    pub(crate) back: u8,
    pub(crate) listed: u8,
    pub(crate) owner: usize,
    pub(crate) free: u64,
    pub(crate) remote: u64,
    pub(crate) full: u64,
    pub(crate) inverse: u32,
    pub(crate) carved: u16,
    pub(crate) capacity: u16,
}

/// Where the two words begin that are read at once.
const USE: usize = offset_of!(Span, live);
const ROOM: usize = offset_of!(Span, inverse);
const _: () = assert!(USE.is_multiple_of(8) && ROOM.is_multiple_of(8));
const _: () = assert!(offset_of!(Span, class) == USE + 4 && offset_of!(Span, kind) == USE + 5);
const _: () = assert!(offset_of!(Span, back) == USE + 6 && offset_of!(Span, listed) == USE + 7);
const _: () =
    assert!(offset_of!(Span, carved) == ROOM + 4 && offset_of!(Span, capacity) == ROOM + 6);

impl Reading {
    /// Whether the record's kind is `kind`.
    pub(crate) fn is(&self, kind: Kind) -> bool {
        self.kind == kind as u8
    }

    /// Reads a record.
    ///
    /// # Safety
    /// It is mapped.
    pub(crate) unsafe fn of(record: *const Span) -> Self {
        // SAFETY: the caller's promise; both words lie inside the record and are aligned, so that the processor
        // reads each at once.
        unsafe {
            let word = |at: usize| record.cast::<u8>().add(at).cast::<u64>().read_volatile();
            let [l0, l1, l2, l3, class, kind, back, listed] = word(USE).to_ne_bytes();
            fence(Ordering::Acquire);
            let [i0, i1, i2, i3, c0, c1, p0, p1] = word(ROOM).to_ne_bytes();
            Reading {
                live: u32::from_ne_bytes([l0, l1, l2, l3]),
                class,
                kind,
                back,
                listed,
                owner: (*record).owner.load(Ordering::Relaxed),
                free: (&raw const (*record).free).read_volatile(),
                remote: (*record).remote.load(Ordering::Relaxed),
                full: (&raw const (*record).full).read_volatile(),
                inverse: u32::from_ne_bytes([i0, i1, i2, i3]),
                carved: u16::from_ne_bytes([c0, c1]),
                capacity: u16::from_ne_bytes([p0, p1]),
            }
        }
    }
}

impl Span {
    /// Says what a slice is used for, once its record says all else of that use.
    ///
    /// # Safety
    /// The slice is the caller's, and its kind is free.
    #[inline(always)]
    pub(crate) unsafe fn begin_use(record: *mut Span, kind: Kind) {
        fence(Ordering::Release);
        // SAFETY: the caller's promise.
        unsafe { (&raw mut (*record).kind).write_volatile(kind) };
    }

    /// Says that a slice is used no more, before its record says anything of another use.
    ///
    /// # Safety
    /// The slice is the caller's.
    #[inline(always)]
    pub(crate) unsafe fn end_use(record: *mut Span) {
        // Before it the owner: a fork may leave it at that.
        fence(Ordering::Release);
        // SAFETY: the caller's promise.
        unsafe { (&raw mut (*record).kind).write_volatile(Kind::Free) };
        fence(Ordering::Release);
    }

    /// Sets how many blocks a slab has handed out and can hold.
    ///
    /// # Safety
    /// The record is the caller's; `carved` is at most `capacity`.
    #[inline(always)]
    pub(crate) unsafe fn set_room(record: *mut Span, carved: u16, capacity: u16) {
        let ([c0, c1], [p0, p1]) = (carved.to_ne_bytes(), capacity.to_ne_bytes());
        let both = u32::from_ne_bytes([c0, c1, p0, p1]);
        // SAFETY: the caller's promise; the two lie side by side (asserted above), aligned for one store.
        unsafe { (&raw mut (*record).carved).cast::<u32>().write_volatile(both) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_says_what_the_record_says() {
        // SAFETY: zeros are a record of a free slice, and the record is this test's.
        unsafe {
            let mut record: Span = core::mem::zeroed();
            let record = &raw mut record;
            (*record).owner.store(0x1000, Ordering::Relaxed);
            ((*record).free, (*record).live, (*record).class) = (2, 3, 4);
            ((*record).back, (*record).listed) = (5, true);
            (*record).remote.store(6, Ordering::Relaxed);
            ((*record).full, (*record).inverse) = (7, 8);
            Span::set_room(record, 9, 10);
            Span::begin_use(record, Kind::Bitmap);
            let says = Reading::of(record);
            assert_eq!((says.owner, says.free, says.live, says.class), (0x1000, 2, 3, 4));
            assert_eq!((says.back, says.listed, says.remote, says.full), (5, 1, 6, 7));
            assert_eq!((says.inverse, says.carved, says.capacity), (8, 9, 10));
            assert_eq!(((*record).carved, (*record).capacity), (9, 10));
            assert!(says.is(Kind::Bitmap) && (*record).kind == Kind::Bitmap);
            Span::end_use(record);
            assert!(Reading::of(record).is(Kind::Free));
        }
    }
}
