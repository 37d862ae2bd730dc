//! `bench-cli history`: results over commits, in one file.
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::cli::{Format, Global};
use crate::error::{CliError, Exit};
use crate::gate::quantity;
use crate::history::commit::Commit;
use crate::history::points;
use crate::history::series::{self, FEWEST, Series};
use crate::history::store::{Filter, Store};
use crate::verdict::words::signed_percent;
use crate::{interrupt, output, suggest};

/// What to do with the history.
#[derive(Clone, Debug, Args)]
pub struct HistoryArgs {
    /// The file: one SQLite database
    #[arg(long, global = true, value_name = "FILE", default_value = "bench-history.sqlite")]
    file: PathBuf,
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// Take in folders of results, each once
    Import {
        /// Folders that `run`, `gate` or `compare` wrote
        #[arg(required = true, value_name = "DIR")]
        folders: Vec<PathBuf>,
        /// The commit they are results of (default: the one that was checked out when they were
        /// measured)
        #[arg(long, value_name = "REVISION")]
        commit: Option<String>,
    },
    /// Show a metric over commits, and where its level changed
    Show {
        /// Its name: a column of runs.csv, or a quantile as malloc_p99.9_ns
        #[arg(default_value = "elapsed_ns")]
        metric: String,
        #[command(flatten)]
        only: Only,
    },
    /// List the metrics that are there, with the number of their values
    List,
    /// Write all values as CSV, one a line
    Export {
        #[command(flatten)]
        only: Only,
    },
}

#[derive(Clone, Debug, Args)]
struct Only {
    /// This workload, trace or cell alone
    #[arg(short = 'w', long, value_name = "NAME")]
    workload: Option<String>,
    /// This allocator alone; of gates `base`, `head` and `head/base`
    #[arg(short = 'a', long, value_name = "NAME")]
    allocator: Option<String>,
}

impl Only {
    fn filter(&self, metric: Option<&str>) -> Filter {
        Filter {
            metric: metric.map(str::to_owned),
            subject: self.workload.clone(),
            allocator: self.allocator.clone(),
        }
    }
}

/// Runs `bench-cli history`.
///
/// # Errors
/// See [`Exit`].
pub fn run(args: HistoryArgs, global: &Global) -> Result<Exit, CliError> {
    match &args.what {
        What::Import { folders, commit } => import(&args.file, folders, commit.as_deref(), global),
        What::Show { metric, only } => show(&args.file, metric, only, global),
        What::List => list(&args.file, global),
        What::Export { only } => export(&args.file, only),
    }
}

fn import(
    file: &Path,
    folders: &[PathBuf],
    revision: Option<&str>,
    global: &Global,
) -> Result<Exit, CliError> {
    interrupt::listen();
    let given = match revision {
        None => None,
        Some(revision) => Some(Commit::of_revision(Path::new("."), revision).ok_or_else(|| {
            CliError::new(Exit::Usage, format!("there is no commit `{revision}` here"))
                .help("run this in the repository that was measured: `git log` lists commits")
        })?),
    };
    let mut store = Store::create(file)?;
    let (mut new, mut known, mut refused) = (0, 0, Vec::new());
    for folder in folders {
        if interrupt::requested() {
            return Ok(Exit::Interrupted);
        }
        let read = match points::read(folder) {
            Ok(read) => read,
            // One bad folder keeps no good one out.
            Err(error) => {
                output::note(&error.to_string());
                refused.push(folder.display().to_string());
                continue;
            }
        };
        let commit = given.as_ref().or(read.manifest.commit.as_ref());
        let of = commit.map_or("no known commit".to_owned(), Commit::short);
        match store.import(&read, commit)? {
            true => new += 1,
            false => known += 1,
        }
        if !global.quiet {
            output::note(&format!("{}: {} values of {of}", folder.display(), read.points.len()));
        }
    }
    output::print(&format!(
        "{}: {new} folders taken in, {known} were there already, {} refused\n",
        file.display(),
        refused.len()
    ))?;
    Ok(if refused.is_empty() { Exit::Success } else { Exit::Usage })
}

fn list(file: &Path, global: &Global) -> Result<Exit, CliError> {
    let points = Store::open(file)?.points(&Filter::default())?;
    let mut counts = std::collections::BTreeMap::<String, usize>::new();
    for point in points {
        *counts.entry(point.key.metric).or_default() += 1;
    }
    let text = match global.format {
        Format::Human => counts.iter().fold(String::new(), |mut text, (metric, n)| {
            let _ = writeln!(text, "{n:>7}  {metric}");
            text
        }),
        Format::Json => json(&counts)?,
        Format::Csv => counts.iter().fold("metric,values\n".to_owned(), |mut text, (metric, n)| {
            let _ = writeln!(text, "{metric},{n}");
            text
        }),
    };
    output::print(&text)?;
    Ok(Exit::Success)
}

/// One value with its series, as CSV and JSON have it.
#[derive(Debug, Serialize)]
struct Row<'a> {
    metric: &'a str,
    workload: &'a str,
    allocator: &'a str,
    conditions: &'a str,
    machine: &'a str,
    commit: &'a str,
    time_utc: &'a str,
    value: f64,
    processes: usize,
    changed_from: Option<f64>,
    changed_to: Option<f64>,
}

fn rows_of(series: &[Series]) -> Vec<Row<'_>> {
    let mut rows = Vec::new();
    for s in series {
        for (at, step) in s.steps.iter().enumerate() {
            let change = s.change_at(at);
            rows.push(Row {
                metric: &s.key.metric,
                workload: &s.key.subject,
                allocator: &s.key.allocator,
                conditions: &s.key.conditions,
                machine: &s.machine,
                commit: &step.commit,
                time_utc: &step.time_utc,
                value: step.value,
                processes: step.processes,
                changed_from: change.map(|change| change.before),
                changed_to: change.map(|change| change.after),
            });
        }
    }
    rows
}

