//! The latency pass: the time of single calls, per operation and size class, and per thread.
//!
//! Counters come from a pool of the harness's own pages, lazily; when a thread ends they are added
//! to those of the run and go back, so that memory follows the threads alive at once. Where more are
//! alive than the pool has room for, as in an order that is looser than the trace's, the rest is mapped
//! set by set.

use std::ffi::c_void;
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};

use super::{Observer, Shared};
use crate::engine::histogram::{BUCKETS, Histogram, bucket_of};
use crate::engine::memory::Region;
use crate::engine::timer::{Timer, now_ns};
use crate::plan::Plan;

/// What kind of call was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OpKind {
    /// `malloc`
    Malloc,
    /// `calloc`
    Calloc,
    /// `realloc`
    Realloc,
    /// Any call that states an alignment.
    Aligned,
    /// `free`, sized or not.
    Free,
    /// `malloc_usable_size`
    UsableSize,
}

impl OpKind {
    const ALL: [OpKind; 6] = [
        OpKind::Malloc,
        OpKind::Calloc,
        OpKind::Realloc,
        OpKind::Aligned,
        OpKind::Free,
        OpKind::UsableSize,
    ];

    /// Its name in result files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            OpKind::Malloc => "malloc",
            OpKind::Calloc => "calloc",
            OpKind::Realloc => "realloc",
            OpKind::Aligned => "aligned",
            OpKind::Free => "free",
            OpKind::UsableSize => "usable_size",
        }
    }
}

/// Sizes up to a power of two: 16, 32, 64 … bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SizeClass(u8);

/// Classes: up to 16 bytes, …, up to 2^35, above.
const CLASSES: usize = 33;

impl SizeClass {
    /// The class of a size.
    #[inline(always)]
    #[must_use]
    pub fn of(size: usize) -> SizeClass {
        let log = usize::BITS - size.saturating_sub(1).leading_zeros();
        #[expect(clippy::cast_possible_truncation, reason = "at most CLASSES - 1")]
        SizeClass((log.saturating_sub(4) as usize).min(CLASSES - 1) as u8)
    }

    /// The largest size in it, in bytes.
    #[must_use]
    pub fn limit_bytes(self) -> u64 {
        if usize::from(self.0) == CLASSES - 1 { u64::MAX } else { 16 << self.0 }
    }
}

/// One histogram of a latency pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatencyRow {
    /// Which call.
    pub op: OpKind,
    /// Of which sizes; `None` = all.
    pub class: Option<SizeClass>,
    /// By which thread; `None` = all.
    pub thread: Option<u32>,
    /// Nanoseconds by call.
    pub histogram: Histogram,
}

/// One slow call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SlowCall {
    /// How long it took.
    pub ns: u64,
    /// Which thread made it.
    pub thread: u32,
    /// Its place in that thread's stream, from 0, repetitions included.
    pub place: u64,
    /// Which event of the stream it was, where that can be said.
    pub event: Option<u64>,
    /// What was called.
    pub op: OpKind,
    /// The size it was about.
    pub size: u64,
}

/// What a latency pass found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// Calls timed: one in so many, drawn at random.
    pub sample_every: u32,
    /// Calls by operation and size class, and by operation and thread.
    pub rows: Vec<LatencyRow>,
    /// First writes to fresh objects, by size class.
    pub first_touch: Vec<(SizeClass, Histogram)>,
    /// Paced: from the intended start of a call to its end.
    pub response: Option<Histogram>,
    /// The slowest calls, slowest first.
    pub slowest: Vec<SlowCall>,
}

/// Sets of counters of one thread: operations × classes, first touches × classes, responses.
const TABLE: usize = OpKind::ALL.len() * CLASSES + CLASSES + 1;
const TOUCHES: usize = OpKind::ALL.len() * CLASSES;
const RESPONSES: usize = TABLE - 1;

/// Counters of all threads of a run.
#[derive(Debug)]
pub(crate) struct LatencyPool {
    counters: Region,
    next: AtomicUsize,
    merged: Mutex<Merged>,
    sample_every: u32,
    slowest: usize,
}

/// A set of BUCKETS counters, in the pool's pages or in pages of its own.
#[derive(Debug)]
struct Set(*mut u64);

// SAFETY: its pages are the pool's to the end, and whoever holds a set is the only one to count in it.
unsafe impl Send for Set {}

#[derive(Debug)]
struct Merged {
    /// Sets given back, zeroed.
    free: Vec<Set>,
    /// The pages of sets that the pool had no room for.
    extra: Vec<Region>,
    all: Vec<Option<Box<[u64]>>>,
    by_thread: Vec<(OpKind, u32, Histogram)>,
    slowest: Vec<SlowCall>,
}

