//! The promises of the boundary-tag heap, kept under the default placement.
extern crate std;
use super::testing::TestSource;
use super::*;
use crate::placement::{BestFit, FirstFit, Segregated};

type Heap = BlockHeap<Segregated, TestSource>;
const SECRET: u64 = 0x5eed_000f_5eed_5eed;

fn heap() -> Heap {
    BlockHeap::new(TestSource::new(1 << 20, 64 << 10, 64 << 20), Policy::DEFAULT, SECRET, 1)
}

fn take(heap: &mut Heap, size: usize) -> usize {
    heap.allocate(size, 16, false).unwrap().unwrap()
}

fn bytes(at: usize) -> *mut u8 {
    core::ptr::with_exposed_provenance_mut(at)
}

fn poke(at: usize, value: u8) {
    // SAFETY: tests write only inside regions of their own heap.
    unsafe { bytes(at).write(value) };
}

fn flip(at: usize) {
    // SAFETY: as for `poke`.
    poke(at, unsafe { bytes(at).read() } ^ 0x5a);
}

#[test]
fn an_object_costs_eight_bytes_rounded_up_to_sixteen() {
    let mut heap = heap();
    for (size, block) in [(1, 32), (24, 32), (25, 48), (40, 48), (1000, 1008), (4096, 4112)] {
        let object = take(&mut heap, size);
        assert_eq!(heap.usable(object), Ok(block - HEADER));
        assert_eq!(heap.free(object), Ok(block));
    }
}

#[test]
fn freed_neighbours_become_one_block_at_once_in_every_order() {
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut heap = heap();
        let objects = [(); 3].map(|()| take(&mut heap, 100));
        let wall = take(&mut heap, 100);
        for index in order {
            heap.free(objects[index]).unwrap();
            heap.check().unwrap();
        }
        let merged = take(&mut heap, 3 * 112 - HEADER);
        assert_eq!(merged, objects[0]);
        heap.free(merged).unwrap();
        heap.free(wall).unwrap();
        assert_eq!(heap.check().unwrap().free_blocks, 1);
    }
}

#[test]
fn every_address_is_aligned_as_asked() {
    let mut heap = heap();
    for shift in 4..17 {
        let align = 1 << shift;
        for size in [1, 24, 100, 5000] {
            let object = heap.allocate(size, align, false).unwrap().unwrap();
            assert_eq!(object % align, 0);
            assert!(heap.usable(object).unwrap() >= size);
            heap.check().unwrap();
        }
    }
}

#[test]
fn a_zeroed_object_is_zero_whether_its_memory_is_fresh_or_used() {
    let mut heap = heap();
    let wall = take(&mut heap, 60 << 10);
    for round in 0..3 {
        for size in [1, 24, 100, 5000, 100_000] {
            let object = heap.allocate(size, 16, true).unwrap().unwrap();
            let usable = heap.usable(object).unwrap();
            for offset in 0..usable {
                // SAFETY: inside the object.
                assert_eq!(unsafe { bytes(object + offset).read() }, 0, "{round} {size} {offset}");
            }
            // SAFETY: as above.
            unsafe { bytes(object).write_bytes(0xff, usable) };
            if size != 100 {
                heap.free(object).unwrap();
            }
        }
    }
    heap.free(wall).unwrap();
    heap.check().unwrap();
}

#[test]
fn the_heap_gives_its_end_back_and_keeps_the_first_region() {
    let mut heap = heap();
    let objects: std::vec::Vec<_> = (0..100).map(|_| take(&mut heap, 100_000)).collect();
    let peak = heap.counters().committed;
    for object in objects {
        heap.free(object).unwrap();
    }
    heap.trim(0).unwrap();
    let totals = heap.check().unwrap();
    assert!(peak > 10_000_000 && totals.committed < 100_000, "{peak} then {}", totals.committed);
    assert_eq!(heap.counters().peak_committed, peak);
}

