//! The one pass: every event updates counters; live objects are remembered by number.
#![forbid(unsafe_code)]

use super::{
    Counter, CrossThreadPair, Curve, CurvePoint, Fragmentation, Grid, HotSize, LogHistogram,
    Operations, Reallocs, SizeClasses, Summary, ThreadSummary,
};
use crate::event::{Event, ObjectId, Op, ThreadId};
use crate::import::{Census, IntMap};

/// Rows of each list in a summary.
const SHOWN: usize = 64;

#[derive(Clone, Copy)]
struct Live {
    size: u64,
    born_call: u64,
    born_ns: u64,
    thread: ThreadId,
    /// How often this memory was reallocated before.
    chain: u32,
}

/// Sums up a stream event by event.
pub struct Profiler {
    events: u64,
    calls: u64,
    operations: Operations,
    live: IntMap<u64, Live>,
    live_bytes: u64,
    blocks: [u64; SizeClasses::ALL.len()],
    peak: Peak,
    threads: IntMap<u32, ThreadSummary>,
    threads_ended: u64,
    peak_threads: u64,
    pairs: Counter,
    cross_thread_frees: u64,
    allocated_objects: u64,
    allocated_bytes: u64,
    last_ns: Option<u64>,
    sizes: LogHistogram,
    exact_sizes: Counter,
    alignments: Counter,
    lifetime_calls: LogHistogram,
    lifetime_ns: LogHistogram,
    grid: Vec<Vec<u64>>,
    reallocs: Reallocs,
    chains: LogHistogram,
    curve: Curve,
}

#[derive(Default)]
struct Peak {
    bytes: u64,
    objects: u64,
    blocks: [u64; SizeClasses::ALL.len()],
}

impl std::fmt::Debug for Profiler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Profiler").field("events", &self.events).finish_non_exhaustive()
    }
}

impl Default for Profiler {
    fn default() -> Self {
        Profiler::new()
    }
}

impl Profiler {
    /// Nothing seen yet.
    #[must_use]
    pub fn new() -> Self {
        Profiler {
            events: 0,
            calls: 0,
            operations: Operations::default(),
            live: IntMap::default(),
            live_bytes: 0,
            blocks: [0; SizeClasses::ALL.len()],
            peak: Peak::default(),
            threads: IntMap::default(),
            threads_ended: 0,
            peak_threads: 0,
            pairs: Counter::default(),
            cross_thread_frees: 0,
            allocated_objects: 0,
            allocated_bytes: 0,
            last_ns: None,
            sizes: LogHistogram::default(),
            exact_sizes: Counter::default(),
            alignments: Counter::default(),
            lifetime_calls: LogHistogram::default(),
            lifetime_ns: LogHistogram::default(),
            grid: Vec::new(),
            reallocs: Reallocs::default(),
            chains: LogHistogram::default(),
            curve: Curve::default(),
        }
    }

    /// Takes the next event of the stream.
    pub fn observe(&mut self, event: &Event) {
        self.note_thread(event.thread);
        self.last_ns = event.time_ns.max(self.last_ns);
        self.count(&event.op);
        if let Op::Realloc { old, object, size } = event.op {
            self.note_realloc(event, old, object, size);
        } else if let Some(object) = event.op.released() {
            self.release(event, object, true);
        } else if let Some(object) = event.op.born() {
            self.bear(event, object, 0);
        }
        if self.live_bytes > self.peak.bytes {
            self.peak.bytes = self.live_bytes;
            self.peak.blocks = self.blocks;
        }
        self.peak.objects = self.peak.objects.max(self.live.len() as u64);
        if self.curve.wants(self.events) {
            let point = self.point();
            self.curve.push(point);
        }
        self.events += 1;
    }

