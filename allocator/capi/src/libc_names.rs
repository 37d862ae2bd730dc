//! `__libc_malloc` and its siblings: the names under which glibc exports the same functions.
//!
//! Programs that wrap `malloc` call them to reach "the real one". Were they left to glibc, such a program would hold
//! objects of two allocators and free them with either.

use crate::{aligned, errno, introspection, standard};
use allocator::heap;
use core::ffi::{c_int, c_void};

/// `malloc`.
#[unsafe(no_mangle)]
extern "C" fn __libc_malloc(size: usize) -> *mut c_void {
    let p = heap::allocate_ready(size);
    if p.is_null() { standard::allocate(size) } else { p.cast() }
}

/// `calloc`.
#[unsafe(no_mangle)]
extern "C" fn __libc_calloc(count: usize, size: usize) -> *mut c_void {
    match count.checked_mul(size) {
        Some(bytes) => errno::or_no_memory(heap::allocate_zeroed(bytes)),
        None => errno::no_memory(),
    }
}

/// `realloc`.
///
/// # Safety
/// As `realloc`.
#[unsafe(no_mangle)]
unsafe extern "C" fn __libc_realloc(p: *mut c_void, size: usize) -> *mut c_void {
    // SAFETY: the same contract.
    unsafe { standard::resize(p, size) }
}

/// `reallocarray`.
///
/// # Safety
/// As `realloc`.
#[unsafe(no_mangle)]
unsafe extern "C" fn __libc_reallocarray(p: *mut c_void, count: usize, size: usize) -> *mut c_void {
    // SAFETY: the same contract.
    unsafe { standard::reallocarray(p, count, size) }
}

/// `free`.
///
/// # Safety
/// As `free`.
#[unsafe(no_mangle)]
unsafe extern "C" fn __libc_free(p: *mut c_void) {
    // SAFETY: the same contract; null is allowed.
    unsafe { heap::deallocate(p.cast()) }
}

/// `cfree`.
///
/// # Safety
/// As `free`.
#[unsafe(no_mangle)]
unsafe extern "C" fn __libc_cfree(p: *mut c_void) {
    // SAFETY: the same contract; null is allowed.
    unsafe { heap::deallocate(p.cast()) }
}

/// `memalign`.
#[unsafe(no_mangle)]
extern "C" fn __libc_memalign(alignment: usize, size: usize) -> *mut c_void {
    aligned::memalign(alignment, size)
}

/// `valloc`.
#[unsafe(no_mangle)]
extern "C" fn __libc_valloc(size: usize) -> *mut c_void {
    aligned::valloc(size)
}

/// `pvalloc`.
#[unsafe(no_mangle)]
extern "C" fn __libc_pvalloc(size: usize) -> *mut c_void {
    aligned::pvalloc(size)
}

/// `posix_memalign`.
///
/// # Safety
/// As `posix_memalign`.
#[unsafe(no_mangle)]
unsafe extern "C" fn __posix_memalign(
    out: *mut *mut c_void,
    alignment: usize,
    size: usize,
) -> c_int {
    // SAFETY: the same contract.
    unsafe { aligned::posix_memalign(out, alignment, size) }
}

/// `mallinfo`.
#[unsafe(no_mangle)]
extern "C" fn __libc_mallinfo() -> introspection::Mallinfo {
    introspection::mallinfo()
}

/// `mallopt`.
#[unsafe(no_mangle)]
extern "C" fn __libc_mallopt(parameter: c_int, value: c_int) -> c_int {
    introspection::mallopt(parameter, value)
}
