//! The same properties for every strategy: a shadow heap, and a whole check after each step.
extern crate std;
use super::*;
use crate::block;
use crate::block::testing::TestSource;
use crate::block::{BlockHeap, FaultKind, HeapCore, Placement, Policy};
use proptest::prelude::*;
use std::vec::Vec;

/// One call. Objects are named by their position among the live ones, modulo their number.
#[derive(Clone, Debug)]
enum Step {
    Allocate { size: usize, shift: u32, zero: bool },
    Free(usize),
    Resize(usize, usize),
    Flush,
    Trim(usize),
}

fn size() -> impl Strategy<Value = usize> {
    prop_oneof![8 => 0..200usize, 3 => 200..5000usize, 1 => 5000..150_000usize]
}

fn step() -> impl Strategy<Value = Step> {
    let shift = prop_oneof![6 => Just(4u32), 1 => 5..13u32];
    prop_oneof![
        10 => (size(), shift, any::<bool>())
            .prop_map(|(size, shift, zero)| Step::Allocate { size, shift, zero }),
        8 => any::<usize>().prop_map(Step::Free),
        3 => (any::<usize>(), size()).prop_map(|(object, size)| Step::Resize(object, size)),
        1 => Just(Step::Flush),
        1 => (0..100_000usize).prop_map(Step::Trim),
    ]
}

#[derive(Debug)]
struct Object {
    at: usize,
    size: usize,
    fill: u8,
}

fn bytes<'a>(at: usize, size: usize) -> &'a mut [u8] {
    // SAFETY: the shadow heap asks only for objects that the heap under test says are ours.
    unsafe { core::slice::from_raw_parts_mut(core::ptr::with_exposed_provenance_mut(at), size) }
}

/// Runs `steps` and holds the heap to its word after each of them.
fn model<P: block::Strategy>(steps: &[Step]) {
    let policy = Policy { grow: 16 << 10, trim: 64 << 10, keep: 8 << 10 };
    let source = TestSource::new(256 << 10, 16 << 10, 2 << 20);
    let mut heap = P::Core::<TestSource>::new(source, policy, 0x1357_9bdf, 2);
    let mut live: Vec<Object> = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        match *step {
            Step::Allocate { size, shift, zero } => {
                let Some(at) = heap.allocate(size, 1 << shift, zero).unwrap() else { continue };
                assert_eq!(at % (1 << shift), 0);
                let size = heap.usable(at).unwrap().min(size + 64).max(size);
                assert!(heap.usable(at).unwrap() >= size);
                for object in &live {
                    assert!(at + size <= object.at || object.at + object.size <= at, "overlap");
                }
                assert!(!zero || bytes(at, size).iter().all(|&byte| byte == 0), "not zero");
                let fill = number as u8;
                bytes(at, size).fill(fill);
                live.push(Object { at, size, fill });
            }
            Step::Free(which) if !live.is_empty() => {
                let object = live.swap_remove(which % live.len());
                assert!(bytes(object.at, object.size).iter().all(|&byte| byte == object.fill));
                heap.free(object.at).unwrap();
            }
            Step::Resize(which, size) if !live.is_empty() => {
                let index = which % live.len();
                let object = &mut live[index];
                if heap.resize(object.at, size).unwrap() {
                    let kept = object.size.min(size);
                    assert!(bytes(object.at, kept).iter().all(|&byte| byte == object.fill));
                    object.size = size;
                    bytes(object.at, size).fill(object.fill);
                }
            }
            Step::Flush => heap.flush().unwrap(),
            Step::Trim(keep) => drop(heap.trim(keep).unwrap()),
            _ => {}
        }
        let totals = heap.check().unwrap();
        assert_eq!(totals.live_blocks, live.len());
    }
    for object in live {
        assert!(bytes(object.at, object.size).iter().all(|&byte| byte == object.fill));
        heap.free(object.at).unwrap();
    }
    heap.flush().unwrap();
    let totals = heap.check().unwrap();
    assert_eq!((totals.live_blocks, totals.parked_blocks), (0, 0));
}

macro_rules! strategies {
    ($($name:ident: $strategy:ty;)*) => {
        proptest! {
            #![proptest_config(ProptestConfig { cases: 120, ..ProptestConfig::default() })]
            $(
                #[test]
                fn $name(steps in prop::collection::vec(step(), 1..250)) {
                    model::<$strategy>(&steps);
                }
            )*
        }
    };
}

strategies! {
    first_fit_keeps_objects_apart_and_its_books_exact: FirstFit;
    first_fit_lifo_keeps_objects_apart_and_its_books_exact: FirstFitLifo;
    next_fit_keeps_objects_apart_and_its_books_exact: NextFit;
    best_fit_keeps_objects_apart_and_its_books_exact: BestFit;
    worst_fit_keeps_objects_apart_and_its_books_exact: WorstFit;
    segregated_keeps_objects_apart_and_its_books_exact: Segregated;
    quick_fit_keeps_objects_apart_and_its_books_exact: QuickFit;
    deferred_segregated_keeps_objects_apart_and_its_books_exact: QuickFit<Segregated>;
    deferred_best_fit_keeps_objects_apart_and_its_books_exact: QuickFit<BestFit>;
    deferred_lifo_keeps_objects_apart_and_its_books_exact: QuickFit<FirstFitLifo>;
    buddy_keeps_objects_apart_and_its_books_exact: Buddy;
    slab_keeps_objects_apart_and_its_books_exact: Slab;
    a_switched_off_quick_fit_merges_at_once: QuickFit<NextFit, false>;
}

