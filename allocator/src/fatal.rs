//! The one way this library ends a process: a line on standard error, then `abort`; and the one way
//! out of it, a callback of the program's own.
//!
//! Nothing is allocated and stdio is not used, so it works in the middle of anything.

use core::ptr;
// Not from `sync`: loom's atomics cannot stand in a static.
use core::sync::atomic::{AtomicPtr, Ordering};

use crate::os;
use crate::probe::fire;

/// What a program does about a fault instead of ending: gets what the report would say (a fragment
/// such as "double free (check double-free)"), the object's address, and its size in bytes or 0.
pub type Callback = fn(what: &'static str, address: usize, size: usize);

static CALLBACK: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

/// Hands every fault to `callback` from now on; `None` undoes it. A fault found before anything was
/// changed is then passed over as if the wrong call had not been made; after any other the process
/// ends all the same, once the callback returned.
pub fn on_fault(callback: Option<Callback>) {
    let raw = callback.map_or(ptr::null_mut(), |callback| callback as *mut ());
    CALLBACK.store(raw, Ordering::Release);
}

/// Hands the fault to the program's callback; false if there is none.
fn told(what: &'static str, address: usize, size: usize) -> bool {
    fire!("fault", what.as_ptr().addr(), what.len(), address);
    let raw = CALLBACK.load(Ordering::Acquire);
    if raw.is_null() {
        return false;
    }
    // SAFETY: only `on_fault` stores here, and it stores a function of this type.
    let callback = unsafe { core::mem::transmute::<*mut (), Callback>(raw) };
    callback(what, address, size);
    true
}

/// A fault found before anything was changed: returns only if the program has a callback, and then
/// the caller does nothing.
#[cold]
#[inline(never)]
pub fn fault(what: &'static str, address: usize, size: usize) {
    if !told(what, address, size) {
        end(what, address, size);
    }
}

/// Reports a broken promise in one line and aborts.
///
/// `what` is a fragment such as "double free"; `address` the object's; `size` its usable size in
/// bytes, 0 where unknown.
#[cold]
#[inline(never)]
pub fn report(what: &'static str, address: usize, size: usize) -> ! {
    told(what, address, size);
    end(what, address, size)
}

fn end(what: &str, address: usize, size: usize) -> ! {
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
