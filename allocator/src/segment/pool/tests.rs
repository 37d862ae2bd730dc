//! What the pool promises, over the kernel and over a kernel that fails.
use std::vec::Vec;

use super::*;
use crate::os::{Failing, Linux, Paged};

type TestPool = Pool<Failing<Linux>>;

fn pool() -> TestPool {
    let pool = Pool::new(Failing::new(Linux));
    // One for large spans: hardened builds guard no slice of those segments, so that all are counted.
    pool.configure(1, Origin::Map, None);
    pool.configure_purge(4 << 20, 20);
    pool
}

#[test]
fn runs_never_overlap_and_come_back() {
    let pool = pool();
    let mut runs: Vec<(Run, usize)> = Vec::new();
    for round in 0..400usize {
        let len = 1 + round * 7 % 60;
        runs.push((pool.allocate(len).expect("memory"), len));
        if round % 3 == 0 {
            let (run, len) = runs.swap_remove(round * 13 % runs.len());
            // SAFETY: the run came from this pool and is dropped here.
            unsafe { pool.release(run.head, len) };
        }
        pool.check().expect("sound");
    }
    let mut ranges: Vec<_> =
        runs.iter().map(|(run, len)| (slice_of(run.head).addr(), len * SLICE)).collect();
    ranges.sort_unstable();
    assert!(ranges.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0));
    for (run, len) in runs {
        // SAFETY: as above.
        unsafe { pool.release(run.head, len) };
    }
    assert_eq!(pool.usage().used, 0);
    pool.check().expect("sound");
}

#[test]
fn the_lowest_dirty_run_is_reused_first() {
    let pool = pool();
    let first = pool.allocate(4).expect("memory");
    assert!(first.zeroed);
    let second = pool.allocate(4).expect("memory");
    // SAFETY: both came from this pool.
    unsafe {
        pool.release(second.head, 4);
        pool.release(first.head, 4);
    }
    let again = pool.allocate(4).expect("memory");
    assert_eq!(again.head, first.head);
    assert!(!again.zeroed);
}

#[test]
fn purged_slices_read_as_zero_and_are_counted() {
    let pool = pool();
    let run = pool.allocate(2).expect("memory");
    let bytes = slice_of(run.head);
    // SAFETY: the run is ours until it is released.
    unsafe {
        bytes.write(7);
        pool.release(run.head, 2);
    }
    assert_eq!(pool.usage().dirty, 2 * SLICE);
    pool.purge_all();
    let usage = pool.usage();
    assert_eq!((usage.dirty, usage.purged), (0, 2 * SLICE));
    let run = pool.allocate(2).expect("memory");
    assert!(run.zeroed);
    // SAFETY: handed out again.
    assert_eq!(unsafe { slice_of(run.head).read() }, 0);
}

#[test]
fn a_kernel_that_refuses_leaves_the_pool_sound() {
    for calls in 0..12 {
        let pool = pool();
        pool.kernel.fail_after(calls);
        let mut runs = Vec::new();
        while let Some(run) = pool.allocate(60) {
            runs.push(run);
            assert!(runs.len() < 100, "the kernel refuses after {calls} calls");
        }
        pool.check().expect("sound");
        pool.kernel.fail_after(u32::MAX);
        assert!(pool.allocate(60).is_some(), "service resumes");
        for run in runs {
            // SAFETY: from this pool.
            unsafe { pool.release(run.head, 60) };
        }
        pool.check().expect("sound");
    }
}

#[test]
fn free_segments_and_free_ends_go_back_when_memory_is_short() {
    let pool = pool();
    let runs: Vec<_> = (0..5).map(|_| pool.allocate(100).expect("memory")).collect();
    for run in runs.iter().take(4) {
        // SAFETY: the run came from this pool and is used no more.
        unsafe { pool.release(run.head, 100) };
    }
    pool.release_free();
    pool.check().expect("sound");
    assert_eq!(pool.usage().mapped, 101 * SLICE, "one segment is left, without its end");
    assert_eq!(pool.usage().dirty, 0);
    let again = pool.allocate(100).expect("memory");
    pool.check().expect("sound");
    // SAFETY: as above.
    unsafe {
        pool.release(again.head, 100);
        pool.release(runs[4].head, 100);
    }
    pool.release_free();
    assert_eq!(pool.usage().mapped, 0);
    assert!(pool.allocate(1).is_some());
    pool.check().expect("sound");
}

