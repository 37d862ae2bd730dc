//! The process heap of classic mode: one heap or several, behind locks, with mappings beside them.
//!
//! Owns up to 16 heaps of one placement strategy, the registry of their regions, the mapped objects,
//! and per heap a stack of blocks that other threads freed while its lock was taken.
//!
//! Cost: one uncontended lock per call. With arenas, a thread keeps to the heap its number selects
//! and looks for another whose lock is free before it waits; a free whose lock is taken pushes the
//! block on that heap's stack, which whoever takes the lock next empties.
//!
//! # Invariants
//! 1. A block on a heap's stack is in use in that heap, and nobody else's.
//! 2. A heap, once made, stays; in the child of a fork it may become an orphan (see `orphans.rs`).

use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use super::arena::{Arena, Heap};
use super::kernel;
use super::lock::{Contention, FutexLock, Lock};
use super::mapped::Mapped;
use super::process::tell;
use super::registry::Registry;
use super::source::PoolSource;
use crate::block::{
    Counters, Fault, FaultKind, GRAIN, HEADER, HeapCore, Policy, Strategy, Totals, live_bytes,
};
use crate::lock::LINEAGE;
use crate::options::settings::{LockChoice, Settings};

/// Most heaps of a process.
pub(super) const ARENAS: usize = 16;

/// What the heaps of a process share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) registry: Registry,
    pub(super) mapped: Mapped,
}

/// All heaps of a process, of one strategy.
pub(super) struct Arenas<P: Strategy> {
    pub(super) shared: &'static Shared,
    pub(super) settings: Settings,
    pub(super) count: usize,
    pub(super) secret: u64,
    pub(super) heaps: [AtomicPtr<Arena<P>>; ARENAS],
    /// By number, the heaps that a fork left half changed, the last one first.
    pub(super) orphans: [AtomicPtr<Arena<P>>; ARENAS],
    pub(super) making: FutexLock,
    /// Where each thread keeps its cache: key + 1, 0 for none.
    pub(super) key: AtomicU32,
}

impl<P: Strategy> Arenas<P> {
    pub(super) const fn new(
        shared: &'static Shared,
        settings: Settings,
        processors: usize,
        secret: u64,
    ) -> Self {
        let count = match settings.lock {
            LockChoice::Arena if processors > ARENAS => ARENAS,
            LockChoice::Arena if processors > 1 => processors,
            LockChoice::Arena | LockChoice::Global | LockChoice::None => 1,
        };
        let none = [const { AtomicPtr::new(core::ptr::null_mut()) }; ARENAS];
        let orphans = [const { AtomicPtr::new(core::ptr::null_mut()) }; ARENAS];
        Self {
            shared,
            settings,
            count,
            secret,
            heaps: none,
            orphans,
            making: FutexLock::FREE,
            key: AtomicU32::new(0),
        }
    }

    /// The heap with this number, made if need be. In a child that was not told of its fork heaps change
    /// their numbers when it learns of itself, so that happens before one is chosen.
    #[inline(always)]
    pub(super) fn arena(&self, number: usize) -> Option<&Arena<P>> {
        LINEAGE.look();
        let slot = self.heaps.get(number)?;
        let found = slot.load(Ordering::Acquire);
        if found.is_null() {
            return self.make(number, slot);
        }
        // SAFETY: heaps are published whole and stay (invariant 2).
        Some(unsafe { &*found })
    }

    #[cold]
    #[inline(never)]
    fn make(&self, number: usize, slot: &AtomicPtr<Arena<P>>) -> Option<&Arena<P>> {
        self.making.acquire();
        let mut found = slot.load(Ordering::Acquire);
        if found.is_null() {
            let page = kernel::page();
            let at = kernel::map(size_of::<Arena<P>>().next_multiple_of(page));
            if at != 0 {
                let Settings { trim_threshold: trim, top_pad, sbrk, .. } = self.settings;
                let policy = Policy { grow: top_pad.max(page), trim, keep: top_pad };
                let source =
                    PoolSource::new(&self.shared.registry, number as u8, sbrk && number == 0);
                let heap = Heap::with_secret(source, policy, self.secret, number as u8);
                heap.set_deferred(self.settings.deferred);
                heap.lock().off.store(self.settings.lock == LockChoice::None, Ordering::Relaxed);
                found = core::ptr::with_exposed_provenance_mut(at);
                // SAFETY: a fresh mapping, page-aligned and large enough.
                unsafe { found.write(Arena::new(heap)) };
                slot.store(found, Ordering::Release);
            }
        }
        self.making.release();
        // SAFETY: null, or a heap that is published and stays.
        unsafe { found.as_ref() }
    }

    /// The heap this thread turns to first.
    #[inline(always)]
    pub(super) fn home(&self) -> usize {
        if self.count == 1 {
            return 0;
        }
        (kernel::thread_word() >> 6).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40 & (ARENAS - 1)
    }

