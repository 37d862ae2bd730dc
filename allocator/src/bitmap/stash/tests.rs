//! What a stash keeps, in which order, and what it says to what it does not keep. The blocks are mere addresses.

use core::ptr::without_provenance_mut;
use std::boxed::Box;
use std::vec::Vec;

use super::*;

fn stash() -> Box<Stash> {
    // SAFETY: a zeroed one is what `prepare` expects.
    let mut stash: Box<Stash> = unsafe { Box::new(core::mem::zeroed()) };
    stash.prepare();
    stash
}

/// The block of `class` that begins `number` blocks behind a slice of that number.
fn block(class: SizeClass, number: usize) -> *mut u8 {
    without_provenance_mut((1 << 30) + number * class.size())
}

fn push(stash: &mut Stash, class: SizeClass, block: *mut u8) -> Offer {
    stash.push(class.index() as u8, block)
}

/// Classes with a stack, and blocks that each keeps: 64 KiB of them, at most eight, at least one.
fn stacked() -> impl Iterator<Item = (SizeClass, usize)> {
    let stacked = SizeClass::all().filter(|class| class.size() <= 64 << 10);
    stacked.map(|class| (class, ((64 << 10) / class.size()).clamp(1, 8)))
}

fn large() -> impl Iterator<Item = SizeClass> {
    SizeClass::all().filter(|class| class.size() > 64 << 10)
}

#[test]
fn a_class_keeps_so_many_blocks_and_hands_out_first_what_came_last() {
    let mut stash = stash();
    for (class, room) in stacked() {
        assert!(stash.is_empty(class) && stash.pop(class).is_null());
        for round in 0..3 {
            for number in 0..room {
                let kept = push(&mut stash, class, block(class, number));
                assert_eq!(kept, Offer::Kept, "block {number} of {}", class.size());
                assert!(!stash.is_empty(class));
            }
            // A block that comes between others, and one too many.
            let last = stash.pop(class);
            assert_eq!(last, block(class, room - 1), "{} round {round}", class.size());
            assert_eq!(push(&mut stash, class, last), Offer::Kept);
            assert_eq!(push(&mut stash, class, block(class, room)), Offer::Full);
            for number in (0..room).rev() {
                assert_eq!(stash.pop(class), block(class, number), "{}", class.size());
            }
            assert!(stash.is_empty(class) && stash.pop(class).is_null());
        }
    }
}

#[test]
fn full_classes_leave_each_others_blocks_alone() {
    let mut stash = stash();
    for (class, room) in stacked() {
        for number in 0..room {
            assert_eq!(push(&mut stash, class, block(class, number)), Offer::Kept);
        }
    }
    for (class, room) in stacked() {
        assert_eq!(push(&mut stash, class, block(class, room)), Offer::Full);
        let visited: Vec<_> = stash.each(class).collect();
        let kept: Vec<_> = (0..room).rev().map(|number| block(class, number)).collect();
        assert_eq!(visited, kept, "all blocks of {}, each once", class.size());
        assert_eq!(stash.pop(class), block(class, room - 1));
        assert_eq!(stash.each(class).count(), room - 1, "{}", class.size());
    }
}

#[test]
fn a_block_freed_twice_in_a_row_is_told_and_kept_once() {
    let mut stash = stash();
    for (class, room) in stacked() {
        for number in 0..room {
            assert_eq!(push(&mut stash, class, block(class, number)), Offer::Kept);
            assert_eq!(push(&mut stash, class, block(class, number)), Offer::Twice, "full or not");
            assert_eq!(stash.each(class).count(), number + 1, "{}", class.size());
        }
    }
    for class in large() {
        stash.claim(class.index() as u8, block(class, 1));
        assert_eq!(push(&mut stash, class, block(class, 1)), Offer::Twice);
        assert_eq!(stash.each(class).count(), 1);
    }
}

#[test]
fn an_address_where_no_block_can_begin_is_refused() {
    let mut stash = stash();
    for (class, _) in stacked() {
        for offset in [1, 8, 16, BLOCK_ALIGN / 2, BLOCK_ALIGN - 1] {
            let inside = block(class, 1).wrapping_add(offset);
            assert_eq!(push(&mut stash, class, inside), Offer::Inside, "{}", class.size());
        }
        assert!(stash.is_empty(class));
    }
    for class in large() {
        stash.claim(class.index() as u8, null_mut());
        for offset in [1, 16, BLOCK_ALIGN, LARGE_BLOCK_ALIGN / 2] {
            let inside = block(class, 1).wrapping_add(offset);
            assert_eq!(push(&mut stash, class, inside), Offer::Inside, "{}", class.size());
        }
        assert!(stash.is_empty(class));
    }
}

#[test]
fn large_classes_share_one_slot_which_the_class_that_claims_it_takes_from_the_other() {
    let mut stash = stash();
    let classes: Vec<_> = large().collect();
    let mut before = null_mut();
    for (&class, &other) in classes.iter().zip(classes.iter().cycle().skip(1)) {
        assert_eq!(push(&mut stash, class, block(class, 1)), Offer::Claims, "{}", class.size());
        assert_eq!(stash.claim(class.index() as u8, block(class, 1)), before, "it is handed back");
        assert_eq!(push(&mut stash, class, block(class, 2)), Offer::Full);
        assert_eq!(stash.each(class).collect::<Vec<_>>(), [block(class, 1)]);
        assert!(stash.is_empty(other) && stash.pop(other).is_null(), "it is not {}", other.size());
        assert_eq!(stash.each(other).count(), 0);
        // The class keeps the slot while that is empty.
        assert_eq!(stash.pop(class), block(class, 1));
        assert!(stash.is_empty(class) && stash.pop(class).is_null());
        assert_eq!(push(&mut stash, class, block(class, 3)), Offer::Kept);
        before = block(class, 3);
    }
}
