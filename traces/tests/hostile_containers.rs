//! No bytes make a reader of our own files panic, hang, or yield a stream that breaks the event
//! model: resolved containers, raw files, their compressed layers, and profiles.
//!
//! Checksums turn almost every damage away, so most of it is sealed again: behind a right checksum
//! the counts, lengths and payloads may say anything.

mod hostile;

use std::fs;
use std::io::Write;
use std::path::Path;

use rayon::prelude::*;
use trace_format::crc32c::crc32c;
use trace_format::v1::{ChunkHeader, FileHeader, raw};
use traces::analysis::{Profiler, Verifier};
use traces::container::{Writer, WriterOptions};
use traces::rewrite::export::Exporter;
use traces::rewrite::fleetbench::FleetFitter;
use traces::rewrite::shrink::Units;
use traces::rewrite::{Anonymize, AnonymizeOptions, Cut, Fitter, Merge, Span, Stream};
use traces::{EventSource, Format, ImportOptions, Source};

use hostile::{PART, Random, check, damage, inputs, told};

/// A file to damage.
struct Sample {
    name: String,
    bytes: Vec<u8>,
    /// Where chunks begin.
    chunks: Vec<usize>,
    raw: bool,
}

impl Sample {
    fn new(name: &str, bytes: Vec<u8>) -> Self {
        let mut chunks = Vec::new();
        let raw = FileHeader::decode(bytes[..16].try_into().unwrap()).is_ok_and(|h| h.is_raw());
        let mut at = if raw { raw::PAGE } else { FileHeader::LEN };
        while let Some(header) = bytes.get(at..at + ChunkHeader::LEN) {
            let Ok(header) = ChunkHeader::decode(header.try_into().unwrap()) else { break };
            chunks.push(at);
            at += match raw {
                true => raw::chunk_len(&header).unwrap(),
                false => ChunkHeader::LEN + header.stored_len as usize,
            };
        }
        assert!(!chunks.is_empty(), "{name}");
        Sample { name: name.to_owned(), bytes, chunks, raw }
    }

    /// A copy with damage in one chunk, and right checksums around it; now and then any damage.
    fn damaged(&self, random: &mut Random) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        if random.below(8) == 0 {
            damage(&mut bytes, random);
            return bytes;
        }
        let which = random.below(self.chunks.len());
        let start = self.chunks[which];
        let payload = start + ChunkHeader::LEN;
        let end = self.chunks.get(which + 1).copied().unwrap_or(bytes.len()).min(bytes.len());
        for _ in 0..=random.below(3) {
            let header = random.below(3) == 0;
            let (from, to) = if header { (start + 4, start + 60) } else { (payload, end) };
            let at = from + random.below(to - from);
            match random.below(5) {
                0 => bytes[at] ^= 1 << random.below(8),
                1 => bytes[at] = random.next() as u8,
                2 => bytes[at] = 0xff,
                3 => bytes[at] = 0,
                // A number, at its place in the header or anywhere.
                _ => {
                    let value = [0, 1, u64::MAX, 1 << 32, 1 << 62, random.next()][random.below(6)];
                    for (byte, new) in bytes[at..to.min(at + 8)].iter_mut().zip(value.to_le_bytes())
                    {
                        *byte = new;
                    }
                }
            }
        }
        let stored = u32::from_le_bytes(bytes[start + 40..start + 44].try_into().unwrap()) as usize;
        if let Some(stored) = bytes.get(payload..payload + stored) {
            let sum = crc32c(stored);
            bytes[start + 48..start + 52].copy_from_slice(&sum.to_le_bytes());
        }
        let sum = crc32c(&bytes[start..start + 60]);
        bytes[start + 60..payload].copy_from_slice(&sum.to_le_bytes());
        bytes
    }
}

fn samples(folder: &Path) -> Vec<Sample> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut samples =
        vec![Sample::new("v1.atrace", fs::read(tests.join("golden/v1.atrace")).unwrap())];
    // Small chunks are stored as they are, large ones compressed.
    for (chunk_events, name) in [(7, "small chunks"), (4000, "a compressed chunk")] {
        let mut source = traces::open(tests.join("data/real-valgrind.txt")).unwrap();
        let path = folder.join("made");
        let options = WriterOptions { chunk_events, ..WriterOptions::default() };
        traces::container::save(&mut source, Writer::create(&path, options).unwrap()).unwrap();
        samples.push(Sample::new(name, fs::read(&path).unwrap()));
    }
    samples.push(Sample::new("raw", raw_file()));
    samples
}