#[test]
fn out_of_memory_is_none_and_service_resumes() {
    let mut heap: Heap =
        BlockHeap::new(TestSource::new(1 << 20, 4096, 1 << 20), Policy::DEFAULT, SECRET, 0);
    let mut objects = std::vec::Vec::new();
    while let Some(object) = heap.allocate(10_000, 16, false).unwrap() {
        objects.push(object);
    }
    assert!(objects.len() > 90);
    assert_eq!(heap.allocate(usize::MAX, 16, false), Ok(None));
    heap.check().unwrap();
    for object in objects {
        heap.free(object).unwrap();
    }
    assert!(heap.allocate(10_000, 16, false).unwrap().is_some());
}

#[test]
fn an_object_grows_into_a_free_successor_and_shrinks_where_it_stands() {
    let mut heap = heap();
    let object = take(&mut heap, 100);
    let next = take(&mut heap, 100);
    let wall = take(&mut heap, 100);
    assert_eq!(heap.resize(object, 200), Ok(false));
    heap.free(next).unwrap();
    assert_eq!(heap.resize(object, 200), Ok(true));
    heap.check().unwrap();
    assert!(heap.usable(object).unwrap() >= 200);
    assert_eq!(heap.resize(object, 10), Ok(true));
    heap.check().unwrap();
    assert_eq!(heap.usable(object), Ok(24));
    assert_eq!(heap.resize(object, usize::MAX), Ok(false));
    heap.free(object).unwrap();
    heap.free(wall).unwrap();
    assert_eq!(heap.check().unwrap().free_blocks, 1);
}

/// A heap over untouched memory, in which nothing is written but tags.
fn large_heap<P: Placement>(range: &mut [u8]) -> BlockHeap<P, FixedRegion> {
    // SAFETY: the range is the caller's alone, and outlives the heap.
    let source = unsafe { FixedRegion::new(range.as_mut_ptr(), range.len()) }.assume_zeroed();
    let policy = Policy { grow: range.len(), trim: usize::MAX, keep: 0 };
    BlockHeap::new(source, policy, SECRET, 1)
}

const MIB: usize = 1 << 20;

#[test]
fn what_is_left_of_a_largest_block_merges_with_neighbours_that_now_fit() {
    let mut range = std::vec![0_u8; 1024 * MIB];
    let mut heap = large_heap::<Segregated>(&mut range);
    // Two largest blocks and 131,000 bytes.
    take_from(&mut heap, 200_000);
    assert_eq!(heap.check().unwrap().free_blocks, 2);

    let mut range = std::vec![0_u8; 1536 * MIB];
    let mut heap = large_heap::<FirstFit>(&mut range);
    // Two largest blocks and some 496 MiB.
    let first = take_from(&mut heap, MAX_BLOCK - HEADER);
    assert_eq!(heap.resize(first, 300 * MIB), Ok(true));
    // Of the second, cut at its end, stays as much as fits the tail of the first.
    let second = take_from(&mut heap, 250 * MIB);
    heap.check().unwrap();
    let third = take_from(&mut heap, 450 * MIB);
    assert!(first < third && third < second);
    heap.check().unwrap();
}

fn take_from<P: Placement>(heap: &mut BlockHeap<P, FixedRegion>, size: usize) -> usize {
    heap.allocate(size, 16, false).unwrap().unwrap()
}

/// Objects of up to 500 MiB come, go and change their sizes; then nothing is left.
fn large_objects_come_and_go<P: Placement>() {
    let mut range = std::vec![0_u8; 1536 * MIB];
    let mut heap = large_heap::<P>(&mut range);
    let mut state = 1_u64;
    let mut number = |end: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % end
    };
    let mut objects: std::vec::Vec<usize> = std::vec::Vec::new();
    for step in 0..40 {
        let size = number(500) * MIB + number(5_000);
        match number(5) {
            0 if !objects.is_empty() => {
                let object = objects[number(objects.len())];
                heap.resize(object, size).unwrap();
            }
            1 if !objects.is_empty() => {
                let object = objects.swap_remove(number(objects.len()));
                heap.free(object).unwrap();
            }
            2 => drop(heap.trim(size).unwrap()),
            _ => {
                let align = 16 << (number(3) * 5);
                objects.extend(heap.allocate(size, align, false).unwrap());
            }
        }
        let found = heap.check().map(|totals| totals.live_blocks);
        assert_eq!(found, Ok(objects.len()), "{}, step {step}", P::NAME);
    }
    for object in objects {
        heap.free(object).unwrap();
        heap.check().unwrap();
    }
    heap.trim(0).unwrap();
    let totals = heap.check().unwrap();
    assert_eq!(totals.live_blocks, 0);
    assert!(totals.free_bytes < 64 << 10, "{}: {} bytes stay", P::NAME, totals.free_bytes);
}

