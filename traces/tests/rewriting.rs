//! What the rewriting steps promise, on hand-made traces and on every sample.

use std::path::{Path, PathBuf};

use traces::analysis::{self, Summary, Verifier};
use traces::container::{self, Writer, WriterOptions};
use traces::event::{AlignedApi, Event, EventSource, ObjectId, Op, ThreadId};
use traces::rewrite::fleetbench::{self, FleetOptions};
use traces::rewrite::shrink::{Answer, Progress, Units};
use traces::rewrite::{
    Anonymize, AnonymizeOptions, Cut, Fitter, Generator, Merge, Profile, Span, Stream,
};
use traces::{Census, Format, Source};

fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

const SAMPLES: [&str; 12] = [
    "android.txt",
    "logalloc.txt",
    "mtrace.txt",
    "valgrind.txt",
    "heaptrack.raw.txt",
    "ltrace.txt",
    "calls.csv",
    "glibc.mtbin",
    "threads.wl",
    "calls.trace.gz",
    "calls.ops",
    "real-ltrace.txt",
];

/// All events, after checking that they keep the event model's promises.
fn events(mut source: impl Source) -> Vec<Event> {
    let mut verifier = Verifier::default();
    let mut events = Vec::new();
    while let Some(event) = source.next_event().unwrap() {
        verifier.observe(&event);
        events.push(event);
    }
    assert_eq!(verifier.faults(), (&[][..], 0));
    events
}

fn summary(events: Vec<Event>) -> Summary {
    analysis::summarise(&mut Stream::new(events)).unwrap()
}

fn at(thread: u32, time_ns: u64, op: Op) -> Event {
    Event { thread: ThreadId(thread), time_ns: Some(time_ns), op }
}

fn id(number: u64) -> Option<ObjectId> {
    Some(ObjectId::from_index(number - 1))
}

fn malloc(number: u64, size: u64) -> Op {
    Op::Malloc { object: id(number), size }
}

fn free(number: u64) -> Op {
    Op::Free { object: id(number), stated_size: None }
}

/// Two threads; object 1 lives through, 2 crosses threads, 3 is reallocated to 4.
fn small() -> Vec<Event> {
    vec![
        at(0, 0, Op::ThreadStart { parent: None }),
        at(0, 10, malloc(1, 100)),
        at(0, 20, malloc(2, 200)),
        at(1, 30, Op::ThreadStart { parent: Some(ThreadId(0)) }),
        at(1, 40, free(2)),
        at(1, 50, malloc(3, 300)),
        at(1, 60, Op::Realloc { old: id(3), object: id(4), size: 400 }),
        at(0, 70, Op::Free { object: None, stated_size: None }),
        at(1, 80, free(4)),
        at(1, 90, Op::ThreadEnd),
        at(0, 100, free(1)),
    ]
}

#[test]
fn a_cut_by_time_meets_the_heap_it_would_have_met() {
    let span = Span::Times { from: Some(40), until: Some(75) };
    let cut = events(Cut::new(Stream::new(small()), span, true));
    let told = summary(cut.clone());
    assert_eq!(told.operations.malloc, 3, "two alive before, one within");
    assert_eq!(told.peak_live_bytes, 500);
    assert_eq!((told.final_live_objects, told.final_live_bytes), (2, 500));
    assert_eq!(told.cross_thread_frees, 1);
    assert_eq!(cut[0].time_ns, Some(0), "time begins anew");
}

#[test]
fn a_cut_can_leave_out_what_was_alive_before() {
    let span = Span::Times { from: Some(40), until: None };
    let told = summary(events(Cut::new(Stream::new(small()), span, false)));
    assert_eq!((told.operations.malloc, told.operations.realloc), (1, 1));
    assert_eq!((told.operations.free, told.final_live_objects), (2, 0));
}

#[test]
fn a_cut_by_births_begins_and_ends_with_threads() {
    let span = Span::Births { from: None, until: Some(1) };
    let told = summary(events(Cut::new(Stream::new(small()), span, true)));
    assert_eq!((told.threads, told.final_live_objects), (1, 2));
    let span = Span::Births { from: Some(1), until: None };
    let told = summary(events(Cut::new(Stream::new(small()), span, true)));
    assert_eq!((told.threads, told.final_live_objects, told.operations.free), (2, 0, 4));
}

