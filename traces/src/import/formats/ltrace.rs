//! `ltrace -f -ttt` text, written to a terminal or with `-o`.
//!
//! ```text
//! [pid N] 12.3 malloc(32) = 0x…            N 12.3 prog->free(0x…) = <void>
//! [pid N] 12.3 malloc(32 <unfinished ...>  [pid N] 12.4 <... malloc resumed> ) = 0x…
//! ```
//! An allocation happens when its result is told, a release when it is called. What a thread
//! calls while another of its calls is unfinished is part of that call and skipped. The result of
//! `posix_memalign` is not told, so such a call is skipped too.
#![forbid(unsafe_code)]

use super::super::address_map::IntMap;
use super::super::cursor::{BEYOND, Cursor};
use super::super::input::{Fault, Input};
use super::super::raw::{Raw, RawOp, RawSource};
use super::super::{Census, Format};
use crate::error::TraceError;
use crate::event::AlignedApi;

pub(crate) struct Ltrace {
    input: Input,
    /// Per thread, its unfinished call; `None` inside for a release, which is already told.
    unfinished: IntMap<u64, Option<RawOp>>,
}

impl Ltrace {
    pub(crate) fn new(input: Input) -> Self {
        Ltrace { input, unfinished: IntMap::default() }
    }

    /// Follows the calls of a thread; what comes out is a call that happened now.
    fn follow(&mut self, line: Line, census: &mut Census) -> Option<RawOp> {
        match line.what {
            What::Foreign => {
                census.foreign_lines += 1;
                None
            }
            What::Exit => {
                self.unfinished.remove(&line.thread);
                Some(RawOp::ThreadEnd)
            }
            What::Resumed(ptr) => match self.unfinished.remove(&line.thread) {
                Some(call) => call.map(|op| with_result(op, ptr)),
                None => {
                    census.foreign_lines += 1;
                    None
                }
            },
            What::Call(..) if self.unfinished.contains_key(&line.thread) => {
                census.nested_calls += 1;
                None
            }
            What::Call(op, Outcome::Returned(ptr)) => Some(with_result(op, ptr)),
            What::Call(op, Outcome::Unfinished) => {
                let release = matches!(op, RawOp::Free { .. });
                self.unfinished.insert(line.thread, (!release).then_some(op));
                release.then_some(op)
            }
            What::Call(op @ RawOp::Free { .. }, Outcome::Never) => Some(op),
            What::Call(_, Outcome::Never) => {
                census.foreign_lines += 1;
                None
            }
        }
    }
}

impl RawSource for Ltrace {
    fn next_raw(&mut self, census: &mut Census) -> Result<Option<Raw>, TraceError> {
        loop {
            let Some(line) = self.input.next_line(Format::Ltrace)? else { return Ok(None) };
            if line.is_empty() {
                continue;
            }
            match parse(line) {
                Ok(line) => {
                    let (thread, time) = (line.thread, line.time);
                    let Some(op) = self.follow(line, census) else { continue };
                    // Whether the call failed is told by its result, maybe on a later line.
                    if op.is_beyond() {
                        let fault = Fault { at: 0, reason: BEYOND };
                        return Err(self.input.line_error(Format::Ltrace, fault));
                    }
                    census.records += 1;
                    return Ok(Some(Raw { thread, time, op }));
                }
                Err(fault) => return Err(self.input.line_error(Format::Ltrace, fault)),
            }
        }
    }

    fn threaded(&self) -> bool {
        true
    }
}

/// Whether a line is of this format.
pub(crate) fn recognises(line: &[u8]) -> bool {
    matches!(parse(line), Ok(Line { what: What::Call(..), .. }))
}

struct Line {
    thread: u64,
    time: Option<u64>,
    what: What,
}

enum What {
    Foreign,
    Exit,
    Call(RawOp, Outcome),
    Resumed(u64),
}

enum Outcome {
    Returned(u64),
    Unfinished,
    Never,
}

fn with_result(op: RawOp, result: u64) -> RawOp {
    match op {
        RawOp::Malloc { size, .. } => RawOp::Malloc { ptr: result, size },
        RawOp::Calloc { count, size, .. } => RawOp::Calloc { ptr: result, count, size },
        RawOp::Realloc { old, size, .. } => RawOp::Realloc { old, ptr: result, size },
        RawOp::Aligned { align, size, api, .. } => RawOp::Aligned { ptr: result, align, size, api },
        other => other,
    }
}

fn parse(line: &[u8]) -> Result<Line, Fault> {
    let mut cursor = Cursor::new(line);
    let thread = thread(&mut cursor)?;
    let time = time(&mut cursor)?;
    cursor.spaces();
    let what = if cursor.eat(b"<... ") {
        resumed(&mut cursor)?
    } else if cursor.eat(b"+++ exited") || cursor.eat(b"+++ killed") {
        What::Exit
    } else {
        call(&mut cursor)?
    };
    Ok(Line { thread, time, what })
}

/// `[pid N] `, or `N ` in front of a time or a call.
fn thread(cursor: &mut Cursor<'_>) -> Result<u64, Fault> {
    if cursor.eat(b"[pid ") {
        let thread = cursor.spaces().decimal()?;
        cursor.expect(b"]", "a closing bracket was expected after the thread id")?;
        return Ok(thread);
    }
    let mut ahead = *cursor;
    let digits = ahead.until(|byte| !byte.is_ascii_digit());
    if !digits.is_empty() && digits.len() < 16 && ahead.eat(b" ") {
        return cursor.decimal();
    }
    Ok(0)
}

