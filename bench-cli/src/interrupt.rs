//! Ctrl-C as a flag: whoever loops asks it and stops in order.

use std::sync::atomic::{AtomicBool, Ordering};

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Whether somebody pressed Ctrl-C (SIGINT) or asked the process to end (SIGTERM).
#[must_use]
pub fn requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}

/// From now on SIGINT and SIGTERM set the flag and nothing else, however often they come: for whoever
/// has to put something back before the process may end.
pub fn hold() {
    extern "C" fn note(_: libc::c_int) {
        REQUESTED.store(true, Ordering::Relaxed);
    }
    install(note);
}

/// From now on SIGINT and SIGTERM set the flag; the second one ends the process at once.
pub fn listen() {
    extern "C" fn note(signal: libc::c_int) {
        if REQUESTED.swap(true, Ordering::Relaxed) {
            // SAFETY: `_exit` may be called in a signal handler.
            unsafe { libc::_exit(128 + signal) }
        }
    }
    install(note);
}

fn install(handler: extern "C" fn(libc::c_int)) {
    // A file that may not grow (`ulimit -f`) is an error of whoever writes it. No SIG_IGN: programs
    // that are started from here would inherit it.
    extern "C" fn go_on(_: libc::c_int) {}
    for (signal, handler) in
        [(libc::SIGINT, handler), (libc::SIGTERM, handler), (libc::SIGXFSZ, go_on as _)]
    {
        // SAFETY: all-zero bytes are an action without flags and with an empty mask.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        // No SA_RESTART: whoever waits for a process has to wake up and look at the flag.
        action.sa_sigaction = handler as *const () as libc::sighandler_t;
        // SAFETY: the handlers touch one atomic at most, and at most call `_exit`: async-signal-safe.
        unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
    }
}
