//! What is executed: a workload by name or a trace by path, and the plan it becomes.
//!
//! `run`, `gate`, `compare` and `calibrate` all come through here, so that a name means the same
//! everywhere. A plan is prepared once, outside any measured process.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use traces::event::{Event, EventSource};
use traces::{Census, ImportOptions, TraceError};
use workloads::engine::Touch;
use workloads::plan::{Counts, Order, Plan, PlanError, PlanOptions};
use workloads::spec::{SourceOptions, Spec, SpecError};

use crate::error::{CliError, Exit};
use crate::{interrupt, output, results, suggest};

/// What is measured when nobody says what: few workloads, each a different question.
const STANDARD_SUITE: [&str; 5] = ["larson", "xmalloc", "mstress", "small-churn", "profile"];

/// A workload or a trace, named and found but not yet read.
#[derive(Clone, Debug)]
pub enum Subject {
    /// A specification of ours or of the user.
    Workload(Box<Spec>),
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
    /// How much work a workload does.
    pub amount: Amount,
    /// Keep the stream's times, for a paced run.
    pub times: bool,
    /// Seed of a workload's random choices; 0: its own.
    pub seed: u64,
}

/// How much work a workload does.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Amount {
    /// As its specification says.
    #[default]
    Whole,
    /// The share that its specification calls short: 0.2 s or less.
    Short,
    /// The share that its specification gives a gate's cell: about 0.1 s.
    Gate,
    /// This many times as much as its specification says.
    Times(f64),
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
    /// Executions of the plan's body; 1 if it has none.
    pub repeat: u32,
    /// What one run of the plan executes.
    pub counts: Counts,
    /// Which bytes of new objects are written, unless told otherwise.
    pub touch: Touch,
    /// What an importer had to repair, for a trace.
    pub census: Option<Census>,
    /// For the manifest.
    pub note: results::Subject,
}

/// The standard short suite.
///
/// # Errors
/// None: the suite is part of the program, and a test reads it.
pub fn standard_suite() -> Result<Vec<Subject>, CliError> {
    STANDARD_SUITE.iter().map(|name| resolve(name)).collect()
}

/// Finds the workload or trace that `text` names.
///
/// A name of ours comes first, so that no file in the present folder can take its place; `./larson`
/// is a file. A file is a workload if it ends in `.toml`, or in `.csv` and is no trace; else it is
/// a trace.
///
/// # Errors
/// [`Exit::Usage`] for an unknown workload or a bad specification, [`Exit::Trace`] for a trace that
/// is not there.
pub fn resolve(text: &str) -> Result<Subject, CliError> {
    if let Some(spec) = named(text).map_err(|e| bad_spec(text, e))? {
        return Ok(Subject::Workload(Box::new(spec)));
    }
    let path = Path::new(text);
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("");
    let is_profile = || extension == "csv" && traces::open(path).is_err();
    if path.is_file() && extension != "toml" && !is_profile() {
        return Ok(Subject::Trace(path.to_path_buf()));
    }
    if !path.exists() && (text.contains('/') || !extension.is_empty()) {
        return Err(CliError::new(Exit::Trace, format!("there is no trace `{text}`"))
            .because("no such file")
            .help("check the path; `bench-cli list workloads` lists workloads by name"));
    }
    if path.is_dir() {
        return Err(CliError::new(Exit::Trace, format!("`{text}` is a folder and no trace"))
            .help("name a file in it"));
    }
    Spec::load(text).map(|spec| Subject::Workload(Box::new(spec))).map_err(|e| bad_spec(text, e))
}

/// Whether [`resolve`] takes `text` as the name of a workload, whatever files there are.
#[must_use]
pub fn is_name(text: &str) -> bool {
    !matches!(named(text), Ok(None))
}

fn named(text: &str) -> Result<Option<Spec>, SpecError> {
    if text.contains(['/', '.']) { Ok(None) } else { Spec::named(text) }
}

fn bad_spec(text: &str, error: SpecError) -> CliError {
    if let SpecError::Unknown { name, .. } = &error {
        return CliError::new(Exit::Usage, format!("unknown workload `{name}`"))
            .help(suggest::help(name, Spec::names(), "bench-cli list workloads"));
    }
    let mut shown = CliError::new(Exit::Usage, format!("workload `{text}` cannot be used"));
    let mut cause: Option<&dyn std::error::Error> = Some(&error);
    while let Some(error) = cause {
        shown = shown.because(error.to_string().trim_end());
        cause = error.source();
    }
    shown.help("`bench-cli list workloads` lists those that come with the program, as examples")
}

impl Subject {
    /// Reads or generates the whole stream and writes its plan into `folder`.
    ///
    /// # Errors
    /// [`Exit::Trace`] where a trace is damaged or not understood; [`Exit::Usage`] where a workload
    /// cannot have so many threads or claims other work than it does, or where the folder cannot be
    /// written.
    pub fn prepare(&self, settings: &Settings, folder: &Path) -> Result<Prepared, CliError> {
        match self {
            Subject::Workload(spec) => prepare_workload(spec, settings, folder),
            Subject::Trace(path) => prepare_trace(path, settings, folder),
        }
    }
}

