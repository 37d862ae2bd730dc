//! `bench-cli trace fit` and `bench-cli gen`: from a trace to a profile, and back at any scale.
#![forbid(unsafe_code)]

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use traces::analysis::{Profiler, Summary};
use traces::rewrite::fleetbench::{self, FleetFitter, FleetOptions};
use traces::rewrite::{Fitter, Generator, Profile, ProfileError};
use traces::{Source, WholeFile};

use super::human::{self, number};
use super::output::OutputArgs;
use super::watched::Watched;
use super::{InputArgs, json, say, show};
use crate::cli::{Format, Global};
use crate::error::{CliError, Exit};

/// `trace fit`
#[derive(Clone, Debug, Args)]
pub(super) struct FitArgs {
    /// The trace
    file: PathBuf,
    /// Profile to write (JSON)
    #[arg(short = 'o', long = "output", value_name = "FILE")]
    output: PathBuf,
    /// Size profile to write besides: CSV rows `size, allocations per second, number alive`
    #[arg(long, value_name = "FILE")]
    fleet: Option<PathBuf>,
    #[command(flatten)]
    input: InputArgs,
}

/// How well a trace made from the profile resembles the one it was taken from.
#[derive(Serialize)]
struct Goodness {
    objects: [u64; 2],
    size_distance: f64,
    lifetime_distance: f64,
    peak_live_bytes: [u64; 2],
    peak_live_error: f64,
    final_live_bytes: [u64; 2],
    cross_thread_share: [f64; 2],
    threads: [u64; 2],
    realloc: [u64; 2],
    profile_bytes: u64,
}

pub(super) fn fit(args: &FitArgs, global: &Global) -> Result<Exit, CliError> {
    let mut source = args.input.open(&args.file, global.quiet)?;
    let (mut fitter, mut fleet, mut original) =
        (Fitter::new(), FleetFitter::default(), Profiler::new());
    while let Some(event) = source.next_event()? {
        fitter.observe(&event);
        original.observe(&event);
        if args.fleet.is_some() {
            fleet.observe(&event);
        }
    }
    let profile = fitter.finish();
    let text = profile.to_json().map_err(|error| unusable(&args.output, &error))?;
    let original = original.finish(source.census());
    let generator = Generator::new(profile, 1.0, global.seed)
        .map_err(|error| unusable(&args.output, &error))?;
    let copy = sum_up(Watched::new(generator, &args.output, global.quiet))?;
    let goodness = compare(&original, &copy, text.len() as u64);
    write(&args.output, &text)?;
    if let Some(path) = &args.fleet {
        write(path, &fleetbench::format(&fleet.finish()))?;
    }
    show(&match global.format {
        Format::Json => json(&goodness)?,
        _ => tell(&goodness, &args.output),
    })?;
    Ok(Exit::Success)
}

fn sum_up(mut source: Watched<Generator>) -> Result<Summary, CliError> {
    Ok(traces::analysis::summarise(&mut source)?)
}

fn compare(original: &Summary, copy: &Summary, profile_bytes: u64) -> Goodness {
    let both = |figure: fn(&Summary) -> u64| [figure(original), figure(copy)];
    let share = |summary: &Summary| {
        let frees = summary.operations.free - summary.operations.free_null;
        summary.cross_thread_frees as f64 / frees.max(1) as f64
    };
    let peaks = both(|summary| summary.peak_live_bytes);
    Goodness {
        objects: both(|summary| summary.allocated_objects),
        size_distance: original.sizes.distance(&copy.sizes),
        lifetime_distance: original.lifetime_calls.distance(&copy.lifetime_calls),
        peak_live_bytes: peaks,
        peak_live_error: peaks[1] as f64 / peaks[0].max(1) as f64 - 1.0,
        final_live_bytes: both(|summary| summary.final_live_bytes),
        cross_thread_share: [share(original), share(copy)],
        threads: both(|summary| summary.threads),
        realloc: both(|summary| summary.operations.realloc),
        profile_bytes,
    }
}

