//! mstress: rounds of fresh threads that allocate, keep, release and swap objects through a shared
//! table, so that memory outlives the threads that allocated it.
//!
//! Source of the shape: the published description of mimalloc's stress test.

use serde::Deserialize;
use traces::ObjectId;

use super::emitter::Emitter;
use super::random::Random;
use super::source::Workload;

/// Rounds of threads over a shared table.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stress {
    /// Objects a thread allocates in a round, besides those it keeps.
    pub allocations: u32,
    /// Objects a thread keeps to the end of the round.
    pub retained: u32,
    /// Places of the shared table.
    pub transfers: u32,
}

/// [`Stress`] at work. Threads are born in every round, so the stream is not folded.
#[derive(Debug)]
pub(crate) struct StressWorkload {
    spec: Stress,
    seed: u64,
    threads: u32,
    round: u64,
    main: u32,
    table: Vec<Option<ObjectId>>,
    random: Random,
}

impl StressWorkload {
    pub(crate) fn new(spec: Stress, seed: u64, threads: u32) -> Self {
        let table = vec![None; spec.transfers as usize];
        let random = Random::new(seed, u64::MAX);
        StressWorkload { spec, seed, threads, round: 0, main: 0, table, random }
    }
}

/// Objects have fewer than 2^5 words, those that are kept fewer than 2^10, unless they are large.
const SHIFT: u64 = 5;
const SHIFT_RETAINED: u64 = 10;

#[derive(Debug)]
struct Busy {
    thread: u32,
    random: Random,
    allocations: u32,
    retain: u32,
    data: Vec<ObjectId>,
    retained: Vec<ObjectId>,
}

/// Bytes of an object: a power of two below 2^`shift` words, and now and then much more: one in a hundred
/// is a hundred times as large, of these one in ten a thousand times and one in a hundred ten thousand.
fn size(random: &mut Random, shift: u64) -> u64 {
    let mut words = 1 << random.below(shift);
    if random.below(100) == 0 {
        words *= match random.below(100) {
            0 => 10_000,
            1..=10 => 1000,
            _ => 100,
        };
    }
    words * 8
}

impl StressWorkload {
    /// One step of one thread; whether it has more to do.
    fn step(&mut self, busy: &mut Busy, out: &mut Emitter) -> bool {
        if busy.allocations == 0 && busy.retain == 0 {
            return false;
        }
        let thread = busy.thread;
        if busy.retain == 0 || (busy.allocations > 0 && busy.random.chance(0.5)) {
            busy.allocations -= 1;
            let object = out.calloc(thread, 1, size(&mut busy.random, SHIFT));
            busy.data.push(object);
        } else {
            busy.retain -= 1;
            let object = out.calloc(thread, 1, size(&mut busy.random, SHIFT_RETAINED));
            busy.retained.push(object);
        }
        if !busy.data.is_empty() && busy.random.chance(0.66) {
            let object = busy.data.swap_remove(busy.random.index(busy.data.len()));
            out.free(thread, object);
        }
        if !busy.data.is_empty() && busy.random.chance(0.25) {
            let mine = busy.random.index(busy.data.len());
            let place = busy.random.index(self.table.len());
            let object = busy.data[mine];
            match self.table[place].replace(object) {
                Some(other) => busy.data[mine] = other,
                None => {
                    busy.data.swap_remove(mine);
                }
            }
        }
        true
    }
}

impl Workload for StressWorkload {
    fn folds(&self) -> bool {
        false
    }

    fn prologue(&mut self, out: &mut Emitter) {
        self.main = out.birth(None);
    }

    fn body(&mut self, out: &mut Emitter) {
        let threads = self.threads.max(1);
        let mut busy: Vec<Busy> = (0..threads)
            .map(|n| Busy {
                thread: out.birth(Some(self.main)),
                random: Random::new(self.seed, self.round * 4096 + u64::from(n)),
                allocations: self.spec.allocations,
                retain: self.spec.retained,
                data: Vec::new(),
                retained: Vec::new(),
            })
            .collect();
        while !busy.is_empty() {
            let mut still = Vec::with_capacity(busy.len());
            for mut thread in std::mem::take(&mut busy) {
                if self.step(&mut thread, out) {
                    still.push(thread);
                    continue;
                }
                for object in thread.data.drain(..).chain(thread.retained.drain(..)) {
                    out.free(thread.thread, object);
                }
                out.join(thread.thread, self.main);
            }
            busy = still;
        }
        // The main thread releases half of what is in the table after every round.
        for place in 0..self.table.len() {
            if self.random.chance(0.5)
                && let Some(object) = self.table[place].take()
            {
                out.free(self.main, object);
            }
        }
        self.round += 1;
    }

    fn epilogue(&mut self, out: &mut Emitter) {
        for object in self.table.iter_mut().filter_map(Option::take) {
            out.free(self.main, object);
        }
    }
}
