//! What becomes of a recorder's file: threads merged, addresses resolved, disorder repaired.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use trace_format::v1::raw::{self, RawOp, RawRecord, SLOT, UNIT};
use trace_format::v1::{ChunkHeader, FileHeader, file};
use traces::container::{self, RawTrace, ResolveOptions, Writer, WriterOptions};
use traces::{
    Census, Event, EventSource, ImportOptions, ObjectId, Op, Source, ThreadId, TraceError,
};

/// Builds a raw file as the recorder would.
struct Raw {
    bytes: Vec<u8>,
    chunks: u64,
}

/// Call, stamp and two arguments of a slot, and the continuation behind it.
type Slot = (RawOp, u64, u64, u64, Option<(u64, u64)>);

impl Raw {
    fn new() -> Raw {
        let mut bytes = vec![0; raw::PAGE];
        let header = FileHeader { features: file::RAW | file::TIMES };
        bytes[..16].copy_from_slice(&header.encode());
        let mut put =
            |at: usize, value: u64| bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        put(64, 77);
        put(80, 0);
        put(104, 1000); // 1000 ticks …
        put(112, 2000); // … are 2000 ns
        put(136, 1);
        Raw { bytes, chunks: 0 }
    }

    /// Appends a chunk: operation, stamp, address, size, and for long ones stamp before and extra.
    fn chunk(mut self, slots: &[Slot]) -> Raw {
        let start = self.bytes.len();
        self.bytes.extend(raw::chunk_header(UNIT, self.chunks).encode());
        self.chunks += 1;
        for &(op, stamp, address, size, long) in slots {
            let (before, extra) = long.unwrap_or((stamp, 0));
            let record = RawRecord { op, stamp, address, size, extra, before };
            let words = record.words();
            let used = &words[..2 * record.slots()];
            self.bytes.extend(used.iter().flat_map(|word| word.to_le_bytes()));
        }
        self.bytes.resize(start + UNIT, 0);
        self
    }

    fn resolve(self) -> (Vec<Event>, Census) {
        let (_folder, path) = self.save();
        let mut trace = RawTrace::open(path, ResolveOptions::default()).expect("a raw file");
        let mut events = Vec::new();
        while let Some(event) = trace.next_event().expect("a raw file") {
            events.push(event);
        }
        (events, trace.census())
    }

    fn save(self) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("t.raw");
        fs::write(&path, self.bytes).expect("a writable folder");
        (folder, path)
    }
}

fn ops(events: &[Event]) -> Vec<(u32, Op)> {
    events.iter().map(|event| (event.thread.0, event.op)).collect()
}

fn id(index: u64) -> Option<ObjectId> {
    Some(ObjectId::from_index(index))
}

use RawOp::{
    Calloc, Free, FreeSized, Malloc, PosixMemalign, Realloc, ThreadEnd, ThreadGoesOn, ThreadStart,
};

const START: (u32, Op) = (0, Op::ThreadStart { parent: None });

#[test]
fn threads_are_merged_by_stamp_and_an_address_used_twice_is_two_objects() {
    let (events, census) = Raw::new()
        .chunk(&[
            (ThreadStart, 1, 0, 0, None),
            (Malloc, 10, 0xa0, 16, None),
            (Malloc, 40, 0xa0, 32, None),
        ])
        .chunk(&[(ThreadStart, 5, 1, 1, None), (Free, 30, 0xa0, 0, None)])
        .resolve();
    assert_eq!(
        ops(&events),
        [
            START,
            (1, Op::ThreadStart { parent: Some(ThreadId(0)) }),
            (0, Op::Malloc { object: id(0), size: 16 }),
            (1, Op::Free { object: id(0), stated_size: None }),
            (0, Op::Malloc { object: id(1), size: 32 }),
        ]
    );
    assert_eq!((events[0].time_ns, events[4].time_ns), (Some(0), Some(78)));
    assert_eq!(census, Census { records: 6 - 1, leaked: 1, ..Census::default() });
}

#[test]
fn long_operations_keep_their_further_argument() {
    let (events, _) = Raw::new()
        .chunk(&[
            (ThreadStart, 1, 0, 0, None),
            (Calloc, 10, 0xa0, 8, Some((10, 4))),
            (PosixMemalign, 20, 0xb0, 100, Some((20, 64))),
            (Realloc, 30, 0xc0, 200, Some((25, 0xa0))),
            (FreeSized, 40, 0xc0, 200, None),
            (Free, 50, 0, 0, None),
        ])
        .resolve();
    let api = traces::AlignedApi::PosixMemalign;
    assert_eq!(
        ops(&events)[1..],
        [
            (0, Op::Calloc { object: id(0), count: 4, size: 8 }),
            (0, Op::Aligned { object: id(1), align: 64, size: 100, api }),
            (0, Op::Realloc { old: id(0), object: id(2), size: 200 }),
            (0, Op::Free { object: id(2), stated_size: Some(200) }),
            (0, Op::Free { object: None, stated_size: None }),
        ]
    );
}

