//! One heap of a process: behind a lock that can be left out, with what was freed for it from afar.
//!
//! Owns the heap and a stack of blocks that other threads freed while its lock was taken. Cost: one
//! compare-and-swap per block pushed; whoever takes the lock looks at one word.

use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

use super::heap::ClassicHeap;
use super::lock::{Contention, FutexLock, Lock};
use super::process::handle;
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

    /// Frees what others put aside. The caller holds the lock. A fault is theirs and not that of the
    /// call that came by, which goes on.
    #[inline(always)]
    pub(super) fn collect(&self, core: &mut P::Core<PoolSource>) {
        if self.afar.load(Ordering::Relaxed) != 0 {
            self.collect_all(core, &mut handle);
        }
    }

    /// As `collect`; faults go to `tell`.
    pub(super) fn collect_all(&self, core: &mut P::Core<PoolSource>, tell: &mut dyn FnMut(Fault)) {
        let mut object = self.afar.swap(0, Ordering::Acquire);
        while object != 0 {
            // The block is believed only once it is known to be live: a block that was pushed twice
            // is free by its second turn, and its link word is no longer ours. What lay below stays
            // taken then.
            if let Err(fault) = core.usable(object) {
                return tell(fault);
            }
            let link = core::ptr::with_exposed_provenance_mut::<usize>(object);
            // SAFETY: a live block that was pushed, so its first word is our link. Cut, it leads
            // nobody round in a circle if the block cannot be freed.
            let next = unsafe { link.replace(0) };
            if let Err(fault) = core.free(object) {
                tell(fault);
            }
            object = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::FaultKind;
    use crate::classic::arenas::{Arenas, Shared};
    use crate::classic::mapped::Mapped;
    use crate::classic::on_fault;
    use crate::classic::registry::Registry;
    use crate::options::settings::{LockChoice, Settings};
    use crate::placement::Segregated;
    use std::boxed::Box;

    static DOUBLE_FREES: AtomicUsize = AtomicUsize::new(0);

    fn note(fault: Fault) {
        let ours = usize::from(fault.kind == FaultKind::DoubleFree);
        DOUBLE_FREES.fetch_add(ours, Ordering::Relaxed);
    }

    #[test]
    fn what_others_freed_twice_is_told_of_and_costs_no_call_but_theirs() {
        on_fault(Some(note));
        let shared = Shared { registry: Registry::empty(), mapped: Mapped::empty() };
        let shared: &'static Shared = Box::leak(Box::new(shared));
        let settings = Settings { lock: LockChoice::Arena, sbrk: false, ..Settings::DEFAULT };
        let arenas = Arenas::<Segregated>::new(shared, settings, 2, 0x5eed_0001);
        let allocate = || arenas.allocate(100, 16, false).unwrap().unwrap();
        let [first, second, third] = [(); 3].map(|()| allocate());
        let number = usize::from(shared.registry.arena(first).unwrap());
        let arena = arenas.arena(number).unwrap();
        for object in [first, second, second] {
            arena.push(object);
        }
        let fourth = allocate();
        assert_eq!(DOUBLE_FREES.load(Ordering::Relaxed), 1);
        arena.push(third);
        arena.push(third);
        arenas.free(fourth).unwrap();
        assert_eq!(DOUBLE_FREES.load(Ordering::Relaxed), 2);
        // The one that lay below the first that was freed twice.
        assert_eq!(arenas.check().unwrap().live_blocks, 1);
        let fifth = allocate();
        arena.push(fifth);
        arena.push(fifth);
        assert_eq!(arenas.check().unwrap_err().kind, FaultKind::DoubleFree);
        assert_eq!(DOUBLE_FREES.load(Ordering::Relaxed), 2, "a check answers itself");
        on_fault(None);
    }
}
