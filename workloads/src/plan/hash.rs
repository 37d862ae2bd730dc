//! The golden hash of an event stream: same seed, same events, whatever the machine.
#![forbid(unsafe_code)]

use traces::{AlignedApi, Event, Op};

/// A 64-bit hash of events, fed one at a time. Times are left out, so that a stream and the same
/// stream timed are the same stream. It tells streams apart; it does not resist an adversary.
#[derive(Clone, Copy, Debug, Default)]
pub struct StreamHash(u64);

impl StreamHash {
    fn word(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    /// Adds the next event.
    pub fn add(&mut self, event: &Event) {
        let object = |o: Option<traces::ObjectId>| o.map_or(0, |o| o.0.get());
        let api = |api: AlignedApi| match api {
            AlignedApi::Memalign => 0,
            AlignedApi::AlignedAlloc => 1,
            AlignedApi::PosixMemalign => 2,
            AlignedApi::Valloc => 3,
            AlignedApi::Pvalloc => 4,
            AlignedApi::CxxNew => 5,
        };
        let fields: [u64; 5] = match event.op {
            Op::Malloc { object: o, size } => [1, object(o), size, 0, 0],
            Op::Calloc { object: o, count, size } => [2, object(o), count, size, 0],
            Op::Realloc { old, object: o, size } => [3, object(old), object(o), size, 0],
            Op::Aligned { object: o, align, size, api: a } => [4, object(o), align, size, api(a)],
            Op::Free { object: o, stated_size } => {
                [5, object(o), u64::from(stated_size.is_some()), stated_size.unwrap_or(0), 0]
            }
            Op::UsableSize { object: o } => [6, object(o), 0, 0, 0],
            Op::Access { object: o, bytes, times } => [7, o.0.get(), bytes, u64::from(times), 0],
            Op::ThreadStart { parent } => [8, parent.map_or(0, |p| u64::from(p.0) + 1), 0, 0, 0],
            Op::ThreadEnd => [9, 0, 0, 0, 0],
            Op::Fork { child } => [10, u64::from(child), 0, 0, 0],
            Op::Marker { value } => [11, value, 0, 0, 0],
        };
        self.word(u64::from(event.thread.0));
        for field in fields {
            self.word(field);
        }
    }

    /// The hash of all events so far.
    #[must_use]
    pub fn value(self) -> u64 {
        let mut x = self.0;
        x = (x ^ (x >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        x ^ (x >> 29)
    }
}
