//! The fast path of frees in hardened builds: objects up to 952 bytes that are as they should be.
//!
//! All tests of `hardened` are made, but nothing is told apart: what fails one of them is judged again,
//! slowly, by whoever can say what is wrong with it. Three tests need no test of their own: an address
//! that is no multiple of 16, the first block of a span and blocks never handed out have no trailer of a
//! live object.

use super::hardened::inspect_freed;
use super::routing;
use super::seal::{Key, State, canary_is_whole, trailer, wiped};
use crate::options::{self, Hardening};
use crate::segment::{Kind, Segment, record_of, segment_at};
use crate::slab;
use crate::sync::Ordering;
use crate::thread::ThreadHeap;
use crate::units::{SEGMENT, SLICE, TRAILER};

/// A live object of a slab, with nothing wrong in it or around it.
pub(super) struct Sound {
    block: *mut u8,
    /// Bytes of the block, trailer included.
    capacity: usize,
    /// Bytes that were asked for.
    pub(super) size: usize,
    /// Its trailer.
    mark: u64,
}

impl Sound {
    /// The object at `block`; `None` if it is not of a slab or not sound.
    ///
    /// # Safety
    /// Nothing is asked of `block`. Its record is read only if the map of segments knows it.
    #[inline(always)]
    pub(super) unsafe fn at(block: *mut u8) -> Option<Self> {
        if segment_at(block.addr()) != Some(Segment::Pool) || block.addr() & (SEGMENT - SLICE) == 0
        {
            return None;
        }
        let record = record_of(block);
        // SAFETY: the records of a pool's segment are always mapped, and so are the slices of a slab,
        // whose blocks end at a multiple of their size.
        unsafe {
            if (*record).kind != Kind::Slab {
                return None;
            }
            let capacity = slab::block_size(record);
            let offset = block.addr() & (SLICE - 1);
            if slab::number_of(record, offset) * capacity != offset {
                return None;
            }
            let key = Key::of(block);
            let mark = trailer(block, capacity).load(Ordering::Relaxed);
            let size = key.live_size(mark);
            if size > capacity - TRAILER {
                return None;
            }
            if options::hardening(Hardening::Canary) {
                if !canary_is_whole(block, key, size, capacity) {
                    return None;
                }
                let before = block.sub(capacity);
                let stored = trailer(before, capacity).load(Ordering::Relaxed);
                let state = Key::of(before).state(stored, capacity - TRAILER);
                if matches!(state, State::Damaged) {
                    return None;
                }
            }
            Some(Sound { block, capacity, size, mark })
        }
    }
}

/// Frees an object.
///
/// # Safety
/// Nobody uses it any more, and `heap` is the calling thread's.
#[inline(always)]
pub(super) unsafe fn retire(object: Sound, heap: *mut ThreadHeap) {
    let Sound { block, capacity, size, mark } = object;
    // SAFETY: the object is the caller's, and with it its block.
    unsafe {
        if options::hardening(Hardening::Zero) {
            block.write_bytes(0, wiped(size, capacity));
        }
        trailer(block, capacity).store(!mark, Ordering::Relaxed);
        if options::hardening(Hardening::Quarantine) {
            quarantine(block, heap);
        } else {
            routing::deallocate(block);
        }
    }
}

/// Lets a freed block wait, and frees the one that waited longest in earnest.
///
/// # Safety
/// The block is of a slab and carries a freed object's trailer; `heap` is the calling thread's.
#[inline(always)]
pub(super) unsafe fn quarantine(block: *mut u8, heap: *mut ThreadHeap) {
    // SAFETY: the caller's promise; a block that leaves the quarantine entered it here.
    unsafe {
        let oldest = (*heap).quarantine.exchange_small(block);
        if oldest.is_null() {
            return;
        }
        let record = record_of(oldest);
        inspect_freed(oldest, slab::block_size(record));
        if (*record).owner.load(Ordering::Relaxed) != heap.addr() {
            return routing::deallocate(oldest);
        }
        if slab::put_back(record, oldest.cast()) {
            (*heap).slab_emptied(record);
        }
    }
}
