//! A part of a trace: between two times, or between the births of two threads.
//!
//! A bare number of records would cut through the middle of what threads do together, and is
//! therefore not offered. What is alive when the part begins is allocated again at its start, in
//! order of birth, so that the part meets the heap it would have met; or it is left out, with all
//! calls on it. Threads that had ended by then end again before the part.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::renumber::Renumber;
use crate::error::TraceError;
use crate::event::{Event, EventSource, ObjectId, Op, ThreadId};
use crate::import::{Census, Format, Source};

/// Value of the marker between what was alive before and the part itself.
pub const CUT_MARKER: u64 = 0x6375_7421;

/// Where a part begins and ends; `None` stands for the trace's own beginning and end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// Events at `from <= time_ns < until`.
    Times {
        /// The first nanosecond.
        from: Option<u64>,
        /// The nanosecond after the last.
        until: Option<u64>,
    },
    /// From the birth of one thread (inclusive) to the birth of another (exclusive).
    Births {
        /// The thread whose birth begins the part.
        from: Option<u32>,
        /// The thread whose birth ends it.
        until: Option<u32>,
    },
}

#[derive(PartialEq, Eq)]
enum Phase {
    Before,
    Within,
    After,
}

/// The part, as a source.
pub struct Cut<S> {
    source: S,
    span: Span,
    keep_live: bool,
    phase: Phase,
    /// Objects alive before the part, with the call that gave them.
    live: BTreeMap<ObjectId, (ThreadId, Op)>,
    /// Threads that ended before the part.
    ended: BTreeSet<ThreadId>,
    start_ns: Option<u64>,
    renumber: Renumber,
    out: VecDeque<Event>,
}

impl<S> std::fmt::Debug for Cut<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cut").field("span", &self.span).finish_non_exhaustive()
    }
}

impl<S: Source> Cut<S> {
    /// The part of `source` within `span`; with `keep_live`, what is alive at its start is
    /// allocated first.
    pub fn new(source: S, span: Span, keep_live: bool) -> Self {
        Cut {
            source,
            span,
            keep_live,
            phase: Phase::Before,
            live: BTreeMap::new(),
            ended: BTreeSet::new(),
            start_ns: None,
            renumber: Renumber::default(),
            out: VecDeque::new(),
        }
    }

    /// Whether the part holds no event. Reads as far as its first one.
    ///
    /// # Errors
    /// Whatever keeps the source from being read so far.
    pub fn is_empty(&mut self) -> Result<bool, TraceError> {
        self.fill()?;
        Ok(self.out.is_empty())
    }

    fn begins(&self, event: &Event) -> bool {
        match self.span {
            Span::Times { from, .. } => from.is_none_or(|from| event.time_ns >= Some(from)),
            Span::Births { from, .. } => from.is_none_or(|from| event.thread.0 >= from),
        }
    }

    fn ends(&self, event: &Event) -> bool {
        match self.span {
            // Threads are ordered by time only among themselves: one late event ends nothing.
            Span::Times { until, .. } => until.is_some_and(|until| event.time_ns >= Some(until)),
            Span::Births { until, .. } => until.is_some_and(|until| event.thread.0 >= until),
        }
    }

    fn remember(&mut self, event: &Event) {
        if let Some(object) = event.op.released() {
            self.live.remove(&object);
        }
        if let Some(object) = event.op.born() {
            self.live.insert(object, (event.thread, event.op));
        }
        if event.op == Op::ThreadEnd {
            self.ended.insert(event.thread);
        }
    }

    /// Starts the part: what is alive is allocated at time 0.
    fn begin(&mut self, event: &Event) {
        self.phase = Phase::Within;
        self.start_ns = event.time_ns;
        let alive = std::mem::take(&mut self.live);
        let ended = std::mem::take(&mut self.ended);
        if !self.keep_live || alive.is_empty() {
            return;
        }
        for (object, (thread, op)) in alive {
            // The call that gave a reallocated object needs one that is gone.
            let op = match op {
                Op::Realloc { size, .. } => Op::Malloc { object: Some(object), size },
                other => other,
            };
            self.push(Event { thread, time_ns: event.time_ns, op });
        }
        for thread in ended {
            if self.renumber.known_thread(u64::from(thread.0)).is_some() {
                self.push(Event { thread, time_ns: event.time_ns, op: Op::ThreadEnd });
            }
        }
        let op = Op::Marker { value: CUT_MARKER };
        self.push(Event { thread: event.thread, time_ns: event.time_ns, op });
    }

    /// Renumbers an event and starts its thread if need be.
    fn push(&mut self, event: Event) {
        let time_ns = match (event.time_ns, self.start_ns) {
            (Some(time), Some(start)) => Some(time.saturating_sub(start)),
            _ => None,
        };
        let parent = match event.op {
            Op::ThreadStart { parent } => {
                parent.and_then(|parent| self.renumber.known_thread(u64::from(parent.0)))
            }
            _ => None,
        };
        let Some(op) = self.renumber.op(event.op, ObjectId::index) else { return };
        let (thread, new) = self.renumber.thread(u64::from(event.thread.0));
        if new {
            self.out.push_back(Event { thread, time_ns, op: Op::ThreadStart { parent } });
        }
        if !matches!(op, Op::ThreadStart { .. }) {
            self.out.push_back(Event { thread, time_ns, op });
        }
    }

    /// Reads until an event is ready, or the part is over.
    fn fill(&mut self) -> Result<(), TraceError> {
        while self.out.is_empty() && self.phase != Phase::After {
            let Some(event) = self.source.next_event()? else {
                self.phase = Phase::After;
                break;
            };
            if self.phase == Phase::Before && self.begins(&event) {
                self.begin(&event);
            }
            let by_birth = matches!(self.span, Span::Births { .. });
            match self.phase {
                Phase::Before => self.remember(&event),
                Phase::Within if !self.ends(&event) => self.push(event),
                Phase::Within if by_birth => self.phase = Phase::After,
                _ => {}
            }
        }
        Ok(())
    }
}

impl<S: Source> EventSource for Cut<S> {
    type Error = TraceError;

    fn next_event(&mut self) -> Result<Option<Event>, TraceError> {
        self.fill()?;
        Ok(self.out.pop_front())
    }
}

impl<S: Source> Source for Cut<S> {
    fn format(&self) -> Format {
        self.source.format()
    }

    fn census(&self) -> Census {
        self.source.census()
    }
}
