//! From addresses to objects: the rules every importer shares.
//!
//! Gives out object and thread numbers, drops and counts releases of unknown addresses, and puts
//! *inversions* right: an allocation that returns a live address was written down before the
//! release that made it possible. It waits, and with it its whole thread, until another thread
//! releases that address or [`WINDOW`] records have passed; then a free is put before it.
//!
//! # Cost
//! One or two hash look-ups per record while nothing waits. At most [`WINDOW`] records wait. A
//! record that leaves has at most two others per address it names tried again, and these are found
//! in time logarithmic in their number.
//!
//! # Invariants
//! 1. Events of one thread leave in the order in which its records came.
//! 2. Of two records that touch one address the earlier leaves first, except that a release
//!    overtakes an allocation that waits for it.
//! 3. A record leaves at the latest [`WINDOW`] records after it came.
#![forbid(unsafe_code)]

use std::collections::VecDeque;

use super::Census;
use super::address_map::IntMap;
use super::held::{Held, Woken};
use super::raw::{Raw, RawOp};
use crate::event::{Event, ObjectId, Op, ThreadId, served_alignment};

/// For how many records an inverted allocation waits.
pub(crate) const WINDOW: u64 = 65_536;

/// The resolver of one trace.
pub(crate) struct Resolver {
    live: IntMap<u64, ObjectId>,
    births: u64,
    threads: Threads,
    clock: Clock,
    held: Held,
    threaded: bool,
    window: u64,
    position: u64,
    out: VecDeque<Event>,
    /// How often a record that waited was tried again.
    #[cfg(test)]
    tries: u64,
}

impl Resolver {
    /// A resolver for records that name their threads, or do not.
    pub(crate) fn new(threaded: bool) -> Self {
        Resolver::with_window(threaded, WINDOW)
    }

    fn with_window(threaded: bool, window: u64) -> Self {
        Resolver {
            live: IntMap::default(),
            births: 0,
            threads: Threads::default(),
            clock: Clock::Unset,
            held: Held::default(),
            threaded,
            window,
            position: 0,
            out: VecDeque::new(),
            #[cfg(test)]
            tries: 0,
        }
    }

    /// The next event that is ready.
    pub(crate) fn pop(&mut self) -> Option<Event> {
        self.out.pop_front()
    }

    /// Objects alive now.
    pub(crate) fn live_objects(&self) -> u64 {
        self.live.len() as u64
    }

    /// Takes one record; zero or more events become ready.
    pub(crate) fn push(&mut self, raw: Raw, census: &mut Census) {
        self.position += 1;
        if self.held.is_empty() {
            match raw.op.returned() {
                Some(address) if self.collides(address, &raw.op) => self.hold(raw, census),
                _ => self.apply(raw, census),
            }
            return;
        }
        self.expire(census);
        let queue = if self.threaded { raw.thread } else { self.position };
        if self.held.holds(queue) {
            self.held.enqueue(queue, self.position, raw);
        } else if let Err(address) = self.may_leave(self.position, &raw.op) {
            self.wait_for(address, queue, raw, census);
        } else {
            self.apply(raw, census);
            let mut ready = Vec::new();
            self.held.wake_for(&raw.op, &mut ready);
            self.drain(ready, census);
        }
    }

    /// Lets everything that still waits leave, in the order in which it came: at most [`WINDOW`]
    /// records, which takes milliseconds.
    pub(crate) fn finish(&mut self, census: &mut Census) {
        while let Some((_, queue)) = self.held.oldest() {
            self.force(queue, census);
        }
    }

    /// Whether `op` returns `address` while it is live and not released by `op` itself.
    fn collides(&self, address: u64, op: &RawOp) -> bool {
        self.live.contains_key(&address) && op.released() != Some(address)
    }

    fn hold(&mut self, raw: Raw, census: &mut Census) {
        let queue = if self.threaded { raw.thread } else { self.position };
        let address = raw.op.returned().expect("only allocations collide");
        self.wait_for(address, queue, raw, census);
    }

    fn wait_for(&mut self, address: u64, queue: u64, raw: Raw, census: &mut Census) {
        self.held.enqueue(queue, self.position, raw);
        self.note_inversion(queue, census);
        self.held.wait(queue, address);
    }

