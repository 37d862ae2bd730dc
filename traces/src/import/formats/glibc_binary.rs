//! glibc-malloc-trace-utils: little-endian records of 64 bytes, or of 32 in the 2016 form.
//!
//! ```text
//! 0 i32 thread   4 u8 type, then flag bits   8 u64 ptr1   16 u64 ptr2   24 u64 size
//! 32 u64 size2   40 u64 size3   48 u64 pad[2]                        (64-byte form only)
//! ```
//! A `realloc` that moved calls malloc and free itself; they are recorded too, after it, and
//! skipped here.
#![forbid(unsafe_code)]

use super::super::address_map::IntMap;
use super::super::input::Input;
use super::super::raw::{MAX_NUMBER, Raw, RawOp, RawSource};
use super::super::{Census, Format};
use super::bytes::{u32_at, u64_at};
use crate::error::TraceError;
use crate::event::AlignedApi;

pub(crate) const RECORD: usize = 64;
const OLD_RECORD: usize = 32;
pub(crate) const MAGIC: u32 = 255;
pub(crate) const MAGIC_PTR: u64 = 0x1234;
const FLAG_REALLOC: u32 = 1 << 14;
const KNOWN_BITS: u32 = (1 << 16) - 1;
/// The old form does not tell alignments.
const LEAST_ALIGN: u64 = 16;

pub(crate) struct GlibcBinary {
    input: Input,
    record: usize,
    events: u64,
    /// Per thread, the calls that its last realloc is about to make itself.
    inner: IntMap<u64, Inner>,
}

#[derive(Clone, Copy, Default)]
struct Inner {
    malloc: Option<u64>,
    free: Option<u64>,
}

impl GlibcBinary {
    pub(crate) fn new(mut input: Input) -> Result<Self, TraceError> {
        let new = is_magic(input.peek(RECORD)?) || !looks_like(input.peek(1 << 12)?, OLD_RECORD);
        let record = if new { RECORD } else { OLD_RECORD };
        Ok(GlibcBinary { input, record, events: 0, inner: IntMap::default() })
    }

    fn damaged(&self, reason: &str) -> TraceError {
        TraceError::Damaged {
            path: self.input.path().to_owned(),
            format: Format::GlibcBinary,
            event: self.events,
            byte: self.input.position() - self.record as u64,
            reason: reason.to_owned(),
        }
    }

    /// Whether `op` was made by the realloc its thread recorded before it.
    fn is_inner(&mut self, thread: u64, op: &RawOp) -> bool {
        let Some(inner) = self.inner.get_mut(&thread) else { return false };
        let taken = match *op {
            RawOp::Malloc { ptr, .. } => inner.malloc.take_if(|due| *due == ptr).is_some(),
            RawOp::Free { ptr, .. } => inner.free.take_if(|due| *due == ptr).is_some(),
            _ => false,
        };
        if !taken || (inner.malloc.is_none() && inner.free.is_none()) {
            self.inner.remove(&thread);
        }
        taken
    }
}

impl RawSource for GlibcBinary {
    fn next_raw(&mut self, census: &mut Census) -> Result<Option<Raw>, TraceError> {
        loop {
            let record = self.input.peek(self.record)?;
            if record.len() < self.record {
                census.truncated_bytes += record.len() as u64;
                return Ok(None);
            }
            let (thread, flags) = (u32_at(record, 0), u32_at(record, 4));
            let parsed = parse(record, flags, self.record == RECORD);
            self.input.skip(self.record);
            let op = match parsed {
                Ok(Some(op)) => op,
                Ok(None) => continue,
                Err(reason) => return Err(self.damaged(reason)),
            };
            let thread = u64::from(thread);
            if self.is_inner(thread, &op) {
                census.nested_calls += 1;
                continue;
            }
            if let RawOp::Realloc { old, ptr, .. } = op
                && flags & FLAG_REALLOC != 0
                && self.record == RECORD
            {
                self.inner.insert(thread, Inner { malloc: Some(ptr), free: Some(old) });
            }
            self.events += 1;
            census.records += 1;
            return Ok(Some(Raw { thread, time: None, op }));
        }
    }

    fn threaded(&self) -> bool {
        true
    }
}

fn parse(record: &[u8], flags: u32, new: bool) -> Result<Option<RawOp>, &'static str> {
    let kind = flags & 0xff;
    if kind == 0 || kind == MAGIC {
        return Ok(None);
    }
    let [ptr1, ptr2, size] = [8, 16, 24].map(|at| u64_at(record, at));
    let size2 = if new { u64_at(record, 32) } else { 0 };
    let align = if new { size2.max(1) } else { LEAST_ALIGN };
    let op = match kind {
        1 => RawOp::Malloc { ptr: ptr2, size },
        2 => RawOp::Calloc { ptr: ptr2, count: 1, size },
        3 => RawOp::Free { ptr: ptr1, stated_size: None },
        4 => RawOp::Realloc { old: ptr1, ptr: ptr2, size },
        5 => RawOp::Aligned { ptr: ptr2, align, size, api: AlignedApi::Memalign },
        6 => RawOp::Aligned { ptr: ptr2, align: 4096, size, api: AlignedApi::Valloc },
        7 => RawOp::Aligned { ptr: ptr2, align: 4096, size, api: AlignedApi::Pvalloc },
        8 => {
            let ptr = if ptr1 == 0 { ptr2 } else { 0 };
            RawOp::Aligned { ptr, align, size, api: AlignedApi::PosixMemalign }
        }
        _ => return Err("the record type is unknown"),
    };
    // A call that failed may have been given any size.
    let sizes = if op.failed() { [0; 2] } else { [size, size2] };
    if [ptr1, ptr2].iter().chain(&sizes).any(|&number| number > MAX_NUMBER) {
        return Err("a number is beyond 2^48");
    }
    Ok(Some(op))
}

fn is_magic(head: &[u8]) -> bool {
    head.len() >= RECORD && u32_at(head, 4) & 0xff == MAGIC && u64_at(head, 8) == MAGIC_PTR
}

/// Whether `head` begins a file of this format.
pub(crate) fn recognises(head: &[u8]) -> bool {
    is_magic(head) || looks_like(head, OLD_RECORD)
}

/// Whether every whole record of `head` is plausible, and some are calls.
fn looks_like(head: &[u8], length: usize) -> bool {
    let mut calls = 0;
    for record in head.chunks_exact(length).take(64) {
        let flags = u32_at(record, 4);
        match parse(record, flags, length == RECORD) {
            Ok(Some(_)) if flags & !KNOWN_BITS == 0 && u32_at(record, 0) != 0 => calls += 1,
            Ok(None) if record.iter().all(|&byte| byte == 0) => {}
            _ => return false,
        }
    }
    calls > 0
}
