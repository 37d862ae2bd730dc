//! Files that are read or written whole, by system calls: no buffer, no stdio, `errno` untouched.

use core::ffi::CStr;

use super::OsError;
use super::syscall::{checked, number, raw};

/// An open file; closed when dropped.
#[derive(Debug)]
pub(crate) struct File(usize);

impl File {
    /// Opens a file to be read.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn open(path: &CStr) -> Result<Self, OsError> {
        Self::with(path, libc::O_RDONLY)
    }

    /// Opens a file to be written from its start, made if there is none (readable and writable by its
    /// owner alone, for addresses are nobody else's business).
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn create(path: &CStr) -> Result<Self, OsError> {
        Self::with(path, libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC)
    }

    fn with(path: &CStr, flags: i32) -> Result<Self, OsError> {
        let here = libc::AT_FDCWD as usize;
        let flags = (flags | libc::O_CLOEXEC) as usize;
        let args = [here, path.as_ptr() as usize, flags, 0o600, 0, 0];
        // SAFETY: the kernel reads a terminated path.
        unsafe { checked("openat", number::OPENAT, args).map(File) }
    }

    /// The next bytes, as many as there are and fit; none at the end.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn read<'a>(&self, buffer: &'a mut [u8]) -> Result<&'a [u8], OsError> {
        let args = [self.0, buffer.as_mut_ptr() as usize, buffer.len(), 0, 0, 0];
        // SAFETY: the kernel writes at most the borrowed bytes.
        let read = unsafe { checked("read", number::READ, args)? };
        Ok(buffer.get(..read).unwrap_or(&[]))
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// The kernel's; some of the bytes may have been written.
    pub(crate) fn write(&self, bytes: &[u8]) -> Result<(), OsError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let args = [self.0, rest.as_ptr() as usize, rest.len(), 0, 0, 0];
            // SAFETY: the kernel reads the borrowed bytes.
            match unsafe { checked("write", number::WRITE, args) } {
                Ok(wrote) => rest = rest.get(wrote..).unwrap_or(&[]),
                Err(error) if error.errno == libc::EINTR => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // SAFETY: the descriptor is this file's.
        unsafe { raw(number::CLOSE, [self.0, 0, 0, 0, 0, 0]) };
    }
}
