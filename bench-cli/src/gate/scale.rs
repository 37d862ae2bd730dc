//! One gate on many machines: a plan of cells, each run whole on one node, merged afterwards.
//!
//! A cell holds both libraries, so base and head always meet on one machine; pairs never cross.
//! A cell cannot know how many others will be left after stage 1, so each shares the false-alarm
//! budget with all of them: a little less power, never more false alarms.
//!
//! # Invariants
//! 1. A cell's record appears whole or not at all, under its index: nothing is counted twice.
//! 2. Plan, cells and libraries carry fingerprints; what does not match is refused, never merged.

#![forbid(unsafe_code)]

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::calibration;
use super::date::Date;
use super::files;
use super::outcome::{Cell, CellVerdict, Counted, Outcome};
use super::session::Row;
use super::thresholds::Thresholds;
use crate::error::{CliError, Exit};
use crate::history::commit::Commit;
use crate::results::{Machine, decode};
use crate::verdict::block::Side;
use crate::verdict::procedure::CellResult;
use crate::verdict::rules::Verdict;

/// Version of the plan's and the records' layout.
pub const SCHEMA: u32 = 1;

/// A library as the plan knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Library {
    /// As `-a` takes it, with an absolute path.
    pub spec: String,
    /// Its name in other commands, with options.
    #[serde(default)]
    pub name: String,
    /// Hash of its content.
    pub hash: String,
}

/// A cell as the plan knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedCell {
    /// The cell.
    pub cell: Cell,
    /// The workload or trace as it was named.
    pub what: String,
    /// Hash of its event stream.
    pub stream_hash: Option<String>,
}

/// What all cells of a gate share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Version of the layout.
    pub schema: u32,
    /// The reference.
    pub base: Library,
    /// What is judged.
    pub head: Library,
    /// Text of the threshold file; empty: built-in rules.
    pub thresholds: String,
    /// Where that text came from.
    pub thresholds_path: PathBuf,
    /// The margin, where the command line gave one.
    pub max_slowdown: Option<f64>,
    /// The layout floor that was measured, where one was.
    pub layout_floor: Option<f64>,
    /// How long each cell may take.
    pub budget_s: u64,
    /// Seed of every random choice; each cell adds its index.
    pub seed: u64,
    /// How much slower the head is made on purpose.
    pub injected: f64,
    /// Threads asked for.
    pub threads: Option<u32>,
    /// Processors of a node that its processes are bound to; none: they are not bound.
    #[serde(default)]
    pub cpus: Vec<usize>,
    /// How long one process may take before it counts as hung, where the command line said.
    #[serde(default)]
    pub timeout_s: Option<u64>,
    /// When it was made, in UTC.
    #[serde(default)]
    pub planned_utc: String,
    /// The commit that was checked out where it was made.
    #[serde(default)]
    pub commit: Option<Commit>,
    /// The cells.
    pub cells: Vec<PlannedCell>,
}

/// What one cell left.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Version of the layout.
    pub schema: u32,
    /// Fingerprint of the plan.
    pub plan: String,
    /// Its place in the plan.
    pub index: usize,
    /// Where it ran.
    pub machine: Machine,
    /// How it ended.
    pub result: CellResult,
    /// Deterministic metrics.
    pub counted: Vec<Counted>,
    /// Every process; `cell` is the index in the plan.
    pub rows: Vec<Row>,
    /// How long it took.
    pub took_s: f64,
    /// Times of single calls, in processes of their own after the verdict.
    #[serde(default)]
    pub latency: Vec<Distribution>,
}

/// Times of single calls of one side, added over its processes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distribution {
    /// Which library.
    pub side: Side,
    /// The call; `all` for every call together.
    pub op: String,
    /// An HdrHistogram in V2 encoding and base64.
    pub histogram: String,
}

