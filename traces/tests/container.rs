//! What the container promises: streams come back equal, damage is named and nothing before it is
//! lost, and a file appears whole or not at all.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use traces::container::{self, Reader, Writer, WriterOptions};
use traces::{AlignedApi, Event, EventSource, ObjectId, Op, Source, ThreadId, TraceError};

fn options(chunk_events: u32) -> WriterOptions {
    WriterOptions { chunk_events, ..WriterOptions::default() }
}

fn write(path: &Path, events: &[Event], chunk_events: u32) {
    let mut writer = Writer::create(path, options(chunk_events)).expect("a writable folder");
    writer.provenance("command", "made by a test");
    for event in events {
        writer.write(event).expect("a legal stream");
    }
    writer.finish().expect("a writable folder");
}

/// All events up to the end or the first error.
fn read(path: &Path) -> (Vec<Event>, Result<Option<String>, TraceError>) {
    let mut reader = match Reader::open(path) {
        Ok(reader) => reader,
        Err(error) => return (Vec::new(), Err(error)),
    };
    let mut events = Vec::new();
    loop {
        match reader.next_event() {
            Ok(Some(event)) => events.push(event),
            Ok(None) => return (events, Ok(reader.loss().map(str::to_owned))),
            Err(error) => return (events, Err(error)),
        }
    }
}

/// One event of every kind and corner, in a legal order.
fn all_kinds() -> Vec<Event> {
    let id = |index| Some(ObjectId::from_index(index));
    let mut ops = vec![
        (0, Op::ThreadStart { parent: None }),
        (0, Op::Malloc { object: id(0), size: 64 }),
        (1, Op::ThreadStart { parent: Some(ThreadId(0)) }),
        (1, Op::Calloc { object: id(1), count: 3, size: 1 << 40 }),
        (1, Op::Realloc { old: id(0), object: id(2), size: 0 }),
        (0, Op::Realloc { old: None, object: id(3), size: 100 }),
        (0, Op::Realloc { old: id(3), object: None, size: u64::MAX }),
        (0, Op::Realloc { old: id(3), object: None, size: 0 }),
        (0, Op::Malloc { object: None, size: u64::MAX }),
        (0, Op::Calloc { object: None, count: u64::MAX, size: u64::MAX }),
        (1, Op::UsableSize { object: id(2) }),
        (1, Op::UsableSize { object: None }),
        (1, Op::Access { object: ObjectId::from_index(2), bytes: 9, times: 2 }),
        (1, Op::Free { object: id(2), stated_size: Some(0) }),
        (1, Op::Free { object: id(1), stated_size: None }),
        (1, Op::Free { object: None, stated_size: None }),
        (1, Op::Free { object: None, stated_size: Some(7) }),
        (0, Op::Fork { child: 4711 }),
        (0, Op::Marker { value: u64::MAX }),
        (1, Op::ThreadEnd),
    ];
    for (i, api) in (4..).zip(AlignedApi::ALL) {
        ops.push((0, Op::Aligned { object: id(i), align: 1 << (4 + i), size: i, api }));
    }
    let odd = Op::Aligned { object: None, align: 24, size: 1, api: AlignedApi::PosixMemalign };
    ops.push((0, odd));
    let huge = Op::Aligned { object: None, align: 1 << 63, size: 1, api: AlignedApi::Memalign };
    ops.push((u32::MAX, Op::ThreadStart { parent: Some(ThreadId(0)) }));
    ops.push((u32::MAX, huge));
    // Times of different threads may go back against each other.
    (0..)
        .zip(ops)
        .map(|(i, (thread, op))| Event {
            thread: ThreadId(thread),
            time_ns: Some(1000 * i + u64::from(thread == 0) * 5000),
            op,
        })
        .collect()
}

