//! The lock, and what libc knows about threads.
//!
//! Owns nothing but the value it protects. An uncontended acquire is one compare-and-swap; a
//! waiter spins briefly, then sleeps in the kernel.
//!
//! # Invariants
//! 1. `state` is `FREE` exactly when no [`Guard`] exists.
//! 2. `holder`, `taken` and `waited` are written by the holder only.

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::ptr;

use crate::os;
use crate::sync::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};

/// Tells whether the process has only ever had one thread, as glibc knows it.
#[derive(Debug)]
pub(crate) struct SingleThreaded(AtomicPtr<u8>);

static MANY: u8 = 0;

impl SingleThreaded {
    pub(crate) const fn new() -> Self {
        // Until `learn` ran, "many threads" is the answer that is always right.
        SingleThreaded(AtomicPtr::new(&raw const MANY as *mut u8))
    }

    /// Looks up glibc's flag; without it the answer stays "many".
    pub(crate) fn learn(&self) {
        let flag = os::single_threaded_flag();
        if !flag.is_null() {
            self.0.store(flag, Ordering::Relaxed);
        }
    }

    /// True while no second thread exists, so that plain stores replace atomics.
    #[inline(always)]
    pub(crate) fn now(&self) -> bool {
        // SAFETY: the pointer is `MANY` or glibc's `__libc_single_threaded`, both a byte that
        // lives as long as the process. glibc writes it only while one thread exists.
        unsafe { ptr::read_volatile(self.0.load(Ordering::Relaxed)) != 0 }
    }
}

const FREE: u32 = 0;
const HELD: u32 = 1;
const WAITED_FOR: u32 = 2;

/// A futex lock around `T` that counts how often it was taken and waited for.
///
/// It knows its holder, so that a `fork` from a signal handler that interrupted the holder
/// does not wait for itself.
#[derive(Debug)]
pub(crate) struct Lock<T> {
    state: AtomicU32,
    holder: AtomicUsize,
    /// Times taken / times a taker had to wait. Written by the holder only.
    taken: AtomicUsize,
    waited: AtomicUsize,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached only through a `Guard`, which one thread holds at a time.
unsafe impl<T: Send> Sync for Lock<T> {}

impl<T> Lock<T> {
    pub(crate) const fn new(value: T) -> Self {
        Lock {
            state: AtomicU32::new(FREE),
            holder: AtomicUsize::new(0),
            taken: AtomicUsize::new(0),
            waited: AtomicUsize::new(0),
            value: UnsafeCell::new(value),
        }
    }

    /// Waits until the lock is ours.
    #[inline]
    pub(crate) fn lock(&self) -> Guard<'_, T> {
        self.acquire();
        Guard { lock: self }
    }

    /// Takes the lock if that needs no waiting.
    #[inline]
    pub(crate) fn try_lock(&self) -> Option<Guard<'_, T>> {
        self.state.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).ok()?;
        self.note_holder(false);
        Some(Guard { lock: self })
    }

    #[inline]
    fn acquire(&self) {
        let waited =
            self.state.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_err();
        if waited {
            self.wait();
        }
        self.note_holder(waited);
    }

    #[inline]
    fn note_holder(&self, waited: bool) {
        self.holder.store(os::thread_pointer(), Ordering::Relaxed);
        // Only the holder writes, so a plain add is exact.
        self.taken.store(self.taken.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        if waited {
            self.waited.store(self.waited.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
    }

    #[cold]
    fn wait(&self) {
        for _ in 0..100 {
            core::hint::spin_loop();
            if self.state.load(Ordering::Relaxed) == FREE
                && self
                    .state
                    .compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed)
                    .is_ok()
            {
                return;
            }
        }
        while self.state.swap(WAITED_FOR, Ordering::Acquire) != FREE {
            os::futex_wait(&self.state, WAITED_FOR);
        }
    }

    #[inline]
    fn release(&self) {
        self.holder.store(0, Ordering::Relaxed);
        if self.state.swap(FREE, Ordering::Release) == WAITED_FOR {
            os::futex_wake(&self.state, 1);
        }
    }

    /// Takes the lock for a fork, unless this very thread holds it already. Returns whether
    /// [`Lock::after_fork`] has something to give back.
    pub(crate) fn before_fork(&self) -> bool {
        if self.state.load(Ordering::Relaxed) != FREE
            && self.holder.load(Ordering::Relaxed) == os::thread_pointer()
        {
            return false;
        }
        self.acquire();
        true
    }

    /// Gives back what [`Lock::before_fork`] took; in the child the waiters are gone.
    pub(crate) fn after_fork(&self, taken: bool) {
        if taken {
            self.release();
        }
    }

    /// Times taken and times waited for since the process began.
    pub(crate) fn contention(&self) -> (usize, usize) {
        (self.taken.load(Ordering::Relaxed), self.waited.load(Ordering::Relaxed))
    }
}

/// Exclusive access to what a [`Lock`] protects.
#[derive(Debug)]
pub(crate) struct Guard<'a, T> {
    lock: &'a Lock<T>,
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: a guard exists only between acquire and release of its lock, so no other
        // reference to the value exists.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`; `&mut self` keeps this guard from lending it twice.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.release();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::vec::Vec;

    use super::Lock;

    #[test]
    fn a_lock_lets_one_thread_in_at_a_time() {
        let lock = Lock::new(0u64);
        thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        for _ in 0..10_000 {
                            *lock.lock() += 1;
                        }
                    })
                })
                .collect();
            for thread in threads {
                thread.join().unwrap();
            }
        });
        assert_eq!(*lock.lock(), 40_000);
        assert_eq!(lock.contention().0, 40_001);
    }

    #[test]
    fn a_fork_in_the_holder_does_not_wait_for_itself() {
        let lock = Lock::new(());
        let guard = lock.lock();
        assert!(!lock.before_fork());
        drop(guard);
        assert!(lock.before_fork());
        assert!(lock.try_lock().is_none());
        lock.after_fork(true);
        assert!(lock.try_lock().is_some());
    }
}
