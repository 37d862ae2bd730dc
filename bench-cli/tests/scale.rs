//! One gate over many machines, with this one as all of them: plan, cells, merge.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn bench_cli(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bench-cli")).args(args).output().expect("bench-cli starts")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

fn processes(folder: &Path) -> usize {
    fs::read_to_string(folder.join("blocks.csv")).unwrap().lines().count() - 1
}

#[test]
fn cells_run_one_by_one_merge_into_one_verdict_and_none_counts_twice() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_string_lossy().into_owned();
    let planned = bench_cli(&[
        "plan",
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny-churn.toml"),
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny-larson.toml"),
        "--base",
        "system",
        "--head",
        "system",
        "--out",
        &out,
        "--inject-slowdown",
        "100%",
    ]);
    assert!(planned.status.success(), "{}", said(&planned));
    let plan = folder.path().join("plan.json").to_string_lossy().into_owned();
    let count = bench_cli(&["plan", "--count", &plan]);
    assert_eq!(String::from_utf8_lossy(&count.stdout), "2\n");

    let cell = |index: &str| bench_cli(&["cell", "--plan", &plan, "--index", index]);
    assert!(cell("0").status.success());
    let half = bench_cli(&["merge", &out]);
    assert_eq!(half.status.code(), Some(3), "what was run and failed, fails: {}", said(&half));
    assert!(said(&half).contains("bench-cli cell --plan"), "{}", said(&half));
    let once = processes(folder.path());

    let again = cell("0");
    assert!(again.status.success() && said(&again).contains("has its record already"));
    bench_cli(&["merge", &out]);
    assert_eq!(processes(folder.path()), once);

    assert!(cell("1").status.success());
    let whole = bench_cli(&["merge", &out]);
    assert_eq!(whole.status.code(), Some(3), "{}", said(&whole));
    assert_eq!(processes(folder.path()), 2 * once, "both cells ran 12 + 24 blocks");
    assert!(said(&whole).contains("FAIL tiny-larson-2t"), "{}", said(&whole));
    assert_eq!(cell("2").status.code(), Some(2));
    let file = folder.path().join("h.sqlite").to_string_lossy().into_owned();
    let import = bench_cli(&["history", "import", &out, "--file", &file]);
    assert_eq!(import.status.code(), Some(2), "{}", said(&import));
    assert!(said(&import).contains("slowed on purpose (--inject-slowdown)"), "{}", said(&import));

    // Two latency processes a side and cell; the sum over the cells holds every call.
    let counts = |run: &str| -> u64 {
        let table = fs::read_to_string(folder.path().join("latency.csv")).unwrap();
        let line = table.lines().find(|line| line.starts_with(&format!("{run},all,,,0.5,")));
        line.unwrap().rsplit(',').next().unwrap().parse().unwrap()
    };
    let cells = counts("tiny-churn-1t--base") + counts("tiny-larson-2t--base");
    assert!(cells > 0 && counts("all-cells--base") == cells);
    assert_eq!(counts("all-cells--head"), cells, "both sides did the same work");
}

#[test]
fn a_plan_has_files_by_absolute_paths_and_workloads_by_name_whatever_files_lie_beside() {
    let home = tempfile::tempdir().unwrap();
    let tiny = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny-churn.toml");
    fs::copy(tiny, home.path().join("tiny.toml")).unwrap();
    fs::write(home.path().join("small-churn"), "no trace").unwrap();
    let mut planned = Command::new(env!("CARGO_BIN_EXE_bench-cli"));
    planned.current_dir(home.path()).args(["plan", "small-churn", "tiny.toml", "--out", "p"]);
    let planned = planned.args(["--base", "system", "--head", "system"]).output().unwrap();
    assert!(planned.status.success(), "{}", said(&planned));
    let text = fs::read(home.path().join("p/plan.json")).unwrap();
    let plan: serde_json::Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(plan["cells"][0]["what"], "small-churn");
    let file = fs::canonicalize(home.path().join("tiny.toml")).unwrap();
    assert_eq!(plan["cells"][1]["what"], file.to_string_lossy().as_ref());
}

#[test]
fn a_cell_whose_allocator_crashes_has_its_record_and_the_other_keeps_its_verdict() {
    let folder = tempfile::tempdir().unwrap();
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/slow-malloc.c");
    let crash = folder.path().join("crash.so");
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-fno-builtin", "-DCRASH", "-o"]);
    if !cc.arg(&crash).arg(source).status().is_ok_and(|status| status.success()) {
        eprintln!("skipped: no C compiler that builds the fixture");
        return;
    }
    let (out, crash) = (folder.path().join("p"), crash.to_string_lossy().into_owned());
    let out = out.to_string_lossy().into_owned();
    let tiny = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny-churn.toml");
    let larson = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny-larson.toml");
    let args = ["plan", tiny, larson, "--base", "system", "--head", &crash, "--out", &out];
    assert!(bench_cli(&args).status.success());
    let plan = format!("{out}/plan.json");
    for index in ["0", "1"] {
        let cell = bench_cli(&["cell", "--plan", &plan, "--index", index]);
        assert!(cell.status.success(), "it was judged: {}", said(&cell));
    }
    let merged = bench_cli(&["merge", &out, "--allow-inconclusive"]);
    assert_eq!(merged.status.code(), Some(6), "{}", said(&merged));
    assert!(said(&merged).contains("head crashed (SIGSEGV)"), "{}", said(&merged));

    // A record of another plan is refused by name, and the tables stay as they were.
    let before = fs::read(format!("{out}/verdicts.csv")).unwrap();
    let text = fs::read_to_string(&plan).unwrap();
    let seed: serde_json::Value = serde_json::from_str(&text).unwrap();
    let seed = format!("\"seed\": {}", seed["seed"]);
    fs::write(&plan, text.replace(&seed, "\"seed\": 99")).unwrap();
    let refused = bench_cli(&["merge", &out]);
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    for word in ["cells/0.json` is not cell 0 of this plan", "its fingerprint is", "--index 0`"] {
        assert!(said(&refused).contains(word), "{}", said(&refused));
    }
    assert_eq!(fs::read(format!("{out}/verdicts.csv")).unwrap(), before);
}

