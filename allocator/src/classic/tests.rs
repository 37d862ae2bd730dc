//! The promises of the process heap: every strategy behind every lock, from one thread and from many.

use super::process::Process;
use super::{ClassicHeap, NoLock};
use crate::block::FaultKind;
use crate::options::settings::{LockChoice, PlacementChoice, Settings};
use crate::placement::Slab;
use core::alloc::Layout;
use std::sync::mpsc;
use std::thread;
use std::vec::Vec;

fn process(settings: Settings) -> &'static Process {
    // Beside the test runner's own malloc the break is not ours.
    Process::make(&Settings { sbrk: false, ..settings }, 4).unwrap()
}

fn every_setting() -> impl Iterator<Item = Settings> {
    let locks = [LockChoice::Global, LockChoice::Arena, LockChoice::None];
    PlacementChoice::ALL.into_iter().flat_map(move |placement| {
        locks.into_iter().flat_map(move |lock| {
            [false, true].map(|deferred| Settings {
                placement,
                lock,
                deferred,
                ..Settings::DEFAULT
            })
        })
    })
}

fn bytes<'a>(at: usize, size: usize) -> &'a mut [u8] {
    // SAFETY: tests ask for objects that the heap gave them.
    unsafe { core::slice::from_raw_parts_mut(core::ptr::with_exposed_provenance_mut(at), size) }
}

/// A deterministic stream of numbers below `end`.
fn numbers(seed: u64) -> impl FnMut(usize) -> usize {
    let mut state = seed | 1;
    move |end| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % end
    }
}

/// Allocates, resizes and frees at random; every object keeps its fill.
fn churn(process: &Process, seed: u64, steps: usize) {
    let mut number = numbers(seed);
    let mut live: Vec<(usize, usize, u8)> = Vec::new();
    for step in 0..steps {
        let size = [number(64), number(600), number(9_000), number(300_000)][number(8).min(11) % 4];
        let size = if step % 16 == 0 { size } else { size % 2_000 };
        match number(5) {
            0 | 1 => {
                let (align, zero) = (16 << number(3), number(3) == 0);
                let at = process.allocate(size, align, zero).unwrap().unwrap();
                assert_eq!(at % align, 0);
                assert!(!zero || bytes(at, size).iter().all(|&byte| byte == 0));
                assert!(process.usable(at).unwrap() >= size);
                bytes(at, size).fill(step as u8);
                live.push((at, size, step as u8));
            }
            2 if !live.is_empty() => {
                let index = number(live.len());
                let (at, old, fill) = live[index];
                let moved = process.reallocate(at, size).unwrap().unwrap();
                assert!(bytes(moved, old.min(size)).iter().all(|&byte| byte == fill));
                bytes(moved, size).fill(fill);
                live[index] = (moved, size, fill);
            }
            _ if !live.is_empty() => {
                let (at, size, fill) = live.swap_remove(number(live.len()));
                assert!(bytes(at, size).iter().all(|&byte| byte == fill));
                process.free(at).unwrap();
            }
            _ => {}
        }
    }
    for (at, size, fill) in live {
        assert!(bytes(at, size).iter().all(|&byte| byte == fill));
        process.free(at).unwrap();
    }
}

#[test]
fn every_strategy_serves_one_thread_behind_every_lock() {
    for settings in every_setting() {
        let process = process(settings);
        for seed in 0..2 {
            churn(process, seed, 600);
            let totals = process.check().unwrap_or_else(|fault| panic!("{settings:?}: {fault}"));
            assert_eq!(totals.live_blocks, 0, "{settings:?}");
        }
        let snapshot = process.snapshot();
        assert_eq!(snapshot.mapped_objects, 0);
        assert_eq!(snapshot.counters.allocations, snapshot.counters.frees);
        process.trim(0).unwrap();
        process.check().unwrap();
    }
}

#[test]
fn every_strategy_serves_many_threads_behind_the_locks_that_allow_it() {
    for settings in every_setting().filter(|settings| settings.lock != LockChoice::None) {
        let process = process(settings);
        thread::scope(|scope| {
            for seed in 0..4 {
                scope.spawn(move || churn(process, seed, 400));
            }
        });
        assert_eq!(process.check().unwrap().live_blocks, 0, "{settings:?}");
    }
}

