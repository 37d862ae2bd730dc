//! The locks a classic heap can stand behind, and how often they were fought over.
//!
//! Owns one word per lock and its counters. Cost: an uncontended futex lock is one compare-and-swap
//! to take and one swap to give; counting costs the holder two plain additions. Time is measured
//! only by those who had to wait.

use core::cell::Cell;
use core::fmt::Debug;
use core::marker::PhantomData;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::kernel;

/// How often a lock was taken, and what waiting for it cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contention {
    /// Times it was taken.
    pub acquisitions: u64,
    /// Times it was not free.
    pub waits: u64,
    /// Nanoseconds spent waiting.
    pub wait_ns: u64,
}

impl Contention {
    /// The sum of two locks' counts.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            acquisitions: self.acquisitions + other.acquisitions,
            waits: self.waits + other.waits,
            wait_ns: self.wait_ns + other.wait_ns,
        }
    }
}

/// What keeps threads apart in one heap.
///
/// # Safety
/// If the type is `Sync`, at most one thread is between `acquire` (or a `try_acquire` that returned
/// `true`) and `release`, and it sees all that the one before it wrote.
pub unsafe trait Lock: Debug {
    /// A free lock.
    const FREE: Self;

    /// Waits until the lock is ours.
    fn acquire(&self);

    /// Takes the lock if nobody holds it.
    fn try_acquire(&self) -> bool;

    /// Gives the lock up.
    fn release(&self);

    /// Its counts.
    fn contention(&self) -> Contention {
        Contention::default()
    }
}

const OPEN: u32 = 0;
const HELD: u32 = 1;
const WANTED: u32 = 2;

/// A futex lock: waits in the kernel after a short spin.
///
/// Source: Drepper: Futexes are tricky (2011), mutex 3.
#[derive(Debug)]
pub struct FutexLock {
    state: AtomicU32,
    acquisitions: AtomicU64,
    waits: AtomicU64,
    wait_ns: AtomicU64,
}

impl FutexLock {
    #[cold]
    fn wait(&self) {
        let start = kernel::now_ns();
        let mut taken = false;
        for _ in 0..64 {
            core::hint::spin_loop();
            if self.state.load(Ordering::Relaxed) == OPEN && self.grab() {
                taken = true;
                break;
            }
        }
        while !taken {
            taken = self.state.swap(WANTED, Ordering::Acquire) == OPEN;
            if !taken {
                kernel::futex_wait(&self.state, WANTED);
            }
        }
        // We hold the lock now, so plain additions are exact.
        bump(&self.waits, 1);
        bump(&self.wait_ns, kernel::now_ns().saturating_sub(start));
    }

    #[inline(always)]
    fn grab(&self) -> bool {
        self.state.compare_exchange(OPEN, HELD, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Makes the lock free whoever held it: for the child of a fork, which has one thread.
    pub(crate) fn reset(&self) {
        self.state.store(OPEN, Ordering::Release);
    }
}

/// Adds to a counter that only the lock's holder writes.
#[inline(always)]
fn bump(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Ordering::Relaxed) + by, Ordering::Relaxed);
}

// SAFETY: the state leaves OPEN by one atomic operation of one thread, with acquire order, and
// returns to it by `release` alone, with release order.
unsafe impl Lock for FutexLock {
    const FREE: Self = Self {
        state: AtomicU32::new(OPEN),
        acquisitions: AtomicU64::new(0),
        waits: AtomicU64::new(0),
        wait_ns: AtomicU64::new(0),
    };

    #[inline(always)]
    fn acquire(&self) {
        if !self.grab() {
            self.wait();
        }
        bump(&self.acquisitions, 1);
    }

    #[inline(always)]
    fn try_acquire(&self) -> bool {
        let taken = self.grab();
        if taken {
            bump(&self.acquisitions, 1);
        }
        taken
    }

    #[inline(always)]
    fn release(&self) {
        if self.state.swap(OPEN, Ordering::Release) == WANTED {
            kernel::futex_wake(&self.state);
        }
    }

    fn contention(&self) -> Contention {
        Contention {
            acquisitions: self.acquisitions.load(Ordering::Relaxed),
            waits: self.waits.load(Ordering::Relaxed),
            wait_ns: self.wait_ns.load(Ordering::Relaxed),
        }
    }
}

/// No lock: the heap cannot be shared between threads, which the compiler checks.
#[derive(Debug)]
pub struct NoLock(PhantomData<Cell<()>>);

// SAFETY: the type is not `Sync`, so a heap behind it is never reached by two threads.
unsafe impl Lock for NoLock {
    const FREE: Self = Self(PhantomData);

    #[inline(always)]
    fn acquire(&self) {}

    #[inline(always)]
    fn try_acquire(&self) -> bool {
        true
    }

    #[inline(always)]
    fn release(&self) {}
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::thread;

    #[test]
    fn the_futex_lock_lets_one_thread_in_at_a_time_and_counts_each() {
        let lock = FutexLock::FREE;
        let (inside, total) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..5_000 {
                        lock.acquire();
                        assert_eq!(inside.fetch_add(1, Ordering::Relaxed), 0);
                        total.store(total.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
                        inside.fetch_sub(1, Ordering::Relaxed);
                        lock.release();
                    }
                });
            }
        });
        assert_eq!(total.load(Ordering::Relaxed), 20_000);
        assert_eq!(lock.contention().acquisitions, 20_000);
    }

    #[test]
    fn a_waiter_is_counted_and_woken() {
        let lock = FutexLock::FREE;
        lock.acquire();
        assert!(!lock.try_acquire());
        thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                lock.acquire();
                lock.release();
            });
            while lock.state.load(Ordering::Relaxed) != WANTED {
                thread::yield_now();
            }
            lock.release();
            waiter.join().unwrap();
        });
        let counts = lock.contention();
        assert_eq!((counts.acquisitions, counts.waits), (2, 1));
        assert!(counts.wait_ns > 0);
    }
}
