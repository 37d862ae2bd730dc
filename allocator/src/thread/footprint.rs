//! What the pools and the huge objects hold together.
//!
//! Each of them keeps free memory for its next requests by a rule of its own, from its own recent peak. The
//! phases of a program may ask for other sizes, and then each would keep what another phase needed. So
//! whoever took a MiB that held no pages before looks at all of them: together they keep a quarter above
//! the recent peak of what was in use (or as much as the huge objects may cache, where that is more), and
//! it is the others that give back what is beyond. Where the process's control group has a
//! limit, everybody gives back before what is resident comes near it.
//!
//! Cost: beside the page faults of that MiB, three locks and the clock; once a second with such a MiB the files
//! of the control group, and where there is a limit /proc/self/statm.

use super::global::{Global, Host};
use crate::os;
use crate::segment::{Held, Pool};
use crate::sync::{AtomicU64, AtomicUsize, Ordering};

/// Fresh bytes after which all that is held is looked at.
const FRESH: usize = 1 << 20;
/// Bytes up to which nobody gives anything back because of the others.
const MUCH: usize = 16 << 20;
/// For how long a peak counts, at least; at most twice that. In milliseconds.
const EPOCH_MS: u64 = 250;
/// For how long the limit of the control group is taken to stay as it was, in milliseconds.
const LIMIT_MS: u64 = 1000;

/// The recent peak of what was in use, and the limit. Threads that look at the same time may miss each
/// other's figures: all of them are estimates.
#[derive(Debug)]
pub(super) struct Footprint {
    /// Bytes that may be spare however little is in use.
    floor: AtomicUsize,
    peak: AtomicUsize,
    peak_before: AtomicUsize,
    epoch_began: AtomicU64,
    limit: AtomicUsize,
    limit_read: AtomicU64,
}

impl Footprint {
    pub(super) const fn new() -> Self {
        Footprint {
            floor: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            peak_before: AtomicUsize::new(0),
            epoch_began: AtomicU64::new(0),
            limit: AtomicUsize::new(0),
            limit_read: AtomicU64::new(0),
        }
    }

    /// Lets `floor` bytes be spare however little is in use.
    pub(super) fn configure(&self, floor: usize) {
        self.floor.store(floor, Ordering::Relaxed);
    }

    /// Takes note of `used` bytes; how many may be held because of the recent peak.
    fn fair(&self, used: usize, now: u64) -> usize {
        if now.wrapping_sub(self.epoch_began.load(Ordering::Relaxed)) >= EPOCH_MS {
            self.epoch_began.store(now, Ordering::Relaxed);
            self.peak_before.store(self.peak.load(Ordering::Relaxed), Ordering::Relaxed);
            self.peak.store(0, Ordering::Relaxed);
        }
        let peak = self.peak.load(Ordering::Relaxed).max(used);
        self.peak.store(peak, Ordering::Relaxed);
        let peak = peak.max(self.peak_before.load(Ordering::Relaxed));
        peak.saturating_add((peak / 4).max(self.floor.load(Ordering::Relaxed)))
    }

    /// How many bytes may be resident because of the control group's limit.
    fn allowed(&self, now: u64) -> usize {
        let read = self.limit_read.load(Ordering::Relaxed);
        if read == 0 || now.wrapping_sub(read) >= LIMIT_MS {
            self.limit_read.store(now, Ordering::Relaxed);
            self.limit.store(os::memory_limit().unwrap_or(usize::MAX), Ordering::Relaxed);
        }
        match self.limit.load(Ordering::Relaxed) {
            usize::MAX => usize::MAX,
            // An eighth is for what else is in the group, and for what comes before the next look.
            limit => limit - limit / 8,
        }
    }
}

impl Global {
    fn held(&self) -> Held {
        self.used_pools().map(Pool::held).fold(self.huge.held(), |sum, held| Held {
            used: sum.used + held.used,
            spare: sum.spare + held.spare,
        })
    }

    /// Takes note of what is in use now.
    pub(super) fn note_peak(&self, now: u64) {
        self.footprint.fair(self.held().used, now);
    }

    /// Lets the others give back what is too much beside the `fresh` bytes that `taker`, or the huge objects, just
    /// took. They are not resident yet.
    #[cold]
    #[inline(never)]
    fn level(&self, taker: Option<&Pool<Host>>, fresh: usize) {
        let held = self.held();
        if held.used + held.spare >= MUCH {
            self.shed_unfair(taker, fresh, held);
        }
    }

    #[inline(never)]
    fn shed_unfair(&self, taker: Option<&Pool<Host>>, fresh: usize, held: Held) {
        let now = self.now();
        let fair = self.footprint.fair(held.used, now);
        let allowed = self.footprint.allowed(now);
        let unfair = (held.used + held.spare).saturating_sub(fair);
        if unfair == 0 && allowed == usize::MAX {
            return;
        }
        let Some(resident) = os::resident_bytes().map(|bytes| bytes.saturating_add(fresh)) else {
            return;
        };
        // Not all that is spare holds pages.
        let mut excess = unfair.min(resident.saturating_sub(fair));
        for pool in self.used_pools() {
            if !taker.is_some_and(|taker| core::ptr::eq(taker, pool)) {
                excess -= excess.min(pool.shed(excess));
            }
        }
        if taker.is_some() {
            self.huge.shed(excess);
        }
        if resident > allowed {
            self.shed_everywhere(resident - allowed);
        }
    }

    /// Gives back `excess` bytes of what is spare, wherever it is.
    fn shed_everywhere(&self, mut excess: usize) {
        for pool in self.used_pools() {
            excess -= excess.min(pool.shed(excess));
        }
        self.huge.shed(excess);
    }

    /// Looks at all that is held, if `pool` took much.
    #[inline]
    pub(super) fn level_after(&self, pool: &Pool<Host>) {
        let fresh = pool.took(FRESH);
        if fresh != 0 {
            self.level(Some(pool), fresh);
        }
    }

    /// A huge object, as [`crate::huge::Huge::allocate`].
    pub(crate) fn allocate_huge(&self, size: usize, align: usize, zeroed: bool) -> *mut u8 {
        let object = self.huge.allocate(size, align, zeroed);
        self.level_huge();
        object
    }

    /// Looks at all that is held, if the huge objects took much.
    pub(crate) fn level_huge(&self) {
        let fresh = self.huge.took(FRESH);
        if fresh != 0 {
            self.level(None, fresh);
        }
    }
}
