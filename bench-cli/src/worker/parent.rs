//! The waiting side: starts a worker, keeps its environment clean, and reads what it left.
#![forbid(unsafe_code)]

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::callgrind;
use super::spec::{CellOutcome, CellSpec, End, Pass, Report};
use crate::allocators::Allocator;
use crate::error::{CliError, Exit};
use crate::interrupt;

/// Status with which a worker says that the wrong library serves `malloc`.
pub(super) const STATUS_UNPROVEN: i32 = 90;
/// Status with which a worker says that it could not do its work for another reason.
pub(super) const STATUS_FAILED: i32 = 91;
/// Status with which a worker says that the allocator broke its promise.
pub(super) const STATUS_BROKE_PROMISE: i32 = 92;

/// Status with which a worker says that its memory limit left no room for a thread.
pub(super) const STATUS_OUT_OF_MEMORY: i32 = 93;

/// The process id of the worker at work, for whoever watches; 0: none.
static RUNNING: AtomicU32 = AtomicU32::new(0);

/// Resident bytes of the worker at work, harness included; `None` between two.
#[must_use]
pub fn resident_now() -> Option<u64> {
    let worker = RUNNING.load(Ordering::Relaxed);
    let text = fs::read_to_string(format!("/proc/{worker}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Names in the worker's folder.
pub(super) const SPEC_FILE: &str = "spec.json";
pub(super) const REPORT_FILE: &str = "report.json";
pub(super) const FAULT_FILE: &str = "fault.txt";

/// Why there is no outcome at all.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The operating system refused something the harness needs.
    #[error("{action}: {error}")]
    System {
        /// What was tried.
        action: String,
        /// The refusal.
        error: io::Error,
    },
    /// The allocator named is not the one that served `malloc`.
    #[error("{allocator} did not get into the worker: {why}")]
    Unproven {
        /// Its name.
        allocator: String,
        /// Who serves instead.
        why: String,
    },
    /// The allocator did not understand an option it was given, and would run without it.
    #[error("{allocator} was given an option that it does not know: {why}")]
    Options {
        /// Its name.
        allocator: String,
        /// What it said.
        why: String,
    },
    /// The worker could not do its work; not the allocator's fault.
    #[error("{0}")]
    Failed(String),
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

impl From<WorkerError> for CliError {
    fn from(error: WorkerError) -> Self {
        match &error {
            WorkerError::System { .. } => CliError::new(Exit::Internal, "a worker cannot run")
                .because(&error)
                .help("`bench-cli doctor` says what limits this machine"),
            WorkerError::Unproven { allocator, why } => {
                CliError::new(Exit::Usage, format!("{allocator} cannot be measured by preload"))
                    .because(why)
                    .help("run `LD_PRELOAD=LIBRARY /bin/true` to see what the dynamic linker says")
            }
            WorkerError::Options { allocator, why } => {
                CliError::new(Exit::Usage, format!("{allocator} has an option that is not known"))
                    .because(why)
                    .help("docs/options.md lists the options of ours, as in `ours?memory=low`; jemalloc's manual its own")
            }
            WorkerError::Failed(why) => {
                CliError::new(Exit::Internal, "a worker could not do its work").because(why)
            }
            WorkerError::Interrupted => CliError::new(Exit::Interrupted, "interrupted"),
        }
    }
}

/// Runs one cell in a fresh process and waits for it.
///
/// A crash, a hang or a broken promise of the allocator is an outcome, not an error.
///
/// # Errors
/// When there is nothing to be said about the allocator: see [`WorkerError`].
pub fn run_once(spec: &CellSpec) -> Result<CellOutcome, WorkerError> {
    let system = |action: &str| {
        let action = action.to_owned();
        move |error| WorkerError::System { action, error }
    };
    let folder = tempfile::Builder::new()
        .prefix("bench-cli-worker-")
        .tempdir()
        .map_err(system("cannot make a temporary folder"))?;
    let text = serde_json::to_vec(spec).map_err(|e| WorkerError::Failed(e.to_string()))?;
    fs::write(folder.path().join(SPEC_FILE), text).map_err(system("cannot write the cell"))?;
    let stderr = folder.path().join("stderr.txt");
    let log = File::create(&stderr).map_err(system("cannot write the worker's log"))?;
    let program = env::current_exe().map_err(system("cannot find bench-cli itself"))?;
    let counts = folder.path().join("callgrind.out");
    let mut command = match spec.pass {
        Pass::Instructions => callgrind::command(&program, &counts),
        _ => Command::new(program),
    };
    command.arg("worker").arg(folder.path());
    apply_allocator(&mut command, &spec.allocator);
    command.env("BENCH_CLI_PADDING", padding(spec.seed));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let mut child = command.spawn().map_err(system("cannot start a worker"))?;
    let timeout = Duration::from_secs(spec.timeout_s);
    RUNNING.store(child.id(), Ordering::Relaxed);
    let ended = wait(&mut child, timeout);
    RUNNING.store(0, Ordering::Relaxed);
    let (status, hung) = ended.map_err(system("cannot wait for a worker"))?;
    if interrupt::requested() {
        return Err(WorkerError::Interrupted);
    }
    let mut outcome = conclude(spec, folder.path(), status, hung, tail(&stderr))?;
    if let (Pass::Instructions, Some(report)) = (spec.pass, &mut outcome.report) {
        report.instructions = callgrind::instructions(&counts);
    }
    Ok(outcome)
}

/// Preloads `allocator` into `command`, and clears from its environment whatever could change how
/// an allocator behaves.
pub(crate) fn apply_allocator(command: &mut Command, allocator: &Allocator) {
    for (name, _) in env::vars_os() {
        if is_scrubbed(&name.to_string_lossy()) {
            command.env_remove(&name);
        }
    }
    if let Some(library) = &allocator.preload {
        command.env("LD_PRELOAD", library);
    }
    command.envs(allocator.env.iter().map(|(key, value)| (key, value)));
}

/// Whether a variable of this name could change how some allocator behaves.
pub(crate) fn is_scrubbed(name: &str) -> bool {
    const PREFIXES: [&str; 11] = [
        "MALLOC_",
        "MIMALLOC_",
        "TCMALLOC_",
        "ALLOCATOR_",
        "LD_",
        "JEMALLOC_",
        "JE_",
        "SNMALLOC_",
        "RPMALLOC_",
        "SCUDO_",
        "HOARD_",
    ];
    PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || name == "GLIBC_TUNABLES"
}

/// Up to a page of environment: its size moves the stack, and with it what collides in the caches.
fn padding(seed: u64) -> OsString {
    // SplitMix64: any seed gives a well spread length.
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let length = usize::try_from((z ^ (z >> 31)) % 4096).unwrap_or(0);
    OsString::from("x".repeat(length))
}

/// Waits for the end of `child`; ends it at the timeout or on Ctrl-C. True: it hung.
fn wait(child: &mut Child, timeout: Duration) -> io::Result<(ExitStatus, bool)> {
    let start = Instant::now();
    // A descriptor of the process wakes this one at its end; polling would disturb it meanwhile.
    let process = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let ended = process.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok((status, false));
        }
        let hung = start.elapsed() > timeout;
        if hung || interrupt::requested() {
            child.kill()?;
            return Ok((child.wait()?, hung));
        }
        match &ended {
            Some(fd) => {
                let patience = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
                // An interrupted poll is looked at like any other wake-up.
                let _ = poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&patience));
            }
            None => thread::sleep(Duration::from_millis(5)),
        }
    }
}

