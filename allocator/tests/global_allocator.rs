//! `Allocator` as `#[global_allocator]` of this very program, beside glibc's malloc, which stays busy.

use std::alloc::{GlobalAlloc, Layout};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

#[global_allocator]
static ALLOCATOR: allocator::Allocator = allocator::Allocator;

/// Keeps glibc's malloc, and through it the break, busy while `body` runs.
fn beside_busy_glibc(body: impl FnOnce()) {
    static STOP: AtomicBool = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut held = VecDeque::new();
            let mut round: usize = 0;
            while !STOP.load(Ordering::Relaxed) {
                round = round
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                let size = (round >> 40) % 60_000 + 1;
                // SAFETY: glibc's malloc, which nothing replaces here; freed below with glibc's free.
                let p = unsafe { libc::malloc(size) }.cast::<u8>();
                assert!(!p.is_null());
                // SAFETY: `p` has `size` >= 1 bytes.
                unsafe { p.write_bytes(0x11, size) };
                held.push_back((p.addr(), p, size));
                if held.len() > 500 {
                    let (_, p, size) = held.pop_front().expect("501 objects");
                    // SAFETY: `p` has `size` bytes, all written above, and is freed here only.
                    unsafe {
                        assert_eq!(
                            (p.read(), p.add(size - 1).read()),
                            (0x11, 0x11),
                            "nobody wrote into glibc's object"
                        );
                        libc::free(p.cast());
                    }
                }
            }
            for (_, p, _) in held {
                // SAFETY: still held, freed here only.
                unsafe { libc::free(p.cast()) };
            }
        });
        body();
        STOP.store(true, Ordering::Relaxed);
    });
}

#[test]
fn collections_threads_and_channels_work_beside_a_busy_glibc_malloc() {
    beside_busy_glibc(|| {
        let (sender, receiver) = mpsc::channel::<(usize, Vec<String>)>();
        let producers: Vec<_> = (0..4)
            .map(|producer| {
                let sender = sender.clone();
                thread::spawn(move || {
                    for round in 0..400 {
                        let words = (0..round % 60).map(|n| "x".repeat(n * producer + 1)).collect();
                        sender.send((round, words)).expect("the receiver lives");
                    }
                })
            })
            .collect();
        drop(sender);
        let mut by_length: BTreeMap<usize, usize> = BTreeMap::new();
        let mut by_text: HashMap<String, usize> = HashMap::new();
        for (round, words) in receiver {
            assert_eq!(words.len(), round % 60);
            for word in words {
                assert!(word.bytes().all(|byte| byte == b'x'));
                *by_length.entry(word.len()).or_default() += 1;
                *by_text.entry(word).or_default() += 1;
            }
        }
        for producer in producers {
            producer.join().expect("a producer does not panic");
        }
        assert_eq!(by_length.values().sum::<usize>(), by_text.values().sum::<usize>());
        for (word, times) in by_text {
            assert_eq!(by_length[&word.len()], times);
        }
    });
}

#[test]
fn every_alignment_up_to_16_mib_is_honoured_for_every_size() {
    for alignment in (0..=24).map(|power| 1_usize << power) {
        for size in [1, 8, 24, 100, 1000, 1008, 4096, 10_000, 100_000, 1 << 20, 3 << 20] {
            let layout = Layout::from_size_align(size, alignment).expect("a layout");
            // SAFETY: the layout's size is not 0; written within it; freed with the same layout.
            unsafe {
                let p = ALLOCATOR.alloc(layout);
                assert!(!p.is_null(), "{layout:?}");
                assert_eq!(p.addr() % alignment, 0, "{layout:?}");
                p.write_bytes(0xab, size);
                ALLOCATOR.dealloc(p, layout);
                let p = ALLOCATOR.alloc_zeroed(layout);
                assert!(!p.is_null() && p.addr().is_multiple_of(alignment), "{layout:?}");
                assert!(
                    std::slice::from_raw_parts(p, size).iter().all(|&byte| byte == 0),
                    "{layout:?}"
                );
                ALLOCATOR.dealloc(p, layout);
            }
        }
    }
}

