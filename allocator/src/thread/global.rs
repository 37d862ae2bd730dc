//! What all threads share: the pools of segments, the huge objects, the registry of heaps.

use core::ptr;

use super::footprint::Footprint;
use super::purger::Purger;
use super::registry::Registry;
use crate::huge::Huge;
use crate::lock::{ALONE, Lock};
use crate::options::{MemoryPolicy, Options};
#[cfg(test)]
use crate::os::Failing;
use crate::os::{self, Kernel, Linux, MAX_NODES, Topology};
use crate::sampling;
use crate::segment::{Origin, Pool, Run, Span, header_of, slice_of};
use crate::sync::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use crate::units::{SEGMENT, pages_within};

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
    lean: AtomicBool::new(false),
    purger: Purger::new(),
    many_nodes: AtomicBool::new(false),
    barriers: AtomicBool::new(false),
    last_tick: AtomicU64::new(0),
    when_ready: AtomicPtr::new(ptr::null_mut()),
    exported: AtomicUsize::new(0),
};

/// What is found out once: apart, for it is not zero at first.
pub(super) static SETUP: Lock<Setup> = Lock::new(Setup {
    done: false,
    served: false,
    topology: Topology::single(),
    options: Options::DEFAULT,
});

/// Where the first mapping is asked for: from an eighth of the address space on, one of 2^20 places (or as
/// many as lie in another eighth) as far apart as mappings are aligned, which is as much as the
/// kernel's own choice.
fn first_hint(address_bits: u32, secret: u64) -> usize {
    let eighth = 1usize << (address_bits - 3);
    let places = (eighth / SEGMENT).min(1 << 20);
    eighth + (secret as usize & (places - 1)) * SEGMENT
}

/// Everything shared between threads. What one node needs comes first and fills two pages.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Global {
    pub(crate) huge: Huge<Host>,
    pub(super) registry: Registry,
    pub(super) footprint: Footprint,
    many_nodes: AtomicBool,
    /// Whether the kernel was asked to allow barriers on all processors.
    barriers: AtomicBool,
    last_tick: AtomicU64,
    /// A `fn(&Options)` of the C face's, or null.
    when_ready: AtomicPtr<()>,
    /// What the pools could give back is not kept elsewhere.
    lean: AtomicBool,
    pub(super) purger: Purger,
    /// 1 once the C face said that malloc is ours, so that `sbrk` is.
    exported: AtomicUsize,
    pub(super) pools: [Pool<Host>; POOLS],
}

/// What is found out once.
#[derive(Debug)]
pub(super) struct Setup {
    done: bool,
    /// Somebody was told who serves requests: what was chosen for the start stays.
    served: bool,
    pub(super) topology: Topology,
    options: Options,
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

    /// Says that this library serves malloc for the whole process, so that the break is ours.
    /// Has no effect after the first allocation.
    pub(crate) fn own_the_break(&self) {
        self.exported.store(1, Ordering::Relaxed);
    }

    /// Whether [`Global::own_the_break`] was said.
    pub(crate) fn owns_the_break(&self) -> bool {
        self.exported.load(Ordering::Relaxed) != 0
    }

    /// Reads the options and registers with libc, once.
    pub(crate) fn ensure_ready(&self) {
        let mut setup = SETUP.lock();
        if setup.done {
            return;
        }
        setup.done = true;
        ALONE.learn();
        let options = Options::from_environment();
        let secret = os::random_word();
        crate::slab::set_secret(secret);
        host().next_hint().store(first_hint(os::address_bits(), secret), Ordering::Relaxed);
        self.place_pools(&options);
        setup.options = options;
        self.apply(&options);
        // A hook that comes later finds the setup done.
        let hook = self.when_ready.load(Ordering::Relaxed);
        drop(setup);
        super::lifecycle::register();
        super::fork::prepare();
        Self::tell(hook, &options);
    }

    /// Says where the pools of the first node grow; those of further ones stay untouched pages until
    /// there are such nodes.
    fn place_pools(&self, options: &Options) {
        let sbrk = options.sbrk.unwrap_or(self.owns_the_break());
        for (number, pool) in self.pools.iter().enumerate().take(2) {
            let small = number % 2 == 0;
            let origin = if small && sbrk { Origin::Break } else { Origin::Map };
            pool.configure(number as u16, origin, None);
        }
    }

    /// Shows the options to the C face.
    fn tell(hook: *mut (), options: &Options) {
        if !hook.is_null() {
            // SAFETY: only `call_when_ready` stores here, and it stores such a function.
            unsafe { core::mem::transmute::<*mut (), fn(&Options)>(hook)(options) };
        }
    }

