//! What `gate`, `compare` and `calibrate` share: names, thresholds and plans in, an outcome and its
//! files out.
#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use crate::allocators::{self, Allocator};
use crate::cli::{Format, Global};
use crate::error::{CliError, Exit};
use crate::gate::date::Date;
use crate::gate::metric::Metric;
use crate::gate::outcome::{Cell, Counted, Outcome};
use crate::gate::thresholds::Thresholds;
use crate::gate::trial::{Prepared, Trial};
use crate::gate::workers::Workers;
use crate::gate::{calibration, explain, files, github, openmetrics, quantity, suite, table};
use crate::history::commit::Commit;
use crate::interrupt;
use crate::output;
use crate::results::{AllocatorNote, Machine, Manifest, SCHEMA, Subject, utc};
use crate::verdict::block::Side;
use crate::verdict::procedure::CellResult;
use crate::verdict::words::Judged;

/// Where thresholds are looked for when nobody says where.
const DEFAULT_CONFIG: &str = "ci/thresholds.toml";
/// A worker that takes longer than this hangs, unless told otherwise: cells of a gate take a fraction of a
/// second.
const TIMEOUT: Duration = Duration::from_secs(120);

/// What every gate counts of the kernel's calls.
pub(super) const KERNEL_COUNTS: [Metric; 2] = [Metric::MappingCalls, Metric::CommittedBytes];

/// Cells, rules, and how long it may take.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Common {
    /// Threads of workloads (a trace has its own)
    #[arg(short = 't', long, value_name = "N")]
    pub(super) threads: Option<u32>,
    /// Thresholds (default: ci/thresholds.toml where it exists, else built-in rules)
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// How long it may take, as in 90s, 4m, 1h; cells undecided by then are inconclusive
    #[arg(long, value_name = "TIME", value_parser = quantity::duration)]
    pub(super) budget: Option<Duration>,
    /// The slowdown that must be ruled out, as in 5%
    #[arg(long, value_name = "SHARE", value_parser = quantity::share)]
    pub(super) max_slowdown: Option<f64>,
    /// Really slow the head by this share of its time, to see the verdict
    #[arg(long, value_name = "SHARE", value_parser = quantity::share)]
    pub(super) inject_slowdown: Option<f64>,
    /// Processors the processes are bound to, as in 0,1
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(super) cpus: Vec<usize>,
    /// How long one process may take before it counts as hung (default: 2m; a long trace needs more)
    #[arg(long, value_name = "TIME", value_parser = quantity::duration)]
    pub(super) timeout: Option<Duration>,
}

/// A comparison that is ready to run.
#[derive(Debug)]
pub(super) struct Job {
    /// What is to be judged.
    pub(super) trial: Trial,
    /// Who runs its processes.
    pub(super) workers: Workers,
    /// Its cells with their plans.
    pub(super) prepared: Vec<Prepared>,
    /// Holds the plans while they are needed.
    _plans: tempfile::TempDir,
}

impl Job {
    /// Resolves names, reads thresholds and prepares plans, for this machine with its layout floor.
    pub(super) fn prepare(
        libraries: (&str, &str),
        what: &[String],
        common: &Common,
        global: &Global,
    ) -> Result<Self, CliError> {
        let job = Self::under(thresholds_here(common)?, libraries, what, common, global)?;
        check_cells(&job.trial.thresholds, &job.prepared)?;
        Ok(job)
    }

    /// Resolves names and prepares plans, under thresholds that are settled.
    pub(super) fn under(
        thresholds: Thresholds,
        (base, head): (&str, &str),
        what: &[String],
        common: &Common,
        global: &Global,
    ) -> Result<Self, CliError> {
        interrupt::listen();
        let (base, head) = (allocators::resolve(base)?, allocators::resolve(head)?);
        let (plans, prepared) = plans(&thresholds, what, common)?;
        let injected = common.inject_slowdown.unwrap_or(0.0);
        Ok(Job {
            trial: Trial {
                base: shown(&base),
                head: shown(&head),
                cells: prepared.iter().map(|p| p.cell.clone()).collect(),
                budget: thresholds.budget,
                thresholds,
                seed: global.seed,
                injected,
                elsewhere: 0,
            },
            workers: Workers {
                plans: prepared.iter().map(|p| (p.plan.clone(), p.touch)).collect(),
                base,
                head,
                inject_slowdown: injected,
                cpus: common.cpus.clone(),
                timeout_s: common.timeout.unwrap_or(TIMEOUT).as_secs(),
            },
            prepared,
            _plans: plans,
        })
    }

