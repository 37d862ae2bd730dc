//! What one measurement is, and what comes out of it: the types that cross the process boundary.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::allocators::Allocator;

/// What a run looks at. One run looks at one thing, so that observing does not disturb it.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum Pass {
    /// Time of the whole run; no timer per operation.
    Throughput,
    /// Time of each operation, in histograms.
    Latency,
    /// Live and resident bytes over time.
    Footprint,
    /// Instructions executed, counted by callgrind.
    Instructions,
}

impl Pass {
    /// The word in the `pass` column.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Pass::Throughput => "throughput",
            Pass::Latency => "latency",
            Pass::Footprint => "footprint",
            Pass::Instructions => "instructions",
        }
    }
}

/// Which bytes of a new object the program writes, outside the measured call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Touch {
    /// None.
    None,
    /// The first byte of each page.
    #[default]
    Page,
    /// The first bytes of the object, where programs keep their headers.
    Header,
    /// All.
    All,
}

/// One run to be made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CellSpec {
    /// The plan file that the engine executes.
    pub plan: PathBuf,
    /// Who serves `malloc`.
    pub allocator: Allocator,
    /// What is looked at.
    pub pass: Pass,
    /// Which bytes are written.
    pub touch: Touch,
    /// Checks fill patterns, overlap, alignment and zeroing; a broken promise ends the run.
    pub verify: bool,
    /// Processors the worker is bound to; empty: wherever the kernel puts it.
    pub cpus: Vec<usize>,
    /// Slows every allocating call by this share of the run's own time, to test verdicts.
    pub inject_slowdown: f64,
    /// Random: here, how far the environment shifts the stack.
    pub seed: u64,
    /// Folder for the histograms of a latency pass; none are kept without it.
    pub histograms: Option<PathBuf>,
    /// Prefix of the files in `histograms`.
    pub run_id: String,
    /// After this long the worker is ended and counts as hung.
    pub timeout_s: u64,
}

impl CellSpec {
    /// A run of `plan` under `allocator` with everything else as it is by default.
    #[must_use]
    pub fn new(plan: PathBuf, allocator: Allocator, pass: Pass) -> Self {
        CellSpec {
            plan,
            allocator,
            pass,
            touch: Touch::default(),
            verify: false,
            cpus: Vec::new(),
            inject_slowdown: 0.0,
            seed: 0,
            histograms: None,
            run_id: String::new(),
            timeout_s: 600,
        }
    }
}

/// How a worker ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// It did all its work.
    Completed,
    /// A signal that the allocator or the program caused ended it.
    Crashed {
        /// The signal's number.
        signal: i32,
    },
    /// SIGKILL, which nobody here sent: the kernel ran out of memory for it.
    KilledForMemory,
    /// It was ended because it ran too long.
    Hung,
    /// It ended by itself with a status that is not a worker's own.
    Exited {
        /// The status.
        status: i32,
    },
    /// With `verify`: the allocator broke its contract.
    BrokePromise {
        /// Which clause, at which operation.
        what: String,
    },
}

impl End {
    /// The word in the `end` column.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            End::Completed => "completed".to_owned(),
            End::Crashed { signal } => format!("crashed ({})", signal_name(*signal)),
            End::KilledForMemory => "killed for memory".to_owned(),
            End::Hung => "hung".to_owned(),
            End::Exited { status } => format!("exited ({status})"),
            End::BrokePromise { what } => format!("broke promise ({what})"),
        }
    }
}

fn signal_name(signal: i32) -> String {
    match signal {
        libc::SIGSEGV => "SIGSEGV".to_owned(),
        libc::SIGABRT => "SIGABRT".to_owned(),
        libc::SIGBUS => "SIGBUS".to_owned(),
        libc::SIGILL => "SIGILL".to_owned(),
        libc::SIGFPE => "SIGFPE".to_owned(),
        libc::SIGTRAP => "SIGTRAP".to_owned(),
        libc::SIGTERM => "SIGTERM".to_owned(),
        other => format!("signal {other}"),
    }
}