/// `bench-cli` in `home`, with a cache of its own.
fn bench_cli_in(home: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench-cli"));
    command.current_dir(home).env("XDG_CACHE_HOME", home.join("cache"));
    command.args(args).output().expect("bench-cli starts")
}

/// Plans one short cell in `home`, as `home`/p/plan.json.
fn plan_tiny(home: &Path, more: &[&str]) {
    let tiny = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny-churn.toml");
    let args = ["plan", tiny, "--base", "system", "--head", "system", "--out", "p"];
    let planned = bench_cli_in(home, &[&args[..], &["--budget", "1s"], more].concat());
    assert!(planned.status.success(), "{}", said(&planned));
}

const CELL: [&str; 5] = ["cell", "--plan", "p/plan.json", "--index", "0"];

#[test]
fn a_cell_runs_under_the_rules_of_its_plan_whatever_floor_and_thresholds_its_node_has() {
    let home = tempfile::tempdir().unwrap();
    plan_tiny(home.path(), &[]);
    let floor = bench_cli::gate::calibration::Calibration {
        machine: bench_cli::results::Machine::here(),
        measured_utc: String::new(),
        cells: Vec::new(),
        alike: bench_cli::gate::calibration::Tally::default(),
        layout_floor: Some(0.4),
        block_deviation: 0.0,
        block_seconds: 0.0,
    };
    for folder in ["cache/bench-cli", "ci"] {
        fs::create_dir_all(home.path().join(folder)).unwrap();
    }
    let kept = home.path().join("cache/bench-cli/calibration.json");
    fs::write(kept, serde_json::to_vec(&floor).unwrap()).unwrap();
    let gate = ["gate", "--base", "system", "--head", "system"];
    let refused = said(&bench_cli_in(home.path(), &gate));
    assert!(refused.contains("a layout floor of 40.0 % leaves no room"), "{refused}");
    fs::write(home.path().join("ci/thresholds.toml"), "[nonsense]").unwrap();
    let cell = bench_cli_in(home.path(), &CELL);
    assert!(cell.status.success(), "{}", said(&cell));
}

#[test]
fn a_history_takes_in_the_same_cells_once_in_whatever_words_they_are_merged() {
    let home = tempfile::tempdir().unwrap();
    plan_tiny(home.path(), &[]);
    let merge_and_import = |more: &[&str]| {
        bench_cli_in(home.path(), &[&["merge", "p"][..], more].concat());
        said(&bench_cli_in(home.path(), &["history", "import", "p"]))
    };
    let half = merge_and_import(&[]);
    assert!(half.contains("its measurement is running"), "{half}");
    assert!(bench_cli_in(home.path(), &CELL).status.success());
    let whole = merge_and_import(&[]);
    assert!(whole.contains("1 folders taken in"), "{whole}");
    let again = merge_and_import(&["--allow-inconclusive"]);
    assert!(again.contains("0 folders taken in, 1 were there already"), "{again}");
}

#[test]
fn a_cell_is_bound_to_the_processors_of_its_plan() {
    let home = tempfile::tempdir().unwrap();
    // A processor that no machine has: a cell that asked for none would run.
    plan_tiny(home.path(), &["--cpus", "99999"]);
    let cell = bench_cli_in(home.path(), &CELL);
    assert_eq!(cell.status.code(), Some(2), "{}", said(&cell));
    assert!(said(&cell).contains("there is no processor 99999 here"), "{}", said(&cell));
}

#[test]
fn a_changed_library_is_refused_and_a_damaged_record_counts_as_none() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_string_lossy().into_owned();
    let args = ["plan", "small-churn", "--base", "system", "--head", "system", "--out", &out];
    assert!(bench_cli(&args).status.success());
    let path = folder.path().join("plan.json");
    let text = fs::read_to_string(&path).unwrap();
    let plan: serde_json::Value = serde_json::from_str(&text).unwrap();
    let hash = plan["head"]["hash"].as_str().unwrap();
    fs::write(&path, text.replace(hash, "0000000000000000")).unwrap();
    let refused = bench_cli(&["cell", "--plan", &path.to_string_lossy(), "--index", "0"]);
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    assert!(said(&refused).contains("is not the one of the plan"), "{}", said(&refused));
    fs::create_dir(folder.path().join("cells")).unwrap();
    fs::write(folder.path().join("cells/0.json"), "{").unwrap();
    let merged = bench_cli(&["merge", &out]);
    assert_eq!(merged.status.code(), Some(4), "{}", said(&merged));
    assert!(said(&merged).contains("cells/0.json"), "{}", said(&merged));
    assert!(said(&merged).contains("--index 0`"), "{}", said(&merged));
}
