//! The heap against a shadow: every block filled with a pattern of its own, checked when freed.

mod check;

use std::collections::HashMap;
use std::sync::mpsc;
use std::thread;
use std::vec::Vec;

use super::*;
use crate::thread::GLOBAL;
use crate::units::*;

/// A small generator, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// Log-uniform: every doubling is as likely.
    fn size(&mut self, max_log: u64) -> usize {
        let log = self.below(max_log + 1);
        self.below(1 << log) as usize
    }
}

/// A live block and what it was filled with.
struct Live {
    block: *mut u8,
    size: usize,
    fill: u8,
}

// SAFETY: a block belongs to whoever holds its `Live`.
unsafe impl Send for Live {}

impl Live {
    fn new(block: *mut u8, size: usize, align: usize, fill: u8) -> Self {
        assert!(!block.is_null());
        assert_eq!(block.addr() % align.max(MIN_ALIGN), 0, "size {size} align {align}");
        // SAFETY: just allocated.
        unsafe {
            assert!(usable_size(block) >= size);
            block.write_bytes(fill, size);
        }
        Live { block, size, fill }
    }

    fn verify(&self, upto: usize) {
        // SAFETY: live, and `upto` bytes of it were filled.
        let bytes = unsafe { core::slice::from_raw_parts(self.block, upto) };
        assert!(bytes.iter().all(|&byte| byte == self.fill), "contents of {:?}", self.block);
    }

    fn free(self) {
        self.verify(self.size);
        // SAFETY: live until here.
        unsafe { deallocate(self.block) };
    }
}

fn step(random: &mut Random, live: &mut Vec<Live>, max_log: u64) {
    let fill = random.next() as u8;
    match random.below(10) {
        0..4 => {
            let size = random.size(max_log);
            live.push(Live::new(allocate(size), size, 1, fill));
        }
        4 => {
            let (align, size) = (1 << random.below(23), random.size(max_log));
            live.push(Live::new(allocate_aligned(align, size), size, align, fill));
        }
        5 => {
            let size = random.size(max_log);
            let block = allocate_zeroed(size);
            // SAFETY: just allocated.
            let bytes = unsafe { core::slice::from_raw_parts(block, size) };
            assert!(bytes.iter().all(|&byte| byte == 0), "calloc of {size}");
            live.push(Live::new(block, size, 1, fill));
        }
        6 if !live.is_empty() => {
            let old = live.swap_remove(random.below(live.len() as u64) as usize);
            old.verify(old.size);
            let size = random.size(max_log).max(1);
            // SAFETY: live, and replaced by the result.
            let block = unsafe { reallocate(old.block, size) };
            let kept = Live { block, size, fill: old.fill };
            kept.verify(old.size.min(size));
            live.push(Live::new(block, size, 1, fill));
        }
        _ if !live.is_empty() => {
            live.swap_remove(random.below(live.len() as u64) as usize).free();
        }
        _ => {}
    }
}

fn no_overlap(live: &[Live]) {
    let mut ranges: Vec<_> = live.iter().map(|l| (l.block.addr(), l.size.max(1))).collect();
    ranges.sort_unstable();
    assert!(ranges.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0), "blocks overlap");
}

#[test]
fn blocks_keep_their_contents_through_any_sequence_of_calls() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut live = Vec::new();
    for round in 0..200 {
        let max_log = if round % 20 == 0 { 23 } else { 15 };
        for _ in 0..1000 {
            step(&mut random, &mut live, max_log);
            if live.len() > 3000 || (max_log > 15 && live.len() > 200) {
                live.swap_remove(random.below(live.len() as u64) as usize).free();
            }
        }
        no_overlap(&live);
        check().expect("sound");
    }
    live.drain(..).for_each(Live::free);
    check().expect("sound");
}

#[test]
fn every_size_and_alignment_is_served() {
    for log in 0..24 {
        for size in [(1usize << log) - 1, 1 << log, (1 << log) + 1] {
            for align in [1usize, 16, 64, 4096, 1 << 16, 1 << 22, 1 << 23] {
                Live::new(allocate_aligned(align, size), size, align, 7).free();
            }
        }
    }
    assert!(allocate(usize::MAX).is_null());
    assert!(allocate(MAX_OBJECT + 1).is_null());
    assert!(allocate_aligned(4096, usize::MAX).is_null());
    check().expect("sound");
}

