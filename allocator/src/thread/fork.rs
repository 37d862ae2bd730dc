//! What a fork does: the child is one thread with every lock free and the other threads' heaps
//! frozen.
//!
//! A fork takes no lock. libc runs handlers before it takes its own locks, so a fork that held ours
//! while it waits for those of stdio would wait for a thread that holds one and allocates. Instead
//! the child mends what the threads that it does not have were changing (see `lock::lineage`) when it
//! first takes a lock, be it the child of `fork`, of `_Fork` or of a bare `clone`. So libc need not
//! know of us: to register handlers would leave 64 KiB more of it resident.
//!
//! Where the kernel wipes no pages (before Linux 4.14), handlers take the locks before the fork in the
//! order in which nested code takes them (registry, setup, pools, huge).
//!
//! A heap whose thread did not survive may have been in the middle of a change: nobody adopts it.
//! Blocks in it can still be freed, since a remote free touches atomics only.

use super::global::{GLOBAL, SETUP};
use super::tls::Tls;
use crate::lock::LINEAGE;
use crate::os::{self, MAX_NODES};
use crate::sync::{AtomicU32, AtomicUsize, Ordering};

/// Which locks this fork took: bit 0 the setup, 1 the registry, 2 the huge objects, from 3 on the
/// pools. Written and read by the forking thread while it holds them.
static TAKEN: AtomicU32 = AtomicU32::new(0);
/// Forks from signal handlers that interrupted a fork which holds every lock: those take nothing
/// and must give nothing back. Between its store and its release `TAKEN` belongs to the outer one.
static NESTED: AtomicU32 = AtomicU32::new(0);
/// The thread that holds what `TAKEN` says, 0 for none. A thread sees its own store.
static FORKER: AtomicUsize = AtomicUsize::new(0);
const _: () = assert!(3 + 2 * MAX_NODES <= 32, "a bit for each lock");

/// Sees to it that children find out about themselves, once. Where the kernel wipes no pages, libc is
/// to tell them.
pub(super) fn prepare() {
    LINEAGE.watch(mend);
    if LINEAGE.is_watched() {
        return;
    }
    // SAFETY: the handlers live in a library that is never unloaded. Failure (no memory) leaves
    // forks as they are without us.
    unsafe { libc::pthread_atfork(Some(before), Some(after_in_parent), Some(after_in_child)) };
}

unsafe extern "C" fn before() {
    let mut taken = u32::from(GLOBAL.registry.before_fork()) << 1;
    taken |= u32::from(SETUP.before_fork());
    for (number, pool) in GLOBAL.used_pools().enumerate() {
        taken |= u32::from(pool.before_fork()) << (3 + number);
    }
    taken |= u32::from(GLOBAL.huge.before_fork()) << 2;
    if taken == 0 {
        NESTED.store(NESTED.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    } else {
        TAKEN.store(taken, Ordering::Relaxed);
    }
    FORKER.store(os::thread_pointer(), Ordering::Relaxed);
}

unsafe extern "C" fn after_in_parent() {
    release();
}

unsafe extern "C" fn after_in_child() {
    release();
    GLOBAL.registry.freeze_others(Tls::here().heap());
}

/// Called in a child, by the thread that first wants a lock.
fn mend() {
    SETUP.mend(|_| ());
    for pool in &GLOBAL.pools {
        pool.mend();
    }
    GLOBAL.huge.mend();
    GLOBAL.registry.mend(Tls::here().heap());
}

/// Gives back what this thread's `before` took, if it took anything.
fn release() {
    if FORKER.load(Ordering::Relaxed) != os::thread_pointer() {
        return;
    }
    let nested = NESTED.load(Ordering::Relaxed);
    if nested > 0 {
        NESTED.store(nested - 1, Ordering::Relaxed);
        return;
    }
    FORKER.store(0, Ordering::Relaxed);
    let taken = TAKEN.swap(0, Ordering::Relaxed);
    GLOBAL.huge.after_fork(taken & 4 != 0);
    for (number, pool) in GLOBAL.pools.iter().enumerate() {
        pool.after_fork((taken >> (3 + number)) & 1 != 0);
    }
    SETUP.after_fork(taken & 1 != 0);
    GLOBAL.registry.after_fork(taken & 2 != 0);
}
