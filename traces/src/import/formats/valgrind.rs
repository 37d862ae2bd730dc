//! The output of `valgrind --trace-malloc=yes`.
//!
//! ```text
//! --PID-- malloc(24) = 0x4A5B040          --PID-- calloc(1,148) = 0x…
//! --PID-- realloc(0x…,64) = 0x…           --PID-- realloc(0x0,64)malloc(64) = 0x…
//! --PID-- realloc(0x…,0)free(0x…)         --PID-- free(0x…)
//! --PID-- memalign(al 64, size 128) = 0x… --PID-- _Znwm(8) = 0x…
//! --PID-- _ZnwmSt11align_val_t(size 64, al 64) = 0x…
//! --PID-- reallocarray(0x…,4,16) = 0x…
//! --PID-- posix_memalign(al 64, size 100)
//! --PID-- aligned_alloc(al 32, size 96)--PID-- malloc(24) = 0x…
//! --PID-- malloc_usable_size(0x0)--PID-- malloc(24) = 0x…
//! ```
//! Newer versions do not tell what an aligned call returned: such a call is skipped, as foreign. Some
//! calls have no line end behind them. Everything else in the file is the program's
//! output or the tool's.
#![forbid(unsafe_code)]

use std::collections::VecDeque;

use super::super::cursor::Cursor;
use super::super::input::{Fault, Input};
use super::super::raw::{Raw, RawOp, RawSource};
use super::super::{Census, Format};
use super::OneProcess;
use crate::error::TraceError;
use crate::event::AlignedApi;

pub(crate) struct Valgrind {
    input: Input,
    process: OneProcess,
    /// Calls of the present line that are not yet out.
    calls: VecDeque<Call>,
    /// What is wrong with the line behind them.
    failure: Option<TraceError>,
}

/// The process, and what it asked for; `None` where the result is not told.
type Call = (u64, Option<RawOp>);

impl Valgrind {
    pub(crate) fn new(input: Input, pid: Option<u64>) -> Self {
        Valgrind { input, process: OneProcess(pid), calls: VecDeque::new(), failure: None }
    }
}

impl RawSource for Valgrind {
    fn next_raw(&mut self, census: &mut Census) -> Result<Option<Raw>, TraceError> {
        loop {
            while let Some((pid, op)) = self.calls.pop_front() {
                let Some(op) = op else {
                    census.foreign_lines += 1;
                    continue;
                };
                if self.process.accepts(pid, census) {
                    census.records += 1;
                    return Ok(Some(Raw { thread: 0, time: None, op }));
                }
            }
            if let Some(error) = self.failure.take() {
                return Err(error);
            }
            let Some(line) = self.input.next_line(Format::Valgrind)? else { return Ok(None) };
            if let Err(fault) = parse(line, &mut self.calls) {
                self.failure = Some(self.input.line_error(Format::Valgrind, fault));
                continue;
            }
            census.foreign_lines += u64::from(self.calls.is_empty() && !line.is_empty());
        }
    }

    fn threaded(&self) -> bool {
        false
    }
}

/// Whether a line is of this format.
pub(crate) fn recognises(line: &[u8]) -> bool {
    let mut calls = VecDeque::new();
    parse(line, &mut calls).is_ok() && !calls.is_empty()
}

/// Names that share a form of arguments.
enum Kind {
    Malloc,
    Calloc,
    Realloc,
    Reallocarray,
    Free,
    UsableSize,
    Memalign(AlignedApi),
    New,
    Valloc,
}

fn kind(name: &[u8]) -> Option<Kind> {
    Some(match name {
        b"malloc" => Kind::Malloc,
        b"calloc" => Kind::Calloc,
        b"realloc" => Kind::Realloc,
        b"reallocarray" => Kind::Reallocarray,
        b"free" | b"cfree" => Kind::Free,
        b"malloc_usable_size" => Kind::UsableSize,
        b"memalign" => Kind::Memalign(AlignedApi::Memalign),
        b"aligned_alloc" => Kind::Memalign(AlignedApi::AlignedAlloc),
        b"posix_memalign" => Kind::Memalign(AlignedApi::PosixMemalign),
        b"valloc" => Kind::Valloc,
        _ if name.starts_with(b"_Zn") => Kind::New,
        _ if name.starts_with(b"_Zd") => Kind::Free,
        _ => return None,
    })
}

/// Puts the calls that a line tells into `calls`.
fn parse(line: &[u8], calls: &mut VecDeque<Call>) -> Result<(), Fault> {
    let mut cursor = Cursor::new(line);
    while cursor.eat(b"--") && cursor.peek().is_some_and(|byte| byte.is_ascii_digit()) {
        let pid = cursor.decimal()?;
        if !cursor.eat(b"-- ") {
            break;
        }
        let before = cursor;
        let Some(kind) = kind(cursor.word()) else { break };
        if !cursor.eat(b"(") {
            break;
        }
        let op = call(&mut cursor, kind)?.map(|op| before.accept(op)).transpose()?;
        calls.push_back((pid, op));
    }
    Ok(())
}

