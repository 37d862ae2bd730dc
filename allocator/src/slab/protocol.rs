//! The lock-free steps of remote frees and of limbo, on single words: what `remote` and the queues
//! of heaps do, and what `RUSTFLAGS="--cfg loom" cargo test -p allocator --lib` explores.
//!
//! Owns nothing: words and nodes are the caller's. What the steps mean stands in `slab::remote`.
//!
//! # Invariants
//! 1. Whoever clears FULL decides about the span: `leave` that returns true, or the one `publish`
//!    that does.
//! 2. Whoever takes a queue owns what was in it, and sees all that was written before the push.
//! 3. A push after the taking by a thread that parked the heap sees that it is parked.

use core::ptr::null_mut;

use crate::sync::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, order};

/// The span has no free block and stands in no queue.
pub(crate) const FULL: u64 = 1;
/// Low bit of `owner` in limbo.
const LIMBO: usize = 1;

/// The owner lets go of a span without a free block. False if blocks arrived meanwhile: then it is
/// still the caller's.
#[inline(always)]
pub(crate) fn enter(owner: &AtomicUsize, remote: &AtomicU64, heap: usize, alone: bool) -> bool {
    // `owner` changes first: once FULL is set another thread may own the span at any moment.
    owner.store(heap | LIMBO, Ordering::Relaxed);
    if alone {
        if remote.load(Ordering::Relaxed) == 0 {
            remote.store(FULL, Ordering::Relaxed);
            return true;
        }
    } else if remote
        .compare_exchange(0, FULL, order("enter", Ordering::AcqRel), Ordering::Relaxed)
        .is_ok()
    {
        return true;
    }
    owner.store(heap, Ordering::Relaxed);
    false
}

/// The former owner takes a span back out of limbo, if nobody else did before.
#[inline(always)]
pub(crate) fn leave(owner: &AtomicUsize, remote: &AtomicU64, heap: usize, alone: bool) -> bool {
    if owner.load(Ordering::Relaxed) != heap | LIMBO {
        return false;
    }
    if alone {
        if remote.load(Ordering::Relaxed) != FULL {
            return false;
        }
        remote.store(0, Ordering::Relaxed);
    } else if remote
        .compare_exchange(FULL, 0, order("leave", Ordering::AcqRel), Ordering::Relaxed)
        .is_err()
    {
        return false;
    }
    owner.store(heap, Ordering::Relaxed);
    true
}

/// Publishes a chain of carriers that begins with number `head - 1`; `link` writes into the last of
/// them what `remote` held before. True if this cleared FULL.
#[inline(always)]
pub(crate) fn publish(remote: &AtomicU64, head: u16, mut link: impl FnMut(u16)) -> bool {
    let mut old = remote.load(Ordering::Relaxed);
    loop {
        link((old >> 16) as u16);
        let new = u64::from(head) << 16;
        let success = order("publish", Ordering::AcqRel);
        match remote.compare_exchange_weak(old, new, success, Ordering::Relaxed) {
            Ok(_) => return old == FULL,
            Err(now) => old = now,
        }
    }
}

/// The owner takes what was published: the number of the first carrier plus one, 0 for none.
#[inline(always)]
pub(crate) fn take(remote: &AtomicU64) -> u16 {
    (remote.swap(0, order("take", Ordering::AcqRel)) >> 16) as u16
}

/// Nodes on their way to whoever takes the queue. Zeroed memory is an empty one.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Queue<T> {
    head: AtomicPtr<T>,
    /// Nodes pushed since the queue was last taken, about.
    len: AtomicU32,
    /// Whether the heap's thread has ended.
    parked: AtomicBool,
}

impl<T> Queue<T> {
    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Queue {
            head: AtomicPtr::new(null_mut()),
            len: AtomicU32::new(0),
            parked: AtomicBool::new(false),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.head.load(Ordering::Relaxed).is_null()
    }

    /// Nodes in the queue, about.
    #[cfg_attr(loom, allow(dead_code, reason = "a hint that decides nothing"))]
    pub(crate) fn len(&self) -> u32 {
        self.len.load(Ordering::Relaxed)
    }

    pub(crate) fn set_parked(&self, parked: bool) {
        self.parked.store(parked, Ordering::Release);
    }

    pub(crate) fn is_parked(&self) -> bool {
        self.parked.load(Ordering::Acquire)
    }

    /// Pushes `node`, in which `link` writes what follows it. The node is the caller's until then.
    #[inline(always)]
    pub(crate) fn link(&self, node: *mut T, mut link: impl FnMut(*mut T)) {
        self.len.fetch_add(1, Ordering::Relaxed);
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            link(head);
            // Acquire: who pushes onto what a parking thread left sees that it parked.
            let success = order("push", Ordering::AcqRel);
            match self.head.compare_exchange_weak(head, node, success, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// Takes all nodes, linked as they were pushed; the caller owns them.
    pub(crate) fn take_all(&self) -> *mut T {
        self.len.store(0, Ordering::Relaxed);
        // Release: see `link`.
        self.head.swap(null_mut(), order("take_all", Ordering::AcqRel))
    }
}

#[cfg(all(test, loom))]
#[path = "protocol/models.rs"]
mod models;
