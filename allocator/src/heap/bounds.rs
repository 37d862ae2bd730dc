//! Hardened builds: whether bytes that a program is about to copy or fill belong to one object.
//!
//! The C face asks before `memcpy`, `memmove` and `memset` write. An address leads to its span record,
//! the record to the block, the block's trailer to the size that was asked for: what begins in an object
//! must end in it, and nothing is written to a block that is free. Memory outside the heap is nobody's
//! business here.
//!
//! # Cost
//! A load and a shift outside the heap; inside it a multiplication and four loads more.

use core::ptr;

use super::seal::{Key, State, trailer};
use crate::bitmap;
use crate::block::FaultKind;
use crate::classic;
use crate::fatal;
use crate::huge;
use crate::options::{self, Hardening};
use crate::segment::{Kind, Segment, Span, header_of, record_of, segment_at, slice_of};
use crate::slab;
use crate::sync::Ordering;
use crate::units::{SEGMENT, SLICE, SLICE_SHIFT, TRAILER};

/// Whether `len` bytes at `at` may be written; if not, the process ends, or its callback was told and
/// nothing should be written.
#[inline]
pub fn may_write(at: usize, len: usize) -> bool {
    let Some(segment) = segment_at(at) else { return true };
    if len == 0 || classic::is_configured() || !options::hardening(Hardening::Copies) {
        return true;
    }
    let start = ptr::with_exposed_provenance_mut(at);
    // SAFETY: the map of segments knows the address.
    let fault = unsafe {
        match segment {
            Segment::Pool => fault_of_write(start, len),
            Segment::Huge => fault_of_huge_write(start, len),
        }
    };
    match fault {
        None => true,
        Some(kind) => {
            fatal::fault(kind.line(), at, len);
            false
        }
    }
}

/// What is wrong with writing `len` bytes at `at`, if anything.
///
/// # Safety
/// `at` lies in a segment of a pool.
#[inline(never)]
unsafe fn fault_of_write(at: *mut u8, len: usize) -> Option<FaultKind> {
    if at.addr() & (SEGMENT - 1) < SLICE {
        return None;
    }
    // SAFETY: records of a pool's segment are mapped, and of a span in use they do not change; if the
    // span is being given up meanwhile, the program writes into what it has freed.
    unsafe {
        let record = record_of(at);
        let Some((block, capacity)) = block_at(at) else {
            return meets_a_later_block(at, len).then_some(FaultKind::Overflow);
        };
        let stored = trailer(block, capacity).load(Ordering::Relaxed);
        let (key, room) = (Key::of(block), capacity - TRAILER);
        let state = match (*record).kind {
            Kind::Slab => key.slab_state(stored, room),
            _ => key.state(stored, room),
        };
        let offset = at.addr() - block.addr();
        match state {
            State::Live(size) if offset <= size && len <= size - offset => None,
            State::Live(_) | State::Damaged => Some(FaultKind::Overflow),
            State::Freed => Some(FaultKind::UseAfterFree),
            State::Fresh => Some(FaultKind::CorruptHeader),
        }
    }
}

/// As [`fault_of_write`], in the first 4 MiB of an object with a mapping of its own, unless it was asked
/// for with an alignment.
///
/// # Safety
/// `at` lies in a segment that begins with the record of such an object.
#[cold]
#[inline(never)]
unsafe fn fault_of_huge_write(at: *mut u8, len: usize) -> Option<FaultKind> {
    let record = header_of(at).cast::<Span>();
    let block = record.cast::<u8>().wrapping_add(Span::BYTES);
    // SAFETY: the first page of the mapping is mapped, and any bytes are a record but for its kind,
    // which is therefore read as a byte.
    unsafe {
        let kind = (&raw const (*record).kind).cast::<u8>().read();
        if kind != Kind::Huge as u8 || !huge::is_object(record, block) || !huge::is_intact(record) {
            return None;
        }
        let capacity = huge::usable(record);
        let stored = trailer(block, capacity).load(Ordering::Relaxed);
        let State::Live(size) = Key::of(block).state(stored, capacity - TRAILER) else {
            return None;
        };
        if at.addr() < block.addr() {
            return Some(FaultKind::CorruptHeader);
        }
        let offset = at.addr() - block.addr();
        (offset > size || len > size - offset).then_some(FaultKind::Overflow)
    }
}

/// Whether one of `len` bytes is of a block that begins behind the first, which lies in a slice without
/// a record of its own: inside an object, or where none is.
///
/// # Safety
/// As [`block_at`].
#[cold]
unsafe fn meets_a_later_block(at: *mut u8, len: usize) -> bool {
    let segment_end = at.addr() | (SEGMENT - 1);
    let last = at.addr().saturating_add(len - 1).min(segment_end);
    let mut end = at.addr() | (SLICE - 1);
    while end < last {
        end = (end + SLICE).min(last);
        // SAFETY: in the same segment, behind its records.
        if let Some((block, _)) = unsafe { block_at(at.with_addr(end)) } {
            return block.addr() > at.addr();
        }
    }
    false
}

/// The block that an address lies in and its capacity, if the slice has a record of its own.
///
/// # Safety
/// `at` lies in a segment of a pool, behind its records.
unsafe fn block_at(at: *mut u8) -> Option<(*mut u8, usize)> {
    let record = record_of(at);
    // SAFETY: the caller's promise.
    unsafe {
        match (*record).kind {
            Kind::Slab => slab_block(record, at),
            Kind::Bitmap => bitmap_block(record, at),
            Kind::Free | Kind::Huge => None,
        }
    }
}

/// The block of a slab that an address lies in, and its capacity; `None` behind the last one.
///
/// # Safety
/// `record` is that of the address's slice, of a slab in use.
#[inline(always)]
unsafe fn slab_block(record: *mut Span, at: *mut u8) -> Option<(*mut u8, usize)> {
    // SAFETY: the caller's promise.
    unsafe {
        let capacity = slab::block_size(record);
        let offset = at.addr() - slice_of(record).addr();
        let number = slab::number_of(record, offset);
        // The first block is never handed out: what begins there ran out of the front of another.
        let carved = usize::from((*record).carved);
        (number < carved).then(|| (slice_of(record).add(number * capacity), capacity))
    }
}

/// As [`slab_block`], for a bitmap span.
///
/// # Safety
/// As [`slab_block`].
#[inline(always)]
unsafe fn bitmap_block(record: *mut Span, at: *mut u8) -> Option<(*mut u8, usize)> {
    // SAFETY: the caller's promise; the records of a span have its class.
    unsafe {
        let capacity = bitmap::SizeClass::from_index((*record).class).size();
        let (_, bit) = bitmap::locate(record, at);
        let offset = (at.addr() & (SLICE - 1)) + (usize::from((*record).back) << SLICE_SHIFT);
        let start = bit.trailing_zeros() as usize * capacity;
        // Slices in which no block begins have no record of their own.
        (offset >= start && offset - start < capacity)
            .then(|| (at.wrapping_sub(offset.wrapping_sub(start)), capacity))
    }
}
