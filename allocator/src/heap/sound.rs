//! The fast paths of hardened builds: objects up to 952 bytes that are as they should be; and what is looked
//! at when a block leaves the quarantine.
//!
//! All tests of `hardened` are made, but nothing is told apart: what fails one of them is judged again,
//! slowly, by whoever can say what is wrong with it, and whether that check is switched on. Four tests need
//! no test of their own: an address that is no multiple of 16, one inside an object, the first block of a span
//! and blocks never handed out have no trailer of a live object, for its key is the address's own.

use core::hint::black_box;
use core::ptr::null_mut;

use super::seal::{Key, seal, small_canary_is_whole, trailer};
use super::{routing, wipe, zeros};
use crate::bitmap;
use crate::block::FaultKind;
use crate::fatal;
use crate::options::{self, Hardening};
use crate::sampling;
use crate::segment::{Kind, record_of, slab_at};
use crate::slab::{self, FREED, FRESH, SizeClass};
use crate::sync::Ordering;
use crate::thread::{BATCH, ThreadHeap};
use crate::units::TRAILER;

/// A live object of a slab, with nothing wrong in it or around it.
pub(super) struct Sound {
    pub(super) block: *mut u8,
    pub(super) class: SizeClass,
    /// Bytes of the block, trailer included.
    pub(super) capacity: usize,
    /// Bytes that were asked for.
    pub(super) size: usize,
}

impl Sound {
    /// The object at `block`; `None` if it is not of a slab that is known, or not sound.
    ///
    /// # Safety
    /// Nothing is asked of `block`. It is read only if it lies in a slab.
    #[inline(always)]
    pub(super) unsafe fn at(block: *mut u8) -> Option<Self> {
        let (class, capacity) = slab_at(block.addr().wrapping_sub(TRAILER))?;
        let (room, key) = (capacity - TRAILER, Key::of(block));
        // SAFETY: what lies before `block` is of a slab in use, hence mapped; as soon as it is the trailer
        // that belongs there, a block begins here, and all of it lies in the same slice.
        unsafe {
            let stored = trailer(block.wrapping_sub(capacity), capacity).load(Ordering::Relaxed);
            if key.before(capacity).number(stored) > FRESH {
                return None;
            }
            let size = key.number(trailer(block, capacity).load(Ordering::Relaxed)) as usize;
            let whole = size <= room && small_canary_is_whole(block, key, size, room);
            whole.then_some(Sound { block, class: SizeClass::from_index(class), capacity, size })
        }
    }
}

/// Frees an object.
///
/// # Safety
/// Nobody uses it any more, and `heap` is the calling thread's.
#[inline(always)]
pub(super) unsafe fn retire(object: Sound, heap: *mut ThreadHeap) {
    let Sound { block, class, capacity, .. } = object;
    // SAFETY: the object is the caller's, and with it its block.
    unsafe {
        if !(*heap).quarantine.put(class, block) {
            return retire_slowly(block, class, heap);
        }
        empty(block, capacity);
    }
}

/// Makes a block one that was freed.
///
/// # Safety
/// The block is of a slab of `capacity` bytes, and the caller's.
#[inline(always)]
pub(super) unsafe fn empty(block: *mut u8, capacity: usize) {
    let mark = Key::of(block).mark(FREED);
    // SAFETY: the caller's promise.
    unsafe {
        if options::hardening(Hardening::Zero) {
            wipe::wipe(block, capacity, mark);
        } else {
            trailer(block, capacity).store(mark, Ordering::Relaxed);
        }
    }
}

/// As [`retire`], if there is no room: then the oldest of its kind are freed in earnest.
///
/// # Safety
/// As [`retire`].
#[inline(never)]
unsafe fn retire_slowly(block: *mut u8, class: SizeClass, heap: *mut ThreadHeap) {
    // SAFETY: the caller's promise; what is in the quarantine entered it in `retire`, or came from this
    // heap's spans, and is nobody's.
    unsafe {
        empty(block, class.size());
        (*heap).quarantine.prepare(class, look);
        if (*heap).quarantine.put(class, block) {
            return;
        }
        for _ in 0..BATCH {
            let Some((block, _)) = (*heap).quarantine.take(class) else {
                if make_ready(heap, class) {
                    continue;
                }
                break;
            };
            let record = record_of(block);
            if (*record).owner.load(Ordering::Relaxed) != heap.addr() {
                routing::deallocate(block);
            } else if slab::put_back(record, block.cast()) {
                (*heap).slab_emptied(record);
            }
        }
        (*heap).quarantine.put(class, block);
    }
}

/// Makes a batch of blocks ready that waited long enough, if there is one; ends the process if somebody
/// wrote into one.
///
/// # Safety
/// `heap` is the calling thread's.
#[inline(always)]
unsafe fn make_ready(heap: *mut ThreadHeap, class: SizeClass) -> bool {
    let at_once = !options::hardening(Hardening::Quarantine);
    // SAFETY: the caller's promise; what waits is nobody's.
    unsafe {
        let quarantine = &mut (*heap).quarantine;
        quarantine.make_ready(class, at_once, |batch| inspect(batch, class.size()))
    }
}

