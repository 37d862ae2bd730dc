//! Hardened builds: which addresses are ours, memory that nobody may touch, and blocks that were
//! never handed out.
//!
//! A segment of small blocks has a slice every mebibyte that ends the process when it is touched, and
//! so have the pages between its records and its first slice: what runs along memory in either
//! direction meets one. A span of large blocks ends with such a slice of its own.
//!
//! Owns two bits per 4 MiB of address space, 16 MiB in all, of which a process touches a page or two, and
//! 4 KiB that remember the answers. Cost: a shift, a load and a comparison per free.

use super::{Header, Run, Span, slice_of};
use crate::options::{Hardening, checks_all, guard_is_due, hardening};
use crate::os;
use crate::sync::{AtomicU64, AtomicUsize, Ordering};
use crate::units::{SEGMENT, SLICE, SLICES, TRAILER, round_up};

/// Bits of a user address at most: 47 on x86_64, 48 on aarch64.
const ADDRESS_BITS: u32 = 48;
/// Two bits a unit.
const WORDS: usize = (1 << ADDRESS_BITS) / SEGMENT / 32;

static OURS: [AtomicU64; WORDS] = [const { AtomicU64::new(0) }; WORDS];

/// What 4 MiB of address space begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Segment {
    /// The records of a pool's slices.
    Pool = 1,
    /// The record of a huge object.
    Huge = 2,
}

/// The word of an address, and where its bits lie in it; `None` beyond user space.
#[inline(always)]
fn place(address: usize) -> Option<(&'static AtomicU64, usize)> {
    let unit = address / SEGMENT;
    Some((OURS.get(unit / 32)?, unit % 32 * 2))
}

/// Says what the segment at `address` begins with from now on.
pub(crate) fn note(address: usize, segment: Segment) {
    if let Some((word, shift)) = place(address) {
        word.fetch_or((segment as u64) << shift, Ordering::Relaxed);
    }
}

/// Says that it will be gone.
pub(crate) fn forget(address: usize) {
    let pool = recent(address);
    if pool.load(Ordering::Relaxed) == address / SEGMENT {
        pool.store(NO_UNIT, Ordering::Relaxed);
    }
    if let Some((word, shift)) = place(address) {
        word.fetch_and(!(3 << shift), Ordering::Relaxed);
    }
}

/// What the segment that `address` lies in begins with; `None` if it is not ours, or the later part
/// of a huge object.
#[inline(always)]
pub(crate) fn segment_at(address: usize) -> Option<Segment> {
    let (word, shift) = place(address)?;
    match word.load(Ordering::Relaxed) >> shift & 3 {
        1 => Some(Segment::Pool),
        2 => Some(Segment::Huge),
        _ => None,
    }
}

/// Pools' segments that were asked for, each where [`recent`] looks for it.
static RECENT: [AtomicUsize; RECENTS] = [const { AtomicUsize::new(NO_UNIT) }; RECENTS];
const RECENTS: usize = 512;
/// No segment's number, not even null's.
const NO_UNIT: usize = usize::MAX;

/// Where a segment stands that was asked for.
#[inline(always)]
fn recent(address: usize) -> &'static AtomicUsize {
    // SAFETY: the remainder is below the length.
    unsafe { RECENT.get_unchecked(address / SEGMENT % RECENTS) }
}

/// Whether `address` is known to lie in a segment of a pool; never before [`know`] or with a check
/// switched off, so that fast paths ask nothing else.
#[inline(always)]
pub(crate) fn is_known(address: usize) -> bool {
    recent(address).load(Ordering::Relaxed) == address / SEGMENT
}

/// Lets [`is_known`] know an address that lies in a segment of a pool.
pub(crate) fn know(address: usize) {
    if checks_all() {
        recent(address).store(address / SEGMENT, Ordering::Relaxed);
    }
}

/// Slices between two guards of a segment; the longest run of a small class fits between them.
const GUARD_EVERY: usize = 32;
/// Of pools with an odd number, which hold large blocks, the runs are too long for that.
const SMALL: u16 = 2;

/// Notes a new segment, and takes some of its slices away for ever; how many. `number` is its pool's.
///
/// # Safety
/// The segment is the caller's, and all its slices are free.
pub(crate) unsafe fn guard_slices(segment: *mut Header, number: u16) -> usize {
    note(segment.addr(), Segment::Pool);
    let records = round_up(SLICES * size_of::<Span>(), os::page_size());
    if !hardening(Hardening::Guard) || records >= SLICE {
        return 0;
    }
    let base = segment.addr();
    let mut guards = 0;
    // SAFETY: whole pages of free slices, and of slice 0 those behind the records.
    unsafe {
        os::guard(base + records, SLICE - records, true);
        if !number.is_multiple_of(SMALL) {
            return 0;
        }
        for slice in (GUARD_EVERY..(*segment).slices as usize).step_by(GUARD_EVERY) {
            if guard_is_due() && os::guard(base + slice * SLICE, SLICE, true) {
                (*segment).free &= !(1 << slice);
                guards += 1;
            }
        }
    }
    guards
}

/// Makes the `blocks` of a run look as if no byte of it had ever been used, as far as checks look, and
/// guards its last slice if it has `guarded` slices (0: no guard).
///
/// # Safety
/// The run is the caller's and holds that many blocks of `size` bytes, none in a guarded slice.
pub(crate) unsafe fn prepare_blocks(run: &Run, size: usize, blocks: usize, guarded: usize) {
    let base = slice_of(run.head);
    // SAFETY: the last word of blocks of the caller's; sizes are multiples of 16. A guard that the
    // kernel refuses is one check less.
    unsafe {
        if !run.zeroed {
            for block in 1..=blocks {
                base.add(block * size - TRAILER).cast::<u64>().write(0);
            }
        }
        if guarded > 0 && guard_is_due() {
            os::guard(base.addr() + (guarded - 1) * SLICE, SLICE, true);
        }
    }
}

/// Takes the guard of a span of `guarded` slices away, also where there is none.
///
/// # Safety
/// The span is the caller's and holds nothing that anybody needs.
pub(crate) unsafe fn unguard(span: *mut Span, guarded: usize) {
    if guarded > 0 {
        // SAFETY: the caller's promise.
        unsafe { os::guard(slice_of(span).addr() + (guarded - 1) * SLICE, SLICE, false) };
    }
}
