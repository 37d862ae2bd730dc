//! Import, convert, export, import: the census stays what it is, in every format that is written.
//!
//! What a format cannot say is lost the first time, and counted as a loss; from then on nothing is.
//! heaptrack's interpreted form and our own raw
//! files are read and never written.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use traces::analysis::{Operations, Profiler, Summary};
use traces::container::{self, Writer, WriterOptions};
use traces::rewrite::export::{Exporter, Losses};
use traces::{
    AlignedApi, Census, Event, EventSource, Format, ImportOptions, ObjectId, Op, Source, ThreadId,
};

fn open(path: &Path, format: Option<Format>) -> Box<dyn Source> {
    // Nothing was appended for what is alive: whatever is read belongs to the trace.
    let options = ImportOptions { strip_tail: false, ..ImportOptions::default() };
    let source = traces::open_with(path, &options).unwrap();
    if let Some(format) = format {
        assert_eq!(source.format(), format, "{} is told by content", path.display());
    }
    source
}

fn convert(from: &Path, format: Option<Format>, to: &Path) -> Census {
    let mut source = open(from, format);
    container::save(&mut *source, Writer::create(to, WriterOptions::default()).unwrap()).unwrap();
    source.census()
}

fn export(from: &Path, format: Format, to: &Path) -> Losses {
    let mut source = container::open(from, false).unwrap();
    let mut exporter = Exporter::new(format, fs::File::create(to).unwrap()).unwrap();
    while let Some(event) = source.next_event().unwrap() {
        exporter.write(&event).unwrap();
    }
    exporter.finish().unwrap().1
}

fn summary(path: &Path) -> Summary {
    let mut source = open(path, None);
    let mut profiler = Profiler::new();
    while let Some(event) = source.next_event().unwrap() {
        profiler.observe(&event);
    }
    profiler.finish(Census::default())
}

/// Calls, threads, frees by other threads, peaks and what is left.
fn figures(summary: &Summary) -> (Operations, [u64; 5]) {
    let figures = [
        summary.threads,
        summary.cross_thread_frees,
        summary.peak_live_objects,
        summary.final_live_objects,
        summary.final_live_bytes,
    ];
    (summary.operations, figures)
}

/// Calls that asked for what nobody has, and failed, among some that did not.
fn failed_calls() -> Vec<Event> {
    let object = Some(ObjectId::from_index(0));
    let mut ops = vec![
        Op::ThreadStart { parent: None },
        Op::Malloc { object, size: 100 },
        Op::Malloc { object: None, size: u64::MAX },
        Op::Calloc { object: None, count: u64::MAX, size: u64::MAX },
        Op::Calloc { object: None, count: 1 << 40, size: 1 << 20 },
        Op::Realloc { old: object, object: None, size: u64::MAX },
        Op::Realloc { old: None, object: None, size: u64::MAX },
    ];
    ops.extend(AlignedApi::ALL.map(|api| {
        let page = matches!(api, AlignedApi::Valloc | AlignedApi::Pvalloc);
        let align = if page { 4096 } else { 1 << 63 };
        Op::Aligned { object: None, align, size: u64::MAX, api }
    }));
    ops.push(Op::Free { object, stated_size: None });
    ops.into_iter().map(|op| Event { thread: ThreadId(0), time_ns: None, op }).collect()
}

fn originals() -> Vec<PathBuf> {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples");
    let mut originals: Vec<PathBuf> = ["cxx-threads", "dpkg", "perl", "sqlite-index"]
        .map(|name| samples.join(name).with_extension("atrace"))
        .into();
    originals.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/calls.csv"));
    match std::env::var_os("ALLOCATOR_TEST_DATA") {
        Some(data) => originals.push(Path::new(&data).join("systemui.zip")),
        None => eprintln!("skipped in part: ALLOCATOR_TEST_DATA is not set"),
    }
    originals
}

#[test]
fn what_csv_says_of_calls_that_failed_is_read_again_whatever_they_asked_for() {
    let mut exporter = Exporter::new(Format::Csv, Vec::new()).unwrap();
    for event in failed_calls() {
        exporter.write(&event).unwrap();
    }
    let (text, losses) = exporter.finish().unwrap();
    assert!(losses.is_empty());
    let options = ImportOptions::default();
    let mut source = traces::read("failed.csv", Box::new(Cursor::new(text)), &options).unwrap();
    let mut events = Vec::new();
    while let Some(event) = source.next_event().unwrap() {
        events.push(event);
    }
    assert_eq!(events, failed_calls());
}

#[test]
fn in_every_format_a_trace_comes_back_with_the_same_census() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    let failed = place("failed.atrace");
    let mut writer = Writer::create(&failed, WriterOptions::default()).unwrap();
    for event in failed_calls() {
        writer.write(&event).unwrap();
    }
    writer.finish().unwrap();
    for original in originals().into_iter().chain([failed]) {
        let name = original.file_name().unwrap().to_string_lossy().into_owned();
        convert(&original, None, &place("a.atrace"));
        for &format in Format::ALL {
            if Exporter::new(format, std::io::sink()).is_err() {
                assert!(matches!(format, Format::Container | Format::Heaptrack), "{format}");
                continue;
            }
            let first_losses = export(&place("a.atrace"), format, &place("first"));
            let first = convert(&place("first"), Some(format), &place("b.atrace"));
            let again_losses = export(&place("b.atrace"), format, &place("again"));
            let again = convert(&place("again"), Some(format), &place("c.atrace"));
            assert_eq!(first.anomalies(), [], "{name} as {format}: nothing to repair");
            assert_eq!(again, first, "{name} as {format}: the census");
            let (b, mut c) = (summary(&place("b.atrace")), summary(&place("c.atrace")));
            if format == Format::Workload {
                // Its threads are bound by waits alone: the order within them is free.
                c.peak_live_objects = b.peak_live_objects;
            }
            assert_eq!(figures(&c), figures(&b), "{name} as {format}");
            assert_eq!((&c.sizes, &c.reallocs), (&b.sizes, &b.reallocs), "{name} as {format}");
            if format == Format::Csv {
                assert!(first_losses.is_empty() && again_losses.is_empty(), "CSV says everything");
            }
        }
    }
}
