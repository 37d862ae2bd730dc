//! From raw files to traces, and the summary at the end.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use traces::container::{self, RawTrace, ResolveOptions, Totals, Writer, WriterOptions};
use traces::{Census, Source, TraceError};

use super::run::Session;
use super::{RecordArgs, program};
use crate::cli::Global;
use crate::error::{CliError, Exit};

/// One raw file, opened.
struct Part {
    pid: u32,
    image: u32,
    trace: RawTrace,
}

/// What became of one raw file.
struct Saved {
    totals: Totals,
    census: Census,
    overhead_ns: u64,
    duration: Duration,
    bytes: u64,
}

/// Turns every raw file into a trace and says what there is.
pub(super) fn resolve(
    args: &RecordArgs,
    global: &Global,
    session: &Session,
    status: &ExitStatus,
) -> Result<(), CliError> {
    let result = resolve_all(args, session, status);
    let keep = args.keep_raw || matches!(&result, Err(error) if error.exit != Exit::Unfit);
    if keep {
        if session.raw_files().is_empty() {
            let _ = fs::remove_dir_all(&session.raw);
        } else {
            eprintln!("the recorder's raw files are kept in `{}`", session.raw.display());
        }
    } else {
        let _ = fs::remove_dir_all(&session.raw);
    }
    let (main, children) = result?;
    if !global.quiet {
        print_summary(&args.output, &main, &children);
    }
    Ok(())
}

fn resolve_all(
    args: &RecordArgs,
    session: &Session,
    status: &ExitStatus,
) -> Result<(Saved, Vec<Saved>), CliError> {
    let options = ResolveOptions { children: forks(session)? };
    let mut main = None;
    let mut children = Vec::new();
    // The last image of a process first: it is what the process became.
    for (path, pid, image) in session.raw_files().into_iter().rev() {
        let is_main = pid == session.pid() && main.is_none();
        if args.no_children && !is_main {
            continue;
        }
        let trace = RawTrace::open(&path, options.clone()).map_err(failure)?;
        if trace.process().chunks == 0 {
            continue;
        }
        let mut part = Part { pid, image, trace };
        let place = if is_main {
            args.output.clone()
        } else {
            let last = !children.iter().any(|&(other, _)| other == pid) && pid != session.pid();
            beside(&args.output, part.pid, (!last).then_some(part.image))
        };
        let saved = save(&mut part, &place, is_main.then_some(status)).map_err(failure)?;
        if is_main {
            main = Some(saved);
        } else {
            children.push((pid, saved));
        }
    }
    let Some(main) = main else { return Err(nothing_recorded(args)) };
    Ok((main, children.into_iter().map(|(_, saved)| saved).collect()))
}

/// Which child each fork made, by the stamp that both sides noted.
fn forks(session: &Session) -> Result<HashMap<u64, u32>, CliError> {
    let mut forks = HashMap::new();
    for (path, ..) in session.raw_files() {
        let trace = RawTrace::open(&path, ResolveOptions::default()).map_err(failure)?;
        let process = trace.process();
        if process.fork_stamp != 0 {
            forks.insert(process.fork_stamp, process.pid);
        }
    }
    Ok(forks)
}

/// `web.atrace` → `web.PID.atrace`, or `web.PID.IMAGE.atrace`.
fn beside(output: &Path, pid: u32, image: Option<u32>) -> PathBuf {
    let mut name = output.file_stem().unwrap_or_default().to_owned();
    name.push(format!(".{pid}"));
    if let Some(image) = image {
        name.push(format!(".{image}"));
    }
    if let Some(extension) = output.extension() {
        name.push(".");
        name.push(extension);
    }
    output.with_file_name(name)
}

fn save(part: &mut Part, place: &Path, status: Option<&ExitStatus>) -> Result<Saved, TraceError> {
    let mut writer = Writer::create(place, WriterOptions::default())?;
    for (key, value) in part.trace.provenance() {
        writer.provenance(&key, value);
    }
    if let Some(status) = status {
        writer.provenance("exit_status", program::exit_code(status).to_string());
    }
    let totals = container::save(&mut part.trace, writer)?;
    let census = part.trace.census();
    let process = part.trace.process();
    Ok(Saved {
        totals,
        overhead_ns: part.trace.overhead_estimate_ns(census.records),
        duration: Duration::from_nanos(process.last_ns.saturating_sub(process.first_ns)),
        bytes: fs::metadata(place).map_or(0, |m| m.len()),
        census,
    })
}

fn nothing_recorded(args: &RecordArgs) -> CliError {
    let name = &args.command[0];
    let reason = match program::find(name) {
        Some(path) => program::why_unrecordable(&path),
        None => "the program file was not found afterwards",
    };
    CliError::new(Exit::Unfit, format!("0 events: `{}` was not recorded", name.display()))
        .because(reason)
        .help("record a dynamically linked build that uses the system's malloc")
}

fn failure(error: TraceError) -> CliError {
    let exit = match error {
        TraceError::Write { .. } => Exit::Usage,
        TraceError::Disorder { .. } => Exit::Internal,
        _ => Exit::Trace,
    };
    let mut report = CliError::new(exit, error.to_string());
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        report = report.because(inner);
        cause = inner.source();
    }
    match exit {
        Exit::Usage => report.help("make room, or name another place with `-o FILE`"),
        _ => report.help("turn the raw files into traces with `bench-cli trace convert`"),
    }
}

fn print_summary(output: &Path, main: &Saved, children: &[Saved]) {
    let Totals { events, objects, threads } = main.totals;
    eprintln!(
        "recorded {events} events ({objects} objects, {threads} threads) in {:.3} s to `{}` ({} bytes, {:.2} per event)",
        main.duration.as_secs_f64(),
        output.display(),
        main.bytes,
        main.bytes as f64 / (events.max(1)) as f64,
    );
    let drops = main.census.dropped_by_recorder;
    eprintln!("dropped: {drops} events{}", if drops == 0 { "" } else { " (see `trace info`)" });
    eprintln!(
        "overhead: about {:.3} ms of processor time (an estimate)",
        main.overhead_ns as f64 / 1e6
    );
    let anomalies = main.census.anomalies();
    if !anomalies.is_empty() {
        let list: Vec<_> =
            anomalies.iter().map(|(name, count)| format!("{name} {count}")).collect();
        eprintln!("census: {}", list.join(", "));
    }
    if !children.is_empty() {
        let events: u64 = children.iter().map(|child| child.totals.events).sum();
        eprintln!("children: {} traces with {events} events beside it", children.len());
    }
}
