//! The fast paths of hardened builds: objects up to 952 bytes that are as they should be; and what is looked
//! at when a block leaves the quarantine.
//!
//! All tests of `hardened` are made, but nothing is told apart: what fails one of them is judged again,
//! slowly, by whoever can say what is wrong with it. Four tests need no test of their own: an address
//! that is no multiple of 16, one inside an object, the first block of a span and blocks never handed out
//! have no trailer of a live object, for its key is the address's own.

use core::ptr;

use super::routing;
use super::seal::{Key, seal, small_canary_is_whole, trailer, wiped};
use super::wipe;
use crate::block::FaultKind;
use crate::fatal;
use crate::options::{self, Hardening};
use crate::sampling;
use crate::segment::{Kind, is_known, record_of};
use crate::slab::{self, FREED, FRESH, SizeClass};
use crate::sync::Ordering;
use crate::thread::{LOOKED_AT, Ring, ThreadHeap};
use crate::units::{SEGMENT, SLICE, TRAILER};

/// Blocks that leave a full ring at a time.
const ROOM: usize = 8;

/// A live object of a slab, with nothing wrong in it or around it.
pub(super) struct Sound {
    block: *mut u8,
    /// Bytes of the block, trailer included.
    capacity: usize,
    class: SizeClass,
    key: Key,
    /// Bytes that were asked for.
    pub(super) size: usize,
}

impl Sound {
    /// The object at `block`; `None` if it is not of a slab or not sound.
    ///
    /// # Safety
    /// Nothing is asked of `block`. Its record is read only if the map of segments knows it.
    #[inline(always)]
    pub(super) unsafe fn at(block: *mut u8) -> Option<Self> {
        if !is_known(block.addr()) || block.addr() & (SEGMENT - SLICE) == 0 {
            return None;
        }
        let record = record_of(block);
        // SAFETY: the records of a pool's segment are always mapped, and so are the slices of a slab,
        // in which no block begins that does not end in them.
        unsafe {
            if (*record).kind != Kind::Slab {
                return None;
            }
            let capacity = slab::block_size(record);
            let room = capacity - TRAILER;
            if (block.wrapping_add(room).addr() ^ block.addr()) >= SLICE {
                return None;
            }
            let key = Key::of(block);
            let size = key.number(trailer(block, capacity).load(Ordering::Relaxed)) as usize;
            if size > room || !small_canary_is_whole(block, key, size, room) {
                return None;
            }
            let stored = trailer(block.sub(capacity), capacity).load(Ordering::Relaxed);
            if key.before(capacity).number(stored) > FRESH {
                return None;
            }
            let class = SizeClass::from_index((*record).class);
            Some(Sound { block, capacity, class, key, size })
        }
    }
}

/// Frees an object.
///
/// # Safety
/// Nobody uses it any more, and `heap` is the calling thread's.
#[inline(always)]
pub(super) unsafe fn retire(object: Sound, heap: *mut ThreadHeap) {
    let Sound { block, capacity, class, key, .. } = object;
    // SAFETY: the object is the caller's, and with it its block.
    unsafe {
        if !(*heap).quarantine.ring(class).put(block) {
            return retire_slowly(block, class, heap);
        }
        wipe::wipe(block, capacity, key.mark(FREED));
    }
}

/// As [`retire`], when the ring is full.
///
/// # Safety
/// As [`retire`].
#[cold]
#[inline(never)]
unsafe fn retire_slowly(block: *mut u8, class: SizeClass, heap: *mut ThreadHeap) {
    // SAFETY: the caller's promise.
    unsafe {
        wipe::wipe(block, class.size(), Key::of(block).mark(FREED));
        quarantine(block, class, heap);
    }
}

