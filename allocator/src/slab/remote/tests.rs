//! In how many carriers and exchanges freed blocks travel, and that all of them come home.

use std::boxed::Box;
use std::collections::BTreeSet;
use std::thread;
use std::vec::Vec;

use super::*;
use crate::os::Linux;
use crate::segment::{Kind, Origin, Pool};
use crate::thread::GLOBAL;
use crate::units::SKIPPED;

/// Slabs in slices side by side, all blocks of which are live.
struct Slabs {
    pool: Pool<Linux>,
    spans: Vec<*mut Span>,
}

// SAFETY: what another thread does to a span is what this module is about.
unsafe impl Sync for Slabs {}

impl Slabs {
    fn new(class: SizeClass, count: usize) -> Self {
        // Hardened builds mix a secret into links, which must not change under the tests.
        GLOBAL.ensure_ready();
        let pool = Pool::new(Linux);
        pool.configure(1, Origin::Map, None);
        let spans = (0..count).map(|_| pool.allocate(1).expect("a slice").head).collect();
        let slabs = Slabs { pool, spans };
        for &span in &slabs.spans {
            // SAFETY: the slices are this test's.
            unsafe {
                (*span).class = class.index() as u8;
                (*span).free = 0;
                (*span).live = (class.capacity() - SKIPPED) as u32;
                (*span).remote.store(0, Ordering::Relaxed);
                Span::set_room(span, class.capacity() as u16, class.capacity() as u16);
                super::super::span::describe_blocks(span, class);
                Span::begin_use(span, Kind::Slab);
            }
        }
        slabs
    }

    /// The addresses of the blocks of span number `number`.
    fn blocks(&self, number: usize) -> Vec<*mut u8> {
        let span = self.spans[number];
        // SAFETY: the record is of a slab in use, whose blocks lie in its slice.
        unsafe {
            let size = SizeClass::from_index((*span).class).size();
            let capacity = usize::from((*span).capacity);
            (SKIPPED..capacity).map(|block| slice_of(span).add(block * size)).collect()
        }
    }

    /// How many blocks each carrier brings, itself among them; the one sent last comes first.
    fn carriers(&self, number: usize) -> Vec<usize> {
        let span = self.spans[number];
        let mut carriers = Vec::new();
        // SAFETY: as in `waiting`.
        unsafe {
            let mut carrier = ((*span).remote.load(Ordering::Acquire) >> 16) as usize;
            while carrier != 0 {
                let words = slice_of(span).add((carrier - 1) * MIN_ALIGN).cast::<u16>();
                carriers.push(1 + usize::from(words.add(1).read()));
                carrier = usize::from(words.read());
            }
        }
        carriers
    }

    /// Takes what others freed home; the blocks on the span's list, each of which stands there once.
    fn come_home(&self, number: usize) -> BTreeSet<usize> {
        let span = self.spans[number];
        let mut home = BTreeSet::new();
        // SAFETY: the span is this test's, and nobody frees any more.
        unsafe {
            let waited = waiting(span);
            assert_eq!(collect(span).blocks, waited, "as many as were counted on the way");
            let mut block = (*span).free as usize as *mut Block;
            while !block.is_null() {
                assert!(home.insert(block.addr()), "each block once");
                block = Block::next_unjudged(block);
            }
            assert_eq!((home.len() as u32, waiting(span)), (waited, 0));
        }
        home
    }
}

impl Drop for Slabs {
    fn drop(&mut self) {
        for &span in &self.spans {
            // SAFETY: the slice is this test's, and none of its blocks is used any more.
            unsafe {
                super::super::span::forget_blocks(span);
                self.pool.release(span, 1);
            }
        }
    }
}

/// Blocks that are sent together: 4 KiB of them, at most 56.
fn batch(class: SizeClass) -> usize {
    (4096 / class.size()).min(56)
}

/// Blocks that a carrier brings, itself among them: two bytes for each other one, and four for their count
/// and for the next carrier.
fn carrier(class: SizeClass) -> usize {
    1 + (class.size() - TRAILER) / 2 - 2
}

/// What `freed` blocks are in, in units of `most`: whole ones and the rest.
fn shares(freed: usize, most: usize) -> Vec<usize> {
    let mut shares: Vec<usize> = (0..freed / most).map(|_| most).collect();
    shares.extend((!freed.is_multiple_of(most)).then_some(freed % most));
    shares
}

fn batches() -> Box<RemoteBatches> {
    // SAFETY: a zeroed one is empty.
    unsafe { Box::new(core::mem::zeroed()) }
}

