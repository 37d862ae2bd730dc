//! A user's own program under one allocator: time, peak memory, exit status, output.
//!
//! `command` reads the command line, `watch` runs the program and looks at it through ptrace at
//! the one moment that matters: when a process is about to exit and its peak is final.
//!
//! Cost: a stop of a few microseconds at each fork, exec and exit; none in between.

mod command;
mod watch;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::allocators::Allocator;

pub use command::{CommandLine, CommandLineError};
pub use watch::{ExecError, run_once};

/// One run of a program to be made.
#[derive(Clone, Debug)]
pub struct ExecSpec {
    /// What is run.
    pub command: CommandLine,
    /// Under which allocator.
    pub allocator: Allocator,
    /// Processors the program is bound to; empty: wherever the kernel puts it.
    pub cpus: Vec<usize>,
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// By itself, with this status.
    Exited(i32),
    /// By this signal.
    Signalled(i32),
}

impl Status {
    /// As a shell would show it.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            Status::Exited(status) => status,
            Status::Signalled(signal) => 128 + signal,
        }
    }
}

/// What a run of a program gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecOutcome {
    /// How it ended.
    pub status: Status,
    /// From its start to its end.
    pub elapsed_ns: u64,
    /// Processor time in user mode, of it and of the processes it waited for.
    pub user_ns: u64,
    /// Processor time in the kernel, of it and of the processes it waited for.
    pub system_ns: u64,
    /// Page faults without disk access.
    pub minor_faults: u64,
    /// Page faults with disk access.
    pub major_faults: u64,
    /// Context switches that the kernel forced.
    pub involuntary_switches: u64,
    /// Peak of resident memory of its largest process.
    pub peak_rss_bytes: u64,
    /// Processes seen, the program itself included.
    pub processes: u64,
    /// Whether the library was mapped when the program ended; `None`: nobody could look.
    pub preloaded: Option<bool>,
    /// What it wrote to standard output.
    pub output: Output,
    /// The last lines it wrote to standard error.
    pub stderr: String,
    /// The library that was to serve it.
    pub library: Option<PathBuf>,
}

/// A fingerprint of what a program wrote, to tell whether two runs wrote the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Bytes written.
    pub bytes: u64,
    /// Their 64-bit FNV-1a hash.
    pub hash: u64,
}
