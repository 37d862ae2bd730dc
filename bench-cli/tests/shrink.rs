//! `bench-cli trace shrink` with its built-in trials: real replays under libraries that crash,
//! are slow, or keep what they are given.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{bump_allocator, fails, library, run};

/// A text trace of `count` small objects that all live to its end, with `odd` among them.
fn trace(home: &Path, count: u64, odd: &[(u64, u64)]) -> PathBuf {
    let line = |i: u64| {
        let size = odd.iter().find(|(at, _)| *at == i).map_or(8 + i % 50, |(_, size)| *size);
        format!("1: malloc {:#x} {size}\n", 0x1000 + i * 16)
    };
    let path = home.join("t.txt");
    fs::write(&path, (0..count).map(line).collect::<String>()).unwrap();
    path
}

/// Sizes of all objects in a trace, in order of birth.
fn sizes(home: &Path, trace: &str) -> Vec<u64> {
    let (code, stdout, stderr) = run(home, &["trace", "export", trace]);
    assert_eq!(code, 0, "{stderr}");
    let mut reader = csv::Reader::from_reader(stdout.as_bytes());
    let sizes = reader.records().map(Result::unwrap).filter(|row| &row[2] == "malloc");
    sizes.map(|row| row[5].parse().unwrap()).collect()
}

#[test]
fn a_crash_is_shrunk_to_the_objects_that_cause_it() {
    let home = tempfile::tempdir().unwrap();
    let hook = "static int seen; if (size == 1234) seen = 1; \
                if (size == 4242 && seen) __builtin_trap();";
    let Some(shim) = library(home.path(), "crashes", &bump_allocator(hook), &[]) else { return };
    let trace = trace(home.path(), 300, &[(77, 1234), (205, 4242)]);
    let (trace, shim) = (trace.to_str().unwrap(), shim.to_str().unwrap());
    let args = ["trace", "shrink", trace, "--crash", "-a", shim, "-o", "s.atrace"];
    let (code, _, stderr) = run(home.path(), &args);
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("SIGILL") || stderr.contains("SIGTRAP"), "{stderr}");
    assert_eq!(sizes(home.path(), "s.atrace"), [1234, 4242], "{stderr}");
    let reader = traces::container::Reader::open(home.path().join("s.atrace")).unwrap();
    let wanted = reader.footer().unwrap().get("shrunk_for").unwrap().to_owned();
    assert!(wanted.contains("crashes.so"), "{wanted}");
}

#[test]
fn a_broken_promise_counts_as_a_crash() {
    let home = tempfile::tempdir().unwrap();
    // The object of 4242 bytes lies where the one of 1234 bytes lies.
    let hook = "static char *other; if (size == 1234) other = p; \
                if (size == 4242 && other) p = other;";
    let Some(shim) = library(home.path(), "overlaps", &bump_allocator(hook), &[]) else { return };
    let trace = trace(home.path(), 60, &[(20, 1234), (40, 4242)]);
    let (trace, shim) = (trace.to_str().unwrap(), shim.to_str().unwrap());
    let args = ["trace", "shrink", trace, "--crash", "-a", shim, "-o", "s.atrace"];
    let (code, _, stderr) = run(home.path(), &args);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(sizes(home.path(), "s.atrace"), [1234, 4242], "{stderr}");
}

#[test]
fn a_resident_peak_is_shrunk_to_the_objects_that_make_it() {
    let home = tempfile::tempdir().unwrap();
    let four = 4 << 20;
    let odd = [(10, four), (90, four), (110, four), (140, four), (141, four)];
    let trace = trace(home.path(), 150, &odd);
    let trace = trace.to_str().unwrap();
    let args = ["trace", "shrink", trace, "--rss-above", "10 MiB", "-a", "system"];
    let (code, _, stderr) = run(home.path(), &[&args[..], &["-o", "s.atrace"]].concat());
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("the resident peak is 1"), "{stderr}");
    assert_eq!(sizes(home.path(), "s.atrace"), [four; 3], "{stderr}");
}

#[test]
fn a_slow_call_is_shrunk_to_the_object_it_is_about() {
    let home = tempfile::tempdir().unwrap();
    let hook = "if (size == 4242) usleep(60000);";
    let source = format!("int usleep(unsigned);{}", bump_allocator(hook));
    let Some(shim) = library(home.path(), "slow", &source, &[]) else { return };
    let trace = trace(home.path(), 24, &[(13, 4242)]);
    let (trace, shim) = (trace.to_str().unwrap(), shim.to_str().unwrap());
    let args = ["trace", "shrink", trace, "--latency-above", "50ms", "-a", shim];
    let (code, _, stderr) = run(home.path(), &[&args[..], &["-o", "s.atrace"]].concat());
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("the slowest call is a malloc of 4242 bytes"), "{stderr}");
    assert_eq!(sizes(home.path(), "s.atrace"), [4242], "{stderr}");
}

#[test]
fn what_the_whole_trace_does_not_show_is_refused_with_what_it_shows() {
    let home = tempfile::tempdir().unwrap();
    let trace = trace(home.path(), 50, &[]);
    let trace = trace.to_str().unwrap();
    let shrink = |more: &[&str], words: &[&str]| {
        let args = [&["trace", "shrink", trace, "-a", "system", "-o", "s.atrace"], more].concat();
        fails(home.path(), &args, 2, words);
    };
    shrink(&["--crash"], &["does not show it", "a crash of system", "completed", "help:"]);
    shrink(
        &["--rss-above", "10 GiB"],
        &["above 10.0 GiB under system", "peak is", "bench-cli run"],
    );
    shrink(&["--latency-above", "1h"], &["the slowest call is a", "--pass latency"]);
    shrink(&["--rss-above", "much"], &["`much` is no size"]);
    shrink(&["--crash", "--rss-above", "1 MiB"], &["cannot be used with"]);
    shrink(&[], &["required"]);
    assert!(!home.path().join("s.atrace").exists());
}

#[test]
fn what_only_a_replay_heeds_is_refused_beside_a_command() {
    let home = tempfile::tempdir().unwrap();
    let trace = trace(home.path(), 50, &[]);
    let trace = trace.to_str().unwrap();
    for option in [["--timeout", "5s"], ["--allocator", "system"], ["--order", "strict"]] {
        let args =
            [&["trace", "shrink", trace, "-o", "s.atrace"], &option[..], &["--", "false", "{}"]];
        fails(home.path(), &args.concat(), 2, &["cannot be used with", option[0], "COMMAND"]);
    }
}
