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

/// Bytes that differ from place to place.
fn pattern(at: usize) -> u8 {
    (at ^ (at >> 8)) as u8 | 1
}

#[test]
fn an_aligned_object_stays_where_it_is_while_it_fits_its_block_and_fills_half_of_it() {
    // Builds that watch every object move those.
    let stays = cfg!(not(any(feature = "hardened", feature = "valgrind")));
    for alignment in [32, 64, 512, 4096, 1 << 15, 1 << 16, 8 << 20] {
        for size in [256, 8192, 100_000, 1 << 20, 5 << 20] {
            let layout = |size| Layout::from_size_align(size, alignment).expect("a layout");
            let check = |p: *mut u8, size: usize| {
                assert_eq!(p.addr() % alignment, 0, "{:?}", layout(size));
                // SAFETY: a live object of that many bytes.
                let bytes = unsafe { std::slice::from_raw_parts(p, size) };
                let whole = bytes.iter().enumerate().all(|(at, byte)| *byte == pattern(at));
                assert!(whole, "{:?}", layout(size));
            };
            // SAFETY: sizes are never 0, each layout is what the object was last given, and its bytes are its own.
            unsafe {
                let first = ALLOCATOR.alloc(layout(size));
                (0..size).for_each(|at| first.add(at).write(pattern(at)));
                let usable = if stays { allocator::heap::usable_size(first) } else { size };
                let half = usable.div_ceil(2);
                // To the last byte of its block, to half of it, and back.
                let (mut p, mut now) = (first, size);
                for next in [usable, usable - 1, half, half + 1, usable] {
                    let new = ALLOCATOR.realloc(p, layout(now), next);
                    assert!(!stays || new == first, "{:?} to {next}", layout(now));
                    check(new, now.min(next));
                    (now..next).for_each(|at| new.add(at).write(pattern(at)));
                    (p, now) = (new, next);
                }
                // What would leave most of the block empty moves.
                let moved = ALLOCATOR.realloc(p, layout(now), usable / 2 - 1);
                assert_ne!(moved, p, "{:?} to {}", layout(now), usable / 2 - 1);
                check(moved, usable / 2 - 1);
                ALLOCATOR.dealloc(moved, layout(usable / 2 - 1));
            }
        }
    }
}

/// Bytes of `[p, p + size)` that have pages.
fn resident(p: *mut u8, size: usize) -> usize {
    // SAFETY: asks for a number.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).expect("a page size");
    let start = p.addr().next_multiple_of(page);
    let pages = (p.addr() + size - start) / page;
    let mut states = vec![0_u8; pages];
    // SAFETY: the pages lie in a live object; the kernel writes a byte for each.
    let said = unsafe {
        let first = p.add(start - p.addr());
        libc::mincore(first.cast(), pages * page, states.as_mut_ptr())
    };
    assert_eq!(said, 0, "{}", std::io::Error::last_os_error());
    states.iter().filter(|state| **state & 1 != 0).count() * page
}

#[test]
fn a_large_aligned_object_that_is_to_be_zero_is_not_written_where_its_memory_is_new() {
    // The first is larger than all that anybody freed before.
    let new_memory = 256 << 20;
    for (alignment, size) in [(64, new_memory), (32, 9 << 20), (64, 1_000_000), (4096, 900_000)] {
        let layout = Layout::from_size_align(size, alignment).expect("a layout");
        // SAFETY: the layout's size is not 0; read and written within it; freed with the same layout.
        unsafe {
            // What was written to and freed is zero again, and so is what nobody had before.
            let used = ALLOCATOR.alloc(layout);
            for at in (0..size.min(8 << 20)).step_by(1000) {
                used.add(at).write(7);
            }
            let new = ALLOCATOR.alloc_zeroed(layout);
            assert!(!new.is_null() && new.addr().is_multiple_of(alignment), "{layout:?}");
            assert!(size < new_memory || resident(new, size) < size / 4, "{layout:?}");
            assert!((0..size.min(8 << 20)).all(|at| new.add(at).read() == 0), "{layout:?}");
            ALLOCATOR.dealloc(used, layout);
            let again = ALLOCATOR.alloc_zeroed(layout);
            assert!(!again.is_null() && again.addr().is_multiple_of(alignment), "{layout:?}");
            assert!((0..size.min(8 << 20)).all(|at| again.add(at).read() == 0), "{layout:?}");
            ALLOCATOR.dealloc(again, layout);
            ALLOCATOR.dealloc(new, layout);
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