#[test]
fn a_thread_that_ended_before_the_part_does_not_live_on_in_it() {
    let all = vec![
        at(0, 0, Op::ThreadStart { parent: None }),
        at(1, 10, Op::ThreadStart { parent: Some(ThreadId(0)) }),
        at(1, 20, malloc(1, 100)),
        at(1, 30, Op::ThreadEnd),
        at(0, 40, free(1)),
    ];
    let span = Span::Times { from: Some(40), until: None };
    let part = events(Cut::new(Stream::new(all), span, true));
    let ends = part.iter().filter(|event| event.op == Op::ThreadEnd).count();
    let told = summary(part);
    assert_eq!((told.threads, told.peak_threads, ends), (2, 1, 1));
    assert_eq!(told.cross_thread_frees, 1, "what it left is released by another");
}

#[test]
fn parts_cut_at_one_point_hold_all_calls_together() {
    for name in SAMPLES {
        let whole = events(traces::open(sample(name)).unwrap());
        let middle = whole.last().unwrap().time_ns.map(|last| last / 2);
        let Some(middle) = middle else { continue };
        let part = |from, until| {
            let span = Span::Times { from, until };
            summary(events(Cut::new(Stream::new(whole.clone()), span, false))).operations
        };
        let (first, second) = (part(None, Some(middle)), part(Some(middle), None));
        let all = summary(whole.clone()).operations;
        assert!(first.malloc + second.malloc == all.malloc, "{name}");
        assert!(first.free + second.free <= all.free, "{name}: calls on what was left out go");
    }
}

#[test]
fn merged_traces_hold_the_calls_of_all() {
    let sources = || -> Vec<Box<dyn Source>> {
        SAMPLES.iter().map(|name| traces::open(sample(name)).unwrap()).collect()
    };
    let told = summary(events(Merge::new(sources()).unwrap()));
    let parts: Vec<Summary> =
        sources().iter_mut().map(|source| analysis::summarise(&mut **source).unwrap()).collect();
    let sum = |figure: fn(&Summary) -> u64| parts.iter().map(figure).sum::<u64>();
    assert_eq!(told.operations.calls(), sum(|s| s.operations.calls()));
    assert_eq!(told.threads, sum(|s| s.threads));
    assert_eq!(told.cross_thread_frees, sum(|s| s.cross_thread_frees));
    assert_eq!(told.final_live_bytes, sum(|s| s.final_live_bytes));
    assert_eq!(told.duration_ns, None, "not all have times");
}

#[test]
fn merged_traces_with_times_are_ordered_by_them() {
    let sources: Vec<Box<dyn Source>> =
        vec![Box::new(Stream::new(small())), Box::new(Stream::new(small()))];
    let merged = events(Merge::new(sources).unwrap());
    assert!(merged.windows(2).all(|pair| pair[0].time_ns <= pair[1].time_ns));
    assert_eq!(merged.len(), 2 * small().len());
}

#[test]
fn no_address_name_or_exact_time_survives_anonymizing() {
    // Numbers that can be found again if they survive anywhere in the file.
    const SECRETS: [u64; 6] =
        [0x7f3a_19c5_1230, 987_654_321, 0x0bad_c0de_0bad_c0de, 77_777, 123_456_789_123, 41_414_141];
    let [pointer, time, marker, child, stated, size] = SECRETS;
    let text = format!(
        "ns,tid,op,ptr,old,size,align\n\
         5,{pid},malloc,{pointer:#x},,{size},\n\
         {time},{pid},marker,,,{marker},\n\
         {time},{pid},fork,,,{child},\n\
         {time},{pid},free,{pointer:#x},,{stated},\n",
        pid = 31_313
    );
    let folder = tempfile::tempdir().unwrap();
    let secret_name = folder.path().join("customer-payroll.csv");
    let (plain, anonymous) = (folder.path().join("a.atrace"), folder.path().join("b.atrace"));
    std::fs::write(&secret_name, text).unwrap();
    let mut writer = Writer::create(&plain, WriterOptions::default()).unwrap();
    writer.provenance("origin", "customer-payroll.csv");
    writer.provenance("command", "payroll --customer 31313");
    container::save(&mut *traces::open(&secret_name).unwrap(), writer).unwrap();
    let options = AnonymizeOptions { resolution_ns: 1_000_000, size_classes: true };
    let mut source = Anonymize::new(traces::open(&plain).unwrap(), options);
    let writer = Writer::create(&anonymous, WriterOptions::default()).unwrap();
    container::save(&mut source, writer).unwrap();

    let all = events(traces::open(&anonymous).unwrap());
    let told = format!("{all:?}");
    for secret in SECRETS.iter().chain(&[31_313]) {
        assert!(!told.contains(&secret.to_string()), "{secret} survives in {told}");
    }
    assert!(all.iter().all(|event| event.time_ns.unwrap().is_multiple_of(1_000_000)));
    let bytes = std::fs::read(&anonymous).unwrap();
    let holds = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
    assert!(!holds(b"payroll") && !holds(b"customer"));
    for secret in SECRETS {
        assert!(!holds(&secret.to_le_bytes()[..4]), "{secret} survives in the file");
    }
    assert_eq!(summary(all).operations.free, 1, "what the program did survives");
}

