//! One bitmap span: its word of free blocks, its records, and the way from a block to its bit.
//!
//! # Invariants
//! 1. A record in whose slice a block begins holds the span's class, reciprocal and owner, and its
//!    own distance from the first record.
//! 2. Bit i of `free` and `remote` stands for the block at i times the class's size; the highest
//!    bit of either is a mark.

use core::ptr::null_mut;

use super::SizeClass;
use super::protocol::FULL;
use crate::fatal;
use crate::segment::{Kind, NOBODY, Reading, Span, slice_of};
use crate::sync::{AtomicU64, AtomicUsize};
use crate::units::{SLICE, SLICE_SHIFT};

/// Tag in `owner` that tells a bitmap span of a heap from its slabs.
pub(crate) const OWNED: usize = 2;
/// In `free`: the span is listed as partly free.
pub(super) const LISTED: u64 = 1 << 63;

struct NoSpan(Span);
// SAFETY: nobody writes to it: it has no free block and is never listed, full or released.
unsafe impl Sync for NoSpan {}
static NO_SPAN: NoSpan = NoSpan(Span {
    owner: AtomicUsize::new(NOBODY),
    free: 0,
    live: 0,
    class: 0,
    kind: Kind::Free,
    back: 0,
    listed: false,
    remote: AtomicU64::new(0),
    next: null_mut(),
    prev: null_mut(),
    full: 0,
    inverse: 0,
    carved: 0,
    capacity: 0,
});

#[inline(always)]
pub(super) fn no_span() -> *mut Span {
    (&raw const NO_SPAN.0).cast_mut()
}

/// The first record of the span that `record` belongs to, and the bit of `block` in it.
///
/// # Safety
/// `record` is the record of `block`'s slice, in a bitmap span in use.
#[inline(always)]
pub(crate) unsafe fn locate(record: *mut Span, block: *mut u8) -> (*mut Span, u64) {
    // SAFETY: `back` leads from any record of a span to its first, in the same segment.
    unsafe {
        let back = (*record).back as usize;
        let offset = (block.addr() & (SLICE - 1)) + (back << SLICE_SHIFT);
        let number = (offset as u64 * u64::from((*record).inverse)) >> 32;
        (record.sub(back), 1 << (number & 63))
    }
}

/// Ends the process. As far as the compiler is told it returns, so that the fast paths jump here and
/// need no frame for a call.
#[cold]
#[inline(never)]
pub(super) fn freed_twice(block: *mut u8) {
    if core::hint::black_box(true) {
        fatal::report("double free", block.addr(), 0)
    }
}

/// Ends the process, or tells its callback: no block begins there, and nothing was changed.
#[cold]
#[inline(never)]
pub(super) fn not_a_block(address: *mut u8) {
    fatal::fault("free of an address inside an object", address.addr(), 0);
}

/// The blocks of a span that were never handed out and are still zero: kept in the second record,
/// which spans of classes that know it have.
#[inline(always)]
pub(super) fn zero_mask(span: *mut Span) -> *mut u64 {
    // SAFETY: only the address is computed; a span of such a class has two slices at least.
    unsafe { &raw mut (*span.add(1)).full }
}

/// The blocks of a span that were free when its heap last looked for pages to let go of: kept as [`zero_mask`] is.
#[inline(always)]
pub(super) fn free_before(span: *mut Span) -> *mut u64 {
    // SAFETY: as there.
    unsafe { &raw mut (*span.add(1)).free }
}

/// Hands out the lowest block of `free`, which is the span's mask and not 0.
///
/// # Safety
/// The caller owns the span, of that class.
#[inline(always)]
pub(super) unsafe fn take_lowest(span: *mut Span, free: u64, class: SizeClass) -> *mut u8 {
    // SAFETY: the caller's promise; bit i stands for the block at i times the class's size.
    unsafe {
        (*span).free = free & (free - 1);
        if class.knows_zero() {
            *zero_mask(span) &= !(free & free.wrapping_neg());
        }
        let block = slice_of(span).add(free.trailing_zeros() as usize * class.size());
        // Callers ask whether they got one, and need not ask again.
        core::hint::assert_unchecked(!block.is_null());
        block
    }
}

/// Calls `visit` with each record of a span in whose slice a block begins, and its distance from
/// the first. No address handed out leads to the others.
///
/// # Safety
/// The caller owns the span, whose class and mask of blocks are set.
#[inline]
pub(super) unsafe fn for_each_record(span: *mut Span, mut visit: impl FnMut(*mut Span, u8)) {
    // SAFETY: blocks lie inside the span, so their slices' records do too.
    unsafe {
        let size = SizeClass::from_index((*span).class).size();
        // Not the number of bits: the lowest may be missing (SKIPPED).
        let blocks = 64 - (*span).full.leading_zeros() as usize;
        // Where blocks are no larger than slices, one begins in each up to the last one's.
        let step = size.max(SLICE);
        let end = blocks * size - size;
        let mut offset = 0;
        while offset <= end {
            let back = offset >> SLICE_SHIFT;
            visit(span.add(back), back as u8);
            offset += step;
        }
    }
}

/// Whether the first record of a span may say that at any moment, if `still` no other span can have begun there
/// since its first word was read: then all words are of one span, whose owner and others set and clear bits of
/// blocks, and marks.
pub(crate) fn may_say(says: &Reading, still: bool) -> bool {
    let Some(class) = SizeClass::from_number(says.class) else { return false };
    let slices = says.live as usize;
    if says.back != 0 || !class.may_have(slices) {
        return false;
    }
    let full = class.mask(slices);
    let bits = says.full == full && (says.free & !LISTED | says.remote & !FULL) & !full == 0;
    !still || bits && says.inverse == class.inverse()
}

/// Whether all records of a span agree with its first one; else one that does not.
///
/// # Safety
/// That one is as [`may_say`] has it, and nobody begins or ends the span meanwhile.
pub(crate) unsafe fn is_whole(span: *mut Span) -> Result<(), *mut Span> {
    let mut whole = Ok(());
    // SAFETY: the caller's promise; the records are only read.
    unsafe {
        let first = Reading::of(span);
        for_each_record(span, |record, back| {
            let says = Reading::of(record);
            let same = says.is(Kind::Bitmap)
                && (says.class, says.back) == (first.class, back)
                && (says.inverse, says.owner) == (first.inverse, first.owner);
            if !same {
                whole = Err(record);
            }
        });
    }
    whole
}

/// Tests a span of `class` that the heap `owner` holds.
///
/// # Safety
/// As [`Bitmaps::check`](super::Bitmaps::check).
pub(super) unsafe fn check_span(
    span: *mut Span,
    class: SizeClass,
    listed: u64,
    owner: usize,
) -> Result<(), (&'static str, usize)> {
    // SAFETY: the caller's promise.
    unsafe {
        let says = Reading::of(span);
        let sound = says.is(Kind::Bitmap)
            && says.class as usize == class.index()
            && says.owner == owner | OWNED
            && says.free & LISTED == listed
            && may_say(&says, true);
        let whole = if sound { is_whole(span) } else { Err(span) };
        whole.map_err(|record| ("a span record was overwritten", slice_of(record).addr()))
    }
}
