//! The smallest part of a trace that still shows something: delta debugging on objects.
//!
//! The units are whole lives: an object, with everything it was reallocated from and to, and all
//! calls on it. Leaving one out never breaks the event model. Threads go when all their calls are
//! gone. Halves are tried first, then ever smaller parts (Zeller and Hildebrandt, "Simplifying and
//! isolating failure-inducing input", 2002).
//!
//! Cost: memory for all events; about `units × log2(units)` trials in the worst case, bounded by
//! a limit.
#![forbid(unsafe_code)]

use super::renumber::Renumber;
use crate::error::TraceError;
use crate::event::{Event, ObjectId, Op};
use crate::import::{IntMap, Source};

/// A trace in memory, divided into units.
#[derive(Debug)]
pub struct Units {
    events: Vec<Event>,
    /// Per event, its unit; `None` for what is about a thread and not an object.
    unit_of: Vec<Option<u32>>,
    count: u32,
}

/// What a search came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Units still needed.
    pub units: u64,
    /// Trials made.
    pub trials: u64,
    /// Whether no unit can be left out alone: each of those still needed was tried.
    pub minimal: bool,
}

/// What a trial says of a part of the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It shows what is looked for.
    Shows,
    /// It does not.
    Lacks,
    /// Nothing: the search is to end with what it has.
    Stop,
}

impl Units {
    /// Reads a whole trace.
    ///
    /// # Errors
    /// Whatever keeps it from being read to its end.
    pub fn read(source: &mut dyn Source) -> Result<Self, TraceError> {
        let mut units = Units { events: Vec::new(), unit_of: Vec::new(), count: 0 };
        let mut live: IntMap<u64, u32> = IntMap::default();
        while let Some(event) = source.next_event()? {
            let unit = units.assign(&event, &mut live);
            units.events.push(event);
            units.unit_of.push(unit);
        }
        Ok(units)
    }

    fn assign(&mut self, event: &Event, live: &mut IntMap<u64, u32>) -> Option<u32> {
        let named = match event.op {
            Op::ThreadStart { .. } | Op::ThreadEnd => return None,
            Op::Realloc { old, .. } => old,
            Op::Free { object, .. } | Op::UsableSize { object } => object,
            Op::Access { object, .. } => Some(object),
            _ => None,
        };
        let unit =
            named.and_then(|object| live.get(&object.index()).copied()).unwrap_or_else(|| {
                self.count += 1;
                self.count - 1
            });
        if let Some(object) = event.op.released() {
            live.remove(&object.index());
        }
        if let Some(object) = event.op.born() {
            live.insert(object.index(), unit);
        }
        Some(unit)
    }

    /// How many units there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        u64::from(self.count)
    }

    /// The events of the units for which `kept` holds, with new numbers.
    #[must_use]
    pub fn select(&self, kept: &[bool]) -> Vec<Event> {
        let keeps = |unit: Option<u32>| {
            unit.is_none_or(|unit| kept.get(unit as usize).copied().unwrap_or(false))
        };
        // A thread without a call is no thread.
        let mut busy = std::collections::HashSet::new();
        for (event, &unit) in self.events.iter().zip(&self.unit_of) {
            if unit.is_some() && keeps(unit) {
                busy.insert(event.thread);
            }
        }
        let mut renumber = Renumber::default();
        let mut events = Vec::new();
        for (event, &unit) in self.events.iter().zip(&self.unit_of) {
            if !keeps(unit) || !busy.contains(&event.thread) {
                continue;
            }
            let Some(op) = renumber.op(event.op, ObjectId::index) else { continue };
            let (thread, new) = renumber.thread(u64::from(event.thread.0));
            let op = match op {
                Op::ThreadStart { parent } => Op::ThreadStart {
                    parent: parent.and_then(|parent| renumber.known_thread(u64::from(parent.0))),
                },
                other => other,
            };
            if new && !matches!(op, Op::ThreadStart { .. }) {
                let op = Op::ThreadStart { parent: None };
                events.push(Event { thread, time_ns: event.time_ns, op });
            }
            events.push(Event { thread, time_ns: event.time_ns, op });
        }
        events
    }

    /// Leaves out units as long as `look` says that the rest still shows it, within `most_trials`
    /// trials. The whole trace is taken to show it.
    ///
    /// # Errors
    /// What `look` returns.
    pub fn shrink<E>(
        &self,
        most_trials: u64,
        mut look: impl FnMut(Vec<Event>, Progress) -> Result<Answer, E>,
    ) -> Result<(Vec<Event>, Progress), E> {
        let mut kept: Vec<u32> = (0..self.count).collect();
        let mut parts = 2;
        let mut progress = Progress { units: self.count(), trials: 0, minimal: false };
        'search: while kept.len() > 1 {
            let size = kept.len().div_ceil(parts);
            let mut removed = false;
            let mut start = 0;
            while start < kept.len() {
                if progress.trials >= most_trials {
                    break 'search;
                }
                let end = (start + size).min(kept.len());
                let rest: Vec<u32> = kept[..start].iter().chain(&kept[end..]).copied().collect();
                if rest.is_empty() {
                    break;
                }
                progress.trials += 1;
                match look(self.select(&self.mask(&rest)), progress)? {
                    Answer::Shows => {
                        kept = rest;
                        progress.units = kept.len() as u64;
                        removed = true;
                    }
                    Answer::Lacks => start = end,
                    Answer::Stop => break 'search,
                }
            }
            if removed {
                parts = (parts - 1).max(2).min(kept.len().max(2));
            } else if size == 1 {
                progress.minimal = true;
                break;
            } else {
                parts = (parts * 2).min(kept.len());
            }
        }
        progress.minimal |= kept.len() <= 1;
        Ok((self.select(&self.mask(&kept)), progress))
    }

    fn mask(&self, kept: &[u32]) -> Vec<bool> {
        let mut mask = vec![false; self.count as usize];
        for &unit in kept {
            mask[unit as usize] = true;
        }
        mask
    }
}