#[test]
fn an_address_reused_while_its_realloc_is_not_yet_over_is_no_disorder() {
    let (events, census) = Raw::new()
        .chunk(&[
            (ThreadStart, 1, 0, 0, None),
            (Malloc, 10, 0xa0, 16, None),
            (Realloc, 50, 0xb0, 32, Some((20, 0xa0))),
        ])
        .chunk(&[(ThreadStart, 5, 1, 0, None), (Malloc, 30, 0xa0, 48, None)])
        .resolve();
    assert_eq!(census.inversions, 0);
    assert_eq!(
        ops(&events)[2..],
        [
            (0, Op::Malloc { object: id(0), size: 16 }),
            (1, Op::Malloc { object: id(1), size: 48 }),
            (0, Op::Realloc { old: id(0), object: id(2), size: 32 }),
        ]
    );
}

#[test]
fn a_failed_realloc_leaves_its_object_alive_and_one_to_zero_bytes_frees_it() {
    let (events, census) = Raw::new()
        .chunk(&[
            (ThreadStart, 1, 0, 0, None),
            (Malloc, 10, 0xa0, 16, None),
            (Realloc, 20, 0, 1 << 40, Some((15, 0xa0))),
            (Realloc, 30, 0, 0, Some((25, 0xa0))),
        ])
        .resolve();
    assert_eq!(events.len(), 4);
    assert_eq!(events[2].op, Op::Realloc { old: id(0), object: None, size: 1 << 40 });
    assert_eq!(events[3].op, Op::Realloc { old: id(0), object: None, size: 0 });
    assert_eq!((census.failed_allocations, census.leaked), (1, 0));
}

#[test]
fn an_allocation_stamped_before_the_release_of_its_address_waits_for_it() {
    let (events, census) = Raw::new()
        .chunk(&[
            (ThreadStart, 1, 0, 0, None),
            (Malloc, 10, 0xa0, 16, None),
            (Free, 31, 0xa0, 0, None),
        ])
        .chunk(&[
            (ThreadStart, 5, 1, 0, None),
            (Malloc, 30, 0xa0, 32, None),
            (Free, 30, 0xa0, 0, None),
        ])
        .resolve();
    assert_eq!(
        ops(&events)[3..],
        [
            (0, Op::Free { object: id(0), stated_size: None }),
            (1, Op::Malloc { object: id(1), size: 32 }),
            (1, Op::Free { object: id(1), stated_size: None }),
        ]
    );
    assert_eq!((census.inversions, census.missing_free, census.leaked), (1, 0, 0));
}

#[test]
fn a_release_that_was_lost_is_added_and_counted() {
    let (events, census) = Raw::new()
        .chunk(&[
            (ThreadStart, 1, 0, 0, None),
            (Malloc, 10, 0xa0, 16, None),
            (Malloc, 20, 0xa0, 32, None),
            (Free, 30, 0xb0, 0, None),
            (Realloc, 50, 0xb0, 8, Some((40, 0xd0))),
        ])
        .resolve();
    assert_eq!(
        ops(&events)[1..],
        [
            (0, Op::Malloc { object: id(0), size: 16 }),
            (0, Op::Free { object: id(0), stated_size: None }),
            (0, Op::Malloc { object: id(1), size: 32 }),
            (0, Op::Realloc { old: None, object: id(2), size: 8 }),
        ]
    );
    assert_eq!((census.missing_free, census.unknown_free, census.unknown_realloc), (1, 1, 1));
}

#[test]
fn a_strict_reader_refuses_a_recording_with_a_lost_release_and_a_container_made_from_it() {
    let (folder, path) = Raw::new()
        .chunk(&[
            (ThreadStart, 1, 0, 0, None),
            (Malloc, 10, 0xa0, 16, None),
            (Malloc, 20, 0xa0, 32, None),
        ])
        .save();
    let made = folder.path().join("t.atrace");
    let writer = Writer::create(&made, WriterOptions::default()).expect("a writable folder");
    container::save(&mut *traces::open(&path).expect("a raw file"), writer).expect("a raw file");
    for path in [path, made] {
        let anomalies = refused_for(&path);
        assert!(anomalies.contains("missing_free 1"), "{anomalies}");
    }
}

