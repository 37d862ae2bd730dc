//! What hardened builds put around every object, and what they test before one is freed.
//!
//! The last eight bytes of a block are its *trailer*: the size that was asked for, mixed with a secret
//! and the block's address; complemented when the block is free, and zero when it was never handed out.
//! Behind the size that was asked for stand up to eight bytes of *canary*. The first block of a span is
//! never handed out, so in front of every object stands the trailer of another block.
//!
//! | misuse | found by | when |
//! |---|---|---|
//! | double free, free of what was never handed out | the trailer | at the free |
//! | interior, misaligned, foreign address | span record, map of segments | at the free |
//! | write past the size asked for, by one byte or more | canary, trailer | at the free, realloc |
//! | write in front of the object | the trailer before it | at the free, realloc |
//! | write into a freed object | its zeros | when it leaves the quarantine |
//! | a size that is not the object's | the trailer | at the sized free |
//!
//! Freed objects are zeroed and wait in a quarantine of the thread's (see `thread::Quarantine`), so that
//! an address is not handed out again at once. Objects above 1 MiB end at an unmapped page and are
//! unmapped when freed.
//!
//! # Cost
//! Eight bytes per object and one block per span. Up to 952 bytes: malloc 34 instructions, free 77 up to 56
//! bytes, and 21 as the share of looking at zeros; above 56 bytes more by size (`cargo ci instructions`
//! counts). Larger ones take the long way. With `canary`, `zero` or `quarantine` switched off by
//! `ALLOCATOR_OPTIONS` the paths are the same, and leave out what is off: but a canary is then looked at, and
//! not believed.
//!
//! # Invariants
//! 1. Every block of a slab or bitmap span in use has a trailer in one of its three states.
//! 2. A block in the quarantine is free by its trailer and live as far as its span knows.

use core::ptr;

use super::nothing;
use super::place::{Place, place_of};
use super::routing;
use super::sampled;
use super::seal::{Key, State, canary_is_whole, seal, trailer, wiped};
use super::sound::{self, Sound};
use super::zeros;
use crate::bitmap::{self, MAX_BITMAP};
use crate::block::FaultKind;
use crate::classic;
use crate::fatal;
use crate::huge;
use crate::options::{self, Hardening};
use crate::segment::{Kind, record_of};
use crate::slab::{self, MAX_SLAB, SizeClass};
use crate::sync::Ordering;
use crate::thread::Tls;
use crate::units::{MAX_OBJECT, TRAILER, set_zero};

/// Objects up to this size are of slabs, unless their alignment is special.
const MAX_SMALL: usize = MAX_SLAB - TRAILER;

/// As [`seal`], for what any floor handed out; null stays null.
#[inline(never)]
fn seal_any(block: *mut u8, size: usize) -> *mut u8 {
    if block.is_null() || classic::is_configured() {
        return block;
    }
    // SAFETY: just handed out by a floor that has records, for `size + TRAILER` bytes.
    unsafe {
        let record = huge::huge_record(block);
        let capacity = match (*record).kind {
            Kind::Slab => {
                // A link of no more use.
                block.cast::<usize>().write(0);
                slab::block_size(record)
            }
            Kind::Bitmap => bitmap::SizeClass::from_index((*record).class).size(),
            _ => huge::usable(record),
        };
        seal(block, size, capacity)
    }
}

/// See [`routing::allocate`].
#[inline(always)]
pub fn allocate(size: usize) -> *mut u8 {
    let block = allocate_ready(size);
    if block.is_null() { allocate_unready(size) } else { block }
}

/// See [`routing::allocate`].
#[inline(always)]
pub(crate) fn allocate_known(size: usize) -> *mut u8 {
    allocate(size)
}