#[test]
fn anonymizing_can_drop_times_and_keeps_who_frees_what() {
    let options = AnonymizeOptions { resolution_ns: 0, size_classes: false };
    let anonymous = events(Anonymize::new(Stream::new(small()), options));
    assert!(anonymous.iter().all(|event| event.time_ns.is_none()));
    let (before, after) = (summary(small()), summary(anonymous));
    assert_eq!(after.cross_thread_frees, before.cross_thread_frees);
    assert_eq!(after.sizes, before.sizes);
    assert_eq!(after.lifetime_calls, before.lifetime_calls);
}

#[test]
fn every_sample_is_the_same_trace_out_of_a_container() {
    let folder = tempfile::tempdir().unwrap();
    for name in SAMPLES {
        let path = folder.path().join("t.atrace");
        let first = events(traces::open(sample(name)).unwrap());
        let mut source = traces::open(sample(name)).unwrap();
        let writer = Writer::create(&path, WriterOptions::default()).unwrap();
        container::save(&mut *source, writer).unwrap();
        let mut again = traces::open(&path).unwrap();
        assert_eq!(again.format(), Format::Container);
        let mut read = Vec::new();
        while let Some(event) = again.next_event().unwrap() {
            read.push(event);
        }
        assert_eq!(read, first, "{name}");
        let expected = Census { records: again.census().records, ..source.census() };
        assert_eq!(again.census(), expected, "{name}: what was repaired travels along");
    }
}

#[test]
fn shrinking_finds_the_one_life_that_matters() {
    // A thousand objects on four threads; the fault needs the one of 4,242 bytes, which is
    // reallocated twice, and the free of it by another thread.
    let mut all: Vec<Event> = Vec::new();
    for thread in 0..4 {
        all.push(at(thread, 0, Op::ThreadStart { parent: None }));
    }
    let mut births = 0;
    let mut next = || {
        births += 1;
        id(births)
    };
    for round in 0..1000_u32 {
        let object = next();
        let thread = round % 4;
        all.push(at(thread, 1, Op::Malloc { object, size: u64::from(round) }));
        if round == 500 {
            let second = next();
            let third = next();
            all.push(at(0, 1, Op::Realloc { old: object, object: second, size: 4_242 }));
            all.push(at(1, 1, Op::Realloc { old: second, object: third, size: 5_000 }));
            all.push(at(2, 1, Op::Free { object: third, stated_size: None }));
        } else {
            all.push(at(thread, 1, Op::Free { object, stated_size: None }));
        }
    }
    let units = Units::read(&mut Stream::new(all)).unwrap();
    assert_eq!(units.count(), 1000);
    let (rest, progress) = units
        .shrink(10_000, |events, _| -> Result<Answer, std::convert::Infallible> {
            let shown = events.iter().any(|e| matches!(e.op, Op::Realloc { size: 4_242, .. }));
            let _ = self::events(Stream::new(events));
            Ok(if shown { Answer::Shows } else { Answer::Lacks })
        })
        .unwrap();
    assert!(progress.minimal && progress.trials < 200, "{progress:?}");
    let told = summary(events(Stream::new(rest)));
    assert_eq!((told.allocated_objects, told.threads), (3, 3));
    assert_eq!((told.operations.realloc, told.operations.free), (2, 1));
}

