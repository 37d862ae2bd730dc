//! The columns of the result files.
//!
//! Names are in snake case with their unit; an empty field means "not available". A column, once
//! there, keeps its meaning; new ones are added at the end of their group. `metrics` explains each.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

/// One process: a line of `runs.csv`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "`metrics` says what each column means")]
pub struct RunRow {
    pub run_id: String,
    pub workload: String,
    pub allocator: String,
    pub allocator_version: String,
    pub library: String,
    pub threads: u64,
    pub pass: String,
    pub round: u32,
    pub order: String,
    pub pace: String,
    pub touch: String,
    pub pressure: String,
    pub limit_bytes: Option<u64>,
    pub limit_hits: Option<u64>,
    pub end: String,
    pub exit_status: Option<i32>,
    pub operations: Option<u64>,
    pub elapsed_ns: Option<u64>,
    pub cpu_ns: Option<u64>,
    pub floor_ns: Option<u64>,
    pub instructions: Option<u64>,
    pub system_calls: Option<u64>,
    pub peak_rss_bytes: Option<u64>,
    pub base_rss_bytes: Option<u64>,
    pub peak_live_bytes: Option<u64>,
    pub failed_allocations: Option<u64>,
    pub minor_faults: Option<u64>,
    pub major_faults: Option<u64>,
    pub involuntary_switches: Option<u64>,
    pub waits: Option<u64>,
    pub stalled_operations: Option<u64>,
    pub stalled_ns: Option<u64>,
    pub trace_peak_live_bytes: Option<u64>,
    pub peak_threads: Option<u64>,
    pub trace_peak_threads: Option<u64>,
    pub largest_skew_events: Option<u64>,
    pub timer_cost_ns: Option<f64>,
    pub output_bytes: Option<u64>,
    pub output_hash: String,
    pub seed: u64,
    pub started_utc: String,
}

/// One quantile of one distribution: a line of `latency.csv`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "`metrics` says what each column means")]
pub struct LatencyCsv {
    pub run_id: String,
    pub op: String,
    pub size_class: Option<u64>,
    pub thread: Option<u32>,
    pub quantile: f64,
    pub value_ns: u64,
    pub count: u64,
}

/// One moment of one run: a line of `timeline.csv`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "`metrics` says what each column means")]
pub struct TimelineRow {
    pub run_id: String,
    pub time_ns: u64,
    #[serde(default)]
    pub after_ms: Option<u64>,
    pub live_bytes: u64,
    pub usable_bytes: Option<u64>,
    pub rss_bytes: u64,
    pub private_dirty_bytes: u64,
    pub lazy_free_bytes: u64,
    pub virtual_bytes: u64,
    pub minor_faults: u64,
}