/// What stands behind the name and the parenthesis of a call; `None` if its result is not told.
fn call(cursor: &mut Cursor<'_>, kind: Kind) -> Result<Option<RawOp>, Fault> {
    Ok(Some(match kind {
        Kind::Malloc => {
            let size = cursor.unbounded()?;
            RawOp::Malloc { ptr: result(cursor)?, size }
        }
        Kind::Calloc => {
            let (count, size) = count_and_size(cursor)?;
            RawOp::Calloc { ptr: result(cursor)?, count, size }
        }
        Kind::Realloc => {
            let old = old(cursor)?;
            let size = cursor.unbounded()?;
            realloc(cursor, old, size)?
        }
        Kind::Reallocarray => {
            let old = old(cursor)?;
            let (count, size) = count_and_size(cursor)?;
            realloc(cursor, old, count.saturating_mul(size))?
        }
        Kind::Free => {
            let ptr = cursor.pointer()?;
            let mut stated_size = None;
            if cursor.eat(b",") {
                cursor.spaces().eat(b"size ");
                stated_size = Some(cursor.spaces().decimal()?);
            }
            cursor.until(|byte| byte == b')');
            cursor.expect(b")", "a closing parenthesis was expected")?;
            RawOp::Free { ptr, stated_size }
        }
        Kind::UsableSize => {
            let ptr = cursor.pointer()?;
            cursor.expect(b")", "a closing parenthesis was expected")?;
            RawOp::UsableSize { ptr }
        }
        Kind::Memalign(api) => return aligned(cursor, api),
        Kind::New if !cursor.peek().is_some_and(|byte| byte.is_ascii_digit()) => {
            return aligned(cursor, AlignedApi::CxxNew);
        }
        Kind::New => {
            let size = cursor.unbounded()?;
            RawOp::Malloc { ptr: result(cursor)?, size }
        }
        Kind::Valloc => {
            let size = cursor.unbounded()?;
            RawOp::Aligned { ptr: result(cursor)?, align: 4096, size, api: AlignedApi::Valloc }
        }
    }))
}

/// `COUNT,SIZE`
fn count_and_size(cursor: &mut Cursor<'_>) -> Result<(u64, u64), Fault> {
    let count = cursor.unbounded()?;
    cursor.expect(b",", "a comma was expected")?;
    Ok((count, cursor.spaces().unbounded()?))
}

/// The first argument of a realloc, and the comma behind it.
fn old(cursor: &mut Cursor<'_>) -> Result<u64, Fault> {
    let old = cursor.pointer()?;
    cursor.expect(b",", "a comma was expected")?;
    cursor.spaces();
    Ok(old)
}

/// A realloc from behind its arguments on.
fn realloc(cursor: &mut Cursor<'_>, old: u64, size: u64) -> Result<RawOp, Fault> {
    let rest = *cursor;
    if cursor.eat(b")free(") {
        // The result is told on a line of its own, and is NULL.
        return Ok(RawOp::Realloc { old, ptr: 0, size });
    }
    if cursor.eat(b")malloc(") {
        cursor.unbounded()?;
    } else {
        *cursor = rest;
    }
    Ok(RawOp::Realloc { old, ptr: result(cursor)?, size })
}

/// `al A, size S` or `size S, al A`, and the result, where it is told.
fn aligned(cursor: &mut Cursor<'_>, api: AlignedApi) -> Result<Option<RawOp>, Fault> {
    let (mut align, mut size) = (None, None);
    loop {
        if cursor.spaces().eat(b"al ") {
            align = Some(cursor.unbounded()?);
        } else if cursor.eat(b"size ") {
            size = Some(cursor.unbounded()?);
        } else {
            return cursor.fault("`al` or `size` was expected");
        }
        if !cursor.eat(b",") {
            break;
        }
    }
    let (Some(align), Some(size)) = (align, size) else {
        return cursor.fault("`al` and `size` were expected");
    };
    let arguments = *cursor;
    cursor.expect(b")", "a closing parenthesis was expected")?;
    if !cursor.spaces().rest().starts_with(b"=") {
        return Ok(None);
    }
    *cursor = arguments;
    Ok(Some(RawOp::Aligned { ptr: result(cursor)?, align, size, api }))
}

/// `) = pointer`
fn result(cursor: &mut Cursor<'_>) -> Result<u64, Fault> {
    cursor.expect(b")", "a closing parenthesis was expected")?;
    cursor.spaces().expect(b"=", "a result was expected")?;
    cursor.spaces().pointer()
}