fn heap<P: Placement>(bytes: usize) -> BlockHeap<P, TestSource> {
    let source = TestSource::new(bytes, bytes, bytes);
    BlockHeap::new(source, Policy::DEFAULT, 0x2468_ace1, 0)
}

/// Objects of the given sizes, each followed by a wall, then freed: one hole of each size.
fn holes<P: Placement>(heap: &mut BlockHeap<P, TestSource>, sizes: &[usize]) -> Vec<usize> {
    let objects: Vec<_> = sizes
        .iter()
        .map(|&size| {
            let object = heap.allocate(size, 16, false).unwrap().unwrap();
            heap.allocate(16, 16, false).unwrap().unwrap();
            object
        })
        .collect();
    for &object in &objects {
        heap.free(object).unwrap();
    }
    objects
}

#[test]
fn first_fit_cuts_the_end_of_the_block_with_the_lowest_address_that_fits() {
    let mut heap = heap::<FirstFit>(1 << 20);
    let at = holes(&mut heap, &[100, 1000, 300, 1000]);
    let end = |hole: usize, size: usize, need: usize| {
        Ok(Some(hole + block::block_size(size).unwrap() - block::block_size(need).unwrap()))
    };
    assert_eq!(heap.allocate(200, 16, false), end(at[1], 1000, 200));
    assert_eq!(heap.allocate(1000, 16, false), Ok(Some(at[3])));
    assert_eq!(heap.allocate(50, 16, false), end(at[0], 100, 50));
    // The block at the end of the region is cut from its front.
    let last = heap.allocate(2000, 16, false).unwrap().unwrap();
    assert_eq!(heap.allocate(2000, 16, false), Ok(Some(last + block::block_size(2000).unwrap())));
}

#[test]
fn next_fit_goes_on_behind_the_last_block_and_wraps_around() {
    let mut heap = heap::<NextFit>(1 << 20);
    let at = holes(&mut heap, &[300, 300, 300]);
    let behind = heap.allocate(300, 16, false).unwrap().unwrap();
    assert!(behind > at[2]);
    heap.allocate((1 << 20) - 16_000 - (behind & 0xfff), 16, false).unwrap();
    while heap.allocate(300, 16, false).unwrap().is_some_and(|object| object > at[2]) {}
    assert_eq!(heap.allocate(300, 16, false), Ok(Some(at[1])));
    assert_eq!(heap.allocate(300, 16, false), Ok(Some(at[2])));
}

#[test]
fn segregated_takes_the_smallest_class_that_surely_fits() {
    let mut heap = heap::<Segregated>(1 << 20);
    let at = holes(&mut heap, &[5000, 1000, 300, 100]);
    assert_eq!(heap.allocate(280, 16, false), Ok(Some(at[2])));
    assert_eq!(heap.allocate(900, 16, false), Ok(Some(at[1])));
}

#[test]
fn lifo_takes_the_block_freed_last_that_fits() {
    let mut heap = heap::<FirstFitLifo>(1 << 20);
    let at = holes(&mut heap, &[300, 1000, 290, 100]);
    assert_eq!(heap.allocate(280, 16, false), Ok(Some(at[2])));
    assert_eq!(heap.allocate(280, 16, false), Ok(Some(at[1])));
    assert_eq!(heap.allocate(80, 16, false).unwrap(), Some(at[1] + 288));
}

#[test]
fn a_lifo_whose_stamps_begin_anew_is_sound() {
    let mut heap = heap::<FirstFitLifo>(1 << 20);
    holes(&mut heap, &[300, 1000, 290, 100]);
    heap.placement.near_the_last_stamp();
    for size in [280, 900, 60, 280] {
        holes(&mut heap, &[size, size + 100]);
        heap.check().unwrap();
        assert!(heap.allocate(size + 100, 16, false).unwrap().is_some());
        heap.check().unwrap();
    }
}

#[test]
fn best_fit_takes_the_smallest_block_that_fits() {
    let mut heap = heap::<BestFit>(1 << 20);
    let at = holes(&mut heap, &[5000, 3000, 300, 100, 4000]);
    assert_eq!(heap.allocate(280, 16, false), Ok(Some(at[2])));
    assert_eq!(heap.allocate(3500, 16, false), Ok(Some(at[4])));
    assert_eq!(heap.allocate(2900, 16, false), Ok(Some(at[1])));
    assert_eq!(heap.allocate(4900, 16, false), Ok(Some(at[0])));
}