/// See [`routing::allocate_ready`]: an object in a block that left the quarantine.
#[inline(always)]
pub fn allocate_ready(size: usize) -> *mut u8 {
    // Nor is an object of no bytes served here.
    if size.wrapping_sub(1) >= MAX_SMALL {
        return ptr::null_mut();
    }
    let heap = Tls::here().heap();
    if heap.is_null() {
        return ptr::null_mut();
    }
    let class = SizeClass::of(size + TRAILER);
    // SAFETY: this thread's heap, and a class that serves the size.
    unsafe { sound::reuse(heap, class, size) }
}

/// See [`routing::allocate_slowly`].
#[inline(never)]
pub fn allocate_slowly(size: usize) -> *mut u8 {
    if size == 0 && !routing::own_heap(Tls::here()).is_null() {
        let nothing = nothing::allocate();
        if !nothing.is_null() {
            return nothing;
        }
    }
    if size > MAX_OBJECT - TRAILER {
        return ptr::null_mut();
    }
    seal_any(routing::allocate_slowly(size + TRAILER), size)
}

/// See [`routing::allocate_at_hand`].
#[inline]
pub fn allocate_at_hand(size: usize) -> *mut u8 {
    if size == 0 {
        return ptr::null_mut();
    }
    if size > MAX_SMALL {
        return seal_any(routing::allocate_at_hand(size.saturating_add(TRAILER)), size);
    }
    let heap = Tls::here().heap();
    if heap.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: this thread's heap, and a class that serves the size.
    unsafe { sound::reuse_slowly(heap, SizeClass::of(size + TRAILER), size) }
}

/// See [`routing::allocate_unready`].
#[inline(never)]
pub fn allocate_unready(size: usize) -> *mut u8 {
    let block = allocate_at_hand(size);
    if block.is_null() { allocate_slowly(size) } else { block }
}

/// See [`routing::allocate_zeroed`].
pub fn allocate_zeroed(size: usize) -> *mut u8 {
    if size > MAX_OBJECT - TRAILER {
        return ptr::null_mut();
    }
    if size > MAX_SMALL {
        return seal_any(routing::allocate_zeroed(size + TRAILER), size);
    }
    let block = allocate(size);
    if !block.is_null() {
        // SAFETY: an object of that many bytes that nobody else has.
        unsafe { set_zero(block, size) };
    }
    block
}

/// See [`routing::allocate_aligned`].
pub fn allocate_aligned(align: usize, size: usize) -> *mut u8 {
    if size > MAX_OBJECT - TRAILER {
        return ptr::null_mut();
    }
    seal_any(routing::allocate_aligned(align, size + TRAILER), size)
}

/// The block at `block` and the size of the object in it, or what is wrong.
///
/// # Safety
/// As [`place_of`].
unsafe fn open(block: *mut u8) -> Result<(Place, usize), FaultKind> {
    // SAFETY: the block was found in a span in use, or is a huge object.
    unsafe {
        let place = place_of(block)?;
        let (capacity, key) = (place.capacity, Key::of(block));
        let stored = trailer(block, capacity).load(Ordering::Relaxed);
        let small = place.kind == Kind::Slab;
        let state = |key: Key, stored| {
            let room = capacity - TRAILER;
            if small { key.slab_state(stored, room) } else { key.state(stored, room) }
        };
        let size = match state(key, stored) {
            State::Live(size) => size,
            State::Freed => return Err(FaultKind::DoubleFree),
            State::Fresh => return Err(FaultKind::InvalidFree),
            State::Damaged => return Err(FaultKind::Overflow),
        };
        if options::hardening(Hardening::Canary) {
            if !canary_is_whole(block, key, size, capacity) {
                return Err(FaultKind::Overflow);
            }
            if place.kind != Kind::Huge {
                let before = block.sub(capacity);
                let stored = trailer(before, capacity).load(Ordering::Relaxed);
                let key = Key::of(before);
                let damaged = matches!(state(key, stored), State::Damaged);
                if damaged && !key.is_being_written(stored) {
                    return Err(FaultKind::CorruptHeader);
                }
            }
        }
        Ok((place, size))
    }
}

