//! Huge objects on pages of every size, and what is kept of them.

use std::vec::Vec;

use super::*;
#[cfg(not(feature = "hardened"))]
use crate::os::Failing;
use crate::os::Paged;

const PAGES: [usize; 3] = [4 << 10, 16 << 10, 64 << 10];

fn huge(page: usize) -> Huge<Paged> {
    let huge = Huge::new(Paged::new(page));
    huge.configure(64 << 20, false);
    huge
}

/// Writes the first and last byte of an object and one in each page between.
fn fill(object: *mut u8, size: usize, with: u8) {
    for at in (0..size).step_by(4096).chain([size - 1]) {
        // SAFETY: the object has `size` bytes.
        unsafe { object.add(at).write(with) };
    }
}

fn is_filled(object: *mut u8, size: usize, with: u8) -> bool {
    // SAFETY: as above.
    (0..size).step_by(4096).chain([size - 1]).all(|at| unsafe { object.add(at).read() } == with)
}

#[test]
fn objects_keep_their_contents_and_their_size_on_pages_of_every_size() {
    for page in PAGES {
        let huge = huge(page);
        let aligns = [16, 4096, 64 << 10, SEGMENT, 4 * SEGMENT];
        let sizes = [(1 << 20) + 1, (4 << 20) - 64, (4 << 20) - 63, 5_000_000, 9 << 20];
        let mut live = Vec::new();
        for (round, (align, size)) in
            aligns.iter().flat_map(|align| sizes.map(|size| (*align, size))).enumerate()
        {
            let object = huge.allocate(size, align, round % 2 == 0);
            assert!(object.addr().is_multiple_of(align), "{page} {align} {size}");
            // SAFETY: live, and huge.
            let (record, room) = unsafe { (huge_record(object), usable(huge_record(object))) };
            assert!(room >= size, "{page} {align} {size}: {room}");
            assert!((object.addr() + room).is_multiple_of(page), "whole pages belong to it");
            assert!(round % 2 != 0 || is_filled(object, size, 0));
            fill(object, room, round as u8);
            live.push((object, record, room, round as u8));
            if round % 3 == 2 {
                let (object, record, room, with) = live.swap_remove(round % live.len());
                assert!(is_filled(object, room, with));
                // SAFETY: live, and forgotten here.
                unsafe { huge.free(record, || 0) };
            }
        }
        huge.check().expect("sound");
        for (object, record, room, with) in live {
            assert!(is_filled(object, room, with), "{page}: nobody else wrote here");
            // SAFETY: as above.
            unsafe { huge.free(record, || 0) };
        }
        assert_eq!((huge.usage().objects, huge.usage().live), (0, 0));
        huge.purge_all();
        assert_eq!((huge.usage().mapped, huge.usage().cached), (0, 0));
    }
}

#[test]
fn an_object_is_resized_on_pages_of_every_size() {
    for page in PAGES {
        let huge = huge(page);
        let mut object = huge.allocate(2 << 20, 16, false);
        for size in [3 << 20, 17 << 20, (5 << 20) + 1, 2 << 20] {
            // SAFETY: the object has two mebibytes at all times, and is replaced by the result.
            unsafe {
                fill(object, 2 << 20, 7);
                let moved = huge.resize(huge_record(object), size, || false);
                assert!(!moved.is_null(), "{page} {size}");
                object = moved;
                assert!(usable(huge_record(object)) >= size);
            }
            assert!(is_filled(object, 2 << 20, 7), "{page} {size}");
        }
        // SAFETY: live, and used no more.
        unsafe { huge.free(huge_record(object), || 0) };
    }
}

#[test]
fn a_freed_mapping_goes_in_the_second_epoch_after_it_was_freed() {
    let huge = huge(4 << 10);
    let mut objects = [(); 4].map(|()| huge.allocate(6 << 20, 16, false));
    objects.sort_unstable();
    let [first, between, second, behind] = objects;
    let epoch = || {
        huge.kernel.pass(EPOCH_MS + 1);
        huge.tick();
        huge.usage().cached / (8 << 20)
    };
    assert_eq!(epoch(), 0);
    // SAFETY: live objects, each freed once. Those in between keep the mappings apart.
    unsafe {
        huge.free(huge_record(first), || 0);
        assert_eq!(epoch(), usize::from(!HARDENED), "kept for the next");
        huge.free(huge_record(second), || 0);
        assert_eq!(epoch(), usize::from(!HARDENED), "the first is gone, the second is not");
        assert_eq!(epoch(), 0);
        huge.free(huge_record(between), || 0);
        huge.free(huge_record(behind), || 0);
    }
}

