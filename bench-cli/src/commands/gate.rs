//! `bench-cli gate`: is the head slower than the base? PASS, FAIL or INCONCLUSIVE, with its reasons.
#![forbid(unsafe_code)]

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;

use super::judge::{self, Common, Job, note};
use crate::cli::Global;
use crate::error::{CliError, Exit};
use crate::gate::outcome::Outcome;
use crate::gate::{files, github, junit};
use crate::output;

/// What to judge and where to say it.
#[derive(Clone, Debug, Args)]
pub struct GateArgs {
    /// Workloads by name, or traces by path (default: the suite of the thresholds, else the
    /// standard gate suite)
    #[arg(value_name = "WORKLOAD|TRACE")]
    what: Vec<String>,
    /// The reference: a library, or the name of an allocator
    #[arg(long, value_name = "LIBRARY")]
    base: Option<String>,
    /// What is judged
    #[arg(long, value_name = "LIBRARY", default_value = "ours")]
    head: String,
    #[command(flatten)]
    common: Common,
    /// Say what is checked and why; without --base that is all
    #[arg(long)]
    explain: bool,
    /// Count instructions too, under valgrind, in cells of one thread (seconds per cell)
    #[arg(long)]
    instructions: bool,
    /// Exit 0 where nothing was shown either way
    #[arg(long)]
    allow_inconclusive: bool,
    /// Write JUnit XML (default: junit.xml in the output folder)
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    junit: Option<Option<PathBuf>>,
    /// Write annotations, the step summary and comment.md for GitHub Actions
    #[arg(long)]
    github: bool,
}

/// Runs `bench-cli gate`.
///
/// # Errors
/// See [`Exit`].
pub fn run(args: &GateArgs, global: &Global) -> Result<Exit, CliError> {
    if args.explain {
        judge::explain(&args.what, &args.common)?;
        if args.base.is_none() {
            return Ok(Exit::Success);
        }
    }
    let Some(base) = &args.base else {
        return Err(CliError::new(Exit::Usage, "there is no base to compare with")
            .help("name one: `bench-cli gate --base OLD.so --head NEW.so`, or `--base system`"));
    };
    let out = judge::out_folder(global, "gate")?;
    let job = Job::prepare((base, &args.head), &args.what, &args.common, global)?;
    let mut outcome = job.measure(global)?;
    if args.instructions {
        job.count_instructions(&mut outcome, global)?;
    }
    let state = if outcome.interrupted { "interrupted" } else { "completed" };
    judge::write_files(&outcome, &job.manifest(state), &out)?;
    if let Some(path) = &args.junit {
        let path = path.clone().unwrap_or_else(|| out.join("junit.xml"));
        files::write_whole(&path, junit::xml(&outcome, args.allow_inconclusive)?.as_bytes())?;
    }
    if args.github {
        tell_github(&outcome, &out)?;
    }
    judge::show(&outcome, global)?;
    note(global, &format!("files: {}", out.display()));
    Ok(outcome.exit(args.allow_inconclusive))
}

fn tell_github(outcome: &Outcome, out: &Path) -> Result<(), CliError> {
    let markdown = github::markdown(outcome);
    files::write_whole(&out.join("comment.md"), markdown.as_bytes())?;
    if let Some(path) = std::env::var_os("GITHUB_STEP_SUMMARY").map(PathBuf::from) {
        let append = OpenOptions::new().create(true).append(true).open(&path);
        append.and_then(|mut file| file.write_all(markdown.as_bytes())).map_err(|error| {
            CliError::new(Exit::Usage, format!("cannot write `{}`", path.display()))
                .because(error)
                .help("GITHUB_STEP_SUMMARY names this file: unset it outside GitHub Actions")
        })?;
    }
    output::print(&github::annotations(outcome))
}
