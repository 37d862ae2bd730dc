//! What a thread's heap does while allocations are sampled: see `sampling` for the idea.
//!
//! # Invariants
//! 1. Blocks in `rest` are of the current span of their class, as those in the bin are, and count as live
//!    there. They are handed out before the span is asked for more.
//! 2. Every block in a bin was counted when it was put there, and is no sample.

use core::ptr::null_mut;

use super::global::GLOBAL;
use super::local::{QUICK_CALLS, ThreadHeap};
use super::tls::Tls;
use crate::sampling::{self, Countdown};
use crate::slab::{Block, CLASSES, SizeClass};
use crate::sync::{AtomicUsize, Ordering};

/// Blocks counted at a time: so many links are walked per refill.
const COUNTED: usize = 32;
/// The kind of allocations that are no slab's.
const LARGER: usize = CLASSES;
const _: () = assert!(LARGER < sampling::KINDS, "each class and the rest have a countdown");

/// A heap's part in sampling. Zeroed memory is a right one.
#[derive(Debug)]
pub(super) struct Sampled {
    countdown: Countdown,
    /// What a refill brought and was not counted yet.
    rest: [*mut Block; CLASSES],
    calls: u32,
}

/// The size up to which a heap serves blocks above slabs without counting them; 0 while sampling is on, and
/// before the first slow call.
#[derive(Debug)]
pub(crate) struct Limit(AtomicUsize);

impl Limit {
    /// In bytes.
    #[inline(always)]
    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Sets it to `bytes`, or to 0 while sampling is on.
    pub(super) fn renew(&self, bytes: usize) {
        self.0.store(if sampling::is_on() { 0 } else { bytes }, Ordering::Relaxed);
    }
}

impl ThreadHeap {
    /// Whether the next block of `class` is to be a sample. The bin is empty.
    #[cold]
    pub(crate) fn is_slab_sampled(&mut self, class: SizeClass) -> bool {
        let (kind, countdown) = (class.index(), &mut self.sampled.countdown);
        countdown.room(kind, class.size()) == 0 && countdown.takes(kind, class.size())
    }

    /// Counts an allocation that is no slab's; whether it is to be a sample.
    #[cold]
    pub(crate) fn is_larger_sampled(&mut self, bytes: usize) -> bool {
        self.sampled.countdown.takes(LARGER, bytes)
    }

    /// As [`ThreadHeap::allocate_slab`], with as many blocks in the bin as were counted.
    #[cold]
    pub(crate) fn allocate_slab_counted(&mut self, class: SizeClass, tls: Tls) -> *mut u8 {
        let mut first = self.take_rest(class);
        if first.is_null() {
            // SAFETY: `self` is the calling thread's heap, and the bin is empty.
            first = unsafe { self.take_uncounted(class, tls) };
            if first.is_null() {
                return null_mut();
            }
        }
        let (kind, size) = (class.index(), class.size());
        let countdown = &mut self.sampled.countdown;
        let most = countdown.room(kind, size).clamp(1, COUNTED);
        // SAFETY: a list of free blocks of this heap's, each with a link to the next.
        unsafe {
            let (mut last, mut count) = (first, 1);
            while count < most && !Block::next(last).is_null() {
                last = Block::next(last);
                count += 1;
            }
            countdown.pass(kind, count * size);
            let uncounted = Block::next(last);
            if last == first {
                tls.set_bin(kind, null_mut());
            } else {
                tls.set_bin(kind, Block::next(first));
                Block::set_next(last, null_mut());
            }
            if let Some(rest) = self.sampled.rest.get_mut(kind) {
                *rest = uncounted;
            }
        }
        first.cast()
    }

    /// A list of free blocks of `class`, upkeep included now and then; null when memory is exhausted.
    ///
    /// # Safety
    /// As [`Slabs::refill`](crate::slab::Slabs::refill).
    unsafe fn take_uncounted(&mut self, class: SizeClass, tls: Tls) -> *mut Block {
        self.sampled.calls = self.sampled.calls.wrapping_add(1);
        if !self.sampled.calls.is_multiple_of(QUICK_CALLS) {
            // SAFETY: the caller's promise.
            let freed = unsafe { self.slabs.take_freed(class) };
            if !freed.is_null() {
                return freed;
            }
        }
        // It puts what `first` links to into the bin, where only what is counted stays.
        self.allocate_slab(class, tls).cast()
    }

    /// Blocks of `class` that may be handed out before the one that is to be a sample.
    #[cfg(feature = "hardened")]
    pub(crate) fn room(&mut self, class: SizeClass) -> usize {
        self.sampled.countdown.room(class.index(), class.size())
    }

    /// Counts so many blocks of `class` that are no samples.
    #[cfg(feature = "hardened")]
    pub(crate) fn pass(&mut self, class: SizeClass, blocks: usize) {
        self.sampled.countdown.pass(class.index(), blocks * class.size());
    }

    /// After sampling was switched off: puts what is left of a refill into the bin, which is empty, before
    /// another span can become the current one. The first of it; null if nothing is left.
    #[cold]
    pub(crate) fn put_rest_into_bin(&mut self, class: SizeClass, tls: Tls) -> *mut u8 {
        let first = self.take_rest(class);
        if !first.is_null() {
            // SAFETY: a list of free blocks of this heap's, each with a link to the next.
            tls.set_bin(class.index(), unsafe { Block::next(first) });
        }
        first.cast()
    }

    /// Takes what is left of a refill of `class`.
    pub(super) fn take_rest(&mut self, class: SizeClass) -> *mut Block {
        self.sampled
            .rest
            .get_mut(class.index())
            .map_or(null_mut(), |rest| core::mem::replace(rest, null_mut()))
    }
}

/// Takes one sample in `bytes` allocated bytes from here on, or none (0). Threads with blocks at hand hear of
/// it when they need more of them.
pub(super) fn set_mean(bytes: usize) {
    if sampling::set_mean(bytes) {
        // SAFETY: heaps are never freed, and their limits are for every thread to set.
        GLOBAL.registry().for_each(|heap| unsafe { (*heap).upkeep.limit.renew(0) });
    }
}
