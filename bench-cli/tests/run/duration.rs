//! `--duration`: how much work it becomes, for whom, and what is kept of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::common::{bump_allocator, fails, library, rows, run};

/// Operations by allocator, where every run of one has the same.
fn operations(out: &Path) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for row in rows(&out.join("runs.csv")) {
        let own: u64 = row["operations"].parse().unwrap();
        assert_eq!(*found.entry(row["allocator"].clone()).or_insert(own), own, "{row:?}");
    }
    found
}

/// As if it had been interrupted after the first of its runs.
fn interrupt(out: &Path) {
    let (runs, manifest) = (out.join("runs.csv"), out.join("manifest.json"));
    let text = fs::read_to_string(&runs).unwrap();
    fs::write(&runs, text.lines().take(2).map(|l| format!("{l}\n")).collect::<String>()).unwrap();
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("\"completed\"", "\"interrupted\"")).unwrap();
}

#[test]
fn a_length_of_time_becomes_an_amount_of_work_the_same_for_all_and_when_continued() {
    let home = tempfile::tempdir().unwrap();
    let Some(bump) = library(home.path(), "bump", &bump_allocator(""), &[]) else { return };
    let allocators = format!("system,{}", bump.display());
    let args = ["run", "pair-16", "-a", &allocators, "--duration", "20ms", "--runs", "1"];
    let args = [&args[..], &["--pass", "throughput", "--out", "out"]].concat();
    let (code, _, stderr) = run(home.path(), &args);
    assert_eq!(code, 0, "{stderr}");
    let out = home.path().join("out");
    let measured = operations(&out);
    assert_eq!(measured["system"], measured["bump.so"]);
    let manifest = fs::read_to_string(out.join("manifest.json")).unwrap();
    assert!(manifest.contains("\"scale\": ") && !manifest.contains("own_work"), "{manifest}");

    interrupt(&out);
    // As if another commit had been checked out when it began.
    let path = out.join("manifest.json");
    let mut manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    manifest["commit"] = serde_json::json!({"hash": "abc", "committed_utc": "", "modified": false});
    fs::write(&path, manifest.to_string()).unwrap();
    let (code, _, stderr) = run(home.path(), &[&args[..], &["--resume"]].concat());
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(operations(&out), measured);
    let manifest = fs::read_to_string(&path).unwrap();
    assert!(manifest.contains("\"hash\": \"abc\""), "{manifest}");
    fails(home.path(), &[&args[..], &["--scale", "2"]].concat(), 2, &["cannot be used with"]);
    fails(home.path(), &["history", "import", "out"], 2, &["(--duration)", "--scale"]);
}

#[test]
fn each_allocator_gets_an_amount_of_its_own_and_keeps_it_when_continued() {
    let home = tempfile::tempdir().unwrap();
    // Every object is a call of the kernel under the one, and kept at hand by the other.
    let args = ["run", "lifo100-4194304", "-a", "ours,system", "--pass", "throughput"];
    let args = [&args[..], &["--duration", "20ms", "--duration-for", "each"]].concat();
    let args = [&args[..], &["--out", "out", "--runs"]].concat();
    let (code, stdout, stderr) = run(home.path(), &[&args[..], &["2"]].concat());
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("ns/call") && !stdout.contains("time ms"), "{stdout}");
    assert!(stdout.contains("what is per call compares between allocators"), "{stdout}");
    let out = home.path().join("out");
    let measured = operations(&out);

    let manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(out.join("manifest.json")).unwrap()).unwrap();
    let noted = &manifest["subjects"][0];
    assert_eq!((&noted["length_ns"], noted.get("scale")), (&20_000_000.into(), None));
    let own = noted["own_work"].as_array().unwrap();
    let names: Vec<&str> = own.iter().map(|work| work["allocator"].as_str().unwrap()).collect();
    assert_eq!(names, ["ours", "system"]);
    // A hundred rounds of 500 batches of 64 objects, each allocated and freed, and nothing around them.
    let whole = 100.0 * 500.0 * 64.0 * 2.0;
    for work in own {
        let scale = work["scale"].as_f64().unwrap();
        let done = measured[work["allocator"].as_str().unwrap()] as f64;
        assert!((scale * whole - done).abs() < 0.5, "{scale} of {whole}, and {done} done");
    }
    let same = own[0]["stream_hash"] == own[1]["stream_hash"];
    assert_eq!(same, measured["ours"] == measured["system"], "{noted}");

    interrupt(&out);
    let (code, _, stderr) = run(home.path(), &[&args[..], &["2", "--resume"]].concat());
    assert_eq!(code, 0, "{stderr}");
    assert_eq!((operations(&out), rows(&out.join("runs.csv")).len()), (measured.clone(), 4));
    // What is complete takes further rounds of the same amounts, and no other length.
    let (code, _, stderr) = run(home.path(), &[&args[..], &["3", "--resume"]].concat());
    assert_eq!(code, 0, "{stderr}");
    assert_eq!((operations(&out), rows(&out.join("runs.csv")).len()), (measured, 6));
    let longer: Vec<&str> = args.iter().map(|a| if *a == "20ms" { "30ms" } else { a }).collect();
    fails(home.path(), &[&longer[..], &["2", "--resume"]].concat(), 2, &["other settings"]);

    let (_, markdown, _) = run(home.path(), &["export", "out"]);
    assert!(markdown.contains("ns per call") && markdown.contains("given time"), "{markdown}");
    let page = fs::read_to_string(out.join("report.html")).unwrap();
    assert!(page.contains("time per call") && page.contains("given time"));
    fails(home.path(), &["history", "import", "out"], 2, &["--duration", "--scale"]);
}

#[test]
fn amounts_of_ones_own_need_a_length_and_no_share_of_anothers_memory() {
    let home = tempfile::tempdir().unwrap();
    let args = ["run", "pair-16", "-a", "system", "--duration-for", "each"];
    fails(home.path(), &args, 2, &["--duration <TIME>"]);
    let args = [&args[..], &["--duration", "20ms", "--pressure", "as:800%"]].concat();
    fails(home.path(), &args, 2, &["`as:800%`", "--duration-for each", "own:90%"]);
    let args = ["run", "--exec", "true", "-a", "system", "--duration", "1s"];
    fails(home.path(), &args, 2, &["cannot be used with"]);
    assert!(!home.path().join("bench-out").exists(), "nothing was measured, so nothing is left");
}
