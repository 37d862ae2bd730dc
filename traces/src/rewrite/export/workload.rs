//! The glibc workload: one program per thread, written down once all are complete.
//!
//! Where a thread uses an object that another one allocated, the order between the two becomes a
//! wait. Memory grows with the trace, because threads lie one behind the other in the file.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, HashMap};

use super::text::{note_time, note_unknown};
use super::{Encoder, Losses};
use crate::event::{Event, ObjectId, Op, ThreadId};

#[derive(Default)]
pub(super) struct Workload {
    programs: BTreeMap<u32, Vec<u8>>,
    owners: HashMap<ObjectId, ThreadId>,
    objects: u64,
    syncs: u64,
}

impl Workload {
    /// Makes `thread` wait for the birth of `object`, if another thread gave it.
    fn wait_for(&mut self, thread: ThreadId, object: ObjectId) {
        let Some(owner) = self.owners.get(&object).copied() else { return };
        if owner != thread {
            let sync = self.syncs;
            self.syncs += 1;
            put(self.programs.entry(owner.0).or_default(), 6, &[sync]);
            put(self.programs.entry(thread.0).or_default(), 7, &[sync]);
        }
    }
}

impl Encoder for Workload {
    fn event(&mut self, event: &Event, _out: &mut Vec<u8>, losses: &mut Losses) {
        note_time(event, losses);
        if let Op::Realloc { old: Some(object), .. } | Op::Free { object: Some(object), .. } =
            event.op
        {
            self.wait_for(event.thread, object);
        }
        if let Some(released) = event.op.released() {
            self.owners.remove(&released);
        }
        if let Some(born) = event.op.born() {
            self.owners.insert(born, event.thread);
            self.objects = self.objects.max(born.index() + 1);
        }
        let id = |object: Option<ObjectId>| object.map_or(0, |object| object.index() + 1);
        let program = self.programs.entry(event.thread.0).or_default();
        match event.op {
            Op::Malloc { object, size } => put(program, 2, &[id(object), size]),
            Op::Calloc { object, count, .. } => {
                if count != 1 {
                    losses.note("counts of calloc");
                }
                put(program, 3, &[id(object), event.op.requested().unwrap_or(0)]);
            }
            Op::Realloc { old, object, size } => put(program, 4, &[id(object), id(old), size]),
            Op::Free { object, .. } => put(program, 5, &[id(object)]),
            Op::Aligned { object, size, api: crate::event::AlignedApi::Valloc, .. } => {
                put(program, 13, &[id(object), size]);
            }
            Op::Aligned { object, size, api: crate::event::AlignedApi::Pvalloc, .. } => {
                put(program, 14, &[id(object), size]);
            }
            Op::Aligned { object, align, size, api } => {
                if api != crate::event::AlignedApi::Memalign {
                    losses.note("which aligned call it was");
                }
                put(program, 12, &[id(object), align, size]);
            }
            // Every thread starts and ends in the file, whether the trace says when or not.
            Op::ThreadStart { .. } | Op::ThreadEnd => {}
            other => note_unknown(&other, losses),
        }
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        // Offsets are written with a fixed number of bytes, so that the header's length is known.
        let mut header = Vec::new();
        put(&mut header, 8, &[self.objects + 1]);
        put(&mut header, 9, &[self.syncs]);
        put(&mut header, 10, &[self.programs.len() as u64]);
        let mut offset = header.len() + self.programs.len() * (1 + FIXED) + 1;
        for program in self.programs.values_mut() {
            program.push(1);
            header.push(11);
            fixed(&mut header, offset as u64);
            offset += program.len();
        }
        header.push(1);
        out.append(&mut header);
        for program in self.programs.values_mut() {
            out.append(program);
        }
    }
}

const FIXED: usize = 7;

fn put(out: &mut Vec<u8>, opcode: u8, numbers: &[u64]) {
    out.push(opcode);
    for &number in numbers {
        let groups = (u64::BITS - number.leading_zeros()).div_ceil(7).max(1);
        group(out, number, groups as usize);
    }
}

fn fixed(out: &mut Vec<u8>, number: u64) {
    group(out, number, FIXED);
}

/// Groups of seven bits, the most significant first.
fn group(out: &mut Vec<u8>, number: u64, groups: usize) {
    for index in (0..groups).rev() {
        let bits = (number >> (7 * index)) as u8 & 0x7f;
        out.push(if index > 0 { bits | 0x80 } else { bits });
    }
}
