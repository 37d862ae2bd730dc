//! `bench-cli run` from end to end: what it leaves behind, and what it does when things go wrong
//! that are nobody's typing.

mod common;
#[path = "run/duration.rs"]
mod duration;
#[path = "run/exec.rs"]
mod exec;
#[path = "run/forks.rs"]
mod forks;
#[path = "run/heap_map.rs"]
mod heap_map;
#[path = "run/history.rs"]
mod history;
#[path = "run/instructions.rs"]
mod instructions;
#[path = "run/names.rs"]
mod names;
#[path = "run/pressure.rs"]
mod pressure;
#[path = "run/resume.rs"]
mod resume;
#[path = "run/traps.rs"]
mod traps;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, Instant};

use common::{bench_cli, bump_allocator, fails, library, rows, run, trace};

#[test]
fn a_trace_gives_a_table_and_every_file_of_a_run() {
    let home = tempfile::tempdir().unwrap();
    let trace = trace(home.path(), 4000);
    let args = ["run", trace.to_str().unwrap(), "-a", "system", "--out", "out", "--runs", "2"];
    let (code, stdout, stderr) = run(home.path(), &args);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("tiny.txt") && stdout.contains("time ms"), "{stdout}");
    assert!(stdout.contains("Fidelity of tiny.txt in order window:4096"), "{stdout}");
    let out = home.path().join("out");
    let runs = rows(&out.join("runs.csv"));
    let passes: Vec<&str> = runs.iter().map(|row| row["pass"].as_str()).collect();
    assert_eq!(passes, ["throughput", "latency", "footprint", "throughput"]);
    for row in &runs {
        assert_eq!(row["allocator"], "system");
        assert_eq!(row["threads"], "2");
        assert_eq!(row["operations"], (4000 + 4000 - 64).to_string());
        assert_eq!(row["failed_allocations"], "0");
        assert_eq!(row["end"], "completed");
        assert!(row["elapsed_ns"].parse::<u64>().unwrap() > 0);
        assert!(row["library"].contains("libc"), "{}", row["library"]);
        assert_eq!((row["pressure"].as_str(), row["limit_bytes"].as_str()), ("", ""));
    }
    let ids: BTreeSet<&str> = runs.iter().map(|row| row["run_id"].as_str()).collect();
    assert_eq!(ids.len(), runs.len());
    let latency = rows(&out.join("latency.csv"));
    let all: Vec<_> = latency.iter().filter(|row| row["op"] == "all").collect();
    assert_eq!(all[0]["count"], (4000 + 4000 - 64).to_string());
    assert!(latency.iter().all(|row| ids.contains(row["run_id"].as_str())));
    let timeline = rows(&out.join("timeline.csv"));
    let after: Vec<_> = timeline.iter().map(|row| &*row["after_ms"]).collect();
    assert_eq!(after.iter().filter(|ms| !ms.is_empty()).collect::<Vec<_>>(), [&"100"], "{after:?}");
    assert!(after.len() > 1 && after.ends_with(&["100"]), "one look after the last operation");
    let tail = rows(&out.join("tail.csv"));
    assert_eq!(tail.len(), (4000 + 4000 - 64) / 1000, "the slowest 0.1 %");
    for (row, rank) in tail.iter().zip(1..) {
        assert_eq!(row["rank"], rank.to_string());
        assert!(!row["again_ns"].is_empty() && !row["minor_faults"].is_empty(), "{row:?}");
        assert!(row["event"].parse::<u64>().unwrap() < 4000 * 2, "{row:?}");
    }
    let used: Vec<_> = rows(&out.join("fragmentation.csv"));
    assert_eq!(
        used.iter().map(|row| row["used"].as_str()).collect::<Vec<_>>(),
        ["rss", "private_dirty"]
    );
    for row in &used {
        assert!(row["retained_100ms_bytes"].parse::<u64>().is_ok(), "{row:?}");
        assert_eq!(row["retained_5s_bytes"], "", "nobody waited so long");
    }
    let internals = rows(&out.join("internals.csv"));
    assert!(internals.iter().any(|row| row["name"] == "uordblks"), "{internals:?}");
    assert!(runs[0]["floor_ns"].parse::<u64>().unwrap() > 0);
    assert!(
        stdout.contains("floor ms") && stdout.contains("Slowest calls of tiny.txt"),
        "{stdout}"
    );
    assert_eq!(fs::read_dir(out.join("hist")).unwrap().count(), 1);
    let manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(out.join("manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["state"], "completed");
    assert_eq!(manifest["subjects"][0]["kind"], "trace");
}

#[test]
fn of_a_trace_larger_than_it_may_be_only_a_window_is_in_memory() {
    let home = tempfile::tempdir().unwrap();
    let trace = trace(home.path(), 400_000);
    let args =
        ["run", trace.to_str().unwrap(), "-a", "system", "--runs", "1", "--pass", "footprint"];
    let base = |memory: &str, out: &str| {
        let more = ["--event-memory", memory, "--out", out];
        let (code, _, stderr) = run(home.path(), &[&args[..], &more].concat());
        assert_eq!(code, 0, "{stderr}");
        let row = rows(&home.path().join(out).join("runs.csv")).remove(0);
        assert_eq!(row["operations"], (2 * 400_000 - 64).to_string());
        row["base_rss_bytes"].parse::<u64>().unwrap()
    };
    let (whole, window) = (base("1GiB", "whole"), base("64KiB", "window"));
    // 800,000 events of 8 bytes.
    assert!(whole > window + 5_000_000, "{whole} with all events, {window} with a window of them");
}

#[test]
fn no_file_of_the_present_folder_takes_the_place_of_a_workload() {
    let home = tempfile::tempdir().unwrap();
    let args = ["run", "-a", "system", "--runs", "1", "--scale", "0.02", "--pass", "throughput"];
    fs::write(home.path().join("larson"), "no trace at all").unwrap();
    fs::create_dir(home.path().join("pair-64")).unwrap();
    let (code, stdout, stderr) = run(home.path(), &[&args[..], &["larson", "pair-64"]].concat());
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("larson") && stdout.contains("pair-64"), "{stdout}");
    fails(home.path(), &[&args[..], &["./larson"]].concat(), 7, &["./larson"]);
}

