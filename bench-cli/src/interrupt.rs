//! Ctrl-C as a flag: whoever loops asks it and stops in order.

use std::sync::atomic::{AtomicBool, Ordering};

static REQUESTED: AtomicBool = AtomicBool::new(false);
/// Whether it was SIGTERM or SIGHUP, which come to one process and not to the terminal's whole group.
static TERMINATED: AtomicBool = AtomicBool::new(false);

/// Whether somebody pressed Ctrl-C (SIGINT) or asked the process to end (SIGTERM).
#[must_use]
pub fn requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}

/// Whether the process alone was asked to end: a program that it started has not heard of it.
#[must_use]
pub fn requested_of_us_alone() -> bool {
    TERMINATED.load(Ordering::Relaxed)
}

/// From now on whatever asks the process to end sets the flag and nothing else, however often it
/// comes, a terminal that goes away or wants a core dump included: for whoever has to put something
/// back before the process may end.
pub fn hold() {
    extern "C" fn note(signal: libc::c_int) {
        let alone = matches!(signal, libc::SIGTERM | libc::SIGHUP);
        TERMINATED.fetch_or(alone, Ordering::Relaxed);
        REQUESTED.store(true, Ordering::Relaxed);
    }
    install(note);
    handle(libc::SIGHUP, note);
    handle(libc::SIGQUIT, note);
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
    handle(libc::SIGINT, handler);
    handle(libc::SIGTERM, handler);
    handle(libc::SIGXFSZ, go_on);
}

fn handle(signal: libc::c_int, handler: extern "C" fn(libc::c_int)) {
    // SAFETY: all-zero bytes are an action without flags and with an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // No SA_RESTART: whoever waits for a process has to wake up and look at the flag.
    action.sa_sigaction = handler as *const () as libc::sighandler_t;
    // SAFETY: the handlers touch atomics alone, and at most call `_exit`: async-signal-safe.
    unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
}
