//! WebKit MallocBench `.ops`: little-endian records of 24 bytes.
//!
//! ```text
//! 0 u32 op (0 malloc, 1 free, 2 realloc, 3 aligned)   4 u16 thread   6 u16 log2 of alignment
//! 8 u64 slot   16 u64 size
//! ```
//! An object is named by its slot, which is used again after a free; `realloc` keeps its slot. In
//! older files bytes 4 to 7 mean nothing: they are read only if the first records agree on that
//! alignments stand where they should (0xffff: none).
#![forbid(unsafe_code)]

use super::super::input::Input;
use super::super::raw::{MAX_NUMBER, Raw, RawOp, RawSource};
use super::super::{Census, Format};
use super::bytes::{u16_at, u32_at, u64_at};
use crate::error::TraceError;
use crate::event::AlignedApi;

pub(crate) const RECORD: usize = 24;
pub(crate) const NO_ALIGN: u16 = 0xffff;
const DEFAULT_LOG2: u16 = 4;

pub(crate) struct Ops {
    input: Input,
    threaded: bool,
    events: u64,
}

impl Ops {
    pub(crate) fn new(mut input: Input) -> Result<Self, TraceError> {
        let threaded = input.peek(1 << 12)?.chunks_exact(RECORD).all(|record| {
            let (op, log2) = (u32_at(record, 0), u16_at(record, 6));
            if op == 3 { log2 < 48 } else { log2 == NO_ALIGN }
        });
        Ok(Ops { input, threaded, events: 0 })
    }
}

impl RawSource for Ops {
    fn next_raw(&mut self, census: &mut Census) -> Result<Option<Raw>, TraceError> {
        let record = self.input.peek(RECORD)?;
        if record.len() < RECORD {
            census.truncated_bytes += record.len() as u64;
            return Ok(None);
        }
        let thread = if self.threaded { u64::from(u16_at(record, 4)) } else { 0 };
        match parse(record, self.threaded) {
            Ok(op) => {
                self.input.skip(RECORD);
                self.events += 1;
                census.records += 1;
                Ok(Some(Raw { thread, time: None, op }))
            }
            Err(reason) => Err(TraceError::Damaged {
                path: self.input.path().to_owned(),
                format: Format::Ops,
                event: self.events,
                byte: self.input.position(),
                reason: reason.to_owned(),
            }),
        }
    }

    fn threaded(&self) -> bool {
        self.threaded
    }
}

fn parse(record: &[u8], threaded: bool) -> Result<RawOp, &'static str> {
    let (slot, size) = (u64_at(record, 8), u64_at(record, 16));
    if slot >= MAX_NUMBER || size > MAX_NUMBER {
        return Err("a number is beyond 2^48");
    }
    let ptr = slot + 1;
    Ok(match u32_at(record, 0) {
        0 => RawOp::Malloc { ptr, size },
        1 => RawOp::Free { ptr, stated_size: None },
        2 => RawOp::Realloc { old: ptr, ptr, size },
        3 => {
            let log2 = if threaded { u16_at(record, 6) } else { DEFAULT_LOG2 };
            if log2 > 48 {
                return Err("the alignment is beyond 2^48");
            }
            let api = AlignedApi::Memalign;
            RawOp::Aligned { ptr, align: 1 << log2, size, api }
        }
        _ => return Err("the operation is unknown"),
    })
}

/// Whether `head` begins a file of this format: every record plausible, the first one no release.
pub(crate) fn recognises(head: &[u8]) -> bool {
    let mut records = head.chunks_exact(RECORD).take(64).peekable();
    let first = records.peek().is_some_and(|record| u32_at(record, 0) != 1);
    first && records.all(|record| parse(record, false).is_ok() && u64_at(record, 8) < 1 << 32)
}