/// A run with its slices, each of whose words is filled with a number of its own.
fn filled(pool: &Pool<Paged>, len: usize, with: u64) -> (Run, usize, u64) {
    let run = pool.allocate(len).expect("memory");
    let words = slice_of(run.head).cast::<u64>();
    for at in 0..len * SLICE / 8 {
        // SAFETY: the run is ours.
        unsafe {
            assert!(!run.zeroed || words.add(at).read() == 0, "what is said to be zero is");
            words.add(at).write(with);
        }
    }
    (run, len, with)
}

fn is_whole(&(run, len, with): &(Run, usize, u64)) -> bool {
    let words = slice_of(run.head).cast::<u64>();
    // SAFETY: as above.
    (0..len * SLICE / 8).all(|at| unsafe { words.add(at).read() } == with)
}

#[test]
fn purging_and_unmapping_take_nothing_but_free_slices_on_pages_of_every_size() {
    for page in [4 << 10, 16 << 10, 64 << 10] {
        let pool = Pool::new(Paged::new(page));
        pool.configure(1, Origin::Map, None);
        pool.configure_purge(4 << 20, 20);
        let mut live = Vec::new();
        for round in 0..60u64 {
            // Odd lengths, so that neighbours share a page that is larger than a slice.
            live.push(filled(&pool, 1 + (round * 5 % 7) as usize, round + 1));
            if round % 2 == 1 {
                let (run, len, _) = live.swap_remove((round * 7 % live.len() as u64) as usize);
                // SAFETY: from this pool, and used no more.
                unsafe { pool.release(run.head, len) };
            }
            match round % 10 {
                3 => pool.purge_all(),
                6 => pool.release_free(),
                9 => {
                    pool.kernel.pass(1001);
                    pool.tick();
                }
                _ => {}
            }
            pool.check().expect("sound");
            assert!(live.iter().all(is_whole), "{page}: round {round}");
        }
        pool.purge_all();
        assert!(page > SLICE || pool.usage().dirty == 0, "{page}");
        for (run, len, _) in live {
            // SAFETY: as above.
            unsafe { pool.release(run.head, len) };
        }
        pool.purge_all();
        // Of a page that is larger than a slice the first is shared with the records.
        let segments = pool.state.lock().segments().count();
        let shared = segments * page.saturating_sub(SLICE);
        assert!(pool.usage().dirty <= shared, "{page}: {}", pool.usage().dirty);
        pool.release_free();
        assert_eq!((pool.usage().mapped, pool.usage().dirty), (0, 0));
    }
}

#[test]
fn after_an_idle_second_the_first_look_gives_back_all_that_is_free() {
    let pool = Pool::new(Paged::new(4 << 10));
    pool.configure(1, Origin::Map, None);
    pool.configure_purge(4 << 20, 20);
    let runs: Vec<_> = (0..64).map(|n| filled(&pool, 16, n)).collect();
    for (run, len, _) in &runs[8..] {
        // SAFETY: from this pool, and used no more.
        unsafe { pool.release(run.head, *len) };
    }
    assert!(pool.usage().dirty > 0, "kept for the next");
    pool.kernel.pass(1001);
    pool.tick();
    assert_eq!((pool.usage().dirty, pool.usage().used), (0, 8 * 16 * SLICE));
}

/// Lets an epoch end; the dirty slices afterwards.
fn dirty_after_epoch(pool: &Pool<Paged>) -> usize {
    pool.kernel.pass(EPOCH_MS + 1);
    pool.tick();
    pool.usage().dirty / SLICE
}

#[test]
fn a_run_goes_back_in_the_second_epoch_after_it_was_freed() {
    let pool = Pool::new(Paged::new(4 << 10));
    pool.configure(1, Origin::Map, None);
    pool.configure_purge(4 << 20, 20);
    let [(first, ..), (second, ..), live] = [1, 2, 3].map(|with| filled(&pool, 8, with));
    assert_eq!(dirty_after_epoch(&pool), 0);
    // SAFETY: the runs came from this pool, and nobody uses them any more.
    unsafe {
        pool.release(first.head, 8);
        assert_eq!(dirty_after_epoch(&pool), 8, "kept for the next");
        pool.release(second.head, 8);
    }
    assert_eq!(dirty_after_epoch(&pool), 8, "the first is gone, the second was freed in between");
    let (kept, gone) = (pool.allocate(8).expect("memory"), pool.allocate(8).expect("memory"));
    assert!(kept.head == second.head && !kept.zeroed, "the second holds its pages");
    assert!(gone.head == first.head && gone.zeroed, "the first does not");
    assert!(is_whole(&live));
    pool.check().expect("sound");
}

