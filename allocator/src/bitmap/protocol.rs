//! The lock-free steps of remote frees of bitmap spans, on a span's word `remote`: what `remote`,
//! `local` and `upkeep` do, and what `RUSTFLAGS="--cfg loom" cargo test -p allocator --lib` explores.
//!
//! Owns nothing: the word is the caller's. What the steps mean stands in `bitmap`.
//!
//! # Invariants
//! 1. Whoever clears FULL decides about the span: `clear_full` that returns true, or the one
//!    `publish` that does.
//! 2. Who publishes and is told to queue the span sees the owner that marked it full.
//! 3. Whoever takes the blocks sees all that was written to them before they were published.

use crate::sync::{AtomicU64, Ordering, order};

/// The span has no free block and stands in no queue.
pub(crate) const FULL: u64 = 1 << 63;

/// Publishes freed blocks. True if the span carried FULL alone: then the caller must queue it. FULL
/// stays set, so of all that publish only the first sees it alone.
#[inline(always)]
pub(crate) fn publish(remote: &AtomicU64, mask: u64) -> bool {
    remote.fetch_or(mask, order("publish_mask", Ordering::AcqRel)) == FULL
}

/// The owner marks a span without a free block; false if blocks arrived meanwhile.
#[inline(always)]
pub(crate) fn mark_full(remote: &AtomicU64, alone: bool) -> bool {
    if alone {
        let none = remote.load(Ordering::Relaxed) == 0;
        if none {
            remote.store(FULL, Ordering::Relaxed);
        }
        return none;
    }
    let success = order("mark_full", Ordering::AcqRel);
    remote.compare_exchange(0, FULL, success, Ordering::Relaxed).is_ok()
}

/// The owner takes the mark off again; false if a thread that published blocks queues the span.
#[inline(always)]
pub(crate) fn clear_full(remote: &AtomicU64, alone: bool) -> bool {
    if alone {
        let full = remote.load(Ordering::Relaxed) == FULL;
        if full {
            remote.store(0, Ordering::Relaxed);
        }
        return full;
    }
    remote.compare_exchange(FULL, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
}

/// The owner takes what was published: blocks, and FULL if the span was queued.
#[inline(always)]
pub(crate) fn take(remote: &AtomicU64) -> u64 {
    remote.swap(0, order("take_mask", Ordering::AcqRel))
}

#[cfg(all(test, loom))]
#[path = "protocol/models.rs"]
mod models;
