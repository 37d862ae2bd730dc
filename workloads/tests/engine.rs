//! What the engine promises, on small streams made by hand and at random.

#[path = "engine/edges.rs"]
mod edges;
mod support;

use std::num::NonZeroU64;

use proptest::prelude::*;
use support::{event, free, malloc, object, plan_of};
use traces::{AlignedApi, Event, ObjectId, Op};
use workloads::engine::{CallSet, EngineError, EngineOptions, Outcome, Pass, run};
use workloads::plan::{Order, PlanOptions, Seam};

const PASSES: [Pass; 4] = [Pass::Throughput, Pass::Latency, Pass::Footprint, Pass::Verify];

fn options(order: Order) -> PlanOptions {
    PlanOptions { order, ..PlanOptions::default() }
}

fn run_all(events: &[Event], order: Order) -> Vec<Outcome> {
    let (_folder, plan) = plan_of(events.to_vec(), &options(order)).unwrap();
    PASSES
        .iter()
        .map(|&pass| run(&plan, &EngineOptions { pass, ..EngineOptions::default() }).unwrap())
        .collect()
}

/// Three threads that hand every object round: born here, resized there, released elsewhere.
fn hand_over(objects: u64) -> Vec<Event> {
    let mut events = Vec::new();
    for thread in 0..3 {
        events.push(event(thread, Op::ThreadStart { parent: None }));
    }
    for n in 0..objects {
        let t = |k: u64| u32::try_from((n + k) % 3).unwrap();
        events.push(malloc(t(0), 2 * n, 16 + n % 500));
        let grow =
            Op::Realloc { old: Some(object(2 * n)), object: Some(object(2 * n + 1)), size: 700 };
        events.push(event(t(1), grow));
        if n >= 10 {
            events.push(free(t(2), 2 * (n - 10) + 1));
        }
    }
    events
}

#[test]
fn every_pass_makes_every_call_of_the_stream() {
    for order in [Order::Deps, Order::Window(64), Order::Epoch(16), Order::Strict] {
        for outcome in run_all(&hand_over(2000), order) {
            let c = outcome.counts;
            assert_eq!((c.malloc, c.realloc, c.free), (2000, 2000, 1990), "{order}");
            assert_eq!((c.allocations, c.frees), (4000, 3990));
            assert_eq!(outcome.failed_allocations, 0);
            assert_eq!(outcome.fidelity.threads_created, 2);
            if let Some(v) = outcome.verification {
                assert_eq!((v.objects, v.broken), (4000, 0), "{:?}", v.first);
            }
        }
    }
}

#[test]
fn strict_replay_peaks_at_exactly_the_live_bytes_of_the_stream() {
    let events = hand_over(500);
    let (_folder, plan) = plan_of(events, &options(Order::Strict)).unwrap();
    let run_options = EngineOptions { pass: Pass::Footprint, ..EngineOptions::default() };
    let outcome = run(&plan, &run_options).unwrap();
    let footprint = outcome.footprint.unwrap();
    assert_eq!(footprint.peak_live_bytes, plan.peak_live_bytes());
    assert_eq!(outcome.fidelity.peak_live_deviation, Some(0.0));
    assert!(outcome.fidelity.largest_skew_events <= Some(1));
}

#[test]
fn the_footprint_of_a_tiny_trace_is_what_was_computed_by_hand() {
    // Live: 100, 300, 600, 500 (100 released), 900 (300 → 700), 200 (700 released): peak 900.
    let events = vec![
        malloc(0, 0, 100),
        malloc(0, 1, 200),
        malloc(0, 2, 300),
        free(0, 0),
        event(0, Op::Realloc { old: Some(object(2)), object: Some(object(3)), size: 700 }),
        free(0, 3),
    ];
    let (_folder, plan) = plan_of(events, &PlanOptions::default()).unwrap();
    assert_eq!((plan.peak_live_bytes(), plan.final_live_bytes()), (900, 200));
    assert_eq!((plan.peak_live_objects(), plan.final_live_objects()), (3, 1));
    let run_options =
        EngineOptions { pass: Pass::Footprint, drain_ms: vec![1], ..EngineOptions::default() };
    let footprint = run(&plan, &run_options).unwrap().footprint.unwrap();
    assert_eq!(footprint.peak_live_bytes, 900);
    let last = footprint.samples.last().unwrap();
    assert_eq!(last.live_bytes, 200);
    assert!(last.usable_bytes >= 200);
    assert_eq!(footprint.drain[0].sample.live_bytes, 200);
}

