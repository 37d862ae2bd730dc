//! Segments of 4 MiB cut into slices of 32 KiB, and the way from an address to its owner.
//!
//! A segment begins with one 128-byte [`Span`] record per slice; record 0 is the segment's own
//! [`Header`]. An address finds its record by arithmetic alone, so no page map is loaded, and the
//! records spread over all sets of the first-level cache, which headers inside the slices (all at
//! multiples of 32 KiB) would not.
//!
//! # Invariants
//! 1. A segment starts at a multiple of [`SEGMENT`]; huge objects keep this shape, so that every
//!    address handed out by any floor has a record.
//! 2. The `owner` of a record names a heap only while its slice belongs to that heap; else it is
//!    [`NOBODY`], or 0 in a slice that was never used.

#[cfg(feature = "hardened")]
mod hardened;
mod pool;
mod reading;
mod span;

#[cfg(feature = "hardened")]
pub(crate) use hardened::{
    Segment, begin_to_use, clear_trailers, forget, forget_slab, guard_slices, know_slab, note,
    prepare_blocks, segment_at, slab_at, unguard,
};
pub(crate) use pool::{Held, Origin, Pool, Run};
pub(crate) use reading::Reading;
pub(crate) use span::{Depth, Header, Kind, NOBODY, Reaped, Span, SpanList};

use crate::units::{SEGMENT, SLICE, SLICE_SHIFT, SLICES};

/// Where a heap gets slices from, and what else it is told about itself.
pub(crate) trait Supply {
    /// A run of `len` slices or, when memory is short, of fewer, but at least `least`; `large` if its blocks
    /// are at or above the mmap threshold.
    fn slices(&mut self, len: usize, least: usize, large: bool) -> Option<Run>;

    /// Takes the `len` slices of an empty span back.
    ///
    /// # Safety
    /// The run came from `slices`, of this heap or another, and nobody uses it any more.
    unsafe fn give_back(&mut self, span: *mut Span, len: usize);

    /// Keeps an empty span as it is laid out, for requests of its class; false if it is better given back.
    ///
    /// # Safety
    /// The span is this heap's, in no list, and holds no live block.
    unsafe fn keep(&mut self, _span: *mut Span) -> bool {
        false
    }

    /// Gives the pages that lie wholly in the range back; whether every byte of the range is zero afterwards.
    ///
    /// # Safety
    /// The range is part of a run from `slices`, and nobody needs what it holds.
    unsafe fn purge(&self, from: *mut u8, len: usize) -> bool;

    /// Counts bytes that [`Supply::purge`] made zero and that it will not be asked for again before they were used.
    fn note_purged(&self, _bytes: usize) {}

    /// The heap's identity: what its spans hold as `owner`, the low three bits apart.
    fn identity(&self) -> usize;

    /// Whether no second thread exists, so that plain stores may replace atomic exchanges.
    fn alone(&self) -> bool;
}

/// What hardened builds do to a run that becomes a span; nothing here.
///
/// # Safety
/// As in `hardened`.
#[cfg(not(feature = "hardened"))]
#[inline(always)]
pub(crate) unsafe fn prepare_blocks(_run: &Run, _size: usize, _blocks: usize, _guarded: usize) {}

/// Clears what tells of blocks that were freed; nothing here.
///
/// # Safety
/// As where builds are hardened.
#[cfg(not(feature = "hardened"))]
#[inline(always)]
pub(crate) unsafe fn clear_trailers(_base: *mut u8, _size: usize, _blocks: u32) {}

/// What hardened builds do to slices before their first use; nothing here.
///
/// # Safety
/// As in `hardened`.
#[cfg(not(feature = "hardened"))]
#[inline(always)]
pub(crate) unsafe fn begin_to_use(_segment: &mut Header, _start: usize, _len: usize) {}

/// What hardened builds do to a span that is given back; nothing here.
///
/// # Safety
/// As in `hardened`.
#[cfg(not(feature = "hardened"))]
#[inline(always)]
pub(crate) unsafe fn unguard(_span: *mut Span, _guarded: usize) -> bool {
    true
}

const RECORD_SHIFT: usize = 7;
const _: () = assert!(size_of::<Span>() == 1 << RECORD_SHIFT, "one pair of cache lines a record");
const _: () = assert!(size_of::<Header>() == size_of::<Span>(), "the header is record 0");
const _: () = assert!(SLICES << RECORD_SHIFT <= SLICE, "the records fit slice 0");

/// The record of the slice that `address` lies in.
#[inline(always)]
pub(crate) fn record_of(address: *mut u8) -> *mut Span {
    address
        .map_addr(|a| {
            (a & !(SEGMENT - 1))
                + ((a >> (SLICE_SHIFT - RECORD_SHIFT)) & ((SLICES - 1) << RECORD_SHIFT))
        })
        .cast()
}

/// The first byte of the slice that `record` describes.
#[inline(always)]
pub(crate) fn slice_of(record: *mut Span) -> *mut u8 {
    record
        .cast::<u8>()
        .map_addr(|a| (a & !(SEGMENT - 1)) + ((a & (SEGMENT - 1)) << (SLICE_SHIFT - RECORD_SHIFT)))
}

/// Whether a record of a slice could lie there.
pub(crate) fn may_be_record(record: *mut Span) -> bool {
    let at = record.addr() & (SEGMENT - 1);
    at.is_multiple_of(size_of::<Span>()) && (1..SLICES).contains(&(at >> RECORD_SHIFT))
}

/// The header of the segment that `address` lies in.
#[inline(always)]
pub(crate) fn header_of(address: *mut u8) -> *mut Header {
    address.map_addr(|a| a & !(SEGMENT - 1)).cast()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_of_a_slice_leads_to_one_record_and_back() {
        let base = 7 * SEGMENT;
        for slice in 1..SLICES {
            let start = core::ptr::without_provenance_mut::<u8>(base + slice * SLICE);
            let record = record_of(start);
            assert_eq!(record.addr(), base + slice * size_of::<Span>());
            assert_eq!(record_of(start.wrapping_add(SLICE - 1)), record);
            assert_eq!(slice_of(record), start);
        }
    }
}