    /// Counts the head of `queue` as an inversion, once, if its address is live and no earlier
    /// record that waits would have released it.
    fn note_inversion(&mut self, queue: u64, census: &mut Census) {
        let Some(head) = self.held.head(queue) else { return };
        let (seq, op, counted) = (head.seq, head.raw.op, head.counted);
        let Some(address) = op.returned() else { return };
        let first = self.held.first_touch(address).is_none_or(|touch| touch.seq == seq);
        if !counted && first && self.collides(address, &op) {
            census.inversions += 1;
            if let Some(head) = self.held.head_mut(queue) {
                head.counted = true;
            }
        }
    }

    /// Whether the record that came as number `seq` may leave now; if not, the address it waits for.
    fn may_leave(&self, seq: u64, op: &RawOp) -> Result<(), u64> {
        for address in [op.used(), op.released()].into_iter().flatten() {
            if let Some(touch) = self.held.first_touch(address)
                && touch.seq < seq
            {
                let overtakes = touch.allocates
                    && op.released() == Some(address)
                    && self.live.contains_key(&address);
                if !overtakes {
                    return Err(address);
                }
            }
        }
        if let Some(address) = op.returned() {
            let earlier = self.held.first_touch(address).is_some_and(|touch| touch.seq < seq);
            if earlier && op.released() != Some(address) || self.collides(address, op) {
                return Err(address);
            }
        }
        Ok(())
    }

    /// Tries the queues that are `ready`, and whatever they wake in turn.
    fn drain(&mut self, mut ready: Vec<Woken>, census: &mut Census) {
        while let Some(Woken { queue, mut waited_for }) = ready.pop() {
            while let Some(head) = self.held.head(queue) {
                #[cfg(test)]
                {
                    self.tries += 1;
                }
                if let Err(address) = self.may_leave(head.seq, &head.raw.op) {
                    self.note_inversion(queue, census);
                    self.held.wait(queue, address);
                    // It stands elsewhere now, and another one is the first to wait where it did.
                    if let Some(before) = waited_for.filter(|&before| before != address) {
                        self.held.wake(before, &mut ready);
                    }
                    break;
                }
                self.held.dequeue(queue);
                self.apply(head.raw, census);
                self.held.wake_for(&head.raw.op, &mut ready);
                waited_for = None;
            }
        }
        self.held.forget_if_empty();
    }

    fn expire(&mut self, census: &mut Census) {
        while let Some((seq, queue)) = self.held.oldest() {
            if seq + self.window > self.position {
                break;
            }
            self.force(queue, census);
        }
    }

    /// Lets the oldest record of all, the head of `queue`, leave whatever it takes.
    fn force(&mut self, queue: u64, census: &mut Census) {
        let Some(head) = self.held.head(queue) else { return };
        if let Some(address) = head.raw.op.returned()
            && self.collides(address, &head.raw.op)
        {
            self.note_inversion(queue, census);
            census.missing_free += 1;
            let free = RawOp::Free { ptr: address, stated_size: None };
            self.apply(Raw { op: free, ..head.raw }, census);
        }
        self.held.dequeue(queue);
        self.apply(head.raw, census);
        // Taken last: who waited is counted as an inversion before the release comes.
        let mut ready = vec![Woken { queue, waited_for: None }];
        self.held.wake_for(&head.raw.op, &mut ready);
        self.drain(ready, census);
    }

    /// Turns a record into an event, now.
    fn apply(&mut self, raw: Raw, census: &mut Census) {
        let op = match raw.op {
            RawOp::Malloc { ptr, size } => {
                Op::Malloc { object: self.bear(ptr, size, census), size }
            }
            RawOp::Calloc { ptr, count, size } => {
                let object = self.bear(ptr, count.saturating_mul(size), census);
                Op::Calloc { object, count, size }
            }
            RawOp::Aligned { ptr, align, size, api } => {
                let object = self.bear(ptr, size, census);
                let align = if object.is_some() { served_alignment(align) } else { align };
                Op::Aligned { object, align, size, api }
            }
            RawOp::Realloc { old, ptr, size } => {
                let known = match raw.op.released() {
                    Some(address) => self.live.remove(&address),
                    None => self.live.get(&old).copied(),
                };
                census.unknown_realloc += u64::from(old != 0 && known.is_none());
                Op::Realloc { old: known, object: self.bear(ptr, size, census), size }
            }
            RawOp::Free { ptr: 0, stated_size } => {
                census.free_null += 1;
                Op::Free { object: None, stated_size }
            }
            RawOp::Free { ptr, stated_size } => match self.live.remove(&ptr) {
                Some(object) => Op::Free { object: Some(object), stated_size },
                None => {
                    census.unknown_free += 1;
                    return;
                }
            },
            RawOp::UsableSize { ptr } => match self.live.get(&ptr).copied() {
                None if ptr != 0 => {
                    census.unknown_use += 1;
                    return;
                }
                object => Op::UsableSize { object },
            },
            RawOp::Access { ptr, bytes, times } => match self.live.get(&ptr) {
                Some(&object) => Op::Access { object, bytes, times },
                None => {
                    census.unknown_use += 1;
                    return;
                }
            },
            RawOp::ThreadStart { parent } => return self.start_thread(raw, parent, census),
            RawOp::ThreadEnd => Op::ThreadEnd,
            RawOp::Fork { child } => Op::Fork { child },
            RawOp::Marker { value } => Op::Marker { value },
        };
        let started = self.out.len();
        let thread = self.threads.enter(raw.thread, census, &mut self.out, None);
        let time_ns = self.stamp(started, raw, census);
        self.out.push_back(Event { thread, time_ns, op });
        if op == Op::ThreadEnd {
            self.threads.leave(raw.thread);
        }
    }

