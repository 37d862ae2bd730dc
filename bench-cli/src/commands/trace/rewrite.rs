//! The verbs that turn traces into other traces: export, convert, cut, merge, anonymize.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use traces::container::{SAMPLED, STILL_RUNNING};
use traces::rewrite::{Anonymize, AnonymizeOptions, Cut, Merge, Span};
use traces::{Format, Source};

use super::human::number;
use super::output::{self, OutputArgs};
use super::{InputArgs, parse_format, say};
use crate::error::{CliError, Exit};

/// `export`
#[derive(Clone, Debug, Args)]
pub(super) struct ExportArgs {
    /// The trace
    file: PathBuf,
    /// Format to write
    #[arg(long, value_name = "FORMAT", value_parser = parse_format, default_value = "csv")]
    to: Format,
    /// File to write (default: standard output)
    #[arg(short = 'o', long = "output", value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    input: InputArgs,
}

pub(super) fn export(args: &ExportArgs, quiet: bool) -> Result<Exit, CliError> {
    let mut source = args.input.open(&args.file, quiet)?;
    let losses = output::export(&mut *source, args.to, args.output.as_deref())?;
    for (what, count) in losses.iter() {
        say(quiet, &format!("not expressed in {}: {what} ({})", args.to, number(count)));
    }
    Ok(Exit::Success)
}

/// `convert`
#[derive(Clone, Debug, Args)]
pub(super) struct ConvertArgs {
    /// The trace, in any format
    file: PathBuf,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    input: InputArgs,
}

pub(super) fn convert(args: &ConvertArgs, quiet: bool) -> Result<Exit, CliError> {
    let mut source = args.input.open(&args.file, quiet)?;
    let known = source.provenance();
    let mut notes: Vec<(&str, String)> =
        known.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
    notes.push(("origin", args.file.display().to_string()));
    notes.push(("origin_format", source.format().name().to_owned()));
    save(&args.output, &mut *source, &notes, quiet)
}

/// `cut`
#[derive(Clone, Debug, Args)]
pub(super) struct CutArgs {
    /// The trace
    file: PathBuf,
    /// Part between two times since the start: `2s..5s`, `..300ms`, `1m..`
    #[arg(
        long,
        value_name = "FROM..UNTIL",
        conflicts_with = "births",
        required_unless_present = "births"
    )]
    time: Option<String>,
    /// Part between the births of two threads: `3..17`, `..4`, `9..`
    #[arg(long, value_name = "FROM..UNTIL")]
    births: Option<String>,
    /// Leave out what is alive when the part begins, with all calls on it
    #[arg(long)]
    drop_live: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    input: InputArgs,
}

pub(super) fn cut(args: &CutArgs, quiet: bool) -> Result<Exit, CliError> {
    let span = match (&args.time, &args.births) {
        (Some(range), _) => {
            let (from, until) = ends(range, duration)?;
            Span::Times { from, until }
        }
        (None, Some(range)) => {
            let (from, until) = ends(range, |text| text.parse().ok())?;
            Span::Births { from, until }
        }
        (None, None) => return Err(CliError::new(Exit::Usage, "nothing says where to cut")),
    };
    let source = args.input.open(&args.file, quiet)?;
    let notes = kept(&*source, &[STILL_RUNNING, SAMPLED]);
    let mut cut = Cut::new(source, span, !args.drop_live);
    // Before the output is touched: it may hold an earlier part, or be the trace itself.
    if cut.is_empty()? {
        let hint = format!(
            "see its duration and threads with `bench-cli trace info {}`; a trace without times \
             can be cut with --births",
            args.file.display()
        );
        return Err(CliError::new(Exit::Usage, "the part holds no event, so nothing was written")
            .help(hint));
    }
    let totals = args.output.save(&mut cut, &notes)?;
    told(&args.output, &totals, quiet);
    Ok(Exit::Success)
}

