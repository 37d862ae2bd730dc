//! The recorder at work in real programs: what they call is what the file holds, whatever happens
//! to them. The programs are C files beside this one; the library is built as it ships.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::OnceLock;

use trace_format::v1::{ChunkHeader, raw};
use traces::container::{RawTrace, ResolveOptions};
use traces::{Census, Event, EventSource, Op, Source, ThreadId};

/// The recorder as a preload library, built once per test run.
fn recorder() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("recorder");
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--package", "trace-recorder", "--profile", "preload"])
            .args(["--features", "preload", "--target-dir"])
            .arg(&target)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .env_remove("RUSTC_WORKSPACE_WRAPPER")
            .status()
            .expect("cargo runs");
        assert!(status.success(), "the recorder does not build");
        target.join("preload/libtrace_recorder.so")
    })
}

/// A program of `tests/programs`, compiled without the optimisations that remove malloc.
fn program(name: &str, folder: &Path) -> PathBuf {
    compile("cc", &format!("{name}.c"), &folder.join(name))
}

fn compile(compiler: &str, name: &str, binary: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs").join(name);
    let status = Command::new(compiler)
        .args(["-O0", "-fno-builtin", "-w", "-pthread", "-o"])
        .arg(binary)
        .arg(source)
        .status()
        .expect("a C and C++ compiler is needed");
    assert!(status.success(), "{name} does not compile");
    binary.to_owned()
}

struct Recording {
    folder: tempfile::TempDir,
}

impl Recording {
    fn new() -> Recording {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(folder.path().join("raw")).expect("a writable folder");
        Recording { folder }
    }

    fn progress(&self) -> PathBuf {
        self.folder.path().join("progress")
    }

    fn command(&self, program: &Path, environment: &[(&str, &str)]) -> Command {
        let mut command = Command::new(program);
        command.env("LD_PRELOAD", recorder()).env("ATRACE_DIR", self.folder.path().join("raw"));
        command.envs(environment.iter().copied());
        command
    }

    fn sequence(&self, rounds: u64, environment: &[(&str, &str)]) -> ExitStatus {
        let program = program("sequence", self.folder.path());
        let mut command = self.command(&program, environment);
        command.arg(self.progress()).arg(rounds.to_string()).status().expect("it runs")
    }

    /// Raw files, the oldest first.
    fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<_> = fs::read_dir(self.folder.path().join("raw"))
            .expect("readable")
            .map(|entry| entry.expect("readable").path())
            .collect();
        files.sort_by_key(|path| RawTrace::process_of(path).expect("a raw file").real_ns);
        files
    }

    fn resolve(&self) -> (Vec<Event>, Census) {
        let files = self.files();
        assert_eq!(files.len(), 1, "one process, one file");
        let (events, trace) = resolve(&files[0], ResolveOptions::default());
        (events, trace.census())
    }
}

fn resolve(path: &Path, options: ResolveOptions) -> (Vec<Event>, RawTrace) {
    let mut trace = RawTrace::open(path, options).expect("a raw file");
    let mut events = Vec::new();
    while let Some(event) = trace.next_event().expect("a raw file") {
        events.push(event);
    }
    (events, trace)
}

/// Positions in the sequence of the objects that a worker of `sequence.c` allocated.
fn positions(events: &[Event], worker: u32) -> Vec<u64> {
    let of_worker: Vec<_> = events.iter().filter(|e| e.thread == ThreadId(worker)).collect();
    // The main thread works after it created the other, for which libc calls calloc.
    let start = of_worker.iter().rposition(|e| matches!(e.op, Op::Calloc { .. }));
    of_worker[start.map_or(0, |at| at + 1)..]
        .iter()
        .filter_map(|event| match event.op {
            Op::Malloc { size, .. } => Some(size - 32 - 2000 * u64::from(worker)),
            _ => None,
        })
        .collect()
}

fn noted(progress: &Path, worker: usize) -> u64 {
    let bytes = fs::read(progress).unwrap_or_default();
    bytes
        .get(64 * worker..64 * worker + 8)
        .map_or(0, |eight| u64::from_le_bytes(eight.try_into().expect("eight bytes")))
}

#[test]
fn every_call_of_two_threads_is_recorded_in_order() {
    let recording = Recording::new();
    assert!(recording.sequence(50_000, &[]).success());
    let (events, census) = recording.resolve();
    assert_eq!(census.anomalies(), []);
    for worker in 0..2 {
        let expected: Vec<u64> = (0..50_000).map(|i| i % 1000).collect();
        assert_eq!(positions(&events, worker), expected);
    }
    assert!(events.iter().all(|event| event.time_ns.is_some()));
}

