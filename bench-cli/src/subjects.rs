//! What is executed: a workload by name or a trace by path, and the plan it becomes.
//!
//! `run`, `gate`, `compare` and `calibrate` all come through here, so that a name means the same
//! everywhere. A plan is prepared once, outside any measured process.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use traces::{Census, TraceError};
use workloads::plan::{Order, Plan, PlanError, PlanOptions};

use crate::error::{CliError, Exit};
use crate::results;

/// A workload or a trace, named and found but not yet read.
#[derive(Clone, Debug)]
pub enum Subject {
    /// A file in any trace format.
    Trace(PathBuf),
}

/// How a subject becomes a plan.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    /// How much of the stream's order is kept; by default what suits the subject.
    pub order: Option<Order>,
    /// Threads of a workload; a trace has its own.
    pub threads: Option<u32>,
    /// Keep the stream's times, for a paced run.
    pub times: bool,
    /// Seed of a workload's random choices.
    pub seed: u64,
}

/// A plan on disk, and what it was made from.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The plan file.
    pub plan: PathBuf,
    /// Name in the `workload` column.
    pub name: String,
    /// Threads of the workload, or of the trace.
    pub threads: u64,
    /// The order the plan keeps.
    pub order: Order,
    /// What an importer had to repair, for a trace.
    pub census: Option<Census>,
    /// For the manifest.
    pub note: results::Subject,
}

/// Finds the workload or trace that `text` names.
///
/// # Errors
/// [`Exit::Usage`] for an unknown workload, [`Exit::Trace`] for a trace that is not there.
pub fn resolve(text: &str) -> Result<Subject, CliError> {
    let path = Path::new(text);
    if path.is_file() || text.contains('/') || path.extension().is_some() {
        if !path.exists() {
            return Err(CliError::new(Exit::Trace, format!("there is no trace `{text}`"))
                .help("check the path; `bench-cli list workloads` lists workloads by name"));
        }
        return Ok(Subject::Trace(path.to_path_buf()));
    }
    Err(CliError::new(Exit::Usage, format!("unknown workload `{text}`"))
        .help("`bench-cli list workloads` lists the known ones; a trace is named by its path"))
}

/// What is measured when nobody says what: few workloads, each a different question.
#[must_use]
pub fn standard_suite() -> Vec<Subject> {
    Vec::new()
}

impl Subject {
    /// Reads or generates the whole stream and writes its plan into `folder`.
    ///
    /// # Errors
    /// [`Exit::Trace`] where a trace is damaged or not understood; [`Exit::Usage`] where the folder
    /// cannot be written.
    pub fn prepare(&self, settings: &Settings, folder: &Path) -> Result<Prepared, CliError> {
        match self {
            Subject::Trace(path) => prepare_trace(path, settings, folder),
        }
    }
}

fn prepare_trace(path: &Path, settings: &Settings, folder: &Path) -> Result<Prepared, CliError> {
    let mut source = traces::open(path)?;
    let order = settings.order.unwrap_or_default();
    let options = PlanOptions { order, times: settings.times, ..PlanOptions::default() };
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let plan = Plan::prepare(&mut *source, &options, &free_name(folder))
        .map_err(|error| explain(error, &name))?;
    Ok(prepared(&plan, name, "trace", Some(source.census())))
}

fn prepared(plan: &Plan, name: String, kind: &str, census: Option<Census>) -> Prepared {
    let note = results::Subject {
        name: name.clone(),
        kind: kind.to_owned(),
        stream_hash: Some(format!("{:016x}", plan.stream_hash())),
        events: Some(plan.events()),
    };
    Prepared {
        plan: plan.path().to_path_buf(),
        name,
        threads: plan.threads().len() as u64,
        order: plan.order(),
        census,
        note,
    }
}

/// A name that no plan in `folder` has yet.
fn free_name(folder: &Path) -> PathBuf {
    (0..).map(|n| folder.join(format!("{n}.plan"))).find(|path| !path.exists()).unwrap_or_default()
}

/// A plan's failure in the words of whoever caused it.
fn explain(error: PlanError, name: &str) -> CliError {
    match error {
        PlanError::Source { source, events } => match source.downcast::<TraceError>() {
            Ok(trace) => (*trace).into(),
            Err(other) => {
                CliError::new(Exit::Trace, format!("`{name}` fails after {events} events"))
                    .because(other)
            }
        },
        PlanError::Io { verb, path, source } => {
            CliError::new(Exit::Usage, format!("cannot {verb} `{}`", path.display()))
                .because(source)
                .help("set TMPDIR to a folder with room for the prepared events")
        }
        other => CliError::new(Exit::Trace, format!("`{name}` cannot be replayed"))
            .because(&other)
            .help(format!("`bench-cli trace verify {name}` lists every fault")),
    }
}
