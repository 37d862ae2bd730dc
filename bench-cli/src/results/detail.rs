//! What one process gave beside its line in `runs.csv`: the columns of the files of detail.
//!
//! As in `row`: snake case with units, an empty field means "not available", and `metrics` explains
//! each column.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

use super::row::{LatencyCsv, RunRow, TimelineRow};

/// Everything that one process gave.
#[derive(Clone, Debug, Default)]
pub struct Noted {
    /// Its line in `runs.csv`.
    pub run: RunRow,
    /// Its lines in `latency.csv`.
    pub latency: Vec<LatencyCsv>,
    /// Its lines in `timeline.csv`.
    pub timeline: Vec<TimelineRow>,
    /// Its lines in `tail.csv`.
    pub tail: Vec<TailRow>,
    /// Its lines in `fragmentation.csv`.
    pub fragmentation: Vec<FragmentationRow>,
    /// Its lines in `internals.csv`.
    pub internals: Vec<InternalRow>,
    /// Its lines in `syscalls.csv`.
    pub syscalls: Vec<SyscallRow>,
}

/// One of the slowest calls of a latency pass: a line of `tail.csv`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "`metrics` says what each column means")]
pub struct TailRow {
    pub run_id: String,
    pub rank: u64,
    pub op: String,
    pub size_bytes: u64,
    pub thread: u32,
    pub place: u64,
    pub event: Option<u64>,
    pub value_ns: u64,
    pub again_ns: Option<u64>,
    pub minor_faults: Option<u64>,
    pub major_faults: Option<u64>,
    pub voluntary_switches: Option<u64>,
    pub involuntary_switches: Option<u64>,
}

/// The fragmentation of one run by one meaning of `use`: a line of `fragmentation.csv`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "`metrics` says what each column means")]
pub struct FragmentationRow {
    pub run_id: String,
    pub used: String,
    pub mean_over_time: Option<f64>,
    pub at_peak_live: Option<f64>,
    pub at_peak_use: Option<f64>,
    pub peak_to_peak: Option<f64>,
    pub internal: Option<f64>,
    pub external: Option<f64>,
    pub retained_100ms_bytes: Option<u64>,
    pub retained_1s_bytes: Option<u64>,
    pub retained_5s_bytes: Option<u64>,
}

/// One figure that the allocator states of itself: a line of `internals.csv`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "`metrics` says what each column means")]
pub struct InternalRow {
    pub run_id: String,
    pub name: String,
    pub value: u64,
}

/// One kind of system call of one run: a line of `syscalls.csv`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "`metrics` says what each column means")]
pub struct SyscallRow {
    pub run_id: String,
    pub call: String,
    pub count: u64,
}