#[test]
fn threads_free_each_others_blocks() {
    const THREADS: usize = 4;
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..THREADS).map(|_| mpsc::channel()).unzip();
    thread::scope(|scope| {
        for (i, receiver) in receivers.into_iter().enumerate() {
            let next: mpsc::Sender<Live> = senders[(i + 1) % THREADS].clone();
            scope.spawn(move || {
                let mut random = Random(1 + i as u64);
                let mut live = Vec::new();
                for _ in 0..60_000 {
                    step(&mut random, &mut live, 14);
                    if live.len() > 500 {
                        let index = random.below(live.len() as u64) as usize;
                        let _ = next.send(live.swap_remove(index));
                    }
                    while let Ok(foreign) = receiver.try_recv() {
                        foreign.free();
                    }
                }
                drop(next);
                live.into_iter().for_each(Live::free);
                receiver.into_iter().for_each(Live::free);
                check().expect("sound");
            });
        }
        drop(senders);
    });
}

#[test]
fn blocks_outlive_the_thread_that_allocated_them() {
    let mut random = Random(77);
    let mut kept: HashMap<usize, Live> = HashMap::new();
    for round in 0..300u64 {
        let born: Vec<Live> = thread::spawn(move || {
            let mut random = Random(round + 1);
            (0..200)
                .map(|_| {
                    let size = random.size(13);
                    Live::new(allocate(size), size, 1, round as u8)
                })
                .collect()
        })
        .join()
        .expect("no panic");
        for live in born {
            assert!(kept.insert(live.block.addr(), live).is_none(), "handed out twice");
        }
        let keys: Vec<usize> = kept.keys().copied().collect();
        for key in keys {
            if random.below(3) > 0 {
                kept.remove(&key).expect("kept").free();
            }
        }
    }
    kept.into_values().for_each(Live::free);
    check().expect("sound");
}

std::thread_local! {
    /// The node that the made-up machine has this thread on.
    static NODE: core::cell::Cell<u32> = const { core::cell::Cell::new(0) };
}

#[test]
fn a_thread_on_node_1_gets_segments_bound_to_it_and_what_node_0_frees_returns_there() {
    use crate::os::{BOUND, Topology};
    if Topology::discover().many() {
        std::println!("skipped: a machine of several nodes has bound memory already");
        return;
    }
    // The real topology is looked up with the second heap: let that be over.
    Live::new(allocate(1), 1, 1, 1).free();
    thread::spawn(|| Live::new(allocate(1), 1, 1, 1).free()).join().unwrap();
    assert!(BOUND.lock().unwrap().is_empty(), "on one node no call is made");
    let node_1 =
        || GLOBAL.used_pools().skip(2).take(2).map(|pool| pool.usage().used).sum::<usize>();
    // Hardened builds take three slices of each segment of small blocks away.
    let guards = || {
        let mapped = GLOBAL.used_pools().nth(2).map_or(0, |pool| pool.usage().mapped);
        if cfg!(feature = "hardened") { mapped / SEGMENT * 3 * SLICE } else { 0 }
    };
    // A thread on node 1 whose heap is older than what is known of nodes.
    let (known, both_known) = mpsc::channel();
    let (made, first) = mpsc::channel();
    let early = thread::spawn(move || {
        NODE.set(1);
        Live::new(allocate(1), 1, 1, 1).free();
        made.send(()).unwrap();
        both_known.recv().unwrap();
        let live: Vec<_> = (0..50).map(|_| Live::new(allocate(300_000), 300_000, 16, 7)).collect();
        let used = node_1();
        live.into_iter().for_each(Live::free);
        trim();
        used
    });
    first.recv().unwrap();
    GLOBAL.set_topology(Topology::fake(2, || NODE.get()));
    known.send(()).unwrap();
    assert!(early.join().unwrap() >= 50 * 300_000, "slices of its node");
    let (to_node_0, from_node_1) = mpsc::channel();
    let (freed, all_freed) = mpsc::channel();
    let thread = thread::spawn(move || {
        NODE.set(1);
        let sizes = [200, 3000, 100_000, 300_000];
        let live: Vec<_> =
            (0..400).map(|i| Live::new(allocate(sizes[i % 4]), sizes[i % 4], 16, 7)).collect();
        assert!(node_1() >= 100 * (100_000 + 300_000), "slices of node 1: {}", node_1());
        to_node_0.send(live).unwrap();
        all_freed.recv().unwrap();
        trim();
        node_1()
    });
    // A thread that ends keeps nothing back, neither in batches nor in a quarantine.
    let free_all = move || from_node_1.recv().unwrap().into_iter().for_each(Live::free);
    thread::spawn(free_all).join().unwrap();
    freed.send(()).unwrap();
    assert_eq!(thread.join().unwrap(), guards(), "all of it returned to node 1");
    let bound = BOUND.lock().unwrap().clone();
    assert!(bound.iter().all(|&(address, len, _)| address % SEGMENT == 0 && len == SEGMENT));
    let on_node_1 = bound.iter().filter(|&&(_, _, node)| node == 1).count();
    assert!(on_node_1 * SEGMENT >= 100 * (100_000 + 300_000), "{on_node_1} segments");
    assert!(bound.iter().all(|&(_, _, node)| node <= 1));
    GLOBAL.set_topology(Topology::single());
}
