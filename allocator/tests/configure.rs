//! Settings that change while others change settings too.

use allocator::{heap, sampling};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

#[test]
fn what_is_in_force_is_what_was_configured_last() {
    let over = AtomicBool::new(false);
    let wrong = thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                assert!(heap::configure(b"memory=low") && heap::configure(b"memory=balanced"));
            }
        });
        let wrong = (1..=1_000_000).find(|round| {
            let bytes = 1 << (16 + round % 5);
            let done = heap::configure(format!("sample={bytes}").as_bytes());
            !done || (0..100).any(|_| sampling::mean() != bytes)
        });
        over.store(true, Ordering::Relaxed);
        wrong
    });
    assert_eq!(wrong, None, "the round in which another thread's setting took ours back");
    assert_eq!(heap::options().sample, sampling::mean());
}
