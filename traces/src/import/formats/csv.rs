//! CSV with the columns `ns,tid,op,ptr,old,size,align`: the form that expresses everything.
//!
//! | op | ptr | old | size | align |
//! |---|---|---|---|---|
//! | `malloc`, `valloc`, `pvalloc` | result | | bytes | |
//! | `calloc` | result | | bytes of one element | elements |
//! | `realloc` | result | argument | bytes | |
//! | `memalign`, `aligned_alloc`, `posix_memalign`, `cxx_new` | result | | bytes | alignment |
//! | `free` | argument | | size stated, or empty | |
//! | `usable_size` | argument | | | |
//! | `access` | argument | | bytes | times |
//! | `thread_start` | | parent thread, or empty | | |
//! | `thread_end` | | | | |
//! | `fork`, `marker` | | | child, value | |
//!
//! Addresses are `0x…`, or empty for NULL; `ns` is empty where there are no times.
#![forbid(unsafe_code)]

use super::super::cursor::Cursor;
use super::super::input::{Fault, Input};
use super::super::raw::{Raw, RawOp, RawSource};
use super::super::{Census, Format};
use crate::error::TraceError;
use crate::event::AlignedApi;

/// The first line of every file.
pub(crate) const HEADER: &str = "ns,tid,op,ptr,old,size,align";

pub(crate) struct Csv(pub(crate) Input);

impl RawSource for Csv {
    fn next_raw(&mut self, census: &mut Census) -> Result<Option<Raw>, TraceError> {
        loop {
            let Some(line) = self.0.next_line(Format::Csv)? else { return Ok(None) };
            match parse(line) {
                Ok(Some(raw)) => {
                    census.records += 1;
                    return Ok(Some(raw));
                }
                Ok(None) => {}
                Err(fault) => return Err(self.0.line_error(Format::Csv, fault)),
            }
        }
    }

    fn threaded(&self) -> bool {
        true
    }
}

/// Whether a line is of this format.
pub(crate) fn recognises(line: &[u8]) -> bool {
    line == HEADER.as_bytes()
}

fn parse(line: &[u8]) -> Result<Option<Raw>, Fault> {
    if line.trim_ascii().is_empty() || line == HEADER.as_bytes() {
        return Ok(None);
    }
    let mut cursor = Cursor::new(line);
    let time = if cursor.peek() == Some(b',') { None } else { Some(cursor.unbounded()?) };
    comma(&mut cursor)?;
    let thread = cursor.decimal()?;
    comma(&mut cursor)?;
    let before = cursor;
    let name = cursor.word();
    comma(&mut cursor)?;
    let ptr = if cursor.peek() == Some(b',') { 0 } else { cursor.pointer()? };
    comma(&mut cursor)?;
    let after_ptr = cursor;
    let old = cursor.until(|byte| byte == b',');
    comma(&mut cursor)?;
    // A call that failed may have been given anything.
    let unbounded = ptr == 0 || name == b"marker";
    let number = |cursor: &mut Cursor<'_>| match unbounded {
        true => cursor.unbounded(),
        false => cursor.decimal(),
    };
    let size = if cursor.peek() == Some(b',') { None } else { Some(number(&mut cursor)?) };
    comma(&mut cursor)?;
    let align = if cursor.at_end() { None } else { Some(number(&mut cursor)?) };
    cursor.end()?;
    let bytes = || size.ok_or(Fault { at: line.len(), reason: "a size was expected" });
    let op = match name {
        b"malloc" => RawOp::Malloc { ptr, size: bytes()? },
        b"calloc" => {
            before.accept(RawOp::Calloc { ptr, count: align.unwrap_or(1), size: bytes()? })?
        }
        b"realloc" => {
            let mut argument = after_ptr;
            let old = if old.is_empty() { 0 } else { argument.pointer()? };
            RawOp::Realloc { old, ptr, size: bytes()? }
        }
        b"free" => RawOp::Free { ptr, stated_size: size },
        b"usable_size" => RawOp::UsableSize { ptr },
        b"access" => {
            let times = align.unwrap_or(1).try_into().unwrap_or(u32::MAX);
            RawOp::Access { ptr, bytes: bytes()?, times }
        }
        b"thread_start" => {
            let mut argument = after_ptr;
            let parent = if old.is_empty() { None } else { Some(argument.decimal()?) };
            RawOp::ThreadStart { parent }
        }
        b"thread_end" => RawOp::ThreadEnd,
        b"fork" => RawOp::Fork { child: size.unwrap_or(0).try_into().unwrap_or(0) },
        b"marker" => RawOp::Marker { value: size.unwrap_or(0) },
        _ => {
            let Some(api) = aligned_api(name) else { return before.fault("unknown operation") };
            let align = align.unwrap_or(if api_has_align(api) { 16 } else { 4096 });
            RawOp::Aligned { ptr, align, size: bytes()?, api }
        }
    };
    Ok(Some(Raw { thread, time, op }))
}

fn comma(cursor: &mut Cursor<'_>) -> Result<(), Fault> {
    cursor.expect(b",", "a comma was expected")
}

const APIS: [(&str, AlignedApi); 6] = [
    ("memalign", AlignedApi::Memalign),
    ("aligned_alloc", AlignedApi::AlignedAlloc),
    ("posix_memalign", AlignedApi::PosixMemalign),
    ("valloc", AlignedApi::Valloc),
    ("pvalloc", AlignedApi::Pvalloc),
    ("cxx_new", AlignedApi::CxxNew),
];

/// The name of an aligned call in the column `op`.
pub(crate) fn api_name(api: AlignedApi) -> &'static str {
    APIS.iter().find(|(_, known)| *known == api).map_or("memalign", |(name, _)| name)
}

fn aligned_api(name: &[u8]) -> Option<AlignedApi> {
    APIS.iter().find(|(known, _)| known.as_bytes() == name).map(|(_, api)| *api)
}

fn api_has_align(api: AlignedApi) -> bool {
    !matches!(api, AlignedApi::Valloc | AlignedApi::Pvalloc)
}
