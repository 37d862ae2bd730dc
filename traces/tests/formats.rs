//! Every foreign format: recognised by content, read with the counts its sample states, and
//! written so that reading it again tells the same.

use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use traces::analysis::{self, Summary};
use traces::event::{Event, Op};
use traces::rewrite::export::Exporter;
use traces::{Format, ImportOptions, Source, TraceError};

fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn summarise(path: &Path, format: Format) -> Summary {
    let mut source = traces::open(path).unwrap();
    assert_eq!(source.format(), format, "{}", path.display());
    analysis::summarise(&mut *source).unwrap()
}

fn events(mut source: Box<dyn Source>) -> Vec<Event> {
    let mut events = Vec::new();
    while let Some(event) = source.next_event().unwrap() {
        events.push(event);
    }
    events
}

/// What a sample must yield.
#[derive(Debug, PartialEq, Eq)]
struct Counts {
    malloc: u64,
    calloc: u64,
    realloc: u64,
    memalign: u64,
    free: u64,
    free_null: u64,
    threads: u64,
    cross_thread_frees: u64,
    peak_live_bytes: u64,
    final_live_bytes: u64,
    final_live_objects: u64,
}

/// `[malloc, calloc, realloc, memalign]`, `[free, of NULL]`, `[threads, cross-thread frees]`,
/// `[peak bytes, final bytes, final objects]`
fn counts(calls: [u64; 4], free: [u64; 2], threads: [u64; 2], live: [u64; 3]) -> Counts {
    Counts {
        malloc: calls[0],
        calloc: calls[1],
        realloc: calls[2],
        memalign: calls[3],
        free: free[0],
        free_null: free[1],
        threads: threads[0],
        cross_thread_frees: threads[1],
        peak_live_bytes: live[0],
        final_live_bytes: live[1],
        final_live_objects: live[2],
    }
}

fn counted(summary: &Summary) -> Counts {
    let operations = &summary.operations;
    Counts {
        malloc: operations.malloc,
        calloc: operations.calloc,
        realloc: operations.realloc,
        memalign: operations.memalign,
        free: operations.free,
        free_null: operations.free_null,
        threads: summary.threads,
        cross_thread_frees: summary.cross_thread_frees,
        peak_live_bytes: summary.peak_live_bytes,
        final_live_bytes: summary.final_live_bytes,
        final_live_objects: summary.final_live_objects,
    }
}