/// `seconds.fraction`
fn time(cursor: &mut Cursor<'_>) -> Result<Option<u64>, Fault> {
    let mut ahead = *cursor;
    let seconds = ahead.spaces().until(|byte| !byte.is_ascii_digit());
    if seconds.is_empty() || !ahead.eat(b".") {
        return Ok(None);
    }
    let seconds = cursor.spaces().unbounded()?;
    cursor.expect(b".", "a fraction was expected")?;
    let digits = cursor.until(|byte| !byte.is_ascii_digit());
    let mut nanoseconds = 0_u64;
    for place in 0..9 {
        let digit = digits.get(place).map_or(0, |digit| digit - b'0');
        nanoseconds = nanoseconds * 10 + u64::from(digit);
    }
    match seconds.checked_mul(1_000_000_000).and_then(|ns| ns.checked_add(nanoseconds)) {
        Some(time) => Ok(Some(time)),
        None => cursor.fault("the time does not fit in 64 bits"),
    }
}

fn resumed(cursor: &mut Cursor<'_>) -> Result<What, Fault> {
    let name = cursor.until(|byte| byte == b' ');
    if !is_known(name) || !cursor.eat(b" resumed>") {
        return Ok(What::Foreign);
    }
    cursor.until(|byte| byte == b'=');
    cursor.expect(b"=", "a result was expected")?;
    Ok(What::Resumed(result(cursor)?))
}

fn is_known(name: &[u8]) -> bool {
    matches!(name, b"malloc" | b"calloc" | b"realloc" | b"free" | b"cfree" | b"memalign")
        || matches!(name, b"aligned_alloc" | b"valloc" | b"pvalloc" | b"malloc_usable_size")
        || name.starts_with(b"_Zn")
        || name.starts_with(b"_Zd")
}

fn call(cursor: &mut Cursor<'_>) -> Result<What, Fault> {
    let before = cursor.until(|byte| byte == b'(');
    let name = match before.windows(2).rposition(|pair| pair == b"->") {
        Some(at) => &before[at + 2..],
        None => before,
    };
    let name = name.split(|&byte| byte == b'@').next().unwrap_or(name);
    if !is_known(name) || !cursor.eat(b"(") {
        return Ok(What::Foreign);
    }
    let op = arguments(cursor, name)?;
    // Arguments that no prototype announced follow; they mean nothing.
    cursor.until(|byte| byte == b')' || byte == b'<');
    if cursor.eat(b"<unfinished") {
        return Ok(What::Call(op, Outcome::Unfinished));
    }
    if cursor.eat(b"<no return") {
        return Ok(What::Call(op, Outcome::Never));
    }
    cursor.expect(b")", "a closing parenthesis was expected")?;
    cursor.spaces().expect(b"=", "a result was expected")?;
    Ok(What::Call(op, Outcome::Returned(result(cursor)?)))
}

fn arguments(cursor: &mut Cursor<'_>, name: &[u8]) -> Result<RawOp, Fault> {
    let ptr = 0;
    Ok(match name {
        b"malloc" => RawOp::Malloc { ptr, size: amount(cursor)? },
        b"calloc" => {
            let count = amount(cursor)?;
            comma(cursor)?;
            RawOp::Calloc { ptr, count, size: amount(cursor)? }
        }
        b"realloc" => {
            let old = number(cursor)?;
            comma(cursor)?;
            RawOp::Realloc { old, ptr, size: amount(cursor)? }
        }
        b"memalign" | b"aligned_alloc" => {
            let align = amount(cursor)?;
            comma(cursor)?;
            let size = amount(cursor)?;
            let api = match name {
                b"memalign" => AlignedApi::Memalign,
                _ => AlignedApi::AlignedAlloc,
            };
            RawOp::Aligned { ptr, align, size, api }
        }
        b"valloc" | b"pvalloc" => {
            let api = if name == b"valloc" { AlignedApi::Valloc } else { AlignedApi::Pvalloc };
            RawOp::Aligned { ptr, align: 4096, size: amount(cursor)?, api }
        }
        b"malloc_usable_size" => RawOp::UsableSize { ptr: number(cursor)? },
        _ if name.starts_with(b"_Zn") => RawOp::Malloc { ptr, size: amount(cursor)? },
        _ => RawOp::Free { ptr: number(cursor)?, stated_size: None },
    })
}

fn comma(cursor: &mut Cursor<'_>) -> Result<(), Fault> {
    cursor.spaces().expect(b",", "a comma was expected")
}

/// A size, a count or an alignment: an argument of any value.
fn amount(cursor: &mut Cursor<'_>) -> Result<u64, Fault> {
    let rest = cursor.spaces().rest();
    if rest.starts_with(b"0x") {
        cursor.prefixed()
    } else if rest.first().is_some_and(u8::is_ascii_digit) {
        cursor.unbounded()
    } else {
        number(cursor)
    }
}

/// An argument: decimal, `0x…`, `nil` or `(nil)`.
fn number(cursor: &mut Cursor<'_>) -> Result<u64, Fault> {
    let rest = cursor.spaces().rest();
    if cursor.eat(b"nil") {
        Ok(0)
    } else if rest.starts_with(b"0x") || rest.starts_with(b"(nil)") {
        cursor.pointer()
    } else {
        cursor.decimal()
    }
}

/// A result: an argument's forms, or `<void>`.
fn result(cursor: &mut Cursor<'_>) -> Result<u64, Fault> {
    if cursor.spaces().eat(b"<void>") { Ok(0) } else { number(cursor) }
}