#[test]
fn the_default_folder_is_named_by_its_time_and_latest_points_to_it() {
    let home = tempfile::tempdir().unwrap();
    let trace = trace(home.path(), 100);
    let args = ["run", trace.to_str().unwrap(), "-a", "system", "--runs", "1"];
    let (code, _, stderr) = run(home.path(), &args);
    assert_eq!(code, 0, "{stderr}");
    let latest = fs::read_link(home.path().join("bench-out/latest")).unwrap();
    assert!(home.path().join("bench-out").join(&latest).join("runs.csv").is_file());
    assert!(stderr.contains(latest.to_str().unwrap()), "{stderr}");
}

#[test]
fn results_go_to_standard_output_in_the_format_asked_for() {
    let home = tempfile::tempdir().unwrap();
    let trace = trace(home.path(), 100);
    let common = ["run", trace.to_str().unwrap(), "-a", "system", "--runs", "1", "--format"];
    let (_, json, _) = run(home.path(), &[&common[..], &["json", "--out", "a"]].concat());
    let lines: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(lines[0]["allocator"], "system");
    assert!(lines[0]["elapsed_ns"].as_f64().unwrap() > 0.0);
    let (_, csv, _) = run(home.path(), &[&common[..], &["csv", "--out", "b"]].concat());
    assert!(csv.starts_with("workload,threads,"), "{csv}");
    assert_eq!(csv.lines().count(), 2);
}

#[test]
fn an_allocator_that_crashes_is_a_row_and_its_own_exit_code() {
    let home = tempfile::tempdir().unwrap();
    let source = bump_allocator("if (n > 2000) __builtin_trap();");
    let Some(crash) = library(home.path(), "crash", &source, &[]) else { return };
    let trace = trace(home.path(), 4000);
    let allocators = format!("system,{}", crash.display());
    let args = ["run", trace.to_str().unwrap(), "-a", &allocators, "--runs", "1", "--out", "out"];
    fails(home.path(), &args, 6, &["crash.so crashed (SIG", "tiny.txt"]);
    let runs = rows(&home.path().join("out/runs.csv"));
    assert_eq!(runs.len(), 6, "system ran on");
    for row in runs.iter().filter(|row| row["allocator"] == "crash.so") {
        assert!(row["end"].starts_with("crashed"), "{}", row["end"]);
        assert_eq!(row["elapsed_ns"], "", "a crash has no time");
    }
}

