//! What `bench-cli run` prints: the summary on standard output, where the files are on standard
//! error.
#![forbid(unsafe_code)]

use crate::cli::{Format, Global};
use crate::error::{CliError, Exit};
use crate::gate::files;
use crate::output;
use crate::report::page;
use crate::results::{RunDirectory, RunRow};
use crate::session;
use crate::subjects::Prepared;
use crate::worker::OUT_OF_MEMORY;

/// Writes `report.html` into the folder of a run that is complete.
///
/// # Errors
/// A folder that cannot be written any more.
pub(super) fn page(directory: &RunDirectory, global: &Global) -> Result<(), CliError> {
    let page = page::of_folder(directory.path())?;
    let path = directory.path().join("report.html");
    files::write_whole(&path, page.as_bytes())?;
    if !global.quiet {
        output::note(&format!("to read in a browser: {}", path.display()));
    }
    Ok(())
}

/// Prints the summary of what is in `directory`.
pub(super) fn print(
    directory: &RunDirectory,
    allocators: &[String],
    global: &Global,
) -> Result<(), CliError> {
    let internal = |error: &dyn std::fmt::Display| {
        CliError::new(Exit::Internal, "cannot write the summary").because(error)
    };
    let subjects = &directory.manifest().subjects;
    let lines = session::summarise(directory.runs(), directory.latency(), allocators, subjects);
    let text = match global.format {
        Format::Human => session::render(&lines),
        Format::Json => serde_json::to_string_pretty(&lines).map_err(|e| internal(&e))?,
        Format::Csv => {
            let mut writer = csv::Writer::from_writer(Vec::new());
            for line in &lines {
                writer.serialize(line).map_err(|e| internal(&e))?;
            }
            let bytes = writer.into_inner().map_err(|e| internal(&e))?;
            String::from_utf8_lossy(&bytes).trim_end().to_owned()
        }
    };
    output::print(&format!("{text}\n"))?;
    if !global.quiet {
        output::note(&format!(
            "seed {}; every process is a line of {}/runs.csv",
            global.seed,
            directory.path().display()
        ));
    }
    Ok(())
}

/// Says how faithful each replay of a trace was; part of what people read, so only for them.
pub(super) fn fidelity(
    directory: &RunDirectory,
    prepared: &[&Prepared],
    global: &Global,
) -> Result<(), CliError> {
    if global.format != Format::Human {
        return Ok(());
    }
    for subject in prepared.iter().filter(|subject| subject.census.is_some()) {
        let mut text = format!(
            "\nFidelity of {} in order {}: {} threads",
            subject.name, subject.order, subject.threads
        );
        for (name, count) in subject.census.iter().flat_map(traces::Census::anomalies) {
            text.push_str(&format!(", {count} {}", name.replace('_', " ")));
        }
        text.push('\n');
        let runs = directory.runs().iter().filter(|run| run.workload == subject.name);
        for run in one_per_allocator(runs) {
            text.push_str(&format!("  {:<12} {}\n", run.allocator, faithful(run)));
        }
        output::print(&text)?;
    }
    Ok(())
}

/// The run of each allocator that says most about fidelity: its footprint run, else any.
fn one_per_allocator<'a>(runs: impl Iterator<Item = &'a RunRow>) -> Vec<&'a RunRow> {
    let mut chosen: Vec<&RunRow> = Vec::new();
    for run in runs.filter(|run| run.operations.is_some()) {
        match chosen.iter_mut().find(|other| other.allocator == run.allocator) {
            Some(other) if run.pass == "footprint" => *other = run,
            Some(_) => {}
            None => chosen.push(run),
        }
    }
    chosen
}

/// One replay's fidelity in a line.
fn faithful(run: &RunRow) -> String {
    let operations = run.operations.unwrap_or(0);
    let share = run.stalled_operations.unwrap_or(0) as f64 / operations.max(1) as f64;
    let mut text = format!("{operations} operations, {:.2} % waited", share * 100.0);
    if let (Some(own), Some(trace)) = (run.peak_threads, run.trace_peak_threads) {
        text.push_str(&format!(", {own} threads alive at once (trace {trace})"));
    }
    if let (Some(own), Some(trace), "footprint") =
        (run.peak_live_bytes, run.trace_peak_live_bytes.filter(|t| *t > 0), run.pass.as_str())
    {
        let deviation = (own as f64 / trace as f64 - 1.0) * 100.0;
        text.push_str(&format!(", peak live {own} bytes ({deviation:+.2} % against the trace)"));
    }
    if let Some(skew) = run.largest_skew_events {
        text.push_str(&format!(", at most {skew} events ahead"));
    }
    text
}

/// Whether a process ended as no allocator should let it. Memory that a limit did not leave is not
/// that: it is a result.
fn is_fault(end: &str) -> bool {
    end != "completed" && !end.starts_with(OUT_OF_MEMORY)
}

/// Ends a session in which an allocator failed.
///
/// # Errors
/// [`Exit::AllocatorFault`] with the first failure of each allocator.
pub(super) fn faults(directory: &RunDirectory) -> Result<Exit, CliError> {
    let failed: Vec<&RunRow> = directory.runs().iter().filter(|run| is_fault(&run.end)).collect();
    let Some(first) = failed.first() else { return Ok(Exit::Success) };
    let mut error = CliError::new(
        Exit::AllocatorFault,
        format!("{} of {} processes did not end well", failed.len(), directory.runs().len()),
    );
    let mut seen: Vec<&str> = Vec::new();
    for run in &failed {
        if !seen.contains(&run.allocator.as_str()) {
            seen.push(&run.allocator);
            error = error.because(format!(
                "{} {} in {} ({} pass)",
                run.allocator, run.end, run.workload, run.pass
            ));
        }
    }
    let (path, id) = (directory.path().display(), &first.run_id);
    Err(error.help(format!("all rows are in {path}/runs.csv; the first is `{id}`")))
}
