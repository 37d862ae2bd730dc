//! Which format a file is in, told by its first bytes.
#![forbid(unsafe_code)]

use super::input::Input;
use super::{Format, formats};
use crate::error::TraceError;

/// How much of a file is looked at. Tools write their own lines in front of a trace.
const HEAD: usize = 1 << 16;

/// The format of what `input` is about to yield; nothing of it is consumed.
pub(crate) fn detect(input: &mut Input) -> Result<Format, TraceError> {
    let head = input.peek(HEAD)?;
    if head.is_empty() {
        return Err(TraceError::Empty { path: input.path().to_owned() });
    }
    match binary_format(head).or_else(|| text_format(head)) {
        Some(format) => Ok(format),
        None => Err(unrecognised(input)),
    }
}

/// A text never looks like one of these: all hold bytes below 0x09 early on.
fn binary_format(head: &[u8]) -> Option<Format> {
    if !head.iter().take(64).any(|&byte| byte < b'\t') {
        return None;
    }
    if formats::glibc_binary::recognises(head) {
        Some(Format::GlibcBinary)
    } else if formats::workload::recognises(head) {
        Some(Format::Workload)
    } else if formats::protobuf::recognises(head) {
        Some(Format::Protobuf)
    } else if formats::ops::recognises(head) {
        Some(Format::Ops)
    } else {
        None
    }
}

/// The format of the first line that any text format understands.
fn text_format(head: &[u8]) -> Option<Format> {
    if let Some(raw) = formats::heaptrack::recognises(head) {
        return Some(if raw { Format::HeaptrackRaw } else { Format::Heaptrack });
    }
    head.split(|&byte| byte == b'\n').find_map(|line| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if formats::csv::recognises(line) {
            Some(Format::Csv)
        } else if formats::android::recognises(line) {
            Some(Format::Android)
        } else if formats::logalloc::recognises(line) {
            Some(Format::Logalloc)
        } else if formats::mtrace::recognises(line) {
            Some(Format::Mtrace)
        } else if formats::valgrind::recognises(line) {
            Some(Format::Valgrind)
        } else if formats::ltrace::recognises(line) {
            Some(Format::Ltrace)
        } else {
            None
        }
    })
}

/// The error for content that no reader knows, with its first bytes made printable.
pub(crate) fn unrecognised(input: &mut Input) -> TraceError {
    let path = input.path().to_owned();
    match input.peek(24) {
        Ok(head) => {
            let begins = format!("\"{}\"", head.escape_ascii());
            TraceError::Unrecognised { path, begins }
        }
        Err(error) => error,
    }
}