#[test]
fn an_allocator_that_hangs_is_ended_and_told() {
    let home = tempfile::tempdir().unwrap();
    let source = bump_allocator("while (n > 500) {}");
    let Some(hang) = library(home.path(), "hang", &source, &[]) else { return };
    let trace = trace(home.path(), 4000);
    let (trace, hang) = (trace.to_str().unwrap(), hang.to_str().unwrap());
    let args = ["run", trace, "-a", hang, "--pass", "throughput", "--runs", "1", "--timeout", "1s"];
    fails(home.path(), &args, 6, &["hang.so hung"]);
}

#[test]
fn an_allocator_that_breaks_a_promise_is_caught_by_verify() {
    let home = tempfile::tempdir().unwrap();
    // Every hundredth object begins where the one before it did.
    let source = bump_allocator("static char *old; if (n % 100 == 0) p = old; else old = p;");
    let Some(liar) = library(home.path(), "liar", &source, &[]) else { return };
    let trace = trace(home.path(), 4000);
    let (trace, liar) = (trace.to_str().unwrap(), liar.to_str().unwrap());
    let args = ["run", trace, "-a", liar, "--pass", "verify", "--runs", "1"];
    fails(home.path(), &args, 6, &["liar.so broke promise"]);
    let (code, _, stderr) = run(home.path(), &["run", trace, "-a", "system", "--pass", "verify"]);
    assert_eq!(code, 0, "{stderr}");
}

#[test]
fn ctrl_c_keeps_what_is_finished_and_resume_completes_it() {
    let home = tempfile::tempdir().unwrap();
    let trace = trace(home.path(), 20_000);
    let args = ["run", trace.to_str().unwrap(), "-a", "system", "--pass", "throughput"];
    let args = [&args[..], &["--out", "out", "--runs"]].concat();
    // So many that they cannot be done before the first of them is noted.
    let child = bench_cli(home.path())
        .args(&args)
        .arg("10000")
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let runs = home.path().join("out/runs.csv");
    let start = Instant::now();
    while !runs.exists() || rows(&runs).is_empty() {
        assert!(start.elapsed() < Duration::from_secs(120), "no run was noted");
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    assert!(stderr.contains("--resume --out out") && !stderr.contains("panicked"), "{stderr}");
    let kept = rows(&runs);
    assert!(!kept.is_empty() && kept.len() < 10_000, "{}", kept.len());
    let names: Vec<_> = fs::read_dir(home.path().join("out")).unwrap().flatten().collect();
    assert!(names.iter().all(|n| !n.file_name().to_string_lossy().starts_with('.')), "{names:?}");

    let whole = kept.len() + 5;
    let rounds = whole.to_string();
    let args = [&args[..], &[&rounds]].concat();
    fails(home.path(), &args, 2, &["interrupted", "--resume"]);
    let other = [&args[..], &["--resume", "--touch", "none"]].concat();
    fails(home.path(), &other, 2, &["other settings"]);
    let (code, _, stderr) = run(home.path(), &[&args[..], &["--resume"]].concat());
    assert_eq!(code, 0, "{stderr}");
    let all = rows(&runs);
    assert_eq!(all.len(), whole);
    assert_eq!(all[..kept.len()], kept[..], "what was finished is not measured again");
    let ids: BTreeSet<&String> = all.iter().map(|row| &row["run_id"]).collect();
    assert_eq!(ids.len(), whole);
}

#[test]
fn a_run_that_takes_a_folder_over_leaves_no_line_of_the_one_before() {
    let home = tempfile::tempdir().unwrap();
    let args = |program| ["run", "--exec", program, "-a", "system", "--runs", "1", "--out", "out"];
    let (code, _, stderr) = run(home.path(), &args("true"));
    assert_eq!((code, rows(&home.path().join("out/runs.csv")).len()), (0, 1), "{stderr}");
    let mut second = bench_cli(home.path()).args(args("sleep 1000")).spawn().unwrap();
    let running = || fs::read_to_string(home.path().join("out/manifest.json")).unwrap();
    while !running().contains("sleep 1000") {
        assert!(second.try_wait().unwrap().is_none(), "it runs");
        std::thread::sleep(Duration::from_millis(5));
    }
    // Nothing that it could still write.
    second.kill().unwrap();
    second.wait().unwrap();
    assert!(rows(&home.path().join("out/runs.csv")).is_empty());
}

#[test]
fn a_program_is_timed_under_each_allocator_and_its_output_compared() {
    let home = tempfile::tempdir().unwrap();
    let Some(bump) = library(home.path(), "bump", &bump_allocator(""), &[]) else { return };
    let allocators = format!("system,{}", bump.display());
    let args = ["run", "--exec", "ls -d /", "-a", &allocators, "--runs", "2", "--out", "out"];
    let (code, stdout, stderr) = run(home.path(), &args);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("same output"), "{stdout}");
    for row in rows(&home.path().join("out/runs.csv")) {
        assert_eq!(row["workload"], "ls -d /");
        assert_eq!((row["exit_status"].as_str(), row["output_bytes"].as_str()), ("0", "2"));
        assert!(row["peak_rss_bytes"].parse::<u64>().unwrap() > 100_000);
    }
}

