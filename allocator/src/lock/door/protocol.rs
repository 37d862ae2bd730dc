//! The steps at a door: what `door` does, and what `RUSTFLAGS="--cfg loom" cargo test -p allocator --lib`
//! explores.
//!
//! # Invariants
//! 1. Of an owner that comes in and a visitor that looks inside at the same time one sees the other, or both do.
//! 2. Who finds the other gone sees all that it wrote while it was there.

#[cfg(not(loom))]
use core::sync::atomic::compiler_fence as barrier;
#[cfg(loom)]
use loom::sync::atomic::fence as barrier;

use crate::sync::{AtomicU8, Ordering, order};

/// Where the owner is. A word, not a truth value: what was read is put back without a look at it.
pub(crate) const OUTSIDE: u8 = 0;
const INSIDE: u8 = 1;

/// The owner says that it is inside. True if there is a visitor: the owner must wait for it. `is_visited` acquires:
/// a visitor that has gone left the heap changed.
///
/// The processor's barrier between both is the visitor's, who makes all processors pass one: here it is enough
/// that the compiler keeps the order. Models let the owner pass one itself.
#[inline(always)]
pub(crate) fn come_in(inside: &AtomicU8, is_visited: impl FnOnce() -> bool) -> bool {
    inside.store(INSIDE, Ordering::Relaxed);
    barrier(Ordering::SeqCst);
    is_visited()
}

/// The owner leaves, to where it was `before`.
#[inline(always)]
pub(crate) fn leave(inside: &AtomicU8, before: u8) {
    inside.store(before, order("leave", Ordering::Release));
}

/// Whether a visitor, who has said that it is there, finds the owner elsewhere. `everywhere` makes every
/// running thread of the process pass a full barrier, and says whether it could.
pub(crate) fn finds_nobody(inside: &AtomicU8, everywhere: impl FnOnce() -> bool) -> bool {
    everywhere() && inside.load(order("look_inside", Ordering::Acquire)) == OUTSIDE
}

#[cfg(all(test, loom))]
#[path = "protocol/models.rs"]
mod models;
