//! What all threads share: the pools of segments, the huge objects, the registry of heaps.

use core::ptr;

use super::footprint::Footprint;
use super::purger::Purger;
use super::registry::Registry;
use super::setup::SETUP;
use crate::huge::Huge;
use crate::lock::ALONE;
#[cfg(test)]
use crate::os::Failing;
use crate::os::{self, Kernel, Linux, MAX_NODES};
use crate::sampling;
use crate::segment::{Pool, Run, Span, header_of, slice_of};
use crate::sync::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use crate::units::{SLICE, pages_within};

/// The kernel as this build sees it; tests can make it fail.
#[cfg(not(test))]
pub(crate) type Host = Linux;
/// The kernel as this build sees it; tests can make it fail.
#[cfg(test)]
pub(crate) type Host = Failing<Linux>;

#[cfg(not(test))]
pub(super) const fn host() -> Host {
    Linux
}
#[cfg(test)]
pub(super) const fn host() -> Host {
    Failing::new(Linux)
}

/// Two pools a node: for requests below the mmap threshold, and for those from there on.
const POOLS: usize = 2 * MAX_NODES;
/// Bytes held, in use or free, from which on a purging thread is worth having.
const PURGER_FLOOR: usize = 8 << 20;
/// Milliseconds between two looks at what may be given back.
const TICK_MS: u64 = 125;
/// Milliseconds without a look after which all threads are taken to sleep.
const IDLE_MS: u64 = 1000;

/// The one instance of everything shared. All of it is zero at first, so that it takes no place in
/// the file and no page before it is used.
pub(crate) static GLOBAL: Global = Global {
    pools: [const { Pool::new(host()) }; POOLS],
    huge: Huge::new(host()),
    registry: Registry::new(),
    footprint: Footprint::new(),
    purger: Purger::new(),
    many_nodes: AtomicBool::new(false),
    barriers: AtomicBool::new(false),
    last_tick: AtomicU64::new(0),
    when_ready: AtomicPtr::new(ptr::null_mut()),
    exported: AtomicUsize::new(0),
    purged_in_spans: AtomicUsize::new(0),
};

/// Everything shared between threads. What one node needs comes first and fills two pages.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Global {
    pub(crate) huge: Huge<Host>,
    pub(super) registry: Registry,
    pub(super) footprint: Footprint,
    pub(super) many_nodes: AtomicBool,
    /// Whether the kernel was asked to allow barriers on all processors.
    barriers: AtomicBool,
    last_tick: AtomicU64,
    /// A `fn(&Options)` of the C face's, or null.
    pub(super) when_ready: AtomicPtr<()>,
    pub(super) purger: Purger,
    /// 1 once the C face said that malloc is ours, so that `sbrk` is.
    pub(super) exported: AtomicUsize,
    purged_in_spans: AtomicUsize,
    pub(super) pools: [Pool<Host>; POOLS],
}

impl Global {
    /// Lets heaps be visited, for which the kernel makes others wait for 15 ms once there are others: so in time,
    /// or when `waiting` does not matter. The first calls of a process may come before libc knows that it is
    /// alone.
    #[inline(always)]
    pub(super) fn allow_visits(&self, waiting: bool) {
        if !self.barriers.load(Ordering::Relaxed) && (waiting || self.alone()) {
            self.barriers.store(true, Ordering::Relaxed);
            os::allow_barriers();
        }
    }

    /// Starts the purging thread if it was asked for. To be called where no state is in the middle
    /// of a change: creating a thread allocates.
    #[inline]
    pub(crate) fn start_purger_if_wanted(&self) {
        if self.purger.is_wanted() {
            self.start_purger();
        }
    }

    #[cold]
    fn start_purger(&self) {
        // Programs that stay small get no thread. What is in use counts: all of it may be freed without
        // one more call that could start it.
        let held = self.used_pools().map(Pool::held).map(|held| held.used + held.spare);
        let huge = self.huge.usage();
        if held.sum::<usize>() + huge.mapped + huge.cached >= PURGER_FLOOR {
            self.purger.start();
        }
    }

    /// A run of `len` slices for a thread on `node`; when the kernel has no more memory the longest one of
    /// `least` or more, from the gaps between others first.
    pub(super) fn slices(&self, node: u32, len: usize, least: usize, large: bool) -> Option<Run> {
        let pool = self.pools.get(node as usize * 2 + usize::from(large))?;
        let run = pool.allocate(len).or_else(|| self.longest(pool, least, len));
        self.level_after(pool);
        run
    }

    /// Memory is short: the longest run there is, or, once all that is free went back, a new one.
    #[cold]
    #[inline(never)]
    fn longest(&self, pool: &Pool<Host>, least: usize, most: usize) -> Option<Run> {
        pool.allocate_longest(least, most).or_else(|| {
            self.relieve();
            pool.allocate_longest(least, most)
        })
    }

    /// Out of memory: gives back all that is free, with its addresses.
    #[cold]
    pub(crate) fn relieve(&self) {
        self.huge.purge_all();
        for pool in self.used_pools() {
            pool.release_free();
        }
    }

    /// Takes a run back into the pool of its segment.
    ///
    /// # Safety
    /// The run came from `slices` and nobody uses it any more.
    pub(super) unsafe fn give_back(&self, head: *mut Span, len: usize) {
        // SAFETY: the run's segment is mapped, and the number in its header does not change.
        unsafe {
            let number = (*header_of(slice_of(head))).pool as usize;
            if let Some(pool) = self.pools.get(number) {
                pool.release(head, len);
                self.level_freed(len * SLICE);
            }
        }
    }