#[test]
fn a_program_that_crashes_under_one_allocator_alone_is_that_allocators_fault() {
    let home = tempfile::tempdir().unwrap();
    let source = bump_allocator("__builtin_trap();");
    let Some(crash) = library(home.path(), "crash", &source, &[]) else { return };
    let allocators = format!("system,{}", crash.display());
    let args = ["run", "--exec", "ls -d /", "-a", &allocators, "--runs", "1", "--out", "out"];
    let (code, stdout, stderr) = run(home.path(), &args);
    assert_eq!(code, 6, "{stdout}{stderr}");
    let (code, _, _) = run(home.path(), &["run", "--exec", "false", "-a", "system", "--runs", "1"]);
    assert_eq!(code, 0, "a program that fails by itself is nobody's fault");
}

#[test]
fn a_workload_runs_by_name_with_as_many_threads_as_asked_for() {
    let home = tempfile::tempdir().unwrap();
    let args = ["run", "larson", "-a", "system", "-t", "3", "--scale", "0.02", "--runs", "1"];
    let (code, _, stderr) = run(home.path(), &[&args[..], &["--out", "out"]].concat());
    assert_eq!(code, 0, "{stderr}");
    for row in rows(&home.path().join("out/runs.csv")) {
        assert_eq!((row["workload"].as_str(), row["threads"].as_str()), ("larson", "3"));
        assert_eq!(row["order"], "deps");
    }
}

#[test]
fn our_own_allocator_is_proven_to_serve_and_its_options_are_checked() {
    let home = tempfile::tempdir().unwrap();
    let trace = trace(home.path(), 4000);
    let trace = trace.to_str().unwrap();
    let (_, path, stderr) = run(home.path(), &["preload", "--print"]);
    assert_eq!(path.lines().count(), 1, "{stderr}");
    let args = ["run", trace, "-a", "ours,system", "--runs", "1", "--verify", "--out", "out"];
    let (code, _, stderr) = run(home.path(), &args);
    assert_eq!(code, 0, "{stderr}");
    let all = rows(&home.path().join("out/runs.csv"));
    let ours: Vec<_> = all.iter().filter(|row| row["allocator"] == "ours").collect();
    assert_eq!(ours.len(), 4);
    for row in ours {
        assert_eq!(row["library"], path.trim());
    }
    fails(home.path(), &["run", trace, "-a", "ours?colour=red"], 2, &["colour=red"]);
}

#[test]
fn pressure_adds_rows_with_their_limit() {
    let home = tempfile::tempdir().unwrap();
    let trace = trace(home.path(), 4000);
    let args = ["run", trace.to_str().unwrap(), "-a", "system", "--runs", "1", "--out", "out"];
    let args = [&args[..], &["--pass", "throughput", "--pressure", "as:800%"]].concat();
    let (code, stdout, stderr) = run(home.path(), &args);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("as:800%"), "{stdout}");
    let all = rows(&home.path().join("out/runs.csv"));
    assert_eq!(all.len(), 2);
    let free: u64 = all[0]["peak_rss_bytes"].parse().unwrap();
    assert_eq!((all[0]["pressure"].as_str(), all[0]["limit_bytes"].as_str()), ("", ""));
    assert_eq!(all[1]["pressure"], "as:800%");
    assert_eq!(all[1]["limit_bytes"], (free * 8).to_string());
}

