//! Allocation sites by samples: who allocated what is live, and who allocates most.
//!
//! With `sample=BYTES`, one allocation in BYTES allocated bytes, on average and at random, is a *sample*:
//! it is noted with its size and the stack of its callers, and forgotten when it is freed. So a site's
//! samples are a fair picture of what it holds and of what it ever allocated, at a small part of the cost
//! of noting everything.
//!
//! | module | owns |
//! |---|---|
//! | `interval` | how far it is to the next sample |
//! | `stack`, `tables` | who called |
//! | `sites` | the sites, the live samples, their bounds |
//! | `dump` | the profile as text for `pprof` |
//!
//! # Where it looks, and why there
//! The fast paths of malloc and free know nothing of sampling, so that it costs programs that do not ask
//! for it nothing.
//!
//! - *Counting.* A thread takes small blocks from a list that a slow call filled. While sampling is on, that
//!   call counts the blocks it puts there, and ends the list before the block in which the next sample
//!   lies; so the allocation that is to be a sample makes a slow call of its own and its callers can be
//!   asked for. Each size class has a countdown of its own, for lists of several classes are filled in
//!   another order than the program empties them. Larger requests are counted one by one: a thread's
//!   heap has a limit up to which it serves them quickly, which is nothing while sampling is on.
//! - *Forgetting.* A sample is served by the floor of huge objects, from a mapping of its own, and no thread's
//!   heap owns that. A free sees a foreign block, as it would see any other, goes the long way, and ends
//!   where a sample is forgotten. Nothing marks an object, and no free looks anything up.
//! - *Classic mode* and its free have one path each, and a lock on it. There every allocation is counted by
//!   one number that all threads share, and every free looks at one byte of a filter.
//!
//! Tried in thought and left: a byte counter in malloc (two instructions for everybody); threads without
//! a heap of their own while sampling is on (nothing for others, but then every free takes the long way).
//!
//! # Cost
//! `docs/sampling.md` has the figures. A live sample takes a page or two, and 4 MiB of address space.
//!
//! # Invariants
//! 1. Nothing here allocates, panics, or changes `errno`; the one lock is not waited for by a signal handler
//!    that interrupted its holder: such a sample is lost.

mod dump;
mod interval;
mod sites;
mod stack;
#[cfg(target_arch = "x86_64")]
mod tables;

use crate::sync::{AtomicUsize, Ordering};

pub use dump::dump;
pub use interval::mean;
pub(crate) use interval::{Countdown, KINDS, is_on, shared_takes};
pub(crate) use sites::Sample;
pub use sites::{LIVE, SITES, Site};
pub use stack::DEPTH;

/// The mean distance set last that was not 0.
static LAST_MEAN: AtomicUsize = AtomicUsize::new(0);

/// Takes one sample in `bytes` allocated bytes from here on, or none (0). Whether anything changed.
pub(crate) fn set_mean(bytes: usize) -> bool {
    if bytes == mean() || (bytes != 0 && !sites::prepare()) {
        return false;
    }
    if bytes != 0 {
        LAST_MEAN.store(bytes, Ordering::Relaxed);
    }
    interval::set_mean(bytes);
    true
}

/// Whether samples were ever taken.
#[inline(always)]
pub(crate) fn was_on() -> bool {
    LAST_MEAN.load(Ordering::Relaxed) != 0
}

/// Notes that the object of `bytes` bytes at this address, just allocated, is a sample.
#[cold]
#[inline(never)]
pub(crate) fn note(object: usize, bytes: usize) {
    let mut stack = [0; DEPTH];
    let depth = stack::callers(&mut stack);
    sites::add(object, bytes, stack.get(..depth).unwrap_or(&[]));
}

/// An object is freed: forgets it if it is a sample.
#[inline]
pub(crate) fn forget(object: usize) {
    if sites::may_hold(object) {
        sites::remove(object);
    }
}

/// As [`forget`], of an object that may turn out to live on: then [`restore`] is given what this gave.
#[inline]
pub(crate) fn take(object: usize) -> Option<Sample> {
    if sites::may_hold(object) { sites::take(object) } else { None }
}

/// Makes a sample live again.
#[inline]
pub(crate) fn restore(sample: Option<Sample>) {
    if let Some(sample) = sample {
        sites::restore(sample);
    }
}

/// Calls `visit` with each site, in the order in which they were first seen. No lock is held meanwhile, so
/// counts are of many moments.
pub fn for_each_site(mut visit: impl FnMut(&Site)) {
    let mut number = 0;
    while let Some(site) = sites::site(number) {
        visit(&site);
        number += 1;
    }
}

/// Samples that were not noted, because there were [`SITES`] sites or [`LIVE`] live samples already.
pub fn lost() -> u64 {
    sites::lost()
}

/// Whether the calling thread was interrupted while it noted or forgot a sample.
pub(crate) fn is_held_by_us() -> bool {
    sites::is_held_by_us()
}

/// In a child that was not told of its fork: makes the one lock free.
pub(crate) fn mend() {
    sites::mend();
}
