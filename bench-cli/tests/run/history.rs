//! Results over commits: run directories in, series with their changes out.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::{self, bench_cli, fails, run};

/// A repository in `home` with one commit.
fn repository(home: &Path) {
    let git = |args: &[&str]| {
        let identity = ["-c", "user.name=t", "-c", "user.email=t@localhost"];
        let done = Command::new("git").args(identity).args(args).current_dir(home).output();
        assert!(done.expect("git starts").status.success(), "git {args:?}");
    };
    git(&["init", "-q"]);
    git(&["commit", "-q", "--allow-empty", "-m", "first"]);
}

/// A folder as a gate leaves it, of the `n`-th of many commits, with this time of the head.
fn gate_folder(home: &Path, n: usize, elapsed_ns: u64) -> String {
    let folder = home.join(format!("gate-{n}"));
    fs::create_dir_all(&folder).unwrap();
    let machine = serde_json::json!({
        "processor": "p", "processors": 2, "memory_bytes": 1, "kernel": "k",
        "architecture": "a", "huge_pages": "madvise",
    });
    let manifest = serde_json::json!({
        "schema": 1, "bench_cli": "0", "command": ["bench-cli", "gate"], "state": "completed",
        "started_utc": format!("2026-01-{n:02}T00:00:00Z"), "seed": 1, "generator": "ChaCha8",
        "fingerprint": "f", "machine": machine, "allocators": [],
        "subjects": [{ "name": "larson-2t", "kind": "cell", "stream_hash": null, "events": null }],
        "commit": {
            "hash": format!("{n:040x}"), "committed_utc": format!("2026-01-{n:02}T00:00:00Z"),
            "modified": false,
        },
    });
    fs::write(folder.join("manifest.json"), manifest.to_string()).unwrap();
    let blocks = format!(
        "cell,side,elapsed_ns,minor_faults,peak_rss_bytes,failed_allocations\n\
         larson-2t,base,100,1,1,0\nlarson-2t,head,{elapsed_ns},1,1,0\n"
    );
    fs::write(folder.join("blocks.csv"), blocks).unwrap();
    let verdicts = "cell,metric,slowdown,base_value,head_value\nlarson-2t,elapsed,0.01,,\n";
    fs::write(folder.join("verdicts.csv"), verdicts).unwrap();
    fs::write(folder.join("verdict.json"), "{\"injected_slowdown\": 0.0}").unwrap();
    folder.to_string_lossy().into_owned()
}

/// The values of a history as it exports them.
fn exported(home: &Path, only: &[&str]) -> Vec<BTreeMap<String, String>> {
    let (_, csv, _) = run(home, &[&["history", "export"][..], only].concat());
    csv::Reader::from_reader(csv.as_bytes()).deserialize().map(Result::unwrap).collect()
}

/// Runs the tiny trace once into `out` in `home`.
fn run_once(home: &Path, out: &str, more: &[&str]) {
    common::trace(home, 200);
    let args = ["run", "tiny.txt", "-a", "system", "--pass", "throughput", "--runs", "1", "-q"];
    let (status, _, stderr) = run(home, &[&args[..], &["--out", out], more].concat());
    assert_eq!(status, 0, "{stderr}");
}

#[test]
fn a_folder_that_was_continued_takes_the_place_of_what_was_there() {
    let home = tempfile::tempdir().unwrap();
    run_once(home.path(), "out", &[]);
    let import = || run(home.path(), &["history", "import", "out"]).1;
    let manifest = home.path().join("out/manifest.json");
    let completed = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, completed.replace("\"completed\"", "\"interrupted\"")).unwrap();
    assert!(import().contains("1 folders taken in"), "{}", import());
    // As `--resume` leaves it: in other words, and with a process more.
    fs::write(&manifest, completed.replace("\"run\",", "\"run\", \"--resume\",")).unwrap();
    let runs = home.path().join("out/runs.csv");
    let text = fs::read_to_string(&runs).unwrap();
    fs::write(&runs, format!("{text}{}\n", text.lines().last().unwrap())).unwrap();
    assert!(import().contains("1 folders taken in"), "{}", import());
    assert!(import().contains("0 folders taken in, 1 were there already"), "{}", import());
    let mut rows = exported(home.path(), &[]);
    rows.retain(|row| row["metric"] == "elapsed_ns");
    let processes: Vec<&str> = rows.iter().map(|row| row["processes"].as_str()).collect();
    assert_eq!(processes, ["2"]);
}

