//! Ctrl-C in the middle of every long verb: exit code 130, nothing half-written, and what a search
//! has found so far is kept.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use common::{bench_cli, run};
use rustix::process::{Pid, Signal, kill_process};

/// Lines of a trace without an end, into a pipe of this name, until nobody reads it any more.
/// Stops for good after `most` bytes, with the pipe open.
fn feed(pipe: &Path, most: u64) -> Arc<AtomicU64> {
    assert!(Command::new("mkfifo").arg(pipe).status().unwrap().success());
    let (pipe, fed) = (pipe.to_owned(), Arc::new(AtomicU64::new(0)));
    let count = Arc::clone(&fed);
    thread::spawn(move || {
        let mut out = fs::OpenOptions::new().write(true).open(pipe).unwrap();
        let lines: String =
            (0..1000).map(|i| format!("1: malloc 0x{i:x}10 {i}\n1: free 0x{i:x}10\n")).collect();
        while fed.load(Ordering::Relaxed) < most && out.write_all(lines.as_bytes()).is_ok() {
            fed.fetch_add(lines.len() as u64, Ordering::Relaxed);
        }
        loop {
            thread::park();
        }
    });
    count
}

fn start(home: &Path, args: &[&str]) -> Child {
    let mut command = bench_cli(home);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Waits until `ready` holds, as long as the child runs.
fn until(child: &mut Child, ready: impl Fn() -> bool) {
    while !ready() {
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        thread::yield_now();
    }
}

/// Sends SIGINT and returns what the child wrote to standard output and standard error.
fn interrupt(child: Child) -> (String, String) {
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(130), "{err}");
    assert!(!err.contains("panicked"), "{err}");
    (out, err)
}

/// Runs `args`, which write more into the pipe than it holds, and sends SIGINT while nobody reads
/// it, so that they cannot be done by then: the exit code and what came on standard error.
fn interrupt_while_it_writes(home: &Path, pipe: &str, args: &[&str]) -> (Option<i32>, String) {
    let pipe = home.join(pipe);
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut child = start(home, args);
    let mut pipe =
        fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(pipe).unwrap();
    until(&mut child, || rustix::io::ioctl_fionread(&pipe).unwrap() > 0);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let status = format!("/proc/{}/status", child.id());
    let delivered = || {
        let text = fs::read_to_string(&status).unwrap();
        let pending = text.lines().find_map(|line| line.strip_prefix("ShdPnd:")).unwrap();
        u64::from_str_radix(pending.trim(), 16).unwrap() & 1 << (libc::SIGINT - 1) == 0
    };
    until(&mut child, delivered);
    let mut buffer = vec![0; 1 << 16];
    while child.try_wait().unwrap().is_none() {
        let _ = pipe.read(&mut buffer);
    }
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Names in the folder, hidden ones too.
fn names(home: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
    let mut names: Vec<String> = fs::read_dir(home)
        .unwrap()
        .map(|entry| name(entry).to_string_lossy().into_owned())
        .filter(|name| name != "cache")
        .collect();
    names.sort();
    names
}

#[test]
fn every_verb_that_reads_a_trace_ends_at_ctrl_c_and_leaves_nothing() {
    let verbs: [&[&str]; 10] = [
        &["trace", "info", "pipe"],
        &["trace", "info", "pipe", "--html", "page.html", "--format", "json"],
        &["trace", "verify", "pipe"],
        &["trace", "export", "pipe", "-o", "out.csv"],
        &["trace", "convert", "pipe", "-o", "out.atrace"],
        &["trace", "cut", "pipe", "--births", "0..", "-o", "out.atrace"],
        &["trace", "anonymize", "pipe", "-o", "out.atrace"],
        &["trace", "diff", "pipe", "pipe"],
        &["trace", "fit", "pipe", "-o", "out.json", "--fleet", "fleet.csv"],
        &["trace", "shrink", "pipe", "-o", "out.atrace", "--", "false", "{}"],
    ];
    for verb in verbs {
        let home = tempfile::tempdir().unwrap();
        let fed = feed(&home.path().join("pipe"), u64::MAX);
        let mut child = start(home.path(), verb);
        until(&mut child, || fed.load(Ordering::Relaxed) > 2 << 20);
        let (stdout, stderr) = interrupt(child);
        assert!(stdout.is_empty(), "{verb:?}: {stdout}");
        assert!(stderr.starts_with("error: ") && stderr.contains("stopped"), "{verb:?}: {stderr}");
        assert!(!stderr.contains('\x1b'), "no bar where there is no terminal: {stderr}");
        assert_eq!(names(home.path()), ["pipe"], "{verb:?}");
    }
}

#[test]
fn ctrl_c_ends_a_merge_too() {
    let home = tempfile::tempdir().unwrap();
    let one = feed(&home.path().join("one"), u64::MAX);
    feed(&home.path().join("two"), u64::MAX);
    let mut child = start(home.path(), &["trace", "merge", "one", "two", "-o", "out.atrace"]);
    until(&mut child, || one.load(Ordering::Relaxed) > 2 << 20);
    interrupt(child);
    assert_eq!(names(home.path()), ["one", "two"]);
}

#[test]
fn a_verb_that_waits_for_its_input_ends_at_ctrl_c_too() {
    let home = tempfile::tempdir().unwrap();
    let fed = feed(&home.path().join("pipe"), 1 << 20);
    let mut child = start(home.path(), &["trace", "convert", "pipe", "-o", "out.atrace"]);
    let stat = format!("/proc/{}/stat", child.id());
    let waits = || fs::read_to_string(&stat).is_ok_and(|text| text.contains(") S "));
    until(&mut child, || fed.load(Ordering::Relaxed) >= 1 << 20 && waits());
    interrupt(child);
    assert_eq!(names(home.path()), ["pipe"]);
}

#[test]
fn ctrl_c_ends_gen_before_its_trace_is_whole() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("fleet.csv"), "16, 1000, 10\n64, 500, 20\n").unwrap();
    let args = ["gen", "fleet.csv", "-o", "pipe", "--allocations", "3000000"];
    let (code, stderr) = interrupt_while_it_writes(home.path(), "pipe", &args);
    assert_eq!(code, Some(130), "{stderr}");
    assert_eq!(names(home.path()), ["fleet.csv", "pipe"]);
}