#[test]
fn objects_may_be_freed_by_other_threads() {
    for lock in [LockChoice::Global, LockChoice::Arena] {
        let process = process(Settings { lock, ..Settings::DEFAULT });
        let (send, receive) = mpsc::sync_channel::<usize>(256);
        thread::scope(|scope| {
            for seed in 0..3 {
                let send = send.clone();
                scope.spawn(move || {
                    let mut number = numbers(seed);
                    for _ in 0..5_000 {
                        send.send(process.allocate(number(500), 16, false).unwrap().unwrap())
                            .unwrap();
                    }
                });
            }
            drop(send);
            scope.spawn(move || receive.iter().for_each(|object| process.free(object).unwrap()));
        });
        assert_eq!(process.check().unwrap().live_blocks, 0);
        let snapshot = process.snapshot();
        assert!(snapshot.contention.acquisitions >= 15_000);
    }
}

#[test]
fn requests_of_the_threshold_and_more_have_a_mapping_of_their_own() {
    let process = process(Settings { mmap_threshold: 64 << 10, ..Settings::DEFAULT });
    let small = process.allocate((64 << 10) - 1, 16, false).unwrap().unwrap();
    assert_eq!(process.snapshot().mapped_objects, 0);
    let large = process.allocate(64 << 10, 16, false).unwrap().unwrap();
    assert_eq!(process.snapshot().mapped_objects, 1);
    assert!(process.owns(small) && process.owns(large) && !process.owns(4096));
    bytes(small, 100).fill(1);
    let moved = process.reallocate(small, 1 << 20).unwrap().unwrap();
    assert_eq!((bytes(moved, 100)[99], process.snapshot().mapped_objects), (1, 2));
    let back = process.reallocate(moved, 100).unwrap().unwrap();
    assert_eq!((bytes(back, 100)[99], process.snapshot().mapped_objects), (1, 1));
    process.free(large).unwrap();
    process.free(back).unwrap();
    assert_eq!(process.free(large).unwrap_err().kind, FaultKind::DoubleFree);
}

#[test]
fn what_no_block_can_hold_has_a_mapping_of_its_own_below_the_threshold_too() {
    for placement in PlacementChoice::ALL {
        let settings = Settings { placement, mmap_threshold: 1 << 30, ..Settings::DEFAULT };
        let process = process(settings);
        let large = process.allocate(600 << 20, 16, false).unwrap().unwrap();
        let aligned = process.allocate(100, 512 << 20, false).unwrap().unwrap();
        assert_eq!(aligned % (512 << 20), 0, "{placement:?}");
        for object in [large, aligned] {
            bytes(object, 100).fill(7);
            process.free(object).unwrap();
        }
        assert_eq!(process.snapshot().mapped_objects, 0, "{placement:?}");
    }
}

#[test]
fn memory_that_was_freed_goes_back_and_can_be_used_again() {
    let process = process(Settings { trim_threshold: 1 << 20, ..Settings::DEFAULT });
    for _ in 0..3 {
        let objects: Vec<_> =
            (0..500).map(|_| process.allocate(100_000, 16, true).unwrap().unwrap()).collect();
        let peak = process.snapshot().counters.committed;
        for &object in &objects {
            assert!(bytes(object, 100_000).iter().all(|&byte| byte == 0));
            bytes(object, 100_000).fill(0xee);
        }
        for object in objects {
            process.free(object).unwrap();
        }
        process.check().unwrap();
        let left = process.snapshot().counters.committed;
        assert!(left < peak / 4, "{left} of {peak} bytes are left");
    }
}

#[test]
fn a_misuse_is_found_behind_every_lock_and_the_heap_stays_sound() {
    for settings in every_setting() {
        let process = process(settings);
        let object = process.allocate(100, 16, false).unwrap().unwrap();
        let _wall = process.allocate(100, 16, false).unwrap().unwrap();
        let kind = |at| process.free(at).unwrap_err().kind;
        assert_eq!(kind(object + 8), FaultKind::MisalignedFree, "{settings:?}");
        assert_eq!(kind(0x10_0000), FaultKind::ForeignFree, "{settings:?}");
        bytes(object, 100).fill(0);
        assert_eq!(kind(object + 16), FaultKind::InteriorFree, "{settings:?}");
        process.free(object).unwrap();
        assert_eq!(kind(object), FaultKind::DoubleFree, "{settings:?}");
        process.check().unwrap();
    }
}

