//! Mozilla `logalloc`, raw and munged.
//!
//! ```text
//! pid [tid] malloc(size)=ptr        pid [tid] calloc(n,size)=ptr    pid [tid] realloc(p,size)=ptr
//! pid [tid] free(p)                 pid [tid] valloc(size)=ptr      pid [tid] jemalloc_stats()
//! pid [tid] memalign(align,size)=ptr      (also posix_memalign and aligned_alloc)
//! ```
//! Munged, a pointer is `#slot`: slots are used again, slot 0 and any empty slot mean NULL.
#![forbid(unsafe_code)]

use std::collections::HashSet;

use super::super::address_map::IntState;
use super::super::cursor::Cursor;
use super::super::input::{Fault, Input};
use super::super::raw::{Raw, RawOp, RawSource};
use super::super::{Census, Format};
use super::OneProcess;
use crate::error::TraceError;
use crate::event::AlignedApi;

pub(crate) struct Logalloc {
    input: Input,
    process: OneProcess,
    slots: Slots,
}

/// Which slots of a munged trace hold an object.
#[derive(Default)]
struct Slots(HashSet<u64, IntState>);

impl Logalloc {
    pub(crate) fn new(input: Input, pid: Option<u64>) -> Self {
        Logalloc { input, process: OneProcess(pid), slots: Slots::default() }
    }
}

impl RawSource for Logalloc {
    fn next_raw(&mut self, census: &mut Census) -> Result<Option<Raw>, TraceError> {
        loop {
            let Some(line) = self.input.next_line(Format::Logalloc)? else { return Ok(None) };
            match parse(line) {
                Ok(Some(line)) => {
                    if self.process.accepts(line.pid, census) {
                        census.records += 1;
                        return Ok(Some(self.slots.resolve(line)));
                    }
                }
                Ok(None) => {}
                Err(fault) => return Err(self.input.line_error(Format::Logalloc, fault)),
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

struct Line {
    pid: u64,
    raw: Raw,
    munged: bool,
}

impl Slots {
    /// Replaces empty slots by NULL and keeps account of which are filled.
    fn resolve(&mut self, line: Line) -> Raw {
        let mut raw = line.raw;
        if !line.munged {
            return raw;
        }
        match &mut raw.op {
            RawOp::Free { ptr, .. } if !self.0.remove(ptr) => *ptr = 0,
            RawOp::Realloc { old, ptr, size } => {
                if !self.0.contains(old) {
                    *old = 0;
                } else if *ptr != 0 || *size == 0 {
                    self.0.remove(old);
                }
            }
            _ => {}
        }
        if let Some(slot) = raw.op.returned() {
            self.0.insert(slot);
        }
        raw
    }
}

fn parse(line: &[u8]) -> Result<Option<Line>, Fault> {
    let mut cursor = Cursor::new(line);
    if cursor.spaces().at_end() {
        return Ok(None);
    }
    let pid = cursor.decimal()?;
    cursor.expect(b" ", "a space was expected after the process id")?;
    let bracketed = cursor.spaces().eat(b"[");
    let mut thread = pid;
    if cursor.peek().is_some_and(|byte| byte.is_ascii_digit()) {
        thread = cursor.decimal()?;
        if bracketed {
            cursor.expect(b"]", "a closing bracket was expected after the thread id")?;
        }
        cursor.expect(b" ", "a space was expected after the thread id")?;
    }
    let mut munged = false;
    let op = call(cursor.spaces(), &mut munged)?;
    cursor.end()?;
    Ok(Some(Line { pid, raw: Raw { thread, time: None, op }, munged }))
}

fn call(cursor: &mut Cursor<'_>, munged: &mut bool) -> Result<RawOp, Fault> {
    let before = *cursor;
    let name = cursor.word();
    cursor.expect(b"(", "an opening parenthesis was expected")?;
    let op = match name {
        b"malloc" => {
            let size = cursor.unbounded()?;
            RawOp::Malloc { ptr: result(cursor, munged)?, size }
        }
        b"calloc" => {
            let count = cursor.unbounded()?;
            comma(cursor)?;
            let size = cursor.unbounded()?;
            RawOp::Calloc { ptr: result(cursor, munged)?, count, size }
        }
        b"realloc" => {
            let old = pointer(cursor, munged)?;
            comma(cursor)?;
            let size = cursor.unbounded()?;
            RawOp::Realloc { old, ptr: result(cursor, munged)?, size }
        }
        b"free" => {
            let ptr = pointer(cursor, munged)?;
            cursor.expect(b")", "a closing parenthesis was expected")?;
            RawOp::Free { ptr, stated_size: None }
        }
        b"posix_memalign" => aligned(cursor, AlignedApi::PosixMemalign, munged)?,
        b"aligned_alloc" => aligned(cursor, AlignedApi::AlignedAlloc, munged)?,
        b"memalign" => aligned(cursor, AlignedApi::Memalign, munged)?,
        b"valloc" => {
            let size = cursor.unbounded()?;
            let ptr = result(cursor, munged)?;
            RawOp::Aligned { ptr, align: 4096, size, api: AlignedApi::Valloc }
        }
        b"jemalloc_stats" => {
            cursor.expect(b")", "a closing parenthesis was expected")?;
            RawOp::Marker { value: 0 }
        }
        _ => return before.fault("an allocation function was expected"),
    };
    before.accept(op)
}

fn aligned(cursor: &mut Cursor<'_>, api: AlignedApi, munged: &mut bool) -> Result<RawOp, Fault> {
    let align = cursor.unbounded()?;
    comma(cursor)?;
    let size = cursor.unbounded()?;
    Ok(RawOp::Aligned { ptr: result(cursor, munged)?, align, size, api })
}

fn comma(cursor: &mut Cursor<'_>) -> Result<(), Fault> {
    cursor.spaces().expect(b",", "a comma was expected")?;
    cursor.spaces();
    Ok(())
}

/// `)=pointer`
fn result(cursor: &mut Cursor<'_>, munged: &mut bool) -> Result<u64, Fault> {
    cursor.expect(b")=", "a result was expected")?;
    pointer(cursor, munged)
}

fn pointer(cursor: &mut Cursor<'_>, munged: &mut bool) -> Result<u64, Fault> {
    if cursor.eat(b"#") {
        *munged = true;
        return cursor.decimal();
    }
    cursor.pointer()
}
