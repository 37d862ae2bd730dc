//! Threads are born and end, in the stream and in its plan.
//!
//! # Invariants
//! 1. Who gives birth to a thread is known when the thread's first event comes, and has one place
//!    for it.
//! 2. A thread born in a repeated body ends in it: the next repetition begins without it.
#![forbid(unsafe_code)]

use std::cmp::Ordering;

use traces::{Event, Op, ThreadId};

use super::build::{Builder, Thread};
use super::error::PlanError;
use super::record;

impl Builder {
    /// The event's thread, born now if this is its first event.
    pub(crate) fn thread(&mut self, event: &Event) -> Result<u32, PlanError> {
        let ThreadId(thread) = event.thread;
        match (thread as usize).cmp(&self.threads.len()) {
            Ordering::Less => return Ok(thread),
            Ordering::Greater => {
                return self.impossible(format!(
                    "thread {thread} appears before thread {}",
                    self.threads.len()
                ));
            }
            Ordering::Equal => {}
        }
        if thread > record::THREAD_MAX {
            return Err(PlanError::TooLarge { what: "more than 2^24 threads" });
        }
        let birth = match self.parent(event, thread) {
            None => None,
            Some(parent) => Some((parent, self.spawn(parent, thread)?)),
        };
        let in_body = self.section == 1;
        // What the parent waited for in this piece of the order, it waited for before the birth.
        let piece = birth.filter(|_| !in_body).and_then(|(p, _)| self.threads[p as usize].piece);
        let spawned = birth.is_some();
        self.threads.push(Thread { spawned, in_body, piece, ..Thread::default() });
        self.clocks.birth(birth.map(|(parent, place)| (parent, place + 1)));
        self.slots.birth();
        self.spool.birth();
        if let Some(index) = &mut self.index {
            index.birth();
        }
        self.alive += 1;
        self.peak_threads = self.peak_threads.max(self.alive);
        self.last_thread.get_or_insert(thread);
        Ok(thread)
    }

    /// Who gives birth to `thread`: whom the event names, else whoever came last in the total
    /// order. A stream is written when it is complete, so the birth may even follow the parent's
    /// end.
    fn parent(&self, event: &Event, thread: u32) -> Option<u32> {
        let stated = match event.op {
            Op::ThreadStart { parent: Some(ThreadId(p)) }
                if p < thread && !self.threads[p as usize].ended =>
            {
                Some(p)
            }
            _ => None,
        };
        stated.or(self.last_thread).or(if thread == 0 { None } else { Some(0) })
    }

    /// Writes a birth into the parent's stream, in its place in the total order and after the birth
    /// before it. In a body only what the generator says orders births, so that its threads come
    /// and go each at its own pace.
    fn spawn(&mut self, parent: u32, thread: u32) -> Result<u64, PlanError> {
        let ordered = self.section != 1;
        if ordered {
            self.keep_order(parent);
        }
        if let (true, Some((by, place))) = (ordered, self.last_spawn) {
            self.need(parent, by, place + 1);
        }
        let place = self.push(parent, &[record::word(record::SPAWN, thread, 0)])?;
        if ordered {
            self.last_spawn = Some((parent, place));
            self.last_thread = Some(parent);
        }
        Ok(place)
    }

    /// A thread ends.
    pub(crate) fn end(&mut self, thread: u32) -> Result<(), PlanError> {
        let state = &mut self.threads[thread as usize];
        if self.section == 1 && !state.in_body {
            return self.impossible(format!(
                "thread {thread} ends in a repeated body and was not born in it"
            ));
        }
        state.ended = true;
        self.slots.death(thread);
        self.clocks.end(thread);
        self.alive -= 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use traces::{Event, ObjectId, Op, ThreadId};

    use super::*;
    use crate::plan::prepare::PlanOptions;
    use crate::plan::spool::Spool;

    #[test]
    fn what_is_kept_grows_with_the_threads_that_lived_and_not_with_their_square() {
        const PAIRS: u32 = 30_000;
        let spool = Spool::new(tempfile::tempfile().unwrap());
        let mut builder = Builder::new(PlanOptions::default(), spool, None);
        let mut event = |thread, op| {
            builder.event(&Event { thread: ThreadId(thread), time_ns: None, op }).unwrap();
        };
        event(0, Op::ThreadStart { parent: None });
        for n in 1..=PAIRS {
            let object = Some(ObjectId::from_index(u64::from(n)));
            event(n, Op::ThreadStart { parent: Some(ThreadId(0)) });
            event(n, Op::Malloc { object, size: 16 });
            event(n, Op::ThreadEnd);
            event(0, Op::Free { object, stated_size: None });
        }
        let entries = builder.clocks.entries();
        assert!(entries < 256 * PAIRS as usize, "{entries} entries");
        let waits: usize = builder.threads.iter().map(|thread| thread.waits.len()).sum();
        assert!(waits <= 2 * PAIRS as usize, "{waits} waits");
    }
}
