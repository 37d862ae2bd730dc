//! What [`check`] finds, each damage in a process of its own, and that it is never wrong beside threads at work.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, format, println};

use super::*;
use crate::segment::{Header, Kind, Span, header_of, record_of, slice_of};

/// Runs `act` in a process of its own, which is this test again: it damages the heap of the process.
fn alone(test: &str, act: impl FnOnce()) {
    const MARK: &str = "ALLOCATOR_TEST_ALONE";
    if env::var_os(MARK).is_some() {
        return act();
    }
    let name = format!("heap::tests::check::{test}");
    let mut again = Command::new(env::current_exe().expect("a test has a path"));
    again.args(["--exact", &name, "--nocapture"]).env(MARK, "1");
    let output = again.output().expect("a process");
    let said = std::string::String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{said}{}", std::string::String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"));
}

/// Puts `wrong` into `place`, expects `fault`, and puts back what was there.
///
/// # Safety
/// The place is mapped, and nobody but checks reads it meanwhile.
#[track_caller]
unsafe fn finds<T>(place: *mut T, wrong: T, fault: (&str, usize)) {
    // SAFETY: the caller's promise.
    unsafe {
        check().expect("sound before");
        let right = place.read();
        place.write(wrong);
        assert_eq!(check(), Err(fault));
        place.write(right);
        check().expect("sound again");
    }
}

/// Objects of `size` bytes.
fn objects(size: usize, count: usize) -> Vec<usize> {
    (0..count).map(|_| allocate(size).expose_provenance()).collect()
}

fn at(address: usize) -> *mut u8 {
    core::ptr::with_exposed_provenance_mut(address)
}

/// Frees the first of `live`, whose slab its heap then lists, with that block free; the block.
fn free_in_a_listed_slab(live: &[usize]) -> *mut u8 {
    let block = at(live[1]);
    // SAFETY: both are live until here.
    unsafe {
        deallocate(at(live[0]));
        deallocate(block);
        trim();
        assert!((*record_of(block)).listed, "the slab has a free block and is not the current one");
    }
    block
}

/// What `act` gives in a thread that has ended by then.
fn in_a_thread<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(act).join().expect("no panic"))
}

#[test]
fn a_damaged_link_of_a_free_block_is_found_and_named() {
    alone("a_damaged_link_of_a_free_block_is_found_and_named", || {
        // More than two slabs hold.
        let live = objects(48, 3 * SLICE / 48);
        let block = free_in_a_listed_slab(&live);
        let fault = ("a free block's link was overwritten", block.addr());
        for wrong in [usize::MAX / 3, block.addr() + SLICE, block.addr() + 8] {
            // SAFETY: the block is free, and this thread's.
            unsafe { finds(block.cast(), wrong, fault) };
        }
    });
}

#[test]
fn damage_in_the_heap_of_a_thread_that_ended_is_found() {
    alone("damage_in_the_heap_of_a_thread_that_ended_is_found", || {
        let live = in_a_thread(|| {
            let live = objects(48, 3 * SLICE / 48);
            free_in_a_listed_slab(&live);
            live
        });
        let block = at(live[1]);
        let record = record_of(block);
        let start = slice_of(record).addr();
        // SAFETY: the heap is nobody's, the block free.
        unsafe {
            finds(block.cast(), 1usize, ("a free block's link was overwritten", block.addr()));
            let overwritten = ("a span record was overwritten", start);
            let class = (*record).class;
            finds(&raw mut (*record).class, class + 1, overwritten);
            finds(&raw mut (*record).capacity, (*record).capacity - 1, overwritten);
            finds(&raw mut (*record).capacity, 0, overwritten);
            finds(&raw mut (*record).free, (*record).free + 16, overwritten);
            finds(&raw mut (*record).kind, Kind::Free, overwritten);
            let live = (*record).live + 1;
            finds(&raw mut (*record).live, live, ("a span's count of live blocks is wrong", start));
        }
    });
}

#[test]
fn a_damaged_record_of_a_bitmap_span_is_found_whoever_has_it() {
    alone("a_damaged_record_of_a_bitmap_span_is_found_whoever_has_it", || {
        // Spans of several slices, each of which a block begins in; one of them has no free block.
        let mine = objects(10_000, 20);
        let ended = in_a_thread(|| objects(10_000, 20));
        let (to_main, from_thread) = mpsc::channel();
        let (to_thread, over) = mpsc::channel::<()>();
        let sleeper = thread::spawn(move || {
            to_main.send(objects(10_000, 20)).unwrap();
            over.recv().unwrap();
        });
        let asleep = from_thread.recv().unwrap();
        for live in [mine, ended, asleep] {
            let first = record_of(at(live[0]));
            let start = slice_of(first).addr();
            let overwritten = ("a span record was overwritten", start);
            // SAFETY: nobody allocates or frees meanwhile.
            unsafe {
                assert!((*first).kind == Kind::Bitmap && (*first).back == 0);
                let slices = (*first).live;
                assert!(slices > 1, "{slices}");
                // A number that no kind has.
                finds((&raw mut (*first).kind).cast::<u8>(), 77, overwritten);
                finds(&raw mut (*first).kind, Kind::Huge, overwritten);
                finds(&raw mut (*first).kind, Kind::Slab, overwritten);
                for class in [(*first).class ^ 1, 82, 255] {
                    finds(&raw mut (*first).class, class, overwritten);
                }
                for length in [0, slices + 1, 127, u32::MAX] {
                    finds(&raw mut (*first).live, length, overwritten);
                }
                finds(&raw mut (*first).full, (*first).full >> 1, overwritten);
                finds(&raw mut (*first).inverse, 1, overwritten);
                finds(&raw mut (*first).free, 1 << 62, overwritten);
                finds((&raw mut (*first).remote).cast(), 1u64 << 62, overwritten);
                let second = first.add(1);
                let overwritten = ("a span record was overwritten", start + SLICE);
                for back in [0, 2, 255] {
                    finds(&raw mut (*second).back, back, overwritten);
                }
                finds(&raw mut (*second).class, (*first).class + 1, overwritten);
                let owner = (&raw mut (*first).owner).cast();
                finds(owner, start, ("a span's owner is no heap", start));
            }
        }
        to_thread.send(()).unwrap();
        sleeper.join().unwrap();
    });
}