#[test]
fn a_program_killed_at_any_moment_leaves_everything_up_to_the_kill() {
    let kills: u64 = match std::env::var("TRACE_KILLS") {
        Ok(count) => count.parse().expect("TRACE_KILLS is a number"),
        Err(_) => 20,
    };
    for kill in 0..kills {
        let recording = Recording::new();
        let program = program("sequence", recording.folder.path());
        let mut command = recording.command(&program, &[]);
        let mut child = command.arg(recording.progress()).arg("0").spawn().expect("it runs");
        // The moment is chosen by what the program did, and so is different each time.
        while noted(&recording.progress(), (kill % 2) as usize) < 1 + kill * 3137 % 40_000 {
            assert!(child.try_wait().expect("our child").is_none(), "it ended by itself");
            std::thread::yield_now();
        }
        child.kill().expect("our child");
        child.wait().expect("our child");
        let (events, census) = recording.resolve();
        assert_eq!(census.dropped_by_recorder, 0);
        for worker in 0..2 {
            let done = noted(&recording.progress(), worker as usize);
            let found = positions(&events, worker);
            let expected: Vec<u64> = (0..found.len() as u64).map(|i| i % 1000).collect();
            assert_eq!(found, expected, "kill {kill}: thread {worker} has a gap");
            assert!(found.len() as u64 >= done, "kill {kill}: {} of {done}", found.len());
        }
    }
}

#[test]
fn beyond_the_size_limit_every_call_is_counted_as_dropped() {
    let recording = Recording::new();
    let limit = (1 << 20).to_string();
    assert!(recording.sequence(100_000, &[("ATRACE_LIMIT", &limit)]).success());
    let file = &recording.files()[0];
    assert!(fs::metadata(file).expect("there").len() <= 1 << 20);
    let (events, trace) = resolve(file, ResolveOptions::default());
    let kept: u64 = (0..2).map(|worker| positions(&events, worker).len() as u64).sum();
    let dropped = trace.census().dropped_by_recorder;
    assert!(kept > 10_000, "{kept} objects fit in a MiB");
    // Malloc and free of 200,000 objects, and a few calls of libc besides.
    let calls = trace.census().records + trace.census().unknown_free + dropped;
    assert!((400_000..400_100).contains(&calls), "{calls} calls are accounted for");
}

#[test]
fn a_file_size_limit_of_the_system_is_a_counted_drop_and_no_signal() {
    let recording = Recording::new();
    let program = program("sequence", recording.folder.path());
    let script = format!(
        "ulimit -f 1024; exec '{}' '{}' 100000",
        program.display(),
        recording.progress().display()
    );
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!(
        "export ATRACE_DIR='{}'; ulimit -c 0; LD_PRELOAD='{}'; export LD_PRELOAD; {script}",
        recording.folder.path().join("raw").display(),
        recorder().display()
    ));
    assert!(shell.status().expect("sh runs").success());
    let drops =
        |file: &PathBuf| RawTrace::process_of(file).expect("a raw file").drops.iter().sum::<u64>();
    let dropped = recording.files().iter().map(drops).max();
    assert!(dropped > Some(100_000));
}

#[test]
fn a_ring_keeps_the_latest_calls_and_its_size() {
    let recording = Recording::new();
    let limit = (1 << 20).to_string();
    let ring = [("ATRACE_LIMIT", limit.as_str()), ("ATRACE_RING", "1")];
    assert!(recording.sequence(100_000, &ring).success());
    let file = &recording.files()[0];
    assert!(fs::metadata(file).expect("there").len() <= 1 << 20);
    let (events, trace) = resolve(file, ResolveOptions::default());
    assert_eq!(trace.census().dropped_by_recorder, 0);
    let mut last = BTreeMap::new();
    for event in &events {
        if let Op::Malloc { size, .. } = event.op {
            last.insert(size >= 2032, size);
        }
    }
    assert_eq!(last, BTreeMap::from([(false, 32 + 99_999 % 1000), (true, 2032 + 99_999 % 1000)]));
    assert!(events.len() > 10_000);
}