fn tell(goodness: &Goodness, path: &Path) -> String {
    let pair = |name: &str, [a, b]: [u64; 2]| {
        let change = (b as f64 / a.max(1) as f64 - 1.0) * 100.0;
        [name.to_owned(), number(a), number(b), format!("{change:+.1} %")]
    };
    let distance = |name: &str, value: f64| {
        [name.to_owned(), String::new(), String::new(), format!("{value:.3}")]
    };
    let [a, b] = goodness.cross_thread_share;
    let rows = [
        pair("objects", goodness.objects),
        pair("reallocs", goodness.realloc),
        pair("threads", goodness.threads),
        pair("peak live bytes", goodness.peak_live_bytes),
        pair("final live bytes", goodness.final_live_bytes),
        [
            "cross-thread share of frees".to_owned(),
            format!("{:.1} %", a * 100.0),
            format!("{:.1} %", b * 100.0),
            format!("{:+.1} points", (b - a) * 100.0),
        ],
        distance("sizes, greatest distance (KS)", goodness.size_distance),
        distance("lifetimes, greatest distance (KS)", goodness.lifetime_distance),
    ];
    let bytes = number(goodness.profile_bytes);
    format!(
        "{}: {bytes} bytes\n\n{}",
        path.display(),
        human::columns(["", "trace", "generated", "difference"], rows)
    )
}

/// `gen`
#[derive(Clone, Debug, Args)]
pub struct GenArgs {
    /// A profile from `trace fit` (JSON), or a fleet's size profile (CSV)
    profile: PathBuf,
    /// How many times as many objects as the profile holds
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Size profiles: objects to allocate once the heap is full
    #[arg(long, default_value_t = 1_000_000)]
    allocations: u64,
    /// Size profiles: MiB alive, to which the profile is scaled
    #[arg(long, default_value_t = 64, value_name = "MIB")]
    heap: u64,
    /// Size profiles: larger sizes become this many bytes
    #[arg(long, default_value_t = 1 << 20, value_name = "BYTES")]
    largest: u64,
    /// Size profiles: threads that allocate
    #[arg(long, default_value_t = 1)]
    threads: u32,
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs `bench-cli gen`.
///
/// # Errors
/// The profile cannot be read or used, or the trace cannot be written.
pub fn generate(args: &GenArgs, global: &Global) -> Result<Exit, CliError> {
    let path = &args.profile;
    let text = fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
    let profile = if text.trim_start().starts_with('{') {
        Profile::from_json(&text)
    } else {
        let options = FleetOptions {
            allocations: args.allocations,
            heap_bytes: args.heap.saturating_mul(1 << 20),
            largest: args.largest,
            threads: args.threads,
        };
        fleetbench::parse(&text).and_then(|rows| fleetbench::to_profile(&rows, &options))
    };
    let generator = profile
        .and_then(|profile| Generator::new(profile, args.scale, global.seed))
        .map_err(|error| unusable(path, &error))?;
    let notes = [
        ("generated_from", path.display().to_string()),
        ("scale", args.scale.to_string()),
        ("seed", global.seed.to_string()),
        ("random", "ChaCha8".to_owned()),
    ];
    let mut generator = Watched::new(generator, args.output.path(), global.quiet);
    let totals = args.output.save(&mut generator, &notes)?;
    super::rewrite::told(&args.output, &totals, global.quiet);
    say(global.quiet, &format!("seed {}", global.seed));
    Ok(Exit::Success)
}

fn unreadable(path: &Path, error: &io::Error) -> CliError {
    CliError::new(Exit::Usage, format!("cannot read profile `{}`", path.display()))
        .because(error)
        .help("make one with `bench-cli trace fit TRACE -o profile.json`")
}

fn unusable(path: &Path, error: &ProfileError) -> CliError {
    let mut message =
        CliError::new(Exit::Usage, format!("cannot use profile `{}`", path.display()))
            .because(error);
    if let Some(source) = std::error::Error::source(error) {
        message = message.because(source);
    }
    message.help("make one with `bench-cli trace fit TRACE -o profile.json`")
}

/// Writes a file whole or not at all.
pub(super) fn write(path: &Path, text: &str) -> Result<(), CliError> {
    let written = WholeFile::create(path).and_then(|(whole, mut file)| {
        file.write_all(text.as_bytes())?;
        whole.finish()
    });
    written.map_err(|error| {
        CliError::new(Exit::Usage, format!("cannot write `{}`", path.display()))
            .because(error)
            .help("choose another place, or make room")
    })
}
