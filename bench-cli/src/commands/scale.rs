//! `bench-cli plan`, `cell` and `merge`: one gate over many machines, by whatever engine runs jobs.
#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::cell_latency;
use super::judge::{self, Common, Job, note};
use crate::allocators::Allocator;
use crate::cli::Global;
use crate::error::{CliError, Exit};
use crate::gate::calibration;
use crate::gate::scale::{self, Found, Library, Merged, Plan, PlannedCell, Record, SCHEMA};
use crate::history::commit::Commit;
use crate::output;
use crate::results::{self, AllocatorNote, Machine, Manifest, Subject, utc};
use crate::subjects;

/// What to plan.
#[derive(Clone, Debug, Args)]
pub struct PlanArgs {
    /// Workloads by name, or traces by path (default: the suite of the thresholds, else the
    /// standard gate suite)
    #[arg(value_name = "WORKLOAD|TRACE")]
    what: Vec<String>,
    /// The reference: a library, or the name of an allocator
    #[arg(long, value_name = "LIBRARY", required_unless_present = "count")]
    base: Option<String>,
    /// What is judged
    #[arg(long, value_name = "LIBRARY", default_value = "ours")]
    head: String,
    #[command(flatten)]
    common: Common,
    /// Print how many cells a plan has, and do nothing else
    #[arg(long, value_name = "PLAN")]
    count: Option<PathBuf>,
}

/// Runs `bench-cli plan`.
///
/// # Errors
/// See [`Exit`].
pub fn plan(args: &PlanArgs, global: &Global) -> Result<Exit, CliError> {
    if let Some(path) = &args.count {
        output::print(&format!("{}\n", Plan::read(path)?.cells.len()))?;
        return Ok(Exit::Success);
    }
    let base = args.base.as_deref().unwrap_or_default();
    let out = judge::out_folder(global, "plan")?;
    let job = Job::prepare((base, &args.head), &args.what, &args.common, global)?;
    let names = match (args.what.is_empty(), job.trial.thresholds.suite.is_empty()) {
        (false, _) => args.what.clone(),
        (true, false) => job.trial.thresholds.suite.clone(),
        (true, true) => crate::gate::suite::DEFAULT.map(str::to_owned).to_vec(),
    };
    let path = job.trial.thresholds.path.clone().unwrap_or_default();
    let cells = job.prepared.iter().zip(names).map(|(p, what)| PlannedCell {
        cell: p.cell.clone(),
        what: absolute(what),
        stream_hash: p.stream_hash.clone(),
    });
    let plan = Plan {
        schema: SCHEMA,
        base: library(base, &job.workers.base),
        head: library(&args.head, &job.workers.head),
        thresholds: fs::read_to_string(&path).unwrap_or_default(),
        thresholds_path: path,
        max_slowdown: args.common.max_slowdown,
        layout_floor: calibration::stored_floor(),
        budget_s: job.trial.budget.as_secs(),
        seed: global.seed,
        injected: job.trial.injected,
        threads: args.common.threads,
        cpus: args.common.cpus.clone(),
        timeout_s: args.common.timeout.map(|timeout| timeout.as_secs()),
        planned_utc: utc::rfc3339(utc::now()),
        commit: Commit::checked_out(Path::new(".")),
        cells: cells.collect(),
    };
    let path = plan.write(&out)?;
    output::print(&format!("{}\n", path.display()))?;
    note(
        global,
        &format!(
            "{} cells; run each: bench-cli cell --plan {} --index N",
            plan.cells.len(),
            path.display()
        ),
    );
    Ok(Exit::Success)
}

/// A library by its absolute path, so that it is found from any folder.
fn library(given: &str, allocator: &Allocator) -> Library {
    let options = given.split_once('?').map_or(String::new(), |(_, options)| format!("?{options}"));
    let spec = match &allocator.preload {
        Some(path) if !allocator.is_ours() => format!("{}{options}", path.display()),
        _ => given.to_owned(),
    };
    let name = allocator.name.clone();
    Library { spec, name, hash: calibration::library_hash(allocator) }
}

/// A file by its absolute path; the name of a workload as it is, whatever lies in the present folder.
fn absolute(what: String) -> String {
    if subjects::is_name(&what) {
        return what;
    }
    match fs::canonicalize(&what) {
        Ok(path) if path.is_file() => path.to_string_lossy().into_owned(),
        _ => what,
    }
}

/// Which cell to run.
#[derive(Clone, Debug, Args)]
pub struct CellArgs {
    /// The plan
    #[arg(long, value_name = "PLAN")]
    plan: PathBuf,
    /// Which of its cells, from 0
    #[arg(long, value_name = "N")]
    index: usize,
}

