//! Sizes, alignments and the arithmetic on them.

/// The kernel's page on every machine this was tuned for. Purging rounds to the page size read at
/// run time ([`crate::os::page_size`]); carving by this constant is only a policy.
pub(crate) const PAGE: usize = 4096;

/// Every address handed out is a multiple of this.
pub(crate) const MIN_ALIGN: usize = 16;

/// log2 of [`SLICE`].
pub(crate) const SLICE_SHIFT: usize = 15;
/// The unit in which a segment is shared out.
///
/// 32 KiB: with 64 KiB every thread holds twice the memory in spans it has barely begun, with
/// 16 KiB a span of 1 KiB blocks holds too few of them to be worth a refill.
pub(crate) const SLICE: usize = 1 << SLICE_SHIFT;

/// What the kernel is asked for at a time, and the alignment by which an address finds its
/// segment.
pub(crate) const SEGMENT: usize = 4 << 20;
/// Slices of one segment; slice 0 holds the records of all of them.
pub(crate) const SLICES: usize = SEGMENT / SLICE;

/// Requests from here on are served by `mmap`, below by `sbrk` where we own the break.
pub(crate) const MMAP_THRESHOLD: usize = 128 << 10;

/// Hardened builds only: the last bytes of every block, which say what was asked for and whether the
/// block is free; nothing that floors keep in a free block may touch them.
pub(crate) const TRAILER: usize = if cfg!(feature = "hardened") { 8 } else { 0 };

/// Hardened builds only: blocks at the start of a span that are never handed out, so that what is
/// written in front of the first object is found as in front of any other.
pub(crate) const SKIPPED: usize = if cfg!(feature = "hardened") { 1 } else { 0 };

/// No object is larger: half the address space, as POSIX's `ptrdiff_t` demands.
pub(crate) const MAX_OBJECT: usize = isize::MAX as usize;

/// `n` rounded up to a multiple of `unit`, a power of two. `n` must not exceed [`MAX_OBJECT`].
#[inline(always)]
pub(crate) const fn round_up(n: usize, unit: usize) -> usize {
    n.wrapping_add(unit - 1) & !(unit - 1)
}

/// Start and length of the pages of `page` bytes that lie wholly in the `len` bytes from `from` on.
#[inline(always)]
pub(crate) fn pages_within(from: usize, len: usize, page: usize) -> Option<(usize, usize)> {
    let (start, end) = (round_up(from, page), (from + len) & !(page - 1));
    (start < end).then(|| (start, end - start))
}

/// Sets `bytes` bytes to zero.
///
/// In hardened builds by the name that glibc's `_FORTIFY_SOURCE` uses: their preloaded library has a `memset` of
/// its own, which asks whether the program may write there (`capi/src/copies.rs`), and this library may.
///
/// # Safety
/// They are the caller's.
#[inline(always)]
pub(crate) unsafe fn set_zero(at: *mut u8, bytes: usize) {
    #[cfg(feature = "hardened")]
    // SAFETY: the caller's promise; no object is larger than the room that is stated.
    unsafe {
        unsafe extern "C" {
            fn __memset_chk(to: *mut u8, byte: i32, len: usize, room: usize) -> *mut u8;
        }
        __memset_chk(at, 0, bytes, isize::MAX as usize);
    }
    #[cfg(not(feature = "hardened"))]
    // SAFETY: the caller's promise.
    unsafe {
        at.write_bytes(0, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_meets_multiples_exactly() {
        assert_eq!(round_up(0, 16), 0);
        assert_eq!(round_up(1, 16), 16);
        assert_eq!(round_up(4096, 4096), 4096);
    }

    #[test]
    fn the_pages_of_a_range_are_those_that_lie_wholly_in_it_on_pages_of_every_size() {
        for page in [4 << 10, 16 << 10, 64 << 10] {
            let base = 10 * page;
            let edges = [0, 1, 4 << 10, page - 1, page, page + 1, 2 * page, 3 * page + (4 << 10)];
            for (from, len) in edges.iter().flat_map(|from| edges.map(|len| (base + from, len))) {
                let whole = |at: &usize| *at >= from && at + page <= from + len;
                let pages = (base..base + 10 * page).step_by(page).filter(whole);
                let expected = pages.clone().next().map(|start| (start, pages.count() * page));
                assert_eq!(pages_within(from, len, page), expected, "{page}: {len} at {from}");
            }
        }
    }
}