    /// Measures, telling of each decided cell on standard error.
    pub(super) fn measure(&self, global: &Global) -> Result<Outcome, CliError> {
        crate::worker::check_cpus(&self.workers.cpus)?;
        interrupt::listen();
        let t = &self.trial;
        note(
            global,
            &format!(
                "{} against {}: {} cells, budget {}, seed {}",
                t.head,
                t.base,
                t.cells.len(),
                quantity::spoken(t.budget),
                t.seed
            ),
        );
        let mut hear = |cell: &Cell, result: &CellResult| {
            let rules = t.thresholds.rules_of(&cell.name);
            let quarantined = t.thresholds.quarantine_of(&cell.name, Date::today()).is_some();
            let judged = Judged { name: &cell.name, result, rules: &rules, quarantined };
            note(global, &judged.line());
        };
        let mut outcome = t.run(self.workers.clone(), &mut hear)?;
        for line in self.count(&mut outcome, &KERNEL_COUNTS)? {
            output::note(&line);
        }
        Ok(outcome)
    }

    /// Adds metrics to what was counted: for each one run of each side of each cell of one thread. An outcome
    /// that is counted in part is an interrupted one. Gives a line for each figure that cannot be had, for
    /// whoever wants no progress too: the verdict rests on one figure less.
    pub(super) fn count(
        &self,
        outcome: &mut Outcome,
        metrics: &[Metric],
    ) -> Result<Vec<String>, CliError> {
        let mut uncounted = Vec::new();
        for (metric, index) in
            metrics.iter().flat_map(|metric| (0..outcome.cells.len()).map(move |i| (*metric, i)))
        {
            let cell = &outcome.cells[index];
            if cell.cell.threads > 1 || cell.result.fault.is_some() {
                continue;
            }
            let of = |side: Side| match metric {
                Metric::Instructions => self.workers.instructions(index, side),
                Metric::CommittedBytes => self.workers.committed_bytes(index, side),
                _ => self.workers.mapping_calls(index, side),
            };
            let (base, head) = (of(Side::A)?, of(Side::B)?);
            if interrupt::requested() {
                outcome.interrupted = true;
                break;
            }
            let Some((base, head)) = base.zip(head) else {
                uncounted.push(format!(
                    "{}: {} cannot be counted here",
                    cell.cell.name,
                    metric.name()
                ));
                continue;
            };
            outcome.counted.push(Counted {
                cell: cell.cell.name.clone(),
                metric,
                base,
                head,
                allowed: self.trial.thresholds.limits[&metric].allowed(base),
                quarantined: cell.quarantine.is_some(),
                stored: false,
            });
        }
        Ok(uncounted)
    }

    /// What is needed to repeat it, before it begins.
    pub(super) fn manifest(&self) -> Manifest {
        let note = |allocator: &Allocator, role: &str| AllocatorNote {
            name: role.to_owned(),
            given: Some(allocator.name.clone()),
            library: allocator.preload.as_ref().map(|path| path.display().to_string()),
            library_hash: Some(calibration::library_hash(allocator)),
            env: allocator.env.clone(),
        };
        let subjects: Vec<Subject> = self
            .prepared
            .iter()
            .map(|p| Subject {
                name: p.cell.name.clone(),
                kind: "cell".to_owned(),
                stream_hash: p.stream_hash.clone(),
                ..Subject::default()
            })
            .collect();
        let allocators = vec![note(&self.workers.base, "base"), note(&self.workers.head, "head")];
        Manifest {
            schema: SCHEMA,
            bench_cli: env!("CARGO_PKG_VERSION").to_owned(),
            command: std::env::args().collect(),
            started_utc: utc::rfc3339(utc::now()),
            state: "running".to_owned(),
            seed: self.trial.seed,
            generator: "ChaCha8".to_owned(),
            fingerprint: calibration::fingerprint(&format!("{subjects:?} {allocators:?}")),
            commit: Commit::checked_out(Path::new(".")),
            copies: None,
            cpus: self.workers.cpus.clone(),
            machine: Machine::here(),
            subjects,
            allocators,
        }
    }
}

/// The thresholds, with what the command line says instead.
pub(super) fn thresholds(common: &Common) -> Result<Thresholds, CliError> {
    let mut thresholds = match &common.config {
        Some(path) => Thresholds::read(path)?,
        None if Path::new(DEFAULT_CONFIG).is_file() => Thresholds::read(Path::new(DEFAULT_CONFIG))?,
        None => Thresholds::default(),
    };
    if let Some(margin) = common.max_slowdown {
        thresholds.rules = thresholds.rules.with_margin(margin);
        thresholds.rules.check().map_err(|e| CliError::new(Exit::Usage, e.to_string()))?;
    }
    if let Some(budget) = common.budget {
        thresholds.budget = budget;
    }
    Ok(thresholds)
}

