//! Which call stacks allocated the samples, and which samples are live.
//!
//! Owns one mapping, made when sampling is first switched on and kept for good: 8 MiB of address space,
//! of which a program touches what its samples need. Everything in it has a bound; what finds no room is
//! counted as lost and nothing else.
//!
//! # Cost
//! One lock per sample and per free of a sample. A free of anything else that comes here reads one byte of
//! a filter.
//!
//! # Invariants
//! 1. Each live sample is in the table once, between its home slot and the next empty one, and the table is
//!    at most half full.
//! 2. `filter` counts, by a hash of the address, the live samples; a count of 255 stays.
//! 3. A site, once made, stays, so that a reader may take one at a time.
//!
//! A fork may interrupt a change that another thread makes. The child then may count one sample too many
//! or too few; nothing else is at stake.

use core::ptr;

use super::stack::DEPTH;
use crate::lock::Lock;
use crate::os::{Kernel, Linux};
use crate::sync::{AtomicPtr, AtomicU8, Ordering};
use crate::units::round_up;

/// Most sites told apart.
pub const SITES: usize = 8192;
/// Most samples live at a time.
pub const LIVE: usize = SLOTS / 2;
const SLOTS: usize = 1 << 17;
const BUCKETS: usize = 2 * SITES;
const FILTER: usize = 1 << 16;

/// What was sampled with one call stack. Numbers are of samples: each stands for more objects, by the
/// rule in `docs/sampling.md`.
#[derive(Clone, Copy, Debug)]
pub struct Site {
    frames: [usize; DEPTH],
    depth: usize,
    /// Samples live now.
    pub live_objects: u64,
    /// Their bytes.
    pub live_bytes: u64,
    /// Samples ever taken.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Site {
    /// Return addresses, innermost first.
    #[must_use]
    pub fn stack(&self) -> &[usize] {
        self.frames.get(..self.depth).unwrap_or(&[])
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// 0: the slot is empty.
    object: usize,
    bytes: usize,
    site: usize,
}

const NONE: Sample = Sample { object: 0, bytes: 0, site: 0 };

/// All zero when nothing was sampled yet.
#[derive(Debug)]
struct Tables {
    /// Sites made, and samples live.
    sites: usize,
    live: usize,
    lost: u64,
    /// Numbers of sites plus one, by hash; 0: empty.
    buckets: [u16; BUCKETS],
    samples: [Sample; SLOTS],
    site: [Site; SITES],
}
const _: () = assert!(SITES < u16::MAX as usize);

#[derive(Debug)]
struct Memory {
    filter: [AtomicU8; FILTER],
    tables: Lock<Tables>,
}

static MEMORY: AtomicPtr<Memory> = AtomicPtr::new(ptr::null_mut());

fn memory() -> Option<&'static Memory> {
    // SAFETY: null, or the mapping that `prepare` published, which stays.
    unsafe { MEMORY.load(Ordering::Acquire).as_ref() }
}

/// Maps the tables, once; false if the kernel has no memory for them.
pub(super) fn prepare() -> bool {
    if memory().is_some() {
        return true;
    }
    let bytes = round_up(size_of::<Memory>(), crate::os::page_size());
    let Ok(at) = Linux.map(0, bytes) else { return false };
    Linux.label(at, bytes);
    // All zero is an empty filter, a lock that is free, and empty tables.
    let fresh = ptr::with_exposed_provenance_mut::<Memory>(at);
    let (order, null) = (Ordering::AcqRel, ptr::null_mut());
    if MEMORY.compare_exchange(null, fresh, order, Ordering::Acquire).is_err() {
        // SAFETY: another thread was faster, and nobody knows of this mapping.
        let _ = unsafe { Linux.unmap(at, bytes) };
    }
    true
}

fn mixed(word: usize) -> usize {
    let product = (word as u64 >> 4).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (product ^ (product >> 29)) as usize >> 8
}

impl Memory {
    fn filter(&self, object: usize) -> &AtomicU8 {
        // The remainder is always in range.
        self.filter.get(mixed(object) % FILTER).unwrap_or(&self.filter[0])
    }

    /// Changes a count; under the lock.
    fn count(&self, object: usize, more: bool) {
        let count = self.filter(object);
        let now = count.load(Ordering::Relaxed);
        if now != u8::MAX {
            let next = if more { now.saturating_add(1) } else { now.saturating_sub(1) };
            count.store(next, Ordering::Relaxed);
        }
    }

    /// Runs `act` on the tables, unless this thread was interrupted while it had them (in a signal
    /// handler, waiting would be for ever).
    fn with<T>(&self, act: impl FnOnce(&mut Tables) -> T) -> Option<T> {
        (!self.tables.is_held_by_us()).then(|| act(&mut self.tables.lock()))
    }
}

impl Tables {
    /// The number of the site with this stack, made if need be; `None` without room.
    fn site_of(&mut self, stack: &[usize]) -> Option<usize> {
        let hash =
            stack.iter().fold(stack.len(), |sum, &word| mixed(sum ^ word).rotate_left(5) ^ word);
        let mut bucket = mixed(hash) % BUCKETS;
        loop {
            let slot = self.buckets.get_mut(bucket)?;
            match usize::from(*slot).checked_sub(1) {
                Some(number) => {
                    if self.site.get(number)?.stack() == stack {
                        return Some(number);
                    }
                }
                None => {
                    let number = self.sites;
                    let site = self.site.get_mut(number)?;
                    site.frames.get_mut(..stack.len())?.copy_from_slice(stack);
                    site.depth = stack.len();
                    *slot = (number + 1) as u16;
                    self.sites += 1;
                    return Some(number);
                }
            }
            bucket = (bucket + 1) % BUCKETS;
        }
    }

