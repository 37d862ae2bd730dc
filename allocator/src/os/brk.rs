//! The program break, through libc's `sbrk`.
//!
//! Only where this library owns malloc: beside glibc's own malloc `sbrk` has no lock that both
//! would respect. The caller holds a lock of ours.

use super::OsError;
use crate::units::round_up;

unsafe extern "C" {
    fn __errno_location() -> *mut i32;
}

/// Moves the break up so that `len` bytes at a multiple of `align` lie below it, and returns their
/// address and how many bytes lie between the old break and them, which are lost.
///
/// # Errors
/// When the break is blocked, limited, or was moved by somebody else in between.
pub(crate) fn extend_break(len: usize, align: usize) -> Result<(usize, usize), OsError> {
    // SAFETY: `sbrk` changes nothing but the break and errno, and errno is put back.
    unsafe {
        let errno = *__errno_location();
        let result = grow(len, align);
        *__errno_location() = errno;
        result
    }
}

/// # Safety
/// Nobody else moves the break by a raw `brk` at the same time.
unsafe fn grow(len: usize, align: usize) -> Result<(usize, usize), OsError> {
    let failed = OsError { call: "sbrk", errno: libc::ENOMEM };
    // SAFETY: the caller's promise; increments are positive and checked against overflow.
    unsafe {
        let now = libc::sbrk(0) as usize;
        if now == usize::MAX {
            return Err(failed);
        }
        let start = round_up(now, align);
        let increment = (start - now).checked_add(len).ok_or(failed)?;
        let old = libc::sbrk(isize::try_from(increment).map_err(|_| failed)?) as usize;
        if old == usize::MAX {
            return Err(failed);
        }
        // Another caller moved the break between the two calls: what we got is ours, but it is
        // usable only if the aligned range still fits.
        let start = round_up(old, align);
        if start + len > old + increment {
            return Err(failed);
        }
        Ok((start, start - old))
    }
}
