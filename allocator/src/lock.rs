//! The lock, and what libc knows about threads.
//!
//! Owns nothing but the value it protects. An uncontended acquire is one compare-and-swap; a
//! waiter spins briefly, then sleeps in the kernel. For what one thread uses nearly alone there is `door`.
//!
//! # Invariants
//! 1. `state` is `FREE` exactly when no [`Guard`] exists; else it names the holder.
//! 2. `taken` and `waited` are written by the holder only.

mod door;
mod lineage;

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::ptr;

use crate::os;
use crate::sync::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};
pub(crate) use door::{Door, Inside};
pub(crate) use lineage::Lineage;

/// What all locks ask before they are taken.
pub(crate) static LINEAGE: Lineage = Lineage::new();

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

/// What all locks ask; learnt when the allocator is made ready.
pub(crate) static ALONE: SingleThreaded = SingleThreaded::new();

pub(crate) const FREE: u32 = 0;
/// Set in the state while somebody may sleep.
pub(crate) const WAITED_FOR: u32 = 1;

/// The state of a lock that the calling thread holds and nobody waits for.
///
/// Thread descriptors are 64-byte aligned, so their addresses less 6 bits differ; 31 bits of them
/// repeat only 128 GiB apart.
#[inline(always)]
pub(crate) fn held_by_us() -> u32 {
    (((os::thread_pointer() >> 6) as u32) << 1).max(2)
}

/// In a child of a fork: the state of a lock that its first thread holds, the one that forked, which may
/// have done so from a signal handler. Nobody else can rightly hold one that was taken before: a thread
/// that was born in the child may have the descriptor of one that did not survive.
#[cold]
pub(crate) fn held_by_survivor() -> u32 {
    if os::thread_id() == os::process_id() { held_by_us() } else { FREE }
}

/// A futex lock around `T` that counts how often it was taken and waited for.
///
/// Its state names its holder from the first instruction to the last, so that a `fork` from a
/// signal handler that interrupted the holder does not wait for itself.
#[derive(Debug)]
pub(crate) struct Lock<T> {
    state: AtomicU32,
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
        LINEAGE.look();
        self.state
            .compare_exchange(FREE, held_by_us(), Ordering::Acquire, Ordering::Relaxed)
            .ok()?;
        self.count(false);
        Some(Guard { lock: self })
    }

    #[inline]
    fn acquire(&self) {
        LINEAGE.look();
        let ours = held_by_us();
        if ALONE.now() && self.state.load(Ordering::Relaxed) == FREE {
            self.state.store(ours, Ordering::Relaxed);
            return self.count(false);
        }
        let waited =
            self.state.compare_exchange(FREE, ours, Ordering::Acquire, Ordering::Relaxed).is_err();
        if waited {
            self.wait(ours);
        }
        self.count(waited);
    }

    #[inline]
    fn count(&self, waited: bool) {
        // Only the holder writes, so a plain add is exact.
        self.taken.store(self.taken.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        if waited {
            self.waited.store(self.waited.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
    }

    #[cold]
    fn wait(&self, ours: u32) {
        for _ in 0..100 {
            core::hint::spin_loop();
            if self.state.load(Ordering::Relaxed) == FREE
                && self
                    .state
                    .compare_exchange(FREE, ours, Ordering::Acquire, Ordering::Relaxed)
                    .is_ok()
            {
                return;
            }
        }
        // Others may sleep beside us: whoever slept takes the lock with the mark.
        let ours = ours | WAITED_FOR;
        loop {
            // A signal handler that interrupted the wait may have forked: then the holder is not in this process.
            LINEAGE.look();
            let seen = self.state.load(Ordering::Relaxed);
            let wanted = if seen == FREE { ours } else { seen | WAITED_FOR };
            match self.state.compare_exchange(seen, wanted, Ordering::Acquire, Ordering::Relaxed) {
                Ok(FREE) => return,
                Ok(_) => os::futex_wait(&self.state, wanted),
                Err(_) => {}
            }
        }
    }

    #[inline]
    fn release(&self) {
        if ALONE.now() {
            return self.state.store(FREE, Ordering::Relaxed);
        }
        if self.state.swap(FREE, Ordering::Release) & WAITED_FOR != 0 {
            os::futex_wake(&self.state, 1);
        }
    }

    /// Whether somebody holds the lock. Who finds it free sees what its holders did.
    #[inline(always)]
    pub(crate) fn is_taken(&self) -> bool {
        self.state.load(Ordering::Acquire) != FREE
    }

    /// Whether the calling thread holds the lock, as in a signal handler that interrupted it.
    pub(crate) fn is_held_by_us(&self) -> bool {
        self.state.load(Ordering::Relaxed) & !WAITED_FOR == held_by_us()
    }

    /// In a child that was not told of its fork: frees the lock from a holder that does not exist
    /// here, after `mend` made whole what that thread was changing.
    ///
    /// To be called before anybody in the child takes a lock, so that every holder but the thread that
    /// forked is of the parent.
    pub(crate) fn mend(&self, mend: impl FnOnce(&mut T)) {
        let held = self.state.load(Ordering::Relaxed) & !WAITED_FOR;
        if held == FREE || held == held_by_survivor() {
            return;
        }
        // SAFETY: the holder does not exist in this process, and nobody else holds it.
        mend(unsafe { &mut *self.value.get() });
        self.state.store(FREE, Ordering::Release);
    }

    /// The value, without the lock.
    ///
    /// # Safety
    /// Nobody holds the lock or takes it while the result lives: to be called where [`Lock::mend`] is.
    pub(crate) unsafe fn value_unlocked(&self) -> &T {
        // SAFETY: the caller's promise.
        unsafe { &*self.value.get() }
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
mod tests;