/// What lies where a cell's record belongs.
#[derive(Debug)]
pub enum Found {
    /// Nothing: the cell was not run, or did not come to its end.
    Nothing,
    /// Something that is no record: the cell has to be run again.
    Damaged(String),
    /// Its record.
    Whole(Box<Record>),
}

impl Plan {
    /// Reads a plan.
    ///
    /// # Errors
    /// A file that is missing, damaged or of another version.
    pub fn read(path: &Path) -> Result<Self, CliError> {
        let plan: Plan = read_json(path, "a plan", "make one with `bench-cli plan`")?;
        if plan.schema != SCHEMA {
            return Err(CliError::new(
                Exit::Usage,
                format!("`{}` has layout {}, not {SCHEMA}", path.display(), plan.schema),
            )
            .help("use one version of bench-cli for plan, cells and merge"));
        }
        Ok(plan)
    }

    /// Writes the plan as `plan.json` into `folder`.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn write(&self, folder: &Path) -> Result<PathBuf, CliError> {
        let path = folder.join("plan.json");
        files::write_whole(&path, &to_json(self)?)?;
        Ok(path)
    }

    /// What every cell of this plan must agree on; not when and where it was made.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let shared = Plan { planned_utc: String::new(), commit: None, ..self.clone() };
        calibration::fingerprint(&format!("{shared:?}"))
    }

    /// The rules, as on the machine that made the plan.
    ///
    /// # Errors
    /// Thresholds that make no sense.
    pub fn rules(&self) -> Result<Thresholds, CliError> {
        let mut thresholds = if self.thresholds.is_empty() {
            Thresholds::default()
        } else {
            Thresholds::parse(&self.thresholds, &self.thresholds_path)?
        };
        if let Some(margin) = self.max_slowdown {
            thresholds.rules = thresholds.rules.with_margin(margin);
        }
        if let Some(floor) = self.layout_floor {
            thresholds.rules = thresholds.rules.with_layout_floor(floor);
        }
        thresholds.budget = Duration::from_secs(self.budget_s);
        thresholds.check().map_err(|e| CliError::new(Exit::Usage, e.to_string()))?;
        Ok(thresholds)
    }
}

/// Where the record of a cell lies.
#[must_use]
pub fn record_path(folder: &Path, index: usize) -> PathBuf {
    folder.join("cells").join(format!("{index}.json"))
}

/// How a cell of the plan at `plan` is run.
#[must_use]
pub fn cell_command(plan: &Path, index: usize) -> String {
    format!("bench-cli cell --plan {} --index {index}", plan.display())
}

impl Record {
    /// Writes the record, whole or not at all.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), CliError> {
        files::write_whole(&record_path(folder, self.index), &to_json(self)?)
    }

    /// Looks for the record of a cell.
    ///
    /// # Errors
    /// A record of another plan, or one that cannot be read at all.
    pub fn find(folder: &Path, index: usize, plan: &str) -> Result<Found, CliError> {
        let path = record_path(folder, index);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) => {
                let what = format!("`{}` cannot be read", path.display());
                return Err(CliError::new(Exit::Usage, what)
                    .because(error)
                    .help("a cell's record is a file: move away what lies there"));
            }
        };
        let record: Record = match serde_json::from_slice(&text) {
            Ok(record) => record,
            Err(why) => return Ok(Found::Damaged(format!("`{}`: {why}", path.display()))),
        };
        let because = if record.schema != SCHEMA {
            format!("its layout is {}, not {SCHEMA}", record.schema)
        } else if record.plan != plan {
            format!("its fingerprint is {}, the plan's is {plan}", record.plan)
        } else if record.index != index {
            format!("it is the record of cell {}", record.index)
        } else {
            return Ok(match record.damage() {
                Some(why) => Found::Damaged(format!("`{}`: {why}", path.display())),
                None => Found::Whole(Box::new(record)),
            });
        };
        let again = cell_command(&folder.join("plan.json"), index);
        Err(CliError::new(
            Exit::Usage,
            format!("`{}` is not cell {index} of this plan", path.display()),
        )
        .because(because)
        .help(format!("move it away, and run the cell again: `{again}`")))
    }

    /// What contradicts itself in it.
    fn damage(&self) -> Option<String> {
        if let Some(row) = self.rows.iter().find(|row| row.cell != self.index) {
            return Some(format!("it holds a process of cell {}", row.cell));
        }
        self.latency.iter().find_map(|distribution| {
            let why = decode(&distribution.histogram).err()?;
            Some(format!("a histogram of `{}` is damaged: {why}", distribution.op))
        })
    }
}

