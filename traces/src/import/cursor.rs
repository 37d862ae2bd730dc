//! A position within one line of a text trace.
#![forbid(unsafe_code)]

use super::input::Fault;
use super::raw::{MAX_NUMBER, RawOp};

/// Why a call is not accepted for which [`RawOp::is_beyond`] holds.
pub(crate) const BEYOND: &str = "the call was given a number beyond 2^48";

/// Parses from left to right; every failure knows its column.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<'a> {
    line: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(line: &'a [u8]) -> Self {
        Cursor { line, at: 0 }
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        &self.line[self.at..]
    }

    pub(crate) fn peek(&self) -> Option<u8> {
        self.line.get(self.at).copied()
    }

    pub(crate) fn at_end(&self) -> bool {
        self.at == self.line.len()
    }

    /// A fault at this position.
    pub(crate) fn fault<T>(&self, reason: &'static str) -> Result<T, Fault> {
        Err(Fault { at: self.at, reason })
    }

    /// `op`, the call that stands here, if an importer accepts the numbers it was given.
    pub(crate) fn accept(&self, op: RawOp) -> Result<RawOp, Fault> {
        if op.is_beyond() { self.fault(BEYOND) } else { Ok(op) }
    }

    /// Passes over spaces and tabs.
    pub(crate) fn spaces(&mut self) -> &mut Self {
        while matches!(self.peek(), Some(b' ' | b'\t')) {
            self.at += 1;
        }
        self
    }

    /// Passes over `text` if it stands here.
    pub(crate) fn eat(&mut self, text: &[u8]) -> bool {
        let found = self.rest().starts_with(text);
        if found {
            self.at += text.len();
        }
        found
    }

    /// Passes over `text`, which must stand here.
    pub(crate) fn expect(&mut self, text: &[u8], reason: &'static str) -> Result<(), Fault> {
        if self.eat(text) { Ok(()) } else { self.fault(reason) }
    }

    /// Bytes up to the next one for which `stop` holds.
    pub(crate) fn until(&mut self, stop: impl Fn(u8) -> bool) -> &'a [u8] {
        let rest = self.rest();
        let length = rest.iter().position(|&byte| stop(byte)).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    /// Letters, digits and underscores.
    pub(crate) fn word(&mut self) -> &'a [u8] {
        self.until(|byte| !(byte.is_ascii_alphanumeric() || byte == b'_'))
    }

    /// A decimal number of up to 2^64 - 1.
    pub(crate) fn unbounded(&mut self) -> Result<u64, Fault> {
        let start = self.at;
        let mut value: u64 = 0;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            let next = value.checked_mul(10).and_then(|v| v.checked_add(u64::from(digit - b'0')));
            let Some(next) = next else {
                return Err(Fault { at: start, reason: "the number does not fit in 64 bits" });
            };
            value = next;
            self.at += 1;
        }
        if self.at == start { self.fault("a decimal number was expected") } else { Ok(value) }
    }

    /// A decimal number of up to 2^48.
    pub(crate) fn decimal(&mut self) -> Result<u64, Fault> {
        let start = self.at;
        let value = self.unbounded()?;
        bounded(value, start)
    }

    /// Hexadecimal digits without a prefix, of up to 2^48.
    pub(crate) fn bare_hex(&mut self) -> Result<u64, Fault> {
        let start = self.at;
        bounded(self.hex_digits()?, start)
    }

    /// `0x` and hexadecimal digits, of up to 2^48; a bare `0` and `(nil)` are 0.
    pub(crate) fn pointer(&mut self) -> Result<u64, Fault> {
        let start = self.at;
        bounded(untagged(self.prefixed()?), start)
    }

    /// As [`pointer`](Self::pointer), of up to 2^64 - 1: no address.
    pub(crate) fn prefixed(&mut self) -> Result<u64, Fault> {
        if self.eat(b"0x") || self.eat(b"0X") {
            return self.hex_digits();
        }
        if self.eat(b"(nil)") {
            return Ok(0);
        }
        if self.peek() == Some(b'0') && !self.rest().get(1).is_some_and(u8::is_ascii_hexdigit) {
            self.at += 1;
            return Ok(0);
        }
        self.fault("an address beginning with 0x was expected")
    }

    fn hex_digits(&mut self) -> Result<u64, Fault> {
        let start = self.at;
        let mut value: u64 = 0;
        while let Some(digit) = self.peek().and_then(|byte| (byte as char).to_digit(16)) {
            if value >> 60 != 0 {
                return Err(Fault { at: start, reason: "the number does not fit in 64 bits" });
            }
            value = value << 4 | u64::from(digit);
            self.at += 1;
        }
        if self.at == start { self.fault("a hexadecimal number was expected") } else { Ok(value) }
    }

    /// Only spaces may be left.
    pub(crate) fn end(&mut self) -> Result<(), Fault> {
        if self.spaces().at_end() { Ok(()) } else { self.fault("the line goes on unexpectedly") }
    }
}

/// Removes the tag that Android puts in the top byte of heap addresses on 64-bit ARM.
fn untagged(address: u64) -> u64 {
    if address >> 48 == 0xb400 { address & (MAX_NUMBER - 1) } else { address }
}

fn bounded(value: u64, at: usize) -> Result<u64, Fault> {
    if value > MAX_NUMBER {
        return Err(Fault { at, reason: "the number is beyond 2^48" });
    }
    Ok(value)
}