fn check(
    name: &str,
    format: Format,
    expected: Counts,
    anomalies: &[(&'static str, u64)],
) -> Summary {
    let summary = summarise(&sample(name), format);
    assert_eq!(counted(&summary), expected, "{name}");
    assert_eq!(summary.census.anomalies(), anomalies, "{name}");
    summary
}

#[test]
fn android_with_times_tags_resident_bytes_and_a_thread_that_returns() {
    let expected = counts([2, 1, 2, 1], [3, 1], [3, 2], [528, 128, 1]);
    let summary = check("android.txt", Format::Android, expected, &[]);
    assert_eq!(summary.census.reused_thread_ids, 1);
    assert_eq!(summary.operations.thread_done, 1);
    assert_eq!(summary.duration_ns, Some(160), "from 10 to 170");
}

#[test]
fn logalloc_keeps_to_the_first_process_and_knows_every_call() {
    let expected = counts([2, 1, 1, 4], [2, 1], [2, 1], [392, 328, 5]);
    let summary = check("logalloc.txt", Format::Logalloc, expected, &[("other_process", 1)]);
    assert_eq!(summary.operations.marker, 1);
    assert_eq!(summary.census.failed_allocations, 1);
}

#[test]
fn logalloc_reads_another_process_when_told_to() {
    let options = ImportOptions { pid: Some(9), ..ImportOptions::default() };
    let mut source = traces::open_with(sample("logalloc.txt"), &options).unwrap();
    let summary = analysis::summarise(&mut *source).unwrap();
    assert_eq!(summary.allocated_bytes, 1000);
}

#[test]
fn munged_logalloc_knows_slots_that_are_empty_and_slots_used_again() {
    let expected = counts([3, 0, 2, 0], [3, 2], [2, 0], [120, 120, 3]);
    check("logalloc-munged.txt", Format::Logalloc, expected, &[]);
}

#[test]
fn mtrace_finds_operations_behind_locations_with_spaces() {
    let expected = counts([4, 0, 2, 0], [1, 0], [1, 0], [192, 136, 2]);
    let summary = check("mtrace.txt", Format::Mtrace, expected, &[("unknown_free", 1)]);
    assert_eq!(summary.census.failed_allocations, 2);
}

#[test]
fn valgrind_tells_calls_from_the_output_around_them() {
    let expected = counts([2, 1, 3, 2], [3, 1], [1, 0], [412, 276, 3]);
    let summary = check("valgrind.txt", Format::Valgrind, expected, &[("other_process", 1)]);
    assert_eq!(summary.census.foreign_lines, 3);
}

#[test]
fn valgrind_need_not_tell_results_or_end_lines() {
    let expected = counts([4, 0, 1, 0], [0, 0], [1, 0], [104, 104, 4]);
    let summary = check("valgrind-3.24.txt", Format::Valgrind, expected, &[]);
    assert_eq!((summary.census.records, summary.census.foreign_lines), (6, 2));
}

#[test]
fn raw_heaptrack_names_its_objects() {
    let expected = counts([3, 0, 0, 0], [2, 0], [1, 0], [192, 128, 1]);
    let summary = check("heaptrack.raw.txt", Format::HeaptrackRaw, expected, &[]);
    assert_eq!(summary.duration_ns, Some(5_000_000));
}

#[test]
fn interpreted_heaptrack_frees_the_oldest_and_says_that_it_guessed() {
    let anomalies = [("unknown_free", 1), ("guessed_objects", 1)];
    let expected = counts([3, 0, 0, 0], [2, 0], [1, 0], [128, 32, 1]);
    check("heaptrack.txt", Format::Heaptrack, expected, &anomalies);
}

#[test]
fn ltrace_pairs_unfinished_calls_and_skips_calls_within_calls() {
    let expected = counts([2, 1, 1, 1], [3, 1], [2, 2], [308, 106, 2]);
    let summary = check("ltrace.txt", Format::Ltrace, expected, &[("nested_calls", 1)]);
    assert_eq!(summary.operations.thread_done, 1);
    assert_eq!(summary.duration_ns, Some(12_000));
}

#[test]
fn csv_expresses_everything() {
    let expected = counts([2, 1, 1, 2], [2, 1], [2, 1], [197, 165, 3]);
    let summary = check("calls.csv", Format::Csv, expected, &[]);
    let operations = summary.operations;
    assert_eq!((operations.usable_size, operations.marker, operations.fork), (1, 1, 1));
    let all = events(traces::open(sample("calls.csv")).unwrap());
    assert!(all.iter().any(|e| matches!(e.op, Op::Marker { value: u64::MAX })));
    assert!(all.iter().any(|e| matches!(e.op, Op::ThreadStart { parent: Some(_) })));
    assert!(all.iter().any(|e| matches!(e.op, Op::Access { bytes: 64, times: 2, .. })));
    assert!(all.iter().any(|e| matches!(e.op, Op::Free { stated_size: Some(32), .. })));
}

#[test]
fn a_question_about_an_address_nobody_was_given_is_no_event_and_refused_by_a_strict_reader() {
    let text = "ns,tid,op,ptr,old,size,align\n,1,malloc,0x20,,8,\n,1,usable_size,0x10,,,\n";
    let read = |strict| {
        let options = ImportOptions { strict, ..ImportOptions::default() };
        traces::read("t.csv", Box::new(text.as_bytes()), &options).unwrap()
    };
    let mut source = read(false);
    while let Some(event) = source.next_event().unwrap() {
        assert!(!matches!(event.op, Op::UsableSize { .. }), "{event:?}");
    }
    assert_eq!(source.census().unknown_use, 1);
    let mut source = read(true);
    let end = loop {
        match source.next_event() {
            Ok(Some(_)) => {}
            end => break end,
        }
    };
    assert!(matches!(end, Err(TraceError::Strict { .. })), "{end:?}");
}

#[test]
fn only_a_call_that_failed_may_have_been_given_a_number_beyond_all_addresses() {
    let (half, over) = (1_u64 << 47, (1_u64 << 48) + 1);
    for (text, column) in [
        (format!("1: malloc 0x10 8\n1: malloc 0x0 {over}\n1: malloc 0x20 {over}\n"), 4),
        (format!("1: malloc 0x10 8\n1: calloc 0x0 {half} 4\n1: calloc 0x20 {half} 4\n"), 4),
        (format!("1 1 malloc(8)=0x10\n1 1 malloc({over})=0x0\n1 1 malloc({over})=0x20\n"), 5),
        (format!("malloc(8) = 0x10\nmalloc({over}) = 0\nmalloc({over}) = 0x20\n"), 1),
        (format!("= Start\n@ + (nil) {over:#x}\n@ + 0x10 {over:#x}\n"), 10),
    ] {
        let input = Box::new(Cursor::new(text.clone().into_bytes()));
        let mut source = traces::read("t", input, &ImportOptions::default()).unwrap();
        let end = loop {
            match source.next_event() {
                Ok(Some(_)) => {}
                end => break end,
            }
        };
        let Err(TraceError::Text { line: 3, column: at, reason, .. }) = end else {
            panic!("{text}: {end:?}")
        };
        assert!(at == column && reason.contains("beyond 2^48"), "{text}: column {at}: {reason}");
    }
}

#[test]
fn glibc_records_leave_out_what_realloc_does_inside() {
    let anomalies = [("nested_calls", 2), ("truncated_bytes", 5)];
    let expected = counts([1, 1, 1, 3], [3, 1], [2, 1], [165, 101, 2]);
    let summary = check("glibc.mtbin", Format::GlibcBinary, expected, &anomalies);
    assert_eq!(summary.census.failed_allocations, 1);
}

#[test]
fn glibc_records_of_2016_are_half_as_long() {
    let expected = counts([1, 0, 1, 1], [1, 0], [2, 1], [71, 7, 1]);
    check("glibc-2016.mtbin", Format::GlibcBinary, expected, &[]);
}

#[test]
fn workload_threads_wait_for_one_another() {
    let expected = counts([1, 1, 1, 3], [2, 1], [2, 0], [638, 598, 4]);
    let summary = check("threads.wl", Format::Workload, expected, &[]);
    assert_eq!(summary.reallocs.cross_thread, 1);
}

#[test]
fn protobuf_leaves_out_the_frees_its_converter_appended() {
    let expected = counts([2, 1, 1, 1], [2, 1], [1, 0], [405, 405, 3]);
    check("calls.trace.gz", Format::Protobuf, expected, &[("stripped_tail", 3)]);
}

#[test]
fn protobuf_keeps_them_when_told_to() {
    let options = ImportOptions { strip_tail: false, ..ImportOptions::default() };
    let mut source = traces::open_with(sample("calls.trace.gz"), &options).unwrap();
    let summary = analysis::summarise(&mut *source).unwrap();
    assert_eq!((summary.operations.free, summary.final_live_objects), (5, 0));
}

#[test]
fn ops_read_threads_and_alignments() {
    let expected = counts([3, 0, 1, 1], [2, 0], [2, 1], [292, 136, 2]);
    let summary = check("calls.ops", Format::Ops, expected, &[]);
    assert_eq!(summary.alignments[0].size, 64);
}

#[test]
fn older_ops_hold_padding_where_threads_would_be() {
    let expected = counts([3, 0, 0, 0], [1, 0], [1, 0], [96, 72, 2]);
    check("calls-old.ops", Format::Ops, expected, &[]);
}

/// What the four tools really wrote of `demo.c`, which allocates 31 objects by name, reallocates
/// 24 and frees all but two.
#[test]
fn files_that_the_tools_themselves_wrote_are_understood() {
    for (name, format) in [
        ("real-valgrind.txt", Format::Valgrind),
        ("real-mtrace.txt", Format::Mtrace),
        ("real-heaptrack.raw.zst", Format::HeaptrackRaw),
        ("real-heaptrack.zst", Format::Heaptrack),
        ("real-ltrace.txt", Format::Ltrace),
        ("real-ltrace-o.txt", Format::Ltrace),
    ] {
        let summary = summarise(&sample(name), format);
        let calls = summary.operations;
        assert!(calls.calls() >= 60, "{name}: {calls:?}");
        assert!(summary.final_live_objects >= 2, "{name}: leaked on purpose");
        if !matches!(format, Format::HeaptrackRaw | Format::Heaptrack) {
            assert!(calls.realloc >= 24, "{name}: {calls:?}");
            assert_eq!(summary.census.anomalies(), [], "{name}");
        }
    }
}

const SAMPLES: [(&str, Format); 23] = [
    ("android.txt", Format::Android),
    ("logalloc.txt", Format::Logalloc),
    ("logalloc-munged.txt", Format::Logalloc),
    ("mtrace.txt", Format::Mtrace),
    ("valgrind.txt", Format::Valgrind),
    ("heaptrack.raw.txt", Format::HeaptrackRaw),
    ("heaptrack.txt", Format::HeaptrackRaw),
    ("ltrace.txt", Format::Ltrace),
    ("calls.csv", Format::Csv),
    ("glibc.mtbin", Format::GlibcBinary),
    ("glibc-2016.mtbin", Format::GlibcBinary),
    ("threads.wl", Format::Workload),
    ("calls.trace.gz", Format::Protobuf),
    ("calls.ops", Format::Ops),
    ("calls-old.ops", Format::Ops),
    ("real-valgrind.txt", Format::Valgrind),
    ("real-mtrace.txt", Format::Mtrace),
    ("real-heaptrack.raw.zst", Format::HeaptrackRaw),
    ("real-heaptrack.zst", Format::HeaptrackRaw),
    ("real-ltrace.txt", Format::Ltrace),
    ("real-ltrace-o.txt", Format::Ltrace),
    ("android.txt", Format::Csv),
    ("threads.wl", Format::Csv),
];

fn export(name: &str, format: Format) -> tempfile::NamedTempFile {
    let mut exporter = Exporter::new(format, Vec::new()).unwrap();
    for event in events(traces::open(sample(name)).unwrap()) {
        exporter.write(&event).unwrap();
    }
    let (bytes, _) = exporter.finish().unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&bytes).unwrap();
    file
}

#[test]
fn what_is_exported_in_its_own_format_and_read_again_tells_the_same() {
    for (name, format) in SAMPLES {
        let exported = export(name, format);
        // The converter's tail is already gone, so that a second look must not take more.
        let options = ImportOptions { strip_tail: false, ..ImportOptions::default() };
        let mut source = traces::open_with(exported.path(), &options).unwrap();
        assert_eq!(source.format(), format, "{name}");
        let again = analysis::summarise(&mut *source).unwrap();
        let first = analysis::summarise(&mut *traces::open(sample(name)).unwrap()).unwrap();
        assert_eq!(again.census.anomalies(), [], "{name}: repairs are made once");
        let mut expected = counted(&first);
        if format == Format::Workload {
            // Its threads are bound by waits alone: any order they allow is as good.
            expected.peak_live_bytes = again.peak_live_bytes;
        }
        assert_eq!(counted(&again), expected, "{name}");
        assert_eq!(again.sizes, first.sizes, "{name}");
        assert_eq!(again.reallocs, first.reallocs, "{name}");
        assert_eq!(again.census.failed_allocations, first.census.failed_allocations, "{name}");
    }
}

#[test]
fn csv_carries_every_event_unchanged() {
    for (name, _) in SAMPLES {
        let exported = export(name, Format::Csv);
        let first = events(traces::open(sample(name)).unwrap());
        let again = events(traces::open(exported.path()).unwrap());
        assert_eq!(again, first, "{name}");
    }
}