/// A raw file with two chunks of a few hundred slots of all kinds, some of them in order.
fn raw_file() -> Vec<u8> {
    let mut bytes = vec![0; raw::PAGE];
    let header = FileHeader { features: trace_format::v1::file::RAW };
    bytes[..16].copy_from_slice(&header.encode());
    let mut stamp = 0;
    for chunk in 0..2_u64 {
        let start = bytes.len();
        bytes.extend(raw::chunk_header(raw::UNIT, chunk).encode());
        for i in 0..300_u64 {
            stamp += 3;
            let kind = if i == 0 { raw::RawOp::ThreadStart as u8 } else { (i % 24) as u8 };
            let Some(op) = raw::RawOp::from_byte(kind) else { continue };
            let address = if i == 0 { chunk } else { 16 * (i / 24 % 8) + 16 };
            let (extra, before) = (16 * (i % 8), stamp - 1);
            let record = raw::RawRecord { op, stamp, address, size: i, extra, before };
            let words = record.words();
            bytes.extend(words[..2 * record.slots()].iter().flat_map(|word| word.to_le_bytes()));
        }
        bytes.resize(start + raw::UNIT, 0);
    }
    bytes
}

/// Appends a chunk of a raw file.
fn raw_chunk(bytes: &mut Vec<u8>, ordinal: u64, records: impl IntoIterator<Item = raw::RawRecord>) {
    let start = bytes.len();
    bytes.extend(raw::chunk_header(raw::UNIT, ordinal).encode());
    for record in records {
        let words = record.words();
        bytes.extend(words[..2 * record.slots()].iter().flat_map(|word| word.to_le_bytes()));
    }
    bytes.resize(start + raw::UNIT, 0);
}

#[test]
fn threads_that_wait_for_one_address_do_not_slow_down_the_releases_of_another() {
    use raw::RawOp::{Free, Malloc, ThreadGoesOn, ThreadStart};
    use raw::RawRecord;

    // All but the first wait for an address that nobody releases, while the first allocates and
    // releases another as often as there are threads.
    const THREADS: u64 = 100_000;
    let mut main = vec![RawRecord::short(Malloc, 2, 0xa0, 8)];
    let pair = [RawRecord::short(Malloc, 10, 0xb0, 8), RawRecord::short(Free, 10, 0xb0, 0)];
    main.extend((0..THREADS).flat_map(|_| pair));

    let mut bytes = vec![0; raw::PAGE];
    let header = FileHeader { features: trace_format::v1::file::RAW };
    bytes[..16].copy_from_slice(&header.encode());
    let mut ordinals = 0..;
    let mut chunk = |records: Vec<RawRecord>| {
        raw_chunk(&mut bytes, ordinals.next().unwrap(), records);
    };
    for (number, part) in main.chunks(4000).enumerate() {
        let op = if number == 0 { ThreadStart } else { ThreadGoesOn };
        let whose = RawRecord::short(op, part[0].stamp, 0, 0);
        chunk([&[whose][..], part].concat());
    }
    for first in (1..=THREADS).step_by(2000) {
        let others = first..=THREADS.min(first + 1999);
        let begin_and_wait = |thread| {
            [RawRecord::short(ThreadStart, 3, thread, 0), RawRecord::short(Malloc, 3, 0xa0, 8)]
        };
        chunk(others.flat_map(begin_and_wait).collect());
    }

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.raw");
    fs::write(&path, bytes).unwrap();
    let mut source = traces::container::open(&path, false).unwrap();
    while source.next_event().unwrap().is_some() {}
    let census = source.census();
    assert_eq!((census.inversions, census.missing_free), (THREADS, THREADS));
    assert_eq!((census.unknown_free, census.leaked), (0, 1));
}

/// Gives the stream of a container to everybody who takes one. Behind right checksums it may break
/// the event model (`trace verify` says how), and nobody may panic at that.
fn consume(mut source: Box<dyn Source>, most_events: usize) {
    let mut events = Vec::new();
    while let Ok(Some(event)) = source.next_event() {
        events.push(event);
        assert!(events.len() <= most_events, "a reader makes events out of nothing");
    }
    let (mut verifier, mut profiler) = (Verifier::default(), Profiler::new());
    let (mut fitter, mut fleet) = (Fitter::new(), FleetFitter::default());
    for event in &events {
        verifier.observe(event);
        profiler.observe(event);
        fitter.observe(event);
        fleet.observe(event);
    }
    assert!(profiler.finish(source.census()).events <= most_events as u64);
    assert!(fitter.finish().to_json().is_ok());
    drop(fleet.finish());
    for &format in Format::ALL {
        let Ok(mut exporter) = Exporter::new(format, std::io::sink()) else { continue };
        for event in &events {
            exporter.write(event).unwrap();
        }
        exporter.finish().unwrap();
    }
    let stream = || -> Box<dyn Source> { Box::new(Stream::new(events.clone())) };
    let drain = |source: &mut dyn Source| while let Ok(Some(_)) = source.next_event() {};
    let middle = events.get(events.len() / 2).and_then(|event| event.time_ns);
    drain(&mut Cut::new(stream(), Span::Times { from: middle, until: None }, true));
    drain(&mut Cut::new(stream(), Span::Births { from: Some(1), until: Some(2) }, false));
    let options = AnonymizeOptions { resolution_ns: 1000, size_classes: true };
    drain(&mut Anonymize::new(stream(), options));
    drain(&mut Merge::new(vec![stream(), stream()]).unwrap());
    let units = Units::read(&mut *stream()).unwrap();
    assert!(units.select(&vec![true; units.count() as usize]).len() <= 2 * events.len());
}

