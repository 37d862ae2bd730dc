//! Models of remote frees, limbo, queues and parking, explored by loom (see `sync::all_hold`). Each
//! weakened step must be noticed.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use std::vec::Vec;

use super::*;
use crate::sync::{Model, all_hold, each_is_needed, none_holds};

const HEAP: usize = 64;
/// Blocks of the modelled span; block i can carry one link.
const BLOCKS: usize = 3;

/// A span record: its two words, the plain fields of its owner, its blocks.
struct Span {
    owner: AtomicUsize,
    remote: AtomicU64,
    /// Blocks that came home. Only the owner may touch it: loom finds who else does.
    home: UnsafeCell<u32>,
    blocks: [UnsafeCell<u16>; BLOCKS],
    next: UnsafeCell<*mut Span>,
}

struct Heap {
    span: Span,
    queue: Queue<Span>,
}

// SAFETY: what is not atomic is loom's cells, whose use from two threads at once is what loom finds.
unsafe impl Sync for Heap {}
// SAFETY: as above.
unsafe impl Send for Heap {}

impl Heap {
    fn new(owner: usize, remote: u64) -> Arc<Self> {
        Arc::new(Heap {
            span: Span {
                owner: AtomicUsize::new(owner),
                remote: AtomicU64::new(remote),
                home: UnsafeCell::new(0),
                blocks: core::array::from_fn(|_| UnsafeCell::new(u16::MAX)),
                next: UnsafeCell::new(null_mut()),
            },
            queue: Queue::new(),
        })
    }

    /// The owner's thread counts `blocks` that came home.
    fn count(&self, blocks: u32) {
        // SAFETY: loom tests that nobody else is at it.
        self.span.home.with_mut(|home| unsafe { *home += blocks });
    }

    /// The owner collects, following the carriers.
    fn collect(&self) {
        let mut carrier = take(&self.span.remote);
        while carrier != 0 {
            let block = self.span.blocks.get(carrier as usize - 1).expect("a block's number");
            // SAFETY: as in `count`.
            carrier = block.with(|next| unsafe { *next });
            self.count(1);
        }
    }

    /// A thread that is not the owner frees block `number`.
    fn free_remotely(&self, number: u16) {
        let cleared = publish(&self.span.remote, number + 1, |before| {
            let block = self.span.blocks.get(number as usize).expect("a block's number");
            // SAFETY: as in `count`.
            block.with_mut(|next| unsafe { *next = before });
        });
        if cleared {
            // SAFETY: as in `count`.
            let link = |head| self.span.next.with_mut(|next| unsafe { *next = head });
            self.queue.link((&raw const self.span).cast_mut(), link);
        }
    }

    /// The owner's thread frees block `number` of a span that it had let go of.
    fn free_in_limbo(&self, number: u16) {
        if leave(&self.span.owner, &self.span.remote, HEAP, false) {
            self.count(1);
            self.collect();
        } else {
            self.free_remotely(number);
        }
    }

    /// Takes the queue and owns what is in it.
    fn take_queue(&self) -> u32 {
        let mut spans = 0;
        let mut span = self.queue.take_all();
        while !span.is_null() {
            spans += 1;
            // SAFETY: the only node is this heap's span, which lives as long.
            span = unsafe { (*span).next.with(|next| *next) };
            self.span.owner.store(HEAP, Ordering::Relaxed);
            self.collect();
        }
        spans
    }

    fn home(&self) -> u32 {
        // SAFETY: as in `count`.
        self.span.home.with(|home| unsafe { *home })
    }
}

/// A full span in limbo; its former owner and another thread free a block each.
fn limbo_is_left_once() {
    let heap = Heap::new(HEAP | LIMBO, FULL);
    let other = heap.clone();
    let freer = thread::spawn(move || other.free_remotely(1));
    heap.free_in_limbo(0);
    heap.take_queue();
    freer.join().expect("no panic");
    heap.take_queue();
    if heap.span.owner.load(Ordering::Relaxed) == HEAP {
        heap.collect();
    }
    assert_eq!(heap.home(), 2, "both blocks came home");
}

