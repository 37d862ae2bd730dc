//! The resolver's promises, told on hand-written records.

use super::*;

const A: u64 = 0x1000;
const B: u64 = 0x2000;

fn malloc(thread: u64, ptr: u64, size: u64) -> Raw {
    Raw { thread, time: None, op: RawOp::Malloc { ptr, size } }
}

fn realloc(thread: u64, old: u64, ptr: u64, size: u64) -> Raw {
    Raw { thread, time: None, op: RawOp::Realloc { old, ptr, size } }
}

fn free(thread: u64, ptr: u64) -> Raw {
    Raw { thread, time: None, op: RawOp::Free { ptr, stated_size: None } }
}

struct Outcome {
    events: Vec<Event>,
    census: Census,
    live: u64,
}

fn resolve_in(window: u64, threaded: bool, records: &[Raw]) -> Outcome {
    let mut resolver = Resolver::with_window(threaded, window);
    let mut census = Census::default();
    let mut events = Vec::new();
    for &raw in records {
        resolver.push(raw, &mut census);
        while let Some(event) = resolver.pop() {
            events.push(event);
        }
    }
    resolver.finish(&mut census);
    while let Some(event) = resolver.pop() {
        events.push(event);
    }
    check(&events);
    Outcome { events, census, live: resolver.live_objects() }
}

fn resolve(records: &[Raw]) -> Outcome {
    resolve_in(WINDOW, true, records)
}

/// Every object is born once, before its uses, and released at most once, after them.
fn check(events: &[Event]) {
    let mut live = std::collections::HashSet::new();
    let mut births = 0;
    for event in events {
        if let Some(object) = event.op.released() {
            assert!(live.remove(&object), "{object:?} is released alive");
        }
        if let Some(object) = event.op.born() {
            assert_eq!(object.index(), births, "object numbers are dense");
            births += 1;
            live.insert(object);
        }
    }
}

fn sizes(outcome: &Outcome) -> Vec<Option<u64>> {
    let calls = outcome.events.iter().filter(|e| !matches!(e.op, Op::ThreadStart { .. }));
    calls.map(|event| event.op.requested()).collect()
}

#[test]
fn an_address_used_again_is_another_object() {
    let outcome = resolve(&[malloc(1, A, 8), free(1, A), malloc(1, A, 16)]);
    assert_eq!(outcome.events.iter().filter_map(|e| e.op.born()).count(), 2);
    assert_eq!(outcome.census, Census::default());
    assert_eq!(outcome.live, 1);
}

#[test]
fn realloc_gives_birth_to_a_new_object_even_in_place() {
    let outcome = resolve(&[malloc(1, A, 8), realloc(1, A, A, 16)]);
    let last = outcome.events.last().unwrap().op;
    assert_eq!(last.released().map(ObjectId::index), Some(0));
    assert_eq!(last.born().map(ObjectId::index), Some(1));
    assert_eq!(outcome.census.inversions, 0);
}

#[test]
fn a_failed_realloc_leaves_its_object_alive() {
    let outcome = resolve(&[malloc(1, A, 8), realloc(1, A, 0, 1 << 40), free(1, A)]);
    assert_eq!(outcome.census.failed_allocations, 1);
    assert_eq!(outcome.census.unknown_free, 0);
    assert_eq!(outcome.live, 0);
}

#[test]
fn realloc_to_nothing_releases() {
    let outcome = resolve(&[malloc(1, A, 8), realloc(1, A, 0, 0), free(1, A)]);
    assert_eq!(outcome.census.failed_allocations, 0);
    assert_eq!(outcome.census.unknown_free, 1, "it was released already");
}

#[test]
fn a_release_of_an_unknown_address_is_counted_and_dropped() {
    let outcome = resolve(&[malloc(1, A, 8), free(1, B)]);
    assert_eq!(outcome.census.unknown_free, 1);
    assert_eq!(sizes(&outcome), [Some(8)]);
}

#[test]
fn a_realloc_of_an_unknown_address_allocates() {
    let outcome = resolve(&[realloc(1, B, A, 8)]);
    assert_eq!(outcome.census.unknown_realloc, 1);
    assert!(matches!(outcome.events[1].op, Op::Realloc { old: None, object: Some(_), size: 8 }));
}

#[test]
fn a_free_of_null_is_kept() {
    let outcome = resolve(&[free(1, 0)]);
    assert!(matches!(outcome.events[1].op, Op::Free { object: None, .. }));
    assert_eq!(outcome.census.free_null, 1);
}

#[test]
fn an_allocation_waits_for_the_release_that_made_it_possible() {
    let outcome = resolve(&[malloc(1, A, 8), malloc(2, A, 16), free(1, A), free(2, A)]);
    assert_eq!(sizes(&outcome), [Some(8), None, Some(16), None]);
    assert_eq!((outcome.census.inversions, outcome.census.missing_free), (1, 0));
    assert_eq!(outcome.live, 0);
}

