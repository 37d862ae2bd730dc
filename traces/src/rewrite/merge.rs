//! Several traces as one: their processes side by side, as threads of a single one.
//!
//! If all have times, events are ordered by them; otherwise the traces take turns, one event each,
//! and the result has no times.
#![forbid(unsafe_code)]

use super::renumber::Renumber;
use crate::error::TraceError;
use crate::event::{Event, EventSource, ObjectId, Op};
use crate::import::{Census, Format, Source};

/// The traces together.
pub struct Merge {
    inputs: Vec<Input>,
    timed: bool,
    turn: usize,
    renumber: Renumber,
}

struct Input {
    source: Box<dyn Source>,
    next: Option<Event>,
    number: u64,
}

impl std::fmt::Debug for Merge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Merge").field("inputs", &self.inputs.len()).finish_non_exhaustive()
    }
}

impl Merge {
    /// All of `sources` together.
    ///
    /// # Errors
    /// The first event of one cannot be read.
    pub fn new(sources: Vec<Box<dyn Source>>) -> Result<Self, TraceError> {
        let mut inputs = Vec::with_capacity(sources.len());
        for (mut source, number) in sources.into_iter().zip(0..) {
            let next = source.next_event()?;
            inputs.push(Input { source, next, number });
        }
        let mut firsts = inputs.iter().filter_map(|input| input.next);
        let timed = firsts.all(|event| event.time_ns.is_some());
        Ok(Merge { inputs, timed, turn: 0, renumber: Renumber::default() })
    }

    fn choose(&mut self) -> Option<usize> {
        if self.timed {
            let waiting = self.inputs.iter().enumerate();
            let times = waiting.filter_map(|(i, input)| Some((input.next?.time_ns, i)));
            return times.min().map(|(_, index)| index);
        }
        let count = self.inputs.len();
        let next = (0..count)
            .map(|step| (self.turn + step) % count)
            .find(|&index| self.inputs[index].next.is_some())?;
        self.turn = next + 1;
        Some(next)
    }
}

impl EventSource for Merge {
    type Error = TraceError;

    fn next_event(&mut self) -> Result<Option<Event>, TraceError> {
        while let Some(index) = self.choose() {
            let input = &mut self.inputs[index];
            let Some(event) = input.next.take() else { return Ok(None) };
            input.next = input.source.next_event()?;
            // Numbers of up to 2^48 objects and 2^16 traces do not meet.
            let stream = input.number << 48;
            let Some(op) = self.renumber.op(event.op, |object: ObjectId| stream | object.index())
            else {
                continue;
            };
            let (thread, _) = self.renumber.thread(stream | u64::from(event.thread.0));
            let op = match op {
                Op::ThreadStart { parent } => Op::ThreadStart {
                    parent: parent.and_then(|parent| {
                        self.renumber.known_thread(stream | u64::from(parent.0))
                    }),
                },
                other => other,
            };
            let time_ns = if self.timed { event.time_ns } else { None };
            return Ok(Some(Event { thread, time_ns, op }));
        }
        Ok(None)
    }
}

impl Source for Merge {
    fn format(&self) -> Format {
        self.inputs.first().map_or(Format::Container, |input| input.source.format())
    }

    fn census(&self) -> Census {
        self.inputs.iter().fold(Census::default(), |sum, input| sum.plus(&input.source.census()))
    }
}
