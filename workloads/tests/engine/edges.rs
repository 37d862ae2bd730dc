//! Streams at the edge of what a trace may say: waits across a body.

use traces::{Event, Op, ThreadId};
use workloads::plan::{Order, Seam};

use crate::run_all;
use crate::support::{event, free, malloc};

fn marker(seam: Seam) -> Event {
    event(0, Op::Marker { value: seam.to_marker() })
}

fn birth(thread: u32, parent: Option<u32>) -> Event {
    event(thread, Op::ThreadStart { parent: parent.map(ThreadId) })
}

#[test]
fn a_thread_without_a_part_in_the_body_waits_for_its_last_repetition() {
    let ring = 32;
    // Who releases what the body leaves: a thread born before it, and one born after it.
    for (releaser, late) in [(1, None), (2, Some(birth(2, Some(1))))] {
        let mut events = vec![birth(0, None), birth(1, Some(0))];
        events.extend((0..ring).map(|n| malloc(0, n, 48)));
        events.push(marker(Seam::Begin));
        for n in 0..500 {
            events.push(free(0, n));
            events.push(malloc(0, n + ring, 48 + n % 100));
        }
        events.push(marker(Seam::End { repeat: 100 }));
        events.extend(late);
        events.extend((500..500 + ring).map(|n| free(releaser, n)));
        for outcome in run_all(&events, Order::Deps) {
            assert_eq!((outcome.counts.allocations, outcome.counts.frees), (50_032, 50_032));
            assert!(outcome.verification.is_none_or(|v| v.broken == 0));
        }
    }
}
