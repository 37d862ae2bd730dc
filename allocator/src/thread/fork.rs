//! What a fork does: the child begins as one thread, with every lock free and the other threads' heaps
//! frozen.
//!
//! A fork takes no lock. libc runs handlers before it takes its own locks, so a fork that held ours
//! while it waits for those of stdio would wait for a thread that holds one and allocates; and a handler
//! of the program's own that runs within ours could not allocate. Instead the child mends what the
//! threads that it does not have were changing (see `lock::lineage`) when it first takes a lock, be
//! it the child of `fork`, of `_Fork` or of a bare `clone`. So libc need not know of us: to register
//! handlers would leave 64 KiB more of it resident.
//!
//! Where the kernel wipes no pages (before Linux 4.14), handlers tell the children of `fork`; those of
//! `_Fork` and of a bare `clone` are not told there.
//!
//! A heap whose thread did not survive may have been in the middle of a change: nobody adopts it.
//! Blocks in it can still be freed, since a remote free touches atomics only.

use super::global::GLOBAL;
use super::setup::SETUP;
use super::tls::Tls;
use crate::lock::LINEAGE;
use crate::sampling;

/// Sees to it that children find out about themselves.
pub(super) fn prepare() {
    LINEAGE.watch(mend);
}

/// Called in a child, by the thread that first wants a lock. Usually it is the only one; no other has a lock.
fn mend() {
    SETUP.mend(|_| ());
    GLOBAL.purger.forget();
    for pool in &GLOBAL.pools {
        pool.mend();
    }
    GLOBAL.huge.mend();
    sampling::mend();
    GLOBAL.registry.mend(Tls::here().heap());
}
