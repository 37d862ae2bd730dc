//! `bench-cli doctor`: what limits this machine as a place to measure.
#![forbid(unsafe_code)]

use std::env;
use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;

use crate::cli::{Format, Global};
use crate::doctor::fix::{self, Changed};
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
    /// Set the kernel as a measurement wants it, run COMMAND, and put everything back; asks first
    #[arg(long, requires = "command")]
    fix: bool,
    /// Do not ask
    #[arg(long, requires = "fix")]
    yes: bool,
    /// Put back what a --fix that was killed had changed
    #[arg(long, conflicts_with = "fix")]
    restore: bool,
    /// What runs under the better settings, after `--`
    #[arg(last = true, value_name = "COMMAND", requires = "fix")]
    command: Vec<OsString>,
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
    if args.restore {
        return restore();
    }
    if args.fix {
        return run_fixed(args, global);
    }
    crate::interrupt::listen();
    let findings = doctor::examine();
    let measured = match args.quick {
        true => Ok(None),
        false => {
            if !global.quiet {
                output::note(&format!(
                    "measuring the system's allocator against itself for {} s …",
                    args.time.as_secs()
                ));
            }
            doctor::measure(args.time).map(Some)
        }
    };
    // Where nothing can be measured the findings say why, so they are told all the same.
    let (resolution, unfit) = match measured {
        Ok(resolution) => (resolution, None),
        Err(error) if error.exit == Exit::Unfit => (None, Some(error)),
        Err(error) => return Err(error),
    };
    let text = match global.format {
        Format::Human => human(&findings, resolution.as_ref()),
        Format::Json => serde_json::to_string_pretty(&Report { findings, resolution })
            .map_err(|error| internal(&error))?,
        Format::Csv => csv_of(&findings)?,
    };
    output::print(&format!("{text}\n"))?;
    unfit.map_or(Ok(Exit::Success), Err)
}

/// Where it is noted what settings were.
fn note_of_settings() -> Result<PathBuf, CliError> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("XDG_CACHE_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".cache")))
        .map(|cache| cache.join("bench-cli/changed-settings.json"))
        .ok_or_else(|| {
            CliError::new(Exit::Usage, "there is no folder to note the settings in")
                .help("set XDG_CACHE_HOME or HOME")
        })
}

fn restore() -> Result<Exit, CliError> {
    let told = match Changed::noted(&note_of_settings()?)? {
        None => "nothing is to be put back".to_owned(),
        Some(changed) => format!("{} settings are as they were", changed.put_back()?),
    };
    output::print(&format!("{told}\n"))?;
    Ok(Exit::Success)
}

/// Changes settings by consent, runs the command, puts them back and ends with its status.
fn run_fixed(args: &DoctorArgs, global: &Global) -> Result<Exit, CliError> {
    let note = note_of_settings()?;
    fix::nothing_noted(&note)?;
    let changes = fix::wanted(Path::new("/"));
    for change in &changes {
        let shown = change.file.display();
        output::note(&format!("{shown}: `{}`, to be `{}`", change.was, change.wanted));
    }
    if changes.is_empty() {
        if !global.quiet {
            output::note("nothing that can be set is wrong");
        }
    } else if !(args.yes || consent()?) {
        return Err(CliError::new(Exit::Usage, "nothing was changed and nothing was run"));
    }
    crate::interrupt::hold();
    let changed = match changes.is_empty() {
        true => None,
        false => Some(Changed::make(changes, &note)?),
    };
    let status = run_command(&args.command);
    if let Some(changed) = changed {
        let n = changed.put_back()?;
        if !global.quiet {
            output::note(&format!("{n} settings are as they were"));
        }
    }
    let status = status?;
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(Exit::Success),
        // The status is the command's own, as with `env` or `nice`; of a signal, as a shell has it.
        (Some(code), _) => std::process::exit(code),
        (None, signal) => std::process::exit(128 + signal.unwrap_or(0)),
    }
}

/// Whether a person says yes.
fn consent() -> Result<bool, CliError> {
    if !io::stdin().is_terminal() {
        return Err(CliError::new(Exit::Usage, "there is nobody to ask whether to change this")
            .help("consent with --yes: settings are put back when the command has ended"));
    }
    output::note("Change these until the command has ended? [y/N]");
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(|error| internal(&error))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn run_command(command: &[OsString]) -> Result<ExitStatus, CliError> {
    let shown = command[0].to_string_lossy();
    let failed = |error: io::Error| {
        CliError::new(Exit::Usage, format!("`{shown}` cannot be run")).because(error)
    };
    let mut child = Command::new(&command[0]).args(&command[1..]).spawn().map_err(failed)?;
    let mut asked: Option<Instant> = None;
    loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            return Ok(status);
        }
        // A terminal tells the command itself of Ctrl-C; one that does not end is ended.
        match asked {
            None if crate::interrupt::requested() => {
                asked = Some(Instant::now());
                if crate::interrupt::requested_of_us_alone() {
                    let pid = Pid::from_child(&child);
                    // A command that has just ended needs to hear nothing.
                    let _ = kill_process(pid, Signal::TERM);
                }
            }
            Some(since) if since.elapsed() > Duration::from_secs(10) => {
                child.kill().map_err(failed)?;
            }
            _ => {}
        }
        thread::sleep(Duration::from_millis(50));
    }
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
