//! Alignment by request.
//!
//! Who is strict and who is not follows glibc: `aligned_alloc` takes powers of two only (C23), `posix_memalign`
//! powers of two that hold a pointer (POSIX), `memalign` is older than both and rounds up.

use crate::errno;
use allocator::heap;
use core::ffi::{c_int, c_void};

/// Past this power of two no object exists: the address space of a process is smaller.
const LARGEST_ALIGNMENT: usize = 1 << (usize::BITS - 1);

/// `size` bytes at a multiple of `alignment`, a power of two; `EINVAL` for any other alignment.
/// `size` need not be a multiple of `alignment` (C23 dropped that rule).
#[unsafe(no_mangle)]
extern "C" fn aligned_alloc(alignment: usize, size: usize) -> *mut c_void {
    if !alignment.is_power_of_two() {
        return errno::invalid();
    }
    errno::or_no_memory(heap::allocate_aligned(alignment, size))
}

/// As `aligned_alloc`, but an alignment between powers of two counts as the next one.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn memalign(alignment: usize, size: usize) -> *mut c_void {
    if alignment > LARGEST_ALIGNMENT {
        return errno::invalid();
    }
    // Cannot overflow: the largest alignment is itself a power of two.
    errno::or_no_memory(heap::allocate_aligned(alignment.next_power_of_two(), size))
}

/// Stores the object at `*out` and returns 0, or returns `EINVAL` or `ENOMEM` and stores nothing.
/// `errno` says `ENOMEM` too, as with glibc, and is untouched otherwise: POSIX leaves it open.
///
/// # Safety
/// `out` is writable.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn posix_memalign(
    out: *mut *mut c_void,
    alignment: usize,
    size: usize,
) -> c_int {
    if !alignment.is_power_of_two() || alignment < size_of::<*mut c_void>() {
        return libc::EINVAL;
    }
    let p = heap::allocate_aligned(alignment, size);
    if p.is_null() {
        errno::set(libc::ENOMEM);
        return libc::ENOMEM;
    }
    // SAFETY: `out` is writable by the caller's contract.
    unsafe { out.write(p.cast()) };
    0
}

/// `size` bytes at the start of a page.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn valloc(size: usize) -> *mut c_void {
    errno::or_no_memory(heap::allocate_aligned(page_size(), size))
}

/// Whole pages, at least one.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn pvalloc(size: usize) -> *mut c_void {
    let page = page_size();
    match size.max(1).checked_next_multiple_of(page) {
        Some(bytes) => errno::or_no_memory(heap::allocate_aligned(page, bytes)),
        None => errno::no_memory(),
    }
}

/// The kernel's page: 4, 16 or 64 KiB, hence not a constant.
fn page_size() -> usize {
    // SAFETY: `sysconf` only reads; glibc answers from the auxiliary vector without allocating.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(page).ok().filter(|page| page.is_power_of_two()).unwrap_or(4096)
}