#[test]
fn a_ring_whose_units_other_threads_hold_keeps_the_latest_calls_too() {
    for others in ["ended", "idle"] {
        let recording = Recording::new();
        let program = program("ring", recording.folder.path());
        let limit = (1 << 20).to_string();
        let ring = [("ATRACE_LIMIT", limit.as_str()), ("ATRACE_RING", "1")];
        let status = recording.command(&program, &ring).arg(others).status();
        assert!(status.expect("it runs").success());
        let (events, census) = recording.resolve();
        assert_eq!(census.dropped_by_recorder, 0, "beside {others} threads");
        let last = events.iter().filter_map(|event| event.op.requested()).next_back();
        assert_eq!(last, Some(7777), "beside {others} threads");
    }
}

#[test]
fn threads_that_end_in_a_pause_leave_their_chunk_to_others() {
    let recording = Recording::new();
    let program = program("pauses", recording.folder.path());
    assert!(recording.command(&program, &[]).status().expect("it runs").success());
    let (events, trace) = resolve(&recording.files()[0], ResolveOptions::default());
    assert_eq!(trace.process().chunks, 2, "one of the main thread, one of all others");
    let ended = events.iter().filter(|event| event.op == Op::ThreadEnd).count();
    assert_eq!(ended, 20);
}

#[test]
fn a_signal_at_any_instruction_of_getting_a_chunk_loses_nothing_uncounted() {
    if !cfg!(target_arch = "x86_64") {
        println!("skipped: stepping through a program takes x86_64");
        return;
    }
    // In the last, one answer is more calls than a chunk has room for.
    for (argument, files) in [(None, 1), (Some("fork"), 17), (Some("5000"), 1)] {
        let recording = Recording::new();
        let program = program("steps", recording.folder.path());
        let mut command = recording.command(&program, &[]);
        let output = command.args(argument).output().expect("it runs");
        assert!(output.status.success(), "{argument:?}: {}", output.status);
        let handled = String::from_utf8_lossy(&output.stdout);
        let handled: u64 = handled.trim().parse().expect("a number");
        assert!(handled > 100, "{handled} signals");
        assert_eq!(recording.files().len(), files);
        let counted = |file: &PathBuf| {
            let (events, trace) = resolve(file, ResolveOptions::default());
            let census = trace.census();
            let asked = events.iter().filter(|e| matches!(e.op, Op::UsableSize { .. })).count();
            let asked = asked as u64 + census.unknown_use;
            asked + census.free_null + census.dropped_by_recorder
        };
        let counted = recording.files().iter().map(counted).sum::<u64>();
        assert_eq!(counted, handled + 16, "{argument:?}: the 16 calls interrupted count too");
    }
}

#[test]
fn a_signal_at_any_instruction_of_beginning_a_file_hangs_nobody() {
    if !cfg!(target_arch = "x86_64") {
        println!("skipped: stepping through a program takes x86_64");
        return;
    }
    let recording = Recording::new();
    let program = program("opening", recording.folder.path());
    let status = recording.command(&program, &[]).status().expect("it runs");
    assert!(status.success(), "{status}");
    assert_eq!(recording.files().len(), 17);
    let files = recording.files();
    let written = files.iter().map(|file| count(&resolve(file, ResolveOptions::default()).0, 333));
    assert_eq!(written.sum::<usize>(), 16, "what comes after it is recorded");
}

#[test]
fn a_sampled_object_is_seen_from_birth_to_release() {
    let recording = Recording::new();
    assert!(recording.sequence(20_000, &[("ATRACE_ONE_IN", "4")]).success());
    let (events, census) = recording.resolve();
    assert_eq!((census.unknown_free, census.missing_free, census.inversions), (0, 0, 0));
    let births = events.iter().filter(|event| event.op.born().is_some()).count();
    assert!((1..39_000).contains(&births), "{births} of 40,000 objects are in the sample");
}

/// The others bring operators of their own; where one is not installed, the loader says so and
/// goes on without it.
#[test]
fn operators_of_cxx_are_recorded_once_whoever_serves_them_and_throw_as_ever() {
    for behind in ["", ":libjemalloc.so.2", ":libtcmalloc_minimal.so.4"] {
        let recording = Recording::new();
        let program = compile("c++", "operators.cc", &recording.folder.path().join("operators"));
        let preload = format!("{}{behind}", recorder().display());
        let status = recording.command(&program, &[("LD_PRELOAD", &preload)]).status();
        assert!(status.expect("it runs").success(), "behind `{behind}`");
        let (events, census) = recording.resolve();
        for (size, times) in [(4, 1000), (256, 500), (5000, 300), (70_000, 200)] {
            assert_eq!(count(&events, size), times, "of {size} bytes behind `{behind}`");
        }
        assert_eq!(census.unknown_free + census.missing_free + census.inversions, 0);
    }
}

