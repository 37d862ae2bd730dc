//! The exported malloc family: each calls the real function and records the call.
//!
//! A stamp is taken after an allocation and before a release, and both around a realloc; the
//! record of a release is written before it happens, all others after. What libc serves by calling
//! another exported function (`reallocarray`) is written in terms of that function here, so no
//! call is recorded twice.

use core::ffi::{c_int, c_void};
use core::ptr::null_mut;
use core::sync::atomic::Ordering;

use trace_format::v1::raw::{RawOp, RawRecord};

use crate::file::Block;
use crate::process::stamp;
use crate::real;
use crate::writer::{record, record_short, recording};

/// Whether calls about this address are recorded. Sampling chooses addresses, not calls: so an
/// object's birth, reallocations and release are recorded all or none, without a table.
#[inline(always)]
fn wanted(block: &Block, address: *mut c_void) -> bool {
    let one_in = block.one_in.load(Ordering::Relaxed);
    one_in <= 1 || address.is_null() || in_sample(address, one_in)
}

#[cold]
#[inline(never)]
fn in_sample(address: *mut c_void, one_in: u32) -> bool {
    let mixed = (address.addr() as u64 >> 4).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32).is_multiple_of(u64::from(one_in))
}

/// Records a call that took no further argument and is over.
#[inline(always)]
pub(crate) fn note(op: RawOp, result: *mut c_void, size: usize) {
    if let Some(block) = recording()
        && wanted(block, result)
    {
        record_short(block, op, stamp(block), result.addr() as u64, size as u64);
    }
}

/// Records a call with a further argument that is over.
#[inline(always)]
pub(crate) fn note_long(op: RawOp, result: *mut c_void, size: usize, extra: usize) {
    if let Some(block) = recording()
        && wanted(block, result)
    {
        let long = RawRecord {
            extra: extra as u64,
            ..RawRecord::short(op, stamp(block), result.addr() as u64, size as u64)
        };
        record(block, &long);
    }
}

fn set_errno(value: c_int) {
    // SAFETY: the address of the calling thread's errno.
    unsafe { *libc::__errno_location() = value };
}

/// `malloc(3)`, recorded.
///
/// # Safety
/// As in C.
#[unsafe(export_name = "malloc")]
pub(crate) unsafe extern "C" fn hook_malloc(size: usize) -> *mut c_void {
    let Some(real) = real::malloc() else { return real::early(size) };
    // SAFETY: the caller's promise is the real function's.
    let result = unsafe { real(size) };
    note(RawOp::Malloc, result, size);
    result
}

/// `calloc(3)`, recorded.
///
/// # Safety
/// As in C.
#[unsafe(export_name = "calloc")]
unsafe extern "C" fn hook_calloc(count: usize, size: usize) -> *mut c_void {
    let Some(real) = real::calloc() else { return real::early(count.saturating_mul(size)) };
    // SAFETY: the caller's promise is the real function's.
    let result = unsafe { real(count, size) };
    note_long(RawOp::Calloc, result, size, count);
    result
}

/// `realloc(3)`, recorded.
///
/// # Safety
/// As in C.
#[unsafe(export_name = "realloc")]
unsafe extern "C" fn hook_realloc(old: *mut c_void, size: usize) -> *mut c_void {
    if let Some(old_size) = real::early_size(old) {
        // SAFETY: as `malloc`; both blocks hold the bytes copied, and do not overlap.
        unsafe {
            let new = hook_malloc(size);
            if !new.is_null() {
                new.cast::<u8>().copy_from_nonoverlapping(old.cast(), old_size.min(size));
            }
            return new;
        }
    }
    let Some(real) = real::realloc() else { return real::early(size) };
    let Some(block) = recording() else {
        // SAFETY: the caller's promise is the real function's.
        return unsafe { real(old, size) };
    };
    let before = stamp(block);
    // SAFETY: the caller's promise is the real function's.
    let result = unsafe { real(old, size) };
    let (addr, size) = (result.addr() as u64, size as u64);
    let long = |extra: u64| RawRecord {
        before,
        extra,
        ..RawRecord::short(RawOp::Realloc, stamp(block), addr, size)
    };
    match (wanted(block, old), wanted(block, result)) {
        (true, true) => record(block, &long(old.addr() as u64)),
        // Under sampling a move may leave or enter the sample: a release, or a birth.
        (true, false) if !old.is_null() => {
            record(block, &RawRecord::short(RawOp::Free, before, old.addr() as u64, 0));
        }
        (false, true) if !result.is_null() => record(block, &long(0)),
        _ => {}
    }
    result
}

/// `reallocarray(3)`, recorded as the realloc it is.
///
/// # Safety
/// As in C.
#[unsafe(export_name = "reallocarray")]
unsafe extern "C" fn hook_reallocarray(old: *mut c_void, count: usize, size: usize) -> *mut c_void {
    let Some(bytes) = count.checked_mul(size) else {
        set_errno(libc::ENOMEM);
        return null_mut();
    };
    // SAFETY: the caller's promise.
    unsafe { hook_realloc(old, bytes) }
}

