//! Each strategy's published worst case, as a workload, with what it costs next to a strategy that
//! does not mind it.
//!
//! Sources: Robson (1974) for first fit; Bays (1977) for next fit; Knuth 2.5 for best fit's splinters;
//! Wilson, Johnstone, Neely, Boles (1995) for LIFO, worst fit, quick fit and segregated fits;
//! Knowlton (1965) for buddies; Bonwick (1994) for slabs.

use std::alloc::Layout;
use std::ptr::NonNull;

use allocator::block::{FixedRegion, Policy, Strategy};
use allocator::classic::{ClassicHeap, NoLock};
use allocator::placement::{
    BestFit, Buddy, FirstFit, FirstFitLifo, NextFit, QuickFit, Segregated, Slab, WorstFit,
};

/// A heap over a region of its own that is handed out in steps of 16 KiB.
struct Heap<P: Strategy> {
    heap: ClassicHeap<P, NoLock>,
    _region: Vec<u8>,
}

impl<P: Strategy> Heap<P> {
    fn new(bytes: usize) -> Self {
        let mut region = vec![0; bytes];
        // SAFETY: the region stands beside the heap and nobody else uses it.
        let source = unsafe { FixedRegion::new(region.as_mut_ptr(), bytes) }.in_steps(16 << 10);
        let policy = Policy { grow: 16 << 10, trim: usize::MAX, keep: 0 };
        Self { heap: ClassicHeap::new(source, policy), _region: region }
    }

    fn take(&self, size: usize) -> NonNull<u8> {
        let layout = Layout::from_size_align(size, 16).expect("a small size");
        self.heap.allocate(layout).expect("sound").expect("the region is large enough")
    }

    fn give(&self, object: NonNull<u8>) {
        // SAFETY: every workload frees each object once.
        unsafe { self.heap.deallocate(object) }.expect("sound");
    }

    fn committed(&self) -> usize {
        self.heap.counters().committed
    }

    fn overhead(&self) -> f64 {
        let counters = self.heap.counters();
        counters.committed as f64 / counters.live_bytes as f64
    }
}

/// Robson: objects of one size, every second of which dies; then objects of twice the size, which
/// fit no hole, as many as the dead ones' bytes allow; and so on.
fn doubling<P: Strategy>() -> f64 {
    let heap = Heap::<P>::new(16 << 20);
    let mut objects: Vec<_> = (0..8192).map(|_| heap.take(24)).collect();
    let mut block = 32;
    for _ in 0..6 {
        let mut arrivals = objects.len() / 2 * block;
        for object in objects.iter().step_by(2) {
            heap.give(*object);
        }
        block = block * 2 + 16;
        objects.clear();
        while arrivals >= block {
            objects.push(heap.take(block - 8));
            arrivals -= block;
        }
    }
    heap.overhead()
}

#[test]
fn first_fit_cannot_reuse_holes_of_half_the_size() {
    let first = doubling::<FirstFit>();
    let best = doubling::<BestFit>();
    assert!(first > 1.3, "committed is {first:.2} times live");
    assert!(best > 1.3, "no strategy that cannot move objects escapes: best fit has {best:.2}");
}

/// A large object that dies at once, and a small one that stays, in turn.
fn sprinkle<P: Strategy>() -> usize {
    let heap = Heap::<P>::new(8 << 20);
    let hold = heap.take(2 << 20);
    heap.give(hold);
    for _ in 0..500 {
        let large = heap.take(4000);
        heap.take(40);
        heap.give(large);
    }
    heap.heap.check().expect("sound").largest_free
}

#[test]
fn next_fit_sprinkles_small_objects_over_the_whole_heap() {
    let (next, first) = (sprinkle::<NextFit>(), sprinkle::<FirstFit>());
    assert!(next * 10 < first, "largest free block: {next} bytes, first fit keeps {first}");
}

/// Holes a little larger than the requests that come, beside one large free block: the mean size of
/// the free blocks that are left, but for the largest.
fn splinters<P: Strategy>() -> usize {
    let heap = Heap::<P>::new(4 << 20);
    let holes: Vec<_> = (0..1000)
        .map(|_| {
            let hole = heap.take(1032);
            heap.take(16);
            hole
        })
        .collect();
    let large = heap.take(2 << 20);
    heap.take(16);
    for hole in holes {
        heap.give(hole);
    }
    heap.give(large);
    for _ in 0..1000 {
        heap.take(1000);
    }
    let totals = heap.heap.check().expect("sound");
    (totals.free_bytes - totals.largest_free) / (totals.free_blocks - 1)
}