    /// Fills `batch` with runs of one slice, as far as `node`'s pool has any; how many it had.
    pub(super) fn spare_slices(&self, node: u32, batch: &mut [*mut Span]) -> usize {
        let Some(pool) = self.pools.get(node as usize * 2) else { return 0 };
        let count = pool.allocate_each(batch);
        self.level_after(pool);
        count
    }

    /// Takes runs of one slice back into the pools of their segments.
    ///
    /// # Safety
    /// As [`Global::give_back`], for each of them.
    pub(super) unsafe fn give_back_each(&self, heads: &[*mut Span]) {
        // SAFETY: the runs' segments are mapped, and the number in their headers does not change.
        let pool_of = |head: *mut Span| unsafe { (*header_of(slice_of(head))).pool };
        let mut rest = heads;
        while let Some(&first) = rest.first() {
            let number = pool_of(first);
            let same = rest.iter().take_while(|&&head| pool_of(head) == number).count();
            let (these, others) = rest.split_at_checked(same).unwrap_or((rest, &[]));
            if let Some(pool) = self.pools.get(number as usize) {
                // SAFETY: the caller's promise.
                unsafe { pool.release_each(these, 1) };
            }
            rest = others;
        }
        self.level_freed(heads.len() * SLICE);
    }

    /// Gives back what time has made due. Called on slow paths; cheap when nothing is due.
    pub(super) fn tick(&self) {
        let now = self.now();
        let last = self.last_tick.load(Ordering::Relaxed);
        // Another thread may have had a later time before.
        if now.saturating_sub(last) >= TICK_MS
            && self
                .last_tick
                .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            for pool in self.used_pools() {
                pool.tick();
            }
            self.huge.tick();
            self.note_peak(now);
        }
    }

    /// As [`Global::tick`], but leaves it to a look around, which is due soon, to end an idle second.
    #[inline(never)]
    pub(super) fn tick_unless_idle(&self) {
        self.allow_visits(false);
        if self.alone() || !self.was_idle(self.now()) {
            self.tick();
        }
    }

    /// Whether a second has passed without a tick: no thread has had a slow path.
    pub(super) fn was_idle(&self, now: u64) -> bool {
        now.saturating_sub(self.last_tick.load(Ordering::Relaxed)) >= IDLE_MS
    }

    /// The time in milliseconds.
    pub(super) fn now(&self) -> u64 {
        host().now_ms()
    }

    /// Gives back the pages that lie wholly in a range of a span in use; whether all of it is zero afterwards.
    ///
    /// # Safety
    /// The range is mapped, and nobody needs what it holds.
    pub(super) unsafe fn purge_within(&self, from: usize, len: usize) -> bool {
        let pages = pages_within(from, len, os::page_size());
        pages.is_some_and(|(first, bytes)| {
            // SAFETY: the caller's promise. What the kernel does not take stays resident.
            let gone = unsafe { host().purge(first, bytes) }.is_ok();
            gone && (first, bytes) == (from, len)
        })
    }

    /// Gives back everything that is free.
    pub(crate) fn purge_all(&self) {
        self.huge.purge_all();
        for pool in self.used_pools() {
            pool.purge_all();
        }
    }

    /// Bytes given back so far, in all.
    #[cold]
    pub(crate) fn purged(&self) -> usize {
        let pools = self.used_pools().map(|pool| pool.usage().purged);
        pools.sum::<usize>() + self.huge.usage().purged + self.purged_in_spans()
    }

    /// Notes that bytes were given back that lay in spans in use, and will not be again before they were used.
    pub(super) fn note_purged(&self, bytes: usize) {
        self.purged_in_spans.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes of them that lay in spans in use.
    pub(crate) fn purged_in_spans(&self) -> usize {
        self.purged_in_spans.load(Ordering::Relaxed)
    }

    /// The pools of nodes that exist.
    pub(crate) fn used_pools(&self) -> impl Iterator<Item = &Pool<Host>> {
        let nodes = if self.many_nodes.load(Ordering::Relaxed) { MAX_NODES } else { 1 };
        self.pools.iter().take(2 * nodes)
    }

    /// Bytes mapped in all: what giving back could free at most.
    #[cold]
    pub(crate) fn mapped(&self) -> usize {
        let huge = self.huge.usage();
        self.used_pools().map(|pool| pool.usage().mapped).sum::<usize>() + huge.cached
    }

    /// Whether the calling thread holds any of the locks: then, in a signal handler, nothing that
    /// takes one may be called.
    pub(crate) fn is_held_by_us(&self) -> bool {
        SETUP.is_held_by_us()
            || sampling::is_held_by_us()
            || self.registry.is_held_by_us()
            || self.huge.is_held_by_us()
            || self.used_pools().any(Pool::is_held_by_us)
    }

    /// Bytes of slices in use, which is what is live outside the huge objects.
    pub(crate) fn slice_bytes(&self) -> usize {
        self.used_pools().map(|pool| pool.held().used).sum()
    }

    /// Whether no second thread exists.
    #[inline(always)]
    pub(crate) fn alone(&self) -> bool {
        ALONE.now()
    }

    /// All heaps there ever were.
    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Memory for records that are never freed.
    pub(super) fn map_metadata(&self, len: usize) -> *mut u8 {
        match host().map(0, len) {
            Ok(address) => {
                host().label(address, len);
                ptr::with_exposed_provenance_mut(address)
            }
            Err(_) => ptr::null_mut(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_second_has_passed_for_who_read_the_clock_before_the_last_tick() {
        let now = GLOBAL.now();
        GLOBAL.last_tick.store(now, Ordering::Relaxed);
        assert!(!GLOBAL.was_idle(now - 1) && !GLOBAL.was_idle(now));
    }
}
