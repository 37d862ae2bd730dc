//! One heap of a process: behind a lock that can be left out, with what was freed for it from afar.
//!
//! Owns the heap and a stack of blocks that other threads freed while its lock was taken. Cost: one
//! compare-and-swap per block pushed; whoever takes the lock looks at one word.

use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

use super::heap::ClassicHeap;
use super::lock::{Contention, FutexLock, Lock};
use super::source::PoolSource;
use crate::block::{Fault, HeapCore, Strategy};

/// A futex lock that is left out when the process promised to have one thread.
#[derive(Debug)]
pub(super) struct SwitchLock {
    pub(super) futex: FutexLock,
    pub(super) off: AtomicBool,
}

// SAFETY: as the futex lock, unless it was switched off, which whoever chose `lock=none` answers for.
unsafe impl Lock for SwitchLock {
    const FREE: Self = Self { futex: FutexLock::FREE, off: AtomicBool::new(false) };

    #[inline(always)]
    fn acquire(&self) {
        if !self.off.load(Ordering::Relaxed) {
            self.futex.acquire();
        }
    }

    #[inline(always)]
    fn try_acquire(&self) -> bool {
        self.off.load(Ordering::Relaxed) || self.futex.try_acquire()
    }

    #[inline(always)]
    fn release(&self) {
        if !self.off.load(Ordering::Relaxed) {
            self.futex.release();
        }
    }

    fn contention(&self) -> Contention {
        self.futex.contention()
    }
}

pub(super) type Heap<P> = ClassicHeap<P, SwitchLock, PoolSource>;

/// One heap and what was freed for it from afar.
pub(super) struct Arena<P: Strategy> {
    pub(super) heap: Heap<P>,
    /// Top of a stack through the first words of the blocks; 0: empty.
    afar: AtomicUsize,
    /// The heap that this one's number had before: left by a fork (see `orphans.rs`).
    pub(super) before: AtomicPtr<Arena<P>>,
    /// Whether a fork left the heap half changed: nobody allocates or frees in it again.
    pub(super) is_orphan: AtomicBool,
}

impl<P: Strategy> Arena<P> {
    /// A heap that nobody has freed anything for.
    pub(super) const fn new(heap: Heap<P>) -> Self {
        Self {
            heap,
            afar: AtomicUsize::new(0),
            before: AtomicPtr::new(core::ptr::null_mut()),
            is_orphan: AtomicBool::new(false),
        }
    }

    /// Runs `act` on the core under the lock. `None`: the heap became an orphan while the lock was waited
    /// for, in a child that a signal handler forked.
    #[inline(always)]
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut P::Core<PoolSource>) -> T) -> Option<T> {
        self.heap.with(|core| self.unless_orphan(core, act))
    }

    /// As `with`, if nobody holds the lock.
    #[inline(always)]
    pub(super) fn try_with<T>(&self, act: impl FnOnce(&mut P::Core<PoolSource>) -> T) -> Option<T> {
        self.heap.try_with(|core| self.unless_orphan(core, act)).flatten()
    }

    #[inline(always)]
    fn unless_orphan<T>(
        &self,
        core: &mut P::Core<PoolSource>,
        act: impl FnOnce(&mut P::Core<PoolSource>) -> T,
    ) -> Option<T> {
        if self.is_orphan.load(Ordering::Relaxed) { None } else { Some(act(core)) }
    }

    /// Puts a block aside for whoever takes the lock next.
    pub(super) fn push(&self, object: usize) {
        let link = core::ptr::with_exposed_provenance_mut::<usize>(object);
        let mut top = self.afar.load(Ordering::Relaxed);
        loop {
            // SAFETY: the object was freed by its only user; its payload holds a word at least.
            unsafe { link.write(top) };
            match self.afar.compare_exchange_weak(top, object, Ordering::Release, Ordering::Relaxed)
            {
                Ok(_) => return,
                Err(now) => top = now,
            }
        }
    }

    /// Frees what others put aside. The caller holds the lock.
    #[inline(always)]
    pub(super) fn collect(&self, core: &mut P::Core<PoolSource>) -> Result<(), Fault> {
        if self.afar.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        let mut object = self.afar.swap(0, Ordering::Acquire);
        while object != 0 {
            // The block is believed only once it is known to be live: a block that was pushed twice
            // is free by its second turn, and its link word is no longer ours.
            core.usable(object)?;
            let link = core::ptr::with_exposed_provenance::<usize>(object);
            // SAFETY: a live block that was pushed, so its first word is our link.
            let next = unsafe { link.read() };
            core.free(object)?;
            object = next;
        }
        Ok(())
    }
}