    /// The slot of a sample, or the empty one where it would be.
    fn find(&self, object: usize) -> (usize, Option<Sample>) {
        let mut index = mixed(object) % SLOTS;
        loop {
            match self.samples.get(index) {
                Some(sample) if sample.object == object => return (index, Some(*sample)),
                Some(sample) if sample.object != 0 => index = (index + 1) % SLOTS,
                _ => return (index, None),
            }
        }
    }

    fn set(&mut self, index: usize, sample: Sample) {
        if let Some(slot) = self.samples.get_mut(index) {
            *slot = sample;
        }
    }

    /// Empties a slot and closes the gap behind it.
    fn empty(&mut self, index: usize) {
        let (mut hole, mut next) = (index, (index + 1) % SLOTS);
        while let Some(&sample) = self.samples.get(next).filter(|sample| sample.object != 0) {
            let home = mixed(sample.object) % SLOTS;
            // An entry may move into the hole if that is not before its home.
            if next.wrapping_sub(home) % SLOTS >= next.wrapping_sub(hole) % SLOTS {
                self.set(hole, sample);
                hole = next;
            }
            next = (next + 1) % SLOTS;
        }
        self.set(hole, NONE);
    }

    fn add(&mut self, object: usize, bytes: usize, stack: &[usize]) -> Option<bool> {
        let (index, stale) = self.find(object);
        if let Some(stale) = stale {
            // Its free was not told: a signal handler's, or that of a process that a fork interrupted.
            self.forget(stale);
        } else if self.live >= LIVE {
            return None;
        }
        let number = self.site_of(stack)?;
        let site = self.site.get_mut(number)?;
        site.objects += 1;
        site.bytes += bytes as u64;
        site.live_objects += 1;
        site.live_bytes += bytes as u64;
        self.live += usize::from(stale.is_none());
        self.set(index, Sample { object, bytes, site: number });
        Some(stale.is_none())
    }

    /// Takes a sample out of its site's live ones.
    fn forget(&mut self, sample: Sample) {
        if let Some(site) = self.site.get_mut(sample.site) {
            site.live_objects = site.live_objects.saturating_sub(1);
            site.live_bytes = site.live_bytes.saturating_sub(sample.bytes as u64);
        }
    }
}

/// Notes a sample: the object at this address, of so many bytes, with its call stack.
pub(super) fn add(object: usize, bytes: usize, stack: &[usize]) {
    let Some(memory) = memory() else { return };
    memory.with(|tables| match tables.add(object, bytes, stack) {
        Some(true) => memory.count(object, true),
        Some(false) => {}
        None => tables.lost += 1,
    });
}

/// Whether the object may be a sample: a byte is looked at.
#[inline]
pub(super) fn may_hold(object: usize) -> bool {
    memory().is_some_and(|memory| memory.filter(object).load(Ordering::Relaxed) != 0)
}

/// Takes a sample out of the live ones, if the object is one.
#[cold]
#[inline(never)]
pub(super) fn remove(object: usize) {
    let _ = take(object);
}

/// As [`remove`]; the sample, if it was one.
#[cold]
pub(super) fn take(object: usize) -> Option<Sample> {
    let memory = memory()?;
    memory.with(|tables| {
        let (index, sample) = tables.find(object);
        let sample = sample?;
        tables.empty(index);
        tables.live -= 1;
        tables.forget(sample);
        memory.count(object, false);
        Some(sample)
    })?
}

/// Puts a sample back among the live ones, as long as there is room and its address is no other's.
#[cold]
#[inline(never)]
pub(super) fn restore(sample: Sample) {
    let Some(memory) = memory() else { return };
    memory.with(|tables| {
        let (index, other) = tables.find(sample.object);
        if other.is_some() || tables.live >= LIVE {
            tables.lost += 1;
            return;
        }
        tables.set(index, sample);
        tables.live += 1;
        if let Some(site) = tables.site.get_mut(sample.site) {
            site.live_objects += 1;
            site.live_bytes += sample.bytes as u64;
        }
        memory.count(sample.object, true);
    });
}

/// The site with this number, from 0 on; `None` behind the last.
pub(super) fn site(number: usize) -> Option<Site> {
    memory()?.with(|tables| tables.site.get(number).filter(|_| number < tables.sites).copied())?
}

/// Samples that found no room.
pub(super) fn lost() -> u64 {
    memory().and_then(|memory| memory.with(|tables| tables.lost)).unwrap_or(0)
}

/// Whether sampling was ever switched on.
pub(super) fn exist() -> bool {
    memory().is_some()
}

/// Whether the calling thread was interrupted in the middle of a change.
pub(super) fn is_held_by_us() -> bool {
    memory().is_some_and(|memory| memory.tables.is_held_by_us())
}

/// In a child that was not told of its fork.
pub(super) fn mend() {
    if let Some(memory) = memory() {
        memory.tables.mend(|_| ());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_that_is_put_back_is_as_if_it_had_not_been_taken() {
        assert!(prepare());
        let (object, stack) = (0x7000_0000_0010, [0x1234_5601, 0x1234_5602]);
        let counts = || {
            let found = (0..).map_while(site).find(|site| site.stack() == stack).expect("a site");
            (found.objects, found.live_objects, found.live_bytes)
        };
        add(object, 4096, &stack);
        assert_eq!(counts(), (1, 1, 4096));
        let sample = take(object).expect("it is one");
        assert_eq!(counts(), (1, 0, 0));
        assert!(take(object).is_none());
        restore(sample);
        assert_eq!(counts(), (1, 1, 4096));
        assert!(may_hold(object));
        remove(object);
        assert_eq!(counts(), (1, 0, 0));
    }
}