/// The anomalies for which a strict reader refuses a trace.
fn refused_for(path: &Path) -> String {
    let strict = ImportOptions { strict: true, ..ImportOptions::default() };
    let mut source = traces::open_with(path, &strict).expect("a trace");
    let end = loop {
        match source.next_event() {
            Ok(Some(_)) => {}
            end => break end,
        }
    };
    let Err(TraceError::Strict { anomalies, .. }) = end else {
        panic!("{}: {end:?}", path.display())
    };
    anomalies
}

#[test]
fn one_flipped_bit_in_an_operation_or_in_the_header_of_a_chunk_is_counted_and_refused() {
    let sound = || {
        Raw::new()
            .chunk(&[
                (ThreadStart, 1, 0, 0, None),
                (Malloc, 10, 0xa0, 16, None),
                (Free, 20, 0xa0, 0, None),
            ])
            .chunk(&[(ThreadStart, 5, 1, 0, None), (Malloc, 30, 0xb0, 16, None)])
    };
    assert_eq!(sound().resolve().1.anomalies(), []);
    let operation = raw::PAGE + ChunkHeader::LEN + 2 * SLOT;
    let header = raw::PAGE + UNIT;
    for (at, bit, events) in [(operation, 0x40, 4), (header, 1, 3), (header + 16, 1, 3)] {
        let mut damaged = sound();
        damaged.bytes[at] ^= bit;
        let (_folder, path) = Raw { bytes: damaged.bytes.clone(), chunks: 2 }.save();
        let (left, census) = damaged.resolve();
        assert_eq!((left.len(), census.damaged_parts), (events, 1), "a bit of byte {at}");
        assert_eq!(refused_for(&path), "damaged_parts 1");
    }
}

#[test]
fn times_begin_with_the_stream_however_late_it_begins() {
    let (_folder, path) = Raw::new()
        .chunk(&[(ThreadStart, 1_000_000, 0, 0, None), (Malloc, 1_000_010, 0xa0, 16, None)])
        .save();
    let mut trace = RawTrace::open(path, ResolveOptions::default()).expect("a raw file");
    let mut times = Vec::new();
    while let Some(event) = trace.next_event().expect("a raw file") {
        times.push(event.time_ns);
    }
    assert_eq!(times, [Some(0), Some(20)]);
    let began = ("began_after_ns".to_owned(), "2000000".to_owned());
    assert!(trace.provenance().contains(&began), "{:?}", trace.provenance());
}

#[test]
fn no_thread_is_its_own_parent_whatever_the_file_says() {
    let (events, _) =
        Raw::new().chunk(&[(ThreadStart, 1, 0, 1, None), (Malloc, 10, 0xa0, 16, None)]).resolve();
    assert_eq!(ops(&events)[0], START);
}

#[test]
fn a_record_behind_a_full_window_waits_for_its_stamp() {
    // A window holds up to 2048 slots.
    for before in 2040..2050 {
        let mut consumer = vec![(ThreadStart, 1, 0, 0, None)];
        consumer.extend((0..before).map(|i| (Free, 10 + i, 0, 0, None)));
        consumer.push((Free, 5000, 0xb0, 0, None));
        consumer.extend([(Free, 6000, 0, 0, None); 8]);
        let (_, census) = Raw::new()
            .chunk(&consumer)
            .chunk(&[(ThreadStart, 5, 1, 0, None), (Malloc, 4000, 0xb0, 16, None)])
            .resolve();
        assert_eq!((census.unknown_free, census.leaked), (0, 0), "behind {before}");
    }
}

#[test]
fn a_thread_that_waits_for_a_lost_release_is_not_overtaken_for_long() {
    let (events, census) = Raw::new()
        .chunk(&[(ThreadStart, 1, 0, 0, None), (Malloc, 10, 0xa0, 16, None)])
        .chunk(&[
            (ThreadStart, 2, 1, 0, None),
            (Malloc, 100, 0xa0, 32, None),
            (Malloc, 110, 0xb0, 48, None),
        ])
        .chunk(&[(ThreadStart, 3, 2, 0, None), (Free, 120 + (1 << 17), 0xb0, 0, None)])
        .resolve();
    assert_eq!((census.missing_free, census.unknown_free), (1, 0));
    let freed = (2, Op::Free { object: id(2), stated_size: None });
    assert_eq!(ops(&events).last(), Some(&freed));
}

