//! A heap's spans on slices of a supply that has only the shortest runs.

use core::mem::MaybeUninit;
use core::ptr::{null_mut, with_exposed_provenance_mut};
use std::boxed::Box;
use std::collections::BTreeMap;
use std::vec::Vec;

use super::span::locate;
use super::*;
use crate::lock::{Door, Inside};
use crate::os::Linux;
use crate::segment::{Origin, Pool, Run, Span, Supply, record_of};
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
        heap.check().expect("sound");
    }
    supply.pool.check().expect("sound");
    assert_eq!(supply.pool.usage().used, 0, "what nobody uses went back");
}