impl LatencyPool {
    /// Room for `threads` threads alive at once, and what more of them need is mapped when they need
    /// it. Address space only: what is counted in becomes resident.
    pub(crate) fn new(threads: usize, sample_every: u32, slowest: u32) -> std::io::Result<Self> {
        let sets = threads.max(1) * TABLE;
        Ok(LatencyPool {
            counters: Region::array::<[u64; BUCKETS]>(sets, false)?,
            next: AtomicUsize::new(0),
            merged: Mutex::new(Merged {
                free: Vec::new(),
                extra: Vec::new(),
                all: (0..TABLE).map(|_| None).collect(),
                by_thread: Vec::new(),
                slowest: Vec::new(),
            }),
            sample_every,
            slowest: slowest as usize,
        })
    }

    fn sets(&self) -> usize {
        self.counters.len() / size_of::<[u64; BUCKETS]>()
    }

    /// A zeroed set of counters that nobody else has; NULL where the kernel gives no page for one.
    fn take(&self) -> *mut u64 {
        if let Some(set) = self.merged.lock().ok().and_then(|mut merged| merged.free.pop()) {
            return set.0;
        }
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        if next < self.sets() {
            return self.counters.start::<u64>().wrapping_add(next * BUCKETS);
        }
        let Ok(own) = Region::array::<[u64; BUCKETS]>(1, false) else { return ptr::null_mut() };
        let Ok(mut merged) = self.merged.lock() else { return ptr::null_mut() };
        let start = own.start();
        merged.extra.push(own);
        start
    }

    /// What all threads found.
    pub(crate) fn report(self, plan: &Plan) -> Latency {
        let merged = self.merged.into_inner().unwrap_or_else(|e| e.into_inner());
        let histogram = |set: &Option<Box<[u64]>>| {
            set.as_ref().map(|counters| Histogram::from_counters(counters))
        };
        let mut rows = Vec::new();
        let mut first_touch = Vec::new();
        for (i, set) in merged.all.iter().enumerate().take(RESPONSES) {
            let Some(histogram) = histogram(set) else { continue };
            #[expect(clippy::cast_possible_truncation, reason = "less than CLASSES")]
            let class = SizeClass((i % CLASSES) as u8);
            if i < TOUCHES {
                let op = OpKind::ALL[i / CLASSES];
                rows.push(LatencyRow { op, class: Some(class), thread: None, histogram });
            } else {
                first_touch.push((class, histogram));
            }
        }
        for (op, thread, histogram) in merged.by_thread {
            rows.push(LatencyRow { op, class: None, thread: Some(thread), histogram });
        }
        let mut slowest = merged.slowest;
        slowest.sort_unstable_by(|a, b| b.cmp(a));
        slowest.truncate(self.slowest);
        for call in &mut slowest {
            call.event = plan.event_at(call.thread, call.place);
        }
        Latency {
            sample_every: self.sample_every,
            rows,
            first_touch,
            response: histogram(&merged.all[RESPONSES]),
            slowest,
        }
    }
}

/// Times the calls of one thread.
#[derive(Debug)]
pub(crate) struct LatencyObserver {
    pool: *const LatencyPool,
    timer: Timer,
    table: [*mut u64; TABLE],
    /// Calls until the next timed one.
    gap: u32,
    random: u64,
    thread: u32,
    place: u64,
    intended_ns: u64,
    touch_now: bool,
    slow: Vec<SlowCall>,
    slow_floor: u64,
}

impl LatencyObserver {
    fn pool(&self) -> &LatencyPool {
        // SAFETY: the pool lies in `Shared`, which outlives every observer.
        unsafe { &*self.pool }
    }

    #[inline(always)]
    fn count(&mut self, set: usize, ns: u64) {
        if self.table[set].is_null() {
            self.table[set] = self.pool().take();
        }
        if self.table[set].is_null() {
            return;
        }
        let counter = self.table[set].wrapping_add(bucket_of(ns));
        // SAFETY: `take` gave a set of BUCKETS counters to this thread alone; `bucket_of` is less than
        // BUCKETS.
        unsafe { counter.write_volatile(counter.read_volatile() + 1) };
    }

    /// Draws how many calls pass untimed, so that one in `every` is timed on average.
    #[inline(always)]
    fn draw(&mut self) {
        let every = self.pool().sample_every;
        if every <= 1 {
            self.gap = 0;
            return;
        }
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let span = u64::from(every) * 2 - 1;
        // Uniform on 0 ..= 2·every − 2: mean every − 1, and no stride.
        self.gap = (((self.random >> 32) * span) >> 32) as u32;
    }

    #[cold]
    fn note_slow(&mut self, op: OpKind, size: usize, ns: u64) {
        let capacity = self.pool().slowest;
        let (thread, place) = (self.thread, self.place);
        let call = SlowCall { ns, thread, place, event: None, op, size: size as u64 };
        if self.slow.len() < capacity {
            self.slow.push(call);
        } else if let Some(i) = (0..self.slow.len()).min_by_key(|&i| self.slow[i].ns) {
            self.slow[i] = call;
        }
        if self.slow.len() >= capacity {
            self.slow_floor = self.slow.iter().map(|s| s.ns).min().unwrap_or(0);
        }
    }
}

