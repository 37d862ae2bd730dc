//! What an interrupted run has to have in common with the one that continues it.

use std::fs;

use crate::common::{fails, rows, run, trace};

#[test]
fn a_run_is_not_continued_on_another_machine() {
    let home = tempfile::tempdir().unwrap();
    let args = ["run", "--exec", "true", "-a", "system", "--out", "out", "--runs"];
    let (code, _, stderr) = run(home.path(), &[&args[..], &["1"]].concat());
    assert_eq!(code, 0, "{stderr}");
    let (manifest, runs) = ("out/manifest.json", "out/runs.csv");
    let read = |name: &str| fs::read_to_string(home.path().join(name)).unwrap();
    let mut there: serde_json::Value = serde_json::from_str(&read(manifest)).unwrap();
    let here = there["machine"]["kernel"].as_str().unwrap().to_owned();
    there["machine"]["kernel"] = "2.6.32".into();
    there["state"] = "interrupted".into();
    fs::write(home.path().join(manifest), there.to_string()).unwrap();
    let before = [read(manifest), read(runs)];
    let args = [&args[..], &["2", "--resume"]].concat();
    fails(home.path(), &args, 2, &["another machine", "`2.6.32` there", &here]);
    assert_eq!([read(manifest), read(runs)], before);
}

#[test]
fn to_continue_where_nothing_was_begun_leaves_nothing() {
    let home = tempfile::tempdir().unwrap();
    let args = ["run", "--exec", "true", "-a", "system", "--resume"];
    fails(home.path(), &args, 2, &["there is no run in `bench-out/latest`"]);
    fails(home.path(), &[&args[..], &["--out", "typo"]].concat(), 2, &["no run in `typo`"]);
    assert!(!home.path().join("bench-out").exists() && !home.path().join("typo").exists());
}

#[test]
fn an_interrupted_recommendation_is_continued_by_the_same_arguments() {
    let home = tempfile::tempdir().unwrap();
    trace(home.path(), 2000);
    let args = ["recommend", "tiny.txt", "-a", "system,ours", "--no-pressure", "--runs", "1"];
    let args = [&args[..], &["--out", "out"]].concat();
    let (code, _, stderr) = run(home.path(), &args);
    assert_eq!(code, 0, "{stderr}");
    let manifest = home.path().join("out/manifest.json");
    let completed = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, completed.replace("\"completed\"", "\"interrupted\"")).unwrap();
    let runs = || rows(&home.path().join("out/runs.csv"));
    let before = runs();
    let (code, stdout, stderr) = run(home.path(), &[&args[..], &["--resume"]].concat());
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("ours"), "{stdout}");
    assert_eq!(runs(), before, "nothing is run again");
}