    /// An object; `None` out of memory.
    #[inline]
    pub(super) fn allocate(
        &self,
        size: usize,
        align: usize,
        zero: bool,
    ) -> Result<Option<usize>, Fault> {
        if size >= self.settings.mmap_threshold
            && let Some(object) = self.shared.mapped.allocate(size, align)
        {
            return Ok(Some(object));
        }
        self.need_cache();
        if align <= GRAIN
            && let Some(cached) = self.with_cache(|cache| self.take_cached(cache, size, zero))
            && let Some(object) = cached?
        {
            return Ok(Some(object));
        }
        // What no block can hold fits a mapping, and so may what finds no region.
        let found = self.pooled(size, align, zero)?;
        Ok(found.or_else(|| self.shared.mapped.allocate(size, align)))
    }

    /// Bytes of the live block at `object`, read without a lock; `None` if only the lock can tell.
    #[inline(always)]
    pub(super) fn sealed(&self, object: usize) -> Option<usize> {
        let at = object.checked_sub(HEADER)?;
        if object & (GRAIN - 1) != 0 || self.shared.registry.arena(at).is_none() {
            return None;
        }
        // SAFETY: the registry says that the header's place lies in a region.
        unsafe { live_bytes(object, self.secret) }
    }

    #[inline]
    fn pooled(&self, size: usize, align: usize, zero: bool) -> Result<Option<usize>, Fault> {
        let home = self.home();
        if self.count > 1 {
            for number in 0..self.count {
                let Some(arena) = self.arena((home + number) % self.count.max(1)) else { continue };
                let found = arena.try_with(|core| {
                    arena.collect(core);
                    core.allocate(size, align, zero)
                });
                match found {
                    Some(Ok(None)) | None => {}
                    Some(result) => return result,
                }
            }
        }
        // Every lock was taken, or memory is short: wait, and ask every heap before giving up.
        for number in 0..self.count {
            while let Some(arena) = self.arena((home + number) % self.count.max(1)) {
                let found = arena.with(|core| {
                    arena.collect(core);
                    core.allocate(size, align, zero)
                });
                match found {
                    // An orphan: its number has another heap.
                    None => {}
                    Some(Ok(None)) => break,
                    Some(result) => return result,
                }
            }
        }
        Ok(None)
    }

    /// Gives an object back.
    #[inline]
    pub(super) fn free(&self, object: usize) -> Result<(), Fault> {
        match self.with_cache(|cache| self.keep_cached(cache, object)) {
            Some(kept) if kept? => return Ok(()),
            Some(_) => {}
            None => self.not_cached(object)?,
        }
        self.free_pooled(object)
    }

    #[inline]
    pub(super) fn free_pooled(&self, object: usize) -> Result<(), Fault> {
        if self.count == 1 {
            let Some(arena) = self.arena(0) else { return self.shared.mapped.free(object) };
            return match arena.with(|core| core.free(object)) {
                Some(Err(fault)) if fault.kind != FaultKind::ForeignFree => Err(fault),
                Some(Ok(_)) => Ok(()),
                _ if self.orphan_of(object).is_some() => Ok(()),
                _ => self.shared.mapped.free(object),
            };
        }
        let owner = self.shared.registry.arena(object);
        let Some(arena) = owner.and_then(|number| self.arena(number as usize)) else {
            return self.shared.mapped.free(object);
        };
        if self.orphan_of(object).is_some() {
            return Ok(());
        }
        let freed = arena.try_with(|core| {
            arena.collect(core);
            core.free(object).map(drop)
        });
        match freed {
            Some(result) => result,
            // Only what surely is a live payload may carry a link.
            None if P::Core::<PoolSource>::HEADERS && self.sealed(object).is_some() => {
                arena.push(object);
                Ok(())
            }
            // What an orphan holds stays taken.
            None => arena.with(|core| core.free(object).map(drop)).unwrap_or(Ok(())),
        }
    }

    /// Runs `act` on the heap that owns `object`; where that is an orphan, `left` on the object's usable
    /// bytes. `None`: no heap owns it.
    fn owning<T>(
        &self,
        object: usize,
        act: impl FnOnce(&mut P::Core<PoolSource>) -> Result<T, Fault>,
        left: impl FnOnce(usize) -> T,
    ) -> Result<Option<T>, Fault> {
        // Before this there are no orphans.
        LINEAGE.look();
        if let Some(orphan) = self.orphan_of(object) {
            return Ok(Some(left(self.usable_in(orphan, object)?)));
        }
        let owner = self.shared.registry.arena(object);
        let Some(arena) = owner.and_then(|number| self.arena(number as usize)) else {
            return Ok(None);
        };
        let found = arena.with(|core| {
            arena.collect(core);
            act(core)
        });
        match found {
            Some(result) => result.map(Some),
            None => Ok(Some(left(self.usable_in(arena, object)?))),
        }
    }

