//! Sizes and lifetimes by distribution: the classic single-threaded shapes.
//!
//! Time is counted in allocations. Every object is given a lifetime when it is born and released
//! when that many allocations have followed; a share of objects lives to the end.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use serde::Deserialize;
use traces::ObjectId;

use super::distribution::Distribution;
use super::emitter::Emitter;
use super::random::Random;
use super::source::Workload;

/// Objects with lifetimes.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lifetimes {
    /// Bytes of an object.
    pub bytes: Distribution,
    /// Allocations that an object outlives.
    pub lifetime: Distribution,
    /// Share of objects that live to the end.
    #[serde(default)]
    pub immortal: f64,
    /// Share of allocations made by `calloc`.
    #[serde(default)]
    pub callocs: f64,
    /// Share of allocations that instead look for a living object to grow by half, by `realloc`.
    /// One that draws the place of an object that is gone makes an ordinary allocation after all:
    /// the share of reallocs is this one times that of the places that hold an object.
    #[serde(default)]
    pub reallocs: f64,
    /// Allocations of each worker in one body.
    pub allocations: u32,
    /// After so many allocations a phase ends, and everything mortal dies with it; 0 = never.
    #[serde(default)]
    pub phase: u32,
}

#[derive(Debug)]
struct Mortal {
    object: ObjectId,
    size: u64,
}

#[derive(Debug)]
struct Worker {
    thread: u32,
    random: Random,
    now: u64,
    /// Deaths in order, with indices into `living`.
    deaths: BinaryHeap<Reverse<(u64, usize)>>,
    living: Vec<Option<Mortal>>,
    vacant: Vec<usize>,
    immortal: Vec<ObjectId>,
}

/// [`Lifetimes`] at work. The number of living objects varies, so the stream is not folded.
#[derive(Debug)]
pub(crate) struct LifetimesWorkload {
    spec: Lifetimes,
    seed: u64,
    threads: u32,
    workers: Vec<Worker>,
}

impl LifetimesWorkload {
    pub(crate) fn new(spec: Lifetimes, seed: u64, threads: u32) -> Self {
        LifetimesWorkload { spec, seed, threads, workers: Vec::new() }
    }
}

impl Worker {
    fn bury(&mut self, upto: u64, out: &mut Emitter) {
        while let Some(&Reverse((death, i))) = self.deaths.peek()
            && death <= upto
        {
            self.deaths.pop();
            if let Some(mortal) = self.living[i].take() {
                out.free(self.thread, mortal.object);
                self.vacant.push(i);
            }
        }
    }

    fn allocate(&mut self, spec: &Lifetimes, out: &mut Emitter) {
        self.now += 1;
        self.bury(self.now, out);
        if spec.phase > 0 && self.now.is_multiple_of(u64::from(spec.phase)) {
            self.bury(u64::MAX, out);
        }
        if spec.reallocs > 0.0 && !self.living.is_empty() && self.random.chance(spec.reallocs) {
            let i = self.random.index(self.living.len());
            if let Some(mortal) = &mut self.living[i] {
                mortal.size = (mortal.size + mortal.size / 2 + 1).min(1 << 24);
                mortal.object = out.realloc(self.thread, mortal.object, mortal.size);
                return;
            }
        }
        let size = spec.bytes.draw(&mut self.random);
        let object = match spec.callocs > 0.0 && self.random.chance(spec.callocs) {
            true => out.calloc(self.thread, 1, size),
            false => out.malloc(self.thread, size),
        };
        if spec.immortal > 0.0 && self.random.chance(spec.immortal) {
            self.immortal.push(object);
            return;
        }
        let death = self.now + 1 + spec.lifetime.draw(&mut self.random);
        let i = self.vacant.pop().unwrap_or(self.living.len());
        let mortal = Some(Mortal { object, size });
        if i == self.living.len() {
            self.living.push(mortal)
        } else {
            self.living[i] = mortal
        }
        self.deaths.push(Reverse((death, i)));
    }
}

impl Workload for LifetimesWorkload {
    fn folds(&self) -> bool {
        false
    }

    fn prologue(&mut self, out: &mut Emitter) {
        for (n, thread) in out.workers(self.threads).into_iter().enumerate() {
            self.workers.push(Worker {
                thread,
                random: Random::new(self.seed, n as u64),
                now: 0,
                deaths: BinaryHeap::new(),
                living: Vec::new(),
                vacant: Vec::new(),
                immortal: Vec::new(),
            });
        }
    }

    fn body(&mut self, out: &mut Emitter) {
        for _ in 0..self.spec.allocations {
            for worker in &mut self.workers {
                worker.allocate(&self.spec, out);
            }
        }
    }

    fn epilogue(&mut self, out: &mut Emitter) {
        for worker in &mut self.workers {
            worker.bury(u64::MAX, out);
            for object in worker.immortal.drain(..) {
                out.free(worker.thread, object);
            }
        }
    }
}
