//! What the pools and the huge objects hold together.
//!
//! Each of them keeps free memory for its next requests by a rule of its own, from its own recent peak. The
//! phases of a program may ask for other sizes, and then each would keep what another phase needed. So
//! whoever took a MiB that held no pages before looks at all of them: what is in use and what is spare may
//! come to a quarter above the recent peak of what was in use (or to as much more as the huge objects may
//! cache, where that is more), and it is the others that give back what is beyond. Where the process's control
//! group has a limit, what is spare may come to half of what the limit leaves beside everything else: whoever freed a
//! MiB looks, too, and heaps that need more than a quarter of the limit keep no empty spans, which nobody counts.
//!
//! A program that goes to and fro between two such phases, within the quarter of a second for which peaks
//! count, pays with page faults for what is beyond; one whose phases use the same sizes never does.
//!
//! Cost: beside the page faults of that MiB a lock for each pool and the clock; with such a MiB the files of the
//! control group once a second, and /proc/self/statm where there is a limit or too much is spare. Where there is a
//! limit, for a MiB that was freed as many locks, and that file once a tick of the clock and for each MiB more that is
//! spare.

use super::global::{Global, Host, host};
use crate::huge;
use crate::os::{self, Kernel};
use crate::segment::{Held, Pool, Span};
use crate::sync::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// Fresh bytes after which all that is held is looked at.
const FRESH: usize = 1 << 20;
/// Bytes up to which nobody gives anything back because of the others.
const MUCH: usize = 16 << 20;
/// What is given back at once beyond what is too much, as a part of what may be held: each look goes through
/// the segments of a pool.
const AT_ONCE: usize = 32;
/// For how long a peak counts, at least, and for how long the others are left alone after a look that did not
/// help. In milliseconds.
const EPOCH_MS: u64 = 250;
/// A program whose recent peak is above this part of the limit keeps no empty spans.
const TIGHT: usize = 4;
/// Why no empty spans are kept: the option says so; the limit is near.
const LEAN: u32 = 1;
const NEAR: u32 = 2;
/// For how long the limit of the control group is taken to stay as it was, in milliseconds.
const LIMIT_MS: u64 = 1000;

/// The recent peak of what was in use, and the limit. Threads that look at the same time may miss each
/// other's figures: all of them are estimates.
#[derive(Debug)]
pub(super) struct Footprint {
    /// Bytes that may be spare however little is in use.
    floor: AtomicUsize,
    /// Bytes without pages that were handed out so far.
    taken: AtomicUsize,
    peak: AtomicUsize,
    peak_before: AtomicUsize,
    epoch_began: AtomicU64,
    /// Of the control group, in bytes; 0 where there is none.
    limit: AtomicUsize,
    limit_read: AtomicU64,
    /// When the last look did not help.
    failed: AtomicU64,
    /// Why no empty spans are kept, if none are.
    sparing: AtomicU32,
    /// Bytes that were freed since somebody last looked whether the limit allows that.
    freed: AtomicUsize,
    /// When somebody looked, and what was spare then.
    looked_at: AtomicU64,
    spare: AtomicUsize,
}

impl Footprint {
    pub(super) const fn new() -> Self {
        Footprint {
            floor: AtomicUsize::new(0),
            taken: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            peak_before: AtomicUsize::new(0),
            epoch_began: AtomicU64::new(0),
            limit: AtomicUsize::new(0),
            limit_read: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            sparing: AtomicU32::new(0),
            freed: AtomicUsize::new(0),
            looked_at: AtomicU64::new(0),
            spare: AtomicUsize::new(0),
        }
    }

    /// Lets `floor` bytes be spare however little is in use, and heaps keep no empty spans if they are `lean`.
    pub(super) fn configure(&self, floor: usize, lean: bool) {
        self.floor.store(floor, Ordering::Relaxed);
        self.spares(LEAN, lean);
    }

    /// Notes whether no empty spans are kept for the reason `why`.
    fn spares(&self, why: u32, whether: bool) {
        if whether {
            self.sparing.fetch_or(why, Ordering::Relaxed);
        } else {
            self.sparing.fetch_and(!why, Ordering::Relaxed);
        }
    }

    /// Counts bytes that were freed; whether they are many since somebody looked.
    fn count_freed(&self, bytes: usize) -> bool {
        let freed = self.freed.load(Ordering::Relaxed) + bytes;
        let many = freed >= FRESH;
        self.freed.store(if many { 0 } else { freed }, Ordering::Relaxed);
        many
    }

    /// Whether it was looked just now, when hardly less was spare.
    fn was_looked_at(&self, spare: usize, now: u64) -> bool {
        self.looked_at.load(Ordering::Relaxed) == now
            && spare < self.spare.load(Ordering::Relaxed).saturating_add(FRESH)
    }

