//! `bench-cli compare`: how do two libraries differ? The engine of `gate`, never its exit code 3.
#![forbid(unsafe_code)]

use clap::Args;

use super::judge::{self, Common, Job, note};
use crate::cli::Global;
use crate::error::{CliError, Exit};

/// What to compare.
#[derive(Clone, Debug, Args)]
pub struct CompareArgs {
    /// The reference: a library, or the name of an allocator
    old: String,
    /// What is compared with it
    new: String,
    /// Workloads by name, or traces by path (default: the standard gate suite)
    #[arg(value_name = "WORKLOAD|TRACE")]
    what: Vec<String>,
    #[command(flatten)]
    common: Common,
}

/// Runs `bench-cli compare`.
///
/// # Errors
/// See [`Exit`].
pub fn run(args: &CompareArgs, global: &Global) -> Result<Exit, CliError> {
    let out = judge::out_folder(global, "compare")?;
    let job = Job::prepare((&args.old, &args.new), &args.what, &args.common, global)?;
    let manifest = job.manifest();
    let outcome = job.measure(global)?;
    // What was found is told first: a full disk does not take it back.
    judge::show(&outcome, global)?;
    judge::write_files(&outcome, &judge::ended(&outcome, manifest), &out)?;
    note(global, &format!("files: {}", out.display()));
    Ok(match outcome.exit(true) {
        // A comparison has no wrong answer.
        Exit::Regression => Exit::Success,
        other => other,
    })
}
