//! The one way this library ends a process: a line on standard error, then `abort`.
//!
//! Nothing is allocated and stdio is not used, so it works in the middle of anything.

use crate::os;

/// Reports a broken promise in one line and aborts.
///
/// `what` is a fragment such as "double free"; `address` the object's; `size` its usable size in
/// bytes, 0 where unknown.
#[cold]
pub fn report(what: &str, address: usize, size: usize) -> ! {
    let mut line = Line { bytes: [0; 160], len: 0 };
    line.text(b"allocator: ");
    line.text(what.as_bytes());
    line.text(b": address 0x");
    line.number(address, 16);
    if size != 0 {
        line.text(b", ");
        line.number(size, 10);
        line.text(b" bytes");
    }
    line.text(b"\n");
    os::write_stderr(line.bytes.get(..line.len).unwrap_or(&[]));
    // SAFETY: ends the process; whatever state it is in.
    unsafe { libc::abort() }
}

struct Line {
    bytes: [u8; 160],
    len: usize,
}

impl Line {
    fn text(&mut self, text: &[u8]) {
        for &byte in text {
            if let Some(slot) = self.bytes.get_mut(self.len) {
                *slot = byte;
                self.len += 1;
            }
        }
    }

    fn number(&mut self, mut number: usize, base: usize) {
        let mut digits = [0u8; 20];
        let mut count = 0;
        for slot in &mut digits {
            let digit = (number % base) as u8;
            *slot = if digit < 10 { b'0' + digit } else { b'a' + digit - 10 };
            count += 1;
            number /= base;
            if number == 0 {
                break;
            }
        }
        for &digit in digits.iter().take(count).rev() {
            self.text(&[digit]);
        }
    }
}
