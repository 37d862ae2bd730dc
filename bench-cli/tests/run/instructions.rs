//! Runs whose instructions are counted.

use crate::common::{rows, run, trace};

#[test]
fn a_run_whose_instructions_are_counted_calibrates_no_timer_and_names_no_cost_of_it() {
    let home = tempfile::tempdir().unwrap();
    let trace = trace(home.path(), 200);
    let args = ["run", trace.to_str().unwrap(), "-a", "system", "--runs", "1", "--out", "out"];
    let (code, _, stderr) =
        run(home.path(), &[&args[..], &["--pass", "throughput,instructions"]].concat());
    if code == 5 {
        return eprintln!("skipped: {stderr}");
    }
    assert_eq!(code, 0, "{stderr}");
    let runs = rows(&home.path().join("out/runs.csv"));
    let empty = |pass: &str| {
        let run = runs.iter().find(|run| run["pass"] == pass).unwrap();
        run["timer_cost_ns"].is_empty()
    };
    assert_eq!((empty("throughput"), empty("instructions")), (false, true));
}
