//! The allocator's map of its own heap, taken at the peak of live bytes by the sampler's thread.
//!
//! Only ours exports one. The file is opened before the run, and the map overwrites the one before.

use std::ffi::c_int;
use std::fs::{self, File};
use std::io;
use std::mem;
use std::os::fd::IntoRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use super::proof::symbol;

/// Where the map is written in a worker's folder.
const FILE: &str = "heap.jsonl";

static DESCRIPTOR: AtomicI32 = AtomicI32::new(-1);
static WRITER: AtomicUsize = AtomicUsize::new(0);

/// What is to be called at the peak; `None` where the library exports no map.
///
/// # Errors
/// The file cannot be made.
pub(super) fn prepare(folder: &Path) -> io::Result<Option<fn()>> {
    let Some(address) = symbol(c"allocator_heap_map") else { return Ok(None) };
    // Open until the process ends.
    DESCRIPTOR.store(File::create(folder.join(FILE))?.into_raw_fd(), Ordering::SeqCst);
    WRITER.store(address.expose_provenance(), Ordering::SeqCst);
    Ok(Some(take))
}

/// The last map, where one was taken.
pub(super) fn read(folder: &Path) -> Option<String> {
    fs::read_to_string(folder.join(FILE)).ok().filter(|text| !text.is_empty())
}

fn take() {
    type Write = unsafe extern "C" fn(c_int) -> c_int;
    let descriptor = DESCRIPTOR.load(Ordering::SeqCst);
    let address =
        std::ptr::with_exposed_provenance_mut::<libc::c_void>(WRITER.load(Ordering::SeqCst));
    // SAFETY: `prepare` stored the address of the function, to which our header gives this signature.
    let write = unsafe { mem::transmute::<*mut libc::c_void, Write>(address) };
    // SAFETY: the descriptor is our own; the map allocates nothing. One that could not be written
    // lacks its last line, and whoever reads it knows.
    unsafe {
        libc::ftruncate(descriptor, 0);
        libc::lseek(descriptor, 0, libc::SEEK_SET);
        write(descriptor);
    }
}
