//! The measuring side: what the hidden subcommand `worker` does.
//!
//! Nothing of the harness is allocated by the allocator under test, and what the harness itself
//! needs is resident before the first operation; the engine sees to the rest.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use workloads::engine::{self, EngineError, EngineOptions};
use workloads::plan::Plan;

use super::affinity;
use super::disturb::{Balloon, Disturbance};
use super::heap_map;
use super::internals;
use super::limit;
use super::parent::{
    FAULT_FILE, REPORT_FILE, SPEC_FILE, STATUS_BROKE_PROMISE, STATUS_FAILED, STATUS_OUT_OF_MEMORY,
    STATUS_UNPROVEN,
};
use super::proof;
use super::spec::{CellSpec, Pass, Report};
use super::trap;
use crate::pressure::Means;

/// Where the parent left the cell.
#[derive(Clone, Debug, Args)]
pub struct WorkerArgs {
    /// Folder that holds the cell and takes the report
    folder: PathBuf,
}

/// Why a worker has no report: the status it ends with, and a sentence.
struct Failure(i32, String);

fn failed(what: impl std::fmt::Display) -> Failure {
    Failure(STATUS_FAILED, what.to_string())
}

/// Runs the cell in `args` and returns the status to end with.
#[must_use]
pub fn work(args: &WorkerArgs) -> i32 {
    die_with_parent();
    match measure(&args.folder) {
        Ok(()) => 0,
        Err(Failure(status, why)) => {
            let _ = fs::write(args.folder.join(FAULT_FILE), why);
            status
        }
    }
}

fn measure(folder: &Path) -> Result<(), Failure> {
    let text = fs::read(folder.join(SPEC_FILE)).map_err(failed)?;
    let spec: CellSpec = serde_json::from_slice(&text).map_err(failed)?;
    let served_by = proof::prove(spec.allocator.preload.as_deref())
        .map_err(|why| Failure(STATUS_UNPROVEN, why))?;
    let version = match spec.allocator.preload {
        None => proof::libc_version(),
        Some(_) => proof::version(),
    };
    if let Some(set) = affinity::cpu_set(&spec.cpus) {
        affinity::bind(&set).map_err(|e| failed(format!("cannot bind to processors: {e}")))?;
    }
    let balloon = balloon(&spec)?;
    let plan = Plan::open(&spec.plan).map_err(|error| failed(chain(&error)))?;
    let mut options = options(&spec);
    // Stacks of our own are mapped before a limit is set, and need no room in it.
    let stacks = if options.own_stacks { 0 } else { plan.peak_threads() };
    let threads = stacks * u64::from(spec.copies.max(1));
    if spec.pass == Pass::Footprint && spec.allocator.preload.is_some() {
        options.at_peak = heap_map::prepare(folder).map_err(failed)?;
    }
    let mut disturbed = (0, 0);
    let (cell, seen) = (&spec, &mut disturbed);
    let ran = engine::run_after(&plan, &options, move || {
        let around = Around::begin(cell, threads)?;
        Ok(move || *seen = around.end())
    });
    // What the harness still has to do is not under pressure.
    drop(balloon);
    let outcome = ran.map_err(|error| ended_early(&error, spec.limit.is_some()))?;
    if disturbed.1 > 0 {
        let what = format!("{} of {} forked children could not allocate", disturbed.1, disturbed.0);
        return Err(Failure(STATUS_BROKE_PROMISE, what));
    }
    let internals = match (spec.pass, &spec.allocator.preload) {
        (Pass::Footprint | Pass::Throughput, None) => internals::of_libc(),
        (Pass::Footprint | Pass::Throughput, Some(_)) => internals::read(),
        _ => Vec::new(),
    };
    let syscalls = if trapped(&spec).is_some() { trap::counts() } else { Vec::new() };
    let peak_committed_bytes =
        (spec.pass == Pass::Syscalls).then(trap::peak_committed_bytes).flatten();
    let elapsed_ns = outcome.elapsed_ns + spin(outcome.elapsed_ns, spec.inject_slowdown);
    let footprint_peak = outcome.footprint.as_ref().map(|f| f.peak_live_bytes);
    let report = Report {
        served_by,
        version,
        operations: outcome.counts.operations,
        elapsed_ns,
        failed_allocations: outcome.failed_allocations,
        peak_live_bytes: footprint_peak.unwrap_or(outcome.fidelity.trace_peak_live_bytes),
        peak_rss_bytes: outcome.memory.peak_rss_bytes.saturating_sub(outcome.memory.base_rss_bytes),
        base_rss_bytes: outcome.memory.base_rss_bytes,
        minor_faults: outcome.minor_faults,
        major_faults: outcome.major_faults,
        instructions: None,
        internals,
        heap_map: heap_map::read(folder),
        syscalls,
        peak_committed_bytes,
        outcome,
    };
    let text = serde_json::to_vec(&report).map_err(failed)?;
    fs::write(folder.join(REPORT_FILE), text).map_err(failed)?;
    match &report.outcome.verification {
        Some(found) if found.broken > 0 => Err(Failure(STATUS_BROKE_PROMISE, described(found))),
        _ => Ok(()),
    }
}

