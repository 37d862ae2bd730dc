//! Threads merged by stamp, addresses turned into objects.
//!
//! Every thread's slots are in its own order; the merge always takes the earliest stamp, so that
//! each release of an address comes before the allocation that gets the address again. What the
//! stamps leave out of order is repaired: an allocation that returns a live address holds its
//! thread back until somebody releases that address, for at most [`SKEW`] ticks; then a release is
//! added in front (`missing_free`).
//!
//! # Invariants
//! 1. A thread is in `heap` (it has a next record) or in `held`, never in both.
//! 2. `live` maps every address that is live at this point of the stream to its object.
//! 3. Events come out in an order that keeps every thread's own.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use trace_format::v1::raw::{self, ProcessBlock, RawOp, RawRecord, Slot};

use super::held::{Held, Wait};
use super::raw::{Bytes, Segment};
use crate::error::TraceError;
use crate::event::{AlignedApi, Event, ObjectId, Op, ThreadId, served_alignment};
use crate::import::{Census, Position};

/// How much later than an allocation the release of its address may be stamped, in ticks of the
/// recorder's clock. Two cores' counters, and the instructions that read them out of turn, differ by
/// less than a microsecond; these are 15 µs or more at any rate below 4 GHz. Where stamps count
/// calls, it is that many calls. More would keep a thread whose release was lost away from what the
/// others do meanwhile.
const SKEW: u64 = 1 << 16;
/// Slots read at once for one thread; less where there are very many threads.
const WINDOW: usize = 2048;

/// What is known besides the raw file itself.
#[derive(Clone, Debug, Default)]
pub struct ResolveOptions {
    /// Children by the stamp of their fork.
    pub children: HashMap<u64, u32>,
    /// Addresses that were live in the parent when it forked this process.
    pub inherited: HashSet<u64>,
}

/// Addresses kept in all for the children of one process; a child beyond it is told nothing.
const MAX_INHERITED: usize = 1 << 24;

/// Multiplies and folds: addresses need no defence against their owner.
#[derive(Debug, Default)]
struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        let mixed = (self.0 ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ mixed >> 32;
    }
}

type AddressMap<V> = HashMap<u64, V, BuildHasherDefault<AddressHasher>>;

/// One thread's records, read window by window.
#[derive(Debug, Default)]
struct Stream {
    segments: VecDeque<Segment>,
    window: VecDeque<RawRecord>,
    /// No record comes before this stamp.
    now: u64,
    /// The realloc at the front has released its old object.
    begun: bool,
    /// What that was.
    taken: Option<(u64, ObjectId)>,
    id: Option<ThreadId>,
    parent: u64,
    ended: bool,
}

/// Yields the events of one raw file.
#[derive(Debug)]
pub(super) struct Resolver {
    bytes: Bytes,
    streams: Vec<Stream>,
    /// Places of `streams` by the recorder's thread numbers.
    numbers: HashMap<u32, usize>,
    heap: BinaryHeap<Reverse<(u64, bool, usize)>>,
    held: Held,
    live: AddressMap<ObjectId>,
    out: VecDeque<Event>,
    /// Left alive by a failed realloc, though its address is another's.
    orphan: Option<ObjectId>,
    next_object: u64,
    next_thread: u32,
    ns_per_tick: Option<f64>,
    /// The stamp at which the stream begins: that of its first record.
    base: u64,
    window: usize,
    /// Bytes of slots read, and in all.
    read: u64,
    total: u64,
    census: Census,
    options: ResolveOptions,
    /// What was live at each fork, also of what was inherited, for the children.
    pub(super) fork_heaps: HashMap<u64, HashSet<u64>>,
}

