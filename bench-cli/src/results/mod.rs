//! What a run leaves behind: one folder, files of one grain each, joined by `run_id`.
//!
//! | file | owns |
//! |---|---|
//! | `directory` | the folder: made, filled run by run, continued |
//! | `row` | the columns of `runs.csv`, `latency.csv`, `timeline.csv` |
//! | `detail` | the columns of the files of detail: tail, fragmentation, internals, system calls |
//! | `metrics` | every column in words |
//! | `manifest` | what is needed to repeat the run |
//! | `hlog` | `hist/*.hlog`: HdrHistogram logs with tags |
//! | `atomic` | files that appear whole or not at all |
//! | `recorded` | the folder of an earlier run, read |
//! | `utc` | times as text |
#![forbid(unsafe_code)]

pub mod atomic;
mod detail;
mod directory;
mod hlog;
mod manifest;
mod metrics;
mod recorded;
mod row;
pub mod utc;

pub use detail::{FragmentationRow, InternalRow, Noted, SyscallRow, TailRow};
pub use directory::{RunDirectory, earlier};
pub use hlog::{HistogramLog, decode, encode, read_log};
pub use manifest::{AllocatorNote, Machine, Manifest, OwnWork, SCHEMA, Subject};
pub use metrics::{METRICS, Metric};
pub use recorded::Recorded;
pub use row::{LatencyCsv, RunRow, TimelineRow};