    /// What the whole stream tells; `census` is what its importer counted.
    #[must_use]
    pub fn finish(mut self, census: Census) -> Summary {
        // Chains that are still alive count too.
        for live in self.live.values() {
            if live.chain > 0 {
                self.chains.record(u64::from(live.chain));
            }
        }
        let last = self.point();
        self.reallocs.chain_length = self.chains.distribution();
        let (pairs, pairs_omitted) = self.pairs.most(SHOWN);
        let mut busiest: Vec<ThreadSummary> = self.threads.values().copied().collect();
        busiest.sort_by_key(|t| (std::cmp::Reverse(t.allocations + t.frees), t.thread));
        let threads_omitted = busiest.len().saturating_sub(SHOWN) as u64;
        busiest.truncate(SHOWN);
        Summary {
            events: self.events,
            operations: self.operations,
            threads: self.threads.len() as u64,
            peak_threads: self.peak_threads,
            cross_thread_frees: self.cross_thread_frees,
            allocated_objects: self.allocated_objects,
            allocated_bytes: self.allocated_bytes,
            peak_live_bytes: self.peak.bytes,
            peak_live_objects: self.peak.objects,
            final_live_bytes: self.live_bytes,
            final_live_objects: self.live.len() as u64,
            duration_ns: self.last_ns,
            census,
            sizes: self.sizes.distribution(),
            hot_sizes: self.exact_sizes.most(SHOWN).0.into_iter().map(hot).collect(),
            size_counts: self.exact_sizes,
            lifetime_calls: self.lifetime_calls.distribution(),
            lifetime_ns: self.last_ns.map(|_| self.lifetime_ns.distribution()),
            size_by_lifetime: Grid { rows: self.grid },
            alignments: self.alignments.most(SHOWN).0.into_iter().map(hot).collect(),
            reallocs: self.reallocs,
            cross_thread_pairs: pairs.into_iter().map(pair).collect(),
            cross_thread_pairs_omitted: pairs_omitted,
            busiest_threads: busiest,
            threads_omitted,
            growth: self.curve.finish(last),
            predicted_fragmentation: fragmentation(&self.peak),
        }
    }

    /// The sizes of all objects so far.
    #[must_use]
    pub fn sizes(&self) -> &LogHistogram {
        &self.sizes
    }

    /// The lifetimes, in calls, of all objects released so far.
    #[must_use]
    pub fn lifetimes(&self) -> &LogHistogram {
        &self.lifetime_calls
    }

    fn point(&self) -> CurvePoint {
        CurvePoint {
            event: self.events,
            time_ns: self.last_ns,
            live_bytes: self.live_bytes,
            live_objects: self.live.len() as u64,
            threads: (self.threads.len() as u64).saturating_sub(self.threads_ended),
        }
    }

    fn note_thread(&mut self, thread: ThreadId) {
        let event = self.events;
        let row = self.threads.entry(thread.0).or_insert(ThreadSummary {
            thread: thread.0,
            first_event: event,
            ..ThreadSummary::default()
        });
        row.last_event = event;
        let alive = (self.threads.len() as u64).saturating_sub(self.threads_ended);
        self.peak_threads = self.peak_threads.max(alive);
    }

    fn count(&mut self, op: &Op) {
        let operations = &mut self.operations;
        match op {
            Op::Malloc { .. } => operations.malloc += 1,
            Op::Calloc { .. } => operations.calloc += 1,
            Op::Realloc { .. } => operations.realloc += 1,
            Op::Aligned { align, .. } => {
                operations.memalign += 1;
                self.alignments.add(*align);
            }
            Op::Free { object, .. } => {
                operations.free += 1;
                operations.free_null += u64::from(object.is_none());
            }
            Op::UsableSize { .. } => operations.usable_size += 1,
            Op::ThreadStart { .. } | Op::Access { .. } => return,
            Op::ThreadEnd => {
                operations.thread_done += 1;
                self.threads_ended += 1;
                return;
            }
            Op::Fork { .. } => {
                operations.fork += 1;
                return;
            }
            Op::Marker { .. } => {
                operations.marker += 1;
                return;
            }
        }
        self.calls += 1;
    }

    fn note_realloc(
        &mut self,
        event: &Event,
        old: Option<ObjectId>,
        object: Option<ObjectId>,
        size: u64,
    ) {
        let released = event.op.released().and_then(|old| self.release(event, old, false));
        match (object, released) {
            (None, None) => {
                self.reallocs.failed += u64::from(size > 0);
                self.reallocs.to_nothing += u64::from(size == 0);
            }
            (None, Some(before)) => {
                self.reallocs.to_nothing += 1;
                self.end_chain(before);
            }
            (Some(_), None) => self.reallocs.of_null += u64::from(old.is_none()),
            (Some(_), Some(before)) => match size.cmp(&before.size) {
                std::cmp::Ordering::Greater => self.reallocs.grown += 1,
                std::cmp::Ordering::Less => self.reallocs.shrunk += 1,
                std::cmp::Ordering::Equal => self.reallocs.same += 1,
            },
        }
        if let Some(object) = object {
            self.bear(event, object, released.map_or(0, |before| before.chain.saturating_add(1)));
        }
    }

