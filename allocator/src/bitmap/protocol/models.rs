//! Models of remote frees of bitmap spans, explored by loom (see `sync::all_hold`). Each weakened
//! step must be noticed.

use core::ptr::null_mut;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use std::vec::Vec;

use super::*;
use crate::slab::protocol::Queue;
use crate::sync::{AtomicUsize, Model, all_hold, each_is_needed};

const HEAP: usize = 64;
const OTHER_HEAP: usize = 128;
const BLOCKS: usize = 3;

/// A span record: its two words, the plain fields of its owner, what its blocks hold.
struct Span {
    owner: AtomicUsize,
    remote: AtomicU64,
    /// Mask of free blocks. Only the owner may touch it: loom finds who else does.
    free: UnsafeCell<u64>,
    blocks: [UnsafeCell<u32>; BLOCKS],
    next: UnsafeCell<*mut Span>,
}

/// A span and the queue of its heap.
struct Heap {
    span: Span,
    queue: Queue<Span>,
}

// SAFETY: what is not atomic is loom's cells, whose use from two threads at once is what loom finds.
unsafe impl Sync for Heap {}
// SAFETY: as above.
unsafe impl Send for Heap {}

impl Heap {
    fn new(remote: u64) -> Arc<Self> {
        Arc::new(Heap {
            span: Span {
                owner: AtomicUsize::new(HEAP),
                remote: AtomicU64::new(remote),
                free: UnsafeCell::new(0),
                blocks: core::array::from_fn(|_| UnsafeCell::new(0)),
                next: UnsafeCell::new(null_mut()),
            },
            queue: Queue::new(),
        })
    }

    /// Somebody to whom block `number` belongs writes into it.
    fn write(&self, number: usize) {
        let block = self.span.blocks.get(number).expect("a block's number");
        // SAFETY: loom tests that nobody else is at it.
        block.with_mut(|word| unsafe { *word += 1 });
    }

    /// A thread that is not the owner frees block `number`. The owner it found if it queued the span.
    fn free_remotely(&self, number: usize) -> Option<usize> {
        self.write(number);
        if !publish(&self.span.remote, 1 << number) {
            return None;
        }
        let owner = self.span.owner.load(Ordering::Relaxed);
        // SAFETY: as in `write`.
        let link = |head| self.span.next.with_mut(|next| unsafe { *next = head });
        self.queue.link((&raw const self.span).cast_mut(), link);
        Some(owner)
    }

    /// The owner notes blocks as free, and hands them out to a program that writes.
    fn gain(&self, mask: u64) {
        // SAFETY: as in `write`.
        self.span.free.with_mut(|free| unsafe {
            assert_eq!(*free & mask, 0, "a block is free twice");
            *free |= mask;
        });
        (0..BLOCKS)
            .filter(|number| mask & (1 << number) != 0)
            .for_each(|number| self.write(number));
    }

    /// As `Bitmaps::settle`: the owner lists the span.
    fn settle(&self) {
        // SAFETY: as in `write`.
        self.span.next.with_mut(|next| unsafe { *next = null_mut() });
    }

    /// As `Bitmaps::first_free`. True if the span is now listed.
    fn first_free(&self, number: usize) -> bool {
        self.gain(1 << number);
        let cleared = clear_full(&self.span.remote, false);
        if cleared {
            self.settle();
        }
        cleared
    }

    /// As `Bitmaps::take_over`: how many spans the queue held.
    fn take_over(&self) -> u32 {
        let mut spans = 0;
        let mut span = self.queue.take_all();
        while !span.is_null() {
            spans += 1;
            // SAFETY: the only node is this heap's span, which lives as long.
            span = unsafe { (*span).next.with(|next| *next) };
            self.gain(take(&self.span.remote) & !FULL);
            self.settle();
        }
        spans
    }

    /// As `Bitmaps::refill` of a current span without a free block: true if the span got some, else
    /// it is let go of.
    fn refill(&self) -> bool {
        loop {
            if self.span.remote.load(Ordering::Relaxed) != 0 {
                self.gain(take(&self.span.remote));
                return true;
            }
            if mark_full(&self.span.remote, false) {
                return false;
            }
        }
    }

    fn free(&self) -> u64 {
        // SAFETY: as in `write`.
        self.span.free.with(|free| unsafe { *free })
    }
}

/// The owner and another thread free a block each of a full span: one of them decides about it.
fn a_full_span_is_listed_or_queued() {
    let heap = Heap::new(FULL);
    let other = heap.clone();
    let freer = thread::spawn(move || other.free_remotely(1).is_some());
    let listed = heap.first_free(0);
    let early = heap.take_over();
    let queued = freer.join().expect("no panic");
    let late = heap.take_over();
    assert_eq!(early + late, u32::from(queued));
    assert!(listed != queued, "whoever clears FULL decides, and only one does");
    if listed {
        heap.gain(take(&heap.span.remote));
    }
    assert_eq!(heap.free(), 0b11, "both blocks came home");
}

/// Two threads free blocks of a full span: one of them queues it, and no block is lost.
fn a_span_is_queued_once() {
    let heap = Heap::new(FULL);
    let threads: Vec<_> = (0..2)
        .map(|number| {
            let heap = heap.clone();
            thread::spawn(move || heap.free_remotely(number))
        })
        .collect();
    let early = heap.take_over();
    for thread in threads {
        thread.join().expect("no panic");
    }
    let late = heap.take_over();
    // What came after the span was taken over waits on the span, which is listed.
    heap.gain(take(&heap.span.remote) & !FULL);
    assert_eq!(early + late, 1, "queued once");
    assert_eq!(heap.free(), 0b11, "both blocks came home");
}

/// The owner lets go of its current span while another thread frees a block of it.
fn letting_go_loses_no_block() {
    let heap = Heap::new(0);
    heap.settle();
    let other = heap.clone();
    let freer = thread::spawn(move || other.free_remotely(1).is_some());
    let refilled = heap.refill();
    let queued = freer.join().expect("no panic");
    assert!(refilled != queued, "taken at once or queued");
    assert_eq!(heap.take_over(), u32::from(queued));
    assert_eq!(heap.free(), 0b10, "the block came home");
}

/// A heap adopts a span and lets go of it; whoever queues it finds the new owner.
fn a_queued_span_names_its_owner() {
    let heap = Heap::new(0);
    let other = heap.clone();
    let freer = thread::spawn(move || other.free_remotely(1));
    heap.span.owner.store(OTHER_HEAP, Ordering::Relaxed);
    let refilled = heap.refill();
    let queued = freer.join().expect("no panic");
    assert!(refilled || queued == Some(OTHER_HEAP), "queued on a heap that gave the span up");
}

const MODELS: [Model; 4] = [
    ("a_full_span_is_listed_or_queued", a_full_span_is_listed_or_queued),
    ("a_span_is_queued_once", a_span_is_queued_once),
    ("letting_go_loses_no_block", letting_go_loses_no_block),
    ("a_queued_span_names_its_owner", a_queued_span_names_its_owner),
];

#[test]
fn every_model_holds_in_every_interleaving() {
    all_hold(&MODELS);
}

#[test]
fn every_weakened_step_is_noticed() {
    // Not `clear_full`: only the owner marks and unmarks, and it knows what it wrote.
    each_is_needed(&["publish_mask", "mark_full", "take_mask", "push", "take_all"], &MODELS);
}
