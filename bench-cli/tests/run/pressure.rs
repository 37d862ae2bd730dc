//! Runs under a limit of memory.

use crate::common::{rows, run, trace};

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