    fn start_thread(&mut self, raw: Raw, parent: Option<u64>, census: &mut Census) {
        let started = self.out.len();
        // A parent that has ended is still the one of that id; one never seen begins here.
        let parent = parent.map(|id| match self.threads.latest(id) {
            Some(thread) => thread,
            None => self.threads.enter(id, census, &mut self.out, None),
        });
        self.threads.enter(raw.thread, census, &mut self.out, parent);
        self.stamp(started, raw, census);
    }

    /// The time of `raw`, given also to the births it caused, which begin at `started`.
    fn stamp(&mut self, started: usize, raw: Raw, census: &mut Census) -> Option<u64> {
        let last = self.threads.last_time(raw.thread);
        let time_ns = self.clock.tell(raw.time, last, census);
        for birth in self.out.range_mut(started..) {
            birth.time_ns = time_ns;
        }
        time_ns
    }

    /// A new object at `address`, or the count of a failed call.
    fn bear(&mut self, address: u64, size: u64, census: &mut Census) -> Option<ObjectId> {
        if address == 0 {
            census.failed_allocations += u64::from(size > 0);
            return None;
        }
        let object = ObjectId::from_index(self.births);
        self.births += 1;
        self.live.insert(address, object);
        Some(object)
    }
}

/// Thread ids of the source and the threads they stand for now.
#[derive(Default)]
struct Threads {
    known: IntMap<u64, Thread>,
    count: u32,
}

struct Thread {
    id: ThreadId,
    ended: bool,
    last_time: u64,
}

impl Threads {
    /// The thread behind a raw id; a birth is announced in `out`.
    fn enter(
        &mut self,
        raw: u64,
        census: &mut Census,
        out: &mut VecDeque<Event>,
        parent: Option<ThreadId>,
    ) -> ThreadId {
        if let Some(thread) = self.known.get(&raw)
            && !thread.ended
        {
            return thread.id;
        }
        let id = ThreadId(self.count);
        self.count += 1;
        let born = Thread { id, ended: false, last_time: 0 };
        if self.known.insert(raw, born).is_some() {
            census.reused_thread_ids += 1;
        }
        out.push_back(Event { thread: id, time_ns: None, op: Op::ThreadStart { parent } });
        id
    }

    /// The thread that a raw id stood for last, also if it has ended.
    fn latest(&self, raw: u64) -> Option<ThreadId> {
        self.known.get(&raw).map(|thread| thread.id)
    }

    fn last_time(&mut self, raw: u64) -> &mut u64 {
        &mut self.known.get_mut(&raw).expect("entered just before").last_time
    }

    fn leave(&mut self, raw: u64) {
        if let Some(thread) = self.known.get_mut(&raw) {
            thread.ended = true;
        }
    }
}

/// Whether the stream has times, decided by its first record, and where they begin.
#[derive(Clone, Copy)]
enum Clock {
    Unset,
    None,
    Since(u64),
}

impl Clock {
    fn tell(&mut self, time: Option<u64>, last: &mut u64, census: &mut Census) -> Option<u64> {
        if let Clock::Unset = self {
            *self = time.map_or(Clock::None, Clock::Since);
        }
        let Clock::Since(start) = *self else {
            census.repaired_times += u64::from(time.is_some());
            return None;
        };
        let now = time.map(|time| time.saturating_sub(start));
        match now {
            Some(now) if now >= *last => *last = now,
            _ => census.repaired_times += 1,
        }
        Some(*last)
    }
}

#[cfg(test)]
#[path = "resolver_tests.rs"]
mod tests;