    /// Notes what is spare after a look.
    fn note_look(&self, spare: usize, now: u64) {
        self.spare.store(spare, Ordering::Relaxed);
        self.looked_at.store(now, Ordering::Relaxed);
    }

    /// Takes note of a peak; the recent one.
    fn note(&self, peak: usize, now: u64) -> usize {
        let began = self.epoch_began.load(Ordering::Relaxed);
        if now.saturating_sub(began) >= EPOCH_MS
            && self
                .epoch_began
                .compare_exchange(began, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            self.peak_before.store(self.peak.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        }
        let of_epoch = self.peak.fetch_max(peak, Ordering::Relaxed).max(peak);
        of_epoch.max(self.peak_before.load(Ordering::Relaxed))
    }

    /// How many bytes may be held because of the recent peak.
    fn fair(&self, peak: usize) -> usize {
        peak.saturating_add((peak / 4).max(self.floor.load(Ordering::Relaxed)))
    }

    /// The control group's limit in bytes, if it has one.
    fn limit(&self, now: u64) -> Option<usize> {
        let read = self.limit_read.load(Ordering::Relaxed);
        if read == 0 || now.saturating_sub(read) >= LIMIT_MS {
            self.limit_read.store(now, Ordering::Relaxed);
            self.limit.store(os::memory_limit().unwrap_or(0), Ordering::Relaxed);
        }
        Some(self.limit.load(Ordering::Relaxed)).filter(|&limit| limit != 0)
    }

    /// Whether a look did not help just now: what seems spare cannot be given back.
    fn is_in_vain(&self, now: u64) -> bool {
        let failed = self.failed.load(Ordering::Relaxed);
        failed != 0 && now.saturating_sub(failed) < EPOCH_MS
    }
}

impl Global {
    /// What all hold together; `None` while somebody changes it. The peaks need not have been at the
    /// same time: together they are as high as the highest of them.
    fn held(&self) -> Option<Held> {
        self.used_pools().map(Pool::held_now).try_fold(self.huge.held_now()?, |sum, held| {
            let held = held?;
            let used = sum.used + held.used;
            let peak = used.max(sum.peak).max(held.peak);
            Some(Held { used, peak, spare: sum.spare + held.spare })
        })
    }

    /// Takes note of what is in use now.
    #[inline]
    pub(super) fn note_peak(&self, now: u64) {
        if self.footprint.taken.load(Ordering::Relaxed) >= MUCH {
            self.note_held(now);
        }
    }

    #[inline(never)]
    fn note_held(&self, now: u64) {
        if let Some(held) = self.held() {
            self.footprint.note(held.peak, now);
        }
    }

    /// Looks at all that is held, after `taker`, or the huge objects, took `fresh` bytes without pages.
    #[cold]
    #[inline(never)]
    fn level(&self, taker: Option<&Pool<Host>>, fresh: usize) {
        // No more can be held than was ever taken.
        let taken = self.footprint.taken.fetch_add(fresh, Ordering::Relaxed).wrapping_add(fresh);
        if taken >= MUCH {
            self.shed_excess(taker, fresh);
        }
    }

    /// Gives back what is too much.
    #[inline(never)]
    fn shed_excess(&self, taker: Option<&Pool<Host>>, fresh: usize) {
        let Some(held) = self.held().filter(|held| held.used + held.spare >= MUCH) else { return };
        let now = self.now();
        let peak = self.footprint.note(held.peak, now);
        let fair = self.footprint.fair(peak);
        let limit = self.footprint.limit(now);
        self.footprint.spares(NEAR, limit.is_some_and(|limit| peak > limit / TIGHT));
        let mut unfair = (held.used + held.spare).saturating_sub(fair);
        if self.footprint.is_in_vain(now) {
            unfair = 0;
        }
        if unfair == 0 && limit.is_none() {
            return;
        }
        let Some(resident) = host().resident_bytes() else { return };
        // The fresh bytes hold no pages yet; and not all that is spare does.
        let resident = resident.saturating_add(fresh);
        let mut wanted = unfair.min(resident.saturating_sub(fair));
        let mut spare = held.spare;
        if wanted != 0 {
            wanted += fair / AT_ONCE;
            let given = self.shed(wanted, taker);
            spare = spare.saturating_sub(given);
            if given == 0 {
                self.footprint.failed.store(now, Ordering::Relaxed);
            }
        }
        if let Some(limit) = limit {
            // What is spare now was resident a moment ago, and counts as such.
            self.keep_to_limit(limit, resident.saturating_sub(held.spare), spare, now);
        }
    }

    /// Lets everybody give back what is too much of the `spare` bytes beside the `others` that are resident.
    fn keep_to_limit(&self, limit: usize, others: usize, spare: usize, now: u64) {
        let most = limit.saturating_sub(others) / 2;
        let excess = spare.saturating_sub(most);
        if excess != 0 && self.shed_everywhere(excess + (excess / 8).max(most / AT_ONCE)) == 0 {
            self.footprint.failed.store(now, Ordering::Relaxed);
        }
    }