#[test]
fn damage_in_the_lists_of_a_thread_that_sleeps_is_found() {
    alone("damage_in_the_lists_of_a_thread_that_sleeps_is_found", || {
        let (to_main, from_thread) = mpsc::channel();
        let (to_thread, over) = mpsc::channel::<()>();
        let sleeper = thread::spawn(move || {
            let live = objects(48, 3 * SLICE / 48);
            free_in_a_listed_slab(&live);
            to_main.send(live[1]).unwrap();
            over.recv().unwrap();
        });
        let record = record_of(at(from_thread.recv().unwrap()));
        let start = slice_of(record).addr();
        // SAFETY: the thread sleeps.
        unsafe {
            let overwritten = ("a span record was overwritten", start);
            finds(&raw mut (*record).capacity, (*record).capacity - 1, overwritten);
            let list = ("a list of spans was overwritten", record.addr());
            finds(&raw mut (*record).prev, record, list);
            finds(&raw mut (*record).listed, false, list);
        }
        to_thread.send(()).unwrap();
        sleeper.join().unwrap();
    });
}

#[test]
fn damage_to_the_header_of_a_segment_and_to_records_of_free_slices_is_found() {
    alone("damage_to_the_header_of_a_segment_and_to_records_of_free_slices_is_found", || {
        let live = objects(48, 1);
        let header: *mut Header = header_of(at(live[0]));
        let fault = ("a segment header was overwritten", header.addr());
        // SAFETY: nobody allocates or frees meanwhile.
        unsafe {
            for slices in [0, 1, 129] {
                finds(&raw mut (*header).slices, slices, fault);
            }
            finds(&raw mut (*header).index, 1000, fault);
            finds((&raw mut (*header).owner).cast(), 0usize, fault);
            finds(&raw mut (*header).free, (*header).free | 1, fault);
            let free = (*header).free.trailing_zeros() as usize;
            let record = header.cast::<Span>().add(free);
            let fault = ("the record of a free slice names a use", slice_of(record).addr());
            finds(&raw mut (*record).kind, Kind::Slab, fault);
        }
    });
}

/// Threads that begin, allocate, free for each other, and end, while `checks` threads test the heap all the time.
fn threads_at_work_beside(checks: usize) {
    const WORKERS: usize = 3;
    const LIVES: u64 = 12;
    let at_work = AtomicUsize::new(WORKERS);
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..WORKERS).map(|_| mpsc::channel()).unzip();
    thread::scope(|scope| {
        for (i, mut receiver) in receivers.into_iter().enumerate() {
            let next: mpsc::Sender<Live> = senders[(i + 1) % WORKERS].clone();
            let at_work = &at_work;
            scope.spawn(move || {
                for life in 0..LIVES {
                    // What it leaves behind others free, while its heap is parked or the next one's.
                    let (seed, next) = (1 + life + 100 * i as u64, next.clone());
                    let thread = thread::spawn(move || live_and_leave(seed, receiver, &next));
                    receiver = thread.join().expect("no panic");
                }
                at_work.fetch_sub(1, Ordering::Relaxed);
                drop(next);
                receiver.into_iter().for_each(Live::free);
            });
        }
        drop(senders);
        for _ in 0..checks {
            scope.spawn(|| {
                while at_work.load(Ordering::Relaxed) > 0 {
                    check().expect("sound");
                }
            });
        }
    });
    check().expect("sound");
}

/// A thread's life; hands on what `others` still have for it.
fn live_and_leave(
    seed: u64,
    others: mpsc::Receiver<Live>,
    next: &mpsc::Sender<Live>,
) -> mpsc::Receiver<Live> {
    let mut random = Random(seed);
    let mut live = Vec::new();
    for round in 0..4_000 {
        step(&mut random, &mut live, if round % 64 == 0 { 19 } else { 13 });
        if live.len() > 200 {
            let index = random.below(live.len() as u64) as usize;
            let _ = next.send(live.swap_remove(index));
        }
        if random.below(2) == 0
            && let Ok(foreign) = others.try_recv()
        {
            foreign.free();
        }
        if random.below(1000) == 0 {
            trim();
        }
    }
    for left in live {
        if let Err(unsent) = next.send(left) {
            unsent.0.free();
        }
    }
    others
}

#[test]
fn a_check_beside_threads_that_work_begin_and_end_finds_nothing() {
    threads_at_work_beside(1);
}

#[test]
fn checks_beside_each_other_find_nothing_and_none_waits_for_ever() {
    threads_at_work_beside(2);
}
