//! Runs under a limit of memory.

use crate::common::{bump_allocator, library, rows, run, trace};

#[test]
fn the_slowest_calls_under_a_cgroup_are_looked_at_under_another_of_the_same_limit() {
    let home = tempfile::tempdir().unwrap();
    let trace = trace(home.path(), 4000);
    let args = ["run", trace.to_str().unwrap(), "-a", "system", "--runs", "1", "--out", "out"];
    let more = ["--pass", "throughput,latency", "--pressure", "own:3000%"];
    let (code, _, stderr) = run(home.path(), &[&args[..], &more].concat());
    if code == 5 {
        return eprintln!("skipped: {stderr}");
    }
    assert_eq!(code, 0, "{stderr}");
    let runs = rows(&home.path().join("out/runs.csv"));
    let pressed = runs.iter().find(|r| r["pressure"] == "own:3000%" && r["pass"] == "latency");
    let id = &pressed.unwrap()["run_id"];
    let tail = rows(&home.path().join("out/tail.csv"));
    let its: Vec<_> = tail.iter().filter(|row| row["run_id"] == *id).collect();
    assert!(!its.is_empty() && its.iter().all(|row| !row["again_ns"].is_empty()), "{its:?}");
}

#[test]
fn a_share_of_what_the_first_did_not_complete_is_left_out_and_everything_else_is_run() {
    let home = tempfile::tempdir().unwrap();
    let source = bump_allocator("if (n == 2000) *(volatile int *)0 = 0;");
    let Some(crashing) = library(home.path(), "crashing", &source, &[]) else { return };
    let Some(sound) = library(home.path(), "sound", &bump_allocator(""), &[]) else { return };
    let trace = trace(home.path(), 8000);
    let both = format!("{},{}", crashing.display(), sound.display());
    let args = ["run", trace.to_str().unwrap(), "-a", &both, "--runs", "2", "--out", "out"];
    let more = ["--pass", "throughput", "--pressure", "as:800%", "--pressure", "as:4294967296"];
    let (code, stdout, stderr) = run(home.path(), &[&args[..], &more].concat());
    assert_eq!(code, 6, "{stdout}{stderr}");
    assert!(stderr.contains("left out: tiny.txt under `as:800%`: "), "{stderr}");
    let runs = rows(&home.path().join("out/runs.csv"));
    let ends = |pressure: &str| -> Vec<bool> {
        let under = runs.iter().filter(|row| row["pressure"] == pressure);
        under.map(|row| row["end"] == "completed").collect()
    };
    let count = |pressure: &str, end: bool| ends(pressure).iter().filter(|&&e| e == end).count();
    for pressure in ["", "as:4294967296"] {
        assert_eq!((count(pressure, true), count(pressure, false)), (2, 2), "{pressure}: {runs:?}");
    }
    assert!(ends("as:800%").is_empty(), "{runs:?}");
}