#[test]
fn every_kind_of_call_is_made_and_verified() {
    let mut events = vec![
        event(0, Op::Calloc { object: Some(object(0)), count: 1, size: 100 }),
        event(0, Op::Calloc { object: Some(object(1)), count: 7, size: 3 }),
        event(0, Op::Realloc { old: None, object: Some(object(2)), size: 33 }),
        event(0, Op::Realloc { old: Some(object(2)), object: None, size: 0 }),
        event(0, Op::UsableSize { object: Some(object(0)) }),
        event(0, Op::UsableSize { object: None }),
        event(0, Op::Free { object: None, stated_size: None }),
        event(0, Op::Access { object: object(0), bytes: 100, times: 3 }),
        event(0, Op::Fork { child: 0 }),
        event(0, Op::Free { object: Some(object(1)), stated_size: Some(21) }),
    ];
    for (n, api) in (3..).zip(AlignedApi::ALL) {
        let op = Op::Aligned { object: Some(object(n)), align: 4096, size: 5000, api };
        events.push(event(0, op));
        events.push(free(0, n));
    }
    for outcome in run_all(&events, Order::Deps) {
        let c = outcome.counts;
        assert_eq!((c.calloc, c.realloc, c.aligned), (2, 2, 6));
        assert_eq!((c.free, c.free_null, c.usable_size), (7, 1, 2));
        assert_eq!((c.allocations, c.frees), (9, 8));
        assert!(outcome.verification.is_none_or(|v| v.broken == 0));
    }
}

#[test]
fn a_request_that_cannot_succeed_is_a_counted_result() {
    let events = vec![
        malloc(0, 0, 1 << 47),
        event(0, Op::Realloc { old: Some(object(0)), object: Some(object(1)), size: 64 }),
        free(0, 1),
        event(0, Op::Calloc { object: Some(object(2)), count: 1 << 46, size: 4 }),
        free(0, 2),
        malloc(0, 3, 1 << 47),
        event(0, Op::Realloc { old: Some(object(3)), object: None, size: 64 }),
        free(0, 3),
    ];
    for outcome in run_all(&events, Order::Deps) {
        assert_eq!((outcome.failed_allocations, outcome.unexpected_successes), (3, 1));
        assert_eq!(outcome.counts.free, 3);
        // What a failed request left in its slot is nothing that a realloc has to keep.
        assert!(outcome.verification.is_none_or(|v| v.broken == 0));
    }
}

#[test]
fn a_request_that_failed_in_the_trace_is_asked_again_and_leaves_nothing_behind() {
    let events = vec![
        event(0, Op::Malloc { object: None, size: u64::MAX >> 1 }),
        event(0, Op::Malloc { object: None, size: 100 }),
        malloc(0, 0, 10),
        event(0, Op::Realloc { old: Some(object(0)), object: None, size: 1 << 47 }),
        free(0, 0),
    ];
    for outcome in run_all(&events, Order::Deps) {
        assert_eq!(outcome.counts.retried, 2);
        assert_eq!(outcome.unexpected_successes, 1);
        assert_eq!(outcome.failed_allocations, 0);
        assert!(outcome.verification.is_none_or(|v| v.broken == 0));
    }
}

#[test]
fn threads_are_born_and_joined_as_in_the_stream() {
    let mut events = Vec::new();
    for thread in 0..40 {
        events.push(malloc(thread, u64::from(thread), 64));
        if thread > 0 {
            events.push(event(thread, Op::ThreadEnd));
        }
    }
    for outcome in run_all(&events, Order::Strict) {
        assert_eq!(outcome.fidelity.threads_created, 39);
        assert_eq!(outcome.fidelity.trace_peak_threads, 2);
    }
}

/// Two threads, a ring of objects between them, repeated.
fn folded_ring(repeat: u32) -> Vec<Event> {
    let mut events = vec![event(0, Op::ThreadStart { parent: None })];
    let parent = Some(traces::ThreadId(0));
    events.push(event(1, Op::ThreadStart { parent }));
    let ring = 32;
    events.extend((0..ring).map(|n| malloc(0, n, 48)));
    events.push(event(0, Op::Marker { value: Seam::Begin.to_marker() }));
    for n in 0..500 {
        events.push(free(1, n));
        events.push(malloc(0, n + ring, 48 + n % 100));
    }
    events.push(event(0, Op::Marker { value: Seam::End { repeat }.to_marker() }));
    events.extend((500..500 + ring).map(|n| free(1, n)));
    events
}

