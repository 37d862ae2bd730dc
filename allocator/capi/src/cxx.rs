//! C++'s `operator new` and `operator delete`, all of them.
//!
//! libstdc++ would call our `malloc` anyway, but through two more calls; whoever allocates for a living notices.
//!
//! # Failure
//! The standard wants the new-handler called until it gives up, then `std::bad_alloc`, or null from the `nothrow`
//! forms. The C++ runtime knows how: a failing operator here jumps to the runtime's own operator of the same name
//! (`cxx_throw`), which tries once more through `malloc`, calls the handler, throws.
//!
//! # Invariants
//! 1. The jump is the last thing a failing operator does, so no frame of this library lies on the stack when the
//!    exception passes. `tests/linking.rs` reads the machine code to prove it.
//! 2. `new` of 0 bytes is unique and not null; `delete` of null does nothing.

use crate::cxx_throw as runtime;
use allocator::heap;
use core::ffi::c_void;

/// `std::nothrow_t const&`: an address that says which overload is meant, never read.
type Nothrow = *const c_void;

/// An alignment asked for by `std::align_val_t`; what is no power of two is undefined in C++ and fails here.
#[inline]
fn aligned(size: usize, alignment: usize) -> *mut u8 {
    if !alignment.is_power_of_two() {
        return core::ptr::null_mut();
    }
    heap::allocate_aligned(alignment, size)
}

/// `operator new(size_t)`
#[unsafe(no_mangle)]
#[unsafe(link_section = ".text.hot.new")]
extern "C" fn _Znwm(size: usize) -> *mut c_void {
    let p = heap::allocate_ready(size);
    if p.is_null() { slow_new(size) } else { p.cast() }
}

/// The rest of `_Znwm`: apart, so that its frame does not burden the fast path.
#[inline(never)]
extern "C" fn slow_new(size: usize) -> *mut c_void {
    let p = heap::allocate_unready(size);
    if p.is_null() { runtime::new(size) } else { p.cast() }
}

/// `operator new[](size_t)`
#[unsafe(no_mangle)]
#[unsafe(link_section = ".text.hot.new_array")]
extern "C" fn _Znam(size: usize) -> *mut c_void {
    let p = heap::allocate_ready(size);
    if p.is_null() { slow_new_array(size) } else { p.cast() }
}

/// The rest of `_Znam`: apart, so that its frame does not burden the fast path.
#[inline(never)]
extern "C" fn slow_new_array(size: usize) -> *mut c_void {
    let p = heap::allocate_unready(size);
    if p.is_null() { runtime::new_array(size) } else { p.cast() }
}

/// `operator new(size_t, nothrow_t const&)`
#[unsafe(no_mangle)]
extern "C" fn _ZnwmRKSt9nothrow_t(size: usize, nothrow: Nothrow) -> *mut c_void {
    let p = heap::allocate_ready(size);
    if p.is_null() { slow_new_nothrow(size, nothrow) } else { p.cast() }
}

/// The rest of `_ZnwmRKSt9nothrow_t`: apart, so that its frame does not burden the fast path.
#[inline(never)]
extern "C" fn slow_new_nothrow(size: usize, nothrow: Nothrow) -> *mut c_void {
    let p = heap::allocate_unready(size);
    if p.is_null() { runtime::new_nothrow(size, nothrow) } else { p.cast() }
}

/// `operator new[](size_t, nothrow_t const&)`
#[unsafe(no_mangle)]
extern "C" fn _ZnamRKSt9nothrow_t(size: usize, nothrow: Nothrow) -> *mut c_void {
    let p = heap::allocate_ready(size);
    if p.is_null() { slow_new_array_nothrow(size, nothrow) } else { p.cast() }
}

/// The rest of `_ZnamRKSt9nothrow_t`: apart, so that its frame does not burden the fast path.
#[inline(never)]
extern "C" fn slow_new_array_nothrow(size: usize, nothrow: Nothrow) -> *mut c_void {
    let p = heap::allocate_unready(size);
    if p.is_null() { runtime::new_array_nothrow(size, nothrow) } else { p.cast() }
}

/// `operator new(size_t, align_val_t)`
#[unsafe(no_mangle)]
extern "C" fn _ZnwmSt11align_val_t(size: usize, alignment: usize) -> *mut c_void {
    let p = aligned(size, alignment);
    if p.is_null() { runtime::new_aligned(size, alignment) } else { p.cast() }
}

