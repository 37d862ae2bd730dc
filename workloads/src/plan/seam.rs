//! Seams: how a generator says that a part of its stream is to be repeated.
//!
//! A body can be repeated because the builder closes it: it leaves the same slots filled that it
//! found filled (with a few moves where it did not), and where it orders threads among one another
//! it ends with a barrier, so that one repetition never runs into the next. Threads born in it are
//! waited for there.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use super::build::Builder;
use super::error::PlanError;
use super::record;

/// The marks at which a stream folds: prologue · *begin* · body · *end* · epilogue.
///
/// A generator puts them into its stream as [`traces::Op::Marker`]s with values that no recording
/// holds. The body must leave as many objects alive as it found. A thread that takes part in it
/// outlives it, or is born and ends in it, and then in every repetition anew. The plan holds the body once and the engine repeats it, so that millions
/// of operations cost the memory of some thousands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seam {
    /// What follows is the body.
    Begin,
    /// The body ends and is to be executed this many times in all.
    End {
        /// Executions of the body; at least 1.
        repeat: u32,
    },
}

/// Upper half of a marker that is a seam; an arbitrary number.
const TAG: u64 = 0x5eaa_5eaa << 32;

impl Seam {
    /// The marker value that stands for this seam.
    #[must_use]
    pub fn to_marker(self) -> u64 {
        match self {
            Seam::Begin => TAG,
            Seam::End { repeat } => TAG | u64::from(repeat.max(1)),
        }
    }

    /// The seam that a marker value stands for, if it is one.
    #[must_use]
    pub fn from_marker(value: u64) -> Option<Seam> {
        #[expect(clippy::cast_possible_truncation, reason = "the lower half is wanted")]
        let low = value as u32;
        match (value & !0xffff_ffff == TAG, low) {
            (false, _) => None,
            (true, 0) => Some(Seam::Begin),
            (true, repeat) => Some(Seam::End { repeat }),
        }
    }
}

/// What has to be remembered while a body is read.
#[derive(Debug, Default)]
pub(crate) struct Body {
    /// Executions of the body, once it is closed.
    pub(crate) repeat: u32,
    /// Some event of the body depends on another thread's event of the body.
    pub(crate) crosses_threads: bool,
    /// Slots filled when the body began, each with the thread that released it in the body.
    filled: HashMap<u32, Option<u32>>,
}

impl Body {
    /// `thread` released what `slot` held.
    pub(crate) fn released(&mut self, slot: u32, thread: u32) {
        if let Some(by) = self.filled.get_mut(&slot) {
            by.get_or_insert(thread);
        }
    }
}

impl Builder {
    pub(crate) fn begin_body(&mut self) -> Result<(), PlanError> {
        if self.section != 0 {
            return self.impossible("a second body begins".to_owned());
        }
        self.section = 1;
        for thread in &mut self.threads {
            thread.sections[0] = thread.place;
        }
        // Every repetition but the first finds in a slot what the one before it left there.
        self.objects.values_mut().for_each(|object| object.sure = 0);
        self.body.filled = self.objects.values().map(|object| (object.slot, None)).collect();
        Ok(())
    }

    pub(crate) fn end_body(&mut self, repeat: u32) -> Result<(), PlanError> {
        if self.section != 1 {
            return self.impossible("a body ends that did not begin".to_owned());
        }
        if self.objects.len() != self.body.filled.len() {
            return self.impossible(format!(
                "the body found {} objects alive and leaves {}",
                self.body.filled.len(),
                self.objects.len()
            ));
        }
        if let Some(t) = self.threads.iter().position(|t| t.in_body && !t.ended) {
            return self
                .impossible(format!("thread {t} is born in a repeated body and outlives it"));
        }
        let filled = std::mem::take(&mut self.body.filled);
        let moves = self.moves(&filled);
        // A slot read by one thread and filled by another orders them across repetitions.
        let crosses = self.body.crosses_threads
            || self.threads.iter().any(|thread| thread.in_body)
            || self.objects.values().any(|object| {
                let reader = filled.get(&object.slot).copied().flatten();
                reader.is_some_and(|reader| reader != object.born_by)
            })
            || moves.iter().any(|m| m.reader != m.by);
        if crosses {
            self.barrier()?;
        }
        for m in &moves {
            let word = record::word(record::MOVE, m.to, u64::from(m.from));
            let place = self.push(m.by, &[word])?;
            self.slots.give(m.from, m.by, place);
            if let Some(object) = self.objects.get_mut(&m.object) {
                object.slot = m.to;
                object.last = (m.by, place);
            }
        }
        if !moves.is_empty() {
            let taken: std::collections::HashSet<u32> = moves.iter().map(|m| m.to).collect();
            self.slots.rebuild(|slot| !taken.contains(&slot));
            if crosses {
                self.barrier()?;
            }
        }
        self.section = 2;
        self.body.repeat = repeat;
        self.last_thread = self.last_thread.map(|last| self.survivor(last));
        for thread in &mut self.threads {
            thread.sections[1] = thread.place;
        }
        Ok(())
    }

