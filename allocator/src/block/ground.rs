//! What a heap and its placement strategy both stand on: the regions, the secret, the block words.
//!
//! Owns the region table and the secret. Cost: constant, except for [`Ground::diagnose`], which
//! walks a region and runs only when something is already wrong.

use super::fault::{Fault, FaultKind};
use super::header::{GRAIN, HEADER, Header, MAX_BLOCK, MIN_BLOCK, footer_size, load};
use super::region::{Region, Regions};

/// The regions of a heap, the secret of its checksums, and its number among the arenas.
#[derive(Debug)]
pub struct Ground {
    pub(crate) regions: Regions,
    pub(crate) secret: u64,
    pub(crate) arena: u8,
}

/// A free block as the heap and its placement speak of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FreeBlock {
    /// Address of the header.
    pub(crate) at: usize,
    /// Size in bytes, header included.
    pub(crate) size: usize,
    /// Index of the region it lies in.
    pub(crate) region: usize,
}

/// Bytes of block that serve a request of `size` bytes; `None` beyond [`MAX_BLOCK`].
#[inline(always)]
#[must_use]
pub const fn block_size(size: usize) -> Option<usize> {
    if size > MAX_BLOCK - HEADER {
        return None;
    }
    let bytes = (size + HEADER + GRAIN - 1) & !(GRAIN - 1);
    Some(if bytes < MIN_BLOCK { MIN_BLOCK } else { bytes })
}

/// What a strategy must look for so that any block it finds holds `need` bytes at `align`.
#[inline(always)]
pub(crate) const fn padded(need: usize, align: usize) -> usize {
    // A gap in front is either nothing or a block of its own, so at most `align + GRAIN`.
    if align <= GRAIN { need } else { need.saturating_add(align + GRAIN) }
}

/// Where in the free block `at..at + size` a block of `need` bytes starts whose payload is aligned.
#[inline(always)]
pub(crate) const fn fit(at: usize, size: usize, need: usize, align: usize) -> Option<usize> {
    if align <= GRAIN {
        return if size >= need { Some(at) } else { None };
    }
    let mut start = ((at + HEADER + align - 1) & !(align - 1)) - HEADER;
    if start != at && start - at < MIN_BLOCK {
        start += align;
    }
    if start - at + need <= size { Some(start) } else { None }
}

impl Ground {
    pub(crate) const fn new(secret: u64, arena: u8) -> Self {
        Self { regions: Regions::new(), secret, arena }
    }

    /// The header at `at`, if it is sealed for this place.
    ///
    /// # Safety
    /// `at` is a possible block start or a fence inside one of the regions.
    #[inline(always)]
    pub(crate) unsafe fn header(&self, at: usize) -> Option<Header> {
        // SAFETY: the caller promises a mapped, 8-aligned address inside a region.
        let header = unsafe { Header::read(at) };
        header.sealed_at(at, self.secret).then_some(header)
    }

    /// The size of the free block at `at`, as its placement sees it while it searches.
    ///
    /// # Safety
    /// As for [`Ground::header`].
    #[inline(always)]
    pub(crate) unsafe fn free_size(&self, at: usize) -> Result<usize, Fault> {
        // SAFETY: the caller's promise.
        match unsafe { self.header(at) } {
            Some(header) if !header.in_use() => Ok(header.size()),
            Some(header) => Err(fault(FaultKind::CorruptIndex, at, header.size())),
            None => Err(fault(FaultKind::CorruptHeader, at, 0)),
        }
    }

    /// The free block that ends where the block at `at` begins, checked from both ends.
    ///
    /// # Safety
    /// `at` is a block of `region` whose header says that its predecessor is free.
    #[inline(always)]
    pub(crate) unsafe fn previous(&self, at: usize, region: &Region) -> Result<usize, Fault> {
        // SAFETY: the predecessor is free, so the word before `at` is its footer.
        let size = footer_size(unsafe { load(at - HEADER) });
        let start = at.wrapping_sub(size);
        if size >= MIN_BLOCK && start >= region.first && start < at {
            // SAFETY: `start` lies in the region and is a multiple of 16 away from `at`.
            let header = unsafe { self.header(start) };
            if header.is_some_and(|header| !header.in_use() && header.size() == size) {
                return Ok(start);
            }
        }
        Err(fault(FaultKind::UseAfterFree, at - HEADER, 0))
    }

    /// Says what is wrong with `payload`, whose header is not sealed, by walking its region.
    #[cold]
    pub(crate) fn diagnose(&self, payload: usize, region: &Region) -> Fault {
        let mut at = region.first;
        while at < region.fence() {
            // SAFETY: the walk starts at the first block and follows sealed sizes only.
            let Some(header) = (unsafe { self.header(at) }) else {
                return fault(FaultKind::CorruptHeader, at, 0);
            };
            let next = at + header.size();
            if payload - HEADER < next {
                let kind = if !header.in_use() {
                    FaultKind::InvalidFree
                } else if header.is_parked() {
                    FaultKind::DoubleFree
                } else {
                    FaultKind::InteriorFree
                };
                return Fault::new(kind, payload, header.size() - HEADER);
            }
            if header.size() < MIN_BLOCK {
                return fault(FaultKind::CorruptHeader, at, 0);
            }
            at = next;
        }
        Fault::new(FaultKind::InvalidFree, payload, 0)
    }
}

/// Bytes of the live block at `payload`, read without the heap's lock; `None` if its header or the
/// next one is not as a live block's must be. The lock's holder then knows why.
///
/// # Safety
/// `payload - 8` lies in a region of a heap with this secret, and `payload` is a multiple of 16.
#[inline(always)]
pub(crate) unsafe fn live_bytes(payload: usize, secret: u64) -> Option<usize> {
    let at = payload - HEADER;
    // SAFETY: the caller's promise; headers change by single stores, so this one is whole.
    let header = unsafe { Header::read(at) };
    if !header.sealed_at(at, secret) || !header.in_use() || header.is_parked() {
        return None;
    }
    let next = at + header.size();
    // SAFETY: a sealed block ends at a block or a fence of its region.
    let after = unsafe { Header::read(next) };
    after.sealed_at(next, secret).then_some(header.size())
}

/// A fault at the block whose header is at `at`.
pub(crate) const fn fault(kind: FaultKind, at: usize, size: usize) -> Fault {
    Fault::new(kind, at + HEADER, size.saturating_sub(HEADER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overhead_is_eight_bytes_rounded_to_the_grain() {
        assert_eq!(block_size(0), Some(32));
        assert_eq!(block_size(24), Some(32));
        assert_eq!(block_size(25), Some(48));
        assert_eq!(block_size(4088), Some(4096));
        assert_eq!(block_size(MAX_BLOCK - HEADER), Some(MAX_BLOCK));
        assert_eq!(block_size(MAX_BLOCK - HEADER + 1), None);
        assert_eq!(block_size(usize::MAX), None);
    }

    #[test]
    fn a_padded_request_always_holds_an_aligned_block() {
        for align in [16, 32, 64, 256, 4096] {
            for offset in 0..align / 16 {
                let at = 0x10_0008 + offset * 16;
                let size = padded(48, align);
                let start = fit(at, size, 48, align);
                let start = start.map(|start| (start, (start + HEADER) % align, start - at));
                let Some((start, 0, gap)) = start else { panic!("align {align} at {at:#x}") };
                assert!(gap == 0 || gap >= MIN_BLOCK);
                assert!(start + 48 <= at + size);
            }
        }
    }
}
