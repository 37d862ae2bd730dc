//! One thread allocates, another frees.
//!
//! Sources of the shapes: the published descriptions of xmalloc-test (producers and consumers over
//! batches) and of rpmalloc's benchmark (each thread frees what its neighbour allocated).

use std::collections::VecDeque;

use serde::Deserialize;
use traces::ObjectId;

use super::distribution::Distribution;
use super::emitter::Emitter;
use super::random::Random;
use super::source::Workload;

/// Producers allocate, consumers free.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Handoff {
    /// Bytes of an object.
    pub bytes: Distribution,
    /// Objects handed over at a time.
    pub batch: u32,
    /// Batches under way between a producer and its consumer.
    pub depth: u32,
    /// Batches of each pair in one body.
    pub batches: u32,
    /// Most bytes under way between two threads on average; the batch shrinks.
    #[serde(default)]
    pub most_bytes: Option<u64>,
}

#[derive(Debug)]
struct Pair {
    producer: u32,
    consumer: u32,
    random: Random,
    under_way: VecDeque<Vec<ObjectId>>,
}

/// [`Handoff`] at work: `threads` threads in pairs of a producer and a consumer.
#[derive(Debug)]
pub(crate) struct HandoffWorkload {
    spec: Handoff,
    seed: u64,
    threads: u32,
    pairs: Vec<Pair>,
}

impl HandoffWorkload {
    pub(crate) fn new(spec: Handoff, seed: u64, threads: u32) -> Self {
        HandoffWorkload { spec, seed, threads, pairs: Vec::new() }
    }
}

impl Handoff {
    fn produce(&self, pair: &mut Pair, out: &mut Emitter) {
        let share = self.most_bytes.map_or(f64::MAX, |most| {
            most as f64 / self.bytes.mean().max(1.0) / f64::from(self.depth.max(1))
        });
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
        let batch = share.clamp(1.0, f64::from(self.batch.max(1))) as u32;
        let objects = (0..batch)
            .map(|_| out.malloc(pair.producer, self.bytes.draw(&mut pair.random)))
            .collect();
        pair.under_way.push_back(objects);
    }

    fn consume(pair: &mut Pair, out: &mut Emitter) {
        for object in pair.under_way.pop_front().unwrap_or_default() {
            out.free(pair.consumer, object);
        }
    }
}

impl Workload for HandoffWorkload {
    fn prologue(&mut self, out: &mut Emitter) {
        let main = out.birth(None);
        // Two threads are one pair: a thread beside the main one, or the main one itself.
        let threads: Vec<u32> = match self.threads {
            0 | 1 => vec![main, out.birth(Some(main))],
            n => (0..n.next_multiple_of(2)).map(|_| out.birth(Some(main))).collect(),
        };
        for (n, pair) in threads.chunks_exact(2).enumerate() {
            let mut pair = Pair {
                producer: pair[0],
                consumer: pair[1],
                random: Random::new(self.seed, n as u64),
                under_way: VecDeque::new(),
            };
            (0..self.spec.depth).for_each(|_| self.spec.produce(&mut pair, out));
            self.pairs.push(pair);
        }
    }

    fn body(&mut self, out: &mut Emitter) {
        for _ in 0..self.spec.batches {
            for pair in &mut self.pairs {
                self.spec.produce(pair, out);
                Handoff::consume(pair, out);
            }
        }
    }

    fn epilogue(&mut self, out: &mut Emitter) {
        for pair in &mut self.pairs {
            while !pair.under_way.is_empty() {
                Handoff::consume(pair, out);
            }
        }
    }
}

/// Every worker exchanges objects of its own, and now and then hands some to its neighbour.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ring {
    /// Bytes of an object.
    pub bytes: Distribution,
    /// Objects each worker holds.
    pub cells: u32,
    /// Exchanges in one loop.
    pub exchanges: u32,
    /// Every so many loops, objects are handed over.
    pub hand_over_every: u32,
    /// Objects handed over at a time.
    pub hand_over: u32,
    /// Loops in one body.
    pub loops: u32,
}

#[derive(Debug)]
struct RingWorker {
    thread: u32,
    random: Random,
    cells: Vec<ObjectId>,
    received: Vec<ObjectId>,
}

/// [`Ring`] at work.
#[derive(Debug)]
pub(crate) struct RingWorkload {
    spec: Ring,
    seed: u64,
    threads: u32,
    workers: Vec<RingWorker>,
}

impl RingWorkload {
    pub(crate) fn new(spec: Ring, seed: u64, threads: u32) -> Self {
        RingWorkload { spec, seed, threads, workers: Vec::new() }
    }
}

impl Workload for RingWorkload {
    fn prologue(&mut self, out: &mut Emitter) {
        for (n, thread) in out.workers(self.threads).into_iter().enumerate() {
            let mut random = Random::new(self.seed, n as u64);
            let cells = (0..self.spec.cells)
                .map(|_| out.malloc(thread, self.spec.bytes.draw(&mut random)))
                .collect();
            self.workers.push(RingWorker { thread, random, cells, received: Vec::new() });
        }
    }

    fn body(&mut self, out: &mut Emitter) {
        let spec = &self.spec;
        for n in 0..spec.loops {
            for worker in &mut self.workers {
                for _ in 0..spec.exchanges {
                    let i = worker.random.index(worker.cells.len());
                    out.free(worker.thread, worker.cells[i]);
                    let size = spec.bytes.draw(&mut worker.random);
                    worker.cells[i] = out.malloc(worker.thread, size);
                }
            }
            if spec.hand_over_every == 0 || !n.is_multiple_of(spec.hand_over_every) {
                continue;
            }
            let count = self.workers.len();
            for w in 0..count {
                let worker = &mut self.workers[w];
                let given: Vec<ObjectId> = (0..spec.hand_over)
                    .map(|_| out.malloc(worker.thread, spec.bytes.draw(&mut worker.random)))
                    .collect();
                self.workers[(w + 1) % count].received.extend(given);
            }
            for worker in &mut self.workers {
                for object in worker.received.drain(..) {
                    out.free(worker.thread, object);
                }
            }
        }
    }

    fn epilogue(&mut self, out: &mut Emitter) {
        for worker in &mut self.workers {
            worker.cells.drain(..).for_each(|object| out.free(worker.thread, object));
        }
    }
}