    /// Objects that must change their slot so that the slots filled are those found filled.
    fn moves(&self, filled: &HashMap<u32, Option<u32>>) -> Vec<Move> {
        let now: std::collections::HashSet<u32> =
            self.objects.values().map(|object| object.slot).collect();
        let mut vacated: Vec<(u32, u32)> = filled
            .iter()
            .filter(|(slot, _)| !now.contains(slot))
            .map(|(&slot, &reader)| (reader.unwrap_or(0), slot))
            .collect();
        let mut moved: Vec<(u32, u32, u64)> = self
            .objects
            .iter()
            .filter(|(_, object)| !filled.contains_key(&object.slot))
            .map(|(&id, object)| (self.survivor(object.born_by), object.slot, id))
            .collect();
        // Sorted by thread, so that most moves stay within one; and so that equal streams make
        // equal plans.
        vacated.sort_unstable();
        moved.sort_unstable();
        let mut moves = Vec::with_capacity(moved.len());
        let mut rest = Vec::new();
        for (by, from, object) in moved {
            match vacated.iter().position(|&(reader, _)| reader == by) {
                Some(i) => {
                    let (reader, to) = vacated.remove(i);
                    moves.push(Move { object, by, reader, from, to });
                }
                None => rest.push((by, from, object)),
            }
        }
        for ((by, from, object), (reader, to)) in rest.into_iter().zip(vacated) {
            moves.push(Move { object, by, reader, from, to });
        }
        moves
    }

    /// `thread`, or who acts in its place if it did not outlive the body.
    fn survivor(&self, thread: u32) -> u32 {
        if !self.threads[thread as usize].in_body {
            return thread;
        }
        self.busy().next().unwrap_or(0)
    }

    /// Threads that do something in the body and outlive it. Whoever is born in it has one of
    /// them among its forebears.
    fn busy(&self) -> impl Iterator<Item = u32> {
        let threads = (0..).zip(&self.threads);
        threads.filter(|(_, t)| !t.ended && t.place > t.sections[0]).map(|(n, _)| n)
    }

    /// Everybody who does something in the body waits for all others, by way of the first of them,
    /// who also waits for those that ended in it.
    fn barrier(&mut self) -> Result<(), PlanError> {
        let busy: Vec<u32> = self.busy().collect();
        let Some((&leader, others)) = busy.split_first() else { return Ok(()) };
        for t in 0..self.threads.len() {
            if let (true, Ok(n)) = (self.threads[t].in_body, u32::try_from(t)) {
                self.need(leader, n, self.threads[t].place);
            }
        }
        let nop = [record::word(record::NOP, 0, 0)];
        for &t in others {
            let place = self.push(t, &nop)?;
            self.need(leader, t, place + 1);
        }
        let met = self.push(leader, &nop)?;
        for &t in others {
            self.need(t, leader, met + 1);
            self.push(t, &nop)?;
        }
        let places: Vec<u64> = self.threads.iter().map(|thread| thread.place).collect();
        self.clocks.meet(&busy, &places);
        Ok(())
    }
}

/// One object changes its slot.
#[derive(Debug)]
struct Move {
    object: u64,
    by: u32,
    /// Who reads the new slot in the next repetition.
    reader: u32,
    from: u32,
    to: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seam_survives_its_marker() {
        for seam in [Seam::Begin, Seam::End { repeat: 1 }, Seam::End { repeat: u32::MAX }] {
            assert_eq!(Seam::from_marker(seam.to_marker()), Some(seam));
        }
        assert_eq!(Seam::from_marker(7), None);
    }
}
