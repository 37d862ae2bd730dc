//! `errno` of the calling thread, and the three ways in which this face touches it.
//!
//! Cost: only failing calls come here, so everything is out of line.

use core::ffi::{c_int, c_void};

/// Sets `errno` of the calling thread.
#[cold]
pub(crate) fn set(code: c_int) {
    // SAFETY: libc returns the address of the calling thread's own errno, valid for the life of the thread.
    unsafe { *libc::__errno_location() = code };
}

/// Reads `errno` of the calling thread.
#[cold]
pub(crate) fn get() -> c_int {
    // SAFETY: as in `set`.
    unsafe { *libc::__errno_location() }
}

/// The failed allocation: `ENOMEM`, null.
#[cold]
#[inline(never)]
pub(crate) fn no_memory() -> *mut c_void {
    set(libc::ENOMEM);
    core::ptr::null_mut()
}

/// The alignment that is none: `EINVAL`, null.
#[cold]
#[inline(never)]
pub(crate) fn invalid() -> *mut c_void {
    set(libc::EINVAL);
    core::ptr::null_mut()
}

/// Hands out `p`, or reports that there is no memory.
#[inline(always)]
pub(crate) fn or_no_memory(p: *mut u8) -> *mut c_void {
    if p.is_null() { no_memory() } else { p.cast() }
}
