//! What an interrupted run has to have in common with the one that continues it.

use std::fs;

use crate::common::{fails, run};

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
