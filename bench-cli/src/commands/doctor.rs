//! `bench-cli doctor`: what limits this machine as a place to measure.
#![forbid(unsafe_code)]

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::cli::{Format, Global};
use crate::doctor::{self, Finding, Resolution, State};
use crate::error::{CliError, Exit};
use crate::gate::quantity;
use crate::output;

/// How to look.
#[derive(Clone, Debug, Args)]
pub struct DoctorArgs {
    /// Look only; do not measure which difference can be told apart here
    #[arg(long)]
    quick: bool,
    /// How long to measure
    #[arg(long, value_name = "TIME", value_parser = quantity::duration, default_value = "20s")]
    time: Duration,
}

#[derive(Debug, Serialize)]
struct Report {
    findings: Vec<Finding>,
    resolution: Option<Resolution>,
}

/// Prints what was found.
///
/// # Errors
/// If a process of the measurement cannot be run, or standard output cannot take the result.
pub fn run(args: &DoctorArgs, global: &Global) -> Result<Exit, CliError> {
    crate::interrupt::listen();
    let findings = doctor::examine();
    let resolution = match args.quick {
        true => None,
        false => {
            if !global.quiet {
                output::note(&format!(
                    "measuring the system's allocator against itself for {} s …",
                    args.time.as_secs()
                ));
            }
            Some(doctor::measure(args.time)?)
        }
    };
    let text = match global.format {
        Format::Human => human(&findings, resolution.as_ref()),
        Format::Json => serde_json::to_string_pretty(&Report { findings, resolution })
            .map_err(|error| internal(&error))?,
        Format::Csv => csv_of(&findings)?,
    };
    output::print(&format!("{text}\n"))?;
    Ok(Exit::Success)
}

fn internal(error: &dyn std::fmt::Display) -> CliError {
    CliError::new(Exit::Internal, "cannot write the findings").because(error)
}

fn csv_of(findings: &[Finding]) -> Result<String, CliError> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for finding in findings {
        writer.serialize(finding).map_err(|error| internal(&error))?;
    }
    let bytes = writer.into_inner().map_err(|error| internal(&error))?;
    Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

fn human(findings: &[Finding], resolution: Option<&Resolution>) -> String {
    let mut lines = Vec::new();
    let width = findings.iter().map(|finding| finding.name.len()).max().unwrap_or(0);
    for finding in findings {
        let state = match finding.state {
            State::Good => "good   ",
            State::Limits => "limits ",
            State::Unknown => "unknown",
        };
        lines.push(format!("{state}  {:width$}  {}", finding.name, finding.found));
        if finding.state == State::Good {
            continue;
        }
        let indent = " ".repeat(9 + width + 2);
        lines.push(format!("{indent}why: {}", finding.why));
        if let Some(fix) = &finding.fix {
            let who = if finding.root { " (as root)" } else { "" };
            lines.push(format!("{indent}fix{who}: {fix}"));
        }
    }
    if let Some(resolution) = resolution {
        lines.push(String::new());
        lines.push(format!(
            "The same allocator against itself differed by {:.1} % from block to block ({} blocks of \
             four processes, {:.2} s each).",
            resolution.scatter * 100.0,
            resolution.blocks,
            resolution.seconds_per_block
        ));
        lines.push(format!(
            "In ten minutes, one workload can show a slowdown of {:.1} % here; smaller ones need \
             more time or a quieter machine.",
            (resolution.smallest_difference * 100.0).max(0.1)
        ));
    }
    lines.join("\n")
}
