//! What the threads' caches do for the arenas: they take from them, keep what is freed, and recognise what is
//! freed twice.
//!
//! Cost: see `cache.rs`.

use core::sync::atomic::Ordering;

use super::arenas::Arenas;
use super::cache::{self, ThreadCache};
use super::source::PoolSource;
use crate::block::{Fault, FaultKind, GRAIN, HEADER, HeapCore, Strategy, block_size};

impl<P: Strategy> Arenas<P> {
    /// Puts a cache in front for each thread, if the strategy's objects have headers.
    pub(super) fn use_caches(&self, key: libc::pthread_key_t) {
        if P::Core::<PoolSource>::HEADERS {
            self.key.store(key + 1, Ordering::Release);
        }
    }

    /// Runs `act` on this thread's cache; `None` where it has none. Only a thread that allocates gets one: what
    /// libc frees behind a thread's last destructor would get one that nobody empties.
    #[inline(always)]
    pub(super) fn with_cache<T>(&self, act: impl FnOnce(&mut ThreadCache) -> T) -> Option<T> {
        let key = self.key.load(Ordering::Acquire).checked_sub(1)?;
        // SAFETY: a cache belongs to its thread, and no `act` of ours reaches for it again.
        unsafe { cache::of_thread(key).as_mut() }.map(act)
    }

    /// Makes a cache for this thread, if it has none and caches are on.
    #[inline(always)]
    pub(super) fn need_cache(&self) {
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
    pub(super) fn take_cached(
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
            arena.collect(core);
            for _ in 1..cache::FETCH {
                let Some(object) = core.allocate(need - HEADER, GRAIN, false)? else { break };
                // SAFETY: just allocated, and handed to nobody. A block that came out larger than
                // asked serves this size as well.
                if !unsafe { cache.push(bin, object) } {
                    core.free(object)?;
                    break;
                }
            }
            match core.allocate(need - HEADER, GRAIN, false)? {
                // Memory ended on the way: what came before serves.
                None => cache.pop(bin),
                found => Ok(found),
            }
        });
        found.unwrap_or(Ok(None))
    }

    /// Puts an object into this thread's cache. `false`: it has to go to its heap.
    #[inline(always)]
    pub(super) fn keep_cached(
        &self,
        cache: &mut ThreadCache,
        object: usize,
    ) -> Result<bool, Fault> {
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

    /// A fault if `object` sits in a cache, hence was freed.
    pub(super) fn not_cached(&self, object: usize) -> Result<(), Fault> {
        if self.key.load(Ordering::Acquire) == 0 {
            return Ok(());
        }
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
}