/// A legal stream from arbitrary choices.
fn streams() -> impl Strategy<Value = Vec<Event>> {
    let choice = (0u32..3, 0u8..8, any::<u64>(), 0u32..64, any::<prop::sample::Index>());
    (any::<bool>(), prop::collection::vec(choice, 0..300)).prop_map(|(times, choices)| {
        let mut live: Vec<ObjectId> = Vec::new();
        let mut born = 0;
        let mut birth = |live: &mut Vec<ObjectId>| {
            let id = ObjectId::from_index(born);
            born += 1;
            live.push(id);
            Some(id)
        };
        (0u64..)
            .zip(choices)
            .map(|(i, (thread, kind, value, shift, index))| {
                let size = value >> shift;
                let mut taken =
                    || (!live.is_empty()).then(|| live.swap_remove(index.index(live.len())));
                let op = match kind {
                    0 | 1 => Op::Malloc { object: birth(&mut live), size },
                    2 => Op::Calloc { object: birth(&mut live), count: value & 15, size },
                    3 => {
                        let old = taken();
                        Op::Realloc { old, object: birth(&mut live), size }
                    }
                    4 => Op::Malloc { object: None, size },
                    5 => Op::Marker { value },
                    _ => Op::Free { object: taken(), stated_size: (kind == 7).then_some(size) },
                };
                let time_ns = times.then_some(i * 100 + size % 50);
                Event { thread: ThreadId(thread), time_ns, op }
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_stream_comes_back_equal_whatever_the_chunk_length(events in streams(), chunk in 1u32..40) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("t.atrace");
        write(&path, &events, chunk);
        let (back, end) = read(&path);
        prop_assert_eq!(&back, &events);
        prop_assert_eq!(end.expect("a sound file"), None);
        let reader = Reader::open(&path).expect("a sound file");
        let footer = reader.footer().expect("a finished file");
        prop_assert_eq!(footer.totals.events, events.len() as u64);
        prop_assert_eq!(footer.get("command"), Some("made by a test"));
        prop_assert_eq!(reader.len_hint(), Some(events.len() as u64));
    }

    #[test]
    fn each_chunk_of_the_index_can_be_read_alone(events in streams(), chunk in 1u32..40) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("t.atrace");
        write(&path, &events, chunk);
        let index = Reader::open(&path).expect("sound").footer().expect("finished").index.clone();
        for (i, entry) in index.iter().enumerate() {
            let mut reader = Reader::open(&path).expect("a sound file");
            reader.skip_to_chunk(i).expect("a chunk of the index");
            let first = reader.next_event().expect("a sound file");
            prop_assert_eq!(first.as_ref(), events.get(entry.first_sequence as usize));
        }
    }

    #[test]
    fn arbitrary_bytes_behind_the_magic_are_refused_without_harm(
        features in 0u32..4, bytes in prop::collection::vec(any::<u8>(), 0..3000),
    ) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("t.atrace");
        let mut file = container::MAGIC.to_vec();
        file.extend(1u32.to_le_bytes());
        file.extend(features.to_le_bytes());
        file.extend(bytes);
        fs::write(&path, file).expect("a writable folder");
        if let Ok(mut source) = container::open(&path, false) {
            while let Ok(Some(_)) = source.next_event() {}
        }
    }
}

#[test]
fn every_kind_of_event_is_kept() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("t.atrace");
    for chunk in [1, 2, 1000] {
        write(&path, &all_kinds(), chunk);
        let (back, end) = read(&path);
        assert_eq!(back, all_kinds());
        assert_eq!(end.expect("a sound file"), None);
    }
}

#[test]
fn a_file_cut_at_any_byte_yields_its_whole_chunks_and_names_the_loss() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("t.atrace");
    write(&path, &all_kinds(), 4);
    let whole = fs::read(&path).expect("just written");
    let ends: Vec<u64> = Reader::open(&path)
        .expect("sound")
        .footer()
        .expect("finished")
        .index
        .iter()
        .skip(1)
        .map(|chunk| chunk.offset)
        .collect();
    for cut in 0..whole.len() {
        fs::write(&path, &whole[..cut]).expect("a writable folder");
        let (events, end) = read(&path);
        if cut < 16 {
            assert!(end.is_err(), "a header cut at {cut} must be refused");
            continue;
        }
        let chunks = ends.iter().filter(|&&end| end <= cut as u64).count();
        assert!(events.len() >= chunks * 4, "cut at {cut}: whole chunks were left out");
        assert_eq!(events, all_kinds()[..events.len()], "cut at {cut}");
        let loss = end.expect("a cut file is no error");
        assert!(loss.is_some(), "cut at {cut}: the loss is not named");
    }
}

