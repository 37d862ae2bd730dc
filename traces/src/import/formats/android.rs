//! Android `memory_replay` text.
//!
//! ```text
//! tid: malloc P SZ      tid: calloc P N SZ     tid: realloc NEW OLD SZ
//! tid: memalign P AL SZ tid: free P            tid: thread_done 0x0 [end_ns]
//! ```
//! The others end in nothing or in `start_ns end_ns`; `free` and `realloc` may carry the resident
//! bytes of the block besides. Addresses are hexadecimal, the rest is decimal.
#![forbid(unsafe_code)]

use super::super::cursor::Cursor;
use super::super::input::{Fault, Input};
use super::super::raw::{Raw, RawOp, RawSource};
use super::super::{Census, Format};
use crate::error::TraceError;
use crate::event::AlignedApi;

pub(crate) struct Android(pub(crate) Input);

impl RawSource for Android {
    fn next_raw(&mut self, census: &mut Census) -> Result<Option<Raw>, TraceError> {
        loop {
            let Some(line) = self.0.next_line(Format::Android)? else { return Ok(None) };
            match parse(line) {
                Ok(Some(raw)) => {
                    census.records += 1;
                    return Ok(Some(raw));
                }
                Ok(None) => {}
                Err(fault) => return Err(self.0.line_error(Format::Android, fault)),
            }
        }
    }

    fn threaded(&self) -> bool {
        true
    }
}

/// Whether a line is of this format.
pub(crate) fn recognises(line: &[u8]) -> bool {
    matches!(parse(line), Ok(Some(_)))
}

fn parse(line: &[u8]) -> Result<Option<Raw>, Fault> {
    let mut cursor = Cursor::new(line);
    if cursor.spaces().at_end() {
        return Ok(None);
    }
    let thread = cursor.decimal()?;
    cursor.expect(b":", "a colon was expected after the thread id")?;
    let before = *cursor.spaces();
    let name = cursor.word();
    let op = match name {
        b"malloc" => {
            let ptr = pointer(&mut cursor)?;
            RawOp::Malloc { ptr, size: number(&mut cursor)? }
        }
        b"free" => RawOp::Free { ptr: pointer(&mut cursor)?, stated_size: None },
        b"realloc" => {
            let ptr = pointer(&mut cursor)?;
            let old = pointer(&mut cursor)?;
            RawOp::Realloc { old, ptr, size: number(&mut cursor)? }
        }
        b"calloc" => {
            let ptr = pointer(&mut cursor)?;
            let count = number(&mut cursor)?;
            RawOp::Calloc { ptr, count, size: number(&mut cursor)? }
        }
        b"memalign" => {
            let ptr = pointer(&mut cursor)?;
            let align = number(&mut cursor)?;
            let size = number(&mut cursor)?;
            RawOp::Aligned { ptr, align, size, api: AlignedApi::Memalign }
        }
        b"thread_done" => {
            pointer(&mut cursor)?;
            let time = if cursor.spaces().at_end() { None } else { Some(cursor.unbounded()?) };
            cursor.end()?;
            return Ok(Some(Raw { thread, time, op: RawOp::ThreadEnd }));
        }
        _ => return before.fault(
            "an operation was expected (malloc, calloc, realloc, memalign, free or thread_done)",
        ),
    };
    let op = before.accept(op)?;
    let resident = matches!(name, b"free" | b"realloc");
    let time = times(&mut cursor, resident)?;
    Ok(Some(Raw { thread, time, op }))
}

fn pointer(cursor: &mut Cursor<'_>) -> Result<u64, Fault> {
    cursor.spaces().pointer()
}

fn number(cursor: &mut Cursor<'_>) -> Result<u64, Fault> {
    cursor.spaces().unbounded()
}

/// The numbers that end a line: none, two times, and where `resident` a count of bytes (or -1)
/// before or after them. Of three, the two that lie closer together are the times.
fn times(cursor: &mut Cursor<'_>, resident: bool) -> Result<Option<u64>, Fault> {
    let mut numbers = [0_u64; 3];
    let mut count = 0;
    while !cursor.spaces().at_end() {
        if count == numbers.len() {
            return cursor.fault("the line goes on unexpectedly");
        }
        if resident && cursor.eat(b"-1") {
            numbers[count] = 0;
        } else {
            numbers[count] = cursor.unbounded()?;
        }
        count += 1;
    }
    match (count, resident) {
        (0, _) | (1, true) => Ok(None),
        (2, _) => Ok(Some(numbers[0])),
        (3, true) => {
            let [a, b, c] = numbers;
            let first_two = b.checked_sub(a).unwrap_or(u64::MAX);
            let last_two = c.checked_sub(b).unwrap_or(u64::MAX);
            Ok(Some(if last_two < first_two { b } else { a }))
        }
        (1, false) => cursor.fault("a second time was expected"),
        _ => cursor.fault("the line goes on unexpectedly"),
    }
}
