//! The thread that gives free memory back while the program makes no calls (`purge=thread`).
//!
//! Started by the first slow call that finds enough memory held; sleeps in the kernel, takes a pool's
//! lock only if it is free, and has a heap, which takes over what was freed for sleeping threads. A forked
//! child has none until it asks again.

use core::ffi::c_void;
use core::ptr::{null, null_mut};

use super::global::GLOBAL;
use super::lifecycle::attach;
use super::tls::Tls;

/// Nanoseconds between two looks.
const PERIOD_NS: i64 = 250_000_000;

/// Starts the thread; without it everything works as if it had not been asked for.
pub(super) fn start() {
    let mut thread = 0;
    // SAFETY: `run` has the type libc asks for and lives in a library that is never unloaded; all
    // signals are blocked while the thread is created, so that it inherits a full mask.
    unsafe {
        let (mut all, mut before) = (core::mem::zeroed(), core::mem::zeroed());
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        let errno = *libc::__errno_location();
        if libc::pthread_create(&raw mut thread, null(), run, null_mut()) == 0 {
            libc::pthread_detach(thread);
        }
        *libc::__errno_location() = errno;
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, null_mut());
    }
}

extern "C" fn run(_: *mut c_void) -> *mut c_void {
    let period = libc::timespec { tv_sec: 0, tv_nsec: PERIOD_NS };
    let tls = Tls::here();
    loop {
        // SAFETY: sleeps; an early return only means an early look.
        unsafe { libc::nanosleep(&raw const period, null_mut()) };
        let heap = if tls.heap().is_null() { attach(tls) } else { tls.heap() };
        if !heap.is_null() {
            // SAFETY: this thread's heap.
            unsafe { (*heap).purge_idle(tls) };
        }
        GLOBAL.tick();
    }
}