/// The owner lets go of a span while another thread frees a block of it and takes it over.
fn letting_go_loses_no_block() {
    let heap = Heap::new(HEAP, 0);
    heap.count(1);
    let other = heap.clone();
    let freer = thread::spawn(move || {
        other.free_remotely(1);
        other.take_queue();
    });
    heap.count(1);
    if !enter(&heap.span.owner, &heap.span.remote, HEAP, false) {
        heap.collect();
    }
    freer.join().expect("no panic");
    heap.take_queue();
    assert_eq!(heap.home(), 3, "the block came home");
}

/// Two threads free blocks of a span in limbo; exactly one queues it, and a third takes it over.
fn a_queued_span_has_one_taker() {
    let heap = Heap::new(HEAP | LIMBO, FULL);
    let threads: Vec<_> = (0..2)
        .map(|number| {
            let heap = heap.clone();
            thread::spawn(move || heap.free_remotely(number))
        })
        .collect();
    let early = heap.take_queue();
    for thread in threads {
        thread.join().expect("no panic");
    }
    let late = heap.take_queue();
    assert_eq!(early + late, 1, "queued once");
    heap.collect();
    assert_eq!(heap.home(), 2, "both blocks came home");
}

/// The span is taken over by a thread that is not its former owner while that frees a block of it.
fn a_span_taken_from_an_idle_heap_is_the_takers() {
    let heap = Heap::new(HEAP | LIMBO, FULL);
    let (freer, taker) = (heap.clone(), heap.clone());
    let freer = thread::spawn(move || freer.free_remotely(1));
    let taker = thread::spawn(move || taker.take_queue());
    let mine = leave(&heap.span.owner, &heap.span.remote, HEAP, false);
    if mine {
        heap.count(1);
    }
    freer.join().expect("no panic");
    let taken = taker.join().expect("no panic");
    assert!(!mine || taken == 0, "one owner");
}

/// A thread parks its heap while another queues a span on it: one of them sees the other.
fn parking_misses_no_span() {
    let heap = Heap::new(HEAP | LIMBO, FULL);
    let other = heap.clone();
    let freer = thread::spawn(move || {
        other.free_remotely(1);
        other.queue.is_parked()
    });
    heap.queue.set_parked(true);
    let collected = heap.take_queue();
    let seen = freer.join().expect("no panic");
    assert!(collected == 1 || seen, "queued on a parked heap and nobody knows");
}

/// A thread is about to take a span out of limbo while another takes it, uses it, and lets go of it.
fn a_span_let_go_of_twice_is_whole() {
    let heap = Heap::new(HEAP | LIMBO, FULL);
    let other = heap.clone();
    let taker = thread::spawn(move || {
        other.free_remotely(1);
        if other.take_queue() == 1 {
            // The program allocates the block, and frees none.
            other.count(0);
            assert!(enter(&other.span.owner, &other.span.remote, HEAP, false), "nothing is freed");
        }
    });
    if leave(&heap.span.owner, &heap.span.remote, HEAP, false) {
        heap.count(1);
    }
    taker.join().expect("no panic");
}

/// As `parking_misses_no_span`, but the thread looks whether anything is queued before it takes.
fn parking_looks_before_it_takes() {
    let heap = Heap::new(HEAP | LIMBO, FULL);
    let other = heap.clone();
    let freer = thread::spawn(move || {
        other.free_remotely(1);
        other.queue.is_parked()
    });
    heap.queue.set_parked(true);
    let collected = if heap.queue.is_empty() { 0 } else { heap.take_queue() };
    let seen = freer.join().expect("no panic");
    assert!(collected == 1 || seen, "queued on a parked heap and nobody knows");
}

const MODELS: [Model; 6] = [
    ("limbo_is_left_once", limbo_is_left_once),
    ("letting_go_loses_no_block", letting_go_loses_no_block),
    ("a_queued_span_has_one_taker", a_queued_span_has_one_taker),
    ("a_span_taken_from_an_idle_heap_is_the_takers", a_span_taken_from_an_idle_heap_is_the_takers),
    ("a_span_let_go_of_twice_is_whole", a_span_let_go_of_twice_is_whole),
    ("parking_misses_no_span", parking_misses_no_span),
];

#[test]
fn every_model_holds_in_every_interleaving() {
    all_hold(&MODELS);
}

#[test]
fn every_weakened_step_is_noticed() {
    each_is_needed(&["enter", "leave", "publish", "take", "push", "take_all"], &MODELS);
}

#[test]
fn every_wrong_order_is_noticed() {
    none_holds(&[("parking_looks_before_it_takes", parking_looks_before_it_takes)]);
}