#[test]
fn an_object_of_an_embedded_heap_shrinks_where_there_is_no_memory_to_move_it_to() {
    let mut region = std::vec![0_u8; 1 << 20];
    // SAFETY: `region` is ours alone and outlives the heap.
    let heap = unsafe { ClassicHeap::<Slab, NoLock>::over(region.as_mut_ptr(), region.len()) };
    let layout = |size| Layout::from_size_align(size, 16).unwrap();
    let object = heap.allocate(layout(900)).unwrap().unwrap();
    while heap.allocate(layout(100)).unwrap().is_some() {}
    // SAFETY: the object is live, and it is not used again.
    let shrunk = unsafe { heap.reallocate(object, layout(100)) };
    assert_eq!(shrunk, Ok(Some(object)));
    // SAFETY: as above; where it fails, the object stays.
    let grown = unsafe { heap.reallocate(object, layout(2 << 20)) };
    assert_eq!(grown, Ok(None));
    heap.check().unwrap();
}

fn cached(placement: PlacementChoice, lock: LockChoice) -> &'static Process {
    process(Settings { placement, lock, cache: true, ..Settings::DEFAULT })
}

#[test]
fn caches_serve_many_threads_and_are_emptied_when_a_thread_ends() {
    for placement in [PlacementChoice::FirstFit, PlacementChoice::Segregated, PlacementChoice::Slab]
    {
        for lock in [LockChoice::Global, LockChoice::Arena] {
            let process = cached(placement, lock);
            let threads: Vec<_> =
                (0..4).map(|seed| thread::spawn(move || churn(process, seed, 2_000))).collect();
            for thread in threads {
                thread.join().unwrap();
            }
            assert_eq!(process.check().unwrap().live_blocks, 0, "{placement:?} {lock:?}");
        }
    }
}

#[test]
fn a_cached_object_is_handed_out_again_without_a_lock() {
    let process = cached(PlacementChoice::FirstFit, LockChoice::Global);
    let first = process.allocate(100, 16, false).unwrap().unwrap();
    let before = process.snapshot().contention.acquisitions;
    for _ in 0..1_000 {
        process.free(first).unwrap();
        assert_eq!(process.allocate(100, 16, true), Ok(Some(first)));
    }
    assert!(process.snapshot().contention.acquisitions - before < 10);
    process.free(first).unwrap();
    process.flush_cache().unwrap();
    assert_eq!(process.check().unwrap().live_blocks, 0);
}

#[test]
fn an_object_that_waited_in_an_exact_list_is_not_taken_for_a_cached_one() {
    for (placement, deferred) in
        [(PlacementChoice::QuickFit, false), (PlacementChoice::Segregated, true)]
    {
        let cache = true;
        let process = process(Settings { placement, deferred, cache, ..Settings::DEFAULT });
        let allocate = |count| -> Vec<usize> {
            (0..count).map(|_| process.allocate(40, 16, false).unwrap().unwrap()).collect()
        };
        // Nothing is written to the objects, so their words are as the lists left them.
        let free = |objects: &[usize]| {
            for &object in objects {
                process.usable(object).unwrap();
                process.free(object).unwrap();
            }
        };
        // More than the cache holds: some wait in a list, and are taken from there.
        free(&allocate(40));
        free(&allocate(40));
        // The cache is emptied and the lists are merged: what they left lies somewhere in free memory.
        process.flush_cache().unwrap();
        process.trim(0).unwrap();
        let objects = allocate(200);
        free(&objects);
        for &object in &objects {
            assert_eq!(process.free(object).unwrap_err().kind, FaultKind::DoubleFree);
        }
        process.flush_cache().unwrap();
        assert_eq!(process.check().unwrap().live_blocks, 0);
    }
}

#[test]
fn misuse_of_a_cached_object_is_found() {
    let process = cached(PlacementChoice::Segregated, LockChoice::Arena);
    let object = process.allocate(100, 16, false).unwrap().unwrap();
    process.free(object).unwrap();
    assert_eq!(process.free(object).unwrap_err().kind, FaultKind::DoubleFree);
    assert_eq!(process.reallocate(object, 10).unwrap_err().kind, FaultKind::DoubleFree);
    assert_eq!(process.usable(object).unwrap_err().kind, FaultKind::DoubleFree);
    let elsewhere = thread::spawn(move || process.free(object).unwrap_err().kind).join().unwrap();
    assert_eq!(elsewhere, FaultKind::DoubleFree);
    bytes(object, 1)[0] ^= 1;
    let found = process.allocate(100, 16, false).unwrap_err().kind;
    assert_eq!(found, FaultKind::UseAfterFree);
    // The thread's end empties its cache, and must find it whole.
    bytes(object, 1)[0] ^= 1;
}
