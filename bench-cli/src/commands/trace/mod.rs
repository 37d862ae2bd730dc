//! `bench-cli trace`: traces of any format, understood and rewritten.
#![forbid(unsafe_code)]

mod diff;
mod errors;
mod html;
mod human;
mod info;
mod model;
mod output;
mod rewrite;
mod shrink;
mod verify;
mod watched;

use std::path::Path;

use clap::{Args, Subcommand};
use serde::Serialize;
use traces::{Format, ImportOptions, Source};

use crate::cli::Global;
use crate::error::{CliError, Exit};
use crate::interrupt;
use crate::output::print as show;
pub(crate) use watched::Watched;

pub use model::{GenArgs, generate};

/// What to do with traces.
#[derive(Clone, Debug, Args)]
pub struct TraceArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Debug, Subcommand)]
enum Verb {
    /// Tell what a trace holds: calls, threads, sizes, lifetimes, live memory
    Info(info::InfoArgs),
    /// Check that traces can be read to their end and keep their promises
    Verify(verify::VerifyArgs),
    /// Write a trace in a foreign format
    Export(rewrite::ExportArgs),
    /// Write a trace of any format as a container
    Convert(rewrite::ConvertArgs),
    /// Keep a part: between two times, or between the births of two threads
    Cut(rewrite::CutArgs),
    /// Put several traces side by side, as threads of one process
    Merge(rewrite::MergeArgs),
    /// Drop what could tell whose trace it is, and say what remains
    Anonymize(rewrite::AnonymizeArgs),
    /// Tell what changed between two traces
    Diff(diff::DiffArgs),
    /// Find the smallest part for which a command still fails
    Shrink(shrink::ShrinkArgs),
    /// Reduce a trace to a profile from which `gen` makes traces like it
    Fit(model::FitArgs),
}

/// Runs one verb.
///
/// # Errors
/// See `Exit`.
pub fn run(args: TraceArgs, global: &Global) -> Result<Exit, CliError> {
    match args.verb {
        Verb::Info(args) => info::run(&args, global.format, global.quiet),
        Verb::Verify(args) => verify::run(&args, global.format, global.quiet),
        Verb::Export(args) => rewrite::export(&args, global.quiet),
        Verb::Convert(args) => rewrite::convert(&args, global.quiet),
        Verb::Cut(args) => rewrite::cut(&args, global.quiet),
        Verb::Merge(args) => rewrite::merge(&args, global.quiet),
        Verb::Anonymize(args) => rewrite::anonymize(&args, global.quiet),
        Verb::Diff(args) => diff::run(&args, global.format, global.quiet),
        Verb::Shrink(args) => shrink::run(&args, global.quiet),
        Verb::Fit(args) => model::fit(&args, global),
    }
}

/// How to read a trace; the same for every verb.
#[derive(Clone, Debug, Args)]
pub struct InputArgs {
    /// Read as this format instead of telling it by content
    #[arg(long, value_name = "FORMAT", value_parser = parse_format)]
    from: Option<Format>,
    /// Fail on anything that an importer would repair and count
    #[arg(long)]
    strict: bool,
    /// Read a damaged trace up to the damage, and say what is lost
    #[arg(long, conflicts_with = "strict")]
    salvage: bool,
    /// Process to read, where a file holds several (default: the first one seen)
    #[arg(long)]
    pid: Option<u64>,
    /// Keep the releases that converters append for everything still alive (protobuf traces)
    #[arg(long)]
    keep_tail: bool,
}

impl InputArgs {
    /// Opens `path`, watched: see [`Watched`].
    fn open(&self, path: &Path, quiet: bool) -> Result<Box<dyn Source>, CliError> {
        interrupt::listen();
        let options = ImportOptions {
            strict: self.strict,
            pid: self.pid,
            strip_tail: !self.keep_tail,
            format: self.from,
            salvage: self.salvage,
            stop: Some(interrupt::requested),
        };
        Ok(Box::new(Watched::new(traces::open_with(path, &options)?, path, quiet)))
    }
}

fn parse_format(name: &str) -> Result<Format, String> {
    name.parse().map_err(|error: traces::UnknownFormat| {
        let names: Vec<&str> = Format::ALL.iter().map(|format| format.name()).collect();
        format!("{error}; known are {}", names.join(", "))
    })
}

/// Tells people something, unless they asked for silence.
fn say(quiet: bool, text: &str) {
    if !quiet {
        crate::output::note(text);
    }
}

/// One JSON document.
fn json(value: &impl Serialize) -> Result<String, CliError> {
    serde_json::to_string_pretty(value)
        .map(|text| text + "\n")
        .map_err(|error| CliError::new(Exit::Internal, "cannot write JSON").because(error))
}