#[cold]
#[inline(never)]
fn found(kind: FaultKind, block: *mut u8) {
    fatal::fault(kind.line(), block.addr(), 0);
}

/// See [`routing::deallocate`].
///
/// # Safety
/// As there.
#[inline]
pub unsafe fn deallocate(block: *mut u8) {
    // SAFETY: the caller's promise.
    unsafe { judge(block, |_| true) }
}

/// See [`routing::deallocate_sized`].
///
/// # Safety
/// As there.
pub unsafe fn deallocate_sized(block: *mut u8, size: usize) {
    // SAFETY: the caller's promise.
    unsafe { judge(block, |asked| asked == size) }
}

/// As [`deallocate_sized`], of C++: where memory came only after the new-handler was called, the C++ runtime asked for
/// it, who counts 0 bytes as one and rounds up to a multiple of the alignment `align`.
///
/// # Safety
/// As there.
pub unsafe fn deallocate_known(block: *mut u8, align: usize, size: usize) {
    let fits = |asked| asked == size || Some(asked) == size.max(1).checked_next_multiple_of(align);
    // SAFETY: the caller's promise.
    unsafe { judge(block, fits) }
}

/// See [`routing::deallocate_aligned`].
///
/// # Safety
/// As there.
pub unsafe fn deallocate_aligned(block: *mut u8, align: usize, size: usize) {
    let aligned = align.is_power_of_two() && block.addr() & (align - 1) == 0;
    // SAFETY: the caller's promise.
    unsafe { judge(block, |asked| asked == size && aligned) }
}

/// See [`routing::deallocate_layout`].
///
/// # Safety
/// As there.
pub(crate) unsafe fn deallocate_layout(block: *mut u8, align: usize, size: usize) {
    // SAFETY: the caller's promise.
    unsafe { deallocate_aligned(block, align, size) }
}

/// Frees `block` if nothing is wrong with it and `fits` its size.
///
/// # Safety
/// As [`routing::deallocate`].
#[inline(always)]
unsafe fn judge(block: *mut u8, fits: impl Fn(usize) -> bool) {
    // SAFETY: the caller's promise, as far as it was not found broken.
    unsafe {
        if let Some(object) = Sound::at(block)
            && fits(object.size)
        {
            let heap = Tls::here().heap();
            if !heap.is_null() {
                return sound::retire(object, heap);
            }
        }
        judge_closely(block, fits);
    }
}

/// As [`judge`], for whatever is not a whole object of a slab; tells what is wrong.
///
/// # Safety
/// As [`routing::deallocate`].
#[cold]
#[inline(never)]
unsafe fn judge_closely(block: *mut u8, fits: impl Fn(usize) -> bool) {
    if block.is_null() {
        return;
    }
    if nothing::holds(block.addr()) {
        let freed =
            if fits(0) { nothing::free(block.addr()) } else { Err(FaultKind::SizeMismatch) };
        return freed.unwrap_or_else(|kind| found(kind, block));
    }
    // SAFETY: the caller's promise, as far as it was not found broken.
    unsafe {
        if Tls::here().heap().is_null() && classic::is_configured() {
            return routing::deallocate(block);
        }
        match open(block) {
            Ok((_, size)) if !fits(size) => found(FaultKind::SizeMismatch, block),
            Ok((place, size)) => retire(block, place, size),
            Err(kind) => found(kind, block),
        }
    }
}

