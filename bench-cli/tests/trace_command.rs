//! `bench-cli trace` and `gen` as scripts meet them: names, exit codes, messages, whole files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const BENCH_CLI: &str = env!("CARGO_BIN_EXE_bench-cli");

fn bench_cli(arguments: &[&str]) -> Output {
    Command::new(BENCH_CLI).env("RUST_BACKTRACE", "1").args(arguments).output().unwrap()
}

fn sample(name: &str) -> String {
    let traces = Path::new(env!("CARGO_MANIFEST_DIR")).join("../traces/tests/data");
    traces.join(name).display().to_string()
}

fn ok(arguments: &[&str]) -> String {
    let output = bench_cli(arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// The message of a command that must fail with `code`.
fn fails(code: i32, arguments: &[&str]) -> String {
    let output = bench_cli(arguments);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {message}");
    assert!(message.starts_with("error: ") && message.contains("help: "), "{message}");
    assert!(!message.contains("stack backtrace") && !message.contains("panicked"), "{message}");
    message
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

fn folder() -> (tempfile::TempDir, impl Fn(&str) -> String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    (folder, move |name: &str| path.join(name).display().to_string())
}

fn names(folder: &tempfile::TempDir) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn info_as_json_has_the_names_scripts_rely_on() {
    let told = json(&ok(&["trace", "info", &sample("android.txt"), "--format", "json"]));
    for name in ["malloc", "calloc", "realloc", "memalign", "free", "free_null", "thread_done"] {
        assert!(told["operations"][name].is_u64(), "operations.{name}");
    }
    for name in [
        "threads",
        "cross_thread_frees",
        "peak_live_bytes",
        "peak_live_objects",
        "final_live_bytes",
        "final_live_objects",
    ] {
        assert!(told[name].is_u64(), "{name}");
    }
    assert!(told["census"].is_object());
    assert_eq!(told["operations"]["free_null"], 1);
}

#[test]
fn info_of_systemui_has_the_published_counts() {
    let Some(data) = std::env::var_os("ALLOCATOR_TEST_DATA") else {
        eprintln!("skipped: ALLOCATOR_TEST_DATA is not set");
        return;
    };
    let path = PathBuf::from(data).join("systemui.zip").display().to_string();
    let told = json(&ok(&["trace", "info", &path, "--format", "json"]));
    assert_eq!(told["operations"]["malloc"], 383_154);
    assert_eq!(told["peak_live_bytes"], 10_441_709);
    assert_eq!(told["cross_thread_frees"], 39_466);
}

#[test]
fn a_trace_that_cannot_be_read_ends_with_exit_code_7_and_says_what_to_do() {
    let (folder, path) = folder();
    fs::write(path("empty"), "").unwrap();
    fs::write(path("noise"), b"\x01\x02 nothing known").unwrap();
    fs::write(path("bad.txt"), "1: malloc 0x10 8\n1: malloc 0x20 x\n").unwrap();
    fs::write(path("zip.zip"), b"PK\x03\x04 and no more").unwrap();
    assert!(fails(7, &["trace", "info", &path("missing")]).contains("No such file"));
    assert!(fails(7, &["trace", "info", &path("")]).contains("directory"));
    assert!(fails(7, &["trace", "info", &path("empty")]).contains("is empty"));
    fails(7, &["trace", "info", &path("noise")]);
    fails(7, &["trace", "info", &path("zip.zip")]);
    assert!(fails(7, &["trace", "info", &path("bad.txt")]).contains("line 2, column 16"));
    fails(7, &["trace", "verify", &path("bad.txt")]);
    fails(7, &["trace", "convert", &path("bad.txt"), "-o", &path("out.atrace")]);
    fails(7, &["trace", "export", &path("bad.txt"), "-o", &path("out.csv")]);
    assert_eq!(names(&folder), ["bad.txt", "empty", "noise", "zip.zip"], "nothing half-written");
}

#[test]
fn strict_refuses_what_would_be_repaired() {
    let message = fails(7, &["trace", "info", &sample("mtrace.txt"), "--strict"]);
    assert!(message.contains("unknown_free 1"), "{message}");
    ok(&["trace", "info", &sample("android.txt"), "--strict"]);
}

#[test]
fn usage_errors_end_with_exit_code_2() {
    let (_folder, path) = folder();
    let trace = sample("android.txt");
    let out = path("o.atrace");
    fails(2, &["trace", "convert", &trace, "-o", &path("no/such/folder/o.atrace")]);
    fails(2, &["trace", "cut", &trace, "--time", "5", "-o", &out]);
    fails(2, &["trace", "cut", &trace, "--time", "5h..", "-o", &out]);
    fails(2, &["trace", "anonymize", &trace, "--resolution", "soon", "-o", &out]);
    fails(2, &["trace", "shrink", &trace, "-o", &out, "--", "true"]);
    fails(2, &["trace", "shrink", &trace, "-o", &out, "--", "true", "{}"]);
    fails(2, &["trace", "export", &trace, "--to", "container"]);
    fails(2, &["gen", &path("missing.json"), "-o", &out]);
    fs::write(path("bad.json"), "{\"version\": 99}").unwrap();
    fails(2, &["gen", &path("bad.json"), "-o", &out]);
    assert!(!Path::new(&out).exists());
}

#[test]
fn every_verb_that_writes_makes_a_trace_that_verifies() {
    let (folder, path) = folder();
    let trace = sample("calls.csv");
    ok(&["trace", "convert", &trace, "-o", &path("a.atrace")]);
    ok(&["trace", "cut", &path("a.atrace"), "--time", "40ns..100ns", "-o", &path("b.atrace")]);
    ok(&["trace", "merge", &path("a.atrace"), &path("b.atrace"), "-o", &path("c.atrace")]);
    ok(&["trace", "anonymize", &path("c.atrace"), "-o", &path("d.atrace")]);
    ok(&["trace", "fit", &path("c.atrace"), "-o", &path("p.json"), "--fleet", &path("f.csv")]);
    ok(&["gen", &path("p.json"), "-o", &path("e.atrace"), "--scale", "10", "--seed", "3"]);
    ok(&["gen", &path("f.csv"), "-o", &path("g.atrace"), "--allocations", "1000", "--heap", "1"]);
    let made: Vec<String> =
        ["a", "b", "c", "d", "e", "g"].iter().map(|name| path(&format!("{name}.atrace"))).collect();
    let mut verify = vec!["trace", "verify"];
    verify.extend(made.iter().map(String::as_str));
    let told = ok(&verify);
    assert_eq!(told.matches(": sound").count(), 6, "{told}");
    assert!(names(&folder).iter().all(|name| !name.starts_with('.')), "no remains");
}

#[test]
fn a_cut_that_holds_nothing_leaves_the_file_at_its_output_alone() {
    let (folder, path) = folder();
    fs::write(path("old.atrace"), "made before").unwrap();
    let untimed = sample("android.txt");
    let message =
        fails(2, &["trace", "cut", &untimed, "--time", "1s..", "-o", &path("old.atrace")]);
    assert!(message.contains("nothing was written"), "{message}");
    assert_eq!(fs::read_to_string(path("old.atrace")).unwrap(), "made before");
    // The output may be the trace itself.
    ok(&["trace", "convert", &sample("calls.csv"), "-o", &path("a.atrace")]);
    let whole = fs::read(path("a.atrace")).unwrap();
    fails(2, &["trace", "cut", &path("a.atrace"), "--time", "1h..", "-o", &path("a.atrace")]);
    assert_eq!(fs::read(path("a.atrace")).unwrap(), whole);
    ok(&["trace", "cut", &path("a.atrace"), "--time", "40ns..", "-o", &path("a.atrace")]);
    assert!(fs::read(path("a.atrace")).unwrap() != whole);
    assert_eq!(names(&folder), ["a.atrace", "old.atrace"]);
}

#[test]
fn shrink_keeps_what_makes_the_command_fail() {
    let (_folder, path) = folder();
    let line = |i: u64| {
        let size = if i == 77 { 4242 } else { 8 };
        format!("1: malloc {:#x} {size}\n", 0x1000 + i * 16)
    };
    fs::write(path("t.txt"), (0..200).map(line).collect::<String>()).unwrap();
    let test = format!("! {BENCH_CLI} trace export {{}} | grep -q 4242");
    ok(&["trace", "shrink", &path("t.txt"), "-o", &path("s.atrace"), "--", "sh", "-c", &test]);
    let told = json(&ok(&["trace", "info", &path("s.atrace"), "--format", "json"]));
    assert_eq!(told["operations"]["malloc"], 1);
    assert_eq!(told["allocated_bytes"], 4242);
}

#[test]
fn a_page_with_plots_is_written_whole() {
    let (folder, path) = folder();
    ok(&["trace", "info", &sample("real-ltrace.txt"), "--html", &path("page.html")]);
    let page = fs::read_to_string(path("page.html")).unwrap();
    assert!(page.matches("<svg").count() >= 5 && page.trim_end().ends_with("</html>"));
    assert!(!page.contains("<script") && !page.contains("src="), "loads nothing");
    assert_eq!(names(&folder), ["page.html"]);
}

#[test]
fn diff_tells_what_changed() {
    let (before, after) = (sample("real-ltrace.txt"), sample("real-ltrace-o.txt"));
    let told = json(&ok(&["trace", "diff", &before, &after, "--format", "json"]));
    assert_eq!(told["size_distance"], 0.0, "one program, traced twice");
    let told = ok(&["trace", "diff", &before, &sample("calls.csv")]);
    assert!(told.contains("peak live bytes"), "{told}");
}

#[test]
fn diff_counts_sizes_that_are_not_among_the_hottest() {
    let (_folder, path) = folder();
    let trace = |more: u64| {
        let sizes = (1..=65_u64).flat_map(|size| {
            let count = if size == 65 { 10 + more } else { 10 };
            (0..count).map(move |_| size)
        });
        let line = |(i, size)| format!("1: malloc {:#x} {size}\n", 0x1000 + i * 256);
        sizes.zip(0_u64..).map(|(size, i)| line((i, size))).collect::<String>()
    };
    fs::write(path("before.txt"), trace(1)).unwrap();
    fs::write(path("after.txt"), trace(0)).unwrap();
    let args = ["trace", "diff", &path("before.txt"), &path("after.txt"), "--format", "json"];
    let told = json(&ok(&args));
    let sizes = told["sizes"].as_array().unwrap();
    let first = &sizes[0];
    assert_eq!(
        (&first["size"], &first["before"], &first["after"]),
        (&65.into(), &11.into(), &10.into())
    );
    // The other shares grow a little with the total, and no count changes.
    for size in &sizes[1..] {
        assert_eq!((&size["before"], &size["after"]), (&10.into(), &10.into()), "{size}");
    }
}