#[test]
fn runs_of_several_copies_are_a_series_of_their_own() {
    let home = tempfile::tempdir().unwrap();
    run_once(home.path(), "one", &[]);
    run_once(home.path(), "two", &["--copies", "2"]);
    assert_eq!(run(home.path(), &["history", "import", "one", "two"]).0, 0);
    let mut rows = exported(home.path(), &[]);
    rows.retain(|row| row["metric"] == "elapsed_ns");
    let conditions: Vec<&str> = rows.iter().map(|row| row["conditions"].as_str()).collect();
    assert_eq!(conditions.len(), 2, "{conditions:?}");
    assert_eq!(format!("{} copies=2", conditions[0]), conditions[1]);
}

#[test]
fn a_run_knows_its_commit_and_is_taken_in_once() {
    let home = tempfile::tempdir().unwrap();
    repository(home.path());
    let out = home.path().join("out");
    let out = out.to_string_lossy();
    common::trace(home.path(), 200);
    let args = ["run", "tiny.txt", "-a", "system", "--runs", "2", "-q", "--out", &out];
    let (status, _, stderr) = run(home.path(), &args);
    assert_eq!(status, 0, "{stderr}");
    let (status, stdout, stderr) = run(home.path(), &["history", "import", &out]);
    assert_eq!(status, 0, "{stderr}");
    assert!(stdout.contains("1 folders taken in"), "{stdout}");
    assert!(!stderr.contains("no known commit"), "{stderr}");
    let (_, again, _) = run(home.path(), &["history", "import", &out]);
    assert!(again.contains("0 folders taken in, 1 were there already"), "{again}");
    let (status, shown, stderr) = run(home.path(), &["history", "show", "elapsed_ns"]);
    assert_eq!(status, 0, "{stderr}");
    assert!(shown.contains("elapsed_ns of tiny.txt under system"), "{shown}");
}

#[test]
fn a_change_of_level_is_shown_at_its_commit_and_exported() {
    let home = tempfile::tempdir().unwrap();
    let folders: Vec<String> = (1..=16)
        .map(|n| gate_folder(home.path(), n, if n < 9 { 1000 } else { 1200 } + n as u64 % 3))
        .collect();
    let mut args = vec!["history", "import", "-q"];
    // The order of import is not that of the commits.
    args.extend(folders.iter().rev().map(String::as_str));
    assert_eq!(run(home.path(), &args).0, 0);
    let (status, shown, stderr) =
        run(home.path(), &["history", "show", "elapsed_ns", "-a", "head"]);
    assert_eq!(status, 0, "{stderr}");
    let marked: Vec<&str> = shown.lines().filter(|line| line.starts_with('>')).collect();
    assert_eq!(marked.len(), 1, "{shown}");
    assert!(marked[0].contains("2026-01-09") && marked[0].contains("+20.0 %"), "{shown}");
    let rows = exported(home.path(), &["-w", "larson-2t"]);
    // Four metrics of each side and the slowdown, at sixteen commits.
    assert_eq!(rows.len(), 9 * 16);
    let changed: Vec<_> = rows.iter().filter(|row| !row["changed_to"].is_empty()).collect();
    assert_eq!(changed.len(), 1);
    assert_eq!(changed[0]["time_utc"], "2026-01-09T00:00:00Z");
}

