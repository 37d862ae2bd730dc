//! The thread that gives free memory back while the program makes no calls (`purge=thread`).
//!
//! Started by the first slow call that finds enough memory held; sleeps in the kernel, and has a heap, which takes over
//! what was freed for sleeping threads. It ends when it is no longer wanted. The child of a fork has none until it asks
//! again; but where the parent's had not started yet, the child's starts like any.

use core::ffi::c_void;
use core::ptr::{null, null_mut};

use super::global::GLOBAL;
use super::lifecycle::attach;
use super::tls::Tls;
use crate::sync::{AtomicU32, Ordering};

/// Nanoseconds between two looks.
const PERIOD_NS: i64 = 250_000_000;

/// No thread, and none is wanted.
const OFF: u32 = 0;
/// None yet.
const WANTED: u32 = 1;
const RUNS: u32 = 2;
/// It is to end at its next look.
const UNWANTED: u32 = 3;

/// Whether there is a purging thread or should be one. There is never a second one.
#[derive(Debug)]
pub(super) struct Purger(AtomicU32);

impl Purger {
    pub(super) const fn new() -> Self {
        Purger(AtomicU32::new(OFF))
    }

    /// From here on a thread is `wanted`, or none.
    pub(super) fn want(&self, wanted: bool) {
        // The thread may end between two steps, so what it would turn into comes last.
        let steps = match wanted {
            true => [(UNWANTED, RUNS), (OFF, WANTED)],
            false => [(WANTED, OFF), (RUNS, UNWANTED)],
        };
        for (from, to) in steps {
            self.step(from, to);
        }
    }

    /// Whether a thread should be started.
    #[inline(always)]
    pub(super) fn is_wanted(&self) -> bool {
        self.0.load(Ordering::Relaxed) == WANTED
    }

    /// Starts the thread if it is still wanted. Where that fails there is none until it is wanted anew.
    pub(super) fn start(&self) {
        if self.step(WANTED, RUNS) && !start() {
            self.forget();
        }
    }

    /// The thread is not there, as in the child of a fork. One that is wanted and was not started yet stays so.
    pub(super) fn forget(&self) {
        for gone in [RUNS, UNWANTED] {
            self.step(gone, OFF);
        }
    }

    fn step(&self, from: u32, to: u32) -> bool {
        self.0.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// Starts the thread; whether that could be done. Without it everything works as if it had not been asked for.
fn start() -> bool {
    let mut thread = 0;
    // SAFETY: `run` has the type libc asks for and lives in an object that is never unloaded, see
    // `Allocator`; all
    // signals are blocked while the thread is created, so that it inherits a full mask.
    unsafe {
        let (mut all, mut before) = (core::mem::zeroed(), core::mem::zeroed());
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        let errno = *libc::__errno_location();
        let started = libc::pthread_create(&raw mut thread, null(), run, null_mut()) == 0;
        if started {
            libc::pthread_detach(thread);
        }
        *libc::__errno_location() = errno;
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, null_mut());
        started
    }
}

extern "C" fn run(_: *mut c_void) -> *mut c_void {
    let period = libc::timespec { tv_sec: 0, tv_nsec: PERIOD_NS };
    let tls = Tls::here();
    loop {
        // SAFETY: sleeps; an early return only means an early look.
        unsafe { libc::nanosleep(&raw const period, null_mut()) };
        if GLOBAL.purger.step(UNWANTED, OFF) {
            return null_mut();
        }
        let heap = if tls.heap().is_null() { attach(tls) } else { tls.heap() };
        if !heap.is_null() {
            // SAFETY: this thread's heap.
            unsafe { (*heap).purge_idle(tls) };
        }
        GLOBAL.tick();
    }
}