/// Runs `bench-cli cell`: both libraries on one workload, on this machine. A cell that has its
/// record is not run again.
///
/// # Errors
/// See [`Exit`].
pub fn cell(args: &CellArgs, global: &Global) -> Result<Exit, CliError> {
    let plan = Plan::read(&args.plan)?;
    let folder = args.plan.parent().unwrap_or(Path::new(".")).to_path_buf();
    let fingerprint = plan.fingerprint();
    let Some(planned) = plan.cells.get(args.index) else {
        return Err(CliError::new(
            Exit::Usage,
            format!("the plan has {} cells, none is number {}", plan.cells.len(), args.index),
        )
        .help("number them from 0"));
    };
    match Record::find(&folder, args.index, &fingerprint)? {
        Found::Nothing => {}
        Found::Whole(_) => {
            note(global, &format!("{} has its record already", planned.cell.name));
            return Ok(Exit::Success);
        }
        Found::Damaged(why) => {
            note(
                global,
                &format!("{} is run again, its record is damaged: {why}", planned.cell.name),
            );
        }
    }
    let common = Common {
        threads: plan.threads,
        inject_slowdown: Some(plan.injected),
        cpus: plan.cpus.clone(),
        timeout: plan.timeout_s.map(Duration::from_secs),
        ..Common::default()
    };
    // The rules are the plan's alone: neither thresholds nor a layout floor of this node count.
    let mut job = Job::under(
        plan.rules()?,
        (&plan.base.spec, &plan.head.spec),
        std::slice::from_ref(&planned.what),
        &common,
        global,
    )?;
    check(&plan, planned, &job)?;
    job.trial.seed = plan.seed.wrapping_add(args.index as u64);
    job.trial.elsewhere = plan.cells.len() - 1;
    let outcome = job.measure(global)?;
    if outcome.interrupted {
        // No record: whoever runs the cell again starts it anew.
        return Ok(Exit::Interrupted);
    }
    let mut rows = outcome.rows;
    for row in &mut rows {
        row.cell = args.index;
    }
    let Some(cell) = outcome.cells.into_iter().next() else {
        return Err(CliError::new(Exit::Internal, "a cell without a verdict"));
    };
    let latency = cell_latency::measure(&job, job.trial.seed)?;
    Record {
        schema: SCHEMA,
        plan: fingerprint,
        index: args.index,
        machine: Machine::here(),
        result: cell.result,
        counted: outcome.counted,
        rows,
        took_s: outcome.took.as_secs_f64(),
        latency,
    }
    .write(&folder)?;
    Ok(Exit::Success)
}

/// The same libraries and the same work as in the plan, or nothing.
fn check(plan: &Plan, planned: &PlannedCell, job: &Job) -> Result<(), CliError> {
    let differs = |what: &str, here: &str, there: &str| {
        CliError::new(Exit::Usage, format!("{what} here is not the one of the plan"))
            .because(format!("its hash is {here}, the plan's is {there}"))
            .help("make the same files visible on every node, or plan anew")
    };
    for (what, library, here) in
        [("the base", &plan.base, &job.workers.base), ("the head", &plan.head, &job.workers.head)]
    {
        let hash = calibration::library_hash(here);
        if hash != library.hash {
            return Err(differs(what, &hash, &library.hash));
        }
    }
    let here = job.prepared.first().and_then(|p| p.stream_hash.clone());
    if here != planned.stream_hash {
        let show = |hash: Option<String>| hash.unwrap_or_else(|| "none".to_owned());
        return Err(differs("the work", &show(here), &show(planned.stream_hash.clone())));
    }
    Ok(())
}

/// What to merge.
#[derive(Clone, Debug, Args)]
pub struct MergeArgs {
    /// Folder that holds plan.json and the cells' records
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Exit 0 where nothing was shown either way
    #[arg(long)]
    allow_inconclusive: bool,
}

/// Runs `bench-cli merge`: the verdict of the whole gate, with its files.
///
/// # Errors
/// See [`Exit`].
pub fn merge(args: &MergeArgs, global: &Global) -> Result<Exit, CliError> {
    let plan = Plan::read(&args.folder.join("plan.json"))?;
    let merged = scale::merge(&plan, &args.folder)?;
    let path = args.folder.join("plan.json");
    let again = |index: usize| scale::cell_command(&path, index);
    let name = |index: usize| &plan.cells[index].cell.name;
    for index in &merged.missing {
        note(global, &format!("{} has no record: run `{}`", name(*index), again(*index)));
    }
    for (index, why) in &merged.damaged {
        let (name, again) = (name(*index), again(*index));
        note(
            global,
            &format!("{name} does not count, its record is damaged: {why}; run `{again}`"),
        );
    }
    judge::show(&merged.outcome, global)?;
    cell_latency::write(&merged.latency, &args.folder)?;
    judge::write_files(&merged.outcome, &manifest(&plan, &merged), &args.folder)?;
    Ok(merged.outcome.exit(args.allow_inconclusive))
}

/// What is needed to repeat it. The same cells merged again have the same time, fingerprint and seed,
/// so that a history knows the folder; cells without a record have yet to run.
fn manifest(plan: &Plan, merged: &Merged) -> Manifest {
    let whole = merged.missing.is_empty() && merged.damaged.is_empty();
    let note = |library: &Library, role: &str| AllocatorNote {
        name: role.to_owned(),
        given: Some(library.name.clone()).filter(|name| !name.is_empty()),
        library: Some(library.spec.clone()),
        library_hash: Some(library.hash.clone()),
        env: Vec::new(),
    };
    let subjects = plan.cells.iter().map(|planned| Subject {
        name: planned.cell.name.clone(),
        kind: "cell".to_owned(),
        stream_hash: planned.stream_hash.clone(),
        ..Subject::default()
    });
    Manifest {
        schema: results::SCHEMA,
        bench_cli: env!("CARGO_PKG_VERSION").to_owned(),
        command: std::env::args().collect(),
        started_utc: plan.planned_utc.clone(),
        state: if whole { "completed" } else { "running" }.to_owned(),
        seed: plan.seed,
        generator: "ChaCha8".to_owned(),
        fingerprint: plan.fingerprint(),
        commit: plan.commit.clone(),
        copies: None,
        cpus: plan.cpus.clone(),
        machine: merged.machine.clone().unwrap_or_default(),
        subjects: subjects.collect(),
        allocators: vec![note(&plan.base, "base"), note(&plan.head, "head")],
    }
}
