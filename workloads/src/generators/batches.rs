//! Allocate many, free many, in a stated order.
//!
//! Sources of the shapes: Berger et al., "Hoard" (2000) for threadtest; glibc's
//! bench-malloc-simple; the published description of MicroQuill's sh6bench and sh8bench.

use serde::Deserialize;
use traces::ObjectId;

use super::distribution::Distribution;
use super::emitter::Emitter;
use super::random::Random;
use super::source::Workload;

/// In which order a batch is released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FreeOrder {
    /// Last in, first out.
    Lifo,
    /// First in, first out.
    Fifo,
    /// At random.
    Random,
    /// Every second one from the front, then the rest from the back.
    Mixed,
}

/// Allocate many, free many.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batches {
    /// Objects of a batch.
    pub objects: u32,
    /// Bytes of an object.
    pub bytes: Distribution,
    /// In which order they are released.
    pub order: FreeOrder,
    /// Batches of each worker in one body.
    pub batches: u32,
    /// Of this many batches, one is released only when the next one like it has been allocated.
    #[serde(default)]
    pub kept_one_in: u32,
    /// The objects are divided among the workers, so that the work does not grow with them.
    #[serde(default)]
    pub shared: bool,
    /// Most bytes that a batch may hold on average; the number of objects shrinks.
    #[serde(default)]
    pub most_bytes: Option<u64>,
}

/// [`Batches`] at work.
#[derive(Debug)]
pub(crate) struct BatchesWorkload {
    spec: Batches,
    seed: u64,
    threads: u32,
    workers: Vec<(u32, Random, Vec<ObjectId>)>,
}

impl BatchesWorkload {
    pub(crate) fn new(spec: Batches, seed: u64, threads: u32) -> Self {
        BatchesWorkload { spec, seed, threads, workers: Vec::new() }
    }
}

impl Batches {
    fn count(&self, threads: u32) -> u32 {
        let mean = self.bytes.mean().max(1.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
        let objects = self.most_bytes.map_or(self.objects, |most| {
            (most as f64 / mean).clamp(1.0, f64::from(self.objects)) as u32
        });
        if self.shared { objects.div_ceil(threads.max(1)) } else { objects }
    }

    fn release(
        &self,
        thread: u32,
        random: &mut Random,
        mut batch: Vec<ObjectId>,
        out: &mut Emitter,
    ) {
        match self.order {
            FreeOrder::Lifo => batch.reverse(),
            FreeOrder::Fifo => {}
            FreeOrder::Random => {
                for i in (1..batch.len()).rev() {
                    batch.swap(i, random.index(i + 1));
                }
            }
            FreeOrder::Mixed => {
                let odd = batch.iter().skip(1).step_by(2).rev();
                batch = batch.iter().step_by(2).chain(odd).copied().collect();
            }
        }
        batch.into_iter().for_each(|object| out.free(thread, object));
    }
}

impl Workload for BatchesWorkload {
    fn prologue(&mut self, out: &mut Emitter) {
        let kept = self.spec.kept_one_in > 0;
        let count = self.spec.count(self.threads);
        for (n, thread) in out.workers(self.threads).into_iter().enumerate() {
            let mut random = Random::new(self.seed, n as u64);
            let first = if kept { count } else { 0 };
            let batch =
                (0..first).map(|_| out.malloc(thread, self.spec.bytes.draw(&mut random))).collect();
            self.workers.push((thread, random, batch));
        }
    }

    fn body(&mut self, out: &mut Emitter) {
        let spec = &self.spec;
        let count = spec.count(self.threads);
        for n in 0..spec.batches {
            for (thread, random, kept) in &mut self.workers {
                let mut batch: Vec<ObjectId> =
                    (0..count).map(|_| out.malloc(*thread, spec.bytes.draw(random))).collect();
                if spec.kept_one_in > 0 && n.is_multiple_of(spec.kept_one_in) {
                    std::mem::swap(kept, &mut batch);
                }
                spec.release(*thread, random, batch, out);
            }
        }
    }

    fn epilogue(&mut self, out: &mut Emitter) {
        for (thread, random, kept) in &mut self.workers {
            self.spec.release(*thread, random, std::mem::take(kept), out);
            if *thread != 0 {
                out.end(*thread);
            }
        }
    }
}
