//! Protobuf `Tracefile`, usually gzipped (`*.trace.gz`).
//!
//! ```text
//! Tracefile { repeated TraceLine lines = 1; uint64 max_simultaneous_allocs = 2; }
//! TraceLine { oneof: Malloc = 1 { result_id = 1; size = 2; align = 3 }
//!                    Free = 2 { input_id = 1; size_hint = 2; align_hint = 3 }
//!                    Realloc = 3 { result_id = 1; input_id = 2; size = 3 }
//!                    Calloc = 4 { result_id = 1; nmemb = 2; size = 3 } }
//! ```
//! All numbers are varints; an absent id is NULL; ids are used again. There are no threads. The
//! converter that writes these files appends a free for everything still alive: the run of frees
//! at the end is therefore left out, unless told otherwise, and counted.
#![forbid(unsafe_code)]

use std::collections::VecDeque;

use super::super::input::Input;
use super::super::raw::{MAX_NUMBER, Raw, RawOp, RawSource};
use super::super::{Census, Format};
use crate::error::TraceError;
use crate::event::AlignedApi;

/// The longest message of one line: seven fields are far below it.
const MOST: u64 = 256;

/// The longest run of frees that is held back to see whether it ends the file.
const TAIL: usize = 1 << 22;

pub(crate) struct Protobuf {
    input: Input,
    strip_tail: bool,
    events: u64,
    /// Frees that may turn out to end the file, then perhaps the call after them.
    held: VecDeque<RawOp>,
    releasing: bool,
    /// Bytes of a last line that the file does not hold whole.
    truncated: u64,
}

impl Protobuf {
    pub(crate) fn new(input: Input, strip_tail: bool) -> Self {
        Protobuf {
            input,
            strip_tail,
            events: 0,
            held: VecDeque::new(),
            releasing: false,
            truncated: 0,
        }
    }

    fn damaged(&self, reason: &str) -> TraceError {
        TraceError::Damaged {
            path: self.input.path().to_owned(),
            format: Format::Protobuf,
            event: self.events,
            byte: self.input.position(),
            reason: reason.to_owned(),
        }
    }

    /// The next call of the file.
    fn next_op(&mut self) -> Result<Option<RawOp>, TraceError> {
        loop {
            let start = self.input.position();
            let Some(tag) = self.input.byte()? else { return Ok(None) };
            let Some(value) = self.varint()? else { return Ok(self.cut_off(start)) };
            match tag {
                0x0a if value <= MOST => {
                    let length = value as usize;
                    let message = self.input.peek(length)?;
                    if message.len() < length {
                        let rest = message.len();
                        self.input.skip(rest);
                        return Ok(self.cut_off(start));
                    }
                    let op = line(message);
                    self.input.skip(length);
                    match op {
                        Ok(op) => {
                            self.events += 1;
                            return Ok(Some(op));
                        }
                        Err(reason) => return Err(self.damaged(reason)),
                    }
                }
                0x0a => return Err(self.damaged("a line is longer than any honest one")),
                0x10 => {}
                _ => return Err(self.damaged("the field is unknown")),
            }
        }
    }

    /// The file ends within the line that began at `start`.
    fn cut_off<T>(&mut self, start: u64) -> Option<T> {
        self.truncated = self.input.position() - start;
        None
    }

    /// The next number; `None` if the file ends within it.
    fn varint(&mut self) -> Result<Option<u64>, TraceError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let Some(byte) = self.input.byte()? else { return Ok(None) };
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(Some(value));
            }
        }
        Err(self.damaged("a number is longer than ten bytes"))
    }
}

impl RawSource for Protobuf {
    fn next_raw(&mut self, census: &mut Census) -> Result<Option<Raw>, TraceError> {
        loop {
            if self.releasing {
                match self.held.pop_front() {
                    Some(op) => {
                        census.records += 1;
                        return Ok(Some(Raw { thread: 0, time: None, op }));
                    }
                    None => self.releasing = false,
                }
            }
            let next = self.next_op()?;
            census.truncated_bytes += std::mem::take(&mut self.truncated);
            match next {
                None if self.strip_tail => {
                    census.stripped_tail += self.held.len() as u64;
                    self.held.clear();
                    return Ok(None);
                }
                None if self.held.is_empty() => return Ok(None),
                None => self.releasing = true,
                Some(op) => {
                    self.held.push_back(op);
                    let free = matches!(op, RawOp::Free { .. });
                    self.releasing = !free || self.held.len() >= TAIL;
                }
            }
        }
    }

    fn threaded(&self) -> bool {
        false
    }
}

/// Fields 1 to 3 of a message of varints.
fn fields(mut message: &[u8]) -> Result<[u64; 4], &'static str> {
    let mut fields = [0; 4];
    while !message.is_empty() {
        let tag = take_varint(&mut message)?;
        let value = take_varint(&mut message)?;
        match tag {
            0x08 | 0x10 | 0x18 => fields[(tag >> 3) as usize] = value,
            _ if tag & 7 == 0 => {}
            _ => return Err("a field of a line is no number"),
        }
    }
    Ok(fields)
}

fn take_varint(message: &mut &[u8]) -> Result<u64, &'static str> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let Some((&byte, rest)) = message.split_first() else {
            return Err("a line ends within a number");
        };
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err("a number is longer than ten bytes")
}

/// One `TraceLine`.
fn line(mut message: &[u8]) -> Result<RawOp, &'static str> {
    let tag = take_varint(&mut message)?;
    let length = take_varint(&mut message)?;
    if length != message.len() as u64 {
        return Err("the length of a line is wrong");
    }
    let [_, first, second, third] = fields(message)?;
    let op = match tag {
        0x0a if third > 0 => {
            RawOp::Aligned { ptr: first, align: third, size: second, api: AlignedApi::Memalign }
        }
        0x0a => RawOp::Malloc { ptr: first, size: second },
        0x12 => RawOp::Free { ptr: first, stated_size: (second > 0).then_some(second) },
        0x1a => RawOp::Realloc { old: second, ptr: first, size: third },
        0x22 => RawOp::Calloc { ptr: first, count: second, size: third },
        _ => return Err("the kind of a line is unknown"),
    };
    // Ids, and the size stated to free.
    let others = if matches!(tag, 0x12 | 0x1a) { first.max(second) } else { first };
    if others > MAX_NUMBER || op.is_beyond() { Err("a number is beyond 2^48") } else { Ok(op) }
}

/// Whether `head` begins a file of this format.
pub(crate) fn recognises(mut head: &[u8]) -> bool {
    let mut lines = 0;
    while lines < 32 && head.first() == Some(&0x0a) {
        head = &head[1..];
        let Ok(length) = take_varint(&mut head) else { break };
        let Some(message) = usize::try_from(length).ok().and_then(|length| head.get(..length))
        else {
            break;
        };
        if line(message).is_err() {
            return false;
        }
        head = &head[message.len()..];
        lines += 1;
    }
    lines > 0 && (lines == 32 || head.is_empty() || matches!(head[0], 0x0a | 0x10))
}
