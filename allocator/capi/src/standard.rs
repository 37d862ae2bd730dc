//! The C standard's functions, and the ones glibc and BSD keep beside them.
//!
//! Source: C23 7.24.3, POSIX.1-2024, and glibc's manual where those leave the choice: `malloc(0)` gives a unique
//! address, `realloc(p, 0)` frees and returns null, sizes beyond `PTRDIFF_MAX` fail with `ENOMEM`.

use crate::bound::bound;
use crate::{errno, loading};
use allocator::heap;
use core::ffi::c_void;

/// At least `size` bytes aligned to 16; null with `ENOMEM` when there are none. `malloc(0)` is unique.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".text.hot.malloc")]
pub(crate) extern "C" fn malloc(size: usize) -> *mut c_void {
    let p = heap::allocate_ready(size);
    if p.is_null() { allocate(size) } else { p.cast() }
}

/// The rest of `malloc`: apart, so that its frame does not burden the fast path.
#[inline(never)]
#[unsafe(link_section = ".text.hot.refill")]
pub(crate) extern "C" fn allocate(size: usize) -> *mut c_void {
    let p = heap::allocate_at_hand(size);
    if p.is_null() { allocate_slowly(size) } else { p.cast() }
}

/// The rest of `allocate`, apart for the same reason.
#[cold]
#[inline(never)]
fn allocate_slowly(size: usize) -> *mut c_void {
    errno::or_no_memory(heap::allocate_slowly(size))
}

/// Gives back what any allocation function of this library returned; null is allowed. Keeps `errno`.
///
/// # Safety
/// `p` is null or a live object of this allocator, and nobody uses it afterwards.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".text.hot.free")]
unsafe extern "C" fn free(p: *mut c_void) {
    // SAFETY: the caller's contract is `deallocate`'s, which allows null.
    unsafe { heap::deallocate(p.cast()) }
}

/// `count` objects of `size` bytes each, all zero; `ENOMEM` when the product overflows.
#[unsafe(no_mangle)]
extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    match count.checked_mul(size) {
        Some(bytes) => errno::or_no_memory(heap::allocate_zeroed(bytes)),
        None => errno::no_memory(),
    }
}

/// Resizes `p`, in place or elsewhere. Null `p` allocates; `size` 0 frees and returns null, as glibc does.
/// On failure `p` stays as it is.
///
/// # Safety
/// As `free`, unless it fails: then `p` stays the caller's.
#[unsafe(no_mangle)]
unsafe extern "C" fn realloc(p: *mut c_void, size: usize) -> *mut c_void {
    // SAFETY: the same contract.
    unsafe { resize(p, size) }
}

/// `realloc`, for callers who mean this library's own.
///
/// # Safety
/// As `realloc`.
#[inline(never)]
pub(crate) unsafe fn resize(p: *mut c_void, size: usize) -> *mut c_void {
    if p.is_null() {
        let p = heap::allocate_ready(size);
        return if p.is_null() { allocate(size) } else { p.cast() };
    }
    if size == 0 {
        // SAFETY: the caller's contract.
        unsafe { heap::deallocate(p.cast()) };
        return core::ptr::null_mut();
    }
    // SAFETY: `p` is a live object by the caller's contract, not null, and `size` is not 0 (both tested above).
    errno::or_no_memory(unsafe { heap::reallocate(p.cast(), size) })
}

/// `realloc(p, count * size)` that fails with `ENOMEM` instead of overflowing. As glibc's, it calls the `realloc` that
/// the program defines, if it does.
///
/// # Safety
/// As `realloc`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn reallocarray(
    p: *mut c_void,
    count: usize,
    size: usize,
) -> *mut c_void {
    type Realloc = unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void;
    let Some(bytes) = count.checked_mul(size) else {
        return errno::no_memory();
    };
    // Opened by `dlopen`, the objects are ours and the name is libc's.
    if !loading::serves_the_process() {
        // SAFETY: the caller's contract is `realloc`'s.
        return unsafe { resize(p, bytes) };
    }
    let address = bound!(realloc);
    // SAFETY: the name stands for a function of this type; the caller's contract is its.
    unsafe { core::mem::transmute::<usize, Realloc>(address)(p, bytes) }
}

/// C23: `free` by a caller who knows the size that was asked for.
///
/// The size is no help, for the address alone leads to the span record; but a size that cannot be the object's is
/// reported.
///
/// # Safety
/// As `free`; `p` came from malloc, calloc or realloc with this `size`.
#[unsafe(no_mangle)]
unsafe extern "C" fn free_sized(p: *mut c_void, size: usize) {
    // SAFETY: the caller's contract is `deallocate_sized`'s.
    unsafe { heap::deallocate_sized(p.cast(), size) }
}

/// C23: `free` by a caller who knows size and alignment.
///
/// # Safety
/// As `free`; `p` came from aligned_alloc with these values.
#[unsafe(no_mangle)]
unsafe extern "C" fn free_aligned_sized(p: *mut c_void, alignment: usize, size: usize) {
    // SAFETY: the caller's contract is `deallocate_aligned`'s.
    unsafe { heap::deallocate_aligned(p.cast(), alignment, size) }
}

/// The name `free` had before ANSI C; glibc kept it for old programs.
///
/// # Safety
/// As `free`.
#[unsafe(no_mangle)]
unsafe extern "C" fn cfree(p: *mut c_void) {
    // SAFETY: the caller's contract is `deallocate`'s.
    unsafe { heap::deallocate(p.cast()) }
}

/// How many bytes at `p` the program may use: what it asked for, or more. 0 for null.
///
/// # Safety
/// `p` is null or a live object of this allocator.
#[unsafe(no_mangle)]
unsafe extern "C" fn malloc_usable_size(p: *mut c_void) -> usize {
    if p.is_null() {
        return 0;
    }
    // SAFETY: a live object by the caller's contract.
    unsafe { heap::usable_size(p.cast()) }
}
