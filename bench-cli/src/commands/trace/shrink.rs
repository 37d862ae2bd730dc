//! `bench-cli trace shrink`: the smallest trace for which a command still fails.
#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;
use traces::container::{self, Writer, WriterOptions};
use traces::event::Event;
use traces::rewrite::Stream;
use traces::rewrite::shrink::{Progress, Units};

use super::human::number;
use super::output::OutputArgs;
use super::{InputArgs, say};
use crate::error::{CliError, Exit};
use crate::interrupt;

/// What to shrink, and how to tell that a part still shows it.
#[derive(Clone, Debug, Args)]
pub(super) struct ShrinkArgs {
    /// The trace
    file: PathBuf,
    /// Trials at most
    #[arg(long, default_value_t = 2_000)]
    trials: u64,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    input: InputArgs,
    /// Command that fails (exit code not 0, or a signal) where the trace shows it; `{}` stands
    /// for the trace to try
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub(super) fn run(args: &ShrinkArgs, quiet: bool) -> Result<Exit, CliError> {
    if !args.command.iter().any(|word| word.contains("{}")) {
        return Err(CliError::new(Exit::Usage, "the command does not name the trace to try")
            .help("put `{}` where its path belongs: `… -- ./replay {}`"));
    }
    let units = Units::read(&mut *args.input.open(&args.file)?)?;
    let trial = Trial::beside(args.output.path(), &args.command);
    if !trial.fails(units.select(&vec![true; units.count() as usize]))? {
        return Err(CliError::new(Exit::Usage, "the command succeeds with the whole trace")
            .because("shrinking keeps what makes it fail, and nothing does")
            .help(format!("try it by hand: `{}`", trial.shown(&args.file))));
    }
    interrupt::listen();
    let result = units.shrink(args.trials, |events, progress| {
        if interrupt::requested() {
            // What was found so far is kept: nothing further is left out.
            return Ok(false);
        }
        tell(quiet, &progress);
        trial.fails(events)
    });
    let (events, progress) = result?;
    let mut rest = Stream::new(events);
    let notes = [("shrunk_from", args.file.display().to_string())];
    let totals = args.output.save(&mut rest, &notes)?;
    super::rewrite::told(&args.output, &totals, quiet);
    let (left, all) = (number(progress.units), number(units.count()));
    let reached = if progress.minimal {
        "none of them can be left out alone"
    } else {
        "more might go: raise --trials"
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

/// Runs the command on candidates.
struct Trial<'a> {
    path: PathBuf,
    command: &'a [String],
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl<'a> Trial<'a> {
    fn beside(output: &Path, command: &'a [String]) -> Self {
        let mut name = std::ffi::OsString::from(".");
        name.push(output.file_name().unwrap_or_default());
        name.push(format!(".{}.trial", std::process::id()));
        Trial { path: output.with_file_name(name), command }
    }

    fn words(&self, path: &Path) -> Vec<String> {
        let path = path.display().to_string();
        self.command.iter().map(|word| word.replace("{}", &path)).collect()
    }

    fn shown(&self, path: &Path) -> String {
        self.words(path).join(" ")
    }

    fn fails(&self, events: Vec<Event>) -> Result<bool, CliError> {
        let options = WriterOptions { level: 1, ..WriterOptions::default() };
        let writer = Writer::create(&self.path, options)?;
        container::save(&mut Stream::new(events), writer)?;
        let words = self.words(&self.path);
        let status = Command::new(&words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        match status {
            Ok(status) => Ok(!status.success()),
            Err(error) => Err(CliError::new(Exit::Usage, format!("cannot run `{}`", words[0]))
                .because(error)
                .help("give a command that is found, after `--`")),
        }
    }
}
