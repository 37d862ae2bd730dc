//! Recorded, replayed, and recorded again while it is replayed: real programs make the same calls.
//!
//! The replay happens in a worker whose `malloc` is the recorder itself. Every call of the first
//! recording has to be found in the second, in its thread's order and on the same object; what the
//! second has besides are calls of the worker's own C library (threads, standard output).

mod common;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::{bench_cli, run};
use traces::container::Reader;
use traces::{Event, EventSource, ObjectId, Op};

fn installed(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).status().is_ok();
    if !found {
        eprintln!("skipped: {program} is not installed");
    }
    found
}

fn record(home: &Path, command: &[&str]) -> Child {
    let mut recorder = bench_cli(home);
    recorder.args(["record", "--no-children", "-o", "first.atrace", "--"]).args(command);
    recorder.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

fn succeeds(child: Child) {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Replays `first.atrace` under the recorder, and returns what that recorded.
fn record_the_replay(home: &Path, order: &str) -> PathBuf {
    let (_, recorder, _) = run(home, &["preload", "recorder", "--print"]);
    let raw = home.join("raw");
    fs::create_dir(&raw).unwrap();
    let mut command = bench_cli(home);
    command.env("ATRACE_DIR", &raw).args(["run", "first.atrace", "-a", recorder.trim()]);
    command.args(["--pass", "throughput", "--runs", "1", "--order", order, "--out", "out"]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let file = fs::read_dir(&raw).unwrap().next().expect("the worker was recorded").unwrap().path();
    let args = ["trace", "convert", file.to_str().unwrap(), "-o", "second.atrace"];
    let (code, _, stderr) = run(home, &args);
    assert_eq!(code, 0, "{stderr}");
    home.join("second.atrace")
}

fn events(path: &Path) -> Vec<Event> {
    let mut reader = Reader::open(path).unwrap();
    let mut events = Vec::new();
    while let Some(event) = reader.next_event().unwrap() {
        events.push(event);
    }
    assert_eq!(reader.loss(), None, "{}", path.display());
    events
}

/// A call as far as a replay repeats it, its objects named by `name`; `None` for what is no call.
fn call(op: &Op, name: impl Fn(ObjectId) -> u64) -> Option<[u64; 5]> {
    let name = |object: Option<ObjectId>| object.map_or(0, &name);
    Some(match *op {
        Op::Malloc { size, object } => [1, size, 0, 0, u64::from(object.is_some())],
        Op::Calloc { count, size, object } => [2, size, count, 0, u64::from(object.is_some())],
        Op::Realloc { old, size, object } => [3, size, 0, name(old), u64::from(object.is_some())],
        Op::Aligned { align, size, object, .. } => [4, size, align, 0, u64::from(object.is_some())],
        Op::Free { object, .. } => [5, 0, 0, name(object), 0],
        Op::UsableSize { object } => [6, 0, 0, name(object), 0],
        _ => return None,
    })
}

/// The calls of each thread.
fn by_thread(events: &[Event]) -> BTreeMap<u32, Vec<Op>> {
    let mut threads: BTreeMap<u32, Vec<Op>> = BTreeMap::new();
    for event in events {
        if call(&event.op, |_| 0).is_some() {
            threads.entry(event.thread.0).or_default().push(event.op);
        }
    }
    threads
}

/// For each thread of `first` the calls of one of `second` that makes all of its calls: the worker
/// has a thread of its own, and theirs may be born in another order.
fn doubles(
    first: &BTreeMap<u32, Vec<Op>>,
    mut second: BTreeMap<u32, Vec<Op>>,
) -> BTreeMap<u32, std::vec::IntoIter<Op>> {
    let mut threads = BTreeMap::new();
    for (&thread, calls) in first {
        let makes_all = |ops: &[Op]| {
            let mut ops = ops.iter();
            calls.iter().all(|wanted| ops.any(|op| call(op, |_| 1) == call(wanted, |_| 1)))
        };
        let double = second.iter().find(|(_, ops)| makes_all(ops)).map(|(&double, _)| double);
        let double = double.unwrap_or_else(|| panic!("thread {thread} was not replayed"));
        threads.insert(thread, second.remove(&double).unwrap_or_default().into_iter());
    }
    let rest = second.into_iter().map(|(number, ops)| (u32::MAX - number, ops.into_iter()));
    threads.extend(rest);
    threads
}

/// Finds every call of `first` in `second`; returns how many there are, and how many more.
fn compare(first: &[Event], second: &[Event]) -> (u64, u64) {
    let mut threads = doubles(&by_thread(first), by_thread(second));
    let mut known: HashMap<ObjectId, u64> = HashMap::new();
    let (mut found, mut more) = (0, 0);
    for (at, event) in first.iter().enumerate() {
        // An object of the second recording is named by itself, one of the first by its double.
        let double = |object: ObjectId| known.get(&object).copied().unwrap_or(u64::MAX);
        let Some(wanted) = call(&event.op, double) else { continue };
        let stream = threads.get_mut(&event.thread.0).expect("the thread was replayed");
        loop {
            let op =
                stream.next().unwrap_or_else(|| panic!("event {at} was not replayed: {event:?}"));
            if call(&op, |object| object.0.get()) == Some(wanted) {
                if let (Some(object), Some(double)) = (event.op.born(), op.born()) {
                    known.insert(object, double.0.get());
                }
                break;
            }
            more += u64::from(call(&op, |object| object.0.get()).is_some());
        }
        found += 1;
    }
    let left = threads.into_values().flatten();
    more += left.filter(|op| call(op, |object| object.0.get()).is_some()).count() as u64;
    (found, more)
}

#[track_caller]
fn same_calls(home: &Path, order: &str, least: u64) {
    let first = events(&home.join("first.atrace"));
    let second = events(&record_the_replay(home, order));
    let calls = first.iter().filter(|e| call(&e.op, |_| 0).is_some()).count() as u64;
    let (found, more) = compare(&first, &second);
    assert_eq!(found, calls, "every call was replayed");
    assert!(calls >= least, "{calls} calls");
    let threads = first.iter().filter(|e| matches!(e.op, Op::ThreadStart { .. })).count() as u64;
    assert!(more <= 100 + 4 * threads, "{more} calls besides the {calls}");
}

#[test]
fn python_replayed_makes_the_same_calls() {
    if !installed("python3") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    // The interpreter itself, where a script stands under its name.
    let found = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output();
    let python = String::from_utf8(found.unwrap().stdout).unwrap();
    let program = "import json; print(json.dumps([{'a': [i] * 10} for i in range(500)]))";
    succeeds(record(home.path(), &[python.trim(), "-c", program]));
    same_calls(home.path(), "strict", 3_000);
}

#[test]
fn sqlite_replayed_makes_the_same_calls() {
    if !installed("sqlite3") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let sql = "create table t(a, b); with recursive n(i) as (select 1 union all select i + 1 from n \
               where i < 2000) insert into t select i, hex(randomblob(20)) from n; \
               create index x on t(b); select count(*) from t where b > '8';";
    succeeds(record(home.path(), &["sqlite3", ":memory:", sql]));
    same_calls(home.path(), "strict", 3_000);
}

#[test]
fn git_replayed_makes_the_same_calls() {
    if !installed("git") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let git = |args: &[&str]| {
        let mut git = Command::new("git");
        git.current_dir(home.path()).args(["-c", "user.name=a", "-c", "user.email=a@b"]);
        assert!(git.args(args).stdout(Stdio::null()).status().unwrap().success(), "{args:?}");
    };
    git(&["init", "-q", "r"]);
    for i in 0..20 {
        fs::write(home.path().join("r/file"), format!("{i}\n").repeat(50)).unwrap();
        git(&["-C", "r", "add", "file"]);
        git(&["-C", "r", "commit", "-q", "-m", &format!("commit {i}")]);
    }
    succeeds(record(home.path(), &["git", "-C", "r", "--no-pager", "log", "--stat"]));
    same_calls(home.path(), "strict", 1_000);
}

/// Whether a client of the server in this folder succeeds.
fn ask(home: &Path, program: &str, args: &[&str]) -> bool {
    let mut client = Command::new(program);
    client.current_dir(home).args(["-s", "s.sock"]).args(args).stderr(Stdio::null());
    client.stdout(Stdio::null()).status().unwrap().success()
}

/// A recorded redis that answers; `None` where it is not installed.
fn redis(home: &Path) -> Option<Child> {
    if !installed("redis-server") || !installed("redis-benchmark") {
        return None;
    }
    let server = ["redis-server", "--port", "0", "--unixsocket", "s.sock"];
    let more = ["--io-threads", "2", "--save", ""];
    let mut child = record(home, &[&server[..], &more].concat());
    while !ask(home, "redis-cli", &["ping"]) {
        assert!(child.try_wait().unwrap().is_none(), "the server ended");
        std::thread::yield_now();
    }
    Some(child)
}

#[test]
fn redis_with_threads_replayed_makes_the_same_calls() {
    let home = tempfile::tempdir().unwrap();
    let Some(child) = redis(home.path()) else { return };
    let load = ["-n", "300", "-c", "8", "-q", "-t", "set,get,lpush,hset"];
    assert!(ask(home.path(), "redis-benchmark", &load));
    ask(home.path(), "redis-cli", &["shutdown", "nosave"]);
    succeeds(child);
    let first = events(&home.path().join("first.atrace"));
    assert!(first.iter().any(|event| event.thread.0 >= 4), "the server has threads");
    same_calls(home.path(), "window:4096", 5_000);
}

#[test]
fn redis_killed_under_load_leaves_a_sound_trace_of_all_that_was_done() {
    let home = tempfile::tempdir().unwrap();
    let Some(child) = redis(home.path()) else { return };
    let keys = ["-n", "2000", "-c", "4", "-q", "-r", "1000000", "-t", "set"];
    assert!(ask(home.path(), "redis-benchmark", &keys));
    let mut load = Command::new("redis-benchmark");
    load.current_dir(home.path()).args([
        "-s",
        "s.sock",
        "-n",
        "100000000",
        "-c",
        "8",
        "-t",
        "lpush",
    ]);
    let mut load = load.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let server = fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id())).unwrap();
    let server: i32 = server.trim().parse().unwrap();
    let server = rustix::process::Pid::from_raw(server).unwrap();
    rustix::process::kill_process(server, rustix::process::Signal::KILL).unwrap();
    let output = child.wait_with_output().unwrap();
    load.kill().unwrap();
    load.wait().unwrap();
    assert_eq!(output.status.code(), Some(128 + 9), "{}", String::from_utf8_lossy(&output.stderr));
    let (code, stdout, stderr) = run(home.path(), &["trace", "verify", "first.atrace"]);
    assert!(code == 0 && stdout.contains(": sound"), "{stdout}{stderr}");
    // Each key that was answered is at least one object that is never released.
    let events = events(&home.path().join("first.atrace"));
    let born = events.iter().filter(|event| event.op.born().is_some()).count();
    let released = events.iter().filter(|event| event.op.released().is_some()).count();
    assert!(born - released >= 2_000, "{born} born, {released} released");
}
