//! Profiles of allocation sites: on request, and where reports are written unasked.
//!
//! The files of the second kind are called `PREFIX.PROCESS.NUMBER.heap`: what `sample_prefix` says, the process, and
//! a number that begins with 0.
//!
//! Cost: nothing until one is written; then one pass over at most 8192 sites, in which nothing allocates.

use crate::errno;
use crate::text::{Sink, Text};
use allocator::{heap, sampling};
use core::ffi::{CStr, c_char, c_int};
use core::sync::atomic::{AtomicUsize, Ordering};

/// Profiles that were written unasked so far.
static WRITTEN: AtomicUsize = AtomicUsize::new(0);
/// Bytes of a path: a prefix, two numbers, an ending.
const PATH: usize = 256;

/// Writes the profile to a file; 0, or -1 with `errno`.
///
/// # Safety
/// `path` is null or a terminated string.
#[unsafe(no_mangle)]
unsafe extern "C" fn allocator_sample_dump(path: *const c_char) -> c_int {
    if path.is_null() {
        errno::set(libc::EINVAL);
        return -1;
    }
    // SAFETY: a terminated string by the caller's contract.
    match sampling::dump(unsafe { CStr::from_ptr(path) }) {
        Ok(()) => 0,
        Err(code) => {
            errno::set(code);
            -1
        }
    }
}

/// Writes the next profile of this process, if there are samples; says in a line to `complaints` when that fails.
pub(crate) fn write_next(complaints: Option<c_int>) {
    let mut path = [0u8; PATH];
    let mut used = 0;
    let mut put = |bytes: &[u8]| {
        for &byte in bytes {
            // The last byte stays 0.
            if let Some(place) = path.get_mut(used).filter(|_| used < PATH - 1) {
                *place = byte;
                used += 1;
            }
        }
    };
    // SAFETY: takes no arguments and cannot fail.
    let process = unsafe { libc::getpid() };
    put(heap::options().sample_prefix.as_bytes());
    for number in [process as usize, WRITTEN.fetch_add(1, Ordering::Relaxed)] {
        put(b".");
        let (digits, first) = decimal(number);
        put(digits.get(first..).unwrap_or(&[]));
    }
    put(b".heap");
    let Ok(path) = CStr::from_bytes_until_nul(&path) else { return };
    let written = matches!(sampling::dump(path), Ok(()) | Err(libc::ENODATA));
    if let Some(descriptor) = complaints.filter(|_| !written) {
        let mut text = Text::new(Sink::Descriptor(descriptor));
        text.put("allocator: cannot write the profile ");
        text.put(path.to_str().unwrap_or("")).put("\n");
        text.finish();
    }
}

/// The digits of a number, and where they begin.
fn decimal(number: usize) -> ([u8; 20], usize) {
    let mut digits = [0; 20]; // usize::MAX has 20
    let (mut rest, mut first) = (number, digits.len());
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
        first -= 1;
        if rest == 0 {
            break;
        }
    }
    (digits, first)
}

/// Appends a line about the samples, if there are any.
pub(crate) fn describe(text: &mut Text) {
    let (mut sites, mut live, mut ever) = (0, 0, 0);
    sampling::for_each_site(|site| {
        sites += 1;
        live += site.live_objects as usize;
        ever += site.objects as usize;
    });
    if sites > 0 {
        text.put("  samples of ").number(sites).put(" sites: ").number(live).put(" live, ");
        text.number(ever).put(" ever, ").number(sampling::lost() as usize).put(" lost\n");
    }
}
