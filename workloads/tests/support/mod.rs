//! Streams by hand, and plans of them.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::convert::Infallible;
use std::num::NonZeroU64;

use traces::{Event, EventSource, ObjectId, Op, ThreadId};
use workloads::plan::{Plan, PlanError, PlanOptions};

/// A stream that is a list.
pub(crate) struct List {
    events: std::vec::IntoIter<Event>,
}

impl EventSource for List {
    type Error = Infallible;

    fn next_event(&mut self) -> Result<Option<Event>, Infallible> {
        Ok(self.events.next())
    }
}

/// Object number `n`, from 0.
pub(crate) fn object(n: u64) -> ObjectId {
    ObjectId(NonZeroU64::new(n + 1).unwrap())
}

pub(crate) fn event(thread: u32, op: Op) -> Event {
    Event { thread: ThreadId(thread), time_ns: None, op }
}

pub(crate) fn malloc(thread: u32, n: u64, size: u64) -> Event {
    event(thread, Op::Malloc { object: Some(object(n)), size })
}

pub(crate) fn free(thread: u32, n: u64) -> Event {
    event(thread, Op::Free { object: Some(object(n)), stated_size: None })
}

/// A plan of these events, its file gone with the returned folder.
pub(crate) fn plan_of(
    events: Vec<Event>,
    options: &PlanOptions,
) -> Result<(tempfile::TempDir, Plan), PlanError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.plan");
    let plan = Plan::prepare(&mut List { events: events.into_iter() }, options, &path)?;
    Ok((folder, plan))
}