#[test]
fn a_body_is_repeated_and_its_objects_cross_threads_unharmed() {
    for outcome in run_all(&folded_ring(50), Order::Deps) {
        let c = outcome.counts;
        assert_eq!((c.allocations, c.frees), (32 + 50 * 500, 32 + 50 * 500));
        assert!(outcome.body_ns.is_some());
        assert!(outcome.verification.is_none_or(|v| v.broken == 0));
    }
}

/// Each repetition: two chains of three threads, each of which takes the objects of the one before
/// it, exchanges them, gives birth to the next and ends; the main thread joins the last.
fn folded_generations(repeat: u32) -> Vec<Event> {
    let cells = 20;
    let mut events = vec![event(0, Op::ThreadStart { parent: None })];
    events.extend((0..2 * cells).map(|n| malloc(0, n, 64)));
    events.push(event(0, Op::Marker { value: Seam::Begin.to_marker() }));
    let mut objects = 2 * cells;
    let mut held: Vec<u64> = (0..2 * cells).collect();
    let mut present = [0_u32; 2];
    for generation in 0..3 {
        for (chain, thread) in present.iter_mut().enumerate() {
            let successor = 1 + generation * 2 + u32::try_from(chain).unwrap();
            let parent = Some(traces::ThreadId(*thread));
            events.push(event(successor, Op::ThreadStart { parent }));
            if generation > 0 {
                events.push(event(*thread, Op::ThreadEnd));
            }
            *thread = successor;
        }
        for (i, object) in held.iter_mut().enumerate() {
            let thread = present[i % 2];
            events.push(free(thread, *object));
            events.push(malloc(thread, objects, 64 + objects % 300));
            *object = objects;
            objects += 1;
        }
    }
    for thread in present {
        events.push(malloc(thread, objects, 16));
        events.push(event(thread, Op::ThreadEnd));
        events.push(free(0, objects));
        objects += 1;
    }
    events.push(event(0, Op::Marker { value: Seam::End { repeat }.to_marker() }));
    events.extend(held.into_iter().map(|n| free(0, n)));
    events
}

#[test]
fn threads_of_a_body_are_new_threads_in_every_repetition() {
    for order in [Order::Deps, Order::Window(16), Order::Epoch(8), Order::Strict] {
        for outcome in run_all(&folded_generations(25), order) {
            assert_eq!(outcome.fidelity.threads_created, 25 * 6, "{order}");
            let calls = 40 + 25 * (3 * 40 + 2);
            assert_eq!((outcome.counts.allocations, outcome.counts.frees), (calls, calls));
            assert!(outcome.verification.is_none_or(|v| v.broken == 0));
            if let Some(latency) = outcome.latency {
                let mut rows: Vec<_> =
                    latency.rows.iter().filter_map(|r| Some((r.op, r.thread?))).collect();
                rows.sort_unstable();
                rows.dedup();
                assert_eq!(rows.len(), 2 * 7, "one row per call and thread of the plan");
            }
        }
    }
}

#[test]
fn copies_of_a_plan_give_birth_to_the_threads_of_their_own_bodies() {
    let (_folder, plan) = plan_of(folded_generations(4), &options(Order::Deps)).unwrap();
    let engine = EngineOptions { copies: 3, pass: Pass::Verify, ..Default::default() };
    let outcome = run(&plan, &engine).unwrap();
    assert_eq!(outcome.fidelity.threads_created, 2 + 3 * 4 * 6);
    assert_eq!(outcome.verification.unwrap().broken, 0);
}

#[test]
fn a_body_whose_threads_do_not_end_with_it_is_refused() {
    let marker = |seam: Seam| event(0, Op::Marker { value: seam.to_marker() });
    let start = |thread| event(thread, Op::ThreadStart { parent: Some(traces::ThreadId(0)) });
    let end = marker(Seam::End { repeat: 2 });
    let outlives =
        vec![malloc(0, 0, 1), marker(Seam::Begin), start(1), malloc(1, 1, 1), free(0, 1), end];
    let leaves = vec![malloc(0, 0, 1), start(1), marker(Seam::Begin), event(1, Op::ThreadEnd), end];
    for (events, complaint) in [(outlives, "outlives it"), (leaves, "was not born in it")] {
        let error = plan_of(events, &options(Order::Deps)).unwrap_err();
        assert!(error.to_string().contains(complaint), "{error}");
    }
}