#[test]
fn no_damage_behind_right_checksums_of_a_container_makes_anybody_panic() {
    let folder = tempfile::tempdir().unwrap();
    for (index, sample) in samples(folder.path()).into_iter().enumerate() {
        // A raw file is 130 KiB and takes as much longer.
        let inputs = if sample.bytes.len() > 1 << 16 { inputs() / 20 } else { inputs() };
        let refused: u64 = (0..inputs.div_ceil(PART))
            .into_par_iter()
            .map(|part| {
                let mut random = Random::new(100 + index, part);
                let path = folder.path().join(format!("{index}-{part}"));
                let rounds = PART.min(inputs - part * PART);
                let refused = (0..rounds)
                    .filter(|round| {
                        let bytes = sample.damaged(&mut random);
                        let most = bytes.len() * 600 + 64;
                        fs::write(&path, bytes).unwrap();
                        let salvage = round.is_multiple_of(3);
                        match traces::container::open(&path, salvage) {
                            Ok(source) if sample.raw => {
                                check(source, most);
                                false
                            }
                            Ok(source) => {
                                consume(source, most);
                                false
                            }
                            Err(_) => true,
                        }
                    })
                    .count() as u64;
                fs::remove_file(&path).unwrap();
                refused
            })
            .sum();
        told(&sample.name, inputs as u64, refused);
    }
}

#[test]
fn no_damage_to_a_compressed_file_makes_a_reader_panic_or_hang() {
    let folder = tempfile::tempdir().unwrap();
    let text: String = (0..40).map(|i| format!("1: malloc {:#x} {i}\n", 4096 + i * 16)).collect();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(text.as_bytes()).unwrap();
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    zip.start_file("a.txt", zip::write::SimpleFileOptions::default()).unwrap();
    zip.write_all(text.as_bytes()).unwrap();
    let compressed = [
        ("gzip", gzip.finish().unwrap()),
        ("zstd", zstd::encode_all(text.as_bytes(), 1).unwrap()),
        ("zip", zip.finish().unwrap().into_inner()),
    ];
    for (index, (name, original)) in compressed.into_iter().enumerate() {
        let refused: u64 = (0..inputs().div_ceil(PART))
            .into_par_iter()
            .map(|part| {
                let mut random = Random::new(200 + index, part);
                let path = folder.path().join(format!("{name}-{part}"));
                let rounds = PART.min(inputs() - part * PART);
                let refused = (0..rounds)
                    .filter(|round| {
                        let mut bytes = original.clone();
                        damage(&mut bytes, &mut random);
                        fs::write(&path, bytes).unwrap();
                        let salvage = round.is_multiple_of(3);
                        let options = ImportOptions { salvage, ..ImportOptions::default() };
                        match traces::open_with(&path, &options) {
                            // A run of one byte unpacks to a thousand times its length.
                            Ok(source) => {
                                check(source, 1 << 24);
                                false
                            }
                            Err(_) => true,
                        }
                    })
                    .count() as u64;
                fs::remove_file(&path).unwrap();
                refused
            })
            .sum();
        told(name, inputs() as u64, refused);
        assert!(refused > 0, "{name}: the damage is real");
    }
}

#[test]
fn no_damage_to_a_profile_makes_its_reader_panic() {
    let mut source =
        traces::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/calls.csv")).unwrap();
    let mut fitter = traces::rewrite::Fitter::new();
    while let Some(event) = source.next_event().unwrap() {
        fitter.observe(&event);
    }
    let json = fitter.finish().to_json().unwrap().into_bytes();
    let rows = b"16, 1000.5, 20\n64, 500, 7\n4096, 1e3, 0\n".to_vec();
    let mut refused = 0;
    let mut random = Random::new(300, 0);
    for round in 0..inputs() {
        let mut bytes = if round.is_multiple_of(2) { json.clone() } else { rows.clone() };
        damage(&mut bytes, &mut random);
        let text = String::from_utf8_lossy(&bytes);
        let sound = match round % 2 {
            0 => traces::rewrite::Profile::from_json(&text).is_ok(),
            _ => traces::rewrite::fleetbench::parse(&text).is_ok(),
        };
        refused += u64::from(!sound);
    }
    told("profiles", inputs() as u64, refused);
    assert!(refused > 0, "the damage is real");
}
