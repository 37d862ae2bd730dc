//! `bench-cli list`: what can be measured, under what, and what is measured.
#![forbid(unsafe_code)]

use clap::Args;
use serde::Serialize;
use workloads::spec::Spec;

use crate::allocators::{self, Allocator};
use crate::cli::{Format, Global};
use crate::error::{CliError, Exit};
use crate::output;
use crate::results::METRICS;

/// What to list.
#[derive(Clone, Debug, Args)]
pub struct ListArgs {
    /// The list
    #[arg(value_enum)]
    what: What,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum What {
    /// Workloads by name, each with the question it answers
    Workloads,
    /// Ours, the system's, and every peer found on this machine
    Allocators,
    /// Every column of every result file
    Metrics,
}

#[derive(Debug, Serialize)]
struct WorkloadEntry {
    name: String,
    threads: u32,
    any_threads: bool,
    seed: u64,
    question: String,
    bias: String,
}

#[derive(Debug, Serialize)]
struct AllocatorEntry {
    name: String,
    library: Option<String>,
    usable: bool,
    reason: Option<String>,
}

/// Prints the list.
///
/// # Errors
/// If standard output cannot take it.
pub fn run(args: &ListArgs, global: &Global) -> Result<Exit, CliError> {
    match args.what {
        What::Workloads => print(&workload_entries(), global.format, |entry| {
            [entry.name.clone(), format!("{}t", entry.threads), entry.question.clone()]
        })?,
        What::Allocators => print(&allocator_entries(), global.format, |entry| {
            let library = entry.library.as_deref().unwrap_or("(the C library)");
            [entry.name.clone(), entry.reason.clone().unwrap_or_else(|| library.to_owned())]
        })?,
        What::Metrics => print(METRICS, global.format, |metric| {
            [
                metric.file.to_owned(),
                metric.name.to_owned(),
                metric.unit.to_owned(),
                metric.meaning.to_owned(),
            ]
        })?,
    }
    Ok(Exit::Success)
}

fn workload_entries() -> Vec<WorkloadEntry> {
    let mut entries = Vec::new();
    for spec in Spec::all() {
        let names = std::iter::once(spec.name.clone()).chain(spec.variants());
        entries.extend(names.map(|name| WorkloadEntry {
            name,
            threads: spec.threads,
            any_threads: spec.any_threads,
            seed: spec.seed,
            question: spec.question.clone(),
            bias: spec.bias.clone(),
        }));
    }
    entries
}

fn allocator_entries() -> Vec<AllocatorEntry> {
    let ours = ["ours", "ours-hardened"].map(|name| match allocators::resolve(name) {
        Ok(allocator) => entry(allocator),
        Err(error) => AllocatorEntry {
            name: name.to_owned(),
            library: None,
            usable: false,
            reason: Some(error.because.first().cloned().unwrap_or(error.what)),
        },
    });
    let peers = allocators::peers().into_iter().map(|peer| AllocatorEntry {
        name: peer.name.to_owned(),
        library: Some(peer.path.display().to_string()),
        usable: true,
        reason: None,
    });
    ours.into_iter().chain([entry(Allocator::system())]).chain(peers).collect()
}

fn entry(allocator: Allocator) -> AllocatorEntry {
    AllocatorEntry {
        name: allocator.name,
        library: allocator.preload.map(|path| path.display().to_string()),
        usable: true,
        reason: None,
    }
}

/// Prints `entries` in the format asked for; `cells` gives the columns for people.
fn print<T: Serialize, const N: usize>(
    entries: &[T],
    format: Format,
    cells: impl Fn(&T) -> [String; N],
) -> Result<(), CliError> {
    let internal = |error: &dyn std::fmt::Display| {
        CliError::new(Exit::Internal, "cannot write the list").because(error)
    };
    let text = match format {
        Format::Json => {
            serde_json::to_string_pretty(entries).map_err(|e| internal(&e))?.trim().to_owned()
        }
        Format::Csv => {
            let mut writer = csv::Writer::from_writer(Vec::new());
            for entry in entries {
                writer.serialize(entry).map_err(|e| internal(&e))?;
            }
            let bytes = writer.into_inner().map_err(|e| internal(&e))?;
            String::from_utf8_lossy(&bytes).trim_end().to_owned()
        }
        Format::Human => aligned(entries.iter().map(cells)),
    };
    output::print(&format!("{text}\n"))
}

/// Columns padded to the widest cell, two blanks apart.
fn aligned<const N: usize>(rows: impl Iterator<Item = [String; N]>) -> String {
    let rows: Vec<[String; N]> = rows.collect();
    let mut widths = [0; N];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}
