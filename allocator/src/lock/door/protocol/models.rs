//! Models of a door, explored by loom (see `sync::all_hold`): an owner that comes in and a visitor. The lock that
//! visitors take is a word here, as `lock::Lock` has one. Each weakened step must be noticed, and so must a barrier
//! that is missing on either side.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::fence;
use loom::thread;

use super::*;
use crate::bitmap::protocol::publish;
use crate::sync::{AtomicBool, AtomicU64, Model, all_hold, each_is_needed, none_holds};

/// All blocks of the span: the owner has block 0, another thread block 1.
const ALL: u64 = 0b11;

/// A heap behind a door, which lists one span.
struct Heap {
    inside: AtomicU8,
    visitor: AtomicBool,
    /// What only who is inside may touch: whether the span is listed. Loom finds who else is at it.
    lists: UnsafeCell<bool>,
    /// The owner's fast path writes here outside, as those of slabs do.
    free: AtomicU64,
    remote: AtomicU64,
}

// SAFETY: what is not atomic is loom's cells, whose use from two threads at once is what loom finds.
unsafe impl Sync for Heap {}
// SAFETY: as above.
unsafe impl Send for Heap {}

impl Heap {
    fn new() -> Arc<Self> {
        Arc::new(Heap {
            inside: AtomicU8::new(OUTSIDE),
            visitor: AtomicBool::new(false),
            lists: UnsafeCell::new(true),
            free: AtomicU64::new(0),
            remote: AtomicU64::new(0),
        })
    }

    fn try_lock(&self) -> bool {
        self.visitor.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    fn unlock(&self) {
        self.visitor.store(false, Ordering::Release);
    }

    /// As `Door::enter`; `come_in` is the step of that name or a wrong one.
    fn enter(&self, come_in: impl FnOnce(&AtomicU8, &dyn Fn() -> bool) -> bool) {
        let acquire = order("look_for_visitor", Ordering::Acquire);
        if come_in(&self.inside, &|| self.visitor.load(acquire)) {
            while !self.try_lock() {
                thread::yield_now();
            }
            self.unlock();
        }
    }

    /// Takes the span out of the list, if it is there. The caller is inside.
    fn unlist(&self) -> bool {
        // SAFETY: loom tests that nobody else is at it.
        self.lists.with_mut(|lists| unsafe { core::mem::replace(&mut *lists, false) })
    }

    /// As `Slabs::reap`: whether a visitor takes the span. It looks at all only if the door lets it.
    fn visit(&self, everywhere: impl FnOnce() -> bool) -> bool {
        if !self.try_lock() {
            return false;
        }
        let taken = finds_nobody(&self.inside, everywhere) && {
            let freed = self.remote.load(Ordering::Acquire);
            let empty = freed != 0 && self.free.load(Ordering::Relaxed) | freed == ALL;
            // SAFETY: as in `unlist`.
            let listed = self.lists.with(|lists| unsafe { *lists });
            empty && listed && self.unlist()
        };
        self.unlock();
        taken
    }
}

fn everywhere() -> bool {
    fence(Ordering::SeqCst);
    true
}

/// A heap whose span has no live block, and a thread that visits it.
fn visited(everywhere: fn() -> bool) -> (Arc<Heap>, thread::JoinHandle<bool>) {
    let heap = Heap::new();
    heap.free.store(0b01, Ordering::Relaxed);
    heap.remote.store(0b10, Ordering::Relaxed);
    let visited = heap.clone();
    let visitor = thread::spawn(move || visited.visit(everywhere));
    (heap, visitor)
}

/// The owner takes the span from its list while another thread visits.
fn meet(come_in: fn(&AtomicU8, &dyn Fn() -> bool) -> bool, everywhere: fn() -> bool) {
    let (heap, visitor) = visited(everywhere);
    heap.enter(come_in);
    let mine = heap.unlist();
    leave(&heap.inside, OUTSIDE);
    let theirs = visitor.join().expect("no panic");
    assert!(mine != theirs, "one of them has the span");
}

fn right_come_in(inside: &AtomicU8, is_visited: &dyn Fn() -> bool) -> bool {
    come_in(inside, is_visited)
}

fn owner_and_visitor_are_never_inside_together() {
    meet(right_come_in, everywhere);
}

fn an_owner_without_a_barrier() {
    meet(
        |inside, is_visited| {
            inside.store(INSIDE, Ordering::Relaxed);
            is_visited()
        },
        everywhere,
    );
}

fn an_owner_that_looks_before_it_says_so() {
    meet(
        |inside, is_visited| {
            let visited = is_visited();
            inside.store(INSIDE, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            visited
        },
        everywhere,
    );
}

fn a_visitor_without_a_barrier() {
    meet(right_come_in, || true);
}

/// An owner who does not wait for a visitor, as on the fast paths of bitmap spans: then it did nothing.
fn an_owner_who_does_not_wait() {
    let (heap, visitor) = visited(everywhere);
    let acquire = order("look_for_visitor", Ordering::Acquire);
    let mine = !come_in(&heap.inside, || heap.visitor.load(acquire)) && heap.unlist();
    leave(&heap.inside, OUTSIDE);
    let theirs = visitor.join().expect("no panic");
    assert!(!(mine && theirs), "both have the span");
}

/// What the owner wrote inside is there for a visitor who comes after it.
fn a_visitor_sees_what_the_owner_left() {
    let (heap, visitor) = visited(everywhere);
    heap.enter(right_come_in);
    let mine = heap.unlist();
    // SAFETY: as in `unlist`.
    heap.lists.with_mut(|lists| unsafe { *lists = mine });
    leave(&heap.inside, OUTSIDE);
    visitor.join().expect("no panic");
}

/// The owner frees its block on its fast path, outside, another thread frees the other one, and a third visits: the
/// span is taken only when no block is live, and by one of them.
fn a_span_with_a_live_block_stays() {
    let heap = Heap::new();
    let (freed, visited) = (heap.clone(), heap.clone());
    let freer = thread::spawn(move || publish(&freed.remote, 0b10));
    let visitor = thread::spawn(move || {
        let taken = visited.visit(everywhere);
        if taken {
            let free = visited.free.load(Ordering::Relaxed);
            assert_eq!(free | visited.remote.load(Ordering::Relaxed), ALL, "no block is live");
        }
        taken
    });
    heap.free.store(0b01, Ordering::Relaxed);
    heap.enter(right_come_in);
    let mine = heap.unlist();
    leave(&heap.inside, OUTSIDE);
    freer.join().expect("no panic");
    assert!(mine != visitor.join().expect("no panic"), "one of them has the span");
}

const MODELS: [Model; 4] = [
    ("an_owner_who_does_not_wait", an_owner_who_does_not_wait),
    ("owner_and_visitor_are_never_inside_together", owner_and_visitor_are_never_inside_together),
    ("a_visitor_sees_what_the_owner_left", a_visitor_sees_what_the_owner_left),
    ("a_span_with_a_live_block_stays", a_span_with_a_live_block_stays),
];

#[test]
fn every_model_holds_in_every_interleaving() {
    all_hold(&MODELS);
}

#[test]
fn every_weakened_step_is_noticed() {
    each_is_needed(&["leave", "look_inside", "look_for_visitor"], &MODELS);
}

#[test]
fn every_missing_barrier_and_wrong_order_is_noticed() {
    none_holds(&[
        ("an_owner_without_a_barrier", an_owner_without_a_barrier),
        ("an_owner_that_looks_before_it_says_so", an_owner_that_looks_before_it_says_so),
        ("a_visitor_without_a_barrier", a_visitor_without_a_barrier),
    ]);
}