/// Both ends of `A..B`, either of which may be missing.
fn ends<T>(
    range: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<(Option<T>, Option<T>), CliError> {
    let bad = || {
        CliError::new(Exit::Usage, format!("`{range}` is no range"))
            .help("write it as FROM..UNTIL, for example `2s..5s`; see `bench-cli trace cut --help`")
    };
    let (from, until) = range.split_once("..").ok_or_else(bad)?;
    let end = |text: &str| match text.trim() {
        "" => Ok(None),
        text => parse(text).map(Some).ok_or_else(bad),
    };
    Ok((end(from)?, end(until)?))
}

/// Nanoseconds of `5s`, `300ms`, `1.5m`, `20us`, `7ns`.
pub(super) fn duration(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let value: f64 = text[..digits].parse().ok()?;
    let unit = match &text[digits..] {
        "ns" => 1e-9,
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    let nanoseconds = Duration::try_from_secs_f64(value * unit).ok()?.as_nanos();
    u64::try_from(nanoseconds).ok()
}

/// `merge`
#[derive(Clone, Debug, Args)]
pub(super) struct MergeArgs {
    /// The traces
    #[arg(required = true, num_args = 2..)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    input: InputArgs,
}

pub(super) fn merge(args: &MergeArgs, quiet: bool) -> Result<Exit, CliError> {
    let sources: Result<Vec<_>, _> =
        args.files.iter().map(|file| args.input.open(file, quiet)).collect();
    let sources = sources?;
    let notes: Vec<_> = sources.iter().flat_map(|s| kept(&**s, &[STILL_RUNNING])).collect();
    let mut merged = Merge::new(sources)?;
    save(&args.output, &mut merged, &notes, quiet)
}

/// `anonymize`
#[derive(Clone, Debug, Args)]
pub(super) struct AnonymizeArgs {
    /// The trace
    file: PathBuf,
    /// Times become multiples of this (`0s`: no times at all)
    #[arg(long, default_value = "1ms", value_name = "DURATION")]
    resolution: String,
    /// Round sizes up to one of eight classes per doubling
    #[arg(long)]
    size_classes: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    input: InputArgs,
}

pub(super) fn anonymize(args: &AnonymizeArgs, quiet: bool) -> Result<Exit, CliError> {
    let resolution_ns = duration(&args.resolution).ok_or_else(|| {
        CliError::new(Exit::Usage, format!("`{}` is no duration", args.resolution))
            .help("write it as `1ms`, `20us` or `0s`")
    })?;
    let options = AnonymizeOptions { resolution_ns, size_classes: args.size_classes };
    let source = args.input.open(&args.file, quiet)?;
    let notes = kept(&*source, &[STILL_RUNNING, SAMPLED]);
    let mut anonymous = Anonymize::new(source, options);
    let exit = save(&args.output, &mut anonymous, &notes, quiet)?;
    say(quiet, "gone: addresses, names, command lines, process ids, markers' values, exact times");
    for sentence in Anonymize::<Box<dyn Source>>::remaining(&options) {
        say(quiet, &format!("remains: {sentence}"));
    }
    Ok(exit)
}

/// What `source` says of its origin under these keys.
fn kept<'a>(source: &dyn Source, keys: &[&'a str]) -> Vec<(&'a str, String)> {
    let known = source.provenance();
    let value = |key: &str| known.iter().find(|(k, _)| k == key).map(|(_, value)| value.clone());
    keys.iter().filter_map(|&key| Some((key, value(key)?))).collect()
}

fn save(
    output: &OutputArgs,
    source: &mut dyn Source,
    notes: &[(&str, String)],
    quiet: bool,
) -> Result<Exit, CliError> {
    let totals = output.save(source, notes)?;
    told(output, &totals, quiet);
    for (name, count) in source.census().anomalies() {
        say(quiet, &format!("  {name}: {}", number(count)));
    }
    Ok(Exit::Success)
}

pub(super) fn told(output: &OutputArgs, totals: &traces::container::Totals, quiet: bool) {
    let bytes = std::fs::metadata(output.path()).map_or(0, |metadata| metadata.len());
    let each = bytes as f64 / totals.events.max(1) as f64;
    let path = output.path().display();
    let (events, bytes) = (number(totals.events), number(bytes));
    say(quiet, &format!("{path}: {events} events, {bytes} bytes ({each:.1} per event)"));
}
