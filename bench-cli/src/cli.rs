//! The command line as clap reads it: global flags and the list of subcommands.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::commands;
use crate::error::{CliError, Exit};

/// Measures memory allocators: runs, records, replays, compares and gates.
#[derive(Debug, Parser)]
#[command(name = "bench-cli", version, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Flags that every subcommand accepts, and heeds as far as it has results, random choices or progress.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Folder for results (default: bench-out/UTC-ID, with a `latest` link; of a gate, a comparison, a
    /// plan or a calibration bench-out/UTC-KIND)
    #[arg(long, global = true, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Seed of every random choice; printed and recorded
    #[arg(long, global = true, default_value_t = 1)]
    pub seed: u64,
    /// How results are written to standard output
    #[arg(long, global = true, value_enum, default_value_t)]
    pub format: Format,
    /// No progress, only results and errors
    #[arg(long, short, global = true)]
    pub quiet: bool,
}

/// How results are written to standard output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Tables and sentences
    #[default]
    Human,
    /// One JSON document
    Json,
    /// Comma-separated values with a header
    Csv,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run workloads, traces or a program under several allocators and compare
    Run(commands::run::RunArgs),
    /// Say which allocator and tuning suits a trace, and what each choice costs
    Recommend(commands::recommend::RecommendArgs),
    /// Derive size classes of our allocator from a trace, and say what they would save
    Tune(commands::tune::TuneArgs),
    /// List what can be measured, under what, and what is measured
    List(commands::list::ListArgs),
    /// Say what limits this machine as a place to measure
    Doctor(commands::doctor::DoctorArgs),
    /// Print where a library of ours lies, for LD_PRELOAD by hand
    Preload(commands::preload::PreloadArgs),
    /// Understand and rewrite traces
    Trace(commands::trace::TraceArgs),
    /// Make a trace from a profile, at any scale
    Gen(commands::trace::GenArgs),
    /// Is the head slower than the base? PASS, FAIL or INCONCLUSIVE at a stated error rate
    Gate(commands::gate::GateArgs),
    /// Compare two libraries: the engine of `gate`, never its exit code for a regression
    Compare(commands::compare::CompareArgs),
    /// Measure how often `gate` is wrong on this machine, and what it can see
    Calibrate(commands::calibrate::CalibrateArgs),
    /// Plan a gate for many machines: one cell each
    Plan(commands::scale::PlanArgs),
    /// Run one cell of a plan: both libraries, on this machine
    Cell(commands::scale::CellArgs),
    /// Judge a gate whose cells were run elsewhere
    Merge(commands::scale::MergeArgs),
    /// Keep results over commits in one file, and show where a metric changed
    History(commands::history::HistoryArgs),
    /// Turn a folder of results into one HTML page that needs nothing else
    Report(commands::report::ReportArgs),
    /// Run a program and record every call of the malloc family as a trace
    Record(commands::record::RecordArgs),
    /// Turn a folder of results into the formats of other tools
    Export(commands::export::ExportArgs),
    /// Print what makes a shell complete the words of this command line
    Completions(commands::completions::CompletionsArgs),
    /// Write the manual pages
    #[command(hide = true)]
    Man(commands::completions::ManArgs),
    #[command(hide = true)]
    Worker(crate::worker::WorkerArgs),
}

/// The whole command line, for completions and manual pages.
#[must_use]
pub fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

/// Parses the command line, runs the subcommand and turns its result into an exit code.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { Exit::Usage } else { Exit::Success });
        }
    };
    let result = match cli.command {
        None => commands::run::run(commands::run::RunArgs::default(), &cli.global),
        Some(Command::Run(args)) => commands::run::run(args, &cli.global),
        Some(Command::Recommend(args)) => commands::recommend::run(args, &cli.global),
        Some(Command::Tune(args)) => commands::tune::run(&args, &cli.global),
        Some(Command::List(args)) => commands::list::run(&args, &cli.global),
        Some(Command::Doctor(args)) => commands::doctor::run(&args, &cli.global),
        Some(Command::Preload(args)) => commands::preload::run(&args),
        Some(Command::Trace(args)) => commands::trace::run(args, &cli.global),
        Some(Command::Gen(args)) => commands::trace::generate(&args, &cli.global),
        Some(Command::Gate(args)) => commands::gate::run(&args, &cli.global),
        Some(Command::Compare(args)) => commands::compare::run(&args, &cli.global),
        Some(Command::Calibrate(args)) => commands::calibrate::run(&args, &cli.global),
        Some(Command::Plan(args)) => commands::scale::plan(&args, &cli.global),
        Some(Command::Cell(args)) => commands::scale::cell(&args, &cli.global),
        Some(Command::Merge(args)) => commands::scale::merge(&args, &cli.global),
        Some(Command::History(args)) => commands::history::run(args, &cli.global),
        Some(Command::Report(args)) => commands::report::run(&args),
        Some(Command::Record(args)) => commands::record::run(&args, &cli.global),
        Some(Command::Export(args)) => commands::export::run(&args, &cli.global),
        Some(Command::Completions(args)) => commands::completions::run(&args),
        Some(Command::Man(args)) => commands::completions::man(&args),
        Some(Command::Worker(args)) => std::process::exit(crate::worker::work(&args)),
    };
    match result {
        Ok(exit) => exit.into(),
        Err(error) => report(&error),
    }
}

fn report(error: &CliError) -> ExitCode {
    crate::output::note(&error.to_string());
    error.exit.into()
}
