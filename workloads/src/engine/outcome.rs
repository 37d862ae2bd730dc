//! What a run says.
#![forbid(unsafe_code)]

use std::io;

use serde::{Deserialize, Serialize};

use super::footprint::Footprint;
use super::histogram::Histogram;
use super::observe::attribution::Attributed;
use super::observe::latency::Latency;
use super::observe::verify::Verification;
use super::options::{Pass, Touch};
use super::program;
use super::timer::TimerReport;
use crate::plan::{Counts, Order, PlanError};

/// Why a run could not be made. A failed allocation is no such reason: it is a result.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The plan cannot be executed.
    #[error("the plan cannot be executed")]
    Plan(#[from] PlanError),
    /// The process lacks a function that every allocator has.
    #[error("no `{function}` comes from the file that serves malloc")]
    Missing {
        /// Its name.
        function: &'static str,
    },
    /// The harness got no memory of its own.
    #[error("cannot map {bytes} bytes for {what}")]
    Memory {
        /// For what.
        what: &'static str,
        /// How many.
        bytes: u64,
        /// What the system said.
        source: io::Error,
    },
    /// A thread of the plan could not be created.
    #[error("cannot create thread {thread} of the plan")]
    Thread {
        /// Its number.
        thread: u32,
        /// What the system said.
        source: io::Error,
    },
    /// What the caller wanted done just before the first operation failed.
    #[error("cannot begin")]
    Ready {
        /// What the system said.
        source: io::Error,
    },
    /// Event data could not be read while the plan was executed.
    #[error("cannot read the events")]
    Events {
        /// What the system said.
        source: io::Error,
    },
    /// The system made no child for a fork of the plan.
    #[error("cannot fork")]
    Fork {
        /// What the system said.
        source: io::Error,
    },
    /// A forked child made a few calls of the allocator and did not come out of them.
    #[error("a forked child {}", program::ending(*status))]
    Child {
        /// What `waitpid` said of it.
        status: i32,
    },
    /// The options contradict each other or the plan.
    #[error("{what}")]
    Options {
        /// How, as a fragment.
        what: String,
    },
}

impl EngineError {
    /// Whether the system had no memory, or no thread, for it.
    #[must_use]
    pub fn is_out_of_memory(&self) -> bool {
        match self {
            EngineError::Memory { source, .. }
            | EngineError::Thread { source, .. }
            | EngineError::Fork { source } => {
                matches!(source.raw_os_error(), Some(libc::ENOMEM | libc::EAGAIN))
            }
            EngineError::Child { status } => program::out_of_memory(*status),
            _ => false,
        }
    }
}

/// Waiting for other threads. None of it is part of any operation's time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stalls {
    /// Waits that were looked at.
    pub waits: u64,
    /// Waits that were not satisfied yet.
    pub stalled: u64,
    /// Nanoseconds waited, by thread and all together.
    pub total_ns: u64,
    /// Nanoseconds by stall.
    pub histogram: Histogram,
}

/// How faithful a replay was to the stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Fidelity {
    /// The order that was kept.
    pub order: Order,
    /// Waits written into the streams.
    pub waits: u64,
    /// Stalled waits per operation.
    pub stalled_share: f64,
    /// Most live bytes in the stream.
    pub trace_peak_live_bytes: u64,
    /// Most live bytes in the run; known in the footprint pass.
    pub replay_peak_live_bytes: Option<u64>,
    /// Replay ÷ stream − 1. Only for streams without a repeated body.
    pub peak_live_deviation: Option<f64>,
    /// Largest distance in the total order between an event done and one not done, over all
    /// samples of the footprint pass; a lower bound. Only for plans with an index and without a repeated body.
    pub largest_skew_events: Option<u64>,
    /// Threads created.
    pub threads_created: u64,
    /// Most threads alive at once in the stream.
    pub trace_peak_threads: u64,
    /// Most threads alive at once in the run.
    pub replay_peak_threads: u64,
}

/// Resident memory of the process around a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryReport {
    /// Just before the first operation: harness, plan and libraries.
    pub base_rss_bytes: u64,
    /// At most, from then on (`VmHWM`).
    pub peak_rss_bytes: u64,
    /// Whether the kernel let the mark be reset; else the peak is that of the whole process.
    pub peak_is_of_this_run: bool,
}

/// What a run says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// What was noted.
    pub pass: Pass,
    /// Which bytes were written.
    pub touch: Touch,
    /// Golden hash of the event stream.
    pub stream_hash: u64,
    /// Executions of the body.
    pub repeat: u32,
    /// Copies of the plan.
    pub copies: u32,
    /// Calls made. `requested_bytes` is that of the plan.
    pub counts: Counts,
    /// From the first operation to the end of the last thread.
    pub elapsed_ns: u64,
    /// From the first thread's entry into the body to the last one's leaving it.
    pub body_ns: Option<u64>,
    /// Processor time of the process, user and system.
    pub cpu_ns: u64,
    /// Allocations that returned NULL where the stream has an object.
    pub failed_allocations: u64,
    /// Requests that failed in the stream and succeeded here; released at once.
    pub unexpected_successes: u64,
    /// Aligned requests to a library that has no aligned call; also counted as failed.
    pub unsupported: u64,
    /// Releases that stated a size to the allocator; the others were plain.
    pub sized_frees: u64,
    /// Page faults that needed no disk.
    pub minor_faults: u64,
    /// Page faults that did.
    pub major_faults: u64,
    /// Context switches the process asked for, by waiting.
    pub voluntary_switches: u64,
    /// Context switches it did not ask for.
    pub involuntary_switches: u64,
    /// Resident memory before the run and at most.
    pub memory: MemoryReport,
    /// The timer.
    pub timer: TimerReport,
    /// Waiting.
    pub stalls: Stalls,
    /// How faithful the replay was.
    pub fidelity: Fidelity,
    /// Times of single calls.
    pub latency: Option<Latency>,
    /// Memory over time.
    pub footprint: Option<Footprint>,
    /// What happened around the slowest calls of an earlier pass.
    pub attribution: Option<Vec<Attributed>>,
    /// Kept and broken promises.
    pub verification: Option<Verification>,
}
