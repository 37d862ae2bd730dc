//! What the allocator holds, counted by walking the segments when asked.

use crate::bitmap;
use crate::classic;
use crate::lock::LINEAGE;
use crate::segment::{Kind, Span};
use crate::slab;
use crate::stats::{ClassUsage, Stats, ThreadUsage};
use crate::sync::Ordering;
use crate::thread::GLOBAL;
use crate::units::SLICE;

/// What is in force, each name as `ALLOCATOR_OPTIONS` spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InForce {
    /// Thread heaps, in the ordinary or the hardened build.
    Production {
        /// Whether this is the hardened build.
        hardened: bool,
    },
    /// The boundary-tag heap and its settings.
    Classic {
        /// The placement strategy.
        placement: &'static str,
        /// What keeps threads apart.
        lock: &'static str,
        /// Whether threads have caches.
        cache: bool,
        /// Whether blocks are merged later.
        deferred: bool,
    },
}

/// The mode in force and, in classic mode, its settings.
pub fn in_force() -> InForce {
    match classic::snapshot() {
        None => InForce::Production { hardened: cfg!(feature = "hardened") },
        Some(snapshot) => InForce::Classic {
            placement: snapshot.settings.placement.name(),
            lock: snapshot.settings.lock.name(),
            cache: snapshot.settings.cache,
            deferred: snapshot.settings.deferred,
        },
    }
}

/// What the allocator holds now.
pub fn statistics() -> Stats {
    let mut stats = Stats::default();
    if let Some(snapshot) = classic::snapshot() {
        stats.live = snapshot.counters.live_bytes + snapshot.mapped_bytes;
        stats.committed = snapshot.counters.committed + snapshot.mapped_bytes;
        stats.mapped = stats.committed;
        stats.huge = snapshot.mapped_bytes;
        stats.huge_objects = snapshot.mapped_objects;
        stats.huge_mapped = snapshot.mapped_bytes;
        stats.locks_taken = snapshot.contention.acquisitions as usize;
        stats.locks_waited = snapshot.contention.waits as usize;
        stats.lock_wait_ns = snapshot.contention.wait_ns as usize;
        // Which free bytes are resident nobody knows there, nor how many went back.
        return stats;
    }
    let mut note = |lock: (usize, usize)| {
        stats.locks_taken += lock.0;
        stats.locks_waited += lock.1;
    };
    note(GLOBAL.registry().contention());
    let huge = GLOBAL.huge.usage();
    note(huge.lock);
    let pools = GLOBAL.used_pools().map(|pool| (pool, pool.usage()));
    let (mut live, mut empty) = (0, 0);
    for (pool, usage) in pools {
        note(usage.lock);
        stats.committed += usage.used;
        stats.mapped += usage.mapped;
        stats.cached += usage.dirty;
        stats.purged += usage.purged;
        pool.for_each_span(|span| {
            // SAFETY: records of used slices stay mapped while the pool is locked; their counts may
            // be a moment old.
            unsafe {
                live += live_bytes(span);
                if is_kept_empty(span) {
                    empty += (*span).live as usize * SLICE;
                }
            }
        });
    }
    // What heaps keep laid out for their next requests is in use as far as the pools know.
    let empty = empty.min(stats.committed);
    stats.committed -= empty;
    stats.cached += empty;
    stats.live = live + huge.live;
    stats.huge = huge.live;
    stats.huge_objects = huge.objects;
    stats.huge_mapped = huge.mapped;
    stats.committed += huge.live;
    stats.mapped += huge.mapped + huge.cached;
    stats.cached += huge.cached_resident;
    stats.purged += huge.purged + GLOBAL.purged_in_spans();
    GLOBAL.registry().for_each(|_| stats.heaps += 1);
    stats
}

/// Calls `visit` once for each size class that has a span in use, smallest first.
pub fn for_each_class(mut visit: impl FnMut(ClassUsage)) {
    let sizes = slab::SizeClass::all()
        .map(|class| (Kind::Slab, class.index(), class.size()))
        .chain(bitmap::SizeClass::all().map(|class| (Kind::Bitmap, class.index(), class.size())));
    for (kind, index, size) in sizes {
        let mut usage = ClassUsage { size, ..ClassUsage::default() };
        for pool in GLOBAL.used_pools() {
            // SAFETY: as in `statistics`.
            pool.for_each_span(|span| unsafe {
                if (*span).kind == kind && (*span).class as usize == index && (*span).back == 0 {
                    usage.spans += 1;
                    let (slices, touched) = match kind {
                        Kind::Slab => (1, (*span).carved as usize),
                        _ => ((*span).live as usize, (*span).full.count_ones() as usize),
                    };
                    usage.committed += slices * SLICE;
                    usage.touched += touched * size;
                    usage.live += live_bytes(span);
                }
            });
        }
        if usage.spans > 0 {
            visit(usage);
        }
    }
}

/// Calls `visit` once for each thread's heap that owns a span, and holds no lock meanwhile.
pub fn for_each_thread(mut visit: impl FnMut(ThreadUsage)) {
    GLOBAL.registry().for_each(|heap| {
        let mut usage =
            ThreadUsage { thread: GLOBAL.registry().thread_of(heap), ..Default::default() };
        for pool in GLOBAL.used_pools() {
            // SAFETY: as in `statistics`.
            pool.for_each_span(|span| unsafe {
                let owner = (*span).owner.load(Ordering::Relaxed);
                if owner & !7 == heap.addr() && (*span).back == 0 {
                    usage.spans += 1;
                    let slices =
                        if (*span).kind == Kind::Bitmap { (*span).live as usize } else { 1 };
                    usage.committed += slices * SLICE;
                    usage.live += live_bytes(span);
                }
            });
        }
        if usage.spans > 0 {
            visit(usage);
        }
    });
}

/// Whether a report can be made in a signal handler: not if that interrupted a change.
pub fn can_report() -> bool {
    !LINEAGE.is_mending() && !GLOBAL.is_held_by_us() && !classic::is_interrupted()
}

/// Whether a heap knows that nothing of its bitmap span is in use; of one whose blocks others freed it does not.
///
/// # Safety
/// The record is mapped.
unsafe fn is_kept_empty(span: *mut Span) -> bool {
    // SAFETY: as in `live_bytes`.
    unsafe {
        (*span).kind == Kind::Bitmap
            && (*span).back == 0
            && (*span).free & (*span).full == (*span).full
            && (*span).remote.load(Ordering::Relaxed) == 0
    }
}

/// # Safety
/// The record is mapped.
unsafe fn live_bytes(span: *mut Span) -> usize {
    // SAFETY: the caller's promise; racing reads give an old or a new count.
    unsafe {
        match (*span).kind {
            Kind::Slab => {
                // A current span counts one more than it has.
                let live = (*span).live.min(u32::from((*span).carved));
                live as usize * slab::SizeClass::from_index((*span).class).size()
            }
            Kind::Bitmap if (*span).back == 0 => {
                let free = (*span).free | (*span).remote.load(Ordering::Relaxed);
                let live = ((*span).full & !free).count_ones() as usize;
                live * bitmap::SizeClass::from_index((*span).class).size()
            }
            _ => 0,
        }
    }
}