#[test]
fn what_a_small_object_beside_it_does_not_need_goes_though_that_is_used_again() {
    let huge = huge(4 << 10);
    let objects = [(); 4].map(|()| huge.allocate(6 << 20, 16, false));
    // SAFETY: live objects, each freed once.
    unsafe {
        for object in objects {
            huge.free(huge_record(object), || 0);
        }
        for _ in 0..6 {
            huge.kernel.pass(EPOCH_MS / 2 + 1);
            huge.tick();
            huge.free(huge_record(huge.allocate(3 << 20, 16, false)), || 0);
        }
    }
    assert!(huge.usage().cached_resident <= SEGMENT, "{:?}", huge.usage());
    huge.check().expect("sound");
}

#[test]
fn after_an_idle_second_the_first_look_gives_back_all_that_is_cached() {
    let huge = huge(4 << 10);
    let objects: Vec<_> = (0..8).map(|_| huge.allocate(6 << 20, 16, false)).collect();
    for object in objects {
        // SAFETY: live, and used no more.
        unsafe { huge.free(huge_record(object), || 0) };
    }
    assert!(HARDENED || huge.usage().cached > 0, "kept for the next");
    huge.kernel.pass(1001);
    huge.tick();
    assert_eq!(huge.usage().cached, 0);
}

/// Frees all but the first of `count` objects of 6 MiB while so many bytes of the process are resident and
/// 1 MiB is live elsewhere; the live bytes, and those that are still spare.
fn spare_of_freed(huge: &Huge<Paged>, count: usize, resident: Option<usize>) -> (usize, usize) {
    huge.configure(8 << 20, false);
    huge.kernel.set_resident(resident);
    // Before the first epoch everything counts as old.
    huge.tick();
    let objects: Vec<_> = (0..count).map(|_| huge.allocate(6 << 20, 16, false)).collect();
    for object in objects.iter().skip(1) {
        huge.kernel.pass(1);
        // SAFETY: live, and used no more.
        unsafe { huge.free(huge_record(*object), || 1 << 20) };
    }
    huge.check().expect("sound");
    let held = huge.held_now().expect("nobody changes it");
    (held.used, held.spare)
}

#[test]
fn freed_mappings_drop_to_their_cap_only_when_more_is_resident_than_is_fair() {
    const COUNT: usize = 10;
    let (live, all) = spare_of_freed(&huge(4 << 10), COUNT, Some(0));
    if HARDENED {
        return assert_eq!(all, 0, "hardened builds keep nothing that was freed");
    }
    assert_eq!(all, (COUNT - 1) * live, "what is mapped and not resident costs nothing");
    // What is live here and elsewhere, and the cap: as much as is live here and 8 MiB.
    let cap = live + (8 << 20);
    let fair = live + (1 << 20) + cap;
    assert_eq!(spare_of_freed(&huge(4 << 10), COUNT, Some(fair)), (live, all));
    for resident in [Some(fair + 1), Some(1 << 40), None] {
        let (_, spare) = spare_of_freed(&huge(4 << 10), COUNT, resident);
        assert!(spare <= cap && spare + live > cap, "{resident:?}: {spare} bytes, {cap} may stay");
    }
}

#[test]
fn what_is_resident_is_asked_for_once_a_tick_of_the_clock() {
    let huge = huge(4 << 10);
    let (live, all) = spare_of_freed(&huge, 10, Some(0));
    huge.kernel.set_resident(None);
    let free_one = || {
        let object = huge.allocate(6 << 20, 16, false);
        // SAFETY: live, and used no more.
        unsafe { huge.free(huge_record(object), || 0) };
        huge.held_now().expect("nobody changes it").spare
    };
    assert_eq!(free_one(), all, "the answer of this tick stands");
    huge.kernel.pass(1);
    assert!(free_one() <= live + (8 << 20), "at the next it is asked for again");
}

#[test]
fn mappings_ask_for_huge_pages_where_they_are_wanted_and_only_when_they_are_new() {
    let huge = huge(4 << 10);
    let plain = huge.allocate(5 << 20, 16, false);
    assert_eq!(huge.kernel.huge_bytes(), 0);
    huge.configure(64 << 20, true);
    let wanted = huge.allocate(5 << 20, 16, false);
    let asked = huge.kernel.huge_bytes();
    assert!(asked >= 5 << 20, "{asked} bytes");
    // SAFETY: live objects of this floor, freed once each.
    unsafe {
        for object in [plain, wanted] {
            huge.free(huge_record(object), || 0);
        }
        let reused = huge.allocate(5 << 20, 16, false);
        // Hardened builds keep none: each mapping is a new one.
        assert_eq!(huge.kernel.huge_bytes() == asked, !HARDENED);
        huge.free(huge_record(reused), || 0);
    }
}

