//! The blocks freed last: a small stack per class in front of the spans.
//!
//! Most medium blocks are freed and asked for again at once. One block per class would serve a program
//! that frees and allocates by turns, but in a random order it is as often there as not, and each wrong
//! guess of the processor costs more than the whole path. A few blocks are rarely all there or all gone:
//! with them `bench-cli run rptest` takes 13 % less time than with one.
//!
//! # Invariants
//! 1. The stack of a class holds the slots from `next` to the class's depth; the slot after that is
//!    null for ever.
//! 2. The block on top of the stack lies apart, so that a pair of free and malloc passes it on at once:
//!    through the stack it would wait for `next` twice. Without a top the stack is empty.
//! 3. A stashed block is neither free in its span nor anybody's.

use core::mem::replace;
use core::ptr::null_mut;

use super::classes::BLOCK_ALIGN;
use super::{CLASSES, SizeClass};

/// Classes up to 64 KiB have a stack; all others share one slot, for a block kept keeps its span, which
/// may be dirty all over.
const STACKED: usize = 49;
const _: () = assert!(SizeClass::from_index(STACKED as u8 - 1).size() == 64 << 10);
/// Blocks of the classes that share a slot lie at multiples of this.
const LARGE_BLOCK_ALIGN: usize = 8 << 10;
const _: () = {
    let mut class = STACKED;
    while class < CLASSES {
        let size = SizeClass::from_index(class as u8).size();
        assert!(size.is_multiple_of(LARGE_BLOCK_ALIGN), "so are all blocks");
        class += 1;
    }
};
/// Blocks of a class at most, below the top; see [`depth`].
const DEPTH: usize = 7;
/// Slots of a class: its blocks, and a null behind them.
const SLOTS: usize = DEPTH + 1;
/// Bytes of a class at most, unless that is less than one block.
const BYTES: usize = 64 << 10;

/// What the stash says to a freed block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    /// It is kept.
    Kept,
    /// There is no room.
    Full,
    /// There would be room if another large class's block left.
    Claims,
    /// It is the one on top.
    Twice,
    /// No block begins there.
    Inside,
}

/// The stashes of one heap.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Stash {
    top: [*mut u8; STACKED],
    /// The slot of `slots` that each stack hands out after its top; it grows towards its first slot.
    next: [u16; STACKED],
    /// The class whose block `large` is or was.
    large_class: u8,
    large: *mut u8,
    /// A class's beside each other.
    slots: [*mut u8; SLOTS * STACKED],
}

/// Blocks that a class's stack may hold below the top.
fn depth(class: SizeClass) -> usize {
    (BYTES / class.size()).saturating_sub(1).min(DEPTH)
}

impl Stash {
    /// Makes a zeroed one usable.
    pub(super) fn prepare(&mut self) {
        for (class, next) in SizeClass::all().zip(&mut self.next) {
            *next = (class.index() * SLOTS + depth(class)) as u16;
        }
    }

    /// The block that was stashed last; null if there is none.
    #[inline(always)]
    pub(super) fn pop(&mut self, class: SizeClass) -> *mut u8 {
        let index = class.index();
        if index >= STACKED {
            let ours = self.large_class as usize == index;
            return if ours { replace(&mut self.large, null_mut()) } else { null_mut() };
        }
        // SAFETY: the class is in range, and `next` is one of its slots (invariant 1).
        unsafe {
            let top = self.top.get_unchecked_mut(index);
            let block = *top;
            if !block.is_null() {
                let next = self.next.get_unchecked_mut(index);
                *top = *self.slots.get_unchecked(*next as usize);
                *next += u16::from(!top.is_null());
            }
            block
        }
    }

    /// Whether the next [`Stash::pop`] gives null.
    pub(super) fn is_empty(&self, class: SizeClass) -> bool {
        let index = class.index();
        if index >= STACKED {
            return self.large_class as usize != index || self.large.is_null();
        }
        // SAFETY: as in `pop`.
        unsafe { self.top.get_unchecked(index).is_null() }
    }

    /// Keeps a block of class number `class`, if there is room.
    #[inline(always)]
    pub(super) fn push(&mut self, class: u8, block: *mut u8) -> Offer {
        let index = class as usize;
        if index >= STACKED {
            return self.push_large(class, block);
        }
        if block.addr() & (BLOCK_ALIGN - 1) != 0 {
            return Offer::Inside;
        }
        // SAFETY: the class is in range, and `next` is one of its slots (invariant 1).
        unsafe {
            let top = self.top.get_unchecked_mut(index);
            let last = *top;
            if !last.is_null() {
                if last == block {
                    return Offer::Twice;
                }
                let next = self.next.get_unchecked_mut(index);
                let slot = *next as usize;
                if slot.is_multiple_of(SLOTS) {
                    return Offer::Full;
                }
                *next = (slot - 1) as u16;
                *self.slots.get_unchecked_mut(slot - 1) = last;
            }
            *top = block;
        }
        Offer::Kept
    }

    #[inline(always)]
    fn push_large(&mut self, class: u8, block: *mut u8) -> Offer {
        if block.addr() & (LARGE_BLOCK_ALIGN - 1) != 0 {
            return Offer::Inside;
        }
        if self.large_class != class {
            return Offer::Claims;
        }
        if self.large == block {
            return Offer::Twice;
        }
        if !self.large.is_null() {
            return Offer::Full;
        }
        self.large = block;
        Offer::Kept
    }

    /// Gives the large slot to `class` and its block; the block that was there, or null.
    pub(super) fn claim(&mut self, class: u8, block: *mut u8) -> *mut u8 {
        self.large_class = class;
        replace(&mut self.large, block)
    }

    /// All blocks of `class`, one after the other and never more than once.
    pub(super) fn each(&self, class: SizeClass) -> impl Iterator<Item = *mut u8> + '_ {
        let index = class.index();
        let top = self.top.get(index).copied().unwrap_or(self.large);
        let end = index * SLOTS + depth(class);
        let stack = self.next.get(index).and_then(|&next| self.slots.get(next as usize..end));
        let top = (!self.is_empty(class)).then_some(top);
        top.into_iter().chain(stack.into_iter().flatten().copied())
    }
}

#[cfg(test)]
mod tests;
