//! `bench-cli gate`: is the head slower than the base? PASS, FAIL or INCONCLUSIVE, with its reasons.
#![forbid(unsafe_code)]

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;

use super::judge::{self, Common, Job, note};
use crate::cli::Global;
use crate::error::{CliError, Exit};
use crate::gate::base::{self, Recipe};
use crate::gate::baseline::{Baseline, Key};
use crate::gate::metric::Metric;
use crate::gate::outcome::Outcome;
use crate::gate::{files, github, junit};
use crate::{interrupt, output, worker};

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
    /// Build the base from this git revision, in a work tree of its own, once per commit
    #[arg(long, value_name = "REVISION", conflicts_with = "base")]
    base_rev: Option<String>,
    /// Shell command that builds it there and leaves it at $LIBRARY; what it writes to the folder
    /// $CACHE is kept for the next one (default: builds this program's own allocator)
    #[arg(long, value_name = "COMMAND", requires = "base_rev")]
    base_build: Option<String>,
    /// Folder of built bases (default: bench-cli/bases in the user's cache)
    #[arg(long, value_name = "DIR", requires = "base_rev")]
    base_cache: Option<PathBuf>,
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
    /// Hold the head's counts against those stored in this file too
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Store the head's counts in this file, for --baseline of later gates
    #[arg(long, value_name = "FILE")]
    save_baseline: Option<PathBuf>,
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
        if args.base.is_none() && args.base_rev.is_none() {
            return Ok(Exit::Success);
        }
    }
    worker::check_cpus(&args.common.cpus)?;
    if args.instructions {
        worker::need_valgrind("leave --instructions away")?;
    }
    let out = judge::out_folder(global, "gate")?;
    let junit =
        args.junit.as_ref().map(|path| path.clone().unwrap_or_else(|| out.join("junit.xml")));
    for path in junit.iter().chain(&args.save_baseline) {
        files::prove_writable(path)?;
    }
    let base = base_of(args, global)?;
    let job = Job::prepare((&base, &args.head), &args.what, &args.common, global)?;
    let key = Key::here(&job.workers.head, args.instructions);
    if args.base_rev.is_some() {
        let of_base = Key::here(&job.workers.base, args.instructions);
        if let Some(difference) = of_base.other_compiler(&key) {
            output::note(&difference);
        }
    }
    let stored = args.baseline.as_ref().map(|path| Baseline::read(path, &key, &job.prepared));
    let stored = stored.transpose()?;
    for name in stored.iter().flat_map(|stored| stored.missing(&job.prepared)) {
        output::note(&format!("{name}: not in the baseline, held against the base alone"));
    }
    let mut manifest = job.manifest();
    // Each revision has a file of its own.
    let built =
        manifest.allocators.iter_mut().filter(|a| args.base_rev.is_some() && a.name == "base");
    built.for_each(|base| base.given = Some("revision".to_owned()));
    let mut outcome = job.measure(global)?;
    if args.instructions {
        for line in job.count(&mut outcome, &[Metric::Instructions])? {
            output::note(&line);
        }
    }
    if let Some(stored) = &stored {
        for (metric, cells) in stored.unstored(&outcome) {
            output::note(&format!(
                "{}: not in the baseline for {}, held against the base alone",
                metric.name(),
                cells.join(", ")
            ));
        }
        let judged = stored.judge(&outcome, &job.trial.thresholds.limits);
        outcome.counted.extend(judged);
    }
    // What was found is told first: a full disk does not take it back.
    judge::show(&outcome, global)?;
    if let (Some(path), false) = (&args.save_baseline, outcome.interrupted) {
        Baseline::of(&outcome, key, &job.prepared).write(path)?;
        note(global, &format!("the head's counts are stored in {}", path.display()));
    }
    judge::write_files(&outcome, &judge::ended(&outcome, manifest), &out)?;
    if let Some(path) = &junit {
        files::write_whole(path, junit::xml(&outcome, args.allow_inconclusive)?.as_bytes())?;
    }
    if args.github {
        tell_github(&outcome, &out)?;
    }
    note(global, &format!("files: {}", out.display()));
    Ok(outcome.exit(args.allow_inconclusive))
}

/// The base: a library or name as given, or a revision that is built.
fn base_of(args: &GateArgs, global: &Global) -> Result<String, CliError> {
    if let Some(base) = &args.base {
        return Ok(base.clone());
    }
    let Some(revision) = &args.base_rev else {
        return Err(CliError::new(Exit::Usage, "there is no base to compare with").help(
            "name one: `bench-cli gate --base OLD.so --head NEW.so`, `--base system`, or \
             `--base-rev main`",
        ));
    };
    interrupt::listen();
    let recipe = Recipe {
        repository: Path::new("."),
        revision,
        build: args.base_build.as_deref(),
        cache: args.base_cache.as_deref(),
    };
    let library = base::library(&recipe, &|line| note(global, line))?;
    Ok(library.display().to_string())
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