#[test]
fn a_share_of_its_own_peak_is_a_limit_of_each_allocators_own() {
    let home = tempfile::tempdir().unwrap();
    let trace = trace(home.path(), 4000);
    let args = ["run", trace.to_str().unwrap(), "-a", "system,ours", "--runs", "1", "--out", "out"];
    let args = [&args[..], &["--pass", "throughput", "--pressure", "own:3000%"]].concat();
    let (code, _, stderr) = run(home.path(), &args);
    if code == 5 {
        return eprintln!("skipped: {stderr}");
    }
    assert_eq!(code, 0, "{stderr}");
    let all = rows(&home.path().join("out/runs.csv"));
    for allocator in ["system", "ours"] {
        let own = |pressure: &str| {
            let is_it = |row: &&BTreeMap<String, String>| {
                row["allocator"] == allocator && row["pressure"] == pressure
            };
            all.iter().find(is_it).unwrap()
        };
        let peak: u64 = own("")["peak_rss_bytes"].parse().unwrap();
        assert_eq!(own("own:3000%")["limit_bytes"], (peak * 30).to_string());
    }
}

#[test]
fn every_disturbance_ends_with_its_run_and_is_counted() {
    let home = tempfile::tempdir().unwrap();
    // Every object is a mapping of its own, so the n-th call for memory is the n-th object.
    let text: String = (0..8).map(|i| format!("1: malloc {:#x} 4194304\n", 0x1000 + i)).collect();
    let trace = home.path().join("large.txt");
    fs::write(&trace, text).unwrap();
    let args = ["run", trace.to_str().unwrap(), "-a", "system", "--runs", "1", "--out", "out"];
    let pressures = "balloon:8M,churn:2,forks:1,fail:3,fail:3+";
    let args = [&args[..], &["--pass", "throughput,syscalls", "--pressure", pressures]].concat();
    let (code, stdout, stderr) = run(home.path(), &args);
    assert_eq!(code, 0, "{stdout}{stderr}");
    let all = rows(&home.path().join("out/runs.csv"));
    let refused = |pressure: &str| {
        let row = all.iter().find(|r| r["pressure"] == pressure && r["pass"] == "throughput");
        row.unwrap()["failed_allocations"].parse::<u64>().unwrap()
    };
    for pressure in ["", "balloon:8388608", "churn:2", "forks:1"] {
        assert_eq!(refused(pressure), 0, "{pressure}");
    }
    // glibc asks a second time, in another way, when a mapping of its own is refused.
    assert_eq!((refused("fail:3"), refused("fail:3+")), (0, 6));
    let free = all.iter().find(|r| r["pressure"].is_empty() && r["pass"] == "syscalls").unwrap();
    assert!(free["system_calls"].parse::<u64>().unwrap() >= 8, "{free:?}");
    let calls = rows(&home.path().join("out/syscalls.csv"));
    let of = |id: &str, call: &str| {
        let row = calls.iter().find(|row| row["run_id"] == id && row["call"] == call);
        row.unwrap()["count"].parse::<u64>().unwrap()
    };
    assert!(of(&free["run_id"], "mmap") >= 8);
    let failing = all.iter().find(|r| r["pressure"] == "fail:3").unwrap();
    assert_eq!(of(&failing["run_id"], "injected_failures"), 1);
    let counted =
        all.iter().find(|r| r["pressure"] == "fail:3" && r["pass"] == "syscalls").unwrap();
    let its = calls.iter().filter(|row| row["run_id"] == counted["run_id"]);
    let real = its.filter(|row| row["call"] != "injected_failures");
    let sum: u64 = real.map(|row| row["count"].parse::<u64>().unwrap()).sum();
    assert_eq!(counted["system_calls"], sum.to_string(), "what failed is counted once");
}

#[test]
fn a_limit_too_small_for_a_thread_is_a_result_and_no_fault() {
    let home = tempfile::tempdir().unwrap();
    // A library whose every object is a mapping of its own has no room left for a second thread's.
    let text: String =
        (0..8).map(|i| format!("{}: malloc {:#x} 4194304\n", i % 2 + 1, 0x1000 + i)).collect();
    let trace = home.path().join("threads.txt");
    fs::write(&trace, text).unwrap();
    let args = ["run", trace.to_str().unwrap(), "-a", "system", "--runs", "1", "--out", "out"];
    let args = [&args[..], &["--pass", "throughput", "--pressure", "as:4096"]].concat();
    let (code, _, stderr) = run(home.path(), &args);
    assert_eq!(code, 0, "{stderr}");
    let all = rows(&home.path().join("out/runs.csv"));
    let (end, refused) = (&all[1]["end"], &all[1]["failed_allocations"]);
    assert!(end.starts_with("out of memory") || refused == "8", "{end}, {refused} refused");
}

