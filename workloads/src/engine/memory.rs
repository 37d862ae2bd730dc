//! Mapped memory of the harness: never from the allocator under test, faulted in before the run.

use std::io;
use std::ptr::NonNull;

/// Zeroed pages of the harness's own.
///
/// # Invariants
/// 1. `start` is a private anonymous mapping of `bytes` bytes, unmapped on drop and only then.
#[derive(Debug)]
pub(crate) struct Region {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: a region is plain memory; who writes where is settled by those who hold pointers into it.
unsafe impl Send for Region {}
// SAFETY: as above; `&Region` gives out raw pointers only.
unsafe impl Sync for Region {}

impl Region {
    /// Maps `bytes` bytes; with `resident` they are faulted in now, else when first written to.
    pub(crate) fn new(bytes: usize, resident: bool) -> io::Result<Region> {
        let bytes = bytes.max(1).next_multiple_of(4096);
        let extra = if resident { libc::MAP_POPULATE } else { libc::MAP_NORESERVE };
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | extra,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at 0"))?;
        Ok(Region { start, bytes })
    }

    /// A zeroed array of `count` elements that any bit pattern of zeros is valid for.
    pub(crate) fn array<T>(count: usize, resident: bool) -> io::Result<Region> {
        let bytes = count.checked_mul(size_of::<T>()).ok_or_else(|| {
            io::Error::new(io::ErrorKind::OutOfMemory, "more bytes than there are addresses")
        })?;
        Region::new(bytes, resident)
    }

    /// The first byte, as whatever the region holds.
    pub(crate) fn start<T>(&self) -> *mut T {
        self.start.as_ptr().cast()
    }

    /// Length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.bytes
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: invariant 1.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}
