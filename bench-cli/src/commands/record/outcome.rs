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
use crate::commands::trace::Watched;
use crate::error::{CliError, Exit};
use crate::output::note;

/// One raw file.
struct Part {
    path: PathBuf,
    pid: u32,
    image: u32,
    fork_stamp: u64,
    started: u64,
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
    let result = resolve_all(args, global, session, status);
    let keep = args.keep_raw || matches!(&result, Err(error) if error.exit != Exit::Unfit);
    if keep {
        if session.raw_files().is_empty() {
            let _ = fs::remove_dir_all(&session.raw);
        } else {
            note(&format!("the recorder's raw files are kept in `{}`", session.raw.display()));
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
    global: &Global,
    session: &Session,
    status: &ExitStatus,
) -> Result<(Saved, Vec<Saved>), CliError> {
    let parts = find_parts(session)?;
    // The last image of a process is what the process became.
    let last_of = |pid| parts.iter().filter(|p| p.pid == pid).map(|p| p.image).max();
    let children: HashMap<u64, u32> =
        parts.iter().filter(|p| p.fork_stamp != 0).map(|p| (p.fork_stamp, p.pid)).collect();
    let mut heaps = HashMap::new();
    let mut main = None;
    let mut others = Vec::new();
    for part in &parts {
        let is_last = last_of(part.pid) == Some(part.image);
        let is_main = part.pid == session.pid() && is_last;
        if args.no_children && !is_main {
            continue;
        }
        let place = match is_main {
            true => args.output.clone(),
            false => beside(&args.output, part.pid, (!is_last).then_some(part.image)),
        };
        let inherited = heaps.remove(&part.fork_stamp).unwrap_or_default();
        let options = ResolveOptions { children: children.clone(), inherited };
        let mut trace = RawTrace::open(&part.path, options).map_err(failure)?;
        let mut notes = Vec::new();
        if is_main {
            notes.push(("exit_status", program::exit_code(status).to_string()));
        }
        if session.is_open(&part.path) {
            notes.push((container::STILL_RUNNING, "yes".to_owned()));
        }
        let saved = save(&mut trace, &place, &notes, global.quiet).map_err(failure)?;
        heaps.extend(trace.take_fork_heaps());
        if is_main {
            main = Some(saved);
        } else {
            others.push(saved);
        }
    }
    main.map(|main| (main, others)).ok_or_else(|| nothing_recorded(args, session))
}

/// The raw files that hold anything, oldest first: parents before their children.
fn find_parts(session: &Session) -> Result<Vec<Part>, CliError> {
    let mut parts = Vec::new();
    for (path, pid, image) in session.raw_files() {
        let process = match RawTrace::process_of(&path) {
            Ok(process) => process,
            // Ended, or without room, before it could say that it is a recording.
            Err(TraceError::Damaged { .. } | TraceError::Unrecognised { .. }) => {
                note(&format!("`{}` was never begun, and is left out", path.display()));
                continue;
            }
            Err(error) => return Err(failure(error)),
        };
        if process.chunks > 0 {
            let (fork_stamp, started) = (process.fork_stamp, process.real_ns);
            parts.push(Part { path, pid, image, fork_stamp, started });
        }
    }
    parts.sort_by_key(|part| (part.started, part.pid, part.image));
    Ok(parts)
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

fn save(
    trace: &mut RawTrace,
    place: &Path,
    notes: &[(&str, String)],
    quiet: bool,
) -> Result<Saved, TraceError> {
    let mut writer = Writer::create(place, WriterOptions::default())?;
    for (key, value) in trace.provenance() {
        writer.provenance(&key, value);
    }
    for (key, value) in notes {
        writer.provenance(key, value.clone());
    }
    let totals = container::save(&mut Watched::new(&mut *trace, place, quiet), writer)?;
    let census = trace.census();
    let process = trace.process();
    Ok(Saved {
        totals,
        overhead_ns: trace.overhead_estimate_ns(census.records),
        duration: Duration::from_nanos(process.last_ns.saturating_sub(process.first_ns)),
        bytes: fs::metadata(place).map_or(0, |m| m.len()),
        census,
    })
}

const MAKE_ROOM: &str = "make room or raise the limit, or name another place with `-o FILE`";

fn nothing_recorded(args: &RecordArgs, session: &Session) -> CliError {
    let name = &args.command[0];
    let files = session.raw_files().into_iter().filter(|&(_, pid, _)| pid == session.pid());
    let blocks: Vec<_> = files.filter_map(|(path, ..)| RawTrace::process_of(path).ok()).collect();
    let drops = blocks.iter().flat_map(|block| block.dropped());
    let drops: Vec<_> =
        drops.map(|(reason, count)| format!("{count} dropped ({reason})")).collect();
    if !drops.is_empty() {
        let what = format!("no call could be written: {}", drops.join(", "));
        return CliError::new(Exit::Usage, what)
            .because(format!("`{}` was not recorded", name.display()))
            .help(MAKE_ROOM);
    }
    if args.paused && !blocks.is_empty() {
        let reason = match session.was_switched_on() {
            true => "the program made no call while recording was on",
            false => "recording was never switched on",
        };
        return CliError::new(
            Exit::Unfit,
            format!("0 events: `{}` was not recorded", name.display()),
        )
        .because(reason)
        .help("send SIGUSR1 to this command while the program runs, or leave out --paused");
    }
    let reason = match program::find(name) {
        Some(path) => program::why_unrecordable(&path),
        None => Ok("the program file was not found afterwards"),
    };
    if reason.is_ok()
        && blocks.is_empty()
        && let Err(error) = try_to_begin(session)
    {
        return CliError::new(Exit::Usage, "no call could be written")
            .because(format!("a file in `{}` cannot be begun: {error}", session.raw.display()))
            .help(MAKE_ROOM);
    }
    let (Ok(reason) | Err(reason)) = reason;
    CliError::new(Exit::Unfit, format!("0 events: `{}` was not recorded", name.display()))
        .because(reason)
        .help("record a dynamically linked build that uses the system's malloc")
}

/// Writes as much as the recorder has to before the first call, and removes it.
fn try_to_begin(session: &Session) -> std::io::Result<()> {
    // Beyond the limit a write is answered by SIGXFSZ, which ends this process.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Fsize).current;
    if limit.is_some_and(|limit| limit < RawTrace::FIRST_PAGE as u64) {
        return Err(rustix::io::Errno::FBIG.into());
    }
    let path = session.raw.join("try");
    let written = fs::write(&path, [0; RawTrace::FIRST_PAGE]);
    let removed = fs::remove_file(&path);
    written.and(removed)
}

fn failure(error: TraceError) -> CliError {
    let exit = match error {
        TraceError::Stopped { .. } => Exit::Interrupted,
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
    note(&format!(
        "recorded {events} events ({objects} objects, {threads} threads) in {:.3} s to `{}` ({} bytes, {:.2} per event)",
        main.duration.as_secs_f64(),
        output.display(),
        main.bytes,
        main.bytes as f64 / (events.max(1)) as f64,
    ));
    let drops = main.census.dropped_by_recorder;
    note(&format!(
        "dropped: {drops} events{}",
        if drops == 0 { "" } else { " (see `trace info`)" }
    ));
    note(&format!(
        "overhead: about {:.3} ms of processor time (an estimate)",
        main.overhead_ns as f64 / 1e6
    ));
    let anomalies = main.census.anomalies();
    if !anomalies.is_empty() {
        let list: Vec<_> =
            anomalies.iter().map(|(name, count)| format!("{name} {count}")).collect();
        note(&format!("census: {}", list.join(", ")));
    }
    if !children.is_empty() {
        let events: u64 = children.iter().map(|child| child.totals.events).sum();
        note(&format!("children: {} traces with {events} events beside it", children.len()));
    }
}