#[test]
fn a_thread_waits_with_its_allocation_and_keeps_its_own_order() {
    let records = [malloc(1, A, 8), malloc(2, A, 16), malloc(2, B, 24), free(2, A), free(1, A)];
    let outcome = resolve(&records);
    assert_eq!(sizes(&outcome), [Some(8), None, Some(16), Some(24), None]);
    assert_eq!((outcome.census.inversions, outcome.census.missing_free), (1, 0));
}

#[test]
fn what_another_thread_does_to_an_object_that_waits_to_be_born_waits_too() {
    let records = [malloc(1, A, 8), malloc(2, A, 16), malloc(2, B, 24), free(3, B), free(1, A)];
    let outcome = resolve(&records);
    assert_eq!(outcome.census.unknown_free, 0);
    assert_eq!(sizes(&outcome), [Some(8), None, Some(16), Some(24), None]);
    assert_eq!(outcome.live, 1);
}

#[test]
fn an_address_whose_release_waits_is_no_inversion() {
    let records = [
        malloc(1, A, 8),
        malloc(2, B, 8),
        malloc(2, A, 16),
        free(2, B),
        malloc(3, B, 32),
        free(1, A),
    ];
    let outcome = resolve(&records);
    assert_eq!(outcome.census.inversions, 1, "only the second allocation at A is one");
    assert_eq!(sizes(&outcome), [Some(8), Some(8), None, Some(16), None, Some(32)]);
}

#[test]
fn an_inverted_realloc_waits_like_an_allocation() {
    let records = [malloc(1, A, 8), malloc(2, A, 16), realloc(1, A, B, 64), free(2, A), free(1, B)];
    let outcome = resolve(&records);
    assert_eq!(sizes(&outcome), [Some(8), Some(64), Some(16), None, None]);
    assert_eq!((outcome.census.inversions, outcome.census.missing_free), (1, 0));
    assert_eq!(outcome.live, 0);
}

#[test]
fn a_release_that_never_comes_is_made_up_and_counted() {
    let outcome = resolve(&[malloc(1, A, 8), malloc(1, A, 16), free(1, A)]);
    assert_eq!(sizes(&outcome), [Some(8), None, Some(16), None]);
    assert_eq!((outcome.census.inversions, outcome.census.missing_free), (1, 1));
    assert_eq!(outcome.live, 0);
}

#[test]
fn an_allocation_waits_no_longer_than_the_window() {
    let mut records = vec![malloc(1, A, 8), malloc(2, A, 16)];
    records.extend((0..3).map(|i| malloc(3, 0x9000 + i, 1)));
    records.push(free(1, A));
    assert_eq!(resolve_in(5, true, &records).census.missing_free, 0);
    let late = resolve_in(4, true, &records);
    assert_eq!((late.census.inversions, late.census.missing_free), (1, 1));
    assert_eq!(late.events.iter().filter(|e| e.op.released().is_some()).count(), 2);
}

#[test]
fn without_thread_ids_only_the_allocation_itself_waits() {
    let outcome = resolve_in(WINDOW, false, &[malloc(0, A, 8), malloc(0, A, 16), free(0, A)]);
    assert_eq!(sizes(&outcome), [Some(8), None, Some(16)]);
    assert_eq!((outcome.census.inversions, outcome.census.missing_free), (1, 0));
    assert_eq!(outcome.live, 1);
}

#[test]
fn a_thread_id_seen_after_its_end_is_a_new_thread() {
    let done = Raw { thread: 7, time: None, op: RawOp::ThreadEnd };
    let outcome = resolve(&[malloc(7, A, 8), done, malloc(7, B, 8)]);
    let threads: Vec<u32> = outcome.events.iter().map(|event| event.thread.0).collect();
    assert_eq!(threads, [0, 0, 0, 1, 1]);
    assert_eq!(outcome.census.reused_thread_ids, 1);
}

#[test]
fn a_parent_that_has_ended_is_named_and_none_is_made_up_for_it() {
    let raw = |thread, op| Raw { thread, time: None, op };
    let outcome = resolve(&[
        malloc(7, A, 8),
        raw(7, RawOp::ThreadEnd),
        raw(8, RawOp::ThreadStart { parent: Some(7) }),
        raw(9, RawOp::ThreadStart { parent: Some(10) }),
    ]);
    let starts: Vec<(u32, Option<u32>)> = outcome
        .events
        .iter()
        .filter_map(|event| match event.op {
            Op::ThreadStart { parent } => Some((event.thread.0, parent.map(|parent| parent.0))),
            _ => None,
        })
        .collect();
    assert_eq!(starts, [(0, None), (1, Some(0)), (2, None), (3, Some(2))], "10 begins unseen");
    assert_eq!(outcome.census.reused_thread_ids, 0);
}