/// `operator new[](size_t, align_val_t)`
#[unsafe(no_mangle)]
extern "C" fn _ZnamSt11align_val_t(size: usize, alignment: usize) -> *mut c_void {
    let p = aligned(size, alignment);
    if p.is_null() { runtime::new_array_aligned(size, alignment) } else { p.cast() }
}

/// `operator new(size_t, align_val_t, nothrow_t const&)`
#[unsafe(no_mangle)]
extern "C" fn _ZnwmSt11align_val_tRKSt9nothrow_t(
    size: usize,
    alignment: usize,
    nothrow: Nothrow,
) -> *mut c_void {
    let p = aligned(size, alignment);
    if p.is_null() { runtime::new_aligned_nothrow(size, alignment, nothrow) } else { p.cast() }
}

/// `operator new[](size_t, align_val_t, nothrow_t const&)`
#[unsafe(no_mangle)]
extern "C" fn _ZnamSt11align_val_tRKSt9nothrow_t(
    size: usize,
    alignment: usize,
    nothrow: Nothrow,
) -> *mut c_void {
    let p = aligned(size, alignment);
    if p.is_null() {
        runtime::new_array_aligned_nothrow(size, alignment, nothrow)
    } else {
        p.cast()
    }
}

/// Defines `operator delete` forms that need the pointer only: it leads to the span record, which an aligned free
/// would read all the same.
macro_rules! delete {
    ($($name:ident ( $($ignored:ident: $type:ty),* ) = $signature:literal;)*) => {$(
        #[doc = $signature]
        ///
        /// # Safety
        /// `p` is null or a live object of this allocator, and nobody uses it afterwards.
        #[unsafe(no_mangle)]
        #[unsafe(link_section = ".text.hot.free")]
        unsafe extern "C" fn $name(p: *mut c_void, $($ignored: $type),*) {
            // SAFETY: the caller's contract is `deallocate`'s.
            unsafe { heap::deallocate(p.cast()) }
        }
    )*};
}

delete! {
    _ZdlPv() = "`operator delete(void*)`";
    _ZdaPv() = "`operator delete[](void*)`";
    _ZdlPvRKSt9nothrow_t(_nothrow: Nothrow) = "`operator delete(void*, nothrow_t const&)`";
    _ZdaPvRKSt9nothrow_t(_nothrow: Nothrow) = "`operator delete[](void*, nothrow_t const&)`";
    _ZdlPvSt11align_val_t(_alignment: usize) = "`operator delete(void*, align_val_t)`";
    _ZdaPvSt11align_val_t(_alignment: usize) = "`operator delete[](void*, align_val_t)`";
    _ZdlPvSt11align_val_tRKSt9nothrow_t(_alignment: usize, _nothrow: Nothrow)
        = "`operator delete(void*, align_val_t, nothrow_t const&)`";
    _ZdaPvSt11align_val_tRKSt9nothrow_t(_alignment: usize, _nothrow: Nothrow)
        = "`operator delete[](void*, align_val_t, nothrow_t const&)`";
}

/// Defines `operator delete` forms whose size hardened builds compare with the object's.
macro_rules! sized_delete {
    ($($name:ident ( $($ignored:ident: $type:ty),* ) = $signature:literal;)*) => {$(
        #[doc = $signature]
        ///
        /// # Safety
        /// `p` is null or a live object of this allocator of `size` bytes, and nobody uses it afterwards.
        #[unsafe(no_mangle)]
        #[unsafe(link_section = ".text.hot.free")]
        unsafe extern "C" fn $name(p: *mut c_void, size: usize, $($ignored: $type),*) {
            // SAFETY: the caller's contract is `deallocate_known`'s.
            unsafe { heap::deallocate_known(p.cast(), size) }
        }
    )*};
}

sized_delete! {
    _ZdlPvm() = "`operator delete(void*, size_t)`";
    _ZdaPvm() = "`operator delete[](void*, size_t)`";
    _ZdlPvmSt11align_val_t(_alignment: usize) = "`operator delete(void*, size_t, align_val_t)`";
    _ZdaPvmSt11align_val_t(_alignment: usize) = "`operator delete[](void*, size_t, align_val_t)`";
}