/// As [`make_ready`], where the blocks are handed out and so count as allocated: false if the next sample
/// lies among them, which is for the floors to find.
///
/// # Safety
/// As [`make_ready`].
#[inline(always)]
unsafe fn make_ready_before_sample(heap: *mut ThreadHeap, class: SizeClass) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        if !sampling::is_on() {
            return make_ready(heap, class);
        }
        let made = (*heap).room(class) >= BATCH && make_ready(heap, class);
        if made {
            (*heap).pass(class, BATCH);
        }
        made
    }
}

/// Makes the block that has been ready longest an object of `size` bytes; null if there is none.
///
/// # Safety
/// `heap` is the calling thread's; the class has at least `size + TRAILER` bytes.
#[inline(always)]
pub(super) unsafe fn reuse(heap: *mut ThreadHeap, class: SizeClass, size: usize) -> *mut u8 {
    // SAFETY: the caller's promise; what left the quarantine is nobody's.
    unsafe {
        let taken = (*heap).quarantine.take(class);
        taken.map_or(null_mut(), |(block, capacity)| seal(block, size, capacity))
    }
}

/// As [`reuse`], when none is ready: makes others ready that waited, or are free in the current slab; null
/// if there are none without taking a lock.
///
/// # Safety
/// As [`reuse`].
pub(super) unsafe fn reuse_slowly(heap: *mut ThreadHeap, class: SizeClass, size: usize) -> *mut u8 {
    // SAFETY: the caller's promise.
    unsafe {
        if make_ready_before_sample(heap, class) {
            reuse(heap, class, size)
        } else {
            take_from_slab(heap, class, size)
        }
    }
}

/// As [`reuse_slowly`], when none waited long enough.
///
/// # Safety
/// As [`reuse`].
#[inline(never)]
unsafe fn take_from_slab(heap: *mut ThreadHeap, class: SizeClass, size: usize) -> *mut u8 {
    // SAFETY: the caller's promise; a block that was handed out begins with a link of no more use.
    unsafe {
        let mut block = routing::allocate_ready(class.size());
        if block.is_null() {
            block = routing::allocate_at_hand(class.size());
            if block.is_null() {
                return block;
            }
        }
        block.cast::<usize>().write(0);
        (*heap).quarantine.add_ready(class, look, || {
            let block = routing::allocate_ready(class.size());
            if !block.is_null() {
                block.cast::<usize>().write(0);
            }
            block
        });
        seal(block, size, class.size())
    }
}

/// Ends the process if somebody wrote into a freed block of a slab.
///
/// # Safety
/// The blocks, of `capacity` bytes, waited in the quarantine and are still in spans in use.
#[inline(always)]
unsafe fn inspect(batch: &[*mut u8], capacity: usize) {
    let bytes = if options::hardening(Hardening::Zero) { capacity - TRAILER } else { 0 };
    // The compiler would unroll a loop of known length, and run out of registers.
    let blocks = batch.get(..black_box(batch.len())).unwrap_or(&[]);
    // SAFETY: the caller's promise.
    unsafe {
        if !zeros::are_untouched(blocks, bytes, capacity) {
            complain(batch, bytes, capacity);
        }
    }
}

/// Ends the process, naming the first block that somebody wrote into.
///
/// # Safety
/// As [`inspect`].
#[cold]
#[inline(never)]
unsafe fn complain(batch: &[*mut u8], bytes: usize, capacity: usize) {
    for &block in batch {
        // SAFETY: the caller's promise.
        if unsafe { !zeros::are_untouched(&[block], bytes, capacity) } {
            fatal::report(FaultKind::UseAfterFree.line(), block.addr(), 0);
        }
    }
}

/// Ends the process if somebody wrote into a freed block of any kind.
///
/// # Safety
/// The block waited in the quarantine and is still in a span in use.
#[cold]
#[inline(never)]
pub(super) unsafe fn look(block: *mut u8) {
    // SAFETY: the caller's promise.
    unsafe {
        let record = record_of(block);
        if (*record).kind == Kind::Slab {
            inspect(&[block], slab::block_size(record));
        } else {
            let capacity = bitmap::SizeClass::from_index((*record).class).size();
            inspect_by(zeros::look_at_ends, block, capacity);
        }
    }
}

/// Ends the process if somebody wrote into a freed object above slabs.
///
/// # Safety
/// `block`, of `capacity` bytes, was freed and is still in a span in use.
pub(super) unsafe fn inspect_medium(block: *mut u8, capacity: usize) {
    // SAFETY: the caller's promise.
    unsafe { inspect_by(zeros::ends_are_zero, block, capacity) }
}

/// As [`inspect_medium`], where `ends_are_zero` looks at the zeros. [`look`] has one of its own: the compiler
/// keeps the other within the path that is taken often only if nobody else calls it.
///
/// # Safety
/// As [`inspect_medium`].
#[inline(always)]
unsafe fn inspect_by(
    ends_are_zero: unsafe fn(*mut u8, usize) -> bool,
    block: *mut u8,
    capacity: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let stored = trailer(block, capacity).load(Ordering::Relaxed);
        let size = Key::of(block).number(!stored) as usize;
        if size > capacity - TRAILER {
            fatal::report(FaultKind::UseAfterFree.line(), block.addr(), 0);
        }
        if options::hardening(Hardening::Zero)
            && !ends_are_zero(block, super::seal::wiped(size, capacity))
        {
            fatal::report(FaultKind::UseAfterFree.line(), block.addr(), size);
        }
    }
}