/// A gate put together from its cells.
#[derive(Debug)]
pub struct Merged {
    /// The gate.
    pub outcome: Outcome,
    /// Times of single calls, by cell.
    pub latency: Vec<(String, Vec<Distribution>)>,
    /// Where the first cell ran that has its record.
    pub machine: Option<Machine>,
    /// Cells without a record.
    pub missing: Vec<usize>,
    /// Cells whose record is damaged, and how.
    pub damaged: Vec<(usize, String)>,
}

/// The whole gate from its cells; a cell that was not run, or whose record is damaged, is
/// inconclusive.
///
/// # Errors
/// Records of another plan.
pub fn merge(plan: &Plan, folder: &Path) -> Result<Merged, CliError> {
    let (fingerprint, thresholds) = (plan.fingerprint(), plan.rules()?);
    let today = Date::today();
    let mut outcome = Outcome {
        base: plan.base.spec.clone(),
        head: plan.head.spec.clone(),
        cells: Vec::new(),
        counted: Vec::new(),
        rows: Vec::new(),
        seed: plan.seed,
        injected: plan.injected,
        took: Duration::ZERO,
        interrupted: false,
    };
    let (mut latency, mut missing, mut damaged) = (Vec::new(), Vec::new(), Vec::new());
    let mut machine = None;
    for (index, planned) in plan.cells.iter().enumerate() {
        let name = &planned.cell.name;
        let result = match Record::find(folder, index, &fingerprint)? {
            Found::Whole(mut record) => {
                outcome.rows.append(&mut record.rows);
                outcome.counted.append(&mut record.counted);
                outcome.took += Duration::try_from_secs_f64(record.took_s).unwrap_or_default();
                latency.push((name.clone(), record.latency));
                machine.get_or_insert(record.machine);
                record.result
            }
            Found::Damaged(why) => {
                damaged.push((index, why));
                undecided()
            }
            Found::Nothing => {
                missing.push(index);
                undecided()
            }
        };
        outcome.cells.push(CellVerdict {
            cell: planned.cell.clone(),
            rules: thresholds.rules_of(name),
            result,
            quarantine: thresholds.quarantine_of(name, today).cloned(),
        });
    }
    Ok(Merged { outcome, latency, machine, missing, damaged })
}

/// The result of a cell that nobody measured.
fn undecided() -> CellResult {
    CellResult {
        verdict: Verdict::Inconclusive,
        screen: Vec::new(),
        fresh: Vec::new(),
        cells_left: 0,
        fault: None,
    }
}

fn to_json<T: Serialize>(value: &T) -> Result<Vec<u8>, CliError> {
    serde_json::to_vec_pretty(value)
        .map_err(|error| CliError::new(Exit::Internal, "a document").because(error))
}

fn read_json<T: for<'d> Deserialize<'d>>(
    path: &Path,
    what: &str,
    help: &str,
) -> Result<T, CliError> {
    let refused = |error: &dyn std::fmt::Display| {
        CliError::new(Exit::Usage, format!("`{}` is not {what}", path.display()))
            .because(error)
            .help(help)
    };
    let text = fs::read(path).map_err(|error| refused(&error))?;
    serde_json::from_slice(&text).map_err(|error| refused(&error))
}

#[cfg(test)]
mod tests;
