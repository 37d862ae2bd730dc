//! What is done when the kernel has no more memory: what is free elsewhere goes back to it, and the request is tried again.
//!
//! Cost: none before; then up to two walks over the pools, and one over all heaps, for each request that fails.

use crate::bitmap;
use crate::os;
use crate::thread::{GLOBAL, ThreadHeap, Tls};

/// Where memory is looked for when there is none.
#[derive(Clone, Copy, Debug)]
pub(super) enum Relief {
    /// In what this thread keeps, and in the pools.
    Here,
    /// In all heaps, which is dearer.
    Everywhere,
}

impl Relief {
    pub(super) const STEPS: [Self; 2] = [Relief::Here, Relief::Everywhere];
}

/// There was no memory for an object that takes `size` bytes with a mapping of its own: does what [`relieve`] does,
/// unless that cannot help; whether it did.
#[cold]
pub(super) fn relieve_for(size: usize, from: Relief, heap: *mut ThreadHeap, tls: Tls) -> bool {
    // More than there is cannot be given back, but where a limit is what is missing, it may be next to what is left.
    // No limit is in the way of what no address can hold.
    let may_help =
        size >> os::address_bits() == 0 && (size <= GLOBAL.mapped() || os::limit_may_allow(size));
    may_help && (heap.is_null() || relieve(from, heap, tls))
}

/// Memory is exhausted: gives back what is free where `from` says; whether that may have helped.
#[cold]
#[inline(never)]
pub(super) fn relieve(from: Relief, heap: *mut ThreadHeap, tls: Tls) -> bool {
    // SAFETY: this thread's heap, with nothing in the middle of a change.
    unsafe {
        match from {
            Relief::Here => (*heap).rest(bitmap::Pages::All, tls),
            Relief::Everywhere if !(*heap).collect_everywhere(tls) => return false,
            Relief::Everywhere => {}
        }
    }
    GLOBAL.relieve();
    true
}