#[test]
fn realloc_keeps_contents_and_alignment() {
    for alignment in [1, 16, 64, 4096, 1 << 16] {
        let mut layout = Layout::from_size_align(1, alignment).expect("a layout");
        // SAFETY: sizes are never 0, `layout` always is what the object was last given, reads lie within it.
        unsafe {
            let mut p = ALLOCATOR.alloc(layout);
            p.write(0x5c);
            for size in [
                7,
                64,
                900,
                1500,
                9000,
                70_000,
                1 << 20,
                5 << 20,
                9 << 20,
                2 << 20,
                80_000,
                2000,
                100,
                3,
            ] {
                let new = ALLOCATOR.realloc(p, layout, size);
                assert!(!new.is_null(), "{layout:?} -> {size}");
                assert_eq!(new.addr() % alignment, 0, "{layout:?} -> {size}");
                let kept = layout.size().min(size);
                assert!(
                    std::slice::from_raw_parts(new, kept).iter().all(|&byte| byte == 0x5c),
                    "{layout:?} -> {size}"
                );
                new.write_bytes(0x5c, size);
                p = new;
                layout = Layout::from_size_align(size, alignment).expect("a layout");
            }
            ALLOCATOR.dealloc(p, layout);
        }
    }
}

#[test]
fn a_layout_that_no_machine_can_serve_gives_null() {
    for (size, alignment) in [
        (isize::MAX as usize - 4095, 4096),
        (isize::MAX as usize, 1),
        (1 << 62, 1 << 20),
        (8, 1 << 62),
    ] {
        let layout = Layout::from_size_align(size, alignment).expect("a layout");
        // SAFETY: the layout's size is not 0; null is what comes back.
        assert!(unsafe { ALLOCATOR.alloc(layout) }.is_null(), "{layout:?}");
        // SAFETY: as above.
        assert!(unsafe { ALLOCATOR.alloc_zeroed(layout) }.is_null(), "{layout:?}");
    }
    let layout = Layout::new::<[u64; 4]>();
    // SAFETY: a valid layout; a failed realloc leaves the object, which is then read and freed.
    unsafe {
        let p = ALLOCATOR.alloc(layout);
        p.cast::<u64>().write(4711);
        assert!(ALLOCATOR.realloc(p, layout, isize::MAX as usize - 100).is_null());
        assert_eq!(p.cast::<u64>().read(), 4711);
        ALLOCATOR.dealloc(p, layout);
    }
}

#[test]
fn try_reserve_reports_instead_of_aborting() {
    let mut bytes: Vec<u8> = vec![1, 2, 3];
    assert!(bytes.try_reserve(isize::MAX as usize - 100).is_err());
    assert_eq!(bytes, [1, 2, 3]);
}

/// In a process of its own, which is this test again.
#[cfg(feature = "hardened")]
#[test]
fn a_layout_that_is_not_the_objects_ends_a_hardened_process() {
    const NAME: &str = "a_layout_that_is_not_the_objects_ends_a_hardened_process";
    if std::env::var_os("FREE_WITH_ANOTHER_LAYOUT").is_some() {
        let layout = |size| Layout::from_size_align(size, 8).expect("a layout");
        // SAFETY: the misuse that is looked for; a sound allocator does not return.
        unsafe { ALLOCATOR.dealloc(ALLOCATOR.alloc(layout(24)), layout(32)) };
        return;
    }
    let test = std::env::current_exe().expect("a test has a path");
    let mut child = std::process::Command::new(test);
    child.args(["--exact", NAME, "--nocapture"]).env("FREE_WITH_ANOTHER_LAYOUT", "1");
    let output = child.output().expect("a process");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && stderr.contains("size-mismatch"), "{output:?}");
}
