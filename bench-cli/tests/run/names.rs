//! What is asked for is measured, each once, whatever it is called.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::common::{fails, rows, run, trace};

/// The rows that `arguments` leave: of allocator system in one throughput pass, unless they say otherwise.
fn measured(home: &Path, arguments: &[&str]) -> Vec<std::collections::BTreeMap<String, String>> {
    let _ = fs::remove_dir_all(home.join("out"));
    let args = [&["run", "--runs", "1", "--out", "out", "-q"], arguments].concat();
    let (code, _, stderr) = run(home, &args);
    assert_eq!(code, 0, "{stderr}");
    rows(&home.join("out/runs.csv"))
}

const SYSTEM: [&str; 4] = ["-a", "system", "--pass", "throughput"];

#[test]
fn traces_of_one_file_name_in_two_folders_are_both_measured_and_called_by_their_paths() {
    let home = tempfile::tempdir().unwrap();
    let tiny = trace(home.path(), 100);
    for folder in ["a", "b"] {
        fs::create_dir(home.path().join(folder)).unwrap();
        fs::copy(&tiny, home.path().join(folder).join("tiny.txt")).unwrap();
    }
    let what = ["a/tiny.txt", "b/tiny.txt", "a/tiny.txt"];
    let found = measured(home.path(), &[&what[..], &SYSTEM].concat());
    let names: Vec<&str> = found.iter().map(|row| &*row["workload"]).collect();
    assert_eq!(names.len(), 2, "each once: {names:?}");
    assert_eq!(BTreeSet::from_iter(names), BTreeSet::from(["a/tiny.txt", "b/tiny.txt"]));
}

#[test]
fn traces_whose_names_differ_late_are_both_measured() {
    let home = tempfile::tempdir().unwrap();
    let tiny = trace(home.path(), 100);
    let names =
        ["1", "2"].map(|end| format!("{}-{end}.txt", "recorded-on-a-machine-of-ours".repeat(2)));
    for name in &names {
        fs::copy(&tiny, home.path().join(name)).unwrap();
    }
    let found = measured(home.path(), &[&names.each_ref().map(|n| &**n)[..], &SYSTEM].concat());
    let ids: BTreeSet<&str> = found.iter().map(|row| &*row["run_id"]).collect();
    assert_eq!((found.len(), ids.len()), (2, 2), "{ids:?}");
}

#[test]
fn a_program_runs_under_every_allocator_however_late_their_options_differ() {
    let home = tempfile::tempdir().unwrap();
    let options = "ours?mode=classic&lock=global&placement=";
    let (first, best) = (format!("{options}first-fit"), format!("{options}best-fit"));
    let found = measured(home.path(), &["--exec", "ls /", "-a", &first, "-a", &best]);
    let who: BTreeSet<&str> = found.iter().map(|row| &*row["allocator"]).collect();
    assert_eq!((found.len(), who), (2, BTreeSet::from([&*first, &*best])));
}

#[test]
fn what_a_program_cannot_heed_is_refused_and_not_passed_over() {
    let home = tempfile::tempdir().unwrap();
    for option in [["--pressure", "80%"], ["--threads", "2"], ["--timeout", "1s"], ["--scale", "2"]]
    {
        let args = [&["run", "--exec", "true"], &option[..]].concat();
        fails(home.path(), &args, 2, &["cannot be used with", option[0]]);
    }
}
