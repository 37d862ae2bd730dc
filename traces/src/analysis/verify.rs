//! Whether a stream keeps the promises of the event model.
#![forbid(unsafe_code)]

use serde::Serialize;

use crate::event::{Event, Op, ThreadId};
use crate::import::IntMap;

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// Events before it.
    pub event: u64,
    /// What is wrong: a lower-case sentence.
    pub what: String,
}

/// Checks event by event.
#[derive(Debug, Default)]
pub struct Verifier {
    events: u64,
    births: u64,
    live: IntMap<u64, ()>,
    threads: IntMap<u32, Thread>,
    timed: Option<bool>,
    faults: Vec<Fault>,
    count: u64,
}

#[derive(Debug, Default)]
struct Thread {
    ended: bool,
    last_ns: u64,
}

const MOST_TOLD: usize = 32;

impl Verifier {
    /// Takes the next event of the stream.
    pub fn observe(&mut self, event: &Event) {
        self.check_thread(event);
        let used = match event.op {
            Op::Free { object, .. } | Op::UsableSize { object } => object,
            Op::Realloc { old, .. } => old,
            Op::Access { object, .. } => Some(object),
            _ => None,
        };
        if let Some(object) = used
            && !self.live.contains_key(&object.index())
        {
            self.note(format!("it uses object {}, which is not live", object.0));
        }
        if let Some(object) = event.op.released() {
            self.live.remove(&object.index());
        }
        if let Some(object) = event.op.born() {
            if object.index() != self.births {
                let expected = self.births + 1;
                self.note(format!("it gives object {} where {expected} is next", object.0));
            }
            self.births = self.births.max(object.index().saturating_add(1));
            self.live.insert(object.index(), ());
        }
        match event.op {
            Op::Aligned { align, object: Some(_), .. } if !align.is_power_of_two() => {
                self.note(format!("its alignment {align} is no power of two"));
            }
            Op::Calloc { count, size, object: Some(_) } if count.checked_mul(size).is_none() => {
                self.note("its count times size overflows".to_owned());
            }
            _ => {}
        }
        self.events += 1;
    }

    fn check_thread(&mut self, event: &Event) {
        let timed = *self.timed.get_or_insert(event.time_ns.is_some());
        if timed != event.time_ns.is_some() {
            self.note("some events have times and some have none".to_owned());
        }
        let next = self.threads.len() as u32;
        let number = event.thread.0;
        let known = self.threads.contains_key(&number);
        if !known && number != next {
            self.note(format!("its thread {number} appears where {next} is next"));
        }
        match (event.op, known) {
            (Op::ThreadStart { .. }, true) => {
                self.note(format!("its thread {number} has begun before"));
            }
            (Op::ThreadStart { .. }, false) | (_, true) => {}
            _ => self.note(format!("its thread {number} has not begun")),
        }
        // A thread that begins here is not among them yet, so none may be its own parent.
        if let Op::ThreadStart { parent: Some(ThreadId(parent)) } = event.op
            && (parent == number || !self.threads.contains_key(&parent))
        {
            self.note(format!("the parent of its thread {number}, {parent}, has not begun"));
        }
        let thread = self.threads.entry(number).or_default();
        let after_end = thread.ended;
        thread.ended |= event.op == Op::ThreadEnd;
        let now = event.time_ns.unwrap_or(0);
        let backwards = now < thread.last_ns;
        thread.last_ns = thread.last_ns.max(now);
        if after_end {
            self.note(format!("its thread {number} has ended before"));
        }
        if backwards {
            self.note(format!("time runs backwards in thread {number}"));
        }
    }

    fn note(&mut self, what: String) {
        self.count += 1;
        if self.faults.len() < MOST_TOLD {
            self.faults.push(Fault { event: self.events, what });
        }
    }

    /// Events seen.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The first faults, and how many there are in all.
    #[must_use]
    pub fn faults(&self) -> (&[Fault], u64) {
        (&self.faults, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Op = Op::ThreadStart { parent: None };

    fn child_of(parent: u32) -> Op {
        Op::ThreadStart { parent: Some(ThreadId(parent)) }
    }

    fn faults(events: &[(u32, Op)]) -> Vec<(u64, String)> {
        let mut verifier = Verifier::default();
        for &(thread, op) in events {
            verifier.observe(&Event { thread: ThreadId(thread), time_ns: None, op });
        }
        verifier.faults().0.iter().map(|fault| (fault.event, fault.what.clone())).collect()
    }

    #[test]
    fn a_thread_begins_once_and_before_all_it_does() {
        let nothing = Op::Free { object: None, stated_size: None };
        assert_eq!(faults(&[(0, START), (0, nothing), (1, child_of(0)), (1, Op::ThreadEnd)]), []);
        let missing = faults(&[(0, nothing), (0, nothing)]);
        assert_eq!(missing, [(0, "its thread 0 has not begun".to_owned())]);
        let late = faults(&[(0, nothing), (0, START)]);
        assert_eq!(late.len(), 2);
        let doubled = faults(&[(0, START), (0, START)]);
        assert_eq!(doubled, [(1, "its thread 0 has begun before".to_owned())]);
    }

    #[test]
    fn a_parent_is_another_thread_that_has_begun_and_may_have_ended() {
        for parent in [1, 2] {
            let what = format!("the parent of its thread 1, {parent}, has not begun");
            assert_eq!(faults(&[(0, START), (1, child_of(parent))]), [(1, what)]);
        }
        assert_eq!(faults(&[(0, START), (0, Op::ThreadEnd), (1, child_of(0))]), []);
    }
}
