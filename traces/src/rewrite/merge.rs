//! Several traces as one: their processes side by side, as threads of a single one.
//!
//! If all have times, events are ordered by them; otherwise the traces take turns, one event each,
//! and the result has no times. Where all say when they began, as recordings do, what began later comes
//! as much later; otherwise all begin at once.
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
    /// Nanoseconds from the beginning of the first of all to that of this one.
    later_ns: u64,
}

impl Input {
    fn next_event(&mut self) -> Result<Option<Event>, TraceError> {
        let mut event = self.source.next_event()?;
        if let Some(time) = event.as_mut().and_then(|event| event.time_ns.as_mut()) {
            *time = time.saturating_add(self.later_ns);
        }
        Ok(event)
    }
}

/// When the times of a recording begin, in nanoseconds since 1970.
fn began_ns(source: &dyn Source) -> Option<u64> {
    let provenance = source.provenance();
    let number = |key: &str| {
        let note = provenance.iter().find(|(name, _)| name == key);
        note.map(|(_, value)| value.parse::<u64>().ok())
    };
    let started = number("started_unix_ns")??;
    // Missing where times begin with the recording's file.
    started.checked_add(number("began_after_ns").unwrap_or(Some(0))?)
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
        let began: Option<Vec<u64>> = sources.iter().map(|source| began_ns(&**source)).collect();
        let began = began.unwrap_or_else(|| vec![0; sources.len()]);
        let first = began.iter().min().copied().unwrap_or(0);
        let mut inputs = Vec::with_capacity(sources.len());
        for ((source, began), number) in sources.into_iter().zip(began).zip(0..) {
            inputs.push(Input { source, next: None, number, later_ns: began - first });
        }
        for input in &mut inputs {
            input.next = input.next_event()?;
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
            input.next = input.next_event()?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::ThreadId;

    /// One thread that begins at once, and notes.
    struct Recording(Option<Event>, Vec<(String, String)>);

    impl EventSource for Recording {
        type Error = TraceError;

        fn next_event(&mut self) -> Result<Option<Event>, TraceError> {
            Ok(self.0.take())
        }
    }

    impl Source for Recording {
        fn format(&self) -> Format {
            Format::Container
        }

        fn census(&self) -> Census {
            Census::default()
        }

        fn provenance(&self) -> Vec<(String, String)> {
            self.1.clone()
        }
    }

    #[test]
    fn recordings_that_say_when_they_began_keep_their_distance_and_others_begin_at_once() {
        let recording = |notes: &[(&str, u64)]| -> Box<dyn Source> {
            let op = Op::ThreadStart { parent: None };
            let event = Event { thread: ThreadId(0), time_ns: Some(5), op };
            let notes = notes.iter().map(|(key, value)| ((*key).to_owned(), value.to_string()));
            Box::new(Recording(Some(event), notes.collect()))
        };
        let times = |sources: Vec<Box<dyn Source>>| -> Vec<u64> {
            let mut merge = Merge::new(sources).unwrap();
            std::iter::from_fn(|| merge.next_event().unwrap()?.time_ns).collect()
        };
        let started = |ns| ("started_unix_ns", ns);
        let ring = recording(&[started(1000), ("began_after_ns", 700)]);
        let old = recording(&[started(1200)]);
        assert_eq!(times(vec![ring, old]), [5, 505]);
        let unknown = recording(&[]);
        assert_eq!(times(vec![unknown, recording(&[started(1200)])]), [5, 5]);
    }
}
