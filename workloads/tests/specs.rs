//! What the specifications promise: sound, true to their counts, the same everywhere.

use std::fmt::Write as _;

use traces::EventSource;
use workloads::engine::{EngineOptions, Pass, run};
use workloads::plan::{Counts, Plan, StreamHash};
use workloads::spec::{SourceOptions, Spec, SpecError};

/// Golden hashes of the folded streams, one line `name hash` each.
const GOLDEN: &str = include_str!("golden_hashes.txt");

fn plan_of(spec: &Spec, options: &SourceOptions) -> (tempfile::TempDir, Plan) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spec.plan");
    let mut source = spec.source(options).unwrap();
    let plan = Plan::prepare(&mut source, &spec.plan_options(), &path).unwrap();
    (folder, plan)
}

#[test]
fn every_workload_makes_the_counts_it_claims_from_the_same_events_everywhere() {
    let mut found = String::new();
    let mut claims = String::new();
    for spec in Spec::all() {
        let (_folder, plan) = plan_of(&spec, &SourceOptions::default());
        let counts = plan.counts(plan.repeat());
        if (counts.allocations, counts.frees) != (spec.verify.allocations, spec.verify.frees) {
            let _ = writeln!(claims, "{} {} {}", spec.name, counts.allocations, counts.frees);
        }
        let _ = writeln!(found, "{} {:016x}", spec.name, plan.stream_hash());
        assert!(plan.bytes_per_operation() <= 16.0, "{}", spec.name);
    }
    assert!(claims.is_empty(), "counts differ from claims:\n{claims}\nall hashes:\n{found}");
    let golden: Vec<&str> = GOLDEN.lines().collect();
    let found: Vec<&str> = found.lines().collect();
    assert_eq!(golden, found, "streams have changed");
}

#[test]
fn every_workload_keeps_its_objects_apart_and_whole_when_verified() {
    for spec in Spec::all() {
        // The cheapest run that still repeats the body, where a body folds.
        let options = SourceOptions { scale: 0.0, ..SourceOptions::default() };
        let (_folder, plan) = plan_of(&spec, &options);
        let repeat = plan.is_folded().then_some(2);
        // What cannot be looked at byte by byte within seconds is left to `bench-cli run --verify`.
        if plan.counts(1).requested_bytes > 1 << 30 {
            continue;
        }
        let engine = EngineOptions { pass: Pass::Verify, repeat, ..EngineOptions::default() };
        let outcome = run(&plan, &engine).unwrap();
        let verification = outcome.verification.unwrap();
        assert_eq!(verification.broken, 0, "{}: {:?}", spec.name, verification.first);
        assert_eq!(outcome.failed_allocations, 0, "{}", spec.name);
        let planned = plan.counts(outcome.repeat);
        let expected = spec.expected(&options, &planned);
        spec.verify(expected, &outcome.counts).unwrap();
    }
}

#[test]
fn another_number_of_threads_is_the_same_work_for_each_of_them() {
    let spec = Spec::load("larson").unwrap();
    let counts = |threads| {
        let options = SourceOptions { threads: Some(threads), ..SourceOptions::default() };
        let (_folder, plan) = plan_of(&spec, &options);
        plan.counts(1).allocations
    };
    assert_eq!(counts(4), 4 * counts(1));
}

#[test]
fn flat_and_folded_streams_make_the_same_number_of_calls() {
    let spec = Spec::load("rptest").unwrap();
    let options = SourceOptions { scale: 0.05, ..SourceOptions::default() };
    let (_folder, plan) = plan_of(&spec, &options);
    let folded = plan.counts(plan.repeat());
    let mut source = spec.source(&SourceOptions { folded: false, ..options }).unwrap();
    let mut flat = Counts::default();
    let mut hash = StreamHash::default();
    while let Some(event) = source.next_event().unwrap() {
        hash.add(&event);
        flat.allocations += u64::from(event.op.born().is_some());
        flat.frees += u64::from(event.op.released().is_some());
    }
    assert_eq!((flat.allocations, flat.frees), (folded.allocations, folded.frees));
    assert_ne!(hash.value(), plan.stream_hash());
}

#[test]
fn a_variant_is_its_family_with_one_parameter_changed() {
    let base = Spec::load("pair").unwrap();
    assert!(base.variants().contains(&"pair-4194304".to_owned()));
    let variant = Spec::load("pair-4194304").unwrap();
    let (_folder, plan) = plan_of(&variant, &SourceOptions::default());
    assert_eq!(plan.largest_request(), 4 << 20);
    assert_eq!(plan.counts(1).allocations, 50_000);
    assert!(Spec::load("pair-0").is_err());
    assert!(matches!(Spec::load("larson-77"), Err(SpecError::Unknown { .. })));
}

#[test]
fn a_name_that_is_none_is_answered_with_names_that_come_close() {
    let Err(SpecError::Unknown { similar, .. }) = Spec::load("larsen") else { panic!("known?") };
    assert!(similar.contains(&"larson".to_owned()), "{similar:?}");
}

#[test]
fn a_user_adds_a_workload_by_writing_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.toml");
    let text = r#"
        name = "mine"
        question = "does a file suffice?"
        bias = "tiny"
        seed = 7
        threads = 1
        rounds = 3
        short = 1.0
        verify = { allocations = 31, frees = 31 }
        [generator]
        kind = "batches"
        objects = 10
        bytes = "zipf 1.2 16..4096"
        order = "random"
        batches = 1
    "#;
    std::fs::write(&path, text).unwrap();
    let spec = Spec::load(path.to_str().unwrap()).unwrap();
    let (_folder, plan) = plan_of(&spec, &SourceOptions::default());
    let outcome = run(&plan, &EngineOptions::default()).unwrap();
    let expected = spec.expected(&SourceOptions::default(), &plan.counts(3));
    let mismatch = spec.verify(expected, &outcome.counts).unwrap_err();
    assert_eq!(mismatch.found.allocations, 30, "a wrong claim fails the run");
    std::fs::write(&path, text.replace("bytes = ", "byts = ")).unwrap();
    assert!(matches!(Spec::load(path.to_str().unwrap()), Err(SpecError::Syntax { .. })));
}

#[test]
fn a_production_profile_is_read_clamped_and_scaled() {
    let Some(data) = std::env::var_os("ALLOCATOR_TEST_DATA") else {
        println!("skipped: ALLOCATOR_TEST_DATA is not set");
        return;
    };
    for name in ["TCMALLOC_1.csv", "TCMALLOC_5.csv"] {
        let path = std::path::Path::new(&data).join(name);
        let spec = Spec::from_profile(&path).unwrap();
        let (_folder, plan) = plan_of(&spec, &SourceOptions::default());
        assert!(plan.largest_request() <= 4 << 20, "{name} is clamped");
        let share = plan.peak_live_bytes() as f64 / f64::from(32 << 20);
        assert!((0.8..1.25).contains(&share), "{name}: {share} of the heap asked for");
    }
}
