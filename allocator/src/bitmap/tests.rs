//! A heap's spans on slices of a supply that has only the shortest runs; what a visitor may do to them.

use core::mem::MaybeUninit;
use core::ptr::{null_mut, with_exposed_provenance_mut};
use std::boxed::Box;
use std::collections::BTreeMap;
use std::vec::Vec;

use super::span::locate;
use super::*;
use crate::lock::{Door, Inside};
use crate::os::Linux;
use crate::segment::{Depth, Origin, Pool, Reaped, Run, Span, Supply, record_of};
use crate::slab::LimboQueue;

/// Memory is short: of what is asked for there is never more than the least that does.
struct Scarce {
    pool: Pool<Linux>,
    door: &'static Door,
}

impl Supply for Scarce {
    fn slices(&mut self, _len: usize, least: usize, _large: bool) -> Option<Run> {
        self.pool.allocate(least)
    }

    unsafe fn give_back(&mut self, span: *mut Span, len: usize) {
        // SAFETY: the caller's promise.
        unsafe { self.pool.release(span, len) };
    }

    unsafe fn purge(&self, _from: *mut u8, _len: usize) {}

    fn identity(&self) -> usize {
        core::ptr::from_ref(self.door).addr() & !7
    }

    fn enter(&self) -> Inside<'static> {
        self.door.enter()
    }

    fn alone(&self) -> bool {
        true
    }
}

impl BitmapSupply for Scarce {
    fn foreign_bitmap(&mut self, _class: SizeClass) -> *mut Span {
        null_mut()
    }
}

fn zeroed<T>() -> Box<T> {
    // SAFETY: used for types of which zeroed memory is a right one.
    unsafe { Box::new(MaybeUninit::zeroed().assume_init()) }
}

/// # Safety
/// The heap is the calling thread's.
unsafe fn allocate(heap: &mut Bitmaps, class: SizeClass, supply: &mut Scarce) -> *mut u8 {
    let queue: Box<LimboQueue> = zeroed();
    // SAFETY: the caller's promise.
    unsafe {
        loop {
            let block = heap.pop(class);
            if !block.is_null() {
                return block;
            }
            assert!(heap.refill(class, &queue, supply));
        }
    }
}

#[test]
fn the_shortest_spans_leave_their_neighbours_alone() {
    let pool = Pool::new(Linux);
    pool.configure(1, Origin::Map, None);
    let mut supply = Scarce { pool, door: Box::leak(zeroed()) };
    let mut heap: Box<Bitmaps> = zeroed();
    heap.prepare();
    let classes: Vec<_> = SizeClass::all().filter(|class| class.size() <= 128 << 10).collect();
    let mut live = BTreeMap::new();
    // SAFETY: the heap is this thread's, and a block belongs to whom it was given.
    unsafe {
        // Spans of all classes side by side; those of every second class leave gaps; then each class gets
        // what fits into them.
        for &class in classes.iter().cycle().take(8 * classes.len()) {
            live.insert(allocate(&mut heap, class, &mut supply).addr(), class);
        }
        for (address, class) in live.clone() {
            if class.index() % 2 == 0 {
                live.remove(&address);
                let block = with_exposed_provenance_mut(address);
                heap.push(record_of(block), block, &mut supply);
            }
        }
        heap.let_go(SizeClass::SMALLEST, &mut supply);
        for &class in classes.iter().rev().cycle().take(4 * classes.len()) {
            live.insert(allocate(&mut heap, class, &mut supply).addr(), class);
        }
        for ((from, class), to) in live.iter().zip(live.keys().skip(1)) {
            assert!(from + class.size() <= *to, "blocks lie apart");
        }
        for (address, class) in live {
            let block = with_exposed_provenance_mut(address);
            let (span, bit) = locate(record_of(block), block);
            assert!((*span).full & bit != 0, "a span of {} knows its blocks", class.size());
            heap.push(record_of(block), block, &mut supply);
        }
        heap.let_go(SizeClass::SMALLEST, &mut supply);
        heap.check(supply.identity(), Depth::Blocks).expect("sound");
    }
    supply.pool.check().expect("sound");
    assert_eq!(supply.pool.usage().used, 0, "what nobody uses went back");
}

#[test]
fn a_visitor_takes_a_queued_span_only_when_its_last_block_is_free() {
    let pool = Pool::new(Linux);
    pool.configure(1, Origin::Map, None);
    let mut supply = Scarce { pool, door: Box::leak(zeroed()) };
    let queue: Box<LimboQueue> = zeroed();
    let mut heap: Box<Bitmaps> = zeroed();
    heap.prepare();
    let class = SizeClass::of(8 << 10);
    // SAFETY: the heap is this thread's; blocks are sent that nobody uses any more, each once.
    unsafe {
        let first = allocate(&mut heap, class, &mut supply);
        let span = record_of(first);
        for _ in 1..(*span).full.count_ones() {
            assert_eq!(record_of(allocate(&mut heap, class, &mut supply)), span);
        }
        let last = allocate(&mut heap, class, &mut supply);
        assert_ne!(record_of(last), span, "the first span is full");

        let (_, bit) = locate(span, first);
        assert_eq!(send(span, bit), span, "others freed a block of it first");
        queue.push(span);
        let mut reaped = Reaped::default();
        heap.reap(&queue, true, &mut supply, &mut reaped);
        assert!(reaped.taken == 0 && !queue.is_empty(), "it stays where it is");
        assert_eq!((*span).free, 0, "its owner may be freeing a block of it");

        assert!(send(span, (*span).full & !bit).is_null(), "it is queued");
        heap.reap(&queue, true, &mut supply, &mut reaped);
        assert!(reaped.taken == 1 && queue.is_empty());
        heap.push(record_of(last), last, &mut supply);
        heap.let_go(SizeClass::SMALLEST, &mut supply);
        heap.check(supply.identity(), Depth::Blocks).expect("sound");
    }
    assert_eq!(supply.pool.usage().used, 0, "what nobody uses went back");
}