/// What is to hold memory beside the run.
fn balloon(spec: &CellSpec) -> Result<Option<Balloon>, Failure> {
    let limit = spec.limit.as_ref().filter(|limit| limit.means == Means::Balloon);
    let balloon = limit.map(|limit| Balloon::inflate(limit.bytes)).transpose();
    balloon.map_err(|error| failed(format!("cannot make a balloon: {error}")))
}

/// A run that came to no end: who is to blame for it.
fn ended_early(error: &EngineError, pressed: bool) -> Failure {
    let status = match error {
        _ if pressed && error.is_out_of_memory() => STATUS_OUT_OF_MEMORY,
        EngineError::Child { .. } => STATUS_BROKE_PROMISE,
        _ => STATUS_FAILED,
    };
    Failure(status, chain(error))
}

/// The calls for memory that are to fail, from and to, where system calls are caught at all.
fn trapped(spec: &CellSpec) -> Option<(u64, u64)> {
    match spec.limit.as_ref().map(|limit| (limit.means, limit.bytes)) {
        Some((Means::FailCall, n)) => Some((n, n)),
        Some((Means::FailFrom, n)) => Some((n, u64::MAX)),
        _ => (spec.pass == Pass::Syscalls).then_some((0, 0)),
    }
}

/// What is around a run and nothing else: a limit, a disturbance, an eye on system calls.
struct Around {
    _limited: Option<limit::Limited>,
    disturbance: Disturbance,
    _watch: Option<trap::Watch>,
}

impl Around {
    fn begin(spec: &CellSpec, threads: u64) -> io::Result<Self> {
        let limit = spec.limit.as_ref();
        let (means, amount) = limit.map_or((Means::Cgroup, 0), |limit| (limit.means, limit.bytes));
        Ok(Around {
            disturbance: Disturbance::begin(means, amount)?,
            _limited: limit.map(|limit| limit::apply(limit, threads)).transpose()?,
            _watch: trapped(spec).map(|(first, last)| trap::watch(first, last)).transpose()?,
        })
    }

    /// Lifts it; what came and went meanwhile, and how many children did not end well.
    fn end(self) -> (u64, u64) {
        self.disturbance.end()
    }
}

fn options(spec: &CellSpec) -> EngineOptions {
    EngineOptions {
        pass: match spec.pass {
            // Instructions are counted from outside, so the engine itself observes nothing.
            Pass::Throughput | Pass::Instructions | Pass::Syscalls => engine::Pass::Throughput,
            Pass::Latency => engine::Pass::Latency,
            Pass::Footprint => engine::Pass::Footprint,
            Pass::Verify => engine::Pass::Verify,
            Pass::Attribution => engine::Pass::Attribution,
        },
        touch: spec.touch,
        pace: spec.pace,
        repeat: spec.repeat,
        copies: spec.copies,
        slowest: spec.slowest,
        attribute: spec.attribute.clone(),
        seed: spec.seed,
        drain_ms: spec.drain_ms.clone(),
        calls: spec.calls,
        event_memory: spec.event_memory,
        own_stacks: trapped(spec).is_some(),
        calibrate: spec.pass != Pass::Instructions,
        ..EngineOptions::default()
    }
}

/// Computes for `share` of `elapsed_ns` and says how long that took: a slowdown that is real, of a
/// known size, and carries the noise of its run.
fn spin(elapsed_ns: u64, share: f64) -> u64 {
    // A share that is no number is none.
    if share.is_nan() || share <= 0.0 {
        return 0;
    }
    let wanted = Duration::from_nanos(elapsed_ns).mul_f64(share);
    let start = Instant::now();
    while start.elapsed() < wanted {
        std::hint::spin_loop();
    }
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// The first broken promise in words, and how many there are.
fn described(found: &engine::Verification) -> String {
    let Some(first) = found.first.first() else {
        return format!("{} broken promises", found.broken);
    };
    format!(
        "{:?} at operation {} of thread {}, size {}, alignment {}; {} in all",
        first.kind, first.place, first.thread, first.size, first.align, found.broken
    )
}

/// An error with its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// A worker whose harness is gone must not go on and disturb whatever runs next.
fn die_with_parent() {
    // SAFETY: sets an attribute of this process; no memory is involved.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
}
