//! What the tests with damaged bytes share: a generator of damage, and what must hold of whatever is
//! read.
//!
//! `TRACES_FUZZ_INPUTS` sets how many inputs each sample gives (default 1,000), `TRACES_FUZZ_SEED`
//! which ones (default 0): a failure can be repeated. A long run over all readers:
//! `TRACES_FUZZ_INPUTS=500000 TRACES_FUZZ_SEED=7 cargo test --release -p traces --test hostile_bytes
//! --test hostile_containers -- --nocapture damage`.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::HashSet;

use traces::Source;
use traces::event::Op;

/// Inputs of one sample that one thread tries in a row.
pub(crate) const PART: usize = 10_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

pub(crate) fn inputs() -> usize {
    number("TRACES_FUZZ_INPUTS").map_or(1_000, |inputs| inputs as usize)
}

pub(crate) fn seed() -> u64 {
    number("TRACES_FUZZ_SEED").unwrap_or(0)
}

/// Says what was tried, for whoever started a long run.
pub(crate) fn told(what: &str, inputs: u64, refused: u64) {
    eprintln!("{what}: {inputs} inputs, {refused} refused, seed {}", seed());
}

pub(crate) struct Random(u64);

impl Random {
    /// A generator of its own for every place, seed and part of the work.
    pub(crate) fn new(place: usize, part: usize) -> Self {
        let mut random =
            Random(0x9e37_79b9 + seed() + ((place as u64) << 40) + ((part as u64) << 20));
        for _ in 0..8 {
            random.next();
        }
        random
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

const PIECES: [&[u8]; 16] = [
    b"0",
    b"-1",
    b"18446744073709551615",
    b"281474976710657",
    b"0x",
    b"0xffffffffffffffff",
    b"\n",
    b"\r\n",
    b" ",
    b",",
    b"(",
    b")",
    b"#",
    b"\x80\x80\x80\x80",
    b"\xff\xff\xff\xff",
    b"\0",
];

/// Changes, moves, repeats or cuts bits, bytes, numbers, lines and blocks.
pub(crate) fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        let end = (at + random.below(40)).min(bytes.len());
        match random.below(8) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = random.next() as u8,
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let block = bytes[at..end].to_vec();
                let to = random.below(bytes.len() + 1);
                bytes.splice(to..to, block);
            }
            5 | 6 => {
                let piece = PIECES[random.below(PIECES.len())];
                bytes.splice(at..end.min(at + random.below(4)), piece.iter().copied());
            }
            _ => {
                let to = random.below(bytes.len() + 1);
                let (low, high) = (at.min(to), at.max(to));
                bytes[low..high].reverse();
            }
        }
    }
}

/// Reads to the end or the first error; the stream keeps the event model's promises so far.
pub(crate) fn check(mut source: Box<dyn Source>, most_events: usize) {
    let (mut events, mut births, mut threads) = (0, 0, 0);
    let mut live = HashSet::new();
    let mut ended = HashSet::new();
    while let Ok(Some(event)) = source.next_event() {
        events += 1;
        assert!(events <= most_events, "a reader makes events out of nothing");
        assert!(!ended.contains(&event.thread), "an event after its thread's end");
        if let Some(object) = event.op.released() {
            assert!(live.remove(&object), "released but not alive");
        }
        if let Some(object) = event.op.born() {
            assert_eq!(object.index(), births, "objects are numbered in order");
            births += 1;
            live.insert(object);
        }
        match event.op {
            Op::ThreadStart { .. } => {
                assert_eq!(event.thread.0, threads, "threads are numbered in order");
                threads += 1;
            }
            Op::ThreadEnd => {
                ended.insert(event.thread);
            }
            _ => {}
        }
        assert!(event.thread.0 < threads, "a thread starts before it does anything");
    }
}
