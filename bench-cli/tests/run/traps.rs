//! Runs of several threads in which system calls are caught.

use std::path::Path;

use crate::common::{bump_allocator, library, rows, run, trace};

/// Rows of the runs of a trace of two threads, all of which ended well.
fn caught(home: &Path, args: &[&str]) -> Vec<std::collections::BTreeMap<String, String>> {
    let trace = trace(home, 4000);
    let common = ["run", trace.to_str().unwrap(), "--runs", "1", "--out", "out"];
    let (code, stdout, stderr) = run(home, &[&common[..], args].concat());
    assert_eq!(code, 0, "{stdout}{stderr}");
    let all = rows(&home.join("out/runs.csv"));
    for row in &all {
        assert_eq!((row["threads"].as_str(), row["end"].as_str()), ("2", "completed"));
    }
    all
}

#[test]
fn system_calls_of_two_threads_are_counted_and_both_end() {
    let home = tempfile::tempdir().unwrap();
    let hook = "if (n % 100 == 0) madvise(next - 1 - (uintptr_t)(next - 1) % 4096, 4096, 0);";
    let Some(advising) = library(home.path(), "advising", &bump_allocator(hook), &[]) else {
        return;
    };
    let allocators = format!("system,{}", advising.display());
    let all = caught(home.path(), &["-a", &allocators, "--pass", "syscalls"]);
    let advising = all.iter().find(|row| row["allocator"] == "advising.so").unwrap();
    let calls = rows(&home.path().join("out/syscalls.csv"));
    let of = |call: &str| {
        let is_it = |row: &&std::collections::BTreeMap<String, String>| {
            row["run_id"] == advising["run_id"] && row["call"] == call
        };
        calls.iter().find(is_it).unwrap()["count"].parse::<u64>().unwrap()
    };
    // 4000 objects, and a few of the C library's: no call is lost, and none is a stack's.
    assert!((40..=41).contains(&of("madvise")), "{}", of("madvise"));
    assert_eq!(of("mprotect"), 0);
}

#[test]
fn a_refused_call_for_memory_ends_no_thread_of_two() {
    let home = tempfile::tempdir().unwrap();
    let args = ["-a", "system,ours", "--pass", "throughput", "--pressure", "fail:5"];
    assert_eq!(caught(home.path(), &args).len(), 4);
}
