//! No bytes make a reader panic, hang, or yield a stream that breaks the event model.
//!
//! Every sample of a foreign format is damaged in many ways; see `hostile` for how many.

mod hostile;

use std::io::{Cursor, Read, Write};
use std::path::Path;

use rayon::prelude::*;
use traces::{Format, ImportOptions, TraceError};

use hostile::{PART, Random, check, damage, inputs, told};

fn samples() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let mut samples: Vec<(String, Vec<u8>)> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let mut bytes = std::fs::read(&path).unwrap();
            if name.ends_with(".zst") {
                bytes = zstd::decode_all(&bytes[..]).unwrap();
            } else if name.ends_with(".gz") {
                let mut plain = Vec::new();
                flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut plain).unwrap();
                bytes = plain;
            }
            (name, bytes)
        })
        .filter(|(name, _)| !name.ends_with(".md") && !name.ends_with(".c"))
        .collect();
    samples.sort();
    samples
}

#[test]
fn no_damage_to_a_sample_makes_a_reader_panic_or_break_the_event_model() {
    for (index, (name, original)) in samples().into_iter().enumerate() {
        let input = Box::new(Cursor::new(original.clone()));
        let format = traces::read(&name, input, &ImportOptions::default())
            .unwrap_or_else(|error| panic!("{name}: {error}"))
            .format();
        let refused: u64 = (0..inputs().div_ceil(PART))
            .into_par_iter()
            .map(|part| {
                let mut random = Random::new(index, part);
                let rounds = PART.min(inputs() - part * PART);
                (0..rounds)
                    .filter(|&round| !one(&name, &original, format, round, &mut random))
                    .count() as u64
            })
            .sum();
        told(&name, inputs() as u64, refused);
        assert!(refused > 0, "{name}: the damage is real");
    }
}

/// Damages a copy of `original` and reads it; false if it is refused at once.
fn one(name: &str, original: &[u8], format: Format, round: usize, random: &mut Random) -> bool {
    let mut bytes = original.to_vec();
    damage(&mut bytes, random);
    // Told the format, a reader meets damage that detection would have turned away.
    let format = match round % 4 {
        0 => None,
        1 => Some(Format::ALL[1 + random.below(Format::ALL.len() - 1)]),
        _ => Some(format),
    };
    let options = ImportOptions {
        format,
        strip_tail: round.is_multiple_of(2),
        salvage: round.is_multiple_of(3),
        ..ImportOptions::default()
    };
    // One record makes at most its event, a made-up free, and the starts of two threads.
    let most_events = bytes.len() * 4 + 64;
    match traces::read(name, Box::new(Cursor::new(bytes)), &options) {
        Ok(source) => {
            check(source, most_events);
            true
        }
        Err(_) => false,
    }
}

/// The stream of `bytes` read as `format` to its end: its records, and what is said to be lost.
fn read_as(format: Format, bytes: &[u8], salvage: bool) -> Result<(u64, Option<String>), String> {
    let options = ImportOptions {
        format: Some(format),
        strip_tail: false,
        salvage,
        ..ImportOptions::default()
    };
    let input = Box::new(Cursor::new(bytes.to_vec()));
    let mut source = traces::read("cut", input, &options).map_err(|error| error.to_string())?;
    while source.next_event().map_err(|error| error.to_string())?.is_some() {}
    let census = source.census();
    let lost = source.lost();
    if lost.is_some() && !salvage {
        assert!(census.truncated_bytes > 0, "what is lost is counted");
    }
    Ok((census.records, lost))
}

#[test]
fn a_trace_cut_at_any_byte_is_read_up_to_there_and_the_loss_is_named() {
    samples().into_par_iter().for_each(|(name, original)| {
        let detected =
            traces::read(&name, Box::new(Cursor::new(original.clone())), &ImportOptions::default());
        let format = detected.unwrap().format();
        // A workload's threads lie one after another: without the last, the others wait for ever.
        let (salvage, mut losses, mut before) = (format == Format::Workload, 0, 0);
        for length in 0..original.len() {
            let cut = &original[..length];
            match read_as(format, cut, salvage) {
                Ok((records, lost)) => {
                    // All but the last line, which may make sense until more of it is there.
                    assert!(records + 1 >= before || salvage, "{name} cut to {length}: {records}");
                    before = before.max(records);
                    losses += u64::from(lost.is_some());
                }
                // Not even the header is there, or it names threads beyond the end.
                Err(_) if salvage => {}
                Err(error) => panic!("{name} cut to {length} bytes: {error}"),
            }
            // Told by content, it is read or refused, and never breaks the event model.
            let input = Box::new(Cursor::new(cut.to_vec()));
            if let Ok(source) = traces::read(&name, input, &ImportOptions::default()) {
                check(source, length * 4 + 64);
            }
        }
        let text = !matches!(
            format,
            Format::GlibcBinary | Format::Workload | Format::Protobuf | Format::Ops
        );
        assert!(losses > 0 || !text, "{name}: a line that is cut is a loss");
    });
}

