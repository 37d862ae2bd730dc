//! A generator as an event source.

use std::convert::Infallible;
use std::fmt;

use traces::{Event, EventSource, Op};

use super::emitter::Emitter;
use crate::plan::Seam;

/// A program that yields the events of a workload in three parts.
///
/// A body that is folded must leave as many objects alive as it found, and no thread but those
/// that were.
pub trait Workload: Send {
    /// Whether the body may be folded.
    fn folds(&self) -> bool {
        true
    }

    /// What happens once, first: threads are born, the first objects allocated.
    fn prologue(&mut self, out: &mut Emitter);

    /// What is repeated.
    fn body(&mut self, out: &mut Emitter);

    /// What happens once, last.
    fn epilogue(&mut self, out: &mut Emitter);
}

/// The events of a workload.
pub struct GeneratorSource {
    workload: Box<dyn Workload>,
    out: Emitter,
    given: usize,
    rounds: u32,
    next: Part,
    folded: bool,
}

#[derive(Clone, Copy, Debug)]
enum Part {
    Prologue,
    Body(u32),
    Epilogue,
    Done,
}

impl fmt::Debug for GeneratorSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GeneratorSource").field("next", &self.next).finish_non_exhaustive()
    }
}

impl GeneratorSource {
    /// The events of `workload` with the body executed `rounds` times; `folded` where it can be,
    /// for a plan, else flat, for a trace file.
    #[must_use]
    pub fn new(workload: Box<dyn Workload>, rounds: u32, folded: bool) -> Self {
        let folded = folded && workload.folds();
        let out = Emitter::default();
        GeneratorSource { workload, out, given: 0, rounds, next: Part::Prologue, folded }
    }

    fn marker(&mut self, seam: Seam) {
        self.out.op(0, Op::Marker { value: seam.to_marker() });
    }

    /// Generates the next part.
    fn generate(&mut self) {
        self.out.events.clear();
        self.given = 0;
        self.next = match self.next {
            Part::Prologue => {
                self.workload.prologue(&mut self.out);
                Part::Body(0)
            }
            Part::Body(_) if self.folded => {
                self.marker(Seam::Begin);
                self.workload.body(&mut self.out);
                self.marker(Seam::End { repeat: self.rounds.max(1) });
                Part::Epilogue
            }
            Part::Body(n) if n < self.rounds => {
                self.workload.body(&mut self.out);
                Part::Body(n + 1)
            }
            Part::Body(_) => Part::Epilogue,
            Part::Epilogue => {
                self.workload.epilogue(&mut self.out);
                Part::Done
            }
            Part::Done => Part::Done,
        };
    }
}

impl EventSource for GeneratorSource {
    type Error = Infallible;

    fn next_event(&mut self) -> Result<Option<Event>, Infallible> {
        while self.given == self.out.events.len() {
            if matches!(self.next, Part::Done) {
                return Ok(None);
            }
            self.generate();
        }
        self.given += 1;
        Ok(Some(self.out.events[self.given - 1]))
    }
}
