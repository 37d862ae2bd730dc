//! A heap's spans on slices of a supply that has only the shortest runs; what a visitor may do to them.

use core::cell::RefCell;
use core::mem::MaybeUninit;
use core::ptr::{null_mut, with_exposed_provenance_mut};
use std::boxed::Box;
use std::collections::BTreeMap;
use std::vec::Vec;

use super::span::{LISTED, locate};
use super::*;
use crate::os::Linux;
use crate::segment::{Depth, Origin, Pool, Reaped, Run, Span, Supply, record_of};
use crate::slab::LimboQueue;
use crate::units::SLICE;

/// Memory is short: of what is asked for there are never more than `more` slices above the least that does.
struct Scarce {
    pool: Pool<Linux>,
    name: &'static u64,
    more: usize,
    /// Address and length of all that was to be purged.
    purged: RefCell<Vec<(usize, usize)>>,
}

fn scarce(more: usize) -> Scarce {
    let pool = Pool::new(Linux);
    pool.configure(1, Origin::Map, None);
    Scarce { pool, name: Box::leak(zeroed()), more, purged: RefCell::default() }
}

impl Supply for Scarce {
    fn slices(&mut self, len: usize, least: usize, _large: bool) -> Option<Run> {
        self.pool.allocate(len.min(least + self.more))
    }

    unsafe fn give_back(&mut self, span: *mut Span, len: usize) {
        // SAFETY: the caller's promise.
        unsafe { self.pool.release(span, len) };
    }

    unsafe fn purge(&self, from: *mut u8, len: usize) -> bool {
        self.purged.borrow_mut().push((from.addr(), len));
        true
    }

