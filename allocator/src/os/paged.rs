//! A kernel with pages of 4, 16 or 64 KiB, and a clock and resident bytes that a test sets, over the real one.
//!
//! It does with its pages what Linux does: an address inside of one is refused, and a length is rounded up
//! to whole ones. Whoever counts on less loses what lies behind.

use super::{Kernel, Linux, OsError, Target, map_aligned};
use crate::sync::{AtomicU64, AtomicUsize, Ordering};
use crate::units::round_up;

/// See the module.
#[derive(Debug)]
pub(crate) struct Paged {
    page: usize,
    now_ms: AtomicU64,
    hint: AtomicUsize,
    /// Bytes for which huge pages were asked.
    huge_bytes: AtomicUsize,
    /// Bytes that were named.
    labelled: AtomicUsize,
    /// What it says is resident; [`UNKNOWN`] if it does not say.
    resident: AtomicUsize,
}

const UNKNOWN: usize = usize::MAX;

impl Paged {
    pub(crate) const fn new(page: usize) -> Self {
        Paged {
            page,
            now_ms: AtomicU64::new(10_000),
            hint: AtomicUsize::new(0),
            huge_bytes: AtomicUsize::new(0),
            labelled: AtomicUsize::new(0),
            resident: AtomicUsize::new(0),
        }
    }

    /// Bytes for which huge pages were asked so far.
    pub(crate) fn huge_bytes(&self) -> usize {
        self.huge_bytes.load(Ordering::Relaxed)
    }

    /// Bytes that were named so far.
    pub(crate) fn labelled(&self) -> usize {
        self.labelled.load(Ordering::Relaxed)
    }

    /// Lets time pass.
    pub(crate) fn pass(&self, milliseconds: u64) {
        self.now_ms.fetch_add(milliseconds, Ordering::Relaxed);
    }

    /// Lets so many bytes be resident, or nobody know how many.
    pub(crate) fn set_resident(&self, bytes: Option<usize>) {
        self.resident.store(bytes.unwrap_or(UNKNOWN), Ordering::Relaxed);
    }

    /// A length in whole pages, or what Linux says of an address that is inside of one.
    fn whole(&self, call: &'static str, address: usize, len: usize) -> Result<usize, OsError> {
        match address & (self.page - 1) {
            0 => Ok(round_up(len, self.page)),
            _ => Err(OsError { call, errno: libc::EINVAL }),
        }
    }
}

// SAFETY: the ranges are Linux's, with whole pages of this kernel in them.
unsafe impl Kernel for Paged {
    fn map(&self, _hint: usize, len: usize) -> Result<usize, OsError> {
        map_aligned(&Linux, 0, round_up(len, self.page), self.page)
    }

    unsafe fn unmap(&self, address: usize, len: usize) -> Result<(), OsError> {
        let len = self.whole("munmap", address, len)?;
        // SAFETY: the caller's promise, for what it should have asked for.
        unsafe { Linux.unmap(address, len) }
    }

    unsafe fn purge(&self, address: usize, len: usize) -> Result<(), OsError> {
        let len = self.whole("madvise", address, len)?;
        // SAFETY: as above.
        unsafe { Linux.purge(address, len) }
    }

    unsafe fn remap(
        &self,
        address: usize,
        len: usize,
        new_len: usize,
        to: Target,
    ) -> Result<usize, OsError> {
        let len = self.whole("mremap", address, len)?;
        let target = if let Target::At(target) = to { target } else { 0 };
        let new_len = self.whole("mremap", target, new_len)?;
        // SAFETY: as above.
        unsafe { Linux.remap(address, len, new_len, to) }
    }

    fn bind(&self, _: usize, _: usize, _: u32) -> Result<(), OsError> {
        Ok(())
    }

    fn prefer_huge_pages(&self, _: usize, len: usize) {
        self.huge_bytes.fetch_add(len, Ordering::Relaxed);
    }

    fn page_size(&self) -> usize {
        self.page
    }

    fn label(&self, _: usize, len: usize) {
        self.labelled.fetch_add(len, Ordering::Relaxed);
    }

    fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::Relaxed)
    }

    fn resident_bytes(&self) -> Option<usize> {
        let bytes = self.resident.load(Ordering::Relaxed);
        (bytes != UNKNOWN).then_some(bytes)
    }

    fn next_hint(&self) -> &AtomicUsize {
        &self.hint
    }
}
