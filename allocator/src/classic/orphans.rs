//! What a fork does to classic mode: heaps that a thread of the parent was changing are left alone in the
//! child.
//!
//! A fork takes no lock: libc runs its handlers before it takes the locks of stdio, whose holders may wait
//! for ours (see `thread::fork`). The child learns of itself when it first wants a lock (see
//! `lock::lineage`), and frees the locks whose holders it does not have. A heap behind such a lock may be
//! half changed. It becomes an orphan: its number gets a new heap, its objects stay usable, and their
//! memory stays taken when they are freed. A thread whose wait for the lock was interrupted by the handler
//! that forked may hold on to it still, and learns so from `Arena::with`.
//!
//! Owns the orphans. Cost: a load per number in each free that its own heap does not know, and in each
//! `realloc` and `malloc_usable_size`.

use core::sync::atomic::Ordering;

use super::arena::Arena;
use super::arenas::Arenas;
use super::lock::FutexLock;
use crate::block::{Fault, HEADER, HeapCore, Strategy, live_bytes};

impl<P: Strategy> Arenas<P> {
    /// In the child of a fork: see the head of this file. To be called before
    /// anybody in the child takes a lock.
    pub(super) fn mend(&self) {
        self.making.mend();
        self.shared.registry.lock.mend();
        self.shared.mapped.mend();
        for (slot, orphans) in self.heaps.iter().zip(&self.orphans) {
            let found = slot.load(Ordering::Acquire);
            // SAFETY: null, or a heap that is published and stays.
            let Some(arena) = (unsafe { found.as_ref() }) else { continue };
            if arena.heap.lock().futex.mend() {
                arena.is_orphan.store(true, Ordering::Relaxed);
                arena.before.store(orphans.load(Ordering::Relaxed), Ordering::Relaxed);
                orphans.store(found, Ordering::Release);
                slot.store(core::ptr::null_mut(), Ordering::Release);
            }
        }
    }

    /// The orphan that may hold `object`, where its number's own heap does not.
    #[inline(always)]
    pub(super) fn orphan_of(&self, object: usize) -> Option<&Arena<P>> {
        if self.orphans.iter().all(|orphans| orphans.load(Ordering::Relaxed).is_null()) {
            return None;
        }
        self.search_orphans(object)
    }

    #[cold]
    fn search_orphans(&self, object: usize) -> Option<&Arena<P>> {
        let number = usize::from(self.shared.registry.arena(object)?);
        // SAFETY: null, or a heap that is published and stays.
        let own = unsafe { self.heaps.get(number)?.load(Ordering::Acquire).as_ref() };
        if own.is_some_and(|arena| arena.with(|core| core.owns(object)).unwrap_or(false)) {
            return None;
        }
        // Read last: what was the number's own heap may be its first orphan by now.
        // SAFETY: as above.
        unsafe { self.orphans.get(number)?.load(Ordering::Acquire).as_ref() }
    }

    /// Bytes that the program may use of an object of an orphan's.
    pub(super) fn usable_in(&self, orphan: &Arena<P>, object: usize) -> Result<usize, Fault> {
        if P::Core::<super::source::PoolSource>::HEADERS {
            // SAFETY: the registry says that the object lies in a region of ours.
            let bytes = unsafe { live_bytes(object, self.secret) };
            if let Some(bytes) = bytes {
                return Ok(bytes - HEADER);
            }
        }
        let (mut result, mut next) = (None, Some(orphan));
        while let Some(arena) = next {
            // SAFETY: the only thread that could change an orphan does not exist.
            let found = unsafe { arena.heap.with_still(|core| core.usable(object)) };
            if found.is_ok() {
                return found;
            }
            result = result.or(Some(found));
            // SAFETY: null, or an orphan; those stay.
            next = unsafe { arena.before.load(Ordering::Acquire).as_ref() };
        }
        result.unwrap_or(Ok(0))
    }

    /// Whether the calling thread holds a lock of ours.
    pub(super) fn is_interrupted(&self) -> bool {
        let shared = [&self.making, self.shared.mapped.lock(), &self.shared.registry.lock];
        shared.into_iter().any(FutexLock::is_held_by_us)
            || self.made().any(|arena| arena.heap.lock().futex.is_held_by_us())
    }
}
