//! What placement does to a program's own writes.
//!
//! Source of the shapes: Berger et al., "Hoard" (2000): cache-thrash shows actively induced false
//! sharing (objects of different threads placed in one cache line), cache-scratch passively induced
//! (a thread frees an object of another and gets the same line again).

use serde::Deserialize;

use super::distribution::Distribution;
use super::emitter::Emitter;
use super::random::Random;
use super::source::Workload;

/// Allocate one object, write to it many times, free it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Writes {
    /// Bytes of an object, all of which are written.
    pub bytes: Distribution,
    /// Times the object is written.
    pub times: u32,
    /// Objects of each worker in one body.
    pub objects: u32,
    /// Each worker begins by freeing an object that the main thread allocated for it.
    #[serde(default)]
    pub inherited: bool,
}

/// [`Writes`] at work.
#[derive(Debug)]
pub(crate) struct WritesWorkload {
    spec: Writes,
    seed: u64,
    threads: u32,
    workers: Vec<(u32, Random)>,
}

impl WritesWorkload {
    pub(crate) fn new(spec: Writes, seed: u64, threads: u32) -> Self {
        WritesWorkload { spec, seed, threads, workers: Vec::new() }
    }
}

impl Workload for WritesWorkload {
    fn prologue(&mut self, out: &mut Emitter) {
        let main = out.birth(None);
        let mut random: Vec<Random> =
            (0..self.threads.max(1)).map(|n| Random::new(self.seed, u64::from(n))).collect();
        // Side by side, before any worker runs.
        let given: Vec<_> = match self.spec.inherited {
            true => random
                .iter_mut()
                .map(|random| out.malloc(main, self.spec.bytes.draw(random)))
                .collect(),
            false => Vec::new(),
        };
        for (n, random) in random.into_iter().enumerate() {
            let worker = if self.threads <= 1 { main } else { out.birth(Some(main)) };
            if let Some(&object) = given.get(n) {
                out.access(worker, object, 1, 1);
                out.free(worker, object);
            }
            self.workers.push((worker, random));
        }
    }

    fn body(&mut self, out: &mut Emitter) {
        for _ in 0..self.spec.objects {
            for (worker, random) in &mut self.workers {
                let size = self.spec.bytes.draw(random);
                let object = out.malloc(*worker, size);
                out.access(*worker, object, size, self.spec.times);
                out.free(*worker, object);
            }
        }
    }

    fn epilogue(&mut self, out: &mut Emitter) {
        for &(worker, _) in &self.workers {
            if worker != 0 {
                out.end(worker);
            }
        }
    }
}
