//! Replace a random one of many: each worker holds an array of objects and exchanges them.
//!
//! Sources of the shapes: Larson and Krishnan, "Memory Allocation for Long-Running Server
//! Applications" (1998); glibc's bench-malloc-thread; the published descriptions of alloc-test.

use serde::Deserialize;
use traces::ObjectId;

use super::distribution::Distribution;
use super::emitter::Emitter;
use super::random::Random;
use super::source::Workload;

/// Replace a random one of many.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cells {
    /// Objects each worker holds.
    pub cells: u32,
    /// Bytes of an object.
    pub bytes: Distribution,
    /// Exchanges of each worker in one body.
    pub exchanges: u32,
    /// The main thread allocates the first objects of all workers.
    #[serde(default)]
    pub filled_by_main: bool,
    /// So many threads follow one another as each worker of one body: a thread makes its share of
    /// the exchanges, gives birth to its successor, which has its objects from then on, and ends.
    /// What a successor releases was allocated by threads that are no more. 0: workers live as
    /// long as the program.
    #[serde(default)]
    pub generations: u32,
    /// Releases state their size.
    #[serde(default)]
    pub sized: bool,
    /// A cell is only emptied or only filled at a time, and starts filled as often as empty.
    #[serde(default)]
    pub toggles: bool,
    /// Four fifths of the exchanges go to one fifth of the cells, again within it.
    #[serde(default)]
    pub skewed: bool,
    /// Share of exchanges made by `realloc`.
    #[serde(default)]
    pub reallocs: f64,
    /// Share of allocations made by `calloc`.
    #[serde(default)]
    pub callocs: f64,
    /// Most bytes that all cells of a worker may hold on average; the number of cells shrinks.
    #[serde(default)]
    pub most_bytes: Option<u64>,
}

#[derive(Debug)]
struct Worker {
    /// Who has the objects now.
    thread: u32,
    random: Random,
    cells: Vec<Option<(ObjectId, u64)>>,
}

/// [`Cells`] at work.
#[derive(Debug)]
pub(crate) struct CellsWorkload {
    spec: Cells,
    seed: u64,
    threads: u32,
    workers: Vec<Worker>,
}

impl CellsWorkload {
    pub(crate) fn new(spec: Cells, seed: u64, threads: u32) -> Self {
        CellsWorkload { spec, seed, threads, workers: Vec::new() }
    }
}

impl Worker {
    /// The present thread gives birth to its successor and, unless it is the main one, ends.
    fn succeed(&mut self, generation: u32, out: &mut Emitter) {
        let successor = out.birth(Some(self.thread));
        if generation > 0 {
            out.end(self.thread);
        }
        self.thread = successor;
    }
}

impl Cells {
    fn allocate(&self, worker: &mut Worker, thread: u32, out: &mut Emitter) -> (ObjectId, u64) {
        let size = self.bytes.draw(&mut worker.random);
        if self.callocs > 0.0 && worker.random.chance(self.callocs) {
            return (out.calloc(thread, 1, size), size);
        }
        (out.malloc(thread, size), size)
    }

    fn free(&self, thread: u32, (object, size): (ObjectId, u64), out: &mut Emitter) {
        if self.sized {
            out.free_sized(thread, object, size);
        } else {
            out.free(thread, object);
        }
    }

    fn pick(&self, worker: &mut Worker) -> usize {
        let mut length = worker.cells.len();
        if self.skewed {
            while length > 5 && worker.random.chance(0.8) {
                length /= 5;
            }
        }
        worker.random.index(length)
    }

    fn exchange(&self, worker: &mut Worker, out: &mut Emitter) {
        let i = self.pick(worker);
        let thread = worker.thread;
        match worker.cells[i].take() {
            Some((old, _)) if self.reallocs > 0.0 && worker.random.chance(self.reallocs) => {
                let size = self.bytes.draw(&mut worker.random);
                worker.cells[i] = Some((out.realloc(thread, old, size), size));
            }
            Some(old) => {
                self.free(thread, old, out);
                if !self.toggles {
                    worker.cells[i] = Some(self.allocate(worker, thread, out));
                }
            }
            None => worker.cells[i] = Some(self.allocate(worker, thread, out)),
        }
    }
}

impl Workload for CellsWorkload {
    fn prologue(&mut self, out: &mut Emitter) {
        let spec = &self.spec;
        let mean = spec.bytes.mean().max(1.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
        let cells = spec.most_bytes.map_or(spec.cells, |most| {
            (most as f64 / mean).clamp(1.0, f64::from(spec.cells)) as u32
        });
        let threads = match spec.generations {
            0 => out.workers(self.threads),
            // Between bodies the main thread has all objects.
            _ => vec![out.birth(None); self.threads.max(1) as usize],
        };
        for (n, thread) in threads.into_iter().enumerate() {
            let random = Random::new(self.seed, n as u64);
            let mut worker = Worker { thread, random, cells: vec![None; cells as usize] };
            let by = if spec.filled_by_main { 0 } else { thread };
            for i in 0..worker.cells.len() {
                if !spec.toggles || worker.random.chance(0.5) {
                    worker.cells[i] = Some(spec.allocate(&mut worker, by, out));
                }
            }
            self.workers.push(worker);
        }
    }

    fn body(&mut self, out: &mut Emitter) {
        let before: Vec<usize> =
            self.workers.iter().map(|w| w.cells.iter().flatten().count()).collect();
        let generations = self.spec.generations;
        for generation in 0..generations.max(1) {
            if generations > 0 {
                self.workers.iter_mut().for_each(|worker| worker.succeed(generation, out));
            }
            for _ in 0..self.spec.exchanges / generations.max(1) {
                for worker in &mut self.workers {
                    self.spec.exchange(worker, out);
                }
            }
        }
        // A body leaves as many objects alive as it found; only cells that toggle can differ.
        for (worker, before) in self.workers.iter_mut().zip(before) {
            let mut now = worker.cells.iter().flatten().count();
            for i in 0..worker.cells.len() {
                if now > before
                    && let Some(object) = worker.cells[i].take()
                {
                    self.spec.free(worker.thread, object, out);
                    now -= 1;
                } else if now < before && worker.cells[i].is_none() {
                    worker.cells[i] = Some(self.spec.allocate(worker, worker.thread, out));
                    now += 1;
                }
            }
            if generations > 0 {
                out.join(worker.thread, 0);
                worker.thread = 0;
            }
        }
    }

    fn epilogue(&mut self, out: &mut Emitter) {
        for worker in &mut self.workers {
            for object in worker.cells.iter_mut().filter_map(Option::take) {
                self.spec.free(worker.thread, object, out);
            }
            if worker.thread != 0 {
                out.end(worker.thread);
            }
        }
    }
}