/// Shrinks a trace of `lives` objects, of 1, 2, 3 … bytes, and returns the sizes that are left.
fn shrunk(
    lives: u64,
    most_trials: u64,
    mut look: impl FnMut(&[u64], Progress) -> Answer,
) -> (Vec<u64>, Progress) {
    let mut all = vec![at(0, 0, Op::ThreadStart { parent: None })];
    all.extend((1..=lives).map(|n| at(0, 0, Op::Malloc { object: id(n), size: n })));
    let sizes = |events: &[Event]| events.iter().filter_map(|e| e.op.requested()).collect();
    let units = Units::read(&mut Stream::new(all)).unwrap();
    let (rest, progress) = units
        .shrink(most_trials, |events, progress| -> Result<Answer, std::convert::Infallible> {
            let sizes: Vec<u64> = sizes(&events);
            Ok(look(&sizes, progress))
        })
        .unwrap();
    (sizes(&rest), progress)
}

#[test]
fn a_search_calls_minimal_only_what_it_has_tried_life_by_life() {
    let needs = |wanted: &'static [u64]| {
        move |sizes: &[u64], _| match wanted.iter().all(|size| sizes.contains(size)) {
            true => Answer::Shows,
            false => Answer::Lacks,
        }
    };
    // The one trial leaves out the life that is needed; the other one is not tried.
    let (left, progress) = shrunk(2, 1, needs(&[1]));
    assert_eq!((left, progress.trials, progress.minimal), (vec![1, 2], 1, false));
    let (left, progress) = shrunk(2, 2, needs(&[1]));
    assert_eq!((left, progress.trials, progress.minimal), (vec![1], 2, true));
    // The last trial allowed is the last one needed.
    let (left, progress) = shrunk(2, 2, needs(&[1, 2]));
    assert_eq!((left, progress.trials, progress.minimal), (vec![1, 2], 2, true));
}

#[test]
fn a_search_that_is_stopped_makes_no_further_trial_and_keeps_what_it_has() {
    let mut looks = 0;
    let (left, progress) = shrunk(1000, 10_000, |_, _| {
        looks += 1;
        if looks < 3 { Answer::Shows } else { Answer::Stop }
    });
    assert_eq!((left.len(), looks), (250, 3));
    assert_eq!((progress.units, progress.trials, progress.minimal), (250, 3, false));
}

/// A trace with phases, threads that end, chains and alignments; lengths as asked for.
fn rich(objects: u64) -> Vec<Event> {
    let mut all: Vec<Event> = Vec::new();
    for thread in 0..3 {
        all.push(at(thread, 0, Op::ThreadStart { parent: None }));
    }
    let mut live: Vec<(u64, u64)> = Vec::new();
    let mut state = 88_172_645_463_325_252_u64;
    let mut random = |bound: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % bound
    };
    let mut births = 0;
    while births < objects {
        let time = all.len() as u64 * 100;
        let thread = random(3) as u32;
        let growing = births < objects / 2;
        if live.is_empty() || random(10) < if growing { 6 } else { 4 } {
            births += 1;
            let (object, size) = (id(births), 1 << random(13));
            all.push(at(
                thread,
                time,
                match random(8) {
                    0 => Op::Calloc { object, count: 4, size: size / 4 },
                    1 => Op::Aligned { object, align: 64, size, api: AlignedApi::Memalign },
                    2 => Op::Realloc { old: None, object, size },
                    _ => Op::Malloc { object, size },
                },
            ));
            live.push((births, size));
        } else {
            let index =
                (live.len() as u64 - 1 - random(live.len() as u64).min(random(30))) as usize;
            let (object, size) = live.swap_remove(index);
            if random(5) == 0 {
                births += 1;
                let op = Op::Realloc { old: id(object), object: id(births), size: size * 2 };
                all.push(at(thread, time, op));
                live.push((births, size * 2));
            } else {
                all.push(at(thread, time, free(object)));
            }
        }
    }
    all
}

fn fit(events: &[Event]) -> Profile {
    let mut fitter = Fitter::new();
    events.iter().for_each(|event| fitter.observe(event));
    fitter.finish()
}

fn assert_close(what: &str, got: u64, expected: u64, share: f64) {
    let error = (got as f64 / expected as f64 - 1.0).abs();
    assert!(error <= share, "{what}: {got} instead of {expected}");
}

