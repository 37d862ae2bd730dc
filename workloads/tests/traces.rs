//! Real traces, replayed. They lie outside the project: `ALLOCATOR_TEST_DATA` names their folder.

use std::collections::HashMap;
use std::path::PathBuf;

use traces::{EventSource, Op};
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

/// Bytes that each event of the trace begins and ends to use.
fn bytes_of_events() -> Option<Vec<(u64, u64)>> {
    let mut source = traces::open(systemui()?).unwrap();
    let mut sizes = HashMap::new();
    let mut events = Vec::new();
    while let Some(event) = source.next_event().unwrap() {
        let (born, bytes, gone) = match event.op {
            Op::Malloc { object, size } | Op::Aligned { object, size, .. } => (object, size, None),
            Op::Calloc { object, count, size } => (object, count * size, None),
            Op::Realloc { old, object, size } if object.is_some() || size == 0 => {
                (object, size, old)
            }
            Op::Free { object, .. } => (None, 0, object),
            _ => (None, 0, None),
        };
        let ended = gone.and_then(|object| sizes.remove(&object)).unwrap_or(0);
        let begun = born.map_or(0, |object| {
            sizes.insert(object, bytes);
            bytes
        });
        events.push((begun, ended));
    }
    Some(events)
}

/// Least and greatest peak of live bytes of any replay in which no event runs `window` events or more
/// before one that has not run: the frees, or the births, among so many may come first.
fn peaks_within(window: usize, events: &[(u64, u64)]) -> (u64, u64) {
    let sum_of = |part: fn(&(u64, u64)) -> u64| -> Vec<u64> {
        let sums = events.iter().scan(0, |sum, event| {
            *sum += part(event);
            Some(*sum)
        });
        [0].into_iter().chain(sums).collect()
    };
    let (births, deaths) = (sum_of(|event| event.0), sum_of(|event| event.1));
    let ends = |at: usize| (at + window).min(events.len());
    let least = (0..=events.len()).map(|at| births[at].saturating_sub(deaths[ends(at)])).max();
    let most = (0..=events.len()).map(|at| births[ends(at)] - deaths[at]).max();
    (least.unwrap(), most.unwrap())
}

#[test]
fn windowed_replay_of_systemui_peaks_where_its_window_lets_it() {
    let Some((_, outcome)) = replay(Order::DEFAULT_WINDOW, Pass::Footprint) else { return };
    check_calls(&outcome);
    let fidelity = &outcome.fidelity;
    assert!(fidelity.largest_skew_events.unwrap() <= 4096);
    let (least, most) = peaks_within(4096, &bytes_of_events().unwrap());
    let peak = fidelity.replay_peak_live_bytes.unwrap();
    assert!((least..=most).contains(&peak), "{least} <= {peak} <= {most}");
    let trace = fidelity.trace_peak_live_bytes as f64;
    assert!(least as f64 > 0.85 * trace, "{least} of {trace}: the frees of one window are few");
    let deviation = fidelity.peak_live_deviation.unwrap();
    assert!((deviation - (peak as f64 / trace - 1.0)).abs() < 1e-9, "{deviation}");
}

#[test]
fn windowed_replay_of_systemui_breaks_no_promise() {
    let Some((_, outcome)) = replay(Order::DEFAULT_WINDOW, Pass::Verify) else { return };
    check_calls(&outcome);
    let verification = outcome.verification.unwrap();
    assert_eq!(verification.broken, 0, "{:?}", verification.first);
}