#[test]
fn more_free_memory_than_a_block_can_hold_is_sound_and_goes_back() {
    large_objects_come_and_go::<Segregated>();
    large_objects_come_and_go::<BestFit>();
    large_objects_come_and_go::<FirstFit>();
}

fn fault_of(result: Result<usize, Fault>) -> FaultKind {
    result.expect_err("the misuse must be found").kind
}

#[test]
fn double_free_is_found_before_and_after_the_block_was_merged() {
    let mut heap = heap();
    let [a, b, _wall] = [(); 3].map(|()| take(&mut heap, 100));
    heap.free(b).unwrap();
    assert_eq!(fault_of(heap.free(b)), FaultKind::DoubleFree);
    heap.free(a).unwrap();
    assert_eq!(fault_of(heap.free(a)), FaultKind::DoubleFree);
    assert_eq!(fault_of(heap.free(b)), FaultKind::DoubleFree);
    heap.check().unwrap();
}

#[test]
fn wrong_addresses_are_found_and_told_apart() {
    let mut heap = heap();
    let object = take(&mut heap, 1000);
    poke(object + 504, 1);
    assert_eq!(fault_of(heap.free(object + 1)), FaultKind::MisalignedFree);
    assert_eq!(fault_of(heap.free(object + 512)), FaultKind::InteriorFree);
    assert_eq!(fault_of(heap.free(0x1000)), FaultKind::ForeignFree);
    assert_eq!(fault_of(heap.free(object + 4096)), FaultKind::InvalidFree);
    heap.check().unwrap();
    assert_eq!(heap.free(object), Ok(1008));
}

#[test]
fn one_byte_past_the_usable_size_is_found_at_free_and_by_check() {
    for size in [1, 24, 100, 5000] {
        let mut heap = heap();
        let object = take(&mut heap, size);
        let _next = take(&mut heap, 100);
        let usable = heap.usable(object).unwrap();
        flip(object + usable);
        assert_eq!(heap.check().expect_err("damaged").kind, FaultKind::CorruptHeader);
        let fault = heap.free(object).expect_err("damaged");
        assert_eq!(fault, Fault::new(FaultKind::Overflow, object, usable));
    }
}

#[test]
fn a_write_before_the_object_is_found() {
    for back in 1..=8 {
        let mut heap = heap();
        let object = take(&mut heap, 100);
        flip(object - back);
        assert_eq!(fault_of(heap.free(object)), FaultKind::CorruptHeader, "{back} before");
    }
}

#[test]
fn writes_through_a_stale_pointer_into_any_word_the_heap_relies_on_are_found() {
    for offset in [0, 8, 96] {
        let mut heap = heap();
        let [object, wall] = [(); 2].map(|()| take(&mut heap, 100));
        heap.free(object).unwrap();
        flip(object + offset);
        assert!(heap.check().is_err(), "check sees a write at {offset}");
        let found = if offset == 96 {
            heap.free(wall).map(drop)
        } else {
            heap.allocate(100, 16, false).map(drop)
        };
        assert_eq!(found.expect_err("use after free").kind, FaultKind::UseAfterFree);
    }
}

#[test]
fn an_object_is_usable_and_resizable_only_while_it_lives() {
    let mut heap = heap();
    let object = take(&mut heap, 100);
    heap.free(object).unwrap();
    assert_eq!(heap.usable(object).map_err(|fault| fault.kind), Err(FaultKind::DoubleFree));
    assert_eq!(heap.resize(object, 10).map_err(|fault| fault.kind), Err(FaultKind::DoubleFree));
    assert!(heap.owns(object) && !heap.owns(16));
}
