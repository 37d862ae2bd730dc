//! The records that wait for an address, for the resolver.
//!
//! Cost: a hash look-up per address that a record touches, and one in an ordered map of those that
//! wait for the same address.
//!
//! # Invariants
//! 1. Records of one queue, and touches of one address, stand in order of arrival.
//! 2. The head of a queue stands in `waiting` at most once, under an address it touches; nothing
//!    else stands there.
//! 3. Of the heads that wait for one address only two can leave: the first, and the first that
//!    releases the address. So only these two are woken.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, VecDeque};

use super::address_map::IntMap;
use super::raw::{Raw, RawOp};

/// The records that wait.
#[derive(Default)]
pub(super) struct Held {
    /// Per thread (or per record, where threads are unknown), in order of arrival.
    queues: IntMap<u64, VecDeque<Waiting>>,
    /// Everything that waits or has waited, in order of arrival.
    arrivals: VecDeque<(u64, u64)>,
    /// Per address, the records that wait and touch it, in order of arrival.
    touches: IntMap<u64, VecDeque<Touch>>,
    /// Per address, the heads that wait for it.
    waiting: IntMap<u64, Waiters>,
}

/// A record that waits.
#[derive(Clone, Copy)]
pub(super) struct Waiting {
    /// Its number.
    pub(super) seq: u64,
    pub(super) raw: Raw,
    /// Whether it is in the census as an inversion.
    pub(super) counted: bool,
    /// The address under which it stands in `Held::waiting`.
    under: Option<u64>,
}

/// That a record which waits names an address.
#[derive(Clone, Copy)]
pub(super) struct Touch {
    /// The number of the record.
    pub(super) seq: u64,
    /// Whether it only allocates there.
    pub(super) allocates: bool,
}

/// A queue whose head is to be tried again.
pub(super) struct Woken {
    pub(super) queue: u64,
    /// What the head waited for; `None` if it was not tried before.
    pub(super) waited_for: Option<u64>,
}

/// The heads that wait for one address: their numbers and queues.
#[derive(Default)]
struct Waiters {
    all: BTreeMap<u64, u64>,
    /// Those that release the address.
    releases: BTreeMap<u64, u64>,
}

impl Held {
    pub(super) fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// Whether a record of `queue` waits.
    pub(super) fn holds(&self, queue: u64) -> bool {
        self.queues.contains_key(&queue)
    }

    pub(super) fn enqueue(&mut self, queue: u64, seq: u64, raw: Raw) {
        let entry = Waiting { seq, raw, counted: false, under: None };
        self.queues.entry(queue).or_default().push_back(entry);
        self.arrivals.push_back((seq, queue));
        for (address, allocates) in touched(&raw.op) {
            self.touches.entry(address).or_default().push_back(Touch { seq, allocates });
        }
    }

    pub(super) fn head(&self, queue: u64) -> Option<Waiting> {
        self.queues.get(&queue).and_then(|waiting| waiting.front().copied())
    }

    pub(super) fn head_mut(&mut self, queue: u64) -> Option<&mut Waiting> {
        self.queues.get_mut(&queue).and_then(VecDeque::front_mut)
    }

    pub(super) fn dequeue(&mut self, queue: u64) {
        self.stand_down(queue);
        let Some(waiting) = self.queues.get_mut(&queue) else { return };
        let Some(head) = waiting.pop_front() else { return };
        if waiting.is_empty() {
            self.queues.remove(&queue);
        }
        for (address, _) in touched(&head.raw.op) {
            if let Some(touches) = self.touches.get_mut(&address) {
                if let Ok(at) = touches.binary_search_by_key(&head.seq, |touch| touch.seq) {
                    touches.remove(at);
                }
                if touches.is_empty() {
                    self.touches.remove(&address);
                }
            }
        }
    }

    /// The oldest record that waits: its number and its queue, of which it is the head.
    pub(super) fn oldest(&mut self) -> Option<(u64, u64)> {
        while let Some(&(seq, queue)) = self.arrivals.front() {
            if self.head(queue).is_some_and(|head| head.seq == seq) {
                return Some((seq, queue));
            }
            self.arrivals.pop_front();
        }
        None
    }

    /// The first record that waits and touches `address`.
    pub(super) fn first_touch(&self, address: u64) -> Option<Touch> {
        self.touches.get(&address).and_then(|touches| touches.front().copied())
    }

    /// From now on the head of `queue` waits for `address`.
    pub(super) fn wait(&mut self, queue: u64, address: u64) {
        let Some(head) = self.head_mut(queue) else { return };
        head.under = Some(address);
        let (seq, releases) = (head.seq, head.raw.op.released() == Some(address));
        let waiters = self.waiting.entry(address).or_default();
        waiters.all.insert(seq, queue);
        if releases {
            waiters.releases.insert(seq, queue);
        }
    }

    /// The head of `queue` waits for nothing.
    fn stand_down(&mut self, queue: u64) {
        let Some(head) = self.head_mut(queue) else { return };
        let (seq, Some(address)) = (head.seq, head.under.take()) else { return };
        let Some(waiters) = self.waiting.get_mut(&address) else { return };
        waiters.all.remove(&seq);
        waiters.releases.remove(&seq);
        if waiters.all.is_empty() {
            self.waiting.remove(&address);
        }
    }

    /// Puts those that may leave now that something happened at `address` on `ready`.
    pub(super) fn wake(&mut self, address: u64, ready: &mut Vec<Woken>) {
        let Some(waiters) = self.waiting.get(&address) else { return };
        let first = waiters.all.first_key_value().map(|(_, &queue)| queue);
        let release = waiters.releases.first_key_value().map(|(_, &queue)| queue);
        for queue in [release.filter(|_| release != first), first].into_iter().flatten() {
            self.stand_down(queue);
            ready.push(Woken { queue, waited_for: Some(address) });
        }
    }

    /// As [`wake`](Self::wake), for every address of `op`.
    pub(super) fn wake_for(&mut self, op: &RawOp, ready: &mut Vec<Woken>) {
        for (address, _) in touched(op) {
            self.wake(address, ready);
        }
    }

    pub(super) fn forget_if_empty(&mut self) {
        if self.queues.is_empty() {
            *self = Held::default();
        }
    }

    /// Heads that wait for an address, and queues.
    #[cfg(test)]
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.waiting.values().map(|waiters| waiters.all.len()).sum(), self.queues.len())
    }
}

/// The addresses an operation names, each once, and whether it only allocates there.
fn touched(op: &RawOp) -> impl Iterator<Item = (u64, bool)> {
    let given = op.released().or(op.used());
    let returned = op.returned().filter(|&address| Some(address) != given);
    given.map(|address| (address, false)).into_iter().chain(returned.map(|address| (address, true)))
}
