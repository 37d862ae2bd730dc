//! Events in, one at a time: waits, slots and words out.
//!
//! # Invariants
//! 1. An event's waits name places of events that came before it.
//! 2. `threads[t].place` counts what stands in stream `t` of the spool, words of time excepted.
//! 3. Every live object has one slot, and no two live objects share one.
#![forbid(unsafe_code)]

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use traces::{Event, ObjectId, Op};

use super::clock::Clocks;
use super::error::PlanError;
use super::hash::StreamHash;
use super::layout::Counts;
use super::order::Order;
use super::prepare::PlanOptions;
use super::record;
use super::seam::{Body, Seam};
use super::slots::Slots;
use super::spool::Spool;

/// Places of a thread that others wait for together.
const LINE: u64 = 64;

/// A wait: before place `before`, `other` must have done `places` places.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wait {
    pub(crate) before: u64,
    pub(crate) other: u32,
    pub(crate) places: u64,
}

/// One thread under construction.
#[derive(Debug, Default)]
pub(crate) struct Thread {
    pub(crate) place: u64,
    pub(crate) waits: Vec<Wait>,
    /// Places somebody waits for; in any order, with repetitions.
    pub(crate) marks: Vec<u64>,
    /// Places at which body and epilogue begin.
    pub(crate) sections: [u64; 2],
    pub(crate) spawned: bool,
    pub(crate) ended: bool,
    /// Born in the body: born, and ended, in each of its repetitions.
    pub(crate) in_body: bool,
    /// The last piece of the total order in which the thread did something.
    pub(crate) piece: Option<u64>,
}

/// One live object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Object {
    pub(crate) slot: u32,
    pub(crate) size: u64,
    /// Bytes that its slot's object has in every run: also where a realloc is refused, and in every
    /// repetition of a body.
    pub(crate) sure: u64,
    pub(crate) born_by: u32,
    /// Who used it last, and where.
    pub(crate) last: (u32, u64),
}

/// Spreads dense numbers over a table.
#[derive(Debug, Default)]
pub(crate) struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }
    fn write_u64(&mut self, n: u64) {
        self.0 = (self.0 ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(26);
    }
}

/// Live objects by number.
pub(crate) type Objects = HashMap<u64, Object, BuildHasherDefault<Spread>>;

/// What is known of the total order's pieces, for `window` and `epoch`.
#[derive(Debug, Default)]
struct Pieces {
    length: u64,
    /// A piece waits for the piece this many before it.
    lag: usize,
    current: u64,
    /// Threads that did something in the pieces not yet closed, oldest piece first, each with its
    /// places at the end of the piece and the event that came last.
    open: std::collections::VecDeque<Vec<(u32, u64, u64)>>,
    /// Per thread, places in closed pieces, and which piece was the current one when the last of
    /// them was closed; most recently active thread first.
    closed: Vec<(u32, u64, u64)>,
}

/// A plan under construction.
#[derive(Debug)]
pub(crate) struct Builder {
    pub(crate) options: PlanOptions,
    pub(crate) threads: Vec<Thread>,
    pub(crate) clocks: Clocks,
    pub(crate) slots: Slots,
    pub(crate) spool: Spool,
    pub(crate) index: Option<Spool>,
    pub(crate) objects: Objects,
    pub(crate) events: u64,
    pub(crate) hash: StreamHash,
    pub(crate) counts: [Counts; 3],
    pub(crate) section: usize,
    pub(crate) body: Body,
    pub(crate) has_times: bool,
    pub(crate) sized_frees: bool,
    /// Some access is to more bytes than are sure.
    pub(crate) unsure_accesses: bool,
    pub(crate) cross_thread_frees: u64,
    pub(crate) live_bytes: u64,
    pub(crate) peak_live_bytes: u64,
    pub(crate) peak_live_objects: u64,
    pub(crate) largest_request: u64,
    pub(crate) peak_threads: u64,
    pub(crate) alive: u64,
    pieces: Pieces,
    /// Who did something last, births of others included.
    pub(crate) last_thread: Option<u32>,
    /// The latest birth: who did it, and where.
    pub(crate) last_spawn: Option<(u32, u64)>,
}