    fn identity(&self) -> usize {
        core::ptr::from_ref(self.name).addr() & !7
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

/// A heap that holds nothing, and its queue.
fn heap() -> (Box<Bitmaps>, Box<LimboQueue>) {
    let mut heap: Box<Bitmaps> = zeroed();
    heap.prepare();
    (heap, zeroed())
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
    let mut supply = scarce(0);
    let (mut heap, _) = heap();
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
fn a_visitor_gives_back_a_queued_or_listed_span_only_when_its_last_block_is_free() {
    let mut supply = scarce(0);
    let (mut heap, queue) = heap();
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
        heap.reap(&queue, Pages::Stay, &mut supply, &mut reaped);
        assert!(reaped.taken == 0 && queue.is_empty());
        assert_eq!((*span).free, bit | LISTED, "it is listed now");

        assert!(send(span, (*span).full & !bit).is_null(), "it is listed");
        heap.reap(&queue, Pages::Stay, &mut supply, &mut reaped);
        assert!(reaped.taken == 1 && queue.is_empty());
        heap.push(record_of(last), last, &mut supply);
        heap.let_go(SizeClass::SMALLEST, &mut supply);
        heap.check(supply.identity(), Depth::Blocks).expect("sound");
    }
    assert_eq!(supply.pool.usage().used, 0, "what nobody uses went back");
}

#[test]
fn a_span_keeps_no_slice_that_no_block_of_its_reaches_into() {
    for class in SizeClass::all() {
        for more in [1, 2, 3, 5, 9] {
            let mut supply = scarce(more);
            let (mut heap, _) = heap();
            // SAFETY: the heap is this thread's, and so is the block.
            unsafe {
                let block = allocate(&mut heap, class, &mut supply);
                let (span, _) = locate(record_of(block), block);
                let end = (64 - (*span).full.leading_zeros() as usize) * class.size();
                let needed = end.div_ceil(SLICE).max(class.least_slices()) + class.tail();
                let asked = class.span_slices(0) + class.tail();
                let short = class.least_slices() + class.tail() + more < asked;
                let kept = supply.pool.usage().used / SLICE;
                assert_eq!(kept, if short { needed } else { asked }, "{} {more}", class.size());
                assert_eq!((*span).live as usize, kept, "it knows how many they are");
                heap.check(supply.identity(), Depth::Blocks).expect("sound with a live block");
                heap.push(record_of(block), block, &mut supply);
                heap.let_go(SizeClass::SMALLEST, &mut supply);
                heap.check(supply.identity(), Depth::Blocks).expect("sound");
            }
            supply.pool.check().expect("sound");
            supply.pool.release_free();
            assert_eq!(supply.pool.usage().mapped, 0, "what nobody uses went back");
        }
    }
}

#[test]
fn of_blocks_that_others_freed_and_of_no_others_the_pages_go_neighbours_in_one_piece() {
    let mut supply = scarce(0);
    let (mut heap, queue) = heap();
    let class = SizeClass::of(2 << 10);
    // SAFETY: the heap is this thread's; each block is freed once, here or by others.
    unsafe {
        let mut span_of_blocks = || {
            let mut blocks = Vec::from([allocate(&mut heap, class, &mut supply)]);
            let span = record_of(blocks[0]);
            for _ in 1..(*span).full.count_ones() {
                blocks.push(allocate(&mut heap, class, &mut supply));
            }
            assert!(blocks.iter().all(|block| record_of(*block) == span), "all of one span");
            blocks
        };
        let [listed, queued, current] = [(); 3].map(|()| span_of_blocks());
        // The owner frees more blocks than the stash takes, so that the span is listed.
        let [ours @ .., a, b, c, d, e] = &*listed else { panic!("blocks of 2 KiB are many") };
        for block in ours {
            heap.push(record_of(*block), *block, &mut supply);
        }
        let by_others = |block: *mut u8| {
            let (span, bit) = locate(record_of(block), block);
            send(span, bit)
        };
        assert!([*a, *b, *d].map(by_others).iter().all(|span| span.is_null()), "it is listed");
        assert!(current[1..4].iter().all(|block| by_others(*block).is_null()), "it is current");
        let in_queue = by_others(queued[2]);
        assert!(!in_queue.is_null(), "it was full");
        queue.push(in_queue);

        heap.reap(&queue, Pages::New, &mut supply, &mut Reaped::default());
        heap.sweep(&queue, Pages::New, &mut supply);
        heap.sweep(&queue, Pages::New, &mut supply);
        let size = class.size();
        let expected = [
            (queued[2].addr(), size),
            (a.addr(), 2 * size),
            (d.addr(), size),
            (current[1].addr(), 3 * size),
        ];
        // Hardened builds look at a freed block again when it is next handed out.
        let expected = if cfg!(feature = "hardened") { &expected[..0] } else { &expected };
        assert_eq!(*supply.purged.borrow(), expected);

        let live = current.iter().enumerate().filter(|(at, _)| !(1..4).contains(at));
        let live = live.chain(queued.iter().enumerate().filter(|(at, _)| *at != 2));
        for block in live.map(|(_, block)| block).chain([c, e]) {
            heap.push(record_of(*block), *block, &mut supply);
        }
        heap.sweep(&queue, Pages::Stay, &mut supply);
        heap.let_go(SizeClass::SMALLEST, &mut supply);
        heap.check(supply.identity(), Depth::Blocks).expect("sound");
    }
    assert_eq!(supply.pool.usage().used, 0, "what nobody uses went back");
}

#[cfg(not(feature = "hardened"))]
#[test]
fn pages_of_blocks_that_were_free_at_two_looks_go_back_once() {
    let mut supply = scarce(usize::MAX >> 1);
    let (mut heap, queue) = heap();
    let class = SizeClass::of(64 << 10);
    // SAFETY: the heap is this thread's; each block is freed once.
    unsafe {
        let mut blocks = Vec::from([allocate(&mut heap, class, &mut supply)]);
        let span = record_of(blocks[0]);
        for _ in 1..(*span).full.count_ones() {
            blocks.push(allocate(&mut heap, class, &mut supply));
        }
        let [a, b, c, live @ ..] = &*blocks else { panic!("a span has more than three") };
        let free = |block: &*mut u8, heap: &mut Bitmaps, supply: &mut Scarce| {
            heap.push(record_of(*block), *block, supply);
            // Out of the stash.
            heap.let_go(SizeClass::SMALLEST, supply);
        };
        free(a, &mut heap, &mut supply);
        heap.let_go_of_pages(&supply);
        free(b, &mut heap, &mut supply);
        assert_eq!(*supply.purged.borrow(), [], "free at one look");
        heap.let_go_of_pages(&supply);
        heap.let_go_of_pages(&supply);
        heap.let_go_of_pages(&supply);
        free(c, &mut heap, &mut supply);
        heap.let_go_of_pages(&supply);
        let expected = [(a.addr(), class.size()), (b.addr(), class.size())];
        assert_eq!(*supply.purged.borrow(), expected);
        for block in live {
            heap.push(record_of(*block), *block, &mut supply);
        }
        heap.sweep(&queue, Pages::Stay, &mut supply);
        heap.let_go(SizeClass::SMALLEST, &mut supply);
        heap.check(supply.identity(), Depth::Blocks).expect("sound");
    }
    assert_eq!(supply.pool.usage().used, 0, "what nobody uses went back");
}

#[test]
fn a_heap_that_a_fork_saw_in_the_middle_of_a_visit_finds_its_spans_again() {
    let mut supply = scarce(0);
    let (mut heap, queue) = heap();
    let class = SizeClass::of(8 << 10);
    // SAFETY: the heap is this thread's; each block is freed once, here or by others.
    unsafe {
        let mut live = Vec::new();
        let mut last = null_mut();
        let mut spans = Vec::new();
        while spans.len() < 6 {
            let block = allocate(&mut heap, class, &mut supply);
            let span = locate(record_of(block), block).0;
            if span != last {
                spans.push(span);
                last = span;
            }
            live.push(block);
        }
        // Of the full spans: one is on its way into the queue, one in it, one was taken out of it, one is marked
        // as listed and is not. The others are full, and current.
        for (at, &span) in spans[..4].iter().enumerate() {
            let first = live.iter().position(|&block| locate(record_of(block), block).0 == span);
            let block = live.remove(first.expect("it has blocks"));
            let (_, bit) = locate(record_of(block), block);
            assert_eq!(send(span, bit), span);
            match at {
                0 => {}
                1 => queue.push(span),
                2 => (*span).free |= protocol::take(&(*span).remote) & !protocol::FULL,
                _ => {
                    (*span).free |= protocol::take(&(*span).remote) & !protocol::FULL | LISTED;
                }
            }
        }
        heap.forget_lists();
        queue.take_all();
        let owner = supply.identity() | OWNED;
        supply.pool.for_each_span_to_mend(|span| {
            assert_eq!((*span).owner.load(crate::sync::Ordering::Relaxed), owner);
            heap.list_again(span);
        });
        heap.check(supply.identity(), Depth::Blocks).expect("sound");
        for &span in &spans[..4] {
            assert_eq!((*span).free & !LISTED, (*span).full & (*span).full.wrapping_neg());
        }
        // All blocks are of use as before, those of the span without a free one too.
        for _ in 0..4 {
            live.push(allocate(&mut heap, class, &mut supply));
        }
        assert!(live.iter().all(|&block| spans.contains(&locate(record_of(block), block).0)));
        for block in live {
            heap.push(record_of(block), block, &mut supply);
        }
        heap.sweep(&queue, Pages::Stay, &mut supply);
        heap.check(supply.identity(), Depth::Blocks).expect("sound");
    }
    assert_eq!(supply.pool.usage().used, 0, "what nobody uses went back");
}
