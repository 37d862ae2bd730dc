//! glibc `mtrace(3)`.
//!
//! ```text
//! = Start
//! @ where + P 0xSZ        allocation (malloc, calloc and the aligned calls alike)
//! @ where - P             release
//! @ where < OLD           } realloc, on two lines
//! @ where > NEW 0xSZ      }
//! @ where ! P 0xSZ        realloc that failed
//! = End
//! ```
//! `@ where` may be missing or be a bare `[0x…]`, and may hold spaces: what counts is the end of
//! the line. Threads, alignment and zeroing are lost.
#![forbid(unsafe_code)]

use super::super::cursor::Cursor;
use super::super::input::{Fault, Input};
use super::super::raw::{Raw, RawOp, RawSource};
use super::super::{Census, Format};
use crate::error::TraceError;

pub(crate) struct Mtrace {
    input: Input,
    /// The first line of a `realloc` whose second line is due.
    reallocated: Option<u64>,
}

impl Mtrace {
    pub(crate) fn new(input: Input) -> Self {
        Mtrace { input, reallocated: None }
    }
}

enum Line {
    Nothing,
    Op(RawOp),
    ReallocOld(u64),
    ReallocNew { ptr: u64, size: u64 },
}

impl RawSource for Mtrace {
    fn next_raw(&mut self, census: &mut Census) -> Result<Option<Raw>, TraceError> {
        loop {
            let Some(line) = self.input.next_line(Format::Mtrace)? else {
                // The program ended between the two lines of a realloc.
                if self.reallocated.take().is_some() {
                    census.truncated_bytes += 1;
                }
                return Ok(None);
            };
            let length = line.len();
            let unpaired = |reason| Fault { at: length, reason };
            let parsed = parse(line).and_then(|line| match (line, self.reallocated.take()) {
                (Line::Nothing, None) => Ok(None),
                (Line::Op(op), None) => Ok(Some(op)),
                (Line::ReallocOld(old), None) => {
                    self.reallocated = Some(old);
                    Ok(None)
                }
                (Line::ReallocNew { ptr, size }, Some(old)) => {
                    Ok(Some(RawOp::Realloc { old, ptr, size }))
                }
                (Line::ReallocNew { .. }, None) => Err(unpaired("`>` without a `<` before it")),
                (_, Some(_)) => Err(unpaired("`>` was expected after the `<` before it")),
            });
            match parsed {
                Ok(None) => {}
                Ok(Some(op)) => {
                    census.records += 1;
                    return Ok(Some(Raw { thread: 0, time: None, op }));
                }
                Err(fault) => return Err(self.input.line_error(Format::Mtrace, fault)),
            }
        }
    }

    fn threaded(&self) -> bool {
        false
    }
}

/// Whether a line is of this format.
pub(crate) fn recognises(line: &[u8]) -> bool {
    line == b"= Start" || !matches!(parse(line), Ok(Line::Nothing) | Err(_))
}

fn parse(line: &[u8]) -> Result<Line, Fault> {
    let line = line.trim_ascii_end();
    if line.is_empty() || line == b"= Start" || line == b"= End" {
        return Ok(Line::Nothing);
    }
    if !matches!(line[0], b'@' | b'[' | b'+' | b'-' | b'<' | b'>' | b'!') {
        return Err(Fault { at: 0, reason: "`@`, `=` or an operation was expected" });
    }
    // Fields from the end: the location in front of them may hold anything.
    let last = field_before(line, line.len());
    let middle = field_before(line, last.0);
    let first = field_before(line, middle.0);
    match &line[first.0..first.1] {
        b"+" => {
            let ptr = number(line, middle)?;
            return Ok(Line::Op(RawOp::Malloc { ptr, size: size(line, last, ptr)? }));
        }
        b">" => {
            let ptr = number(line, middle)?;
            return Ok(Line::ReallocNew { ptr, size: size(line, last, ptr)? });
        }
        b"!" => {
            let old = number(line, middle)?;
            return Ok(Line::Op(RawOp::Realloc { old, ptr: 0, size: size(line, last, 0)? }));
        }
        _ => {}
    }
    match &line[middle.0..middle.1] {
        b"-" => Ok(Line::Op(RawOp::Free { ptr: number(line, last)?, stated_size: None })),
        b"<" => Ok(Line::ReallocOld(number(line, last)?)),
        _ => Err(Fault { at: last.0, reason: "one of `+ - < > !` and an address were expected" }),
    }
}

/// Where the last field before `end` begins and ends.
fn field_before(line: &[u8], end: usize) -> (usize, usize) {
    let end = line[..end].trim_ascii_end().len();
    let start = line[..end].iter().rposition(|&byte| byte == b' ').map_or(0, |at| at + 1);
    (start, end)
}

fn number(line: &[u8], field: (usize, usize)) -> Result<u64, Fault> {
    whole(line, field, |cursor| cursor.pointer())
}

/// The size of a call that returned `ptr`; any number where that is NULL.
fn size(line: &[u8], field: (usize, usize), ptr: u64) -> Result<u64, Fault> {
    if ptr == 0 { whole(line, field, |cursor| cursor.prefixed()) } else { number(line, field) }
}

/// What `read` makes of a field, of which it leaves nothing.
fn whole(
    line: &[u8],
    (start, end): (usize, usize),
    read: impl Fn(&mut Cursor<'_>) -> Result<u64, Fault>,
) -> Result<u64, Fault> {
    let mut cursor = Cursor::new(&line[start..end]);
    let shift = |fault: Fault| Fault { at: fault.at + start, ..fault };
    let value = read(&mut cursor).map_err(shift)?;
    cursor.end().map_err(shift)?;
    Ok(value)
}
