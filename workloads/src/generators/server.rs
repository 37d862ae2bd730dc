//! A server with phases, bursts, connections and hand-off; and one that forks.

use serde::Deserialize;
use traces::{ObjectId, Op};

use super::distribution::Distribution;
use super::emitter::Emitter;
use super::random::Random;
use super::source::Workload;

/// A main thread accepts connections, workers serve requests, answers are released elsewhere.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Connections open at a time.
    pub connections: u32,
    /// Bytes kept for a connection.
    pub connection_bytes: Distribution,
    /// Requests in one body, of all workers together.
    pub requests: u32,
    /// Objects allocated and released while a request is served.
    pub request_objects: Distribution,
    /// Bytes of such an object.
    pub request_bytes: Distribution,
    /// Bytes of an answer; the main thread releases it.
    pub answer_bytes: Distribution,
    /// After so many requests the load changes between calm and burst.
    pub phase: u32,
    /// In a burst, requests have so many times as many objects.
    pub burst: u32,
    /// Share of requests after which a connection is closed and another opened.
    pub turnover: f64,
}

/// [`Server`] at work.
#[derive(Debug)]
pub(crate) struct ServerWorkload {
    spec: Server,
    threads: u32,
    random: Random,
    workers: Vec<u32>,
    connections: Vec<(ObjectId, ObjectId)>,
    served: u64,
}

impl ServerWorkload {
    pub(crate) fn new(spec: Server, seed: u64, threads: u32) -> Self {
        let random = Random::new(seed, 0);
        ServerWorkload {
            spec,
            threads,
            random,
            workers: Vec::new(),
            connections: Vec::new(),
            served: 0,
        }
    }

    /// The main thread accepts: its own record, and a buffer that the worker fills.
    fn open(&mut self, worker: u32, out: &mut Emitter) -> (ObjectId, ObjectId) {
        let record = out.calloc(0, 1, 256);
        let buffer = out.malloc(worker, self.spec.connection_bytes.draw(&mut self.random));
        (record, buffer)
    }

    fn request(&mut self, out: &mut Emitter) {
        let spec = self.spec.clone();
        let random = &mut self.random;
        let connection = random.index(self.connections.len());
        let worker = self.workers[connection % self.workers.len()];
        let phase = self.served / u64::from(spec.phase.max(1));
        self.served += 1;
        let times = if phase % 2 == 1 { u64::from(spec.burst.max(1)) } else { 1 };
        let objects = spec.request_objects.draw(random) * times;
        let mut scratch: Vec<ObjectId> = Vec::new();
        for _ in 0..objects {
            scratch.push(out.malloc(worker, spec.request_bytes.draw(random)));
            // Some scratch objects die while the request is parsed.
            if random.chance(0.3) {
                let i = random.index(scratch.len());
                out.free(worker, scratch.swap_remove(i));
            }
        }
        let mut answer = out.malloc(worker, spec.answer_bytes.draw(random));
        if random.chance(0.5) {
            answer = out.realloc(worker, answer, spec.answer_bytes.largest());
        }
        scratch.into_iter().rev().for_each(|object| out.free(worker, object));
        out.free(0, answer);
        if self.random.chance(spec.turnover) {
            let (record, buffer) = self.connections[connection];
            out.free(worker, buffer);
            out.free(0, record);
            self.connections[connection] = self.open(worker, out);
        }
    }
}

impl Workload for ServerWorkload {
    fn prologue(&mut self, out: &mut Emitter) {
        let main = out.birth(None);
        self.workers = (0..self.threads.max(1)).map(|_| out.birth(Some(main))).collect();
        for n in 0..self.spec.connections as usize {
            let worker = self.workers[n % self.workers.len()];
            let connection = self.open(worker, out);
            self.connections.push(connection);
        }
    }

    fn body(&mut self, out: &mut Emitter) {
        (0..self.spec.requests).for_each(|_| self.request(out));
    }

    fn epilogue(&mut self, out: &mut Emitter) {
        let workers = &self.workers;
        for (n, (record, buffer)) in self.connections.drain(..).enumerate() {
            out.free(workers[n % workers.len()], buffer);
            out.free(0, record);
        }
    }
}

/// A heap, and children that are forked from it and use it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForkServer {
    /// Objects of the parent.
    pub objects: u32,
    /// Bytes of an object.
    pub bytes: Distribution,
    /// Children in one body.
    pub children: u32,
    /// Objects the parent exchanges between two children.
    pub exchanges: u32,
}

/// [`ForkServer`] at work.
#[derive(Debug)]
pub(crate) struct ForkServerWorkload {
    spec: ForkServer,
    random: Random,
    living: Vec<ObjectId>,
}

impl ForkServerWorkload {
    pub(crate) fn new(spec: ForkServer, seed: u64) -> Self {
        ForkServerWorkload { spec, random: Random::new(seed, 0), living: Vec::new() }
    }
}

impl Workload for ForkServerWorkload {
    fn prologue(&mut self, out: &mut Emitter) {
        out.birth(None);
        for _ in 0..self.spec.objects {
            let size = self.spec.bytes.draw(&mut self.random);
            self.living.push(out.malloc(0, size));
        }
    }

    fn body(&mut self, out: &mut Emitter) {
        for _ in 0..self.spec.children {
            out.op(0, Op::Fork { child: 0 });
            for _ in 0..self.spec.exchanges {
                let i = self.random.index(self.living.len());
                out.free(0, self.living[i]);
                let size = self.spec.bytes.draw(&mut self.random);
                self.living[i] = out.malloc(0, size);
            }
        }
    }

    fn epilogue(&mut self, out: &mut Emitter) {
        self.living.drain(..).for_each(|object| out.free(0, object));
    }
}
