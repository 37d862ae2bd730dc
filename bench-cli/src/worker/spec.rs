//! What one measurement is, and what comes out of it: the types that cross the process boundary.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use workloads::engine::{CallSet, DEFAULT_EVENT_MEMORY, Outcome, Pace, SlowCall, Touch};

use crate::allocators::Allocator;
use crate::pressure::Limit;

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
    /// Whether the allocator keeps its promises: overlap, alignment, contents.
    Verify,
    /// Instructions executed, counted by callgrind.
    Instructions,
    /// System calls for memory.
    Syscalls,
    /// What happened around the slowest calls of a latency pass; follows one by itself.
    #[value(skip)]
    Attribution,
}

impl Pass {
    /// The word in the `pass` column.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Pass::Throughput => "throughput",
            Pass::Latency => "latency",
            Pass::Footprint => "footprint",
            Pass::Verify => "verify",
            Pass::Instructions => "instructions",
            Pass::Syscalls => "syscalls",
            Pass::Attribution => "attribution",
        }
    }
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
    /// Which bytes of new objects are written.
    pub touch: Touch,
    /// When operations begin.
    pub pace: Pace,
    /// Executions of the plan's body in place of its own number.
    pub repeat: Option<u32>,
    /// Copies of the whole plan, executed at the same time.
    pub copies: u32,
    /// Latency: single calls to be listed, the slowest first.
    pub slowest: u32,
    /// Attribution: the slowest calls of a latency pass over the same plan.
    pub attribute: Vec<SlowCall>,
    /// Footprint: when to look again after the last operation, in milliseconds.
    pub drain_ms: Vec<u64>,
    /// Whose functions are called: the allocator's, or none (the floor of the harness).
    pub calls: CallSet,
    /// Most bytes of prepared events in the worker's memory; more are read in windows.
    pub event_memory: u64,
    /// The memory that the run may have; `None`: all there is.
    pub limit: Option<Limit>,
    /// Processors the worker is bound to; empty: wherever the kernel puts it.
    pub cpus: Vec<usize>,
    /// Makes the run longer by this share of its own time, really spent, to test verdicts.
    pub inject_slowdown: f64,
    /// Random: which calls are sampled, and how far the environment shifts the stack.
    pub seed: u64,
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
            pace: Pace::default(),
            repeat: None,
            copies: 1,
            slowest: 0,
            attribute: Vec::new(),
            drain_ms: Vec::new(),
            calls: CallSet::default(),
            event_memory: DEFAULT_EVENT_MEMORY,
            limit: None,
            cpus: Vec::new(),
            inject_slowdown: 0.0,
            seed: 0,
            timeout_s: 600,
        }
    }
}

/// How the word in the `end` column begins when a limit left no room to go on: a result, no fault.
pub const OUT_OF_MEMORY: &str = "out of memory";

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
    /// Under a memory limit, something that the run cannot do without could not be had.
    OutOfMemory {
        /// What it was.
        what: String,
    },
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
            End::OutOfMemory { what } => format!("{OUT_OF_MEMORY} ({what})"),
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
    /// From the first operation to the end of the last thread, with an injected slowdown.
    pub elapsed_ns: u64,
    /// Allocations that returned NULL.
    pub failed_allocations: u64,
    /// Requested bytes of live objects, at their peak: counted in a footprint pass, else the
    /// stream's own.
    pub peak_live_bytes: u64,
    /// Peak of resident memory (`VmHWM`) above `base_rss_bytes`.
    pub peak_rss_bytes: u64,
    /// Resident memory of the harness before the first operation.
    pub base_rss_bytes: u64,
    /// Page faults without disk access during the run.
    pub minor_faults: u64,
    /// Page faults with disk access during the run.
    pub major_faults: u64,
    /// Instructions, in an instruction pass.
    pub instructions: Option<u64>,
    /// What the allocator states of itself after the last operation, by its own names.
    pub internals: Vec<(String, u64)>,
    /// Its map of the heap at the peak of live bytes, where its library writes one.
    pub heap_map: Option<String>,
    /// System calls for memory by name, where they were caught.
    pub syscalls: Vec<(String, u64)>,
    /// Peak of what the kernel had promised, above what the harness had before the first operation;
    /// where system calls were counted.
    pub peak_committed_bytes: Option<u64>,
    /// All that the engine says.
    pub outcome: Outcome,
}