/// Frees the blocks as a thread that owns none of them; how often what the span's owner sees changed, and
/// how often a sending cleared FULL.
fn free(slabs: &Slabs, blocks: impl Iterator<Item = (usize, usize)>) -> (usize, usize) {
    let (mut sent, mut cleared) = (0, 0);
    let mut batches = batches();
    let mut seen: Vec<u64> =
        // SAFETY: the spans' records stay mapped.
        slabs.spans.iter().map(|&span| unsafe { (*span).remote.load(Ordering::Relaxed) }).collect();
    let mut look = || {
        for (&span, seen) in slabs.spans.iter().zip(&mut seen) {
            // SAFETY: as above.
            let now = unsafe { (*span).remote.load(Ordering::Relaxed) };
            sent += usize::from(now != *seen);
            *seen = now;
        }
    };
    for (number, block) in blocks {
        let block = slabs.blocks(number)[block];
        // SAFETY: a block of the span that is freed here and nowhere else.
        cleared += usize::from(unsafe { !batches.add(slabs.spans[number], block).is_null() });
        look();
    }
    batches.flush(|_| cleared += 1);
    look();
    (sent, cleared)
}

#[test]
fn blocks_that_another_thread_frees_travel_in_batches_and_full_carriers_and_all_come_home() {
    for class in SizeClass::all() {
        let all = class.capacity() - SKIPPED;
        for freed in [1, batch(class) - 1, batch(class), batch(class) + 1, all] {
            let slabs = Slabs::new(class, 1);
            let blocks = slabs.blocks(0);
            let (sent, cleared) = thread::scope(|scope| {
                let slabs = &slabs;
                scope.spawn(move || free(slabs, (0..freed).map(|block| (0, block)))).join().unwrap()
            });
            let expected = shares(freed, batch(class));
            let size = class.size();
            assert_eq!(sent, expected.len(), "exchanges for {freed} blocks of {size}");
            assert_eq!(cleared, 0, "no limbo was left");
            // Of a batch the last carrier is the one that is not full, and stands first.
            let expected: Vec<usize> = expected
                .iter()
                .rev()
                .flat_map(|&batch| shares(batch, carrier(class)).into_iter().rev())
                .collect();
            assert_eq!(slabs.carriers(0), expected, "carriers of {freed} blocks of {size}");
            let home: BTreeSet<usize> = blocks[..freed].iter().map(|block| block.addr()).collect();
            assert_eq!(slabs.come_home(0), home, "{freed} blocks of {size}");
        }
    }
}

#[test]
fn blocks_of_eight_neighbouring_slabs_freed_by_turns_travel_in_as_few_batches_as_one_slabs() {
    let class = SizeClass::of(64);
    let slabs = Slabs::new(class, ENTRIES);
    let freed = slabs.blocks(0).len();
    let turns = (0..freed).flat_map(|block| (0..ENTRIES).map(move |number| (number, block)));
    let (sent, _) = thread::scope(|scope| {
        let slabs = &slabs;
        scope.spawn(move || free(slabs, turns)).join().unwrap()
    });
    assert_eq!(sent, ENTRIES * freed.div_ceil(batch(class)));
    for number in 0..ENTRIES {
        let blocks: BTreeSet<usize> = slabs.blocks(number).iter().map(|b| b.addr()).collect();
        assert_eq!(slabs.come_home(number), blocks);
    }
}

#[test]
fn of_batches_for_a_slab_in_limbo_the_first_one_alone_takes_it_out() {
    for class in SizeClass::all() {
        let slabs = Slabs::new(class, 1);
        let freed = 2 * batch(class) + 1;
        // SAFETY: the span is this test's, and none of its blocks is free.
        assert!(unsafe { enter_limbo(slabs.spans[0], 1 << 20, false) });
        let blocks = slabs.blocks(0);
        let (sent, cleared) = free(&slabs, (0..freed).map(|block| (0, block)));
        assert_eq!((sent, cleared), (3, 1), "blocks of {}", class.size());
        let home: BTreeSet<usize> = blocks[..freed].iter().map(|block| block.addr()).collect();
        assert_eq!(slabs.come_home(0), home);
    }
}

#[test]
fn a_block_freed_by_a_thread_without_a_heap_travels_alone() {
    let class = SizeClass::of(200);
    let slabs = Slabs::new(class, 1);
    let blocks = slabs.blocks(0);
    for &block in &blocks[..3] {
        // SAFETY: a block of the span, freed once.
        assert!(unsafe { send_one(slabs.spans[0], block) }.is_null(), "no limbo was left");
    }
    assert_eq!(slabs.carriers(0), [1; 3]);
    assert_eq!(slabs.come_home(0), blocks[..3].iter().map(|block| block.addr()).collect());
}
