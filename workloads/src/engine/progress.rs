//! Publishing and waiting between threads.
//!
//! A thread publishes only where the plan says that somebody waits. It then raises its counter
//! with a full fence and looks whether anybody sleeps; a waiter announces itself with a full fence
//! and looks at the counter again before it sleeps. One of the two sees the other, so no wakeup is
//! lost, and nothing else pays.
//!
//! Cost: a publication is one locked instruction and a load; a wait that is already satisfied is
//! one load.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Looks at the counter before a waiter goes to sleep.
const SPINS: u32 = 200;

/// One thread's counter of publications, alone in its cache lines.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub(crate) struct Progress {
    published: AtomicU32,
    sleepers: AtomicU32,
}

impl Progress {
    /// Tells waiters that one more awaited place is done.
    pub(crate) fn publish(&self) {
        self.published.fetch_add(1, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) != 0 {
            futex_wake(&self.published);
        }
    }

    /// Wakes whoever waits, so that it sees that the run was abandoned.
    pub(crate) fn wake(&self) {
        futex_wake(&self.published);
    }

    /// Whether `ordinal` publications have been made.
    #[inline(always)]
    pub(crate) fn reached(&self, ordinal: u32) -> bool {
        let ahead = self.published.load(Ordering::Acquire).wrapping_sub(ordinal);
        // Counters run less than 2^31 apart: preparation sees to it.
        ahead < 1 << 31
    }

    /// Waits for `ordinal` publications; returns early if `abandoned`.
    #[cold]
    pub(crate) fn wait(&self, ordinal: u32, abandoned: &AtomicBool) {
        for _ in 0..SPINS {
            if self.reached(ordinal) {
                return;
            }
            std::hint::spin_loop();
        }
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        while !abandoned.load(Ordering::Relaxed) {
            let seen = self.published.load(Ordering::SeqCst);
            if seen.wrapping_sub(ordinal) < 1 << 31 {
                break;
            }
            futex_wait(&self.published, seen);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Sleeps while `word` is `seen`, and at most a tenth of a second, so that an abandoned run ends.
pub(crate) fn futex_wait(word: &AtomicU32, seen: u32) {
    let limit = libc::timespec { tv_sec: 0, tv_nsec: 100_000_000 };
    // SAFETY: the address is that of a live u32; the kernel only reads it.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
            seen,
            &raw const limit,
        )
    };
}

/// Wakes everybody who sleeps on `word`.
pub(crate) fn futex_wake(word: &AtomicU32) {
    // SAFETY: the address is that of a live u32; the kernel does not touch it.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
            i32::MAX,
        )
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_that_wrapped_is_still_ahead() {
        let progress = Progress::default();
        progress.published.store(3, Ordering::Relaxed);
        assert!(progress.reached(3) && progress.reached(u32::MAX - 5) && !progress.reached(4));
    }

    #[test]
    fn every_waiter_is_woken_by_the_publication_it_waits_for() {
        let progress = Progress::default();
        let abandoned = AtomicBool::new(false);
        std::thread::scope(|s| {
            for ordinal in 1..=4 {
                let (progress, abandoned) = (&progress, &abandoned);
                s.spawn(move || progress.wait(ordinal, abandoned));
            }
            for _ in 0..4 {
                std::thread::yield_now();
                progress.publish();
            }
        });
        assert!(progress.reached(4));
    }

    #[test]
    fn an_abandoned_wait_ends() {
        Progress::default().wait(1, &AtomicBool::new(true));
    }
}
