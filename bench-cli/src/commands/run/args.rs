//! The command line of `bench-cli run`.
#![forbid(unsafe_code)]

use std::time::Duration;

use clap::Args;

use workloads::plan::Order;

use crate::gate::quantity;
use crate::pressure::Pressure;
use crate::worker::{Pace, Pass, Touch};

/// What only a workload or trace can be told: a program of one's own does what it does.
const OF_WORKLOADS: [&str; 14] = [
    "what",
    "threads",
    "passes",
    "order",
    "pace",
    "touch",
    "scale",
    "duration",
    "copies",
    "pressure",
    "drain",
    "verify",
    "event_memory",
    "timeout",
];

/// What to run and under which allocators.
#[derive(Clone, Debug, Default, Args)]
pub struct RunArgs {
    /// Workloads by name, or traces by path (default: the standard short suite)
    #[arg(value_name = "WORKLOAD|TRACE")]
    pub what: Vec<String>,
    /// A program of yours, in one argument: time, peak memory, exit status and output under each
    /// allocator
    #[arg(long, value_name = "CMD", conflicts_with_all = OF_WORKLOADS)]
    pub exec: Option<String>,
    /// Who serves malloc: names, libraries, `NAME?KEY=VALUE&…`; commas or several -a (default:
    /// ours, system, and every peer found)
    #[arg(short, long = "allocator", value_name = "LIST")]
    pub allocators: Vec<String>,
    /// Rounds: in each, every allocator runs once per workload, in random order (default: 6, the
    /// fewest that can show a difference at 95 %)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub runs: Option<u32>,
    /// Threads of a workload; a trace has its own (default: the workload's)
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub threads: Option<u32>,
    /// What to look at, one thing per process (default: throughput,latency,footprint)
    #[arg(long = "pass", value_name = "LIST", value_enum, value_delimiter = ',')]
    pub passes: Vec<Pass>,
    /// How much of a trace's order is kept: deps, window:N, epoch:N, strict (default: the
    /// workload's own; window:4096 for traces)
    #[arg(long, value_name = "ORDER")]
    pub order: Option<Order>,
    /// When operations begin: asap, or paced:K for K times as fast as recorded (default: asap)
    #[arg(long, value_name = "PACE")]
    pub pace: Option<Pace>,
    /// Which bytes of new objects are written: none, pages, header, all, recorded (default: the workload's own; for traces pages)
    #[arg(long, value_name = "BYTES")]
    pub touch: Option<Touch>,
    /// So many times the work of a workload; 0.1 is a tenth (default: 1; the standard suite runs
    /// short)
    #[arg(long, value_name = "FACTOR", value_parser = factor)]
    pub scale: Option<f64>,
    /// As much work of each workload as takes about this time, as in `1s` or `200ms` (default: what
    /// its specification says)
    #[arg(long, value_name = "TIME", value_parser = length, conflicts_with = "scale")]
    pub duration: Option<Duration>,
    /// Under whom it takes that time (default: first)
    #[arg(long, value_name = "WHOM", value_enum, requires = "duration")]
    pub duration_for: Option<DurationFor>,
    /// Run so many copies of everything at the same time, each with threads of its own
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub copies: Option<u32>,
    /// Run again with less memory: `80%` of the system allocator's peak, `own:90%` of each allocator's
    /// own, or `64M`, by cgroup;
    /// `as:80%` and `data:80%` by address space and data segment; or disturbed: `balloon:512M`,
    /// `fail:N` (the n-th mmap, mremap or brk; `fail:N+`: and all after it), `pageout:MS`, `churn:THREADS`,
    /// `forks:PROCESSES`; commas for several
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub pressure: Vec<Pressure>,
    /// How long after the last operation memory is looked at again in a footprint pass: at 100 ms,
    /// 1 s and 5 s as far as that goes (default: 100ms)
    #[arg(long, value_name = "TIME", value_parser = drain)]
    pub drain: Option<Duration>,
    /// Check overlap, alignment, contents and zeroing in a pass of its own
    #[arg(long)]
    pub verify: bool,
    /// Most memory for prepared events in a measured process, as in `16MiB`: of a larger trace only a
    /// window per thread is in memory at a time, read while nothing is timed (default: 256MiB)
    #[arg(long, value_name = "SIZE", value_parser = quantity::bytes)]
    pub event_memory: Option<u64>,
    /// End a process that runs longer than this, as in `90s` (default: 10m)
    #[arg(long, value_name = "TIME", value_parser = quantity::duration)]
    pub timeout: Option<Duration>,
    /// Processors to use, as in `0,2-3` (default: all)
    #[arg(long, value_name = "LIST", value_parser = Cpus::read)]
    pub cpus: Option<Cpus>,
    /// Start no further round after this long, as in `90s` or `4m`
    #[arg(long, value_name = "TIME", value_parser = quantity::duration)]
    pub budget: Option<Duration>,
    /// Not on the command line: tails and memory are looked at as often as times.
    #[arg(skip)]
    pub every_pass_in_every_round: bool,
    /// Continue the interrupted run in --out (default: bench-out/latest)
    #[arg(long)]
    pub resume: bool,
}

/// Under whom a workload takes the time that `--duration` gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum DurationFor {
    /// The first allocator; all others get the same work, however long it takes them
    #[default]
    First,
    /// Each allocator, with an amount of work of its own: nobody takes much longer, and only times per
    /// call compare
    Each,
}

/// When memory is looked at after the last operation, in milliseconds.
pub(super) const DRAINS: [u64; 3] = [100, 1000, 5000];

fn drain(text: &str) -> Result<Duration, String> {
    match text.strip_suffix("ms").map(|ms| ms.trim().parse().map(Duration::from_millis)) {
        Some(Ok(wait)) => Ok(wait),
        Some(Err(_)) => Err(format!("`{text}` is no time: write `100ms`, `1s` or `5s`")),
        None => quantity::duration(text),
    }
}

fn length(text: &str) -> Result<Duration, String> {
    let length = drain(text)?;
    match length.is_zero() {
        true => Err(format!("`{text}` is too short: write `200ms` or `1s`")),
        false => Ok(length),
    }
}

fn factor(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(factor) if factor > 0.0 && factor <= 1e6 => Ok(factor),
        _ => Err(format!("`{text}` is no factor above 0")),
    }
}

/// A list of processors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cpus(pub Vec<usize>);

impl Cpus {
    fn read(text: &str) -> Result<Self, String> {
        crate::worker::parse_cpus(text).map(Cpus)
    }
}

/// Rounds unless told otherwise.
pub(super) const DEFAULT_RUNS: u32 = 6;
