//! What is found out and chosen once: the options, the machine's nodes, where the pools grow and mappings are
//! asked for; and what can be chosen anew while the process runs. Cost: a lock, on no path that runs per operation.

use super::global::{Global, host};
use crate::lock::{ALONE, Lock};
use crate::options::{MemoryPolicy, Options};
use crate::os::{self, Kernel, Topology};
use crate::segment::Origin;
use crate::sync::Ordering;
use crate::units::SEGMENT;

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
        self.apply(&setup);
        self.purger.want(options.purge_thread);
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

    /// What can change while the process runs, but for the purging thread. Who has the setup holds its lock, so what is in
    /// force is what was said last.
    fn apply(&self, setup: &Setup) {
        let options = &setup.options;
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
        self.footprint.configure(cache, options.memory == MemoryPolicy::Low);
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
        self.apply(&setup);
        if setting.starts_with(b"purge=") {
            self.purger.want(options.purge_thread);
        }
        drop(setup);
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
        let mut setup = SETUP.lock();
        setup.topology = topology;
        self.many_nodes.store(topology.many(), Ordering::Release);
        // To the pools of further nodes the options are news.
        self.apply(&setup);
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
}
