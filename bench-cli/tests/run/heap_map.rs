//! The map that ours writes of its heap, from the worker process to the picture in the report.

use std::fs;
use std::path::Path;

use crate::common::{run, trace};

/// Runs a trace of so many pairs of calls into `out`, of ours and of the system's; whether a map was left.
fn measured(home: &Path, pairs: u64) -> bool {
    let trace = trace(home, pairs);
    let args = ["run", trace.to_str().unwrap(), "-a", "ours,system", "--runs", "1"];
    let out = home.join("out");
    let _ = fs::remove_dir_all(&out);
    let more = ["--pass", "throughput,footprint", "--out", "out", "-q"];
    let (code, _, stderr) = run(home, &[&args[..], &more].concat());
    assert_eq!(code, 0, "{stderr}");
    out.join("heap").is_dir()
}

#[test]
fn the_heap_of_ours_is_drawn_in_the_report_from_the_map_that_the_footprint_pass_left() {
    let home = tempfile::tempdir().unwrap();
    // A thread looks at the heap by the clock. What it slept through is done again, and longer.
    let lengths = [40_000, 200_000, 1_000_000];
    assert!(lengths.iter().any(|&pairs| measured(home.path(), pairs)), "a map of the heap is left");
    let out = home.path().join("out");
    let footprint = |row: &std::collections::BTreeMap<String, String>| {
        (row["allocator"] == "ours" && row["pass"] == "footprint").then(|| row["run_id"].clone())
    };
    let ours: Vec<String> =
        crate::common::rows(&out.join("runs.csv")).iter().filter_map(footprint).collect();
    let maps: Vec<String> = fs::read_dir(out.join("heap"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(maps, [format!("{}.jsonl", ours[0])], "glibc's malloc exports none");
    let map = fs::read_to_string(out.join("heap").join(&maps[0])).unwrap();
    let slabs = map.matches(r#""use":"slab""#).count();
    assert!(map.starts_with(r#"{"heap_map":1,"#) && slabs > 0, "{map}");

    let (code, stdout, stderr) = run(home.path(), &["report", "out"]);
    assert_eq!(code, 0, "{stdout}{stderr}");
    let page = fs::read_to_string(out.join("report.html")).unwrap();
    let spans = map.matches(r#""slice":"#).count();
    assert_eq!(page.matches(r#"class="span"#).count(), spans, "a box for every span of the map");
    assert_eq!(page.matches(r#"class="span c0""#).count(), slabs, "those of slabs in their colour");
    assert!(page.matches(r#"class="full c0""#).count() >= slabs, "filled as far as blocks live");
    assert!(page.contains("tiny.txt, 2 threads under ours"), "the picture says what it is of");
    assert!(!page.contains("2 threads under system"), "and none is of glibc's");
}
