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
    match text_format(head) {
        Some(format) => Ok(format),
        None => Err(unrecognised(input)),
    }
}

/// The first text format that understands one of the first lines.
fn text_format(head: &[u8]) -> Option<Format> {
    for line in head.split(|&byte| byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if formats::android::recognises(line) {
            return Some(Format::Android);
        }
    }
    None
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
