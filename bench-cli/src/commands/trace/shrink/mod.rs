//! `bench-cli trace shrink`: the smallest trace that still shows something: a command fails, an
//! allocator crashes, resident memory or the slowest call exceeds a limit.
#![forbid(unsafe_code)]

mod command;
mod replay;

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args};
use traces::event::Event;
use traces::rewrite::Stream;
use traces::rewrite::shrink::{Answer, Progress, Units};
use workloads::plan::Order;

use super::human::number;
use super::output::OutputArgs;
use super::{InputArgs, rewrite, say};
use crate::error::{CliError, Exit};
use crate::gate::quantity;
use crate::interrupt;

/// What to shrink, and how to tell that a part still shows it.
#[derive(Clone, Debug, Args)]
#[command(group = ArgGroup::new("shows").required(true))]
pub(super) struct ShrinkArgs {
    /// The trace
    file: PathBuf,
    /// Keep what makes the allocator crash, hang or break a promise in a replay, the same way as
    /// the whole trace does
    #[arg(long, group = "shows")]
    crash: bool,
    /// Keep what makes a replay's peak of resident memory exceed this, as in `64 MiB`
    #[arg(long, group = "shows", value_name = "SIZE", value_parser = quantity::bytes)]
    rss_above: Option<u64>,
    /// Keep what makes the slowest call of a replay take longer than this, as in `500us`
    #[arg(long, group = "shows", value_name = "TIME", value_parser = nanoseconds)]
    latency_above: Option<u64>,
    /// Who serves malloc in replays: a name or a library, as for `run`
    #[arg(
        short,
        long,
        value_name = "ALLOCATOR",
        default_value = "ours",
        conflicts_with = "command"
    )]
    allocator: String,
    /// How much of the trace's order replays keep: deps, window:N, epoch:N, strict (default:
    /// window:4096)
    #[arg(long, value_name = "ORDER", conflicts_with = "command")]
    order: Option<Order>,
    /// End a replay that runs longer than this
    #[arg(
        long,
        value_name = "TIME",
        value_parser = quantity::duration,
        default_value = "1m",
        conflicts_with = "command"
    )]
    timeout: Duration,
    /// Replays that all have to show it, for --latency-above: one alone may be disturbed
    #[arg(long, value_name = "N", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100))]
    attempts: u32,
    /// Trials at most
    #[arg(long, default_value_t = 2_000)]
    trials: u64,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    input: InputArgs,
    /// Command that fails (exit code not 0, or a signal) where the trace shows it; `{}` stands
    /// for the trace to try
    #[arg(last = true, group = "shows", value_name = "COMMAND")]
    command: Vec<String>,
}

fn nanoseconds(text: &str) -> Result<u64, String> {
    rewrite::duration(text).ok_or_else(|| format!("`{text}` is no time: write it as in `500us`"))
}

/// What a trial came to.
struct Seen {
    /// Whether it showed what is looked for.
    shows: bool,
    /// What was seen, as a clause.
    what: String,
}

/// A way to tell whether a trace shows what is looked for.
trait Trial {
    /// Tries `events`. What it is told of after an interrupt means nothing.
    fn look(&mut self, events: Vec<Event>) -> Result<Seen, CliError>;

    /// What is looked for, as a clause.
    fn wanted(&self) -> String;

    /// The command that tries the whole trace in `file` by hand.
    fn by_hand(&self, file: &str) -> String;
}

pub(super) fn run(args: &ShrinkArgs, quiet: bool) -> Result<Exit, CliError> {
    let mut trial: Box<dyn Trial + '_> = match args.command.is_empty() {
        true => Box::new(replay::Replay::new(args)?),
        false => Box::new(command::Command::new(args)?),
    };
    let units = Units::read(&mut *args.input.open(&args.file, quiet)?)?;
    let mut last = trial.look(units.select(&vec![true; units.count() as usize]))?;
    if interrupt::requested() {
        return Err(CliError::new(Exit::Interrupted, "interrupted before anything was left out"));
    }
    if !last.shows {
        let file = args.file.display().to_string();
        return Err(CliError::new(Exit::Usage, "the whole trace does not show it")
            .because(format!("{} was looked for, and {}", trial.wanted(), last.what))
            .help(format!("try it by hand: `{}`", trial.by_hand(&file))));
    }
    let result = units.shrink(args.trials, |events, progress| {
        if interrupt::requested() {
            return Ok(Answer::Stop);
        }
        tell(quiet, &progress);
        let seen = trial.look(events)?;
        if interrupt::requested() {
            // A trial that Ctrl-C ended has shown nothing. What was found so far is kept.
            return Ok(Answer::Stop);
        }
        if !seen.shows {
            return Ok(Answer::Lacks);
        }
        last = seen;
        Ok::<_, CliError>(Answer::Shows)
    });
    let (events, progress) = result?;
    let mut rest = Stream::new(events);
    let notes = [
        ("shrunk_from", args.file.display().to_string()),
        ("shrunk_for", trial.wanted()),
        ("shows", last.what.clone()),
    ];
    let totals = args.output.save(&mut rest, &notes)?;
    rewrite::told(&args.output, &totals, quiet);
    say(quiet, &format!("it still shows: {}", last.what));
    let (left, all) = (number(progress.units), number(units.count()));
    let reached = match (interrupt::requested(), progress.minimal) {
        (true, _) => "interrupted: more might go",
        (_, true) => "none of them can be left out alone",
        (_, false) => "more might go: raise --trials",
    };
    say(
        quiet,
        &format!("{left} of {all} object lives left after {} trials; {reached}", progress.trials),
    );
    Ok(if interrupt::requested() { Exit::Interrupted } else { Exit::Success })
}

fn tell(quiet: bool, progress: &Progress) {
    if progress.trials.is_multiple_of(50) {
        let left = number(progress.units);
        say(quiet, &format!("trial {}: {left} object lives left", progress.trials));
    }
}