#[test]
fn gates_of_other_libraries_or_other_work_are_other_series() {
    let home = tempfile::tempdir().unwrap();
    let folder = |n: usize, given: &str, hash: &str| {
        let folder = gate_folder(home.path(), n, 1000);
        let file = Path::new(&folder).join("manifest.json");
        let mut manifest: serde_json::Value =
            serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        let note = |role: &str, given: &str| {
            serde_json::json!({
                "name": role, "given": given, "library": null, "library_hash": null, "env": [],
            })
        };
        manifest["allocators"] = serde_json::json!([note("base", "system"), note("head", given)]);
        manifest["subjects"][0]["stream_hash"] = hash.into();
        fs::write(&file, manifest.to_string()).unwrap();
        folder
    };
    let folders = [
        folder(1, "ours", "0123456789abcdef"),
        folder(2, "ours", "0123456789abcdef"),
        folder(3, "jemalloc", "0123456789abcdef"),
        folder(4, "ours", "fedcba9876543210"),
    ];
    let mut args = vec!["history", "import", "-q"];
    args.extend(folders.iter().map(String::as_str));
    assert_eq!(run(home.path(), &args).0, 0);
    let mut points: BTreeMap<(String, String), usize> = BTreeMap::new();
    for row in exported(home.path(), &[]).iter().filter(|row| row["metric"] == "elapsed_ns") {
        *points.entry((row["allocator"].clone(), row["conditions"].clone())).or_default() += 1;
    }
    let series: Vec<(&str, &str, usize)> =
        points.iter().map(|((a, c), n)| (a.as_str(), c.as_str(), *n)).collect();
    assert_eq!(
        series,
        [
            ("base", "gate base=system work=01234567", 3),
            ("base", "gate base=system work=fedcba98", 1),
            ("head", "gate head=jemalloc work=01234567", 1),
            ("head", "gate head=ours work=01234567", 2),
            ("head", "gate head=ours work=fedcba98", 1),
        ]
    );
}

#[test]
fn what_cannot_be_read_is_named_and_keeps_nothing_good_out() {
    let home = tempfile::tempdir().unwrap();
    let (good, half, running) = (
        gate_folder(home.path(), 1, 1000),
        gate_folder(home.path(), 2, 1000),
        gate_folder(home.path(), 3, 1000),
    );
    fs::write(Path::new(&half).join("blocks.csv"), "cell,side\nlarson-2t,ba").unwrap();
    let manifest = Path::new(&running).join("manifest.json");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("completed", "running")).unwrap();
    let import = ["history", "import", &half, &running, &good, "nowhere"];
    let said = fails(home.path(), &import, 2, &["blocks.csv", "is running", "nowhere"]);
    assert_eq!(said.matches("holds no finished results").count(), 3, "{said}");
    let (_, listed, _) = run(home.path(), &["history", "list", "--format", "csv"]);
    assert!(listed.contains("elapsed_ns,2"), "{listed}");
    fails(home.path(), &["history", "show", "elapsd_ns"], 2, &["did you mean `elapsed_ns`"]);
    fails(home.path(), &["history", "import", &good, "--commit", "nope"], 2, &["`nope`"]);

    let file = home.path().join("bench-history.sqlite");
    let sound = fs::read(&file).unwrap();
    fs::write(&file, &sound[..sound.len() / 2]).unwrap();
    fails(home.path(), &["history", "show"], 2, &["is damaged", "import the folders"]);
    fails(home.path(), &["history", "import", &good], 2, &["is damaged"]);
    assert_eq!(fs::metadata(&file).unwrap().len(), sound.len() as u64 / 2, "left as it is");
    fs::write(&file, "a text").unwrap();
    fails(home.path(), &["history", "list"], 2, &["is damaged"]);
    fs::remove_file(&file).unwrap();
    fails(home.path(), &["history", "list"], 2, &["there is no history", "history import"]);
    let mut elsewhere = bench_cli(home.path());
    elsewhere.args(["history", "import", &good, "--file", "/proc/nowhere/h"]);
    assert_eq!(elsewhere.output().unwrap().status.code(), Some(2));
}