#[test]
fn questions_about_and_writes_to_an_unknown_address_are_counted_and_dropped() {
    let raw = |op| Raw { thread: 1, time: None, op };
    let outcome = resolve(&[
        malloc(1, A, 8),
        raw(RawOp::UsableSize { ptr: B }),
        raw(RawOp::Access { ptr: B, bytes: 8, times: 1 }),
        raw(RawOp::UsableSize { ptr: 0 }),
        raw(RawOp::UsableSize { ptr: A }),
    ]);
    assert_eq!(outcome.census.unknown_use, 2);
    let asked: Vec<Op> = outcome.events.iter().skip(2).map(|event| event.op).collect();
    let object = Some(ObjectId::from_index(0));
    assert_eq!(asked, [Op::UsableSize { object: None }, Op::UsableSize { object }]);
}

#[test]
fn times_begin_at_zero_and_never_run_backwards_within_a_thread() {
    let at = |thread, time, ptr| Raw { time: Some(time), ..malloc(thread, ptr, 8) };
    let outcome = resolve(&[at(1, 100, A), at(1, 140, B), at(1, 120, 0x3000), at(2, 110, 0x4000)]);
    let times: Vec<Option<u64>> = outcome.events.iter().map(|event| event.time_ns).collect();
    assert_eq!(times, [Some(0), Some(0), Some(40), Some(40), Some(10), Some(10)]);
    assert_eq!(outcome.census.repaired_times, 1);
}

/// A true history in which addresses are recycled at once, with its releases recorded late.
fn history_with_late_releases(
    seed: u64,
    threads: u64,
    addresses: u64,
    length: usize,
    lag: usize,
) -> Vec<Raw> {
    let mut state = seed | 1;
    let mut random = move |bound: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % bound
    };
    let mut live = vec![false; addresses as usize];
    let mut records: Vec<Raw> = Vec::new();
    let mut late: Vec<(usize, Raw)> = Vec::new();
    while records.len() < length {
        late.retain(|&(due, raw)| {
            let now = due <= records.len();
            if now {
                records.push(raw);
            }
            !now
        });
        let thread = random(threads);
        if late.iter().any(|(_, raw)| raw.thread == thread) {
            // A thread writes its records in order: it is still busy with the late one.
            let (_, raw) = late.remove(late.iter().position(|(_, r)| r.thread == thread).unwrap());
            records.push(raw);
        }
        let slot = random(addresses);
        let address = 0x1000 + slot * 16;
        if live[slot as usize] {
            live[slot as usize] = false;
            let delay = random(lag as u64 + 1) as usize;
            late.push((records.len() + delay, free(thread, address)));
        } else {
            live[slot as usize] = true;
            records.push(malloc(thread, address, 8 + slot));
        }
    }
    records.extend(late.into_iter().map(|(_, raw)| raw));
    records
}

#[test]
fn releases_recorded_late_are_all_found_again() {
    let mut inversions = 0;
    for seed in 1..200 {
        let records = history_with_late_releases(seed, 8, 24, 400, 6);
        let outcome = resolve(&records);
        assert_eq!(outcome.census.missing_free, 0, "seed {seed}");
        assert_eq!(outcome.census.unknown_free, 0, "seed {seed}");
        assert_eq!(
            outcome.events.len(),
            records.len() + 8.min(outcome.events.len()),
            "seed {seed}"
        );
        inversions += outcome.census.inversions;
    }
    assert!(inversions > 1000, "the histories hold inversions: {inversions}");
}

/// Resolves `records`; how often one that waited was tried again.
fn tries(threaded: bool, records: impl Iterator<Item = Raw>) -> (u64, Census) {
    let mut resolver = Resolver::new(threaded);
    let mut census = Census::default();
    for raw in records {
        resolver.push(raw, &mut census);
        while resolver.pop().is_some() {}
    }
    let (waiting, queues) = resolver.held.counts();
    assert_eq!(waiting, queues, "the head of every queue waits for one address");
    resolver.finish(&mut census);
    assert_eq!(resolver.held.counts(), (0, 0));
    (resolver.tries, census)
}

#[test]
fn releases_that_never_come_cost_a_few_tries_each() {
    const LINES: u64 = 200_000;
    // One thread, a thread per record, and no threads at all.
    for (threaded, threads) in [(true, 1), (true, LINES), (false, 1)] {
        let lost = (0..LINES).map(|i| malloc(i % threads, A, 8));
        let (tries, census) = tries(threaded, lost);
        assert_eq!((census.missing_free, census.inversions), (LINES - 1, LINES - 1));
        assert!(tries < 4 * LINES, "{tries} tries with {threads} threads");
    }
}

#[test]
fn records_that_wait_behind_others_are_not_tried_with_each_that_passes() {
    // Thousands of allocations wait for one address while another is released and used again.
    for threaded in [true, false] {
        let wait = (0..20_000).map(|i| malloc(10 + i, A, 8));
        let pass = (0..20_000).flat_map(|i| [malloc(1, B + i, 8), free(1, B + i)]);
        let release = (0..20_000).map(|_| free(2, A));
        let (tries, census) = tries(threaded, wait.chain(pass).chain(release));
        assert_eq!((census.missing_free, census.unknown_free), (0, 0));
        assert!(tries < 80_000, "{tries}");
    }
}