#[test]
fn events_read_in_windows_are_the_same_events() {
    let mut events = hand_over(3000);
    // Operations of two words, so that windows end between the two.
    events.extend((0..2000).map(|n| {
        event(0, Op::Calloc { object: Some(object(10_000 + n)), count: 3, size: 1 + n % 7 })
    }));
    for stream in [events, folded_generations(5)] {
        let (_folder, plan) = plan_of(stream, &options(Order::Window(64))).unwrap();
        for pass in PASSES {
            let whole = EngineOptions { pass, ..EngineOptions::default() };
            let windows = EngineOptions { event_memory: 0, ..whole.clone() };
            let (whole, windows) = (run(&plan, &whole).unwrap(), run(&plan, &windows).unwrap());
            assert_eq!(whole.counts, windows.counts);
            assert!(windows.verification.is_none_or(|v| v.broken == 0));
        }
    }
}

#[test]
fn who_takes_many_objects_of_one_thread_waits_once_for_a_line_of_them() {
    let mut events: Vec<Event> =
        (0..2).map(|t| event(t, Op::ThreadStart { parent: None })).collect();
    events.extend((0..6400).map(|n| malloc(0, n, 32)));
    events.extend((0..6400).map(|n| free(1, n)));
    let (_folder, plan) = plan_of(events, &options(Order::Deps)).unwrap();
    assert_eq!(plan.static_waits(), 6400 / 64 + 1, "the birth takes a place too");
}

#[test]
fn the_number_of_repetitions_may_be_chosen_at_the_run() {
    let (_folder, plan) = plan_of(folded_ring(50), &options(Order::Deps)).unwrap();
    let outcome = run(&plan, &EngineOptions { repeat: Some(3), ..Default::default() }).unwrap();
    assert_eq!(outcome.counts, plan.counts(3));
}

#[test]
fn copies_of_a_plan_run_beside_each_other_on_threads_of_their_own() {
    let (_folder, plan) = plan_of(folded_ring(5), &options(Order::Deps)).unwrap();
    for pass in PASSES {
        let engine = EngineOptions { copies: 3, pass, ..Default::default() };
        let outcome = run(&plan, &engine).unwrap();
        assert_eq!(outcome.counts.allocations, 3 * (32 + 5 * 500));
        assert_eq!(outcome.fidelity.threads_created, 5);
        assert!(outcome.verification.is_none_or(|v| v.broken == 0));
    }
}

#[test]
fn a_run_that_calibrates_no_timer_knows_no_cost_of_it() {
    let (_folder, plan) = plan_of(folded_ring(5), &options(Order::Deps)).unwrap();
    for calibrate in [true, false] {
        let outcome = run(&plan, &EngineOptions { calibrate, ..Default::default() }).unwrap();
        assert_eq!(outcome.timer.cost_ns > 0.0, calibrate);
    }
}

#[test]
fn the_null_allocator_measures_the_harness_and_verifies_nothing() {
    let (_folder, plan) = plan_of(folded_ring(5), &options(Order::Deps)).unwrap();
    let null = EngineOptions { calls: CallSet::Null, ..Default::default() };
    assert_eq!(run(&plan, &null).unwrap().counts, plan.counts(5));
    let verify = EngineOptions { pass: Pass::Verify, ..null };
    assert!(matches!(run(&plan, &verify), Err(EngineError::Options { .. })));
}

#[test]
fn a_paced_run_takes_the_time_of_the_stream_and_says_how_late_each_call_was() {
    let events: Vec<Event> =
        (0..20).map(|n| Event { time_ns: Some(n * 1_000_000), ..malloc(0, n, 64) }).collect();
    let plan_options = PlanOptions { times: true, ..PlanOptions::default() };
    let (_folder, plan) = plan_of(events, &plan_options).unwrap();
    let engine = EngineOptions {
        pass: Pass::Latency,
        pace: workloads::engine::Pace::Paced(2.0),
        ..Default::default()
    };
    let outcome = run(&plan, &engine).unwrap();
    assert!(outcome.elapsed_ns >= 9_500_000, "19 ms at twice the speed");
    assert_eq!(outcome.latency.unwrap().response.unwrap().total(), 20);
}

#[test]
fn a_latency_pass_counts_each_call_once_by_class_and_once_by_thread() {
    let (_folder, plan) = plan_of(hand_over(300), &options(Order::Deps)).unwrap();
    let engine = EngineOptions { pass: Pass::Latency, slowest: 5, ..Default::default() };
    let latency = run(&plan, &engine).unwrap().latency.unwrap();
    let total = |by_thread: bool| -> u64 {
        let rows = latency.rows.iter().filter(|row| row.thread.is_some() == by_thread);
        rows.map(|row| row.histogram.total()).sum()
    };
    assert_eq!((total(false), total(true)), (890, 890));
    assert_eq!(latency.slowest.len(), 5);
    assert!(latency.slowest.windows(2).all(|w| w[0].ns >= w[1].ns));
}