#[test]
fn a_damaged_trace_is_read_up_to_the_damage_where_that_is_asked_for() {
    let text = b"1: malloc 0x10 8\n1: malloc 0x20 8\n1: mallox 0x30 8\n1: free 0x10\n";
    assert!(read_as(Format::Android, text, false).unwrap_err().contains("line 3, column 4"));
    let (records, lost) = read_as(Format::Android, text, true).unwrap();
    assert_eq!(records, 2);
    assert!(lost.unwrap().contains("line 3, column 4"));

    let lines: String =
        (0..50_000).map(|i| format!("1: malloc {:#x} {i}\n", 4096 + i * 16)).collect();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(lines.as_bytes()).unwrap();
    let whole = gzip.finish().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("half.gz");
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let options = ImportOptions { salvage: true, ..ImportOptions::default() };
    let mut source = traces::open_with(&path, &options).unwrap();
    while source.next_event().unwrap().is_some() {}
    let records = source.census().records;
    assert!((20_000..30_000).contains(&records), "about half of it: {records}");
    assert!(source.lost().unwrap().contains("gzip data"));
}

#[test]
fn damaged_compressed_files_end_in_an_error() {
    let text: Vec<u8> = (0..20_000_u64)
        .flat_map(|i| format!("1: malloc {:#x} {}\n", 4096 + i * 16, i % 977).into_bytes())
        .collect();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&text).unwrap();
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    zip.start_file("a.txt", zip::write::SimpleFileOptions::default()).unwrap();
    zip.write_all(&text).unwrap();
    let compressed = [
        gzip.finish().unwrap(),
        zstd::encode_all(&text[..], 1).unwrap(),
        zip.finish().unwrap().into_inner(),
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace");
    let mut random = Random::new(77, 0);
    for bytes in compressed {
        std::fs::write(&path, &bytes).unwrap();
        let mut source = traces::open(&path).unwrap();
        while source.next_event().unwrap().is_some() {}
        assert_eq!(source.census().records, 20_000, "undamaged, all is read");
        for _ in 0..60 {
            let cut = 1 + random.below(bytes.len() - 1);
            std::fs::write(&path, &bytes[..cut]).unwrap();
            assert!(read_all(&path).is_err(), "cut to {cut} of {} bytes", bytes.len());
        }
    }
}

fn read_all(path: &Path) -> Result<u64, TraceError> {
    let mut source = traces::open(path)?;
    while source.next_event()?.is_some() {}
    Ok(source.census().records)
}

#[test]
fn a_compression_bomb_is_refused_before_it_costs_much() {
    // 512 MiB of newlines in zstd frames that are each a run of one byte.
    let frame = zstd::encode_all(&vec![b'\n'; 32 << 20][..], 1).unwrap();
    let mut bomb = zstd::encode_all(&b"1: malloc 0x10 8\n"[..], 1).unwrap();
    for _ in 0..16 {
        bomb.extend_from_slice(&frame);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bomb");
    std::fs::write(&path, &bomb).unwrap();
    match read_all(&path) {
        Err(TraceError::Bomb { limit, .. }) => assert!(limit < 1 << 29),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_line_without_an_end_is_refused_within_bounded_memory() {
    let endless = std::io::repeat(b'7').take(1 << 32);
    let start = Cursor::new(b"1: malloc 0x10 8\n".to_vec());
    let mut source =
        traces::read("endless", Box::new(start.chain(endless)), &ImportOptions::default()).unwrap();
    source.next_event().unwrap();
    source.next_event().unwrap();
    match source.next_event() {
        Err(TraceError::Text { line: 2, reason, .. }) => assert!(reason.contains("longer")),
        other => panic!("{other:?}"),
    }
}