#[test]
fn refused_memory_is_counted_and_no_crash() {
    let home = tempfile::tempdir().unwrap();
    let text: String = (0..64).map(|i| format!("1: malloc {:#x} 4194304\n", 0x1000 + i)).collect();
    let trace = home.path().join("large.txt");
    fs::write(&trace, text).unwrap();
    let args = ["run", trace.to_str().unwrap(), "-a", "system", "--runs", "1", "--out", "out"];
    let args = [&args[..], &["--pass", "throughput", "--pressure", "as:64M"]].concat();
    let (code, _, stderr) = run(home.path(), &args);
    assert_eq!(code, 0, "{stderr}");
    let all = rows(&home.path().join("out/runs.csv"));
    assert_eq!(all[0]["failed_allocations"], "0");
    let refused: u64 = all[1]["failed_allocations"].parse().unwrap();
    assert!((45..=56).contains(&refused), "16 of 64 fit into 64 MiB at most, {refused} refused");
}

#[test]
fn a_run_is_exported_to_other_tools() {
    let home = tempfile::tempdir().unwrap();
    let trace = trace(home.path(), 1000);
    let args = ["run", trace.to_str().unwrap(), "-a", "system", "--runs", "1", "--out", "out"];
    assert_eq!(run(home.path(), &args).0, 0);
    let (_, markdown, _) = run(home.path(), &["export", "out"]);
    assert!(markdown.starts_with("| workload |") && markdown.contains("| system |"), "{markdown}");
    let columns = |line: &str| line.matches('|').count();
    assert!(markdown.lines().all(|line| columns(line) == 12), "{markdown}");
    let (_, metrics, _) = run(home.path(), &["export", "out", "--to", "openmetrics"]);
    assert!(metrics.ends_with("# EOF\n") && metrics.contains("bench_time_seconds{"), "{metrics}");
    // What an earlier run into the same folder left is none of this one's.
    let logs = home.path().join("out/hist");
    let log = fs::read_dir(&logs).unwrap().next().unwrap().unwrap().path();
    fs::copy(log, logs.join("stale.hlog")).unwrap();
    let (code, _, stderr) = run(home.path(), &["export", "out", "--to", "hgrm"]);
    assert_eq!(code, 0, "{stderr}");
    let names = fs::read_dir(home.path().join("out/hgrm")).unwrap();
    let names: Vec<_> = names.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.len() > 2 && names.iter().all(|name| !name.starts_with("stale")), "{names:?}");
    fails(home.path(), &["export", "nowhere"], 2, &["nowhere", "manifest.json"]);
}

#[test]
fn lists_are_json_for_machines() {
    let home = tempfile::tempdir().unwrap();
    for (what, expected) in
        [("workloads", "larson"), ("allocators", "system"), ("metrics", "run_id")]
    {
        let (code, json, stderr) = run(home.path(), &["list", what, "--format", "json"]);
        assert_eq!(code, 0, "{stderr}");
        let entries: Vec<serde_json::Value> = serde_json::from_str(&json).unwrap();
        assert!(entries.iter().any(|entry| entry["name"] == expected), "{what}");
    }
}

#[test]
fn doctor_gives_a_reason_for_everything_that_limits() {
    let home = tempfile::tempdir().unwrap();
    let (code, json, stderr) = run(home.path(), &["doctor", "--quick", "--format", "json"]);
    assert_eq!(code, 0, "{stderr}");
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    let findings = report["findings"].as_array().unwrap();
    assert!(findings.len() >= 12);
    for finding in findings {
        assert!(!finding["why"].as_str().unwrap().is_empty());
        assert!(finding["state"] != "limits" || finding["fix"].is_string(), "{finding}");
    }
}

#[test]
fn packagers_get_completions_and_a_manual_page_per_subcommand() {
    let home = tempfile::tempdir().unwrap();
    let (code, script, _) = run(home.path(), &["completions", "bash"]);
    assert!(code == 0 && script.contains("bench-cli"));
    assert_eq!(run(home.path(), &["man", "man"]).0, 0);
    let page = fs::read_to_string(home.path().join("man/bench-cli-run.1")).unwrap();
    assert!(page.contains("bench\\-cli\\-run") || page.contains("bench-cli-run"), "{page}");
}
