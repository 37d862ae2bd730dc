//! The gate as its users run it: two libraries in, an exit code and files out.
//!
//! Times on a busy machine prove little, so what is slowed here is slowed grossly, and equal
//! libraries are only asked not to fail. How finely the verdict sees is tested by simulation
//! (`verdict::simulation`) and measured by `bench-cli calibrate`.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// A workload of a few milliseconds.
const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny-churn.toml");

/// Runs `bench-cli` and returns what it said.
fn bench_cli(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bench-cli")).args(args).output().expect("bench-cli starts")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Compiles the fixture; `None`, saying so, where there is no C compiler.
fn library(folder: &Path, name: &str, defines: &[&str]) -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/slow-malloc.c");
    let path = folder.join(name);
    let status = Command::new("cc")
        .args(["-O1", "-shared", "-fPIC", "-fno-builtin"])
        .args(defines)
        .arg("-o")
        .arg(&path)
        .arg(source)
        .status();
    match status {
        Ok(status) if status.success() => Some(path),
        _ => {
            eprintln!("skipped: no C compiler that builds the fixture");
            None
        }
    }
}

fn gate(base: &Path, head: &Path, out: &Path, more: &[&str]) -> Output {
    let (base, head, out) = (base.to_string_lossy(), head.to_string_lossy(), out.to_string_lossy());
    let mut args = vec!["gate", TINY, "--base", &base, "--head", &head, "--out", &out];
    args.extend(["--budget", "30m"]);
    args.extend(more);
    bench_cli(&args)
}

#[test]
fn a_library_slowed_on_purpose_fails_with_every_file_written() {
    let folder = tempfile::tempdir().unwrap();
    let Some(base) = library(folder.path(), "base.so", &[]) else { return };
    let Some(head) = library(folder.path(), "head.so", &["-DSPIN=40"]) else { return };
    let out = folder.path().join("out");
    let output = gate(&base, &head, &out, &["--junit", "--github"]);
    assert_eq!(output.status.code(), Some(3), "{}{}", stdout(&output), stderr(&output));
    assert!(stdout(&output).contains("FAIL tiny-churn-1t: +"), "{}", stdout(&output));
    assert!(stdout(&output).contains("::error title=performance gate::FAIL tiny-churn-1t"));
    for file in ["verdicts.csv", "blocks.csv", "manifest.json", "junit.xml", "comment.md"] {
        assert!(out.join(file).is_file(), "{file}");
    }
    assert!(fs::read_to_string(out.join("junit.xml")).unwrap().contains("<failure"));
    // 12 blocks of the screen and 24 fresh ones, four processes each, and the header.
    assert_eq!(fs::read_to_string(out.join("blocks.csv")).unwrap().lines().count(), 1 + 36 * 4);
    let page = bench_cli(&["report", &out.to_string_lossy()]);
    assert!(page.status.success(), "{}", stderr(&page));
    assert!(fs::read_to_string(out.join("report.html")).unwrap().contains("FAIL tiny-churn-1t"));
}

#[test]
fn the_same_slowdown_injected_into_the_worker_fails_and_compare_only_tells() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let system = Path::new("system");
    let output = gate(system, system, &out, &["--inject-slowdown", "100%"]);
    assert_eq!(output.status.code(), Some(3), "{}{}", stdout(&output), stderr(&output));
    let out = out.to_string_lossy().into_owned();
    let args = ["compare", "system", "system", TINY, "--inject-slowdown", "100%"];
    let told = bench_cli(&[&args[..], &["--out", &out, "--budget", "30m"]].concat());
    assert_eq!(told.status.code(), Some(0), "{}", stderr(&told));
    assert!(stdout(&told).contains("FAIL tiny-churn-1t"), "{}", stdout(&told));
}

#[test]
fn two_copies_of_one_library_never_fail_and_never_crash() {
    let folder = tempfile::tempdir().unwrap();
    let Some(base) = library(folder.path(), "base.so", &[]) else { return };
    let head = folder.path().join("head.so");
    fs::copy(&base, &head).unwrap();
    let output = gate(&base, &head, &folder.path().join("out"), &["--allow-inconclusive"]);
    assert_eq!(output.status.code(), Some(0), "{}{}", stdout(&output), stderr(&output));
}

#[test]
fn a_head_that_crashes_is_an_allocator_fault_and_says_which_side() {
    let folder = tempfile::tempdir().unwrap();
    let Some(base) = library(folder.path(), "base.so", &[]) else { return };
    let Some(head) = library(folder.path(), "head.so", &["-DCRASH"]) else { return };
    let out = folder.path().join("out");
    let output = gate(&base, &head, &out, &["--format", "json"]);
    assert_eq!(output.status.code(), Some(6), "{}{}", stdout(&output), stderr(&output));
    assert!(stdout(&output).contains("head crashed (SIGSEGV)"), "{}", stdout(&output));
    assert!(out.join("verdicts.csv").is_file());
}

