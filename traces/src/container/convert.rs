//! Events as the format's records, and back. Objects are numbered from 1 on both sides.

use std::num::NonZeroU64;

use trace_format::v1::{Call, Form, Record};

use crate::event::{AlignedApi, Event, ObjectId, Op, ThreadId};

fn number(object: Option<ObjectId>) -> u64 {
    object.map_or(0, |id| id.0.get())
}

fn object(number: u64) -> Option<ObjectId> {
    NonZeroU64::new(number).map(ObjectId)
}

/// `event` as a record; a missing time becomes 0.
pub(super) fn to_record(event: &Event) -> Record {
    let call = match event.op {
        Op::Malloc { object, size } => Call::Malloc { object: number(object), size },
        Op::Calloc { object, count, size } => Call::Calloc { object: number(object), count, size },
        Op::Realloc { old, object, size } => {
            Call::Realloc { old: number(old), object: number(object), size }
        }
        Op::Aligned { object, align, size, api } => {
            Call::Aligned { object: number(object), align, size, form: form(api) }
        }
        Op::Free { object, stated_size } => Call::Free { object: number(object), stated_size },
        Op::UsableSize { object } => Call::UsableSize { object: number(object) },
        Op::Access { object, bytes, times } => {
            Call::Access { object: object.0.get(), bytes, times }
        }
        Op::ThreadStart { parent } => Call::ThreadStart { parent: parent.map(|id| id.0) },
        Op::ThreadEnd => Call::ThreadEnd,
        Op::Fork { child } => Call::Fork { child },
        Op::Marker { value } => Call::Marker { value },
    };
    Record { thread: event.thread.0, time_ns: event.time_ns.unwrap_or(0), call }
}

/// `record` as an event, with its time if the file has times.
pub(super) fn to_event(record: &Record, times: bool) -> Event {
    let op = match record.call {
        Call::Malloc { object: id, size } => Op::Malloc { object: object(id), size },
        Call::Calloc { object: id, count, size } => Op::Calloc { object: object(id), count, size },
        Call::Realloc { old, object: id, size } => {
            Op::Realloc { old: object(old), object: object(id), size }
        }
        Call::Aligned { object: id, align, size, form } => {
            Op::Aligned { object: object(id), align, size, api: api(form) }
        }
        Call::Free { object: id, stated_size } => Op::Free { object: object(id), stated_size },
        Call::UsableSize { object: id } => Op::UsableSize { object: object(id) },
        // The decoder yields no access without an object.
        Call::Access { object, bytes, times } => Op::Access {
            object: ObjectId(NonZeroU64::new(object).unwrap_or(NonZeroU64::MIN)),
            bytes,
            times,
        },
        Call::ThreadStart { parent } => Op::ThreadStart { parent: parent.map(ThreadId) },
        Call::ThreadEnd => Op::ThreadEnd,
        Call::Fork { child } => Op::Fork { child },
        Call::Marker { value } => Op::Marker { value },
    };
    Event { thread: ThreadId(record.thread), time_ns: times.then_some(record.time_ns), op }
}

fn form(api: AlignedApi) -> Form {
    match api {
        AlignedApi::Memalign => Form::Memalign,
        AlignedApi::AlignedAlloc => Form::AlignedAlloc,
        AlignedApi::PosixMemalign => Form::PosixMemalign,
        AlignedApi::Valloc => Form::Valloc,
        AlignedApi::Pvalloc => Form::Pvalloc,
        AlignedApi::CxxNew => Form::CxxNew,
    }
}

fn api(form: Form) -> AlignedApi {
    match form {
        Form::Memalign => AlignedApi::Memalign,
        Form::AlignedAlloc => AlignedApi::AlignedAlloc,
        Form::PosixMemalign => AlignedApi::PosixMemalign,
        Form::Valloc => AlignedApi::Valloc,
        Form::Pvalloc => AlignedApi::Pvalloc,
        Form::CxxNew => AlignedApi::CxxNew,
    }
}
