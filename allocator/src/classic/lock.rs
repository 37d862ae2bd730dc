//! The locks a classic heap can stand behind, and how often they were fought over.
//!
//! Owns one word per lock and its counters. Cost: an uncontended futex lock is one compare-and-swap
//! to take and one swap to give, or two plain stores while libc knows of one thread only; counting
//! costs the holder a plain addition. Time is measured only by those who had to wait.

use core::cell::Cell;
use core::fmt::Debug;
use core::marker::PhantomData;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::kernel;
use crate::lock::{ALONE, FREE, LINEAGE, WAITED_FOR, held_by_survivor, held_by_us};

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

/// A futex lock: waits in the kernel after a short spin. Its state names its holder, as that of
/// `lock::Lock` does, so that the child of a fork knows which holders do not exist there.
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
            if self.state.load(Ordering::Relaxed) == FREE && self.grab() {
                taken = true;
                break;
            }
        }
        // Others may sleep beside us: whoever slept takes the lock with the mark.
        let ours = held_by_us() | WAITED_FOR;
        while !taken {
            // A signal handler that interrupted the wait may have forked: then the holder is not in this process.
            LINEAGE.look();
            let seen = self.state.load(Ordering::Relaxed);
            let wanted = if seen == FREE { ours } else { seen | WAITED_FOR };
            match self.state.compare_exchange(seen, wanted, Ordering::Acquire, Ordering::Relaxed) {
                Ok(FREE) => taken = true,
                Ok(_) => kernel::futex_wait(&self.state, wanted),
                Err(_) => {}
            }
        }
        // We hold the lock now, so plain additions are exact.
        bump(&self.waits, 1);
        bump(&self.wait_ns, kernel::now_ns().saturating_sub(start));
    }

    #[inline(always)]
    fn grab(&self) -> bool {
        // Alone, nobody else can hold it, and a child has nothing to mend while it reads free.
        if ALONE.now() && self.state.load(Ordering::Relaxed) == FREE {
            self.state.store(held_by_us(), Ordering::Relaxed);
            return true;
        }
        LINEAGE.look();
        let ours = held_by_us();
        self.state.compare_exchange(FREE, ours, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Whether the calling thread holds the lock, as in a signal handler that interrupted it.
    pub(crate) fn is_held_by_us(&self) -> bool {
        self.state.load(Ordering::Relaxed) & !WAITED_FOR == held_by_us()
    }

    /// In the child of a fork: frees the lock from a holder that does not exist
    /// here; whether there was one, and what it protects may be half changed.
    pub(crate) fn mend(&self) -> bool {
        let held = self.state.load(Ordering::Relaxed) & !WAITED_FOR;
        let orphan = held != FREE && held != held_by_survivor();
        if orphan {
            self.state.store(FREE, Ordering::Release);
        }
        orphan
    }
}

/// Adds to a counter that only the lock's holder writes.
#[inline(always)]
fn bump(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Ordering::Relaxed) + by, Ordering::Relaxed);
}

// SAFETY: the state leaves FREE by one atomic operation of one thread, with acquire order, and
// returns to it by `release` alone, with release order; or by plain stores while there is one thread.
unsafe impl Lock for FutexLock {
    const FREE: Self = Self {
        state: AtomicU32::new(FREE),
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
        if ALONE.now() {
            return self.state.store(FREE, Ordering::Relaxed);
        }
        if self.state.swap(FREE, Ordering::Release) & WAITED_FOR != 0 {
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
    use core::sync::atomic::AtomicUsize;
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
            while lock.state.load(Ordering::Relaxed) & WAITED_FOR == 0 {
                thread::yield_now();
            }
            lock.release();
            waiter.join().unwrap();
        });
        let counts = lock.contention();
        assert_eq!((counts.acquisitions, counts.waits), (2, 1));
        assert!(counts.wait_ns > 0);
    }

    #[test]
    fn a_child_frees_the_locks_of_threads_that_it_does_not_have_and_no_others() {
        let lock = FutexLock::FREE;
        assert!(!lock.mend());
        lock.acquire();
        // Born in the child, a thread may look like a holder that the child does not have.
        let first = crate::os::thread_id() == crate::os::process_id();
        assert!(lock.is_held_by_us() && lock.mend() != first);
        if first {
            lock.release();
        }
        thread::scope(|scope| scope.spawn(|| lock.acquire()).join().unwrap());
        // A thread that ends may have left its descriptor to nobody but us.
        assert!(!lock.is_held_by_us() && lock.mend());
        assert!(lock.try_acquire());
        lock.release();
    }
}