impl Builder {
    pub(crate) fn new(options: PlanOptions, spool: Spool, index: Option<Spool>) -> Self {
        let (length, lag) = match options.order {
            Order::Deps | Order::Strict => (0, 0),
            Order::Window(n) => ((n / 4).max(1), 4),
            Order::Epoch(n) => (n.max(1), 1),
        };
        Builder {
            options,
            threads: Vec::new(),
            clocks: Clocks::default(),
            slots: Slots::default(),
            spool,
            index,
            objects: Objects::default(),
            events: 0,
            hash: StreamHash::default(),
            counts: [Counts::default(); 3],
            section: 0,
            body: Body::default(),
            has_times: false,
            sized_frees: false,
            unsure_accesses: false,
            cross_thread_frees: 0,
            live_bytes: 0,
            peak_live_bytes: 0,
            peak_live_objects: 0,
            largest_request: 0,
            peak_threads: 0,
            alive: 0,
            pieces: Pieces { length, lag, ..Pieces::default() },
            last_thread: None,
            last_spawn: None,
        }
    }

    /// Takes the next event of the stream.
    pub(crate) fn event(&mut self, event: &Event) -> Result<(), PlanError> {
        self.hash.add(event);
        let thread = self.thread(event)?;
        if self.threads[thread as usize].ended {
            return self.impossible(format!("thread {thread} does something after its end"));
        }
        match event.op {
            Op::ThreadStart { .. } => {}
            Op::ThreadEnd => self.end(thread)?,
            Op::Marker { value } => match Seam::from_marker(value) {
                Some(Seam::Begin) => self.begin_body()?,
                Some(Seam::End { repeat }) => self.end_body(repeat)?,
                None => {}
            },
            op => {
                self.keep_order(thread);
                let time = event.time_ns.filter(|_| self.options.times);
                self.has_times |= time.is_some();
                self.operation(thread, &op, time)?;
                self.last_thread = Some(thread);
            }
        }
        self.events += 1;
        Ok(())
    }

    pub(crate) fn impossible<T>(&self, what: String) -> Result<T, PlanError> {
        Err(PlanError::Stream { event: self.events, what })
    }

    /// Appends one place to a stream; returns its number.
    pub(crate) fn push(&mut self, thread: u32, words: &[u64]) -> Result<u64, PlanError> {
        let io = |source| PlanError::Io { verb: "write", path: std::env::temp_dir(), source };
        self.spool.push(thread, words).map_err(io)?;
        if let Some(index) = &mut self.index {
            index.push(thread, &[self.events]).map_err(io)?;
        }
        let place = &mut self.threads[thread as usize].place;
        *place += 1;
        Ok(*place - 1)
    }

    /// `thread`'s next place comes after `other` has done `places` places.
    ///
    /// A wait asks for a little more: for the end of the line of places, as far as `other` has come
    /// in the total order. Whoever takes many objects of one thread then waits once for a line of
    /// them, and that thread publishes once.
    pub(crate) fn need(&mut self, thread: u32, other: u32, places: u64) {
        if thread == other || places == 0 || self.clocks.knows(thread, other, places) {
            return;
        }
        let state = &self.threads[other as usize];
        let reached = if places <= state.sections[0] { state.sections[0] } else { state.place };
        let places = places.next_multiple_of(LINE).min(reached).max(places);
        if self.section == 1 && places > self.threads[other as usize].sections[0] {
            self.body.crosses_threads = true;
        }
        let before = self.threads[thread as usize].place;
        self.clocks.wait(thread, before, other, places);
        self.threads[thread as usize].waits.push(Wait { before, other, places });
        self.threads[other as usize].marks.push(places - 1);
    }

    /// Adds the waits that the order asks for before the present event.
    pub(crate) fn keep_order(&mut self, thread: u32) {
        if self.options.order == Order::Strict {
            if let Some(last) = self.last_thread {
                self.need(thread, last, self.threads[last as usize].place);
            }
            return;
        }
        if self.pieces.length == 0 {
            return;
        }
        let piece = self.events / self.pieces.length;
        while self.pieces.current < piece {
            self.close_piece();
        }
        let before = self.threads[thread as usize].piece.replace(piece);
        if before != Some(piece) {
            for i in 0..self.pieces.closed.len() {
                let (other, places, since) = self.pieces.closed[i];
                if before.is_some_and(|before| since <= before) {
                    break; // Waited for then, as all that follow.
                }
                self.need(thread, other, places);
            }
        }
        if self.pieces.open.is_empty() {
            self.pieces.open.push_back(Vec::new());
        }
        let event = self.events;
        let place = self.threads[thread as usize].place;
        let open = self.pieces.open.back_mut().expect("just made");
        match open.iter_mut().find(|entry| entry.0 == thread) {
            Some(entry) => (entry.1, entry.2) = (place + 1, event),
            None => open.push((thread, place + 1, event)),
        }
    }