fn conclude(
    spec: &CellSpec,
    folder: &Path,
    status: ExitStatus,
    hung: bool,
    stderr: String,
) -> Result<CellOutcome, WorkerError> {
    if let Some(why) = misunderstood(&stderr) {
        return Err(WorkerError::Options { allocator: spec.allocator.name.clone(), why });
    }
    let fault = || {
        let text = fs::read_to_string(folder.join(FAULT_FILE)).unwrap_or_default();
        if text.is_empty() { stderr.clone() } else { text }
    };
    let end = match (hung, status.code(), status.signal()) {
        (true, _, _) => End::Hung,
        (_, Some(0), _) => End::Completed,
        (_, Some(STATUS_UNPROVEN), _) => {
            return Err(WorkerError::Unproven {
                allocator: spec.allocator.name.clone(),
                why: fault(),
            });
        }
        // The dynamic linker's own way to say that a library, or one it needs, cannot be loaded.
        (_, Some(127), _) => {
            return Err(WorkerError::Unproven {
                allocator: spec.allocator.name.clone(),
                why: stderr,
            });
        }
        (_, Some(STATUS_FAILED), _) => return Err(WorkerError::Failed(fault())),
        (_, Some(STATUS_BROKE_PROMISE), _) => End::BrokePromise { what: fault() },
        (_, Some(STATUS_OUT_OF_MEMORY), _) => End::OutOfMemory { what: fault() },
        (_, Some(status), _) => End::Exited { status },
        (_, None, Some(libc::SIGKILL)) => End::KilledForMemory,
        (_, None, signal) => End::Crashed { signal: signal.unwrap_or(0) },
    };
    let report = read_report(&folder.join(REPORT_FILE));
    if end == End::Completed && report.is_none() {
        return Err(WorkerError::Failed("the worker left no report".to_owned()));
    }
    Ok(CellOutcome { end, report, stderr })
}

/// The line in which an allocator says that it passes over an option: ours, and jemalloc.
pub(crate) fn misunderstood(stderr: &str) -> Option<String> {
    const SAID: [&str; 2] = ["ALLOCATOR_OPTIONS: not understood", "<jemalloc>: Invalid conf"];
    let line = stderr.lines().find(|line| SAID.iter().any(|said| line.contains(said)))?;
    Some(line.to_owned())
}

fn read_report(path: &Path) -> Option<Report> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// The last lines of a log, at most a screenful.
fn tail(path: &PathBuf) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