    /// Lets `hook` see the options once they are read: now, if they are. It may not allocate.
    pub(crate) fn call_when_ready(&self, hook: fn(&Options)) {
        let setup = SETUP.lock();
        self.when_ready.store(hook as *mut (), Ordering::Relaxed);
        let options = setup.done.then_some(setup.options);
        drop(setup);
        if let Some(options) = options {
            hook(&options);
        }
    }

    /// What can change while the process runs.
    fn apply(&self, options: &Options) {
        options.publish();
        super::sampled::set_mean(options.sample);
        let (floor, sixteenths, cache) = match options.memory {
            MemoryPolicy::Balanced => (4 << 20, 20, 64 << 20),
            MemoryPolicy::Low => (1 << 20, 2, 8 << 20),
        };
        for pool in self.used_pools() {
            pool.configure_purge(floor, sixteenths);
            pool.configure_huge_pages(options.huge_pages);
        }
        self.huge.configure(cache, options.huge_pages);
        self.footprint.configure(cache);
        self.lean.store(options.memory == MemoryPolicy::Low, Ordering::Relaxed);
        self.purger.want(options.purge_thread);
    }

    /// Applies one `name=value`. False, and nothing changes, if it is not understood or comes after the
    /// first allocation and counts only before it.
    pub(crate) fn configure(&self, setting: &[u8]) -> bool {
        self.ensure_ready();
        let mut setup = SETUP.lock();
        let mut options = setup.options;
        if !options.set(setting) {
            return false;
        }
        let owned = self.owns_the_break();
        let begins_alike = options.for_the_start(owned) == setup.options.for_the_start(owned);
        if setup.served && !(begins_alike && options.may_follow(&setup.options)) {
            return false;
        }
        setup.options = options;
        if !begins_alike {
            self.place_pools(&options);
        }
        drop(setup);
        self.apply(&options);
        if !begins_alike {
            Self::tell(self.when_ready.load(Ordering::Relaxed), &options);
        }
        true
    }

    /// The options for a request that is about to be served: what counts only before the first one
    /// stays from here on.
    pub(crate) fn options_to_serve_by(&self) -> Options {
        let mut setup = SETUP.lock();
        setup.served = true;
        setup.options
    }

    /// The options in force.
    pub(crate) fn options(&self) -> Options {
        SETUP.lock().options
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
        if held.sum::<usize>() + self.huge.usage().mapped >= PURGER_FLOOR {
            self.purger.start();
        }
    }

    /// The node of the calling thread; `None`, without a system call, on one node and before others are known.
    pub(super) fn current_node(&self) -> Option<u32> {
        self.many_nodes.load(Ordering::Acquire).then(|| SETUP.lock().topology.current())
    }

    /// Learns the machine's nodes; called when a second heap is needed, since one thread alone
    /// gets its own node's memory from the kernel anyway.
    pub(super) fn discover_nodes(&self) {
        self.set_topology(Topology::discover());
    }

    pub(crate) fn set_topology(&self, topology: Topology) {
        if topology.many() {
            let sbrk = self.options().sbrk.unwrap_or(self.owns_the_break());
            for (number, pool) in self.pools.iter().enumerate() {
                let origin = if number == 0 && sbrk { Origin::Break } else { Origin::Map };
                pool.configure(number as u16, origin, Some((number / 2) as u32));
            }
        }
        SETUP.lock().topology = topology;
        self.many_nodes.store(topology.many(), Ordering::Release);
        // To the pools of further nodes the options are news.
        self.apply(&self.options());
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

    /// Gives back the pages that lie wholly in a range; whether all of it is zero afterwards.
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
        pools.sum::<usize>() + self.huge.usage().purged
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

    /// Whether a heap may keep as many empty spans as it likes: nobody else wants their slices, and memory need
    /// not be given back at once.
    pub(super) fn lets_keep(&self) -> bool {
        self.alone() && !self.lean.load(Ordering::Relaxed)
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
    fn the_first_mapping_is_asked_for_inside_every_size_of_address_space() {
        for bits in [36, 39, 42, 47, 48] {
            for secret in [0, 1, 0x1234_5678_9abc_def0, u64::MAX] {
                let hint = first_hint(bits, secret);
                assert!(hint.is_multiple_of(SEGMENT) && hint >= 1 << (bits - 3));
                assert!(hint < 1 << (bits - 2), "half of the addresses and more lie behind it");
            }
            assert_ne!(first_hint(bits, 1), first_hint(bits, 2));
        }
    }

    #[test]
    fn no_second_has_passed_for_who_read_the_clock_before_the_last_tick() {
        let now = GLOBAL.now();
        GLOBAL.last_tick.store(now, Ordering::Relaxed);
        assert!(!GLOBAL.was_idle(now - 1) && !GLOBAL.was_idle(now));
    }
}
