//! The way into something that one thread uses all the time, for others, while that thread is elsewhere.
//!
//! An ordinary lock would cost the owner two atomic exchanges each time. Here the owner says that it is
//! inside with a plain store and then looks whether there is a visitor; the visitor says that it is
//! there and then looks whether the owner is inside. Each must see the other's word before it believes in
//! its absence, which needs a barrier between a store and a load on both sides: the visitor makes the
//! kernel pass one on every processor that runs a thread of this process, so that the owner needs none.
//!
//! # Cost
//! The owner: two stores and two loads; for a few instructions two stores and a load. A visitor: a lock and a
//! system call, some microseconds.
//!
//! # Invariants
//! 1. While there is a [`Visit`], the owner is not inside, and waits when it comes.
//! 2. A visitor never waits for the owner.
//!
//! Source: M. Desnoyers, membarrier(2); D. Dice, M. Moir and W. Scherer, "Quickly reacquirable locks" (2003),
//! for the idea to let the rare side pay.

pub(crate) mod protocol;

use self::protocol::OUTSIDE;
use super::{Guard, Lock};
use crate::sync::{AtomicU8, Ordering};

/// See the module. Zeroed memory is a door with nobody inside.
#[derive(Debug)]
pub(crate) struct Door {
    inside: AtomicU8,
    visitor: Lock<()>,
}

impl Door {
    /// The owner comes in; a second time too, as a signal handler may.
    #[inline(always)]
    pub(crate) fn enter(&self) -> Inside<'_> {
        let before = self.inside.load(Ordering::Relaxed);
        if protocol::come_in(&self.inside, || self.visitor.is_taken()) {
            self.wait();
        }
        Inside { door: self, before }
    }

    /// As [`Door::enter`], by an owner who is not inside, for a few instructions that can as well be done later:
    /// `None`, without a wait, if there is a visitor.
    #[inline(always)]
    pub(crate) fn enter_if_free(&self) -> Option<Inside<'_>> {
        let inside = Inside { door: self, before: OUTSIDE };
        let visited = protocol::come_in(&self.inside, || self.visitor.is_taken());
        (!visited).then_some(inside)
    }

    /// Once the visitor has gone none comes in any more: `inside` is set.
    #[cold]
    #[inline(never)]
    fn wait(&self) {
        drop(self.visitor.lock());
    }

    /// Another thread comes in, if neither the owner nor a third thread is there. `barrier` makes every
    /// running thread of the process pass a full barrier, and says whether it could.
    pub(crate) fn visit(&self, barrier: impl FnOnce() -> bool) -> Option<Visit<'_>> {
        if self.inside.load(Ordering::Relaxed) != OUTSIDE {
            return None;
        }
        let visit = Visit { _lock: self.visitor.try_lock()? };
        protocol::finds_nobody(&self.inside, barrier).then_some(visit)
    }

    /// In a child that was not told of its fork: `mend` makes whole what a visitor was changing.
    pub(crate) fn mend(&self, mend: impl FnOnce()) {
        self.visitor.mend(|()| mend());
    }
}

/// The owner is inside, until this is dropped.
#[derive(Debug)]
pub(crate) struct Inside<'a> {
    door: &'a Door,
    before: u8,
}

impl Drop for Inside<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        protocol::leave(&self.door.inside, self.before);
    }
}

/// A visitor is inside, until this is dropped.
#[derive(Debug)]
pub(crate) struct Visit<'a> {
    _lock: Guard<'a, ()>,
}

#[cfg(all(test, not(loom)))]
mod tests {
    use core::cell::UnsafeCell;
    use std::thread;

    use super::*;
    use crate::os::{allow_barriers, barrier_everywhere};
    use crate::sync::AtomicBool;

    struct Shared {
        door: Door,
        count: UnsafeCell<u64>,
    }
    // SAFETY: `count` is touched inside the door only, which is what is tested.
    unsafe impl Sync for Shared {}

    fn shared() -> Shared {
        let door = Door { inside: AtomicU8::new(OUTSIDE), visitor: Lock::new(()) };
        Shared { door, count: UnsafeCell::new(0) }
    }

    fn add(shared: &Shared) {
        // SAFETY: the caller is inside.
        unsafe { *shared.count.get() += 1 };
    }

    #[test]
    fn owner_and_visitors_are_never_inside_together() {
        const ROUNDS: u64 = 200_000;
        allow_barriers();
        let (shared, over) = (shared(), AtomicBool::new(false));
        let visits: u64 = thread::scope(|scope| {
            let visitors: [_; 2] = core::array::from_fn(|_| {
                scope.spawn(|| {
                    let mut visits = 0;
                    while !over.load(Ordering::Relaxed) {
                        if let Some(_visit) = shared.door.visit(barrier_everywhere) {
                            add(&shared);
                            visits += 1;
                        }
                    }
                    visits
                })
            });
            for _ in 0..ROUNDS {
                let _inside = shared.door.enter();
                add(&shared);
            }
            over.store(true, Ordering::Relaxed);
            visitors.map(|visitor| visitor.join().expect("no panic")).iter().sum()
        });
        assert_eq!(shared.count.into_inner(), ROUNDS + visits);
    }

    #[test]
    fn nobody_visits_an_owner_who_is_inside_twice_and_left_once() {
        let shared = shared();
        let outer = shared.door.enter();
        drop(shared.door.enter());
        assert!(shared.door.visit(|| true).is_none());
        drop(outer);
        assert!(shared.door.visit(|| false).is_none(), "no barrier, no visit");
        assert!(shared.door.visit(|| true).is_some());
    }
}
