//! A production trace that nobody here made is read exactly as its publishers' counts say.
//!
//! Needs `ALLOCATOR_TEST_DATA` to name the folder that holds `systemui.zip`; skips without it.

use std::path::PathBuf;

use traces::analysis;

fn trace() -> Option<PathBuf> {
    let Some(data) = std::env::var_os("ALLOCATOR_TEST_DATA") else {
        eprintln!("skipped: ALLOCATOR_TEST_DATA is not set");
        return None;
    };
    Some(PathBuf::from(data).join("systemui.zip"))
}

#[test]
fn systemui_has_the_counts_its_description_states() {
    let Some(path) = trace() else { return };
    let mut source = traces::open(path).unwrap();
    let summary = analysis::summarise(&mut *source).unwrap();
    let operations = summary.operations;
    assert_eq!(operations.malloc, 383_154);
    assert_eq!(operations.free, 364_863);
    assert_eq!(operations.free_null, 15_818);
    assert_eq!(operations.realloc, 29_167);
    assert_eq!(operations.calloc, 7_847);
    assert_eq!(operations.memalign, 1_066);
    assert_eq!(operations.thread_done, 357);
    assert_eq!((summary.threads, summary.peak_threads), (393, 37));
    assert_eq!(summary.cross_thread_frees, 39_466);
    assert_eq!(summary.peak_live_bytes, 10_441_709);
    assert_eq!(summary.peak_live_objects, 60_097);
    assert_eq!(summary.final_live_objects, 53_645);
    assert_eq!(summary.final_live_bytes, 8_396_631);
    assert_eq!(summary.census.records, 786_454);
    assert_eq!(summary.census.leaked, 53_645);
    assert_eq!(summary.census.anomalies(), [], "no unknown release, no duplicate");
}