#[test]
fn a_budget_too_short_for_a_verdict_is_inconclusive_whatever_the_difference() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let out = out.to_string_lossy();
    let args = ["gate", TINY, "--base", "system", "--head", "system", "--out", &out];
    let hurried = ["--inject-slowdown", "300%", "--budget", "1s"];
    let output = bench_cli(&[&args[..], &hurried].concat());
    assert_eq!(output.status.code(), Some(4), "{}{}", stdout(&output), stderr(&output));
    let allowed = bench_cli(&[&args[..], &hurried, &["--allow-inconclusive"]].concat());
    assert_eq!(allowed.status.code(), Some(0), "{}", stderr(&allowed));
}

#[test]
fn a_stored_baseline_fails_what_grew_beyond_it_and_is_refused_under_another_key() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (out, stored) = (file("out"), file("b.json"));
    let gate = |more: &[&str]| {
        let args = ["gate", TINY, "--base", "system", "--head", "system", "--out", &out];
        bench_cli(&[&args[..], &["--budget", "1s", "--allow-inconclusive"], more].concat())
    };
    let saved = gate(&["--save-baseline", &stored]);
    assert_eq!(saved.status.code(), Some(0), "{}", stderr(&saved));
    let mut document: serde_json::Value =
        serde_json::from_slice(&fs::read(&stored).unwrap()).unwrap();
    document["cells"]["tiny-churn-1t"]["counts"]["minor_faults"] = 1.into();
    fs::write(&stored, document.to_string()).unwrap();
    let grown = gate(&["--baseline", &stored]);
    assert_eq!(grown.status.code(), Some(3), "{}{}", stdout(&grown), stderr(&grown));
    assert!(stdout(&grown).contains("FAIL tiny-churn-1t: minor_faults_against_stored 1 →"));
    document["key"]["libc"] = "1.0".into();
    fs::write(&stored, document.to_string()).unwrap();
    let refused = gate(&["--baseline", &stored]);
    assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("stored under `1.0`"), "{}", stderr(&refused));
}

/// The first of `PATH` is a folder with a valgrind that writes `counting`, and never ends.
fn endless_valgrind(folder: &Path) -> OsString {
    let valgrind = folder.join("valgrind");
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = --version ] && echo valgrind-0 && exit\n\
         : > '{}'; exec sleep 1000\n",
        folder.join("counting").display()
    );
    fs::write(&valgrind, script).unwrap();
    fs::set_permissions(&valgrind, fs::Permissions::from_mode(0o755)).unwrap();
    let mut path = folder.as_os_str().to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    path
}

#[test]
fn a_gate_interrupted_while_it_counts_is_interrupted_and_stores_no_baseline() {
    let folder = tempfile::tempdir().unwrap();
    let (out, stored) = (folder.path().join("out"), folder.path().join("b.json"));
    let mut gate = Command::new(env!("CARGO_BIN_EXE_bench-cli"));
    gate.args(["gate", TINY, "--base", "system", "--head", "system", "--instructions"]);
    gate.args(["--budget", "1s", "--allow-inconclusive", "--save-baseline"]).arg(&stored);
    gate.arg("--out").arg(&out).env("PATH", endless_valgrind(folder.path()));
    let mut gate = gate.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while !folder.path().join("counting").exists() {
        assert!(gate.try_wait().unwrap().is_none(), "it counts");
        thread::sleep(Duration::from_millis(5));
    }
    kill_process(Pid::from_child(&gate), Signal::INT).unwrap();
    let output = gate.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}{}", stdout(&output), stderr(&output));
    assert!(!stderr(&output).contains("cannot be counted"), "{}", stderr(&output));
    let manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(out.join("manifest.json")).unwrap()).unwrap();
    assert_eq!((&manifest["state"], stored.exists()), (&"interrupted".into(), false));
}

#[test]
fn without_valgrind_instructions_are_refused_before_anything_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let mut gate = Command::new(env!("CARGO_BIN_EXE_bench-cli"));
    gate.args(["gate", TINY, "--base", "system", "--head", "system", "--instructions", "--out"]);
    let output = gate.arg(&out).env("PATH", folder.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
    assert!(stderr(&output).contains("valgrind is not installed"), "{}", stderr(&output));
    assert!(!out.exists(), "nothing was begun");
}

#[test]
fn a_process_may_take_as_long_as_the_gate_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let Some(hangs) = library(folder.path(), "hangs.so", &["-DSPIN=100000000"]) else { return };
    let output = gate(&hangs, &hangs, &folder.path().join("out"), &["--timeout", "1s"]);
    assert_eq!(output.status.code(), Some(6), "{}{}", stdout(&output), stderr(&output));
    assert!(stdout(&output).contains("hung"), "{}", stdout(&output));
}

