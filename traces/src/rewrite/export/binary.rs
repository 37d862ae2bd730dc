//! The binary formats of fixed or self-delimiting records; their layouts stand with their readers.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use super::text::{note_bare, note_time, note_unknown};
use super::{Encoder, Losses, address, tid};
use crate::event::{AlignedApi, Event, ObjectId, Op};
use crate::import::{glibc_binary, ops};

pub(super) struct GlibcBinary;

impl Encoder for GlibcBinary {
    fn begin(&mut self, out: &mut Vec<u8>) {
        record(out, 0, glibc_binary::MAGIC, [glibc_binary::MAGIC_PTR, 0, 8, 0]);
    }

    fn event(&mut self, event: &Event, out: &mut Vec<u8>, losses: &mut Losses) {
        note_time(event, losses);
        let (kind, fields) = match event.op {
            Op::Malloc { object, size } => (1, [0, address(object), size, 0]),
            Op::Calloc { object, count, .. } => {
                if count != 1 {
                    losses.note("counts of calloc");
                }
                (2, [0, address(object), event.op.requested().unwrap_or(0), 0])
            }
            Op::Free { object, .. } => (3, [address(object), 0, 0, 0]),
            Op::Realloc { old, object, size } => (4, [address(old), address(object), size, 0]),
            Op::Aligned { object, align, size, api } => match api {
                AlignedApi::Valloc => (6, [0, address(object), size, 0]),
                AlignedApi::Pvalloc => (7, [0, address(object), size, 0]),
                AlignedApi::PosixMemalign => {
                    let error = if object.is_none() { 12 } else { 0 };
                    (8, [error, address(object), size, align])
                }
                AlignedApi::Memalign => (5, [0, address(object), size, align]),
                _ => {
                    losses.note("which aligned call it was");
                    (5, [0, address(object), size, align])
                }
            },
            Op::ThreadStart { .. } => return,
            other => return note_unknown(&other, losses),
        };
        record(out, tid(event.thread) as u32, kind, fields);
    }
}

fn record(out: &mut Vec<u8>, thread: u32, kind: u32, fields: [u64; 4]) {
    let end = out.len() + glibc_binary::RECORD;
    out.extend_from_slice(&thread.to_le_bytes());
    out.extend_from_slice(&kind.to_le_bytes());
    for field in fields {
        out.extend_from_slice(&field.to_le_bytes());
    }
    out.resize(end, 0);
}

/// Slots are given again; the smallest free one is not sought, any will do.
#[derive(Default)]
pub(super) struct Ops {
    slots: HashMap<ObjectId, u64>,
    free: Vec<u64>,
    count: u64,
}

impl Ops {
    fn take(&mut self, object: ObjectId) -> u64 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.count += 1;
            self.count - 1
        });
        self.slots.insert(object, slot);
        slot
    }
}

impl Encoder for Ops {
    fn event(&mut self, event: &Event, out: &mut Vec<u8>, losses: &mut Losses) {
        note_time(event, losses);
        let mut log2 = ops::NO_ALIGN;
        let (kind, slot, size) = match event.op {
            Op::Realloc { old: Some(old), object: Some(object), size } => {
                let slot = self.slots.remove(&old).unwrap_or_default();
                self.slots.insert(object, slot);
                (2, slot, size)
            }
            Op::Free { object: Some(object), .. }
            | Op::Realloc { old: Some(object), object: None, size: 0 } => {
                let Some(slot) = self.slots.remove(&object) else { return };
                self.free.push(slot);
                (1, slot, 0)
            }
            Op::Free { object: None, .. } => return losses.note("free(NULL)"),
            Op::ThreadStart { .. } => return,
            op => match op.born() {
                Some(object) => {
                    let mut kind = 0;
                    match op {
                        Op::Calloc { .. } => losses.note("zeroing"),
                        Op::Aligned { align, .. } => {
                            kind = 3;
                            log2 = align.max(1).ilog2() as u16;
                        }
                        _ => {}
                    }
                    (kind, self.take(object), op.requested().unwrap_or(0))
                }
                None if op.requested().is_some() => return losses.note("failed allocations"),
                None => return note_unknown(&op, losses),
            },
        };
        let thread = u16::try_from(event.thread.0).unwrap_or_else(|_| {
            losses.note("threads beyond 65,536");
            u16::MAX
        });
        out.extend_from_slice(&u32::to_le_bytes(kind));
        out.extend_from_slice(&thread.to_le_bytes());
        out.extend_from_slice(&log2.to_le_bytes());
        out.extend_from_slice(&slot.to_le_bytes());
        out.extend_from_slice(&size.to_le_bytes());
    }
}

pub(super) struct Protobuf;

impl Encoder for Protobuf {
    fn event(&mut self, event: &Event, out: &mut Vec<u8>, losses: &mut Losses) {
        note_bare(event, losses);
        // An id is the object's number: small, and given once.
        let id = |object: Option<ObjectId>| object.map_or(0, |object| object.index() + 1);
        let (kind, fields) = match event.op {
            Op::Malloc { object, size } => (1, [id(object), size, 0]),
            Op::Aligned { object, align, size, api } => {
                if api != AlignedApi::Memalign {
                    losses.note("which aligned call it was");
                }
                (1, [id(object), size, align])
            }
            Op::Free { object, stated_size } => (2, [id(object), stated_size.unwrap_or(0), 0]),
            Op::Realloc { old, object, size } => (3, [id(object), id(old), size]),
            Op::Calloc { object, count, size } => (4, [id(object), count, size]),
            Op::ThreadStart { .. } => return,
            other => return note_unknown(&other, losses),
        };
        let mut message = Vec::with_capacity(32);
        for (field, value) in (1_u8..).zip(fields) {
            if value != 0 {
                message.push(field << 3);
                varint(&mut message, value);
            }
        }
        let mut line = vec![kind << 3 | 2];
        varint(&mut line, message.len() as u64);
        line.append(&mut message);
        out.push(0x0a);
        varint(out, line.len() as u64);
        out.append(&mut line);
    }
}

/// Groups of seven bits, the least significant first.
fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
