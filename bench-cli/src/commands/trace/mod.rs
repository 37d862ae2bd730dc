//! `bench-cli trace`: traces of any format, understood and rewritten.
#![forbid(unsafe_code)]

mod errors;
mod human;
mod info;

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use traces::{Format, ImportOptions, Source};

use crate::cli::Global;
use crate::error::{CliError, Exit};

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
}

/// Runs one verb.
///
/// # Errors
/// See `Exit`.
pub fn run(args: TraceArgs, global: &Global) -> Result<Exit, CliError> {
    match args.verb {
        Verb::Info(args) => info::run(&args, global.format),
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
    /// Process to read, where a file holds several (default: the first one seen)
    #[arg(long)]
    pid: Option<u64>,
    /// Keep the releases that converters append for everything still alive (protobuf traces)
    #[arg(long)]
    keep_tail: bool,
}

impl InputArgs {
    fn open(&self, path: &PathBuf) -> Result<Box<dyn Source>, CliError> {
        let options = ImportOptions {
            strict: self.strict,
            pid: self.pid,
            strip_tail: !self.keep_tail,
            format: self.from,
        };
        Ok(traces::open_with(path, &options)?)
    }
}

fn parse_format(name: &str) -> Result<Format, String> {
    name.parse().map_err(|error: traces::UnknownFormat| {
        let names: Vec<&str> = Format::ALL.iter().map(|format| format.name()).collect();
        format!("{error}; known are {}", names.join(", "))
    })
}

/// Writes results to standard output. A reader that went away needs no message.
fn show(text: &str) -> Result<(), CliError> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(CliError::new(Exit::Usage, "cannot write to standard output").because(error))
        }
        _ => Ok(()),
    }
}