#[test]
fn a_layout_floor_outlives_whatever_ends_its_calibration_and_a_calibration_without_twins() {
    let home = tempfile::tempdir().unwrap();
    let calibrate = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bench-cli"));
        command.current_dir(home.path()).env("XDG_CACHE_HOME", home.path().join("cache"));
        // A margin that no noise comes near, so that no floor leaves too little room.
        command.args(["calibrate", TINY, "--out", "out", "--max-slowdown", "99%"]).args(more);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
        let kept = fs::read(home.path().join("cache/bench-cli/calibration.json")).unwrap();
        let kept: serde_json::Value = serde_json::from_slice(&kept).unwrap();
        (kept["layout_floor"].as_f64().expect("a floor"), kept["alike"]["gates"].as_u64().unwrap())
    };
    let (measured, alike) = calibrate(&["--relinked", "system", "--gates", "0"]);
    assert_eq!(alike, 0, "it ended after the twins");
    // A kernel that boots anew keeps a little more memory for itself.
    let file = home.path().join("cache/bench-cli/calibration.json");
    let mut there: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let memory = there["machine"]["memory_bytes"].as_u64().unwrap();
    there["machine"]["memory_bytes"] = (memory - 4096).into();
    fs::write(&file, there.to_string()).unwrap();
    let (kept, alike) = calibrate(&["--gates", "1"]);
    assert!((kept - measured).abs() < 1e-9, "{kept} for {measured}");
    assert_eq!(alike, 1);
    let (_, alike) = calibrate(&["--relinked", "system", "--gates", "0"]);
    assert_eq!(alike, 1, "a new floor takes nothing else back");
    // Slowed heads say nothing about linking: their twins are measured as they are.
    let (unslowed, _) =
        calibrate(&["--relinked", "system", "--gates", "0", "--inject-slowdown", "300%"]);
    assert!(unslowed < 0.5, "{unslowed}");
}

#[test]
fn the_help_of_calibrate_says_that_its_budget_is_that_of_all_gates() {
    let help = stdout(&bench_cli(&["calibrate", "--help"]));
    assert!(help.contains("the whole calibration") && !help.contains("undecided"), "{help}");
    assert!(stdout(&bench_cli(&["gate", "--help"])).contains("undecided by then"));
}

#[test]
fn what_is_misspelt_or_missing_is_refused_before_anything_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("t.toml");
    fs::write(&config, "[gate]\nmax_slowdwon = \"5%\"\n").unwrap();
    let config = config.to_string_lossy();
    let out = folder.path().join("out");
    let out = out.to_string_lossy();
    let check = |args: &[&str], message: &str| {
        let output = bench_cli(&[&["gate", "--out", &out], args].concat());
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(message), "{args:?}: {}", stderr(&output));
        assert!(!stderr(&output).contains("backtrace"), "{}", stderr(&output));
    };
    check(&[], "no base");
    check(&["--base", "system", "--config", &config], "did you mean `max_slowdown`");
    check(&["--base", "system", "--config", "nowhere.toml"], "nowhere.toml");
    check(&["--base", "./nowhere.so"], "nowhere.so");
    check(&["--base", "system", "--head", "system", "larsen"], "larsen");
    check(&["--base", "system", "--max-slowdown", "5"], "percent sign");
    // Minutes of measuring would be lost on a file that cannot be written in the end.
    check(&["--base", "system", TINY, "--junit", "/proc/j.xml"], "cannot write `/proc/j.xml`");
    check(&["--base", "system", TINY, "--save-baseline", "/proc/b.json"], "`/proc/b.json`");
    check(&["--base", "system", TINY, "--baseline", "nowhere.json"], "nowhere.json");
    let output = bench_cli(&["gate", "--base", "system", "--out", "/proc/nowhere"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("/proc/nowhere"), "{}", stderr(&output));
}

#[test]
fn explain_says_what_is_checked_without_measuring() {
    let output = bench_cli(&["gate", TINY, "--explain"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("tiny-churn-1t: must be shown < 5 % slower"));
}

#[test]
fn explain_knows_the_layout_floor_of_this_machine_and_refuses_one_that_leaves_no_room() {
    let home = tempfile::tempdir().unwrap();
    let explain = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bench-cli"));
        command.current_dir(home.path()).env("XDG_CACHE_HOME", home.path().join("cache"));
        command.args(["gate", TINY, "--explain"]).output().unwrap()
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench-cli"));
    command.current_dir(home.path()).env("XDG_CACHE_HOME", home.path().join("cache"));
    let calibrated = command.args(["calibrate", TINY, "--out", "out", "--gates", "1"]).output();
    assert!(calibrated.unwrap().status.success());
    let file = home.path().join("cache/bench-cli/calibration.json");
    let mut there: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let mut with = |floor: f64| {
        there["layout_floor"] = floor.into();
        fs::write(&file, there.to_string()).unwrap();
        explain()
    };
    let (small, large, none) = (with(0.012), with(0.4), with(0.0));
    assert_eq!(small.status.code(), Some(0), "{}", stderr(&small));
    assert!(stdout(&small).contains("1.2 %"), "{}", stdout(&small));
    assert!(!stdout(&none).contains("1.2 %"), "{}", stdout(&none));
    assert_eq!(large.status.code(), Some(2), "{}", stdout(&large));
}