#[inline(always)]
pub(crate) unsafe fn release(pointer: *mut c_void, op: RawOp, stated_size: usize) {
    if real::early_size(pointer).is_some() {
        return;
    }
    note(op, pointer, stated_size);
    if let Some(real) = real::free() {
        // SAFETY: the caller's promise is the real function's.
        unsafe { real(pointer) };
    }
}

/// `free(3)`, recorded.
///
/// # Safety
/// As in C.
#[unsafe(export_name = "free")]
pub(crate) unsafe extern "C" fn hook_free(pointer: *mut c_void) {
    // SAFETY: the caller's promise.
    unsafe { release(pointer, RawOp::Free, 0) };
}

/// `cfree(3)`, recorded as free.
///
/// # Safety
/// As in C.
#[unsafe(export_name = "cfree")]
unsafe extern "C" fn hook_cfree(pointer: *mut c_void) {
    // SAFETY: the caller's promise.
    unsafe { release(pointer, RawOp::Free, 0) };
}

/// `free_sized` of C23, recorded with its size.
///
/// # Safety
/// As in C.
#[unsafe(export_name = "free_sized")]
unsafe extern "C" fn hook_free_sized(pointer: *mut c_void, size: usize) {
    // SAFETY: the caller's promise; free releases whatever free_sized does.
    unsafe { release(pointer, RawOp::FreeSized, size) };
}

/// `free_aligned_sized` of C23, recorded with its size.
///
/// # Safety
/// As in C.
#[unsafe(export_name = "free_aligned_sized")]
unsafe extern "C" fn hook_free_aligned_sized(pointer: *mut c_void, _: usize, size: usize) {
    // SAFETY: the caller's promise; free releases whatever free_aligned_sized does.
    unsafe { release(pointer, RawOp::FreeSized, size) };
}

macro_rules! aligned {
    ($(#[$doc:meta] $name:literal $hook:ident = $real:ident, $op:ident;)*) => {$(
        #[$doc]
        ///
        /// # Safety
        /// As in C.
        #[unsafe(export_name = $name)]
        pub(crate) unsafe extern "C" fn $hook(align: usize, size: usize) -> *mut c_void {
            let Some(real) = real::$real() else {
                set_errno(libc::ENOMEM);
                return null_mut();
            };
            // SAFETY: the caller's promise is the real function's.
            let result = unsafe { real(align, size) };
            note_long(RawOp::$op, result, size, align);
            result
        }
    )*};
}

aligned! {
    /// `memalign(3)`, recorded.
    "memalign" hook_memalign = memalign, Memalign;
    /// `aligned_alloc(3)`, recorded.
    "aligned_alloc" hook_aligned_alloc = aligned_alloc, AlignedAlloc;
}

/// `posix_memalign(3)`, recorded.
///
/// # Safety
/// As in C.
#[unsafe(export_name = "posix_memalign")]
unsafe extern "C" fn hook_posix_memalign(
    out: *mut *mut c_void,
    align: usize,
    size: usize,
) -> c_int {
    let Some(real) = real::posix_memalign() else { return libc::ENOMEM };
    // SAFETY: the caller's promise is the real function's.
    let code = unsafe { real(out, align, size) };
    // SAFETY: after success `out` holds the result.
    let result = if code == 0 { unsafe { *out } } else { null_mut() };
    note_long(RawOp::PosixMemalign, result, size, align);
    code
}

macro_rules! page_aligned {
    ($(#[$doc:meta] $name:literal $hook:ident = $real:ident, $op:ident;)*) => {$(
        #[$doc]
        ///
        /// # Safety
        /// As in C.
        #[unsafe(export_name = $name)]
        unsafe extern "C" fn $hook(size: usize) -> *mut c_void {
            let Some(real) = real::$real() else {
                set_errno(libc::ENOMEM);
                return null_mut();
            };
            // SAFETY: the caller's promise is the real function's.
            let result = unsafe { real(size) };
            note_long(RawOp::$op, result, size, 4096);
            result
        }
    )*};
}

page_aligned! {
    /// `valloc(3)`, recorded.
    "valloc" hook_valloc = valloc, Valloc;
    /// `pvalloc(3)`, recorded.
    "pvalloc" hook_pvalloc = pvalloc, Pvalloc;
}

/// `malloc_usable_size(3)`, recorded.
///
/// # Safety
/// As in C.
#[unsafe(export_name = "malloc_usable_size")]
unsafe extern "C" fn hook_malloc_usable_size(pointer: *mut c_void) -> usize {
    if let Some(size) = real::early_size(pointer) {
        return size;
    }
    let Some(real) = real::usable_size() else { return 0 };
    // SAFETY: the caller's promise is the real function's.
    let size = unsafe { real(pointer) };
    note(RawOp::UsableSize, pointer, 0);
    size
}