#[test]
fn a_run_that_was_used_again_counts_from_when_it_was_freed_last() {
    let pool = Pool::new(Paged::new(4 << 10));
    pool.configure(1, Origin::Map, None);
    pool.configure_purge(4 << 20, 20);
    let (run, ..) = filled(&pool, 8, 1);
    assert_eq!(dirty_after_epoch(&pool), 0);
    // SAFETY: the run came from this pool, and is released once each time it was handed out.
    unsafe {
        pool.release(run.head, 8);
        assert_eq!(dirty_after_epoch(&pool), 8);
        assert_eq!(pool.allocate(8).expect("memory").head, run.head);
        pool.release(run.head, 8);
    }
    assert_eq!(dirty_after_epoch(&pool), 8, "freed in the epoch that ended");
    pool.kernel.pass(EPOCH_MS - 1);
    pool.tick();
    assert_eq!(pool.usage().dirty, 8 * SLICE, "this epoch goes on");
    assert_eq!(dirty_after_epoch(&pool), 0);
}

#[test]
fn a_hint_stands_for_a_segment_or_one_a_little_below_up_to_the_last() {
    let mut before = 0;
    for index in 0..directory::CAPACITY as u32 {
        let hint = hint_of(index);
        let first = index_of(hint);
        assert!(hint >= before && hint_of(first) == hint, "{index}: {hint}");
        assert!(first <= index && index - first < if index < EXACT { 1 } else { STEP }, "{index}");
        before = hint;
    }
}

#[test]
fn a_kernel_that_refuses_to_purge_is_asked_once_an_epoch() {
    let pool = Pool::new(Failing::new(Paged::new(4 << 10)));
    pool.configure(1, Origin::Map, None);
    pool.configure_purge(0, 0);
    let runs: Vec<_> = (0..1000).map(|_| pool.allocate(2).expect("memory")).collect();
    pool.kernel.fail_after(0);
    for run in &runs {
        // SAFETY: from this pool, and used no more.
        unsafe { pool.release(run.head, 2) };
    }
    let refused = pool.kernel.refused();
    assert!(refused <= 4, "{refused} calls");
    assert_eq!(pool.usage().dirty, 2000 * SLICE);
    pool.kernel.fail_after(u32::MAX);
    pool.kernel.inner().pass(EPOCH_MS);
    pool.tick();
    let run = pool.allocate(2).expect("memory");
    // SAFETY: as above.
    unsafe { pool.release(run.head, 2) };
    assert_eq!(pool.usage().dirty, 0, "in the next it is asked again");
    pool.check().expect("sound");
}

#[test]
fn when_memory_is_short_a_run_is_as_long_as_the_longest_gap() {
    let pool = pool();
    let whole = pool.allocate(SLICES - 1).expect("memory");
    // SAFETY: of the run nobody uses slices 0 to 2 and 10 to 16 from here on.
    let (short, long) = unsafe { (whole.head, whole.head.add(10)) };
    // SAFETY: as above.
    unsafe {
        pool.release(short, 3);
        pool.release(long, 7);
    }
    pool.kernel.fail_after(0);
    assert!(pool.allocate(30).is_none());
    let run = pool.allocate_longest(2, 30).expect("a gap");
    assert!(run.head == long && run.len == 7, "{} slices", run.len);
    assert!(pool.allocate_longest(4, 30).is_none(), "no gap has four slices");
    assert_eq!(pool.allocate_longest(2, 30).map(|run| (run.head, run.len)), Some((short, 3)));
    pool.kernel.fail_after(u32::MAX);
    let new = pool.allocate_longest(2, 30).expect("memory");
    assert!(new.len == 30 && new.zeroed, "of a new segment");
    pool.check().expect("sound");
}

#[test]
fn segments_ask_for_huge_pages_from_when_on_they_are_wanted() {
    let pool = Pool::new(Paged::new(4 << 10));
    pool.configure(1, Origin::Map, None);
    let whole = SLICES - 1;
    pool.allocate(whole).expect("memory");
    assert_eq!(pool.kernel.huge_bytes(), 0);
    pool.configure_huge_pages(true);
    pool.allocate(whole).expect("memory");
    assert_eq!(pool.kernel.huge_bytes(), SEGMENT);
    pool.configure_huge_pages(false);
    pool.allocate(whole).expect("memory");
    assert_eq!(pool.kernel.huge_bytes(), SEGMENT);
}