impl Resolver {
    pub(super) fn new(
        bytes: Bytes,
        block: &ProcessBlock,
        segments: Vec<Segment>,
        census: Census,
        options: ResolveOptions,
    ) -> Self {
        let ticks = block.last_ticks.saturating_sub(block.first_ticks);
        let ns = block.last_ns.saturating_sub(block.first_ns);
        let known = block.clocked && ticks > 0 && ns > 0;
        // The recorder's numbers are only names here: a damaged file may hold any.
        let mut numbers: HashMap<u32, usize> = HashMap::new();
        let mut streams: Vec<Stream> = Vec::new();
        let total = segments.iter().map(|segment| u64::from(segment.len)).sum();
        let base = segments.iter().map(|segment| segment.first_stamp).min().unwrap_or(0);
        for segment in segments {
            let place = *numbers.entry(segment.thread).or_insert(streams.len());
            if place == streams.len() {
                streams.push(Stream { now: segment.first_stamp, ..Stream::default() });
            }
            streams[place].segments.push_back(segment);
        }
        let heap = streams.iter().enumerate().map(|(i, s)| Reverse((s.now, false, i))).collect();
        Resolver {
            window: (WINDOW * 512 / streams.len().max(512)).max(32),
            bytes,
            streams,
            numbers,
            heap,
            held: Held::default(),
            live: AddressMap::default(),
            out: VecDeque::new(),
            orphan: None,
            next_object: 0,
            next_thread: 0,
            ns_per_tick: known.then(|| ns as f64 / ticks as f64),
            base,
            read: 0,
            total,
            census,
            options,
            fork_heaps: HashMap::new(),
        }
    }

    pub(super) fn census(&self) -> Census {
        Census { leaked: self.live.len() as u64, ..self.census.clone() }
    }

    pub(super) fn position(&self) -> Position {
        Position { done: self.read, total: self.total }
    }

    /// Nanoseconds from the making of the file to the beginning of the stream; 0 without a clock.
    pub(super) fn began_ns(&self) -> u64 {
        self.ns_per_tick.map_or(0, |ns| (self.base as f64 * ns) as u64)
    }

    pub(super) fn next_event(&mut self) -> Result<Option<Event>, TraceError> {
        loop {
            if let Some(event) = self.out.pop_front() {
                return Ok(Some(event));
            }
            if !self.step()? {
                return Ok(None);
            }
        }
    }

    /// Takes the earliest record of all threads; `false` once there is none.
    fn step(&mut self) -> Result<bool, TraceError> {
        let next = self.heap.peek().map_or(u64::MAX, |&Reverse((stamp, ..))| stamp);
        if let Some(held) = self.held.expired(next) {
            self.free_in_its_place(held);
            self.schedule(held.thread);
        }
        let Some(Reverse((_, _, thread))) = self.heap.pop() else { return Ok(false) };
        let Some(&record) = self.streams[thread].window.front() else {
            // The stamp of what follows is known only when it was read.
            self.refill(thread)?;
            match self.streams[thread].window.is_empty() {
                true => self.end(thread),
                false => self.schedule(thread),
            }
            return Ok(true);
        };
        let stream = &mut self.streams[thread];
        if record.op == RawOp::Realloc && !stream.begun {
            stream.begun = true;
            self.census.records += 1;
            self.take_old(thread, record.extra);
            self.schedule(thread);
        } else if self.live.contains_key(&allocated(&record)) {
            self.census.inversions += 1;
            let until = stream.now + SKEW;
            self.held.wait(Wait { until, thread, address: allocated(&record) });
        } else {
            let stream = &mut self.streams[thread];
            stream.window.pop_front();
            stream.begun = false;
            self.census.records += u64::from(record.op != RawOp::Realloc);
            self.apply(thread, &record);
            self.schedule(thread);
        }
        Ok(true)
    }

    /// Puts the thread back in line with the stamp of its next record.
    fn schedule(&mut self, thread: usize) {
        let stream = &mut self.streams[thread];
        let (stamp, allocates) = match stream.window.front() {
            Some(record) if record.op == RawOp::Realloc && !stream.begun => (record.before, false),
            Some(record) => (record.stamp, allocated(record) != 0),
            None => (stream.segments.front().map_or(stream.now, |s| s.first_stamp), false),
        };
        stream.now = stream.now.max(stamp);
        self.heap.push(Reverse((stream.now, allocates, thread)));
    }

