//! Streams at the edge of what a trace may say: waits across a body, accesses beyond their object.

use traces::{Event, Op, ThreadId};
use workloads::engine::{EngineOptions, run_after};
use workloads::plan::{Order, PlanOptions, Seam};

use crate::run_all;
use crate::support::{event, free, malloc, object, plan_of};

fn marker(seam: Seam) -> Event {
    event(0, Op::Marker { value: seam.to_marker() })
}

fn birth(thread: u32, parent: Option<u32>) -> Event {
    event(thread, Op::ThreadStart { parent: parent.map(ThreadId) })
}

#[test]
fn a_thread_without_a_part_in_the_body_waits_for_its_last_repetition() {
    let ring = 32;
    // Who releases what the body leaves: a thread born before it, and one born after it.
    for (releaser, late) in [(1, None), (2, Some(birth(2, Some(1))))] {
        let mut events = vec![birth(0, None), birth(1, Some(0))];
        events.extend((0..ring).map(|n| malloc(0, n, 48)));
        events.push(marker(Seam::Begin));
        for n in 0..500 {
            events.push(free(0, n));
            events.push(malloc(0, n + ring, 48 + n % 100));
        }
        events.push(marker(Seam::End { repeat: 100 }));
        events.extend(late);
        events.extend((500..500 + ring).map(|n| free(releaser, n)));
        for outcome in run_all(&events, Order::Deps) {
            assert_eq!((outcome.counts.allocations, outcome.counts.frees), (50_032, 50_032));
            assert!(outcome.verification.is_none_or(|v| v.broken == 0));
        }
    }
}

#[test]
fn no_access_reaches_beyond_its_object() {
    let beyond = 1 << 22;
    let access = |n, bytes| event(0, Op::Access { object: object(n), bytes, times: 1 });
    let realloc = |old, new: Option<u64>, size| {
        event(0, Op::Realloc { old: Some(object(old)), object: new.map(object), size })
    };
    // More than was asked for; a realloc refused here, and one refused in the trace alone.
    let stated = vec![malloc(0, 0, 16), access(0, beyond), free(0, 0)];
    let refused =
        vec![malloc(0, 0, 16), realloc(0, Some(1), 1 << 47), access(1, beyond), free(0, 1)];
    let granted = vec![malloc(0, 0, beyond), realloc(0, None, 16), access(0, beyond), free(0, 0)];
    // Every repetition but the first finds the small object that the one before it left.
    let repeated = vec![
        malloc(0, 0, beyond),
        marker(Seam::Begin),
        access(0, beyond),
        free(0, 0),
        malloc(0, 1, 16),
        marker(Seam::End { repeat: 2 }),
        free(0, 1),
    ];
    for (events, unsure) in [(stated, false), (refused, true), (granted, true), (repeated, true)] {
        let (_folder, plan) = plan_of(events.clone(), &PlanOptions::default()).unwrap();
        assert_eq!(plan.has_unsure_accesses(), unsure);
        for outcome in run_all(&events, Order::Deps) {
            assert!(outcome.verification.is_none_or(|v| v.broken == 0));
        }
    }
}

#[test]
fn what_a_run_is_put_under_ends_when_its_last_operation_is_done() {
    let (_folder, plan) =
        plan_of(vec![malloc(0, 0, 16), free(0, 0)], &PlanOptions::default()).unwrap();
    for pass in crate::PASSES {
        let engine = EngineOptions { pass, ..EngineOptions::default() };
        let (mut begun, mut ended) = (0, 0);
        let (began, end) = (&mut begun, &mut ended);
        let outcome = run_after(&plan, &engine, move || {
            *began += 1;
            Ok(move || *end += 1)
        });
        assert_eq!(outcome.unwrap().counts.frees, 1);
        assert_eq!((begun, ended), (1, 1));
    }
}