#[test]
fn a_damaged_file_is_read_up_to_the_damage_where_that_is_asked_for() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("t.atrace");
    write(&path, &all_kinds(), 4);
    let mut bytes = fs::read(&path).expect("just written");
    let third = Reader::open(&path).expect("sound").footer().expect("whole").index[2];
    bytes[third.offset as usize + 70] ^= 1;
    fs::write(&path, &bytes).expect("a writable folder");
    assert!(read(&path).1.is_err());
    let options = traces::ImportOptions { salvage: true, ..Default::default() };
    let mut source = traces::open_with(&path, &options).expect("it begins well");
    let mut count = 0;
    while source.next_event().expect("damage is the end").is_some() {
        count += 1;
    }
    assert_eq!(count, 8, "two chunks of four");
    let lost = source.lost().expect("something is missing");
    assert!(lost.contains("damaged at event 8"), "{lost}");
}

#[test]
fn a_flipped_bit_is_noticed_or_changes_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("t.atrace");
    write(&path, &all_kinds(), 8);
    let whole = fs::read(&path).expect("just written");
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, bytes).expect("a writable folder");
        let (events, end) = read(&path);
        // The header of the file is not covered by a checksum: flipping TIMES, say, changes what
        // is read, and reading stops at the first record that makes no sense.
        let noticed = !matches!(end, Ok(None));
        if bit / 8 >= 16 {
            assert_eq!(events, all_kinds()[..events.len()], "bit {bit}");
            assert!(noticed || events.len() == all_kinds().len(), "bit {bit}");
        }
    }
}

/// The file was made by `write(&path, &all_kinds(), 8)` when version 1 was. A new version gets a file
/// and a test of its own; the old ones stay as they are.
#[test]
fn version_1_as_it_was_written_once_is_read_for_ever() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1.atrace");
    let (events, end) = read(&path);
    assert_eq!(events, all_kinds());
    assert_eq!(end.expect("a sound file"), None);
    let mut reader = Reader::open(&path).expect("a sound file");
    let footer = reader.footer().expect("a finished file");
    assert_eq!(footer.get("command"), Some("made by a test"));
    assert_eq!(footer.index.len(), 4);
    while let Ok(Some(_)) = reader.next_event() {}
    assert_eq!(reader.census().free_null, 2);
    assert_eq!(reader.census().failed_allocations, 5);
}

#[test]
fn a_writer_that_is_dropped_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("t.atrace");
    let mut writer = Writer::create(&path, options(2)).expect("a writable folder");
    for event in all_kinds() {
        writer.write(&event).expect("a legal stream");
    }
    drop(writer);
    assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 0);
}

#[test]
fn an_event_that_breaks_the_order_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut writer =
        Writer::create(folder.path().join("t"), options(9)).expect("a writable folder");
    let event = |op| Event { thread: ThreadId(0), time_ns: None, op };
    let use_before_birth =
        event(Op::Free { object: Some(ObjectId::from_index(0)), stated_size: None });
    assert!(matches!(writer.write(&use_before_birth), Err(TraceError::Disorder { event: 0, .. })));
}

#[test]
fn a_missing_file_a_folder_and_a_place_without_folder_are_errors_with_a_path() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let missing = folder.path().join("missing");
    let read = Reader::open(&missing).expect_err("it does not exist");
    assert_eq!(read.path(), Some(missing.as_path()));
    let written = Writer::create(folder.path(), options(9)).expect_err("it is a folder");
    assert_eq!(written.path(), Some(folder.path()));
    let below = missing.join("t.atrace");
    assert!(Writer::create(&below, options(9)).is_err());
}
