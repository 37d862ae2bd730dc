//! Buffers that grow by `realloc`, as strings, vectors and network buffers do.

use serde::Deserialize;
use traces::ObjectId;

use super::distribution::Distribution;
use super::emitter::Emitter;
use super::random::Random;
use super::source::Workload;

/// Growing buffers.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Growth {
    /// Buffers each worker holds at a time, growing in turns.
    pub buffers: u32,
    /// Bytes a buffer begins with.
    pub first: Distribution,
    /// Bytes at which a buffer is full, and replaced by a new one.
    pub full: Distribution,
    /// A buffer grows to this share of its size …
    pub factor: f64,
    /// … and by this many bytes.
    pub step: u64,
    /// Buffers of each worker in one body.
    pub filled: u32,
}

#[derive(Debug)]
struct Worker {
    thread: u32,
    random: Random,
    buffers: Vec<(ObjectId, u64, u64)>,
}

/// [`Growth`] at work.
#[derive(Debug)]
pub(crate) struct GrowthWorkload {
    spec: Growth,
    seed: u64,
    threads: u32,
    workers: Vec<Worker>,
}

impl GrowthWorkload {
    pub(crate) fn new(spec: Growth, seed: u64, threads: u32) -> Self {
        GrowthWorkload { spec, seed, threads, workers: Vec::new() }
    }
}

impl Growth {
    fn open(&self, thread: u32, random: &mut Random, out: &mut Emitter) -> (ObjectId, u64, u64) {
        let size = self.first.draw(random);
        (out.malloc(thread, size), size, self.full.draw(random))
    }

    /// Grows one buffer; whether it was full and was replaced.
    fn grow(&self, worker: &mut Worker, i: usize, out: &mut Emitter) -> bool {
        let (object, size, full) = worker.buffers[i];
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "below 2^48")]
        let next = ((size as f64 * self.factor.max(1.0)) as u64).max(size) + self.step.max(1);
        if size >= full {
            out.free(worker.thread, object);
            worker.buffers[i] = self.open(worker.thread, &mut worker.random, out);
            return true;
        }
        worker.buffers[i] = (out.realloc(worker.thread, object, next), next, full);
        false
    }
}

impl Workload for GrowthWorkload {
    fn prologue(&mut self, out: &mut Emitter) {
        for (n, thread) in out.workers(self.threads).into_iter().enumerate() {
            let mut random = Random::new(self.seed, n as u64);
            let buffers =
                (0..self.spec.buffers).map(|_| self.spec.open(thread, &mut random, out)).collect();
            self.workers.push(Worker { thread, random, buffers });
        }
    }

    fn body(&mut self, out: &mut Emitter) {
        for worker in &mut self.workers {
            let mut filled = 0;
            while filled < self.spec.filled {
                for i in 0..worker.buffers.len() {
                    filled += u32::from(self.spec.grow(worker, i, out));
                }
            }
        }
    }

    fn epilogue(&mut self, out: &mut Emitter) {
        for worker in &mut self.workers {
            worker.buffers.drain(..).for_each(|(object, ..)| out.free(worker.thread, object));
        }
    }
}