    /// Looks whether the limit of the control group, if there is one, allows that `bytes` more are spare.
    #[inline]
    pub(super) fn level_freed(&self, bytes: usize) {
        if self.footprint.limit.load(Ordering::Relaxed) != 0 {
            self.level_spare(bytes);
        }
    }

    #[cold]
    #[inline(never)]
    fn level_spare(&self, bytes: usize) {
        if !self.footprint.count_freed(bytes) {
            return;
        }
        let Some(held) = self.held().filter(|held| held.used + held.spare >= MUCH) else { return };
        let now = self.now();
        if self.footprint.was_looked_at(held.spare, now) || self.footprint.is_in_vain(now) {
            return;
        }
        let Some(limit) = self.footprint.limit(now) else { return };
        let Some(resident) = host().resident_bytes() else { return };
        self.keep_to_limit(limit, resident.saturating_sub(held.spare), held.spare, now);
        self.footprint.note_look(self.held().map_or(held.spare, |held| held.spare), now);
    }

    /// Whether a heap may keep as many empty spans as it likes: nobody else wants their slices, and memory need
    /// not be given back at once.
    pub(super) fn lets_keep(&self) -> bool {
        self.alone() && self.footprint.sparing.load(Ordering::Relaxed) == 0
    }

    /// Lets all but `taker` (or all but the huge objects) give back `bytes`; how many it were.
    fn shed(&self, bytes: usize, taker: Option<&Pool<Host>>) -> usize {
        let mut given = 0;
        for pool in self.used_pools() {
            if !taker.is_some_and(|taker| core::ptr::eq(taker, pool)) {
                given += pool.shed(bytes.saturating_sub(given));
            }
        }
        if taker.is_some() {
            given += self.huge.shed(bytes.saturating_sub(given));
        }
        given
    }

    /// Lets everybody give back `bytes`; how many it were.
    fn shed_everywhere(&self, bytes: usize) -> usize {
        let huge = self.huge.shed(bytes);
        huge + self.shed(bytes.saturating_sub(huge), None)
    }

    /// Looks at all that is held, if `pool` took much.
    #[inline]
    pub(super) fn level_after(&self, pool: &Pool<Host>) {
        let fresh = pool.take_fresh(FRESH);
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

    /// Frees a huge object, as [`crate::huge::Huge::free`].
    ///
    /// # Safety
    /// As there.
    pub(super) unsafe fn free_huge(&self, record: *mut Span) {
        // SAFETY: the caller's promise.
        let bytes = unsafe {
            let bytes = huge::usable(record);
            self.huge.free(record, || self.slice_bytes());
            bytes
        };
        self.level_freed(bytes);
    }

    /// Looks at all that is held, if the huge objects took much.
    pub(crate) fn level_huge(&self) {
        let fresh = self.huge.take_fresh(FRESH);
        if fresh != 0 {
            self.level(None, fresh);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_counts_for_an_epoch_and_the_one_after() {
        let footprint = Footprint::new();
        assert_eq!(footprint.note(100, 1000), 100);
        assert_eq!(footprint.note(40, 999), 100, "the time of a thread that came before");
        assert_eq!(footprint.note(40, 1100), 100);
        assert_eq!(footprint.note(40, 1260), 100, "of the epoch before");
        assert_eq!(footprint.note(30, 1300), 100);
        assert_eq!(footprint.note(20, 1520), 40, "two epochs later");
        assert_eq!(footprint.fair(40), 50);
        footprint.configure(64, false);
        assert_eq!((footprint.fair(40), footprint.fair(400)), (104, 500));
    }

    #[test]
    fn what_is_freed_is_looked_at_each_mib_and_again_when_time_has_passed_or_a_mib_more_is_spare() {
        let footprint = Footprint::new();
        assert!(!footprint.count_freed(FRESH - 1) && footprint.count_freed(1));
        assert!(!footprint.count_freed(FRESH / 2) && footprint.count_freed(FRESH));
        assert!(!footprint.was_looked_at(0, 7));
        footprint.note_look(5 * FRESH, 7);
        assert!(footprint.was_looked_at(6 * FRESH - 1, 7));
        assert!(!footprint.was_looked_at(6 * FRESH, 7) && !footprint.was_looked_at(0, 8));
    }

    #[test]
    fn after_a_look_in_vain_nobody_looks_for_an_epoch() {
        let footprint = Footprint::new();
        assert!(!footprint.is_in_vain(100));
        footprint.failed.store(1000, Ordering::Relaxed);
        assert!(footprint.is_in_vain(999), "the time of a thread that came before");
        assert!(footprint.is_in_vain(1249));
        assert!(!footprint.is_in_vain(1250));
    }
}