#[test]
fn objects_are_counted_with_their_mappings_and_every_new_mapping_is_named() {
    let huge = huge(4 << 10);
    let counts = || (huge.usage().objects, huge.usage().mapped, huge.kernel.labelled());
    let (first, second) = (5 << 20, 17 << 20);
    // SAFETY: live objects of this floor, each freed once or replaced by the result.
    unsafe {
        let object = huge.allocate(first, 16, false);
        let (one, mapped, named) = counts();
        assert!(one == 1 && mapped >= first && named == mapped);
        let other = huge.allocate(first, 8 * SEGMENT, false);
        assert!(counts().0 == 2 && counts().2 == counts().1);
        huge.free(huge_record(other), || 0);
        assert_eq!((counts().0, counts().1), (1, mapped));
        let object = huge.resize(huge_record(object), second, || false);
        assert!(counts().0 == 1 && counts().1 >= second);
        huge.free(huge_record(object), || 0);
        assert_eq!((counts().0, counts().1), (0, 0));
    }
}

#[cfg(not(feature = "hardened"))]
#[test]
fn pages_of_a_larger_object_count_on_after_a_smaller_one_was_there() {
    let huge = huge(4 << 10);
    huge.configure(64 << 20, false);
    huge.tick();
    let spare = || huge.held_now().expect("nobody else is here").spare;
    // SAFETY: live objects of this floor, each freed once or replaced by the result.
    unsafe {
        let large = huge.allocate(7 << 20, 16, false);
        huge.free(huge_record(large), || 0);
        let all = spare();
        assert!(all > 7 << 20);
        huge.take_fresh(0);
        let small = huge.allocate(5 << 20, 16, false);
        assert_eq!((spare(), huge.take_fresh(1)), (0, 0), "its pages are there");
        let small = huge.resize(huge_record(small), 6 << 20, || false);
        huge.free(huge_record(small), || 0);
        assert_eq!(spare(), all);
        assert_eq!(huge.shed(1), all / 2, "a whole segment of the two");
        assert_eq!(huge.shed(usize::MAX), all / 2);
        assert_eq!((spare(), huge.usage().cached), (0, 0));
    }
}

#[cfg(not(feature = "hardened"))]
#[test]
fn a_used_mapping_becomes_zero_also_where_the_kernel_keeps_its_pages() {
    for (size, refuses) in [(2 << 20, false), (65 << 20, false), (65 << 20, true)] {
        let huge = Huge::new(Failing::new(Paged::new(4 << 10)));
        huge.configure(128 << 20, false);
        // Before the first epoch everything counts as old.
        huge.tick();
        let used = huge.allocate(size, 16, false);
        fill(used, size, 7);
        // SAFETY: live objects of this floor, each freed once.
        unsafe {
            huge.free(huge_record(used), || 0);
            huge.take_fresh(0);
            let purged = huge.usage().purged;
            huge.kernel.fail_after(if refuses { 0 } else { u32::MAX });
            let zeros = huge.allocate(size, 16, true);
            huge.kernel.fail_after(u32::MAX);
            assert!(zeros == used && is_filled(zeros, size, 0), "{size} {refuses}");
            let given_back = huge.usage().purged - purged;
            assert_eq!(given_back > size / 2, size >= GIVEN_BACK_FROM && !refuses);
            assert_eq!(huge.take_fresh(1), given_back, "what went back comes as new pages");
            huge.free(huge_record(zeros), || 0);
        }
        huge.purge_all();
    }
}

#[test]
fn what_no_address_space_holds_is_refused_for_nothing() {
    let huge = huge(4 << 10);
    // SAFETY: live objects of this floor, each freed once or kept.
    unsafe {
        let live = huge.allocate(5 << 20, 16, false);
        huge.free(huge_record(huge.allocate(9 << 20, 16, false)), || 0);
        let state = || (huge.usage().cached, huge.kernel.next_hint().load(Ordering::Relaxed));
        let before = state();
        for (size, align) in [(1 << 62, 16), (1 << 48, 16), (1, 1 << 62), (0, 1 << 48)] {
            assert!(huge.allocate(size, align, false).is_null(), "{size} {align}");
        }
        assert!(huge.resize(huge_record(live), 1 << 62, || false).is_null());
        assert_eq!(
            state(),
            before,
            "nothing was given back, and the next mapping lies where it would have"
        );
        huge.free(huge_record(live), || 0);
    }
}

#[test]
fn mappings_are_asked_for_one_behind_the_other_far_from_programs_and_stacks() {
    let kernel = Paged::new(4 << 10);
    let half = 1usize << (os::address_bits() - 1);
    let eighth = half / 4;
    kernel.next_hint().store(half - 3 * SEGMENT, Ordering::Relaxed);
    assert_eq!(os::next_place(&kernel, 2 * SEGMENT), half - 3 * SEGMENT);
    assert_eq!(os::next_place(&kernel, 2 * SEGMENT), half - SEGMENT);
    assert_eq!(os::next_place(&kernel, 0), eighth + SEGMENT);
    for asked in [0, SEGMENT, eighth - SEGMENT, half, 3 * half, 0_usize.wrapping_sub(SEGMENT)] {
        kernel.next_hint().store(asked, Ordering::Relaxed);
        let place = os::next_place(&kernel, SEGMENT);
        assert!((eighth..half).contains(&place) && place.is_multiple_of(SEGMENT), "{asked:#x}");
    }
}