/// Frees an object that was found sound.
///
/// # Safety
/// The object is live, as `open` described it, and nobody uses it any more.
unsafe fn retire(block: *mut u8, place: Place, size: usize) {
    // SAFETY: the caller's promise; a block that leaves the quarantine entered it here.
    unsafe {
        if place.kind == Kind::Huge {
            return routing::deallocate(block);
        }
        let heap = Tls::here().heap();
        if place.kind == Kind::Slab {
            let class = SizeClass::from_index((*place.record).class);
            if heap.is_null() {
                sound::empty(block, place.capacity);
                return routing::deallocate(block);
            }
            return sound::retire(Sound { block, class, capacity: place.capacity, size }, heap);
        }
        if options::hardening(Hardening::Zero) {
            zeros::clear(block, wiped(size, place.capacity));
        }
        let mark = !Key::of(block).mark(size as u64);
        trailer(block, place.capacity).store(mark, Ordering::Relaxed);
        if heap.is_null() || !options::hardening(Hardening::Quarantine) {
            return routing::deallocate(block);
        }
        let oldest = (*heap).quarantine.exchange_medium(block);
        if oldest.is_null() {
            return (*heap).quarantine.prepare_medium(sound::look);
        }
        let capacity = bitmap::SizeClass::from_index((*record_of(oldest)).class).size();
        sound::inspect_medium(oldest, capacity);
        routing::deallocate(oldest);
    }
}

/// What was asked for: no byte behind it belongs to the program.
///
/// # Safety
/// `block` is live.
pub unsafe fn usable_size(block: *mut u8) -> usize {
    if classic::is_configured() {
        // SAFETY: the caller's promise.
        return unsafe { routing::usable_size(block) };
    }
    if nothing::holds(block.addr()) {
        nothing::look(block.addr()).unwrap_or_else(|kind| found(kind, block));
        return 0;
    }
    // SAFETY: the caller's promise, as far as it was not found broken.
    match unsafe { open(block) } {
        Ok((_, size)) => size,
        Err(kind) => {
            found(kind, block);
            0
        }
    }
}

/// Clears what an object of `old` bytes that becomes one of `size` in its block would show or leave behind: its
/// canary, which is made of the key, or what it held beyond.
///
/// # Safety
/// The object is live, and both sizes fit the block of `capacity` bytes with a trailer.
unsafe fn leave_nothing(block: *mut u8, old: usize, size: usize, capacity: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        if size > old {
            set_zero(block.add(old), TRAILER.min(capacity - TRAILER - old));
        } else if options::hardening(Hardening::Zero) {
            set_zero(block.add(size), wiped(old, capacity) - size);
        }
    }
}

/// See [`routing::reallocate`].
///
/// # Safety
/// As there.
pub unsafe fn reallocate(block: *mut u8, size: usize) -> *mut u8 {
    // SAFETY: the caller's promise, as far as it was not found broken.
    unsafe {
        if classic::is_configured() {
            return routing::reallocate(block, size);
        }
        if size > MAX_OBJECT - TRAILER {
            return ptr::null_mut();
        }
        if nothing::holds(block.addr()) {
            if let Err(kind) = nothing::look(block.addr()) {
                found(kind, block);
                return ptr::null_mut();
            }
            let new = allocate(size);
            if !new.is_null() {
                deallocate(block);
            }
            return new;
        }
        let (place, old) = match open(block) {
            Ok(object) => object,
            Err(kind) => {
                found(kind, block);
                return ptr::null_mut();
            }
        };
        let (needed, capacity) = (size + TRAILER, place.capacity);
        if needed <= capacity && (needed >= capacity / 2 || capacity <= 64) {
            leave_nothing(block, old, size, capacity);
            return seal(block, size, capacity);
        }
        if place.kind == Kind::Huge && needed > MAX_BITMAP {
            let moved = sampled::resize(place.record, block, needed);
            if !moved.is_null() {
                // The canary and the trailer that were behind it.
                set_zero(moved.add(old), capacity.min(size).saturating_sub(old));
                return seal_any(moved, size);
            }
        }
        let new = allocate(size);
        if !new.is_null() {
            ptr::copy_nonoverlapping(block, new, old.min(size));
            retire(block, place, old);
        } else if needed <= capacity {
            // A copy would have left nothing of it behind.
            leave_nothing(block, old, size, capacity);
            return seal(block, size, capacity);
        }
        new
    }
}