    fn close_piece(&mut self) {
        let pieces = &mut self.pieces;
        pieces.current += 1;
        pieces.open.push_back(Vec::new());
        while pieces.open.len() > pieces.lag {
            let mut list = pieces.open.pop_front().unwrap_or_default();
            list.sort_unstable_by_key(|entry| std::cmp::Reverse(entry.2));
            let active: HashSet<u32> = list.iter().map(|e| e.0).collect();
            pieces.closed.retain(|e| !active.contains(&e.0));
            pieces.closed.splice(0..0, list.iter().map(|e| (e.0, e.1, pieces.current)));
        }
    }

    /// Removes a released object, after waiting for its last use.
    fn release(&mut self, thread: u32, id: ObjectId) -> Result<Object, PlanError> {
        let Some(object) = self.objects.remove(&id.index()) else {
            return self.impossible(format!("it uses object {}, which is not alive", id.index()));
        };
        let (other, place) = object.last;
        self.need(thread, other, place + 1);
        self.live_bytes -= object.size;
        Ok(object)
    }

    fn born(&mut self, thread: u32, id: ObjectId, slot: u32, size: u64, place: u64) {
        let object = Object { slot, size, sure: size, born_by: thread, last: (thread, place) };
        self.objects.insert(id.index(), object);
        self.live_bytes += size;
        self.peak_live_bytes = self.peak_live_bytes.max(self.live_bytes);
        self.peak_live_objects = self.peak_live_objects.max(self.objects.len() as u64);
    }

    fn operation(&mut self, thread: u32, op: &Op, time: Option<u64>) -> Result<(), PlanError> {
        if let Some(size) = op.requested() {
            self.largest_request = self.largest_request.max(size);
        }
        let count = &mut self.counts[self.section];
        count.operations += u64::from(!matches!(op, Op::Access { .. } | Op::Fork { .. }));
        count.allocations += u64::from(op.born().is_some());
        count.frees += u64::from(op.released().is_some());
        if op.born().is_some() {
            count.requested_bytes =
                count.requested_bytes.saturating_add(op.requested().unwrap_or(0));
        }
        let mut words = [0; 3];
        let mut n = 0;
        if let Some(time) = time {
            words[0] = u64::from(record::AT) | time << 8;
            n = 1;
        }
        self.encode(thread, op, &mut words, &mut n)
    }

