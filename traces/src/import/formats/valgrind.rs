//! The output of `valgrind --trace-malloc=yes`.
//!
//! ```text
//! --PID-- malloc(24) = 0x4A5B040          --PID-- calloc(1,148) = 0x…
//! --PID-- realloc(0x…,64) = 0x…           --PID-- realloc(0x0,64)malloc(64) = 0x…
//! --PID-- realloc(0x…,0)free(0x…)         --PID-- free(0x…)
//! --PID-- memalign(al 64, size 128) = 0x… --PID-- _Znwm(8) = 0x…
//! --PID-- _ZnwmSt11align_val_t(size 64, al 64) = 0x…
//! ```
//! Everything else in the file is the program's output or the tool's.
#![forbid(unsafe_code)]

use super::super::cursor::{Cursor, product};
use super::super::input::{Fault, Input};
use super::super::raw::{Raw, RawOp, RawSource};
use super::super::{Census, Format};
use super::OneProcess;
use crate::error::TraceError;
use crate::event::AlignedApi;

pub(crate) struct Valgrind {
    input: Input,
    process: OneProcess,
}

impl Valgrind {
    pub(crate) fn new(input: Input, pid: Option<u64>) -> Self {
        Valgrind { input, process: OneProcess(pid) }
    }
}

impl RawSource for Valgrind {
    fn next_raw(&mut self, census: &mut Census) -> Result<Option<Raw>, TraceError> {
        loop {
            let Some(line) = self.input.next_line(Format::Valgrind)? else { return Ok(None) };
            match parse(line) {
                Ok(Some((pid, op))) => {
                    if self.process.accepts(pid, census) {
                        census.records += 1;
                        return Ok(Some(Raw { thread: 0, time: None, op }));
                    }
                }
                Ok(None) => census.foreign_lines += u64::from(!line.is_empty()),
                Err(fault) => return Err(self.input.line_error(Format::Valgrind, fault)),
            }
        }
    }

    fn threaded(&self) -> bool {
        false
    }
}

/// Whether a line is of this format.
pub(crate) fn recognises(line: &[u8]) -> bool {
    matches!(parse(line), Ok(Some(_)))
}

/// Names that share a form of arguments.
enum Kind {
    Malloc,
    Calloc,
    Realloc,
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

fn parse(line: &[u8]) -> Result<Option<(u64, RawOp)>, Fault> {
    let mut cursor = Cursor::new(line);
    if !cursor.eat(b"--") || !cursor.peek().is_some_and(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    let pid = cursor.decimal()?;
    if !cursor.eat(b"-- ") {
        return Ok(None);
    }
    let name = cursor.word();
    let Some(kind) = kind(name) else { return Ok(None) };
    if !cursor.eat(b"(") {
        return Ok(None);
    }
    Ok(Some((pid, call(&mut cursor, kind)?)))
}

fn call(cursor: &mut Cursor<'_>, kind: Kind) -> Result<RawOp, Fault> {
    match kind {
        Kind::Malloc => {
            let size = cursor.decimal()?;
            Ok(RawOp::Malloc { ptr: result(cursor)?, size })
        }
        Kind::Calloc => {
            let count = cursor.decimal()?;
            cursor.expect(b",", "a comma was expected")?;
            let size = cursor.spaces().decimal()?;
            product(cursor, count, size)?;
            Ok(RawOp::Calloc { ptr: result(cursor)?, count, size })
        }
        Kind::Realloc => realloc(cursor),
        Kind::Free => {
            let ptr = cursor.pointer()?;
            let mut stated_size = None;
            if cursor.eat(b",") {
                cursor.spaces().eat(b"size ");
                stated_size = Some(cursor.spaces().decimal()?);
            }
            cursor.until(|byte| byte == b')');
            cursor.expect(b")", "a closing parenthesis was expected")?;
            Ok(RawOp::Free { ptr, stated_size })
        }
        Kind::UsableSize => {
            let ptr = cursor.pointer()?;
            cursor.expect(b")", "a closing parenthesis was expected")?;
            Ok(RawOp::UsableSize { ptr })
        }
        Kind::Memalign(api) => {
            let (align, size) = aligned(cursor)?;
            Ok(RawOp::Aligned { ptr: result(cursor)?, align, size, api })
        }
        Kind::New if !cursor.peek().is_some_and(|byte| byte.is_ascii_digit()) => {
            let (align, size) = aligned(cursor)?;
            Ok(RawOp::Aligned { ptr: result(cursor)?, align, size, api: AlignedApi::CxxNew })
        }
        Kind::New => {
            let size = cursor.decimal()?;
            Ok(RawOp::Malloc { ptr: result(cursor)?, size })
        }
        Kind::Valloc => {
            let size = cursor.decimal()?;
            Ok(RawOp::Aligned { ptr: result(cursor)?, align: 4096, size, api: AlignedApi::Valloc })
        }
    }
}

fn realloc(cursor: &mut Cursor<'_>) -> Result<RawOp, Fault> {
    let old = cursor.pointer()?;
    cursor.expect(b",", "a comma was expected")?;
    let size = cursor.spaces().decimal()?;
    let rest = *cursor;
    if cursor.eat(b")free(") {
        // The result is told on a line of its own, and is NULL.
        return Ok(RawOp::Realloc { old, ptr: 0, size });
    }
    if cursor.eat(b")malloc(") {
        cursor.decimal()?;
    } else {
        *cursor = rest;
    }
    Ok(RawOp::Realloc { old, ptr: result(cursor)?, size })
}

/// `al A, size S` or `size S, al A`: the alignment and the size.
fn aligned(cursor: &mut Cursor<'_>) -> Result<(u64, u64), Fault> {
    let (mut align, mut size) = (None, None);
    loop {
        if cursor.spaces().eat(b"al ") {
            align = Some(cursor.decimal()?);
        } else if cursor.eat(b"size ") {
            size = Some(cursor.decimal()?);
        } else {
            return cursor.fault("`al` or `size` was expected");
        }
        if !cursor.eat(b",") {
            break;
        }
    }
    match (align, size) {
        (Some(align), Some(size)) => Ok((align, size)),
        _ => cursor.fault("`al` and `size` were expected"),
    }
}

/// `) = pointer`
fn result(cursor: &mut Cursor<'_>) -> Result<u64, Fault> {
    cursor.expect(b")", "a closing parenthesis was expected")?;
    cursor.spaces().expect(b"=", "a result was expected")?;
    cursor.spaces().pointer()
}