#[test]
fn an_interrupted_search_keeps_what_it_has_found() {
    let home = tempfile::tempdir().unwrap();
    let line = |i: u64| format!("1: malloc {:#x} {}\n", 0x1000 + i * 16, 8 + i);
    fs::write(home.path().join("t.txt"), (0..5000).map(line).collect::<String>()).unwrap();
    // The fourth trial never ends by itself.
    let test = "echo {} >> trials; [ $(wc -l < trials) -lt 4 ] || sleep 10000; exit 1";
    let args = ["trace", "shrink", "t.txt", "-o", "s.atrace", "--", "sh", "-c", test];
    let tried = |least| {
        let trials = fs::read_to_string(home.path().join("trials")).unwrap_or_default();
        trials.lines().count() >= least
    };
    let mut child = start(home.path(), &args);
    until(&mut child, || tried(4));
    let (_, stderr) = interrupt(child);
    assert!(stderr.contains("1,250 of 5,000 object lives left"), "{stderr}");
    // The first look at the whole trace is no trial, and none follows the one that was ended.
    assert!(stderr.contains("after 3 trials; interrupted: more might go"), "{stderr}");
    assert_eq!(names(home.path()), ["s.atrace", "t.txt", "trials"]);
    let (code, stdout, _) = run(home.path(), &["trace", "verify", "s.atrace"]);
    assert!(code == 0 && stdout.contains(": sound"), "{stdout}");
}

#[test]
fn a_recording_interrupted_while_its_trace_is_made_keeps_the_raw_files() {
    let home = tempfile::tempdir().unwrap();
    let source = "#include <stdlib.h>\nint main() { \
                  for (int i = 0; i < 3000000; i++) free(malloc(i % 100)); return 0; }";
    fs::write(home.path().join("p.c"), source).unwrap();
    let compiled = Command::new("cc")
        .current_dir(home.path())
        .args(["-O0", "-fno-builtin", "-o", "p", "p.c"])
        .status();
    assert!(compiled.unwrap().success());
    let args = ["record", "-o", "pipe", "--", "./p"];
    let (code, stderr) = interrupt_while_it_writes(home.path(), "pipe", &args);
    assert_eq!(code, Some(130), "{stderr}");
    assert!(stderr.contains("raw files are kept") && stderr.contains("trace convert"), "{stderr}");
    let left = names(home.path());
    assert!(left.len() == 4 && left[0].ends_with(".raw"), "{left:?}");
    let raw = home.path().join(&left[0]);
    let file = fs::read_dir(raw).unwrap().next().unwrap().unwrap().path();
    let args = ["trace", "convert", file.to_str().unwrap(), "-o", "t.atrace"];
    let (code, _, stderr) = run(home.path(), &args);
    assert_eq!(code, 0, "{stderr}");
    let (code, stdout, _) = run(home.path(), &["trace", "verify", "t.atrace"]);
    assert!(code == 0 && stdout.contains("sound"), "{stdout}");
}

#[test]
fn a_gate_that_is_asked_to_end_while_its_base_builds_ends_with_all_that_builds() {
    let home = tempfile::tempdir().unwrap();
    let git = |args: &[&str]| {
        let identity = ["-c", "user.name=t", "-c", "user.email=t@localhost"];
        let output =
            Command::new("git").args(identity).args(args).current_dir(home.path()).output();
        let output = output.expect("git starts");
        assert!(output.status.success(), "git {args:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    git(&["init", "-q"]);
    git(&["commit", "-q", "--allow-empty", "-m", "first"]);
    let build = "sleep 10000 & echo $! > \"$CACHE.pid\"; wait";
    let args = ["gate", "--base-rev", "HEAD", "--head", "system", "--base-build", build];
    let mut child = start(home.path(), &[&args[..], &["--base-cache", "bases"]].concat());
    let pid = || {
        let text = fs::read_to_string(home.path().join("bases/build.pid")).unwrap_or_default();
        text.trim().parse::<u32>().ok()
    };
    until(&mut child, || pid().is_some());
    interrupt(child);
    assert_eq!(git(&["worktree", "list"]).lines().count(), 1);
    // It may be that nobody takes notice of its end.
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid().unwrap()));
    assert!(stat.is_err() || stat.is_ok_and(|text| text.contains(") Z ")));
}