    pub(super) fn usable(&self, object: usize) -> Result<usize, Fault> {
        self.not_cached(object)?;
        match self.owning(object, |core| core.usable(object), |bytes| bytes)? {
            Some(usable) => Ok(usable),
            None => self.shared.mapped.usable(object),
        }
    }

    pub(super) fn owns(&self, object: usize) -> bool {
        self.shared.registry.arena(object).is_some() || self.shared.mapped.owns(object)
    }

    /// Makes the object hold `size` bytes, moving it if need be; `None` out of memory.
    pub(super) fn reallocate(&self, object: usize, size: usize) -> Result<Option<usize>, Fault> {
        self.not_cached(object)?;
        let resize = |core: &mut P::Core<PoolSource>| {
            let stays = size < self.settings.mmap_threshold && core.resize(object, size)?;
            if stays { Ok((true, 0)) } else { Ok((false, core.usable(object)?)) }
        };
        let pooled = self.owning(object, resize, |bytes| (false, bytes))?;
        let usable = match pooled {
            Some((true, _)) => return Ok(Some(object)),
            Some((false, usable)) => usable,
            None => {
                let usable = self.shared.mapped.usable(object)?;
                if size >= self.settings.mmap_threshold
                    && let Some(moved) = self.shared.mapped.resize(object, size)?
                {
                    return Ok(Some(moved));
                }
                usable
            }
        };
        let fresh = self.allocate(size, GRAIN, false).unwrap_or_else(|fault| {
            // As in every request: see `tell`.
            tell(fault, true);
            None
        });
        let Some(fresh) = fresh else {
            // To shrink needs no memory: what cannot be smaller where it is stays as large as it is.
            return Ok((size <= usable).then_some(object));
        };
        let from = core::ptr::with_exposed_provenance::<u8>(object);
        let to = core::ptr::with_exposed_provenance_mut::<u8>(fresh);
        // SAFETY: both objects are live, hold the bytes, and do not overlap.
        unsafe { to.copy_from_nonoverlapping(from, usable.min(size)) };
        self.free(object)?;
        Ok(Some(fresh))
    }

    pub(super) fn check(&self) -> Result<Totals, Fault> {
        let mut sum = Totals::default();
        for arena in self.made() {
            let totals = arena.with(|core| {
                let mut found = None;
                arena.collect_all(core, &mut |fault| found = found.or(Some(fault)));
                found.map_or_else(|| core.check(), Err)
            });
            let Some(totals) = totals.transpose()? else { continue };
            sum.live_blocks += totals.live_blocks;
            sum.live_bytes += totals.live_bytes;
            sum.parked_blocks += totals.parked_blocks;
            sum.parked_bytes += totals.parked_bytes;
            sum.free_blocks += totals.free_blocks;
            sum.free_bytes += totals.free_bytes;
            sum.largest_free = sum.largest_free.max(totals.largest_free);
            sum.overhead += totals.overhead;
            sum.committed += totals.committed;
        }
        Ok(sum)
    }

    pub(super) fn trim(&self, keep: usize) -> Result<usize, Fault> {
        let mut given = 0;
        for arena in self.made() {
            let trimmed = arena.with(|core| {
                arena.collect(core);
                core.trim(keep)
            });
            given += trimmed.unwrap_or(Ok(0))?;
        }
        Ok(given)
    }

    /// The sums over all heaps, the searches' lengths, and the locks' counts.
    pub(super) fn sums(&self) -> (Counters, u64, Contention) {
        let mut sum = Counters::ZERO;
        let mut examined = 0;
        let mut contention = self.shared.mapped.contention();
        for arena in self.made() {
            let counters = arena.heap.counters();
            sum.live_blocks += counters.live_blocks;
            sum.live_bytes += counters.live_bytes;
            sum.parked_blocks += counters.parked_blocks;
            sum.parked_bytes += counters.parked_bytes;
            sum.committed += counters.committed;
            sum.peak_committed += counters.peak_committed;
            sum.peak_live += counters.peak_live;
            sum.overhead += counters.overhead;
            sum.allocations += counters.allocations;
            sum.frees += counters.frees;
            examined += arena.heap.examined();
            contention = contention.plus(arena.heap.contention());
        }
        (sum, examined, contention)
    }

    pub(super) fn made(&self) -> impl Iterator<Item = &Arena<P>> {
        LINEAGE.look();
        // SAFETY: null, or a heap that is published and stays.
        self.heaps.iter().filter_map(|slot| unsafe { slot.load(Ordering::Acquire).as_ref() })
    }
}

impl<P: Strategy> core::fmt::Debug for Arenas<P> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Arenas")
            .field("placement", &P::NAME)
            .field("settings", &self.settings)
            .finish()
    }
}
