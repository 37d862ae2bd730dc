//! Who is let in, and what is counted of those who had to wait.

use std::thread;
use std::vec::Vec;

use super::{Lock, WAITED_FOR};
use crate::sync::Ordering;

#[test]
fn a_lock_lets_one_thread_in_at_a_time() {
    let lock = Lock::new(0u64);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        *lock.lock() += 1;
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
    });
    assert_eq!(*lock.lock(), 40_000);
    assert_eq!(lock.contention().0, 40_001);
}

#[test]
fn a_waiter_is_counted_and_woken() {
    let lock = Lock::new(0u64);
    let mut held = lock.lock();
    assert!(lock.try_lock().is_none(), "it is taken");
    assert_eq!(lock.contention(), (1, 0), "who does not wait for it did not take it");
    thread::scope(|scope| {
        let waiter = scope.spawn(|| *lock.lock() += 1);
        // It sleeps, or is about to ask the kernel whether it may.
        while lock.state.load(Ordering::Relaxed) & WAITED_FOR == 0 {
            thread::yield_now();
        }
        assert!(lock.is_held_by_us(), "the mark of a waiter hides no holder");
        *held += 1;
        drop(held);
        waiter.join().unwrap();
    });
    assert_eq!(lock.contention(), (2, 1), "taken twice, and waited for once");
    assert_eq!(*lock.lock(), 2);
    assert_eq!(lock.contention(), (3, 1), "a free lock is not waited for");
}
