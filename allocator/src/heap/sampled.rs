//! Objects that are samples: served by the floor of huge objects whatever their size, so that their free
//! takes the long way; see `sampling`.
//!
//! Cost: a load and a test in each slow call while sampling is off.

use core::ptr;

use super::relief::{Relief, relieve_for};
use crate::bitmap::MAX_BITMAP;
use crate::huge;
use crate::sampling;
use crate::segment::Span;
use crate::slab::SizeClass;
use crate::thread::{GLOBAL, ThreadHeap, Tls};

/// Refills the bin of `class`, which is empty, and gives a block; null when memory is exhausted.
///
/// # Safety
/// The heap is the calling thread's.
#[inline]
pub(super) unsafe fn refill(heap: *mut ThreadHeap, class: SizeClass, tls: Tls) -> *mut u8 {
    // SAFETY: the caller's promise.
    unsafe {
        if !sampling::is_on() {
            if sampling::was_on() {
                let left = (*heap).put_rest_into_bin(class, tls);
                if !left.is_null() {
                    return left;
                }
            }
            return (*heap).allocate_slab(class, tls);
        }
        if (*heap).is_slab_sampled(class) {
            // Every block of the class is aligned like this, and whoever aligns relies on it.
            let align = 1 << class.size().trailing_zeros();
            let object = serve(class.size(), align, false);
            if !object.is_null() {
                return object;
            }
        }
        (*heap).allocate_slab_counted(class, tls)
    }
}

/// Counts an allocation of `bytes` bytes above slabs; the object, if it is a sample, else null.
///
/// # Safety
/// The heap is the calling thread's.
#[inline]
pub(super) unsafe fn take(
    heap: *mut ThreadHeap,
    bytes: usize,
    align: usize,
    zeroed: bool,
) -> *mut u8 {
    // SAFETY: the caller's promise.
    if sampling::is_on() && unsafe { (*heap).is_larger_sampled(bytes) } {
        return serve(bytes, align, zeroed);
    }
    ptr::null_mut()
}

/// An object that is a sample; null when memory is exhausted.
#[cold]
#[inline(never)]
fn serve(bytes: usize, align: usize, zeroed: bool) -> *mut u8 {
    let object = GLOBAL.allocate_huge(bytes, align, zeroed);
    if !object.is_null() {
        if bytes <= MAX_BITMAP {
            // SAFETY: just allocated, with that many bytes.
            unsafe { huge::limit_usable(huge::huge_record(object), bytes) };
        }
        sampling::note(object.addr(), bytes);
    }
    object
}

/// Counts an object of the floor of huge ones, just allocated; null is nothing.
///
/// # Safety
/// The heap is the calling thread's.
#[inline]
pub(super) unsafe fn count_huge(heap: *mut ThreadHeap, object: *mut u8, bytes: usize) {
    // SAFETY: the caller's promise.
    if sampling::is_on() && !object.is_null() && unsafe { (*heap).is_larger_sampled(bytes) } {
        sampling::note(object.addr(), bytes);
    }
}

/// Resizes a huge object as [`huge::Huge::resize`] does. To samples that is a free and an allocation.
///
/// # Safety
/// As there; `block` is the object.
pub(super) unsafe fn resize(record: *mut Span, block: *mut u8, bytes: usize) -> *mut u8 {
    // Before the address can become somebody else's.
    let sample = sampling::take(block.addr());
    let tls = Tls::here();
    let heap = tls.heap();
    // SAFETY: the caller's promise; a heap that is not null is the calling thread's.
    unsafe {
        if !heap.is_null() {
            (*heap).make_room();
        }
        let relieve = || {
            let from = |from| relieve_for(bytes, from, heap, tls);
            let here = from(Relief::Here);
            from(Relief::Everywhere) || here
        };
        let moved = GLOBAL.huge.resize(record, bytes, relieve);
        GLOBAL.level_huge();
        if moved.is_null() {
            sampling::restore(sample);
        } else if !heap.is_null() {
            count_huge(heap, moved, bytes);
        }
        // It may have grown to what makes one worth having.
        GLOBAL.start_purger_if_wanted();
        moved
    }
}
