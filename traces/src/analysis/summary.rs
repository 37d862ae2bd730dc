//! What one pass over a trace tells, as it is reported. Scripts rely on the names of the fields.
#![forbid(unsafe_code)]

use serde::Serialize;

use super::{Counter, CurvePoint, Distribution};
use crate::import::Census;

/// Calls by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Operations {
    /// `malloc`
    pub malloc: u64,
    /// `calloc`
    pub calloc: u64,
    /// `realloc`
    pub realloc: u64,
    /// Every call that states an alignment.
    pub memalign: u64,
    /// `free`, the ones of NULL included.
    pub free: u64,
    /// `free(NULL)`
    pub free_null: u64,
    /// `malloc_usable_size`
    pub usable_size: u64,
    /// Ends of threads.
    pub thread_done: u64,
    /// Forks.
    pub fork: u64,
    /// Markers.
    pub marker: u64,
}

impl Operations {
    /// Calls of the malloc family.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.malloc + self.calloc + self.realloc + self.memalign + self.free + self.usable_size
    }
}

/// A size requested often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct HotSize {
    /// Bytes requested.
    pub size: u64,
    /// Successful requests.
    pub count: u64,
}

/// How `realloc` was used.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Reallocs {
    /// To a larger size.
    pub grown: u64,
    /// To a smaller size.
    pub shrunk: u64,
    /// To the same size.
    pub same: u64,
    /// Of NULL: allocations.
    pub of_null: u64,
    /// To nothing: releases.
    pub to_nothing: u64,
    /// Without success.
    pub failed: u64,
    /// By a thread other than the one that allocated the object.
    pub cross_thread: u64,
    /// How often objects that were reallocated at all were, over their whole chain.
    pub chain_length: Distribution,
}

/// Objects allocated by one thread and freed by another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct CrossThreadPair {
    /// The thread that allocated.
    pub allocated_by: u32,
    /// The thread that freed.
    pub freed_by: u32,
    /// How many objects.
    pub count: u64,
}

/// One thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ThreadSummary {
    /// Its number, in order of birth.
    pub thread: u32,
    /// Calls that returned an object.
    pub allocations: u64,
    /// Calls of `free`, without NULL.
    pub frees: u64,
    /// Those of an object that another thread had allocated.
    pub cross_thread_frees: u64,
    /// Bytes requested with success.
    pub allocated_bytes: u64,
    /// Events of the stream before its first.
    pub first_event: u64,
    /// Events of the stream before its last.
    pub last_event: u64,
}

/// Counts by size (rows) and lifetime in calls (columns), both in powers of two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Grid {
    /// `rows[i][j]`: objects of `2^(i-1) .. 2^i` bytes that lived `2^(j-1) .. 2^j` calls.
    pub rows: Vec<Vec<u64>>,
}

/// What an allocator's size classes make of the peak.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fragmentation {
    /// The allocator.
    pub allocator: String,
    /// Bytes of all blocks when live requested bytes were at their peak.
    pub peak_block_bytes: u64,
    /// Share of those bytes that nobody requested.
    pub internal_fragmentation: f64,
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Events of the stream, births of threads included.
    pub events: u64,
    /// Calls by kind.
    pub operations: Operations,
    /// Threads.
    pub threads: u64,
    /// The most threads alive at once.
    pub peak_threads: u64,
    /// Objects freed by a thread other than the one that allocated them.
    pub cross_thread_frees: u64,
    /// Objects allocated.
    pub allocated_objects: u64,
    /// Bytes requested with success, over the whole trace.
    pub allocated_bytes: u64,
    /// The most requested bytes alive at once.
    pub peak_live_bytes: u64,
    /// The most objects alive at once.
    pub peak_live_objects: u64,
    /// Requested bytes alive at the end.
    pub final_live_bytes: u64,
    /// Objects alive at the end.
    pub final_live_objects: u64,
    /// From the first event to the last, where the trace has times.
    pub duration_ns: Option<u64>,
    /// What the importer had to repair or leave out.
    pub census: Census,
    /// Requested sizes of all objects.
    pub sizes: Distribution,
    /// Sizes requested most often.
    pub hot_sizes: Vec<HotSize>,
    /// How often each size was requested, for whoever compares; not reported.
    #[serde(skip)]
    pub size_counts: Counter,
    /// Calls from birth to release, of objects that were released.
    pub lifetime_calls: Distribution,
    /// Nanoseconds from birth to release, where the trace has times.
    pub lifetime_ns: Option<Distribution>,
    /// Size against lifetime.
    pub size_by_lifetime: Grid,
    /// Alignments asked for explicitly.
    pub alignments: Vec<HotSize>,
    /// How `realloc` was used.
    pub reallocs: Reallocs,
    /// The pairs of threads with the most cross-thread frees.
    pub cross_thread_pairs: Vec<CrossThreadPair>,
    /// Cross-thread frees of pairs not listed.
    pub cross_thread_pairs_omitted: u64,
    /// The busiest threads.
    pub busiest_threads: Vec<ThreadSummary>,
    /// Threads not listed.
    pub threads_omitted: u64,
    /// Live memory over the course of the trace.
    pub growth: Vec<CurvePoint>,
    /// What known size classes make of the peak.
    pub predicted_fragmentation: Vec<Fragmentation>,
}
