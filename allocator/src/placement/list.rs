//! Free blocks of one class as a doubly linked list through the blocks themselves.
//!
//! Owns the first two payload words of every listed block: next and previous, sealed. The head lies
//! outside. Cost: constant; push and unlink touch at most two blocks.
//!
//! # Invariants
//! 1. The previous link of the first block is none; every other block is its predecessor's next.

use crate::block::{Fault, FaultKind, Ground, HEADER, fault_at, follow, link};

const NEXT: usize = HEADER;
const PREV: usize = HEADER + 8;

/// Follows the sealed link at offset `word` of the free block at `at`.
///
/// # Safety
/// The block is listed.
#[inline(always)]
pub(super) unsafe fn step(ground: &Ground, at: usize, word: usize) -> Result<usize, Fault> {
    // SAFETY: a listed block holds two link words behind its header.
    match unsafe { follow(at + word, ground.secret) } {
        Some(target) => Ok(target),
        None => Err(fault_at(FaultKind::UseAfterFree, at, 0)),
    }
}

/// The block after `at`, 0 at the end.
///
/// # Safety
/// The block is listed.
#[inline(always)]
pub(super) unsafe fn next(ground: &Ground, at: usize) -> Result<usize, Fault> {
    // SAFETY: the caller's promise.
    unsafe { step(ground, at, NEXT) }
}

/// Puts `at` first.
///
/// # Safety
/// The block is free and in no list; `head` is the head of a list of this heap.
#[inline(always)]
pub(super) unsafe fn push(ground: &Ground, head: &mut usize, at: usize) {
    let first = *head;
    // SAFETY: a free block has two words for the placement.
    unsafe { link(at + NEXT, first, ground.secret) };
    // SAFETY: as above.
    unsafe { link(at + PREV, 0, ground.secret) };
    if first != 0 {
        // SAFETY: `first` is listed, so its words are the list's.
        unsafe { link(first + PREV, at, ground.secret) };
    }
    *head = at;
}

/// Takes `at` out.
///
/// # Safety
/// The block is in the list that starts at `head`.
#[inline(always)]
pub(super) unsafe fn unlink(ground: &Ground, head: &mut usize, at: usize) -> Result<(), Fault> {
    // SAFETY: the caller's promise.
    let after = unsafe { step(ground, at, NEXT) }?;
    // SAFETY: the caller's promise.
    let before = unsafe { step(ground, at, PREV) }?;
    if before == 0 {
        if *head != at {
            return Err(fault_at(FaultKind::CorruptIndex, at, 0));
        }
        *head = after;
    } else {
        // SAFETY: a sealed link leads to a listed block.
        unsafe { link(before + NEXT, after, ground.secret) };
    }
    if after != 0 {
        // SAFETY: as above.
        unsafe { link(after + PREV, before, ground.secret) };
    }
    Ok(())
}

/// Walks a list and shows each block's size; returns blocks and bytes.
///
/// # Errors
/// The first broken link, seal, or whatever `visit` objects to.
pub(super) fn walk(
    ground: &Ground,
    head: usize,
    visit: &mut dyn FnMut(usize, usize) -> bool,
) -> Result<(usize, usize), Fault> {
    let (mut at, mut before) = (head, 0);
    let (mut blocks, mut bytes) = (0, 0);
    while at != 0 {
        // SAFETY: `at` is the head or came from a sealed link of a listed block.
        let size = unsafe { ground.free_size(at) }?;
        // SAFETY: as above.
        if unsafe { step(ground, at, PREV) }? != before || !visit(at, size) {
            return Err(fault_at(FaultKind::CorruptIndex, at, size));
        }
        (blocks, bytes) = (blocks + 1, bytes + size);
        before = at;
        // SAFETY: as above.
        at = unsafe { next(ground, at) }?;
    }
    Ok((blocks, bytes))
}
