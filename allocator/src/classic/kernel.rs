//! What classic mode asks of the kernel, as plain numbers: 0 or `false` where the kernel refuses.
//!
//! Owns nothing; every call goes to the `os` floor, which leaves errno alone. Huge pages are never asked
//! for: `huge_pages` is a setting of production mode. Cost: one system call each, and one more for a
//! mapping's name; none for the clock and the thread's word.

use core::sync::atomic::AtomicU32;

use crate::os::{self, Kernel, Linux, Target};

/// Maps `bytes` (a multiple of the page size) of zeros, under the name that all our memory has in
/// /proc/PID/maps.
pub(crate) fn map(bytes: usize) -> usize {
    let Ok(at) = Linux.map(0, bytes) else { return 0 };
    Linux.label(at, bytes);
    at
}

/// Gives a mapping back.
///
/// # Safety
/// The range was mapped by [`map`] or [`remap`], and nobody uses it any more.
pub(crate) unsafe fn unmap(at: usize, bytes: usize) -> bool {
    // SAFETY: the caller's promise.
    unsafe { Linux.unmap(at, bytes) }.is_ok()
}

/// Makes a range read as zeros, its pages given back.
///
/// # Safety
/// The range is private memory without a file, and nobody needs its contents.
pub(crate) unsafe fn purge(at: usize, bytes: usize) -> bool {
    // SAFETY: the caller's promise.
    unsafe { Linux.purge(at, bytes) }.is_ok()
}

/// Resizes a mapping where it is, or else moves its pages to a fresh address.
///
/// # Safety
/// As for [`unmap`], for the range it leaves.
pub(crate) unsafe fn remap(at: usize, bytes: usize, wanted: usize) -> usize {
    // Pages that move take their name along.
    // SAFETY: the caller's promise.
    unsafe { Linux.remap(at, bytes, wanted, Target::Anywhere) }.unwrap_or(0)
}

/// `bytes` from the program break, at a multiple of `align`.
pub(crate) fn extend_break(bytes: usize, align: usize) -> usize {
    os::extend_break(bytes, align).map_or(0, |(start, _)| start)
}

/// Sleeps while `word` holds `value`.
pub(crate) fn futex_wait(word: &AtomicU32, value: u32) {
    os::futex_wait(word, value);
}

/// Wakes one sleeper.
pub(crate) fn futex_wake(word: &AtomicU32) {
    os::futex_wake(word, 1);
}

/// Nanoseconds of a clock that never goes back.
pub(crate) fn now_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes the timespec; the clock always exists, so errno stays.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// A word that differs from thread to thread.
pub(crate) fn thread_word() -> usize {
    os::thread_pointer()
}

/// Bytes of a page.
pub(crate) fn page() -> usize {
    os::page_size().max(1)
}
