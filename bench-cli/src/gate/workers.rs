//! Real processes for a [`Session`](super::session::Session): one worker per run.

#![forbid(unsafe_code)]

use std::path::PathBuf;

use workloads::engine::Touch;

use super::session::{Process, Ran, Runner};
use crate::allocators::Allocator;
use crate::error::CliError;
use crate::verdict::block::Side;
use crate::worker::{CellOutcome, CellSpec, End, Pass, Report, WorkerError, run_once};

/// The two libraries and the plans they run.
#[derive(Clone, Debug)]
pub struct Workers {
    /// One plan per cell, and which bytes of fresh objects are written.
    pub plans: Vec<(PathBuf, Touch)>,
    /// The reference.
    pub base: Allocator,
    /// What is judged.
    pub head: Allocator,
    /// The share by which the head is really slowed, to see the gate fail.
    pub inject_slowdown: f64,
    /// Processors the workers are bound to; empty: wherever the kernel puts them.
    pub cpus: Vec<usize>,
    /// After this long a worker counts as hung.
    pub timeout_s: u64,
}

impl Workers {
    pub(super) fn spec(&self, cell: usize, side: Side, seed: u64) -> CellSpec {
        let (allocator, slowdown) = match side {
            Side::A => (&self.base, 0.0),
            Side::B => (&self.head, self.inject_slowdown),
        };
        let (plan, touch) = &self.plans[cell];
        let mut spec = CellSpec::new(plan.clone(), allocator.clone(), Pass::Throughput);
        spec.touch = *touch;
        spec.inject_slowdown = slowdown;
        spec.cpus.clone_from(&self.cpus);
        spec.timeout_s = self.timeout_s;
        spec.seed = seed;
        spec
    }
}

impl Workers {
    /// Instructions of one run under callgrind; `None` where they cannot be counted.
    ///
    /// # Errors
    /// As [`run_once`], but for an interruption.
    pub fn instructions(&self, cell: usize, side: Side) -> Result<Option<u64>, CliError> {
        Ok(self.counting(cell, side, Pass::Instructions)?.and_then(|report| report.instructions))
    }

    /// Calls of the kernel that map memory or give it back in one run; `None` where they cannot be
    /// caught.
    ///
    /// # Errors
    /// As [`run_once`], but for an interruption.
    pub fn mapping_calls(&self, cell: usize, side: Side) -> Result<Option<u64>, CliError> {
        if !cfg!(target_arch = "x86_64") {
            return Ok(None);
        }
        let report = self.counting(cell, side, Pass::Syscalls)?;
        Ok(report.filter(|report| !report.syscalls.is_empty()).map(|report| {
            let mapping =
                report.syscalls.iter().filter(|(name, _)| MAPPING.contains(&name.as_str()));
            mapping.map(|(_, count)| count).sum()
        }))
    }

    /// Peak of committed memory in one run, above what the harness has; `None` where it cannot be
    /// seen.
    ///
    /// # Errors
    /// As [`run_once`], but for an interruption.
    pub fn committed_bytes(&self, cell: usize, side: Side) -> Result<Option<u64>, CliError> {
        Ok(self
            .counting(cell, side, Pass::Syscalls)?
            .and_then(|report| report.peak_committed_bytes))
    }

    fn counting(&self, cell: usize, side: Side, pass: Pass) -> Result<Option<Report>, CliError> {
        let mut spec = self.spec(cell, side, 0);
        spec.pass = pass;
        if pass == Pass::Instructions {
            spec.timeout_s = spec.timeout_s.saturating_mul(SLOWER_UNDER_VALGRIND);
        }
        // The injected slowdown is time, spent after the work: it has no place in a count.
        spec.inject_slowdown = 0.0;
        reported(pass, run_once(&spec))
    }
}

/// What a run that counts has to say; nothing where it was interrupted, or where its worker could not
/// catch system calls: no times are lost for that.
fn reported(pass: Pass, ran: Result<CellOutcome, WorkerError>) -> Result<Option<Report>, CliError> {
    match ran {
        Ok(outcome) => Ok(outcome.report),
        Err(WorkerError::Interrupted) => Ok(None),
        Err(WorkerError::Failed(_)) if pass == Pass::Syscalls => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What a processor does in a second takes callgrind so many.
const SLOWER_UNDER_VALGRIND: u64 = 50;

/// The calls behind `mapping_calls`. `madvise` is none of them: an allocator may give memory up by
/// the clock.
const MAPPING: [&str; 4] = ["mmap", "mremap", "munmap", "brk"];

impl Runner for Workers {
    fn run(&mut self, cell: usize, side: Side, seed: u64) -> Result<Ran, CliError> {
        match run_once(&self.spec(cell, side, seed)) {
            Ok(outcome) => Ok(conclude(outcome)),
            Err(WorkerError::Interrupted) => Ok(Ran::Interrupted),
            Err(error) => Err(error.into()),
        }
    }
}

fn conclude(outcome: CellOutcome) -> Ran {
    match (outcome.end, outcome.report) {
        (End::Completed, Some(report)) => Ran::Completed(Process {
            elapsed_ns: report.elapsed_ns,
            minor_faults: report.minor_faults,
            peak_rss_bytes: report.peak_rss_bytes,
            failed_allocations: report.failed_allocations,
        }),
        (end, _) => {
            // The last line is where a runtime says why it gave up.
            let last = outcome.stderr.lines().rfind(|line| !line.trim().is_empty());
            Ran::Faulted(last.map_or(end.name(), |line| format!("{}: {}", end.name(), line.trim())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Exit;

    #[test]
    fn a_machine_that_catches_no_system_calls_counts_none_and_keeps_its_verdict() {
        let failed = || Err(WorkerError::Failed("seccomp: Invalid argument".to_owned()));
        assert!(reported(Pass::Syscalls, failed()).unwrap().is_none());
        assert_eq!(reported(Pass::Instructions, failed()).unwrap_err().exit, Exit::Internal);
    }
}