fn prepare_workload(spec: &Spec, settings: &Settings, folder: &Path) -> Result<Prepared, CliError> {
    let scale = match settings.amount {
        Amount::Whole => 1.0,
        Amount::Short => spec.short,
        Amount::Gate => spec.gate.unwrap_or(spec.short),
        Amount::Times(factor) => factor,
    };
    let seed = (settings.seed != 0).then_some(settings.seed);
    let source_options = SourceOptions { threads: settings.threads, scale, seed, folded: true };
    let mut source =
        Heeding::new(spec.source(&source_options).map_err(|e| bad_spec(&spec.name, e))?);
    let mut options = spec.plan_options();
    options.order = settings.order.unwrap_or(options.order);
    options.times = settings.times;
    let plan = Plan::prepare(&mut source, &options, &free_name(folder));
    go_on()?;
    let plan = plan.map_err(|error| explain(error, &spec.name))?;
    let counts = plan.counts(plan.repeat());
    spec.verify(spec.expected(&source_options, &counts), &counts).map_err(|mismatch| {
        CliError::new(
            Exit::Usage,
            format!("workload `{}` does other work than it claims", spec.name),
        )
        .because(mismatch)
        .help("correct `verify` in its file, or the parameters that decide the counts")
    })?;
    let mut prepared = prepared(&plan, spec.name.clone(), "workload", None);
    // Whole rounds, and at least one: what is done, not what was asked for.
    prepared.note.scale = Some(f64::from(spec.rounds(scale)) / f64::from(spec.rounds(1.0)));
    prepared.threads = u64::from(settings.threads.unwrap_or(spec.threads));
    prepared.touch = spec.touch;
    Ok(prepared)
}

fn prepare_trace(path: &Path, settings: &Settings, folder: &Path) -> Result<Prepared, CliError> {
    let reading = ImportOptions { stop: Some(interrupt::requested), ..ImportOptions::default() };
    let mut source = Heeding::new(traces::open_with(path, &reading)?);
    let order = settings.order.unwrap_or_default();
    let options = PlanOptions { order, times: settings.times, ..PlanOptions::default() };
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let plan = Plan::prepare(&mut source, &options, &free_name(folder));
    go_on()?;
    let plan = plan.map_err(|error| explain(error, &path.to_string_lossy()))?;
    let source = source.source;
    if let Some(lost) = source.lost() {
        output::note(&format!("{}: {lost}", path.display()));
    }
    Ok(prepared(&plan, name, "trace", Some(source.census())))
}

/// A stream that ends early when somebody asks the process to end; [`go_on`] tells.
struct Heeding<S> {
    source: S,
    events: u64,
}

impl<S> Heeding<S> {
    /// Events between two looks.
    const EVERY: u64 = 1 << 12;

    fn new(source: S) -> Self {
        Heeding { source, events: 0 }
    }
}

impl<S: EventSource> EventSource for Heeding<S> {
    type Error = S::Error;

    fn next_event(&mut self) -> Result<Option<Event>, S::Error> {
        self.events += 1;
        if self.events.is_multiple_of(Self::EVERY) && interrupt::requested() {
            return Ok(None);
        }
        self.source.next_event()
    }

    fn len_hint(&self) -> Option<u64> {
        self.source.len_hint()
    }
}

fn go_on() -> Result<(), CliError> {
    match interrupt::requested() {
        true => Err(CliError::new(Exit::Interrupted, "interrupted")),
        false => Ok(()),
    }
}

fn prepared(plan: &Plan, name: String, kind: &str, census: Option<Census>) -> Prepared {
    let note = results::Subject {
        name: name.clone(),
        kind: kind.to_owned(),
        stream_hash: Some(format!("{:016x}", plan.stream_hash())),
        events: Some(plan.events()),
        ..results::Subject::default()
    };
    Prepared {
        plan: plan.path().to_path_buf(),
        name,
        threads: plan.threads().len() as u64,
        order: plan.order(),
        repeat: plan.repeat(),
        counts: plan.counts(plan.repeat()),
        touch: Touch::default(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standard_suite_can_be_prepared_and_each_plan_does_what_its_workload_claims() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings { amount: Amount::Short, ..Settings::default() };
        for subject in standard_suite().unwrap() {
            let prepared = subject.prepare(&settings, folder.path()).unwrap();
            assert!(prepared.counts.operations > 1000, "{}", prepared.name);
            assert!(prepared.plan.is_file());
        }
    }

    #[test]
    fn a_mistyped_workload_is_answered_with_the_near_one() {
        let error = resolve("larsn").unwrap_err();
        assert_eq!(error.exit, Exit::Usage);
        assert!(error.help.as_deref().is_some_and(|h| h.contains("`larson`")), "{error}");
    }
}
