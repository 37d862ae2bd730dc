//! `bench-cli trace verify`: whether a trace can be read to its end and keeps its promises.
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use traces::analysis::{Fault, Verifier};
use traces::{Census, TraceError};

use super::human::number;
use super::{InputArgs, json, show};
use crate::cli::Format;
use crate::error::{CliError, Exit};

/// What to check.
#[derive(Clone, Debug, Args)]
pub(super) struct VerifyArgs {
    /// The traces
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    input: InputArgs,
}

#[derive(Serialize)]
struct Report {
    file: String,
    format: Option<traces::Format>,
    sound: bool,
    events: u64,
    faults: Vec<Fault>,
    faults_in_all: u64,
    damage: Option<String>,
    census: Census,
}

pub(super) fn run(args: &VerifyArgs, output: Format, quiet: bool) -> Result<Exit, CliError> {
    let mut reports = Vec::new();
    let mut first_error = None;
    for file in &args.files {
        let (report, error) = verify(file, &args.input, quiet);
        if let Some(error @ CliError { exit: Exit::Interrupted, .. }) = error {
            return Err(error);
        }
        reports.push(report);
        first_error = first_error.or(error);
    }
    let text = match output {
        Format::Json => json(&reports)?,
        _ => reports.iter().map(tell).collect(),
    };
    show(&text)?;
    match first_error {
        Some(error) => Err(error),
        None if reports.iter().all(|report| report.sound) => Ok(Exit::Success),
        None => Ok(Exit::Trace),
    }
}

fn verify(file: &Path, input: &InputArgs, quiet: bool) -> (Report, Option<CliError>) {
    let mut verifier = Verifier::default();
    let mut report = Report {
        file: file.display().to_string(),
        format: None,
        sound: false,
        events: 0,
        faults: Vec::new(),
        faults_in_all: 0,
        damage: None,
        census: Census::default(),
    };
    let error;
    match input.open(file, quiet) {
        Ok(mut source) => {
            let end: Option<TraceError> = loop {
                match source.next_event() {
                    Ok(Some(event)) => verifier.observe(&event),
                    Ok(None) => break None,
                    Err(damage) => break Some(damage),
                }
            };
            report.format = Some(source.format());
            report.census = source.census();
            report.damage = end.as_ref().map(ToString::to_string);
            error = end.map(CliError::from);
        }
        Err(failure) => {
            report.damage = Some(failure.what.clone());
            error = Some(failure);
        }
    }
    let (faults, count) = verifier.faults();
    report.events = verifier.events();
    report.faults = faults.to_vec();
    report.faults_in_all = count;
    report.sound = count == 0 && report.damage.is_none();
    (report, error)
}

fn tell(report: &Report) -> String {
    let mut text = String::new();
    let format = report.format.map_or("unknown", |format| format.title());
    let verdict = if report.sound { "sound" } else { "NOT sound" };
    let events = number(report.events);
    let _ = writeln!(text, "{}: {verdict}, {format} trace, {events} events", report.file);
    for fault in &report.faults {
        let _ = writeln!(text, "  event {}: {}", number(fault.event), fault.what);
    }
    if report.faults_in_all > report.faults.len() as u64 {
        let _ = writeln!(text, "  {} faults in all", number(report.faults_in_all));
    }
    if report.damage.is_some() {
        let _ = writeln!(text, "  {events} events before the damage were read");
    }
    for (name, count) in report.census.anomalies() {
        let _ = writeln!(text, "  {name}: {}", number(count));
    }
    text
}