#[test]
fn worst_fit_takes_the_largest_block() {
    let mut heap = heap::<WorstFit>(1 << 20);
    let at = holes(&mut heap, &[100, 5000, 300]);
    let rest = heap.check().unwrap().largest_free;
    assert!(heap.allocate(rest - 4000, 16, false).unwrap().unwrap() > at[2]);
    assert_eq!(heap.allocate(50, 16, false), Ok(Some(at[1])));
}

#[test]
fn quick_fit_hands_out_exactly_what_was_freed_last_and_merges_on_flush() {
    let mut heap = heap::<QuickFit>(1 << 20);
    let objects = [(); 3].map(|()| heap.allocate(100, 16, false).unwrap().unwrap());
    for object in objects {
        heap.free(object).unwrap();
    }
    assert_eq!(heap.check().unwrap().parked_blocks, 3);
    assert_eq!(heap.free(objects[1]).unwrap_err().kind, FaultKind::DoubleFree);
    assert_eq!(heap.allocate(100, 16, false), Ok(Some(objects[2])));
    heap.free(objects[2]).unwrap();
    heap.flush().unwrap();
    let totals = heap.check().unwrap();
    assert_eq!((totals.parked_blocks, totals.free_blocks), (0, 1));
}

#[test]
fn buddies_are_aligned_to_their_size_and_merge_back_into_one() {
    let source = TestSource::new(1 << 20, 1 << 20, 1 << 20);
    let mut heap = <Buddy as block::Strategy>::Core::new(source, Policy::DEFAULT, 7, 0);
    let whole = heap.check().unwrap();
    let objects: Vec<_> = [1, 32, 33, 100, 5000, 60_000]
        .map(|size| heap.allocate(size, 16, false).unwrap().unwrap())
        .into();
    for &object in &objects {
        assert_eq!(object % heap.usable(object).unwrap(), 0);
    }
    assert_eq!(heap.free(objects[4] + 4096).unwrap_err().kind, FaultKind::InteriorFree);
    assert_eq!(heap.free(objects[4] + 8).unwrap_err().kind, FaultKind::MisalignedFree);
    assert_eq!(heap.free(64).unwrap_err().kind, FaultKind::ForeignFree);
    for &object in &objects {
        heap.free(object).unwrap();
        assert_eq!(heap.free(object).unwrap_err().kind, FaultKind::DoubleFree);
    }
    let merged = heap.check().unwrap();
    assert_eq!(merged.live_blocks, whole.live_blocks);
    assert!(merged.largest_free >= 256 << 10);
}

#[test]
fn a_slab_knows_each_slot_and_refuses_what_is_none() {
    let source = TestSource::new(1 << 20, 1 << 20, 1 << 20);
    let mut heap = <Slab as block::Strategy>::Core::new(source, Policy::DEFAULT, 7, 0);
    let slots: Vec<_> = (0..300).map(|_| heap.allocate(48, 16, false).unwrap().unwrap()).collect();
    let large = heap.allocate(20_000, 16, false).unwrap().unwrap();
    assert_eq!(heap.usable(slots[7]), Ok(48));
    assert_eq!(heap.usable(large), Ok(20_480));
    assert_eq!(heap.free(slots[7] + 16).unwrap_err().kind, FaultKind::InteriorFree);
    assert_eq!(heap.free(large + 4096).unwrap_err().kind, FaultKind::InteriorFree);
    assert_eq!(heap.free(slots[7] + 4).unwrap_err().kind, FaultKind::MisalignedFree);
    for &slot in slots.iter().chain([&large]) {
        heap.free(slot).unwrap();
        assert_eq!(heap.free(slot).unwrap_err().kind, FaultKind::DoubleFree);
    }
    heap.trim(0).unwrap();
    assert_eq!(heap.check().unwrap().live_blocks, 0);
}

/// Ten times as many free blocks may not make a search look at many more of them.
fn search_length<P: Placement>(holes: usize) -> f64 {
    let mut heap = heap::<P>(64 << 20);
    let objects: Vec<_> = (0..2 * holes)
        .map(|n| heap.allocate(40 + n % 7 * 16, 16, false).unwrap().unwrap())
        .collect();
    for object in objects.iter().step_by(2) {
        heap.free(*object).unwrap();
    }
    heap.flush().unwrap();
    assert!(heap.check().unwrap().free_blocks >= holes);
    let before = heap.examined();
    for n in 0..1000 {
        let object = heap.allocate(1000 + n % 50 * 16, 16, false).unwrap().unwrap();
        if n % 2 == 0 {
            heap.free(object).unwrap();
        }
    }
    (heap.examined() - before) as f64 / 1000.0
}

#[test]
fn a_search_among_a_hundred_thousand_free_blocks_stays_short() {
    for length in [
        search_length::<FirstFit>,
        search_length::<FirstFitLifo>,
        search_length::<NextFit>,
        search_length::<BestFit>,
        search_length::<WorstFit>,
        search_length::<Segregated>,
        search_length::<QuickFit>,
    ] {
        let (few, many) = (length(10_000), length(100_000));
        // The first searches correct one stale bound per slice; that is what grows.
        assert!(few < 500.0 && many < 500.0, "{few} and {many} blocks examined per search");
    }
}
