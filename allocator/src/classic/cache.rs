//! A cache per thread in front of the arenas: small blocks change hands without a lock.
//!
//! Owns, per thread, one stack per block size up to 1 KiB, linked through the first words of the
//! blocks; the second word holds the block's own address, sealed, while it is cached, so a second
//! free is recognised at once. For strategies whose objects have headers; the others go without.
//!
//! Cost: a hit is a look-up of the thread's cache, two sealed words and, on free, the lock-free
//! look-up of the region and two headers. A miss fetches [`FETCH`] blocks under one lock; a full
//! stack gives half of its blocks back.
//!
//! # Invariants
//! 1. A cached block is in use as far as its heap knows, and in one stack.
//! 2. A block leaves the cache with its second word zero, so a sealed one means "cached".

use super::kernel;
use crate::block::{Fault, FaultKind, GRAIN, HEADER, fault_at, follow, link, store};

const BINS: usize = 65;
/// Blocks fetched at once.
pub(super) const FETCH: usize = 8;
/// Most blocks of one size.
const FULL: u8 = 32;

/// One thread's blocks.
#[derive(Debug)]
pub(super) struct ThreadCache {
    tops: [usize; BINS],
    counts: [u8; BINS],
    secret: u64,
    /// Address of the process heap whose blocks these are.
    pub(super) owner: usize,
}

/// The stack for blocks of `bytes`, if there is one.
#[inline(always)]
pub(super) const fn bin(bytes: usize) -> Option<usize> {
    if bytes / GRAIN < BINS { Some(bytes / GRAIN) } else { None }
}

impl ThreadCache {
    pub(super) const fn new(secret: u64, owner: usize) -> Self {
        Self { tops: [0; BINS], counts: [0; BINS], secret, owner }
    }

    /// Takes the block that was put last; `None` if the stack is empty.
    #[inline(always)]
    pub(super) fn pop(&mut self, bin: usize) -> Result<Option<usize>, Fault> {
        let (Some(top), Some(count)) = (self.tops.get_mut(bin), self.counts.get_mut(bin)) else {
            return Ok(None);
        };
        let at = *top;
        if at == 0 {
            return Ok(None);
        }
        // SAFETY: a cached block holds two words of ours.
        let next = unsafe { follow(at + HEADER, self.secret) };
        // SAFETY: as above.
        let guard = unsafe { follow(at + HEADER + 8, self.secret) };
        let (Some(next), Some(guard)) = (next, guard) else {
            return Err(fault_at(FaultKind::UseAfterFree, at, bin * GRAIN));
        };
        if guard != at {
            return Err(fault_at(FaultKind::UseAfterFree, at, bin * GRAIN));
        }
        (*top, *count) = (next, *count - 1);
        // SAFETY: the block is ours until it is handed out; the zero is invariant 2.
        unsafe { store(at + HEADER + 8, 0) };
        Ok(Some(at + HEADER))
    }

    /// Puts a block; `false` if the stack is full.
    ///
    /// # Safety
    /// The block at `payload` is live, of this bin's size, and was given up by its user.
    #[inline(always)]
    pub(super) unsafe fn push(&mut self, bin: usize, payload: usize) -> bool {
        let (Some(top), Some(count)) = (self.tops.get_mut(bin), self.counts.get_mut(bin)) else {
            return false;
        };
        if *count == FULL {
            return false;
        }
        let at = payload - HEADER;
        // SAFETY: the block is ours, and its payload holds two words.
        unsafe { link(payload, *top, self.secret) };
        // SAFETY: as above.
        unsafe { link(payload + 8, at, self.secret) };
        (*top, *count) = (at, *count + 1);
        true
    }

    /// Gives back what a stack holds above half its room, or all of every stack.
    pub(super) fn drain(
        &mut self,
        bins: core::ops::Range<usize>,
        keep: u8,
        give: &mut dyn FnMut(usize) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        for bin in bins {
            while self.counts.get(bin).is_some_and(|&count| count > keep) {
                match self.pop(bin)? {
                    Some(payload) => give(payload)?,
                    None => break,
                }
            }
        }
        Ok(())
    }

    pub(super) const fn every_bin() -> core::ops::Range<usize> {
        0..BINS
    }

    pub(super) const HALF: u8 = FULL / 2;
}

/// Whether the block at `payload` is in somebody's cache.
///
/// # Safety
/// The block is live in its heap, whose secret this is.
#[inline(always)]
pub(super) unsafe fn is_cached(payload: usize, secret: u64) -> bool {
    // SAFETY: the payload of a live block holds two words.
    unsafe { follow(payload + 8, secret) == Some(payload - HEADER) }
}

/// A key under which each thread keeps its cache; `None` if the process has too many.
///
/// `end` runs when a thread ends, with its cache.
pub(super) fn make_key(
    end: unsafe extern "C" fn(*mut libc::c_void),
) -> Option<libc::pthread_key_t> {
    let mut key = 0;
    // SAFETY: writes the key. glibc keeps the first 32 keys in the thread itself, so setting them
    // does not allocate; later ones are refused here.
    let made = unsafe { libc::pthread_key_create(&raw mut key, Some(end)) } == 0;
    (made && key < 32).then_some(key)
}

/// This thread's cache, null before it has one.
#[inline(always)]
pub(super) fn of_thread(key: libc::pthread_key_t) -> *mut ThreadCache {
    // SAFETY: a key of `make_key`.
    unsafe { libc::pthread_getspecific(key) }.cast()
}

/// Makes `cache` this thread's. `false` if libc has no room.
pub(super) fn set_for_thread(key: libc::pthread_key_t, cache: *mut ThreadCache) -> bool {
    // SAFETY: a key of `make_key`.
    unsafe { libc::pthread_setspecific(key, cache.cast()) == 0 }
}

/// Memory for a cache, a page of its own; null if the kernel has none.
pub(super) fn fresh(secret: u64, owner: usize) -> *mut ThreadCache {
    let page = kernel::page();
    let at = kernel::map(size_of::<ThreadCache>().next_multiple_of(page));
    let cache = core::ptr::with_exposed_provenance_mut::<ThreadCache>(at);
    if !cache.is_null() {
        // SAFETY: a fresh mapping, page-aligned and large enough.
        unsafe { cache.write(ThreadCache::new(secret, owner)) };
    }
    cache
}

/// Gives a cache's own memory back.
///
/// # Safety
/// The cache came from [`fresh`], is empty, and no thread uses it any more.
pub(super) unsafe fn bury(cache: *mut ThreadCache) {
    let bytes = size_of::<ThreadCache>().next_multiple_of(kernel::page());
    // SAFETY: the caller's promise.
    unsafe { kernel::unmap(cache.addr(), bytes) };
}