/// The thresholds, with the layout floor that `calibrate` measured on this machine.
fn thresholds_here(common: &Common) -> Result<Thresholds, CliError> {
    let mut thresholds = thresholds(common)?;
    if let Some(floor) = calibration::stored_floor() {
        thresholds.rules = thresholds.rules.with_layout_floor(floor);
        thresholds.check().map_err(|e| {
            CliError::new(Exit::Usage, e.to_string())
                .because("the layout floor of this machine was measured by `calibrate`")
                .help(
                    "allow a larger slowdown (--max-slowdown, or that of the cell), or measure \
                     again: `bench-cli calibrate --relinked TWIN.so`",
                )
        })?;
    }
    Ok(thresholds)
}

/// Prepares the plans of the cells named by `what`, else by the thresholds, else of the suite.
fn plans(
    thresholds: &Thresholds,
    what: &[String],
    common: &Common,
) -> Result<(tempfile::TempDir, Vec<Prepared>), CliError> {
    let folder = tempfile::Builder::new()
        .prefix("bench-cli-plans-")
        .tempdir()
        .map_err(|e| CliError::new(Exit::Internal, "cannot make a temporary folder").because(e))?;
    let names = if what.is_empty() { &thresholds.suite } else { what };
    let prepared = suite::prepare(names, common.threads, folder.path())?;
    Ok((folder, prepared))
}

/// Refuses thresholds for cells that do not exist.
fn check_cells(thresholds: &Thresholds, prepared: &[Prepared]) -> Result<(), CliError> {
    let at_hand: Vec<String> = prepared.iter().map(|p| p.cell.name.clone()).collect();
    thresholds.check_cells(&at_hand, &suite::workloads())
}

/// `--explain`: what would be checked, and why.
pub(super) fn explain(what: &[String], common: &Common) -> Result<(), CliError> {
    let thresholds = thresholds_here(common)?;
    let (_folder, prepared) = plans(&thresholds, what, common)?;
    check_cells(&thresholds, &prepared)?;
    let cells: Vec<Cell> = prepared.into_iter().map(|p| p.cell).collect();
    output::print(&(explain::text(&thresholds, &cells, Date::today()) + "\n"))
}

fn shown(allocator: &Allocator) -> String {
    let path = allocator.preload.as_ref().map(|path| path.display().to_string());
    path.unwrap_or_else(|| allocator.name.clone())
}

/// Makes the output folder and proves that it can be written, before anything is measured.
pub(super) fn out_folder(global: &Global, kind: &str) -> Result<PathBuf, CliError> {
    let out = global.out.clone().unwrap_or_else(|| {
        Path::new("bench-out").join(format!("{}-{kind}", utc::compact(utc::now())))
    });
    let refused = |error: io::Error| {
        CliError::new(Exit::Usage, format!("cannot write to the folder `{}`", out.display()))
            .because(error)
            .help("choose another folder with --out")
    };
    fs::create_dir_all(&out).map_err(refused)?;
    tempfile::tempfile_in(&out).map_err(refused)?;
    Ok(out)
}

/// Has the manifest that was made before say how it ended.
pub(super) fn ended(outcome: &Outcome, mut manifest: Manifest) -> Manifest {
    let state = if outcome.interrupted { "interrupted" } else { "completed" };
    manifest.state = state.to_owned();
    manifest
}

/// The files that every comparison leaves. The manifest comes last: it says that all is there.
pub(super) fn write_files(
    outcome: &Outcome,
    manifest: &Manifest,
    out: &Path,
) -> Result<(), CliError> {
    write_tables(outcome, out)?;
    let text = serde_json::to_vec_pretty(manifest)
        .map_err(|error| CliError::new(Exit::Internal, "a manifest").because(error))?;
    files::write_whole(&out.join("manifest.json"), &text)
}

/// What was found, without how it came about.
fn write_tables(outcome: &Outcome, out: &Path) -> Result<(), CliError> {
    files::write_whole(&out.join("blocks.csv"), &files::blocks(outcome)?)?;
    files::write_whole(&out.join("verdicts.csv"), &files::verdicts(outcome)?)?;
    files::write_whole(&out.join("verdict.json"), files::json(outcome)?.as_bytes())?;
    files::write_whole(&out.join("metrics.txt"), openmetrics::text(outcome).as_bytes())?;
    files::write_whole(&out.join("summary.md"), github::markdown(outcome).as_bytes())
}

/// Results on standard output, in the format asked for.
pub(super) fn show(outcome: &Outcome, global: &Global) -> Result<(), CliError> {
    output::print(&match global.format {
        Format::Human => format!("{}\n\n{}\n", table::text(outcome), outcome.sentence()),
        Format::Csv => String::from_utf8_lossy(&files::verdicts(outcome)?).into_owned(),
        Format::Json => files::json(outcome)? + "\n",
    })
}

/// A line of progress.
pub(super) fn note(global: &Global, line: &str) {
    if !global.quiet {
        output::note(line);
    }
}