fn json(value: &impl Serialize) -> Result<String, CliError> {
    serde_json::to_string_pretty(value)
        .map(|text| text + "\n")
        .map_err(|error| CliError::new(Exit::Internal, "a document").because(error))
}

fn csv_text(rows: &[Row<'_>]) -> Result<String, CliError> {
    let broken =
        |error: &dyn std::fmt::Display| CliError::new(Exit::Internal, "a table").because(error);
    let mut table = csv::Writer::from_writer(Vec::new());
    for row in rows {
        table.serialize(row).map_err(|error| broken(&error))?;
    }
    let bytes = table.into_inner().map_err(|error| broken(&error))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn export(file: &Path, only: &Only) -> Result<Exit, CliError> {
    let series = series::of_points(Store::open(file)?.points(&only.filter(None))?);
    output::print(&csv_text(&rows_of(&series))?)?;
    Ok(Exit::Success)
}

fn show(file: &Path, metric: &str, only: &Only, global: &Global) -> Result<Exit, CliError> {
    let store = Store::open(file)?;
    let series = series::of_points(store.points(&only.filter(Some(metric)))?);
    if series.is_empty() {
        return Err(nothing(&store, metric, only)?);
    }
    output::print(&match global.format {
        Format::Human => series.iter().map(human).collect::<Vec<_>>().join("\n"),
        Format::Json => json(&rows_of(&series))?,
        Format::Csv => csv_text(&rows_of(&series))?,
    })?;
    Ok(Exit::Success)
}

/// Why nothing is there to be shown: the name that is not known.
fn nothing(store: &Store, metric: &str, only: &Only) -> Result<CliError, CliError> {
    let all = store.points(&Filter::default())?;
    let known = |name: fn(&points::Key) -> &String| {
        let names: std::collections::BTreeSet<&str> =
            all.iter().map(|point| name(&point.key).as_str()).collect();
        names
    };
    let list = "bench-cli history list";
    let unknown = |what: &str, name: &str, names: std::collections::BTreeSet<&str>| {
        CliError::new(Exit::Usage, format!("the history has no {what} `{name}`"))
            .help(suggest::help(name, names, list))
    };
    let metrics = known(|key| &key.metric);
    if !metrics.contains(metric) {
        return Ok(unknown("metric", metric, metrics));
    }
    for (what, name, names) in [
        ("workload", &only.workload, known(|key| &key.subject)),
        ("allocator", &only.allocator, known(|key| &key.allocator)),
    ] {
        if let Some(name) = name.as_deref().filter(|name| !names.contains(name)) {
            return Ok(unknown(what, name, names));
        }
    }
    Ok(CliError::new(Exit::Usage, format!("the history has no `{metric}` of these"))
        .help("leave --workload or --allocator away"))
}

fn human(s: &Series) -> String {
    let mut text = format!(
        "{} of {} under {} ({})\n{}\n{}\n",
        s.key.metric,
        s.key.subject,
        s.key.allocator,
        s.key.conditions,
        s.machine,
        picture(s)
    );
    for (at, step) in s.steps.iter().enumerate() {
        let commit = if step.commit.is_empty() { "no commit" } else { &step.commit };
        let day = step.time_utc.get(..10).unwrap_or(&step.time_utc);
        let value = shown(&s.key.metric, step.value);
        let mark = if s.change_at(at).is_some() { '>' } else { ' ' };
        let _ = write!(text, "{mark} {commit:<13}  {day}  {value:>12}  {:>4}", step.processes);
        if let Some(change) = s.change_at(at) {
            let (before, after) =
                (shown(&s.key.metric, change.before), shown(&s.key.metric, change.after));
            // A slowdown is a share already: its change is told in its own unit.
            let share = match change.before {
                before if before > 0.0 && s.key.metric != "slowdown" => {
                    format!(", {}", signed_percent(change.after / before - 1.0))
                }
                _ => String::new(),
            };
            let _ = write!(text, "  level {before} → {after}{share}");
        }
        text.push('\n');
    }
    if s.steps.len() < FEWEST {
        let _ = writeln!(text, "  A clear change of level is found from {FEWEST} commits on.");
    }
    text
}

/// The series as a line of bars, the last eighty points of it.
fn picture(s: &Series) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let last = &s.steps[s.steps.len().saturating_sub(80)..];
    let low = last.iter().map(|step| step.value).fold(f64::INFINITY, f64::min);
    let high = last.iter().map(|step| step.value).fold(f64::NEG_INFINITY, f64::max);
    let bar = |value: f64| {
        let share = if high > low { (value - low) / (high - low) } else { 0.0 };
        BARS[((share * 7.0).round() as usize).min(7)]
    };
    last.iter().map(|step| bar(step.value)).collect()
}

/// A value with its unit, which the metric's name ends with.
fn shown(metric: &str, value: f64) -> String {
    if metric == "slowdown" {
        return signed_percent(value);
    }
    if metric.ends_with("_bytes") {
        return quantity::spoken_bytes(value.round() as u64);
    }
    if metric.ends_with("_ns") {
        return match value {
            v if v >= 1e9 => format!("{:.3} s", v / 1e9),
            v if v >= 1e6 => format!("{:.2} ms", v / 1e6),
            v if v >= 1e3 => format!("{:.2} µs", v / 1e3),
            v => format!("{v:.0} ns"),
        };
    }
    format!("{value}")
}