impl Observer for LatencyObserver {
    const SIZES: bool = true;

    fn new(shared: &Shared<'_>, id: usize) -> Self {
        let pool = shared.latency.as_ref().expect("made for this pass");
        let thread = u32::try_from(id).unwrap_or(u32::MAX);
        let mut observer = LatencyObserver {
            pool,
            timer: shared.timer,
            table: [ptr::null_mut(); TABLE],
            gap: 0,
            random: (shared.options.seed ^ (u64::from(thread) << 32)).wrapping_mul(0x9e37_79b9) | 1,
            thread,
            place: shared.places(id).start,
            intended_ns: 0,
            touch_now: false,
            slow: Vec::with_capacity(pool.slowest),
            slow_floor: if pool.slowest == 0 { u64::MAX } else { 0 },
        };
        observer.draw();
        observer
    }

    #[inline(always)]
    fn call(
        &mut self,
        kind: OpKind,
        size: usize,
        call: impl FnOnce() -> *mut c_void,
    ) -> *mut c_void {
        if self.gap > 0 {
            self.gap -= 1;
            self.touch_now = false;
            return call();
        }
        let before = self.timer.ticks();
        let result = call();
        let after = self.timer.ticks();
        let ns = self.timer.ns(after.wrapping_sub(before));
        self.count(kind as usize * CLASSES + usize::from(SizeClass::of(size).0), ns);
        if self.intended_ns != 0 {
            let response = now_ns().saturating_sub(self.intended_ns);
            self.count(RESPONSES, response);
            self.intended_ns = 0;
        }
        if ns > self.slow_floor {
            self.note_slow(kind, size, ns);
        }
        self.touch_now = true;
        self.draw();
        result
    }

    #[inline(always)]
    fn touch(&mut self, size: usize, write: impl FnOnce()) {
        if !self.touch_now {
            return write();
        }
        let before = self.timer.ticks();
        write();
        let after = self.timer.ticks();
        let ns = self.timer.ns(after.wrapping_sub(before));
        self.count(TOUCHES + usize::from(SizeClass::of(size).0), ns);
    }

    #[inline(always)]
    fn place(&mut self) {
        self.place += 1;
    }

    fn intended(&mut self, at_ns: u64) {
        self.intended_ns = at_ns;
    }

    fn finish(&mut self, _: &Shared<'_>, _: usize) {
        let pool = self.pool;
        // SAFETY: the pool lies in `Shared`, which outlives every observer.
        let pool = unsafe { &*pool };
        let Ok(mut merged) = pool.merged.lock() else { return };
        let mut by_op: [Option<Vec<u64>>; OpKind::ALL.len()] = Default::default();
        for (set, &start) in self.table.iter().enumerate() {
            if start.is_null() {
                continue;
            }
            // SAFETY: a set of BUCKETS counters of this thread, which counts no more.
            let counters = unsafe { std::slice::from_raw_parts_mut(start, BUCKETS) };
            let all = merged.all[set].get_or_insert_with(|| vec![0; BUCKETS].into_boxed_slice());
            all.iter_mut().zip(counters.iter()).for_each(|(a, b)| *a += b);
            if set < TOUCHES {
                let op = by_op[set / CLASSES].get_or_insert_with(|| vec![0; BUCKETS]);
                op.iter_mut().zip(counters.iter()).for_each(|(a, b)| *a += b);
            }
            counters.fill(0);
            merged.free.push(Set(start));
        }
        for (op, counters) in OpKind::ALL.iter().zip(by_op) {
            if let Some(counters) = counters {
                let histogram = Histogram::from_counters(&counters);
                let key = (*op, self.thread);
                match merged.by_thread.iter_mut().find(|row| (row.0, row.1) == key) {
                    Some(row) => row.2.merge(&histogram),
                    None => merged.by_thread.push((key.0, key.1, histogram)),
                }
            }
        }
        merged.slowest.append(&mut self.slow);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_classes_are_powers_of_two_from_16_bytes_on() {
        for (size, limit) in [(0, 16), (1, 16), (16, 16), (17, 32), (4096, 4096), (4097, 8192)] {
            assert_eq!(SizeClass::of(size).limit_bytes(), limit, "{size}");
        }
        assert_eq!(SizeClass::of(usize::MAX).limit_bytes(), u64::MAX);
    }

    #[test]
    fn every_set_of_counters_is_taken_once_however_many_threads_live() {
        let pool = LatencyPool::new(1, 1, 0).unwrap();
        let mut sets: Vec<usize> = (0..pool.sets() + 5).map(|_| pool.take().addr()).collect();
        sets.sort_unstable();
        let apart = |pair: &[usize]| pair[1] - pair[0] >= size_of::<[u64; BUCKETS]>();
        assert!(sets[0] != 0 && sets.windows(2).all(apart));
    }
}