#[test]
fn a_trace_made_from_a_profile_is_like_the_one_it_was_taken_from() {
    let original = rich(40_000);
    let profile = fit(&original);
    let profile = Profile::from_json(&profile.to_json().unwrap()).unwrap();
    let told = summary(original);
    let copy = summary(events(Generator::new(profile, 1.0, 7).unwrap()));
    assert_close("objects", copy.allocated_objects, told.allocated_objects, 0.001);
    assert_close("peak", copy.peak_live_bytes, told.peak_live_bytes, 0.05);
    assert_close("final", copy.final_live_bytes, told.final_live_bytes, 0.05);
    assert_close("cross", copy.cross_thread_frees, told.cross_thread_frees, 0.05);
    assert_close("reallocs", copy.operations.realloc, told.operations.realloc, 0.05);
    assert_eq!(copy.threads, told.threads);
    assert!(copy.sizes.distance(&told.sizes) < 0.02);
    let lifetimes = copy.lifetime_calls.distance(&told.lifetime_calls);
    assert!(lifetimes < 0.08, "{lifetimes}");
}

#[test]
fn a_profile_scales() {
    let profile = fit(&rich(5_000));
    let objects = profile.objects();
    for scale in [0.1, 3.0] {
        let made = summary(events(Generator::new(profile.clone(), scale, 1).unwrap()));
        assert_close("objects", made.allocated_objects, (objects as f64 * scale) as u64, 0.03);
    }
}

#[test]
fn the_same_seed_makes_the_same_trace_and_another_one_does_not() {
    let profile = fit(&rich(2_000));
    let make = |seed| events(Generator::new(profile.clone(), 1.0, seed).unwrap());
    assert_eq!(make(3), make(3));
    assert_ne!(make(3), make(4));
}

#[test]
fn a_profile_that_asks_for_too_much_is_refused() {
    let mut profile = fit(&rich(100));
    profile.phases[0].cells[0].count = 1 << 30;
    assert!(Generator::new(profile.clone(), 1.0, 1).is_err());
    profile.phases[0].cells[0].count = 1 << 50;
    assert!(Profile::from_json(&profile.to_json().unwrap()).is_err());
    assert!(Profile::from_json("{}").is_err());
    assert!(Generator::new(fit(&rich(100)), f64::NAN, 1).is_err());
    let mut more: [Profile; 4] = std::array::from_fn(|_| fit(&rich(100)));
    more[0].phases[0].free_null = 1 << 41;
    more[1].phases[0].usable_size = 1 << 41;
    more[2].phases[0].allocations[0].1 = 1 << 41;
    more[3].frees[0].2 = u64::MAX;
    for profile in more {
        assert!(Profile::from_json(&profile.to_json().unwrap()).is_err());
    }
}

#[test]
fn calls_that_would_not_fit_in_memory_are_made_one_by_one() {
    let mut profile = fit(&rich(100));
    profile.phases[0].free_null = 1 << 40;
    let nulls = profile.clone();
    profile.phases[0].free_null = 0;
    profile.phases[0].usable_size = 1 << 40;
    for profile in [nulls, profile] {
        let profile = Profile::from_json(&profile.to_json().unwrap()).unwrap();
        let mut made = Generator::new(profile, 1.0, 1).unwrap();
        let first: Vec<Event> = (0..10_000).map(|_| made.next_event().unwrap().unwrap()).collect();
        let told = summary(first).operations;
        assert!(told.free_null.max(told.usable_size) > 9_900, "{told:?}");
    }
}

#[test]
fn a_size_profile_fills_its_heap_and_keeps_it_there() {
    let rows = "16, 100.0, 1000\n4096, 10, 50.5\n120259084288, 0.001, 0.5\n";
    let rows = fleetbench::parse(rows).unwrap();
    let options =
        FleetOptions { allocations: 50_000, heap_bytes: 8 << 20, largest: 1 << 20, threads: 2 };
    let profile = fleetbench::to_profile(&rows, &options).unwrap();
    let made = summary(events(Generator::new(profile, 1.0, 1).unwrap()));
    assert_eq!(made.sizes.max, 1 << 20, "clamped");
    assert_eq!(made.threads, 2);
    assert_close("live", made.peak_live_bytes, 8 << 20, 0.35);
    let share = made.cross_thread_frees as f64 / made.operations.free as f64;
    assert!((0.05..0.15).contains(&share), "{share}");
}

#[test]
fn a_size_profile_taken_from_a_trace_has_its_rates() {
    let mut fitter = fleetbench::FleetFitter::default();
    small().iter().for_each(|event| fitter.observe(event));
    let rows = fitter.finish();
    assert_eq!(rows.iter().map(|row| row.size).collect::<Vec<_>>(), [100, 200, 300, 400]);
    assert_eq!(fleetbench::parse(&fleetbench::format(&rows)).unwrap(), rows);
    assert!(rows[0].live > rows[2].live, "object 1 lives longest");
}