/// What came out of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CellOutcome {
    /// How the worker ended.
    pub end: End,
    /// What it measured; there unless it ended before it could say.
    pub report: Option<Report>,
    /// The last lines the process wrote to standard error.
    pub stderr: String,
}

/// What a worker measured. Bytes and nanoseconds throughout.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// The file that served `malloc`, as the dynamic linker knows it.
    pub served_by: PathBuf,
    /// The allocator's version, where its library tells it.
    pub version: Option<String>,
    /// Operations executed.
    pub operations: u64,
    /// From the first operation to the end of the last thread.
    pub elapsed_ns: u64,
    /// Allocations that returned NULL.
    pub failed_allocations: u64,
    /// Requested bytes of live objects, at their peak.
    pub peak_live_bytes: u64,
    /// Peak of resident memory (`VmHWM`) above `base_rss_bytes`.
    pub peak_rss_bytes: u64,
    /// Resident memory of the harness before the first operation.
    pub base_rss_bytes: u64,
    /// Resident memory above the base after the last operation.
    pub final_rss_bytes: u64,
    /// Processor time in user mode during the run.
    pub user_ns: u64,
    /// Processor time in the kernel during the run.
    pub system_ns: u64,
    /// Page faults without disk access during the run.
    pub minor_faults: u64,
    /// Page faults with disk access during the run.
    pub major_faults: u64,
    /// Context switches that the kernel forced during the run.
    pub involuntary_switches: u64,
    /// Instructions, in an instruction pass.
    pub instructions: Option<u64>,
    /// The timer in use and what one reading costs.
    pub timer: String,
    /// Nanoseconds that one pair of timer readings adds to a measured operation.
    pub timer_cost_ns: f64,
    /// How faithful the run was to its trace.
    pub fidelity: Fidelity,
    /// Latency by operation, size class and thread; empty unless asked for.
    pub latency: Vec<LatencyRow>,
    /// Footprint over time; empty unless asked for.
    pub timeline: Vec<Sample>,
}

/// How far an execution departed from the order of its trace.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Fidelity {
    /// Order edges between threads that the plan holds.
    pub waits: u64,
    /// Operations that had to wait for another thread.
    pub stalled_operations: u64,
    /// Time spent in such waits, summed over threads.
    pub stalled_ns: u64,
    /// Peak of live bytes in the trace itself.
    pub trace_peak_live_bytes: u64,
    /// Largest distance, in events of the trace, by which a thread ran ahead of another.
    pub max_skew_events: Option<u64>,
    /// Threads that the trace holds.
    pub threads: u64,
    /// Threads alive at once during the run.
    pub peak_threads: u64,
}

/// The quantiles of every latency row, as shares.
pub const QUANTILES: [f64; 8] = [0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999, 1.0];

/// One distribution of latencies.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LatencyRow {
    /// `malloc`, `calloc`, `realloc`, `memalign`, `free`, `stall`, `first_touch`.
    pub op: String,
    /// Upper bound of the size class in bytes; `None`: all sizes.
    pub size_class: Option<u64>,
    /// Thread of the trace; `None`: all threads.
    pub thread: Option<u32>,
    /// Number of operations.
    pub count: u64,
    /// Values at [`QUANTILES`], in nanoseconds.
    pub values_ns: Vec<u64>,
}

/// The footprint at one moment.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Sample {
    /// Since the first operation.
    pub time_ns: u64,
    /// Operations executed so far.
    pub operations: u64,
    /// Requested bytes of live objects.
    pub live_bytes: u64,
    /// Resident anonymous memory above the base.
    pub rss_bytes: u64,
    /// Pages written and owned by this process alone; `None` where not sampled.
    pub private_dirty_bytes: Option<u64>,
    /// Pages given up lazily that the kernel has not taken yet; `None` where not sampled.
    pub lazy_free_bytes: Option<u64>,
    /// Page faults so far.
    pub minor_faults: u64,
}