#[test]
fn best_fit_leaves_a_splinter_in_every_hole() {
    let (best, worst) = (splinters::<BestFit>(), splinters::<WorstFit>());
    assert!(best < 64, "holes of {best} bytes are of use to nobody");
    assert!(worst > 900, "worst fit leaves holes of {worst} bytes");
}

/// Many small objects, then one as large as the largest block was.
fn large_after_small<P: Strategy>() -> usize {
    let heap = Heap::<P>::new(8 << 20);
    let small: Vec<_> = (0..200)
        .map(|_| {
            let object = heap.take(100);
            heap.take(16);
            object
        })
        .collect();
    let large = heap.take(1 << 20);
    heap.take(16);
    for object in small {
        heap.give(object);
    }
    heap.give(large);
    let before = heap.committed();
    for _ in 0..200 {
        heap.take(100);
    }
    heap.take((1 << 20) - 8);
    heap.committed() - before
}

#[test]
fn worst_fit_breaks_the_block_that_a_large_request_needs() {
    assert!(large_after_small::<WorstFit>() >= 1 << 20, "worst fit must grow by the large object");
    assert_eq!(large_after_small::<BestFit>(), 0, "best fit kept the block");
}

#[test]
fn lifo_splits_the_large_block_that_was_freed_last() {
    assert!(large_after_small::<FirstFitLifo>() >= 1 << 20, "the newest block is the large one");
    assert_eq!(large_after_small::<FirstFit>(), 0, "first fit takes the low holes");
}

#[test]
fn quick_fit_holds_a_phase_s_blocks_until_it_must_merge_them_all() {
    let heap = Heap::<QuickFit>::new(4 << 20);
    let objects: Vec<_> = (0..10_000).map(|_| heap.take(56)).collect();
    for object in objects {
        heap.give(object);
    }
    let before = heap.heap.check().expect("sound");
    assert_eq!(before.parked_blocks, 10_000, "nothing was merged");
    let committed = heap.committed();
    // The next phase wants other sizes: one request pays for merging all of them.
    heap.take(500_000);
    assert_eq!(heap.committed(), committed, "and finds the merged memory");
    assert_eq!(heap.heap.check().expect("sound").parked_blocks, 0);
}

#[test]
fn segregated_fits_grow_although_a_block_of_the_request_s_own_class_would_do() {
    // Every free block is smaller than its class's end, by one grain more than the request leaves
    // for those that stand first in the list; the one that fits stands last.
    let heap = Heap::<Segregated>::new(4 << 20);
    let fits = heap.take(16_384 + 900);
    heap.take(16);
    let short: Vec<_> = (0..100)
        .map(|_| {
            let object = heap.take(16_384 + 100);
            heap.take(16);
            object
        })
        .collect();
    let filler = heap.heap.check().expect("sound").largest_free;
    heap.take(filler - 8);
    heap.give(fits);
    for object in short {
        heap.give(object);
    }
    let before = heap.committed();
    let object = heap.take(16_384 + 800);
    assert_ne!(object, fits);
    assert!(heap.committed() > before, "bounded search: it grew");
    let best = Heap::<BestFit>::new(4 << 20);
    let fits = best.take(16_384 + 900);
    best.take(16);
    best.give(fits);
    assert_eq!(best.take(16_384 + 800), fits);
}

#[test]
fn buddies_lose_half_of_each_block_on_sizes_just_above_a_power_of_two() {
    let (buddy, first) = (Heap::<Buddy>::new(8 << 20), Heap::<FirstFit>::new(8 << 20));
    for _ in 0..1000 {
        buddy.take(1025);
        first.take(1025);
    }
    assert_eq!(buddy.heap.counters().live_bytes, 2_048_000);
    // Sixteen bytes more where a region's end left no block of their own.
    assert!(first.heap.counters().live_bytes < 1_042_000);
}

#[test]
fn slabs_keep_every_page_that_holds_one_object() {
    let heap = Heap::<Slab>::new(8 << 20);
    let objects: Vec<_> = (0..64 * 256).map(|_| heap.take(64)).collect();
    let peak = heap.committed();
    for (number, object) in objects.into_iter().enumerate() {
        if number % 64 != 0 {
            heap.give(object);
        }
    }
    heap.heap.trim(0).expect("sound");
    assert_eq!(heap.committed(), peak, "1 of 64 slots is live, and every page stays");
    let totals = heap.heap.check().expect("sound");
    assert!(totals.largest_free <= peak / 16, "no run of pages came free");
}
