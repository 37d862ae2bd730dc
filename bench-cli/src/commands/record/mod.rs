//! `bench-cli record`: runs a program with the recorder preloaded and leaves its trace.
//!
//! The recorder writes raw files to a folder beside the trace; when the program has ended, they
//! are turned into one trace per process. The program's exit status is passed on.
//!
//! Recording ends with the program, or with `--wait` when the last process that it started has ended.
//! A process that goes on after that is told to stop recording, and its trace says so.
//!
//! # Invariants
//! 1. The trace appears under its name only when it is complete.
//! 2. A raw folder is removed only after everything in it was turned into traces.

mod outcome;
mod program;
mod run;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use crate::cli::Global;
use crate::error::{CliError, Exit};

/// What to record, and where the trace goes.
#[derive(Clone, Debug, Args)]
pub struct RecordArgs {
    /// Where the trace goes; children go to NAME.PID.EXT beside it
    #[arg(short = 'o', long = "output", value_name = "FILE", default_value = "trace.atrace")]
    output: PathBuf,
    /// Leave out the traces of child processes
    #[arg(long)]
    no_children: bool,
    /// Wait until every process that the program started has ended too; Ctrl-C ends the waiting. A
    /// daemon that forks away is recorded as long as that, and without this as long as the program
    #[arg(long)]
    wait: bool,
    /// Keep the recorder's raw files and say where they are
    #[arg(long)]
    keep_raw: bool,
    /// Stop recording when a process's raw file has this size, e.g. 500M; drops are counted
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    limit: Option<u64>,
    /// Keep only the latest calls of each process, in this much raw file, e.g. 64M
    #[arg(long, value_name = "SIZE", value_parser = parse_size, conflicts_with = "limit")]
    ring: Option<u64>,
    /// Record one in N objects, each for its whole life
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    one_in: Option<u32>,
    /// Begin without recording; SIGUSR1 to this command starts and stops it
    #[arg(long)]
    paused: bool,
    /// The program and its arguments
    #[arg(
        value_name = "COMMAND",
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    command: Vec<OsString>,
}

/// `64M` → bytes. A chunk is 64 KiB, so less than a few of them is refused.
fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match text[digits.len()..].trim_end_matches(['i', 'B']) {
        "" => 1,
        "k" | "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        other => return Err(format!("`{other}` is no unit; use K, M or G")),
    };
    let size = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(unit));
    match size {
        Some(size) if size >= 1 << 20 => Ok(size),
        Some(_) => Err("at least 1M is needed".to_owned()),
        None => Err("it is no size; write for example 64M".to_owned()),
    }
}

/// Runs `bench-cli record`. Ends the process with the program's status where that is not 0.
///
/// # Errors
/// The program cannot be started or made no call that could be recorded; the trace cannot be
/// written.
pub fn run(args: &RecordArgs, global: &Global) -> Result<Exit, CliError> {
    let session = run::Session::prepare(args)?;
    let status = session.run(args)?;
    let outcome = outcome::resolve(args, global, &session, &status);
    match outcome {
        Ok(()) => match program::exit_code(&status) {
            0 => Ok(Exit::Success),
            code => std::process::exit(code),
        },
        Err(error) => Err(error),
    }
}
