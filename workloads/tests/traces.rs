//! Real traces, replayed. They lie outside the project: `ALLOCATOR_TEST_DATA` names their folder.

use std::path::PathBuf;

use workloads::engine::{EngineOptions, Outcome, Pass, run};
use workloads::plan::{Order, Plan, PlanOptions};

fn systemui() -> Option<PathBuf> {
    let Some(data) = std::env::var_os("ALLOCATOR_TEST_DATA") else {
        eprintln!("skipped: ALLOCATOR_TEST_DATA is not set");
        return None;
    };
    Some(PathBuf::from(data).join("systemui.zip"))
}

fn replay(order: Order, pass: Pass) -> Option<(Plan, Outcome)> {
    let path = systemui()?;
    let folder = tempfile::tempdir().unwrap();
    let mut source = traces::open(path).unwrap();
    let options = PlanOptions { order, ..PlanOptions::default() };
    let plan = Plan::prepare(&mut *source, &options, &folder.path().join("p")).unwrap();
    let outcome = run(&plan, &EngineOptions { pass, ..EngineOptions::default() }).unwrap();
    Some((plan, outcome))
}

fn check_calls(outcome: &Outcome) {
    let c = outcome.counts;
    assert_eq!((c.malloc, c.calloc, c.realloc, c.aligned), (383_154, 7_847, 29_167, 1_066));
    assert_eq!((c.free + c.free_null, c.free_null), (364_863, 15_818));
    assert_eq!(outcome.fidelity.threads_created, 392);
    assert_eq!(outcome.failed_allocations, 0);
}

#[test]
fn strict_replay_of_systemui_peaks_at_exactly_the_live_bytes_of_the_trace() {
    let Some((plan, outcome)) = replay(Order::Strict, Pass::Footprint) else { return };
    check_calls(&outcome);
    assert_eq!(plan.peak_live_bytes(), 10_441_709);
    assert_eq!(plan.peak_live_objects(), 60_097);
    assert_eq!((plan.final_live_bytes(), plan.final_live_objects()), (8_396_631, 53_645));
    assert_eq!(outcome.footprint.unwrap().peak_live_bytes, 10_441_709);
}

#[test]
fn windowed_replay_of_systemui_peaks_within_two_percent_of_the_trace() {
    let Some((_, outcome)) = replay(Order::DEFAULT_WINDOW, Pass::Footprint) else { return };
    check_calls(&outcome);
    let deviation = outcome.fidelity.peak_live_deviation.unwrap();
    assert!(deviation.abs() <= 0.02, "{deviation}");
    assert!(outcome.fidelity.largest_skew_events.unwrap() <= 4096);
}

#[test]
fn windowed_replay_of_systemui_breaks_no_promise() {
    let Some((_, outcome)) = replay(Order::DEFAULT_WINDOW, Pass::Verify) else { return };
    check_calls(&outcome);
    let verification = outcome.verification.unwrap();
    assert_eq!(verification.broken, 0, "{:?}", verification.first);
}
