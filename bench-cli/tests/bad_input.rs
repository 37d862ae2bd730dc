//! What users get wrong: each ends with its documented code and a message that says what, why and
//! what to do; never with a backtrace, and never with half a file.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use common::{bench_cli, fails, library, run, trace};

#[test]
fn an_unknown_allocator_is_answered_with_the_near_name() {
    let home = tempfile::tempdir().unwrap();
    let trace = trace(home.path(), 100);
    let args = ["run", trace.to_str().unwrap(), "-a", "system,jemaloc"];
    fails(home.path(), &args, 2, &["unknown allocator `jemaloc`", "help:", "`jemalloc`"]);
    assert!(!home.path().join("bench-out").exists(), "nothing was measured, so nothing is left");
}

#[test]
fn an_unknown_workload_is_answered_with_where_to_find_the_known_ones() {
    let home = tempfile::tempdir().unwrap();
    let words = ["unknown workload `larsen`", "bench-cli list workloads"];
    fails(home.path(), &["run", "larsen", "-a", "system"], 2, &words);
}

#[test]
fn a_missing_trace_is_a_trace_error() {
    let home = tempfile::tempdir().unwrap();
    fails(home.path(), &["run", "./none.atrace", "-a", "system"], 7, &["none.atrace", "help:"]);
}

#[test]
fn a_trace_that_does_not_parse_is_named_with_its_line() {
    let home = tempfile::tempdir().unwrap();
    let path = trace(home.path(), 100);
    let mut text = fs::read_to_string(&path).unwrap();
    text.push_str("1: mallocate 0x10 16\n");
    let line = text.lines().count().to_string();
    fs::write(&path, text).unwrap();
    fails(home.path(), &["run", path.to_str().unwrap(), "-a", "system"], 7, &["tiny.txt", &line]);
}

#[test]
fn a_library_that_is_missing_or_no_allocator_is_refused_before_anything_runs() {
    let home = tempfile::tempdir().unwrap();
    let trace = trace(home.path(), 100);
    let trace = trace.to_str().unwrap();
    fails(home.path(), &["run", trace, "-a", "./none.so"], 2, &["./none.so", "No such file"]);
    let text = home.path().join("text.so");
    fs::write(&text, "INPUT(-lfoo)").unwrap();
    let text = text.to_str().unwrap();
    fails(home.path(), &["run", trace, "-a", text], 2, &["text.so", "no shared library"]);
    if let Some(other) = library(home.path(), "other", "int other(void) { return 1; }", &[]) {
        let other = other.to_str().unwrap();
        fails(home.path(), &["run", trace, "-a", other], 2, &["other.so", "exports no `malloc`"]);
        fails(home.path(), &["run", "--exec", "true", "-a", other], 2, &["exports no `malloc`"]);
    }
    assert!(!home.path().join("bench-out").exists());
}

#[test]
fn a_library_that_the_loader_leaves_out_gives_an_error_and_never_a_number() {
    let home = tempfile::tempdir().unwrap();
    let Some(part) = library(home.path(), "libpart", "int part(void) { return 1; }", &[]) else {
        return;
    };
    let source = format!("int part(void); int use(void) {{ return part(); }}{}", {
        common::bump_allocator("")
    });
    let folder = home.path().to_str().unwrap();
    let args = ["-Wl,--no-as-needed", "-L", folder, "-lpart"];
    let whole = library(home.path(), "whole", &source, &args).unwrap();
    fs::remove_file(part).unwrap();
    let trace = trace(home.path(), 100);
    let args = ["run", trace.to_str().unwrap(), "-a", whole.to_str().unwrap(), "--out", "out"];
    fails(home.path(), &args, 2, &["whole.so cannot be measured", "libpart.so"]);
    assert!(common::rows(&home.path().join("out/runs.csv")).is_empty());
    let args = ["run", "--exec", "true", "-a", whole.to_str().unwrap(), "--out", "exec"];
    fails(home.path(), &args, 2, &["whole.so cannot be measured", "libpart.so"]);
}

#[test]
fn an_output_folder_that_cannot_be_written_is_told_before_anything_runs() {
    let home = tempfile::tempdir().unwrap();
    let trace = trace(home.path(), 100);
    let trace = trace.to_str().unwrap();
    let args = ["run", trace, "-a", "system", "--out", "/dev/null/out"];
    fails(home.path(), &args, 2, &["cannot write results", "--out"]);
    let locked = home.path().join("locked");
    fs::create_dir(&locked).unwrap();
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o555)).unwrap();
    if fs::write(locked.join("probe"), "").is_ok() {
        println!("skipped in part: this user may write anywhere");
        return;
    }
    let args = ["run", trace, "-a", "system", "--out", locked.to_str().unwrap()];
    fails(home.path(), &args, 2, &["cannot write results", "--out"]);
}

#[test]
fn wrong_words_on_the_command_line_are_usage_errors() {
    let home = tempfile::tempdir().unwrap();
    for args in [
        &["run", "--order", "windows:8"][..],
        &["run", "--touch", "everything"],
        &["run", "--pass", "speed"],
        &["run", "--cpus", "3-1"],
        &["run", "--runs", "0"],
        &["run", "--budget", "soon"],
        &["run", "--exec", "echo 'open", "-a", "system"],
        &["run", "--exec", "", "-a", "system"],
        &["run", "larson", "--exec", "true"],
        &["list", "everything"],
        &["nonsense"],
    ] {
        fails(home.path(), args, 2, &["error:"]);
    }
}

#[test]
fn a_processor_that_is_not_there_is_told_before_anything_runs() {
    let home = tempfile::tempdir().unwrap();
    let trace = trace(home.path(), 100);
    let trace = trace.to_str().unwrap();
    let commands: [&[&str]; 4] = [
        &["run", trace, "-a", "system"],
        &["run", "--exec=true", "-a", "system"],
        &["calibrate", trace, "--library", "system"],
        &["gate", trace, "--base", "system", "--head", "system"],
    ];
    for what in commands {
        let args = [what, &["--cpus", "99999"]].concat();
        fails(home.path(), &args, 2, &["no processor 99999 here", "may run on", "--cpus"]);
    }
    assert!(!home.path().join("bench-out").exists());
}

#[test]
fn a_program_that_is_not_there_is_a_usage_error() {
    let home = tempfile::tempdir().unwrap();
    let args = ["run", "--exec", "./no-such-program", "-a", "system"];
    fails(home.path(), &args, 2, &["cannot start `./no-such-program`"]);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let home = tempfile::tempdir().unwrap();
    for args in [&["list", "metrics"][..], &["--help"], &["run", "--help"]] {
        let mut child = bench_cli(home.path())
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn a_full_disk_under_standard_output_is_told() {
    let home = tempfile::tempdir().unwrap();
    if !Path::new("/dev/full").exists() {
        println!("skipped: no /dev/full");
        return;
    }
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = bench_cli(home.path()).args(["list", "metrics"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(stderr.contains("standard output") && !stderr.contains("panicked"), "{stderr}");
}

#[test]
fn there_is_nothing_to_resume_where_nothing_ran() {
    let home = tempfile::tempdir().unwrap();
    let trace = trace(home.path(), 100);
    let args = ["run", trace.to_str().unwrap(), "-a", "system", "--resume", "--out", "out"];
    fails(home.path(), &args, 2, &["no run in `out`", "--out"]);
    let (code, _, _) = run(home.path(), &args[..4]);
    assert_eq!(code, 0);
}