#[test]
fn a_chunk_that_threads_share_is_told_apart_and_late_frees_precede_the_end() {
    let (events, _) = Raw::new()
        .chunk(&[
            (ThreadStart, 1, 0, 0, None),
            (Malloc, 10, 0xa0, 16, None),
            (ThreadEnd, 20, 0, 0, None),
            (ThreadStart, 30, 1, 0, None),
            (Malloc, 40, 0xb0, 16, None),
            (ThreadGoesOn, 21, 0, 0, None),
            (Free, 21, 0xa0, 0, None),
        ])
        .resolve();
    assert_eq!(
        ops(&events),
        [
            START,
            (0, Op::Malloc { object: id(0), size: 16 }),
            (0, Op::Free { object: id(0), stated_size: None }),
            (0, Op::ThreadEnd),
            (1, Op::ThreadStart { parent: None }),
            (1, Op::Malloc { object: id(1), size: 16 }),
        ]
    );
}

#[test]
fn slots_that_were_never_committed_and_chunks_that_were_never_begun_are_passed_over() {
    let mut raw = Raw::new().chunk(&[
        (ThreadStart, 1, 0, 0, None),
        (Malloc, 10, 0xa0, 16, None),
        (Malloc, 20, 0xb0, 16, None),
    ]);
    let second = raw::PAGE + ChunkHeader::LEN + SLOT;
    raw.bytes[second..second + 8].fill(0);
    raw.bytes.resize(raw.bytes.len() + UNIT, 0);
    let raw = raw.chunk(&[(ThreadGoesOn, 30, 0, 0, None), (Free, 30, 0xb0, 0, None)]);
    let (events, census) = raw.resolve();
    assert_eq!(
        ops(&events)[1..],
        [
            (0, Op::Malloc { object: id(0), size: 16 }),
            (0, Op::Free { object: id(0), stated_size: None }),
        ]
    );
    assert_eq!((census.leaked, census.damaged_parts), (0, 0));
}

#[test]
fn a_raw_file_cut_anywhere_is_read_as_far_as_it_goes() {
    let raw = Raw::new().chunk(&[
        (ThreadStart, 1, 0, 0, None),
        (Malloc, 10, 0xa0, 16, None),
        (Calloc, 20, 0xb0, 8, Some((20, 4))),
        (Free, 30, 0xa0, 0, None),
    ]);
    let (_folder, path) = Raw { bytes: raw.bytes.clone(), chunks: 1 }.save();
    let behind = raw::PAGE + ChunkHeader::LEN + 7 * SLOT;
    let mut most = 0;
    for cut in (0..behind).filter(|cut| *cut < 20 || *cut > raw::PAGE - 5) {
        fs::write(&path, &raw.bytes[..cut]).expect("a writable folder");
        let Ok(mut trace) = RawTrace::open(&path, ResolveOptions::default()) else {
            assert!(cut < 16);
            continue;
        };
        let mut events = 0;
        while trace.next_event().expect("readable").is_some() {
            events += 1;
        }
        assert!(events >= most);
        most = events;
    }
    assert_eq!(most, 4);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_slots_resolve_to_a_stream_in_which_objects_are_born_used_and_released_in_order(
        slots in prop::collection::vec((0u8..24, 0u64..50, 0u64..8, 0u64..4), 0..400),
        cuts in prop::collection::vec(0usize..400, 0..4),
    ) {
        let mut raw = Raw::new();
        let mut records = Vec::new();
        for (i, (op, stamp, address, extra)) in slots.into_iter().enumerate() {
            if let Some(op) = RawOp::from_byte(op) {
                let long = op.has_argument().then_some((stamp, extra));
                records.push((op, stamp, address, 16, long));
            }
            if cuts.contains(&i) {
                raw = raw.chunk(&records);
                records.clear();
            }
        }
        let (events, census) = raw.chunk(&records).resolve();
        let mut live = std::collections::BTreeSet::new();
        let mut threads = 0;
        for event in &events {
            if let Op::ThreadStart { parent } = event.op {
                prop_assert_eq!(event.thread, ThreadId(threads));
                prop_assert!(parent.is_none_or(|parent| parent < event.thread));
                threads += 1;
            }
            prop_assert!(event.thread.0 < threads);
            if let Some(object) = event.op.released() {
                prop_assert!(live.remove(&object));
            }
            if let Some(object) = event.op.born() {
                prop_assert!(live.insert(object));
            }
        }
        prop_assert_eq!(live.len() as u64, census.leaked);
    }
}