    fn encode(
        &mut self,
        thread: u32,
        op: &Op,
        words: &mut [u64; 3],
        n: &mut usize,
    ) -> Result<(), PlanError> {
        let mut add = |word: u64| {
            words[*n] = word;
            *n += 1;
        };
        match *op {
            Op::Malloc { object: None, size } => {
                self.counts[self.section].retried += 1;
                add(record::word(record::TRY, 0, 0));
                add(size);
            }
            Op::Calloc { object: None, count, size } => {
                self.counts[self.section].retried += 1;
                add(record::word(record::TRY, 0, 0));
                add(count.saturating_mul(size));
            }
            Op::Aligned { object: None, size, .. }
            | Op::Realloc { old: None, object: None, size } => {
                self.counts[self.section].retried += 1;
                add(record::word(record::TRY, 0, 0));
                add(size);
            }
            Op::Malloc { object: Some(id), size } => {
                self.counts[self.section].malloc += 1;
                let slot = self.slot(thread)?;
                sized(&mut add, record::MALLOC, record::MALLOC_WIDE, slot, size);
                let place = self.push(thread, &words[..*n])?;
                self.born(thread, id, slot, size, place);
                return Ok(());
            }
            Op::Calloc { object: Some(id), count, size } => {
                self.counts[self.section].calloc += 1;
                let slot = self.slot(thread)?;
                if count == 1 && size <= record::FIELD_MAX {
                    add(record::word(record::CALLOC, slot, size));
                } else {
                    let (inline, other) =
                        if size <= record::FIELD_MAX { (size, count) } else { (count, size) };
                    add(record::word(record::CALLOC_N, slot, inline.min(record::FIELD_MAX)));
                    add(other);
                }
                let place = self.push(thread, &words[..*n])?;
                self.born(thread, id, slot, count.saturating_mul(size), place);
                return Ok(());
            }
            Op::Aligned { object: Some(id), align, size, api } => {
                self.counts[self.section].aligned += 1;
                let slot = self.slot(thread)?;
                add(record::word(record::ALIGNED, slot, 0));
                add(record::aligned_payload(align, api, size.min(u64::MAX >> 16)));
                let place = self.push(thread, &words[..*n])?;
                self.born(thread, id, slot, size, place);
                return Ok(());
            }
            Op::Realloc { old: None, object: Some(id), size } => {
                self.counts[self.section].realloc += 1;
                let slot = self.slot(thread)?;
                sized(&mut add, record::REALLOC_NEW, record::REALLOC_NEW_WIDE, slot, size);
                let place = self.push(thread, &words[..*n])?;
                self.born(thread, id, slot, size, place);
                return Ok(());
            }
            Op::Realloc { old: Some(old), object: Some(id), size } => {
                self.counts[self.section].realloc += 1;
                let Object { slot, sure, .. } = self.release(thread, old)?;
                self.body.released(slot, thread);
                sized(&mut add, record::REALLOC, record::REALLOC_WIDE, slot, size);
                let place = self.push(thread, &words[..*n])?;
                self.born(thread, id, slot, size, place);
                self.no_surer(id, sure);
                return Ok(());
            }
            Op::Realloc { old: Some(old), object: None, size: 0 } => {
                self.counts[self.section].realloc += 1;
                let slot = self.release(thread, old)?.slot;
                self.body.released(slot, thread);
                add(record::word(record::REALLOC_ZERO, slot, 0));
                let place = self.push(thread, &words[..*n])?;
                self.slots.give(slot, thread, place);
                return Ok(());
            }
            Op::Free { object: Some(id), stated_size } => {
                self.counts[self.section].free += 1;
                let object = self.release(thread, id)?;
                self.cross_thread_frees += u64::from(object.born_by != thread);
                self.body.released(object.slot, thread);
                self.sized_frees |= stated_size.is_some();
                let code = if stated_size.is_some() { record::FREE_SIZED } else { record::FREE };
                add(record::word(code, object.slot, 0));
                let place = self.push(thread, &words[..*n])?;
                self.slots.give(object.slot, thread, place);
                return Ok(());
            }
            // A realloc that failed in the trace: its object lives on, whatever becomes of this one.
            Op::Realloc { old: Some(id), object: None, size } => {
                self.counts[self.section].realloc += 1;
                let Object { slot, .. } = self.use_object(thread, id)?;
                self.no_surer(id, size);
                add(record::word(record::REALLOC_TRY, slot, 0));
                add(size);
            }
            Op::UsableSize { object: Some(id) } => {
                self.counts[self.section].usable_size += 1;
                let Object { slot, .. } = self.use_object(thread, id)?;
                add(record::word(record::USABLE, slot, 0));
            }
            Op::Access { object, bytes, times } => {
                let Object { slot, size, sure, .. } = self.use_object(thread, object)?;
                // A trace may state more than it asked for. No object has room for that.
                let bytes = bytes.min(size).min(record::FIELD_MAX);
                self.unsure_accesses |= bytes > sure;
                add(record::word(record::ACCESS, slot, bytes));
                add(u64::from(times));
            }
            Op::Free { object: None, .. } => {
                self.counts[self.section].free_null += 1;
                add(record::word(record::FREE_NULL, 0, 0));
            }
            Op::UsableSize { object: None } => {
                self.counts[self.section].usable_size += 1;
                add(record::word(record::USABLE_NULL, 0, 0));
            }
            Op::Fork { .. } => add(record::word(record::FORK, 0, 0)),
            Op::ThreadStart { .. } | Op::ThreadEnd | Op::Marker { .. } => return Ok(()),
        }
        self.push(thread, &words[..*n])?;
        Ok(())
    }

    fn slot(&mut self, thread: u32) -> Result<u32, PlanError> {
        self.slots.take(thread, &self.clocks).ok_or(PlanError::TooLarge {
            what: "more than 2^28 objects without an order between them",
        })
    }

    /// No more than `bytes` are sure of an object: a run may leave it so small.
    fn no_surer(&mut self, id: ObjectId, bytes: u64) {
        if let Some(object) = self.objects.get_mut(&id.index()) {
            object.sure = object.sure.min(bytes);
        }
    }

    /// An object that is used and lives on.
    fn use_object(&mut self, thread: u32, id: ObjectId) -> Result<Object, PlanError> {
        let Some(&used) = self.objects.get(&id.index()) else {
            return self.impossible(format!("it uses object {}, which is not alive", id.index()));
        };
        let (other, place) = used.last;
        self.need(thread, other, place + 1);
        let place = self.threads[thread as usize].place;
        if let Some(object) = self.objects.get_mut(&id.index()) {
            object.last = (thread, place);
        }
        Ok(used)
    }
}

fn sized(add: &mut impl FnMut(u64), code: u8, wide: u8, slot: u32, size: u64) {
    if size <= record::FIELD_MAX {
        add(record::word(code, slot, size));
    } else {
        add(record::word(wide, slot, 0));
        add(size);
    }
}
