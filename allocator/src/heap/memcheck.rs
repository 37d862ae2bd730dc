//! What builds for valgrind put around every call: memcheck learns which bytes are objects.
//!
//! Memcheck cannot stand in for an allocator that is to be run itself. Told of every object, it finds
//! in programs on this library what it finds on glibc's: bytes read before they are written, accesses
//! outside objects and after their free, wrong and double frees, leaks. Freed blocks are no memory to
//! it, yet the heap keeps links there: see [`unwatched`].

use core::ptr;

use super::routing;
use crate::os::{Request, ask, unwatched};

/// Bytes behind every object, at least, that are no memory to the program.
const RED_ZONE: usize = 16;

/// Declares what `work` gives for so many bytes an object of `size` bytes.
fn declared(size: usize, zeroed: bool, work: impl FnOnce(usize) -> *mut u8) -> *mut u8 {
    unwatched(|| {
        let block = work(size.saturating_add(RED_ZONE));
        if !block.is_null() {
            // SAFETY: just handed out.
            let usable = unsafe { routing::usable_size(block) };
            ask(Request::Forbidden, [block.addr(), usable, 0, 0]);
            ask(Request::Untouched, [block.addr(), usable, 0, 0]);
            ask(Request::Allocated, [block.addr(), size, 0, usize::from(zeroed)]);
        }
        block
    })
}

/// See [`routing::allocate`].
pub fn allocate(size: usize) -> *mut u8 {
    declared(size, false, routing::allocate)
}

/// See [`routing::allocate`].
pub(crate) fn allocate_known(size: usize) -> *mut u8 {
    allocate(size)
}

/// See [`routing::allocate_ready`]. Nothing lies ready: every call goes the long way, which tells.
pub fn allocate_ready(_size: usize) -> *mut u8 {
    ptr::null_mut()
}

/// See [`routing::allocate_at_hand`].
pub fn allocate_at_hand(_size: usize) -> *mut u8 {
    ptr::null_mut()
}

/// See [`routing::allocate_slowly`].
pub fn allocate_slowly(size: usize) -> *mut u8 {
    allocate(size)
}

/// See [`routing::allocate_unready`].
pub fn allocate_unready(size: usize) -> *mut u8 {
    allocate(size)
}

/// See [`routing::allocate_zeroed`].
pub fn allocate_zeroed(size: usize) -> *mut u8 {
    declared(size, true, routing::allocate_zeroed)
}

/// See [`routing::allocate_aligned`].
pub fn allocate_aligned(align: usize, size: usize) -> *mut u8 {
    declared(size, false, |size| routing::allocate_aligned(align, size))
}

/// See [`routing::deallocate`]. A wrong address is valgrind's to report before it is ours.
///
/// # Safety
/// As [`routing::deallocate`].
pub unsafe fn deallocate(block: *mut u8) {
    if !block.is_null() {
        ask(Request::Freed, [block.addr(), 0, 0, 0]);
    }
    // SAFETY: the caller's promise.
    unwatched(|| unsafe { routing::deallocate(block) });
}

/// See [`routing::deallocate_layout`].
///
/// # Safety
/// As there.
pub(crate) unsafe fn deallocate_layout(block: *mut u8, _align: usize, _size: usize) {
    // SAFETY: the caller's promise.
    unsafe { deallocate(block) }
}

/// See [`routing::reallocate`]. Always a new object, so that whoever keeps the old address is found.
///
/// # Safety
/// As [`routing::reallocate`].
pub unsafe fn reallocate(block: *mut u8, size: usize) -> *mut u8 {
    let new = allocate(size);
    if !new.is_null() {
        // SAFETY: the caller's promise; both objects have this many bytes.
        unsafe {
            ptr::copy_nonoverlapping(block, new, usable_size(block).min(size));
            deallocate(block);
        }
    }
    new
}

/// The bytes that were asked for, as valgrind's own `malloc_usable_size` says; outside valgrind see
/// [`routing::usable_size`].
///
/// # Safety
/// As [`routing::usable_size`].
pub unsafe fn usable_size(block: *mut u8) -> usize {
    // SAFETY: the caller's promise.
    let usable = unwatched(|| unsafe { routing::usable_size(block) });
    match unwatched(|| ask(Request::FirstUnaddressable, [block.addr(), usable, 0, 0])) {
        0 => usable,
        end => end - block.addr(),
    }
}