    /// Makes sure that the thread's window holds a record, if there is one left.
    fn refill(&mut self, thread: usize) -> Result<(), TraceError> {
        let stream = &mut self.streams[thread];
        while stream.window.is_empty() {
            let Some(segment) = stream.segments.front_mut() else { return Ok(()) };
            let want = (segment.len as usize).min(self.window * raw::SLOT);
            let mut buffer = vec![0; want];
            let got = self.bytes.read(&mut buffer, segment.offset)?;
            let mut input = &buffer[..got];
            const LONG: usize = raw::LONG_SLOTS * raw::SLOT;
            loop {
                // A long record may go on behind the window: leave it to the next one.
                let rest = input.len();
                if rest < LONG && rest < segment.len as usize && got > LONG {
                    break;
                }
                match raw::take_slot(&mut input) {
                    Some(Slot::Record(record)) => stream.window.push_back(record),
                    Some(Slot::Empty | Slot::Unknown) => {}
                    None => break,
                }
            }
            let used = got - input.len();
            self.read += used as u64;
            segment.offset += used as u64;
            segment.len -= used as u32;
            if segment.len < raw::SLOT as u32 || used == 0 {
                stream.segments.pop_front();
            }
            // A signal handler's records may stand behind the one it interrupted.
            stream.window.make_contiguous().sort_by_key(|record| record.stamp);
        }
        Ok(())
    }

    /// Turns one record into events.
    fn apply(&mut self, thread: usize, record: &RawRecord) {
        if record.op == RawOp::ThreadStart {
            self.streams[thread].parent = record.size;
        }
        self.start(thread);
        let op = match record.op {
            RawOp::ThreadStart | RawOp::ThreadGoesOn => return,
            RawOp::ThreadEnd => {
                self.streams[thread].ended = true;
                return;
            }
            RawOp::Free | RawOp::FreeSized => {
                let stated_size = (record.op == RawOp::FreeSized).then_some(record.size);
                match self.release(record.address) {
                    None if record.address != 0 => {
                        match self.options.inherited.remove(&record.address) {
                            true => self.census.inherited_free += 1,
                            false => self.census.unknown_free += 1,
                        }
                        return;
                    }
                    None => {
                        self.census.free_null += 1;
                        Op::Free { object: None, stated_size }
                    }
                    object => Op::Free { object, stated_size },
                }
            }
            RawOp::UsableSize => match self.live.get(&record.address) {
                None if record.address != 0 => {
                    let inherited = self.options.inherited.contains(&record.address);
                    self.census.unknown_use += u64::from(!inherited);
                    return;
                }
                object => Op::UsableSize { object: object.copied() },
            },
            RawOp::Fork => {
                let child = self.options.children.get(&record.stamp).copied();
                let kept: usize = self.fork_heaps.values().map(HashSet::len).sum();
                let inherited = &self.options.inherited;
                if child.is_some() && kept + self.live.len() + inherited.len() <= MAX_INHERITED {
                    let heap = self.live.keys().chain(inherited).copied().collect();
                    self.fork_heaps.insert(record.stamp, heap);
                }
                Op::Fork { child: child.unwrap_or(0) }
            }
            RawOp::Marker => Op::Marker { value: record.address },
            RawOp::Realloc => self.finish_realloc(thread, record),
            _ => self.allocation(record),
        };
        self.emit(thread, op);
        if let Some(object) = self.orphan.take() {
            self.census.missing_free += 1;
            self.emit(thread, Op::Free { object: Some(object), stated_size: None });
        }
    }