#[test]
fn the_slowest_calls_are_named_by_event_and_looked_at_in_a_second_pass() {
    // One call is slower than all others: it asks for 64 MiB, and gets pages written to.
    let mut events: Vec<Event> = (0..200).map(|n| malloc(0, n, 64)).collect();
    events.push(event(0, Op::Calloc { object: Some(object(200)), count: 1, size: 64 << 20 }));
    events.push(event(0, Op::Realloc { old: Some(object(0)), object: Some(object(201)), size: 9 }));
    let (_folder, plan) = plan_of(events, &options(Order::Deps)).unwrap();
    let engine = EngineOptions { pass: Pass::Latency, slowest: 202, ..Default::default() };
    let slowest = run(&plan, &engine).unwrap().latency.unwrap().slowest;
    let mut named: Vec<u64> = slowest.iter().filter_map(|call| call.event).collect();
    named.sort_unstable();
    assert_eq!(named, (0..202).collect::<Vec<u64>>());
    let large = slowest.iter().find(|call| call.event == Some(200)).unwrap();
    assert_eq!((large.size, large.place), (64 << 20, 200));
    let engine =
        EngineOptions { pass: Pass::Attribution, attribute: slowest, ..Default::default() };
    let attributed = run(&plan, &engine).unwrap().attribution.unwrap();
    assert_eq!(attributed.len(), 202);
    assert!(attributed.windows(2).all(|w| w[0].slow.ns >= w[1].slow.ns));
}

#[test]
fn sampled_calls_are_about_one_in_as_many_as_asked_for() {
    let (_folder, plan) = plan_of(folded_ring(100), &options(Order::Deps)).unwrap();
    let engine = EngineOptions { pass: Pass::Latency, sample_every: 50, ..Default::default() };
    let latency = run(&plan, &engine).unwrap().latency.unwrap();
    let timed: u64 =
        latency.rows.iter().filter(|r| r.thread.is_none()).map(|r| r.histogram.total()).sum();
    // 100,064 calls, a draw from a fixed seed: 2,001 expected, six standard deviations are 160.
    assert!((1840..2160).contains(&timed), "{timed}");
}

/// A random but valid stream of `threads` threads.
fn random_stream(choices: &[(u8, u8, u16)]) -> Vec<Event> {
    let mut events = Vec::new();
    let mut live: Vec<ObjectId> = Vec::new();
    let mut next = 0;
    let mut born = 0_u32;
    for &(what, who, size) in choices {
        let wanted = u32::from(who % 5);
        if wanted > born {
            born += 1;
        }
        let thread = wanted.min(born);
        let fresh = |next: &mut u64| {
            *next += 1;
            Some(ObjectId(NonZeroU64::new(*next).unwrap()))
        };
        let size = u64::from(size);
        let pick = (!live.is_empty()).then(|| usize::from(what) * 7 % live.len().max(1));
        let op = match (what % 5, pick) {
            (0, Some(i)) | (1, Some(i)) => {
                Op::Free { object: Some(live.swap_remove(i)), stated_size: None }
            }
            (2, Some(i)) => {
                let object = fresh(&mut next);
                let old = Some(std::mem::replace(&mut live[i], object.unwrap()));
                Op::Realloc { old, object, size: size + 1 }
            }
            (3, _) => {
                let object = fresh(&mut next);
                live.extend(object);
                Op::Calloc { object, count: 3, size }
            }
            _ => {
                let object = fresh(&mut next);
                live.extend(object);
                Op::Malloc { object, size }
            }
        };
        if thread == born && born > 0 && !events.iter().any(|e: &Event| e.thread.0 == thread) {
            events.push(event(thread, Op::ThreadStart { parent: None }));
        }
        events.push(event(thread, op));
    }
    events
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn any_stream_is_executed_whole_in_any_order_without_a_broken_promise(
        choices in prop::collection::vec(any::<(u8, u8, u16)>(), 1..400),
        order in prop::sample::select(vec![
            Order::Deps, Order::Window(4), Order::Window(64), Order::Epoch(7), Order::Strict,
        ]),
    ) {
        let mut events = random_stream(&choices);
        if events[0].thread.0 != 0 {
            events.insert(0, event(0, Op::ThreadStart { parent: None }));
        }
        let (_folder, plan) = plan_of(events, &options(order)).unwrap();
        let engine = EngineOptions { pass: Pass::Verify, ..EngineOptions::default() };
        let outcome = run(&plan, &engine).unwrap();
        prop_assert_eq!(outcome.counts, plan.counts(1));
        prop_assert_eq!(outcome.verification.unwrap().broken, 0);
    }
}
