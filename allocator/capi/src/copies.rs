//! `memcpy`, `memmove` and `memset` of the hardened library that is preloaded: they write nothing past the
//! end of an object, in front of one, or into a freed one.
//!
//! glibc does the work, under the names that its `_FORTIFY_SOURCE` uses: these are found whoever owns the
//! plain ones. Calls that a compiler expands in place, and glibc's own, do not come here.
//!
//! # Cost
//! A function's call, and what [`heap::may_write`] looks at.
//!
//! # Invariants
//! 1. This library's own calls end here, too, and write to blocks that are no objects: where a function
//!    returns to tells who asks.
//! 2. The size given to glibc is not `SIZE_MAX`: LLVM would know the call for one of the plain names.

use allocator::heap;
use core::ffi::{c_int, c_void};

unsafe extern "C" {
    fn __memcpy_chk(to: *mut c_void, from: *const c_void, len: usize, room: usize) -> *mut c_void;
    fn __memmove_chk(to: *mut c_void, from: *const c_void, len: usize, room: usize) -> *mut c_void;
    fn __memset_chk(to: *mut c_void, byte: c_int, len: usize, room: usize) -> *mut c_void;
    /// The linker's: where this library begins, and where its code ends.
    static __ehdr_start: u8;
    static etext: u8;
}

/// No object is larger.
const ROOM: usize = isize::MAX as usize;

/// Defines a function of C's that hands its three arguments, and where it returns to, to another.
macro_rules! tells_its_caller {
    ($name:ident, $second:ty, $checked:ident) => {
        /// # Safety
        /// As C's.
        #[unsafe(no_mangle)]
        #[unsafe(naked)]
        unsafe extern "C" fn $name(to: *mut c_void, second: $second, len: usize) -> *mut c_void {
            #[cfg(target_arch = "x86_64")]
            core::arch::naked_asm!("mov rcx, [rsp]", "jmp {next}", next = sym $checked);
            #[cfg(target_arch = "aarch64")]
            core::arch::naked_asm!("mov x3, x30", "b {next}", next = sym $checked);
        }
    };
}

tells_its_caller!(memcpy, *const c_void, copy);
tells_its_caller!(memmove, *const c_void, shift);
tells_its_caller!(memset, c_int, set);

/// Whether whoever goes on at `caller` may write there; if not, the fault was told.
#[inline(always)]
fn may_write(to: *mut c_void, len: usize, caller: usize) -> bool {
    let ours = (&raw const __ehdr_start).addr()..(&raw const etext).addr();
    ours.contains(&caller) || heap::may_write(to.addr(), len)
}

/// # Safety
/// As `memcpy`, which returns to `caller`.
unsafe extern "C" fn copy(
    to: *mut c_void,
    from: *const c_void,
    len: usize,
    caller: usize,
) -> *mut c_void {
    if !may_write(to, len, caller) {
        return to;
    }
    // SAFETY: the caller's contract.
    unsafe { __memcpy_chk(to, from, len, ROOM) }
}

/// # Safety
/// As `memmove`, which returns to `caller`.
unsafe extern "C" fn shift(
    to: *mut c_void,
    from: *const c_void,
    len: usize,
    caller: usize,
) -> *mut c_void {
    if !may_write(to, len, caller) {
        return to;
    }
    // SAFETY: the caller's contract.
    unsafe { __memmove_chk(to, from, len, ROOM) }
}

/// # Safety
/// As `memset`, which returns to `caller`.
unsafe extern "C" fn set(to: *mut c_void, byte: c_int, len: usize, caller: usize) -> *mut c_void {
    if !may_write(to, len, caller) {
        return to;
    }
    // SAFETY: the caller's contract.
    unsafe { __memset_chk(to, byte, len, ROOM) }
}