#[test]
fn without_a_place_to_write_the_program_runs_unrecorded() {
    let recording = Recording::new();
    fs::remove_dir(recording.folder.path().join("raw")).expect("empty");
    assert!(recording.sequence(1000, &[]).success());
}

#[test]
fn threads_forks_signals_and_closed_descriptors_change_nothing() {
    let recording = Recording::new();
    let program = program("life", recording.folder.path());
    assert!(recording.command(&program, &[]).status().expect("it runs").success());
    let files = recording.files();
    assert_eq!(files.len(), 2, "the program and its forked child");
    let child = RawTrace::process_of(&files[1]).expect("a raw file");
    let parent = RawTrace::process_of(&files[0]).expect("a raw file");
    assert_eq!(child.parent, parent.pid);

    let children = HashMap::from([(child.fork_stamp, child.pid)]);
    let options = ResolveOptions { children, ..ResolveOptions::default() };
    let (events, mut trace) = resolve(&files[0], options);
    assert_eq!(trace.census().anomalies(), []);
    check_calls(&events);
    check_threads(&events);
    assert!(events.iter().any(|event| event.op == Op::Fork { child: child.pid }));

    let inherited = trace.take_fork_heaps().remove(&child.fork_stamp).expect("the fork is seen");
    let options = ResolveOptions { inherited, ..ResolveOptions::default() };
    let (events, trace) = resolve(&files[1], options);
    assert_eq!(trace.census().anomalies(), []);
    assert_eq!(trace.census().inherited_free, 1);
    assert_eq!(count(&events, 300_001), 1);
    assert_eq!(count(&events, 100_001), 0, "the parent's calls are not the child's");
}

#[test]
fn a_worker_that_forks_is_nobodys_child_in_its_new_process() {
    for argument in [None, Some("paused")] {
        let recording = Recording::new();
        let program = program("forks", recording.folder.path());
        let status = recording.command(&program, &[]).args(argument).status();
        assert!(status.expect("it runs").success(), "{argument:?}");
        let files = recording.files();
        assert_eq!(files.len(), 2, "the program and its forked child");
        let bytes = fs::read(&files[1]).expect("a raw file");
        let mut slots = &bytes[raw::PAGE + ChunkHeader::LEN..];
        let Some(raw::Slot::Record(first)) = raw::take_slot(&mut slots) else {
            panic!("{argument:?}: the first slot is empty")
        };
        assert_eq!((first.op, first.size), (raw::RawOp::ThreadStart, 0), "{argument:?}");
        let (events, _) = resolve(&files[1], ResolveOptions::default());
        assert_eq!((count(&events, 111), count(&events, 222)), (1, 1));
        let parents = events.iter().filter_map(|event| match event.op {
            Op::ThreadStart { parent } => Some(parent),
            _ => None,
        });
        assert_eq!(parents.collect::<Vec<_>>(), [None, Some(ThreadId(0))], "{argument:?}");
    }
}

/// How often exactly this size was asked for.
fn count(events: &[Event], size: u64) -> usize {
    events.iter().filter(|event| event.op.requested() == Some(size)).count()
}

fn check_calls(events: &[Event]) {
    for size in (100_001..=100_008).chain([500_001, 600_001]) {
        let size = if size == 100_003 { 3 * size } else { size };
        assert_eq!(count(events, size), 1, "calls for {size} bytes");
    }
    assert_eq!(count(events, 2 * 100_500), 1, "reallocarray is one realloc");
    assert_eq!(count(events, 300_001), 0, "the child's calls are not the parent's");
    assert_eq!(count(events, 400_001), 10_000);
    assert_eq!(count(events, 700_001), 10_000);
    let usable = events.iter().filter(|e| matches!(e.op, Op::UsableSize { .. })).count();
    assert_eq!(usable, 1);
    let null = Op::Free { object: None, stated_size: None };
    assert!(events.iter().any(|event| event.op == null));
}

fn check_threads(events: &[Event]) {
    let mut started = 0;
    for event in events {
        if let Op::ThreadStart { parent } = event.op {
            let expected = (started > 0).then_some(ThreadId(0));
            assert_eq!(parent, expected, "thread {started} was created by the main thread");
            assert_eq!(event.thread, ThreadId(started));
            started += 1;
        }
    }
    assert_eq!(started, 41);
    let ended = events.iter().filter(|event| event.op == Op::ThreadEnd).count();
    assert_eq!(ended, 40, "the main thread does not end, the process does");
    for i in 0..40 {
        assert_eq!(count(events, 200_000 + i), 1);
    }
}
