//! What each pass notes beside a call.
//!
//! An observer wraps the calls; the loop knows nothing of it. Each pass is a type of its own, so
//! that the throughput pass pays for none of the others.

pub(crate) mod attribution;
pub(crate) mod footprint;
pub(crate) mod latency;
pub(crate) mod throughput;
pub(crate) mod verify;

use std::ffi::c_void;

use self::latency::OpKind;
use super::threads::Shared;

/// What a pass does around the operations of one thread.
pub(crate) trait Observer: Sized {
    /// Whether requested sizes are to be kept by slot.
    const SIZES: bool;

    /// The observer of thread `id`, made on that thread before its first operation.
    fn new(shared: &Shared<'_>, id: usize) -> Self;

    /// Makes one call.
    fn call(
        &mut self,
        kind: OpKind,
        size: usize,
        call: impl FnOnce() -> *mut c_void,
    ) -> *mut c_void;

    /// Writes to a fresh object.
    #[inline(always)]
    fn touch(&mut self, _size: usize, write: impl FnOnce()) {
        write();
    }

    /// An object was born.
    #[inline(always)]
    fn born(&mut self, _slot: usize, _p: *mut u8, _birth: Birth) {}

    /// An object of `size` bytes is about to be released, or passed to `realloc`.
    #[inline(always)]
    fn dying(&mut self, _slot: usize, _p: *mut u8, _size: usize) {}

    /// A `realloc` failed; the object of `size` bytes lives on.
    #[inline(always)]
    fn survived(&mut self, _slot: usize, _p: *mut u8, _size: usize) {}

    /// The allocator was asked for the usable size.
    #[inline(always)]
    fn usable(&mut self, _slot: usize, _p: *mut u8, _size: usize, _usable: usize) {}

    /// The object at `p` changed its slot.
    #[inline(always)]
    fn moved(&mut self, _from: usize, _to: usize, _p: *mut u8, _size: usize) {}

    /// The next operation was meant to begin at this time of the monotonic clock.
    #[inline(always)]
    fn intended(&mut self, _at_ns: u64) {}

    /// A place of the stream is done.
    #[inline(always)]
    fn place(&mut self) {}

    /// The thread's stream is done.
    fn finish(&mut self, _shared: &Shared<'_>, _id: usize) {}
}

/// How an object came to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Birth {
    pub(crate) size: usize,
    /// Alignment that was asked for; 0 where none was.
    pub(crate) align: usize,
    /// Its bytes must be zero.
    pub(crate) zeroed: bool,
    /// Its first bytes must be those of the object of this size that was passed to `realloc`.
    pub(crate) kept: usize,
}