    fn bear(&mut self, event: &Event, object: ObjectId, chain: u32) {
        let size = event.op.requested().unwrap_or(0);
        let live = Live {
            size,
            born_call: self.calls,
            born_ns: event.time_ns.unwrap_or(0),
            thread: event.thread,
            chain,
        };
        if let Some(lost) = self.live.insert(object.index(), live) {
            // A stream that breaks its own rules must not break the sums.
            self.live_bytes -= lost.size;
        }
        self.live_bytes = self.live_bytes.saturating_add(size);
        for (bytes, classes) in self.blocks.iter_mut().zip(SizeClasses::ALL) {
            *bytes = bytes.saturating_add(classes.block(size));
        }
        self.allocated_objects += 1;
        self.allocated_bytes = self.allocated_bytes.saturating_add(size);
        self.sizes.record(size);
        self.exact_sizes.add(size);
        if let Some(thread) = self.threads.get_mut(&event.thread.0) {
            thread.allocations += 1;
            thread.allocated_bytes = thread.allocated_bytes.saturating_add(size);
        }
    }

    fn release(&mut self, event: &Event, object: ObjectId, by_free: bool) -> Option<Live> {
        let live = self.live.remove(&object.index())?;
        self.live_bytes = self.live_bytes.saturating_sub(live.size);
        for (bytes, classes) in self.blocks.iter_mut().zip(SizeClasses::ALL) {
            *bytes = bytes.saturating_sub(classes.block(live.size));
        }
        let calls = self.calls - live.born_call;
        self.lifetime_calls.record(calls);
        if let Some(now) = event.time_ns {
            self.lifetime_ns.record(now.saturating_sub(live.born_ns));
        }
        self.note_in_grid(live.size, calls);
        let cross = live.thread != event.thread;
        if by_free {
            if let Some(thread) = self.threads.get_mut(&event.thread.0) {
                thread.frees += 1;
                thread.cross_thread_frees += u64::from(cross);
            }
            if cross {
                self.cross_thread_frees += 1;
                self.pairs.add(u64::from(live.thread.0) << 32 | u64::from(event.thread.0));
            }
            self.end_chain(live);
        } else {
            self.reallocs.cross_thread += u64::from(cross);
        }
        Some(live)
    }

    fn end_chain(&mut self, live: Live) {
        if live.chain > 0 {
            self.chains.record(u64::from(live.chain));
        }
    }

    fn note_in_grid(&mut self, size: u64, calls: u64) {
        let (row, column) = (bits(size), bits(calls));
        if self.grid.len() <= row {
            self.grid.resize(row + 1, Vec::new());
        }
        let cells = &mut self.grid[row];
        if cells.len() <= column {
            cells.resize(column + 1, 0);
        }
        cells[column] += 1;
    }
}

/// Bits a value needs: 0 for 0, 1 for 1, 2 for 2 and 3, …
fn bits(value: u64) -> usize {
    (u64::BITS - value.leading_zeros()) as usize
}

fn hot((size, count): (u64, u64)) -> HotSize {
    HotSize { size, count }
}

fn pair((key, count): (u64, u64)) -> CrossThreadPair {
    CrossThreadPair { allocated_by: (key >> 32) as u32, freed_by: key as u32, count }
}

fn fragmentation(peak: &Peak) -> Vec<Fragmentation> {
    let rows = SizeClasses::ALL.into_iter().zip(peak.blocks);
    rows.map(|(classes, block_bytes)| Fragmentation {
        allocator: classes.name().to_owned(),
        peak_block_bytes: block_bytes,
        internal_fragmentation: if block_bytes == 0 {
            0.0
        } else {
            1.0 - peak.bytes as f64 / block_bytes as f64
        },
    })
    .collect()
}
