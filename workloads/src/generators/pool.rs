//! Threads come and go: pools that shrink and grow, memory left behind by a thread that ended.

use serde::Deserialize;
use traces::ObjectId;

use super::distribution::Distribution;
use super::emitter::Emitter;
use super::random::Random;
use super::source::Workload;

/// Rounds of short-lived threads.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// Bytes of an object.
    pub bytes: Distribution,
    /// Objects a thread allocates.
    pub objects: u32,
    /// Share of its objects that a thread leaves alive when it ends.
    pub left_behind: f64,
    /// Rounds after which the main thread releases what was left behind; 0 = at the end.
    #[serde(default)]
    pub released_after: u32,
    /// Rounds of threads in one body.
    pub rounds: u32,
}

/// [`Pool`] at work. Threads are born in every round, so the stream is not folded.
#[derive(Debug)]
pub(crate) struct PoolWorkload {
    spec: Pool,
    seed: u64,
    threads: u32,
    round: u64,
    main: u32,
    left: std::collections::VecDeque<Vec<ObjectId>>,
}

impl PoolWorkload {
    pub(crate) fn new(spec: Pool, seed: u64, threads: u32) -> Self {
        PoolWorkload { spec, seed, threads, round: 0, main: 0, left: Default::default() }
    }

    fn round(&mut self, out: &mut Emitter) {
        let born: Vec<u32> = (0..self.threads.max(1)).map(|_| out.birth(Some(self.main))).collect();
        let mut random: Vec<Random> =
            (0..born.len()).map(|n| Random::new(self.seed, self.round * 4096 + n as u64)).collect();
        let mut live: Vec<Vec<ObjectId>> = vec![Vec::new(); born.len()];
        for _ in 0..self.spec.objects {
            for (n, &thread) in born.iter().enumerate() {
                let size = self.spec.bytes.draw(&mut random[n]);
                let object = out.malloc(thread, size);
                live[n].push(object);
            }
        }
        let mut left = Vec::new();
        for (n, &thread) in born.iter().enumerate() {
            for object in live[n].drain(..) {
                if random[n].chance(self.spec.left_behind) {
                    left.push(object);
                } else {
                    out.free(thread, object);
                }
            }
            out.join(thread, self.main);
        }
        self.left.push_back(left);
        let keep = self.spec.released_after as usize;
        while keep > 0 && self.left.len() > keep {
            self.release(out);
        }
        self.round += 1;
    }

    fn release(&mut self, out: &mut Emitter) {
        for object in self.left.pop_front().unwrap_or_default() {
            out.free(self.main, object);
        }
    }
}

impl Workload for PoolWorkload {
    fn folds(&self) -> bool {
        false
    }

    fn prologue(&mut self, out: &mut Emitter) {
        self.main = out.birth(None);
    }

    fn body(&mut self, out: &mut Emitter) {
        (0..self.spec.rounds).for_each(|_| self.round(out));
    }

    fn epilogue(&mut self, out: &mut Emitter) {
        while !self.left.is_empty() {
            self.release(out);
        }
    }
}
