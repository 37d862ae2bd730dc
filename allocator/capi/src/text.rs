//! Text without `core::fmt`: strings and decimal numbers, to a descriptor or to a stdio stream.
//!
//! `core::fmt` can panic on paths that the optimiser does not see through, which the `preload` build forbids, and
//! weighs more than the allocator. Nothing here allocates; a stream of the caller's may, on its first write, and
//! therefore no lock of the heap is held while text is written.
//!
//! # Invariants
//! 1. No thread is cancelled in here: libc's `write` and `fwrite` are cancellation points, and a cancelled thread
//!    would unwind through Rust frames. A descriptor is written by the bare system call, a stream with cancellation
//!    held off.

use core::ffi::c_int;

/// Not in the `libc` crate for Linux.
const PTHREAD_CANCEL_DISABLE: c_int = 1;
unsafe extern "C" {
    fn pthread_setcancelstate(state: c_int, before: *mut c_int) -> c_int;
}

/// Where text goes.
#[derive(Clone, Copy)]
pub(crate) enum Sink {
    /// A file descriptor, by `write`.
    Descriptor(c_int),
    /// A stream that the caller of `malloc_info` passed, by `fwrite`.
    Stream(*mut libc::FILE),
}

/// Text on its way to a [`Sink`]; what is left is written by [`Text::finish`].
pub(crate) struct Text {
    sink: Sink,
    line: [u8; 512],
    used: usize,
    failed: bool,
}

impl Text {
    /// Nothing written yet.
    pub(crate) fn new(sink: Sink) -> Self {
        Self { sink, line: [0; 512], used: 0, failed: false }
    }

    /// Appends `text`.
    pub(crate) fn put(&mut self, text: &str) -> &mut Self {
        for &byte in text.as_bytes() {
            self.byte(byte);
        }
        self
    }

    /// Appends `value` in decimal.
    pub(crate) fn number(&mut self, value: usize) -> &mut Self {
        self.padded(value, 0)
    }

    /// Appends `value` in decimal, right-aligned in `width` columns.
    pub(crate) fn padded(&mut self, value: usize, width: usize) -> &mut Self {
        let mut digits = [b' '; 20]; // u64::MAX has 20
        let mut rest = value;
        let mut count = 0;
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
            count += 1;
            if rest == 0 {
                break;
            }
        }
        for _ in count..width {
            self.byte(b' ');
        }
        for &digit in digits.iter().filter(|&&digit| digit != b' ') {
            self.byte(digit);
        }
        self
    }

    /// Appends `value` as `0x…`.
    pub(crate) fn hexadecimal(&mut self, value: usize) -> &mut Self {
        self.put("0x");
        let digits = (usize::BITS - value.leading_zeros()).div_ceil(4).max(1);
        for place in (0..digits).rev() {
            let digit = (value >> (place * 4) & 0xf) as u8;
            self.byte(if digit < 10 { b'0' + digit } else { b'a' + digit - 10 });
        }
        self
    }

    /// Writes what is left; false when anything was lost on the way.
    pub(crate) fn finish(mut self) -> bool {
        self.flush();
        !self.failed
    }

    fn byte(&mut self, byte: u8) {
        if self.used == self.line.len() {
            self.flush();
        }
        if let Some(place) = self.line.get_mut(self.used) {
            *place = byte;
            self.used += 1;
        }
    }

    fn flush(&mut self) {
        let length = self.used.min(self.line.len());
        self.used = 0;
        let start = self.line.as_ptr();
        match self.sink {
            Sink::Descriptor(descriptor) => {
                let mut done = 0;
                while done < length {
                    // SAFETY: `done < length <= line.len()`, so the range lies inside `line`.
                    let wrote = unsafe {
                        libc::syscall(libc::SYS_write, descriptor, start.add(done), length - done)
                    };
                    match usize::try_from(wrote) {
                        Ok(bytes) if bytes > 0 => done += bytes,
                        _ if wrote < 0 && crate::errno::get() == libc::EINTR => {}
                        _ => {
                            self.failed = true;
                            return;
                        }
                    }
                }
            }
            Sink::Stream(stream) => {
                let mut before = 0;
                // SAFETY: sets a flag of this thread; `before` is writable.
                unsafe { pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &raw mut before) };
                // SAFETY: `stream` is the open stream that the caller passed; `length` bytes of `line` are written.
                let wrote = unsafe { libc::fwrite(start.cast(), 1, length, stream) };
                // SAFETY: as above; `before` is what the first call stored.
                unsafe { pthread_setcancelstate(before, &raw mut before) };
                self.failed |= wrote != length;
            }
        }
    }
}