    fn allocation(&mut self, record: &RawRecord) -> Op {
        let object = self.birth(record.address);
        self.census.failed_allocations += u64::from(object.is_none());
        let RawRecord { size, extra, .. } = *record;
        let align = if object.is_some() { served_alignment(extra) } else { extra };
        let aligned = |api| Op::Aligned { object, align, size, api };
        match record.op {
            RawOp::Calloc => Op::Calloc { object, count: extra, size },
            RawOp::Memalign => aligned(AlignedApi::Memalign),
            RawOp::AlignedAlloc => aligned(AlignedApi::AlignedAlloc),
            RawOp::PosixMemalign => aligned(AlignedApi::PosixMemalign),
            RawOp::Valloc => aligned(AlignedApi::Valloc),
            RawOp::Pvalloc => aligned(AlignedApi::Pvalloc),
            RawOp::CxxNew => aligned(AlignedApi::CxxNew),
            _ => Op::Malloc { object, size },
        }
    }

    /// The first half of a realloc: whatever it returns, nobody else can free `old` now.
    fn take_old(&mut self, thread: usize, old: u64) {
        let taken = self.release(old);
        if taken.is_none() && old != 0 {
            match self.options.inherited.remove(&old) {
                true => self.census.inherited_free += 1,
                false => self.census.unknown_realloc += 1,
            }
        }
        self.streams[thread].taken = taken.map(|object| (old, object));
    }

    /// The second half: a new object, or the old one still alive.
    fn finish_realloc(&mut self, thread: usize, record: &RawRecord) -> Op {
        let taken = self.streams[thread].taken.take();
        let object = self.birth(record.address);
        if object.is_none() && record.size > 0 {
            self.census.failed_allocations += 1;
            if let Some((address, old)) = taken
                && *self.live.entry(address).or_insert(old) != old
            {
                // Somebody got the address meanwhile, so the old object is gone after all.
                self.orphan = Some(old);
            }
        }
        Op::Realloc { old: taken.map(|(_, old)| old), object, size: record.size }
    }

    fn birth(&mut self, address: u64) -> Option<ObjectId> {
        if address == 0 {
            return None;
        }
        let object = ObjectId::from_index(self.next_object);
        self.next_object += 1;
        self.live.insert(address, object);
        Some(object)
    }

    /// Removes an address from the live ones and lets go of the threads that waited for it.
    fn release(&mut self, address: u64) -> Option<ObjectId> {
        let object = self.live.remove(&address)?;
        if let Some(held) = self.held.released(address) {
            self.schedule(held.thread);
        }
        Some(object)
    }

    /// The release that a held thread waited for was never seen: adds it.
    fn free_in_its_place(&mut self, held: Wait) {
        if let Some(object) = self.live.remove(&held.address) {
            self.census.missing_free += 1;
            self.start(held.thread);
            self.emit(held.thread, Op::Free { object: Some(object), stated_size: None });
        }
    }

    /// Announces a thread before its first event.
    fn start(&mut self, thread: usize) {
        if self.streams[thread].id.is_some() {
            return;
        }
        // Before it has its number: it is not its own parent, whatever the file says.
        let parent = self.parent_of(thread);
        let id = ThreadId(self.next_thread);
        self.next_thread += 1;
        self.streams[thread].id = Some(id);
        self.emit(thread, Op::ThreadStart { parent });
    }

    fn parent_of(&self, thread: usize) -> Option<ThreadId> {
        let number = u32::try_from(self.streams[thread].parent.checked_sub(1)?).ok()?;
        self.numbers.get(&number).and_then(|&place| self.streams[place].id)
    }

    /// No record of the thread is left.
    fn end(&mut self, thread: usize) {
        if self.streams[thread].ended {
            self.emit(thread, Op::ThreadEnd);
        }
    }

    fn emit(&mut self, thread: usize, op: Op) {
        let stream = &self.streams[thread];
        let Some(thread) = stream.id else { return };
        let since = stream.now.saturating_sub(self.base);
        let time_ns = self.ns_per_tick.map(|ns| (since as f64 * ns) as u64);
        self.out.push_back(Event { thread, time_ns, op });
    }
}

/// The address that a record returned; 0 for none and for what allocates nothing.
fn allocated(record: &RawRecord) -> u64 {
    if (RawOp::Malloc as u8..=RawOp::CxxNew as u8).contains(&(record.op as u8)) {
        record.address
    } else {
        0
    }
}