/// Lets a freed block wait, and frees those that waited longest in earnest if there is no room.
///
/// # Safety
/// The block is of a slab and carries a freed object's trailer; `heap` is the calling thread's.
pub(super) unsafe fn quarantine(block: *mut u8, class: SizeClass, heap: *mut ThreadHeap) {
    // SAFETY: the caller's promise; a block that leaves the quarantine entered it here or in `retire`.
    unsafe {
        if (*heap).quarantine.ring(class).put(block) {
            return;
        }
        let ring = &raw mut *(*heap).quarantine.ring(class);
        (*ring).prepare(class);
        for _ in 0..ROOM {
            if sampling::is_on() {
                // What is ready is counted; none may be left over here.
                (*ring).make_some_ready(1, |block| inspect(block, class.size()));
            } else {
                (*ring).make_ready(|block| inspect(block, class.size()));
            }
            let Some((oldest, _)) = (*ring).take() else { break };
            let record = record_of(oldest);
            if (*record).owner.load(Ordering::Relaxed) != heap.addr() {
                routing::deallocate(oldest);
            } else if slab::put_back(record, oldest.cast()) {
                (*heap).slab_emptied(record);
            }
        }
        (*ring).put(block);
    }
}

/// Makes the block that waited longest an object of `size` bytes; null if none is ready.
///
/// # Safety
/// The ring is the calling thread's, of a class of at least `size + TRAILER` bytes.
#[inline(always)]
pub(super) unsafe fn reuse(ring: &mut Ring, size: usize) -> *mut u8 {
    // SAFETY: the caller's promise; what left the quarantine is nobody's.
    ring.take().map_or(ptr::null_mut(), |(block, capacity)| unsafe { seal(block, size, capacity) })
}

/// As [`reuse`], after making blocks ready; ends the process if somebody wrote into one.
///
/// # Safety
/// The heap is the calling thread's, and `class` serves `size + TRAILER` bytes.
pub(super) unsafe fn reuse_slowly(heap: *mut ThreadHeap, size: usize, class: SizeClass) -> *mut u8 {
    // SAFETY: the caller's promise; what waits is nobody's.
    unsafe {
        if sampling::is_on() {
            return reuse_counted(heap, size, class);
        }
        let ring = (*heap).quarantine.ring(class);
        ring.make_ready(|block| inspect(block, class.size()));
        reuse(ring, size)
    }
}

/// As [`reuse_slowly`], for as many blocks as may be handed out before the next sample.
///
/// # Safety
/// As [`reuse_slowly`].
#[cold]
unsafe fn reuse_counted(heap: *mut ThreadHeap, size: usize, class: SizeClass) -> *mut u8 {
    // SAFETY: the caller's promise.
    unsafe {
        let count = (*heap).room(class).min(LOOKED_AT as usize);
        if count == 0 {
            return ptr::null_mut();
        }
        let ring = &raw mut *(*heap).quarantine.ring(class);
        (*ring).make_some_ready(count as u8, |block| inspect(block, class.size()));
        let block = reuse(&mut *ring, size);
        if !block.is_null() {
            (*heap).pass(class, count);
        }
        block
    }
}

/// Ends the process if somebody wrote into a freed block of a slab.
///
/// # Safety
/// `block`, of `capacity` bytes, waited in the quarantine and is still in a span in use.
#[inline(always)]
unsafe fn inspect(block: *mut u8, capacity: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        if wipe::changes(block, capacity, Key::of(block).mark(FREED)) != 0 {
            complain(block, capacity);
        }
    }
}

/// Ends the process, unless the block is only not zero and needs not be.
///
/// # Safety
/// As [`inspect`].
#[cold]
#[inline(never)]
unsafe fn complain(block: *mut u8, capacity: usize) {
    // SAFETY: the caller's promise.
    let stored = unsafe { trailer(block, capacity).load(Ordering::Relaxed) };
    if stored != Key::of(block).mark(FREED) || options::hardening(Hardening::Zero) {
        fatal::report(FaultKind::UseAfterFree.line(), block.addr(), 0);
    }
}

/// Ends the process if somebody wrote into a freed object above slabs.
///
/// # Safety
/// `block`, of `capacity` bytes, was freed and is still in a span in use.
pub(super) unsafe fn inspect_medium(block: *mut u8, capacity: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        let stored = trailer(block, capacity).load(Ordering::Relaxed);
        let size = Key::of(block).number(!stored) as usize;
        if size > capacity - TRAILER {
            fatal::report(FaultKind::UseAfterFree.line(), block.addr(), 0);
        }
        if options::hardening(Hardening::Zero) && !wipe::ends_are_zero(block, wiped(size, capacity))
        {
            fatal::report(FaultKind::UseAfterFree.line(), block.addr(), size);
        }
    }
}
