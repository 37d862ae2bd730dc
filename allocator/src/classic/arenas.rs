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

use core::sync::atomic::{AtomicPtr, Ordering};

use super::arena::{Arena, Heap};
use super::cache::{self, ThreadCache};
use super::kernel;
use super::lock::{Contention, FutexLock, Lock};
use super::mapped::Mapped;
use super::registry::Registry;
use super::source::PoolSource;
use crate::block::{
    Counters, Fault, FaultKind, GRAIN, HEADER, HeapCore, Policy, Strategy, Totals, block_size,
    live_bytes,
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
    count: usize,
    pub(super) secret: u64,
    pub(super) heaps: [AtomicPtr<Arena<P>>; ARENAS],
    /// By number, the heaps that a fork left half changed, the last one first.
    pub(super) orphans: [AtomicPtr<Arena<P>>; ARENAS],
    pub(super) making: FutexLock,
    /// Where each thread keeps its cache: key + 1, 0 for none.
    key: core::sync::atomic::AtomicU32,
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
            key: core::sync::atomic::AtomicU32::new(0),
        }
    }

    /// The heap with this number, made if need be. In a child that was not told of its fork heaps change
    /// their numbers when it learns of itself, so that happens before one is chosen.
    #[inline(always)]
    fn arena(&self, number: usize) -> Option<&Arena<P>> {
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
    fn home(&self) -> usize {
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

    /// Puts a cache in front for each thread, if the strategy's objects have headers.
    pub(super) fn use_caches(&self, key: libc::pthread_key_t) {
        if P::Core::<PoolSource>::HEADERS {
            self.key.store(key + 1, Ordering::Release);
        }
    }

    /// Runs `act` on this thread's cache; `None` where it has none. Only a thread that allocates gets one: what
    /// libc frees behind a thread's last destructor would get one that nobody empties.
    #[inline(always)]
    fn with_cache<T>(&self, act: impl FnOnce(&mut ThreadCache) -> T) -> Option<T> {
        let key = self.key.load(Ordering::Acquire).checked_sub(1)?;
        // SAFETY: a cache belongs to its thread, and no `act` of ours reaches for it again.
        unsafe { cache::of_thread(key).as_mut() }.map(act)
    }

    /// Makes a cache for this thread, if it has none and caches are on.
    #[inline(always)]
    fn need_cache(&self) {
        if let Some(key) = self.key.load(Ordering::Acquire).checked_sub(1)
            && cache::of_thread(key).is_null()
        {
            let made = cache::fresh(self.secret, core::ptr::from_ref(self.shared).addr());
            if !made.is_null() && !cache::set_for_thread(key, made) {
                // SAFETY: just made, and nobody knows of it.
                unsafe { cache::bury(made) };
            }
        }
    }

    #[inline(always)]
    fn take_cached(
        &self,
        cache: &mut ThreadCache,
        size: usize,
        zero: bool,
    ) -> Result<Option<usize>, Fault> {
        let Some((need, bin)) = block_size(size).and_then(|need| Some((need, cache::bin(need)?)))
        else {
            return Ok(None);
        };
        let object = match cache.pop(bin)? {
            Some(object) => object,
            None => match self.fetch(cache, need, bin)? {
                Some(object) => object,
                None => return Ok(None),
            },
        };
        if zero {
            let bytes = core::ptr::with_exposed_provenance_mut::<u8>(object);
            // SAFETY: the object is ours until it is returned.
            unsafe { bytes.write_bytes(0, size) };
        }
        Ok(Some(object))
    }

    /// Fills a stack under one lock and returns one object more.
    #[cold]
    #[inline(never)]
    fn fetch(
        &self,
        cache: &mut ThreadCache,
        need: usize,
        bin: usize,
    ) -> Result<Option<usize>, Fault> {
        let Some(arena) = self.arena(self.home() % self.count.max(1)) else { return Ok(None) };
        let found = arena.with(|core| {
            arena.collect(core)?;
            for _ in 1..cache::FETCH {
                let Some(object) = core.allocate(need - HEADER, GRAIN, false)? else { break };
                // SAFETY: just allocated, and handed to nobody. A block that came out larger than
                // asked serves this size as well.
                if !unsafe { cache.push(bin, object) } {
                    core.free(object)?;
                    break;
                }
            }
            core.allocate(need - HEADER, GRAIN, false)
        });
        found.unwrap_or(Ok(None))
    }

    /// Puts an object into this thread's cache. `false`: it has to go to its heap.
    #[inline(always)]
    fn keep_cached(&self, cache: &mut ThreadCache, object: usize) -> Result<bool, Fault> {
        let Some(bytes) = self.sealed(object) else { return Ok(false) };
        let Some(bin) = cache::bin(bytes) else { return Ok(false) };
        // SAFETY: `sealed` found a live block.
        if unsafe { cache::is_cached(object, self.secret) } {
            return Err(Fault::new(FaultKind::DoubleFree, object, bytes - HEADER));
        }
        // SAFETY: a live block whose user gives it up.
        if unsafe { cache.push(bin, object) } {
            return Ok(true);
        }
        cache.drain(bin..bin + 1, ThreadCache::HALF, &mut |object| self.free_pooled(object))?;
        // SAFETY: as above; there is room now.
        Ok(unsafe { cache.push(bin, object) })
    }

    /// Bytes of the live block at `object`, read without a lock; `None` if only the lock can tell.
    #[inline(always)]
    fn sealed(&self, object: usize) -> Option<usize> {
        let at = object.checked_sub(HEADER)?;
        if object & (GRAIN - 1) != 0 || self.shared.registry.arena(at).is_none() {
            return None;
        }
        // SAFETY: the registry says that the header's place lies in a region.
        unsafe { live_bytes(object, self.secret) }
    }

    /// A fault if `object` sits in a cache, hence was freed.
    fn not_cached(&self, object: usize) -> Result<(), Fault> {
        if self.key.load(Ordering::Acquire) == 0 {
            return Ok(());
        }
        LINEAGE.look();
        // SAFETY: `sealed` found a live block.
        match self.sealed(object).filter(|_| unsafe { cache::is_cached(object, self.secret) }) {
            Some(bytes) => Err(Fault::new(FaultKind::DoubleFree, object, bytes - HEADER)),
            None => Ok(()),
        }
    }

    /// Empties the cache of a thread that ends.
    pub(super) fn retire(&self, cache: &mut ThreadCache) -> Result<(), Fault> {
        cache.drain(ThreadCache::every_bin(), 0, &mut |object| self.free_pooled(object))
    }

    /// Empties the calling thread's cache.
    pub(super) fn flush_cache(&self) -> Result<(), Fault> {
        self.with_cache(|cache| self.retire(cache)).unwrap_or(Ok(()))
    }

    #[inline]
    fn pooled(&self, size: usize, align: usize, zero: bool) -> Result<Option<usize>, Fault> {
        let home = self.home();
        if self.count > 1 {
            for number in 0..self.count {
                let Some(arena) = self.arena((home + number) % self.count.max(1)) else { continue };
                let found = arena.try_with(|core| {
                    arena.collect(core)?;
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
                    arena.collect(core)?;
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
    fn free_pooled(&self, object: usize) -> Result<(), Fault> {
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
            arena.collect(core)?;
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
        if let Some(orphan) = self.orphan_of(object) {
            return Ok(Some(left(self.usable_in(orphan, object)?)));
        }
        let owner = self.shared.registry.arena(object);
        let Some(arena) = owner.and_then(|number| self.arena(number as usize)) else {
            return Ok(None);
        };
        let found = arena.with(|core| {
            arena.collect(core)?;
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
        let Some(fresh) = self.allocate(size, GRAIN, false)? else { return Ok(None) };
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
                arena.collect(core)?;
                core.check()
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
                arena.collect(core)?;
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
