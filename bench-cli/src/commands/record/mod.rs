//! `bench-cli record`: runs a program with the recorder preloaded and leaves its trace.
//!
//! The recorder writes raw files to a folder beside the trace; when the program has ended, they
//! are turned into one trace per process. The program's exit status is passed on.
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
    /// Where the trace goes; children go to NAME.<pid>.EXT beside it
    #[arg(short = 'o', long = "output", value_name = "FILE", default_value = "trace.atrace")]
    output: PathBuf,
    /// Leave out the traces of child processes
    #[arg(long)]
    no_children: bool,
    /// Keep the recorder's raw files and say where they are
    #[arg(long)]
    keep_raw: bool,
    /// The program and its arguments
    #[arg(
        value_name = "COMMAND",
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    command: Vec<OsString>,
}

/// Runs `bench-cli record`. Ends the process with the program's status where that is not 0.
///
/// # Errors
/// The program cannot be started or made no call that could be recorded; the trace cannot be
/// written.
pub fn run(args: &RecordArgs, global: &Global) -> Result<Exit, CliError> {
    let session = run::Session::prepare(args)?;
    let status = session.run(&args.command)?;
    let outcome = outcome::resolve(args, global, &session, &status);
    match outcome {
        Ok(()) => match program::exit_code(&status) {
            0 => Ok(Exit::Success),
            code => std::process::exit(code),
        },
        Err(error) => Err(error),
    }
}
