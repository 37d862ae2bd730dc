//! heaptrack, as recorded (raw) and as interpreted.
//!
//! One record per line, its kind in the first byte, numbers hexadecimal without a prefix.
//!
//! ```text
//! raw:          + SIZE TRACE PTR     - PTR
//! interpreted:  a SIZE TRACE         defines the next allocation info, counted from 0
//!               + INFO               - INFO
//! both:         c MS                 milliseconds since the start
//! ```
//! An interpreted file no longer tells which object of an info is released: the oldest live one
//! is taken, and counted as a guess where there are several. Threads are lost, and `realloc` is a
//! release and an allocation.
#![forbid(unsafe_code)]

use std::collections::VecDeque;

use super::super::address_map::IntMap;
use super::super::cursor::Cursor;
use super::super::input::{Fault, Input};
use super::super::raw::{Raw, RawOp, RawSource};
use super::super::{Census, Format};
use crate::error::TraceError;

const MILLISECOND: u64 = 1_000_000;

/// First bytes of lines that concern symbols, modules and the process.
const OTHERS: &[u8] = b"vxXImtRsSAi#";

pub(crate) struct Heaptrack {
    input: Input,
    raw: bool,
    time: u64,
    infos: Infos,
}

/// The allocation infos of an interpreted file and the objects that live under them.
#[derive(Default)]
struct Infos {
    sizes: Vec<u64>,
    live: IntMap<u64, VecDeque<u64>>,
    births: u64,
}

impl Heaptrack {
    /// A reader of the raw form, or of the interpreted one.
    pub(crate) fn new(input: Input, raw: bool) -> Self {
        Heaptrack { input, raw, time: 0, infos: Infos::default() }
    }

    fn format(&self) -> Format {
        if self.raw { Format::HeaptrackRaw } else { Format::Heaptrack }
    }
}

enum Line {
    Nothing,
    Clock(u64),
    Op(RawOp),
}

impl RawSource for Heaptrack {
    fn next_raw(&mut self, census: &mut Census) -> Result<Option<Raw>, TraceError> {
        let format = self.format();
        loop {
            let Some(line) = self.input.next_line(format)? else { return Ok(None) };
            let parsed = if self.raw { parse_raw(line) } else { self.infos.parse(line, census) };
            match parsed {
                Ok(Line::Nothing) => {}
                Ok(Line::Clock(milliseconds)) => {
                    // The last stamp of a file is known to be smaller than the one before it.
                    self.time = self.time.max(milliseconds.saturating_mul(MILLISECOND));
                }
                Ok(Line::Op(op)) => {
                    census.records += 1;
                    return Ok(Some(Raw { thread: 0, time: Some(self.time), op }));
                }
                Err(fault) => return Err(self.input.line_error(format, fault)),
            }
        }
    }

    fn threaded(&self) -> bool {
        false
    }
}

/// Whether the lines of `head` are of this format, and if so whether they are raw.
pub(crate) fn recognises(head: &[u8]) -> Option<bool> {
    let mut lines = head.split(|&byte| byte == b'\n');
    let mut first = Cursor::new(lines.next()?);
    if !first.eat(b"v ") || first.bare_hex().is_err() {
        return None;
    }
    for line in lines {
        match line.first() {
            Some(b'm') => return Some(true),
            Some(b'a' | b's') => return Some(false),
            Some(b'+') => return Some(line.split(|&byte| byte == b' ').count() == 4),
            _ => {}
        }
    }
    Some(true)
}

fn parse_raw(line: &[u8]) -> Result<Line, Fault> {
    let mut cursor = Cursor::new(line);
    if cursor.eat(b"+ ") {
        let size = cursor.bare_hex()?;
        cursor.spaces().bare_hex()?;
        let ptr = cursor.spaces().bare_hex()?;
        cursor.end()?;
        return Ok(Line::Op(RawOp::Malloc { ptr, size }));
    }
    if cursor.eat(b"- ") {
        let ptr = cursor.bare_hex()?;
        cursor.end()?;
        return Ok(Line::Op(RawOp::Free { ptr, stated_size: None }));
    }
    others(&mut cursor)
}

impl Infos {
    fn parse(&mut self, line: &[u8], census: &mut Census) -> Result<Line, Fault> {
        let mut cursor = Cursor::new(line);
        if cursor.eat(b"a ") {
            let size = cursor.bare_hex()?;
            cursor.spaces().bare_hex()?;
            cursor.end()?;
            self.sizes.push(size);
            return Ok(Line::Nothing);
        }
        if cursor.eat(b"+ ") {
            let before = cursor;
            let info = cursor.bare_hex()?;
            cursor.end()?;
            let Some(&size) = usize::try_from(info).ok().and_then(|info| self.sizes.get(info))
            else {
                return before.fault("the allocation info was not defined before");
            };
            self.births += 1;
            self.live.entry(info).or_default().push_back(self.births);
            return Ok(Line::Op(RawOp::Malloc { ptr: self.births, size }));
        }
        if cursor.eat(b"- ") {
            let info = cursor.bare_hex()?;
            cursor.end()?;
            let ptr = self.oldest(info, census);
            return Ok(Line::Op(RawOp::Free { ptr, stated_size: None }));
        }
        others(&mut cursor)
    }

    /// The oldest live object of an info; an address that was never given if there is none.
    fn oldest(&mut self, info: u64, census: &mut Census) -> u64 {
        let Some(objects) = self.live.get_mut(&info) else { return u64::MAX };
        census.guessed_objects += u64::from(objects.len() > 1);
        let oldest = objects.pop_front().unwrap_or(u64::MAX);
        if objects.is_empty() {
            self.live.remove(&info);
        }
        oldest
    }
}

fn others(cursor: &mut Cursor<'_>) -> Result<Line, Fault> {
    if cursor.eat(b"c ") {
        let milliseconds = cursor.bare_hex()?;
        return Ok(Line::Clock(milliseconds));
    }
    match cursor.peek() {
        None => Ok(Line::Nothing),
        Some(byte) if OTHERS.contains(&byte) => Ok(Line::Nothing),
        Some(_) => cursor.fault("a heaptrack record was expected"),
    }
}
