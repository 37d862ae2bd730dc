//! C++'s `operator new` and `operator delete`, all of them.
//!
//! libstdc++ would call our `malloc` anyway, but through two more calls; whoever allocates for a living notices.
//!
//! # Replacement
//! A program may define any of the forms itself. The standard has the others end in those: sized and `nothrow` deletes
//! in the plain one, arrays in single objects, aligned forms among themselves. So those jump to whoever the loader
//! bound the next one to (see `bound`), and `nothrow` news, which must catch what a replaced form throws, to the
//! runtime where one is replaced.
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

use crate::bound::{are_ours, forwards};
use crate::cxx_throw as runtime;
use allocator::heap;
use core::ffi::c_void;

/// `std::nothrow_t const&`: an address that says which overload is meant, never read.
type Nothrow = *const c_void;

/// Whether every form that `new` and `delete` of single objects end in is this library's.
#[inline]
fn single_forms_are_ours() -> bool {
    are_ours!(_Znwm _ZdlPv)
}

/// As [`single_forms_are_ours`], of arrays.
#[inline]
fn array_forms_are_ours() -> bool {
    are_ours!(_Znam _ZdaPv) && single_forms_are_ours()
}

/// As [`single_forms_are_ours`], of those with an alignment.
#[inline]
fn aligned_forms_are_ours() -> bool {
    are_ours!(_ZnwmSt11align_val_t _ZdlPvSt11align_val_t)
}

/// As [`single_forms_are_ours`], of arrays with an alignment.
#[inline]
fn aligned_array_forms_are_ours() -> bool {
    are_ours!(_ZnamSt11align_val_t _ZdaPvSt11align_val_t) && aligned_forms_are_ours()
}

/// An alignment asked for by `std::align_val_t`; what is no power of two is undefined in C++ and fails here.
#[inline]
fn aligned(size: usize, alignment: usize) -> *mut u8 {
    if !alignment.is_power_of_two() {
        return core::ptr::null_mut();
    }
    heap::allocate_aligned(alignment, size)
}

/// What the runtime is told of a size: rounded up to an alignment, a larger one would come out as 0.
#[inline]
fn told(size: usize) -> usize {
    size.min(isize::MAX as usize)
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

/// `operator new(size_t, align_val_t)`
#[unsafe(no_mangle)]
#[unsafe(link_section = ".text.hot.new_aligned")]
extern "C" fn _ZnwmSt11align_val_t(size: usize, alignment: usize) -> *mut c_void {
    let p = aligned(size, alignment);
    if p.is_null() { runtime::new_aligned(told(size), alignment) } else { p.cast() }
}

forwards! {
    _Znam(size: usize) -> *mut c_void = "`operator new[](size_t)`", _Znwm;
    _ZnamSt11align_val_t(size: usize, alignment: usize) -> *mut c_void
        = "`operator new[](size_t, align_val_t)`", _ZnwmSt11align_val_t;
}

/// Defines the `nothrow` forms of `operator new`.
macro_rules! nothrow_new {
    ($($name:ident, $slow:ident = $signature:literal, $are_ours:ident, $runtime:ident;)*) => {$(
        #[doc = $signature]
        #[unsafe(no_mangle)]
        extern "C" fn $name(size: usize, nothrow: Nothrow) -> *mut c_void {
            if !$are_ours() {
                return runtime::$runtime(size, nothrow);
            }
            let p = heap::allocate_ready(size);
            if p.is_null() { $slow(size, nothrow) } else { p.cast() }
        }

        /// The rest of the form above: apart, so that its frame does not burden the fast path.
        #[inline(never)]
        extern "C" fn $slow(size: usize, nothrow: Nothrow) -> *mut c_void {
            let p = heap::allocate_unready(size);
            if p.is_null() { runtime::$runtime(size, nothrow) } else { p.cast() }
        }
    )*};
}

nothrow_new! {
    _ZnwmRKSt9nothrow_t, slow_new_nothrow
        = "`operator new(size_t, nothrow_t const&)`", single_forms_are_ours, new_nothrow;
    _ZnamRKSt9nothrow_t, slow_new_array_nothrow
        = "`operator new[](size_t, nothrow_t const&)`", array_forms_are_ours, new_array_nothrow;
}

/// Defines the `nothrow` forms of `operator new` with an alignment.
macro_rules! nothrow_new_aligned {
    ($($name:ident = $signature:literal, $are_ours:ident, $runtime:ident;)*) => {$(
        #[doc = $signature]
        #[unsafe(no_mangle)]
        extern "C" fn $name(size: usize, alignment: usize, nothrow: Nothrow) -> *mut c_void {
            if !$are_ours() {
                return runtime::$runtime(size, alignment, nothrow);
            }
            let p = aligned(size, alignment);
            if p.is_null() { runtime::$runtime(told(size), alignment, nothrow) } else { p.cast() }
        }
    )*};
}

nothrow_new_aligned! {
    _ZnwmSt11align_val_tRKSt9nothrow_t = "`operator new(size_t, align_val_t, nothrow_t const&)`",
        aligned_forms_are_ours, new_aligned_nothrow;
    _ZnamSt11align_val_tRKSt9nothrow_t = "`operator new[](size_t, align_val_t, nothrow_t const&)`",
        aligned_array_forms_are_ours, new_array_aligned_nothrow;
}

/// `operator delete(void*)`
///
/// # Safety
/// `p` is null or a live object of this allocator, and nobody uses it afterwards.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".text.hot.delete")]
unsafe extern "C" fn _ZdlPv(p: *mut c_void) {
    // SAFETY: the caller's contract is `deallocate`'s.
    unsafe { heap::deallocate(p.cast()) }
}

/// `operator delete(void*, align_val_t)`. The pointer leads to the span record, which says all there is to know.
///
/// # Safety
/// As `_ZdlPv`.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".text.hot.delete_aligned")]
unsafe extern "C" fn _ZdlPvSt11align_val_t(p: *mut c_void, _alignment: usize) {
    // SAFETY: the caller's contract is `deallocate`'s.
    unsafe { heap::deallocate(p.cast()) }
}

forwards! {
    _ZdaPv(p: *mut c_void) = "`operator delete[](void*)`", _ZdlPv;
    _ZdlPvRKSt9nothrow_t(p: *mut c_void, nothrow: Nothrow)
        = "`operator delete(void*, nothrow_t const&)`", _ZdlPv;
    _ZdaPvRKSt9nothrow_t(p: *mut c_void, nothrow: Nothrow)
        = "`operator delete[](void*, nothrow_t const&)`", _ZdaPv;
    _ZdaPvSt11align_val_t(p: *mut c_void, alignment: usize)
        = "`operator delete[](void*, align_val_t)`", _ZdlPvSt11align_val_t;
    _ZdlPvSt11align_val_tRKSt9nothrow_t(p: *mut c_void, alignment: usize, nothrow: Nothrow)
        = "`operator delete(void*, align_val_t, nothrow_t const&)`", _ZdlPvSt11align_val_t;
    _ZdaPvSt11align_val_tRKSt9nothrow_t(p: *mut c_void, alignment: usize, nothrow: Nothrow)
        = "`operator delete[](void*, align_val_t, nothrow_t const&)`", _ZdaPvSt11align_val_t;
}

/// The sizes are no help, for the pointer alone leads to the span record.
#[cfg(not(feature = "hardened"))]
mod sized {
    use super::{c_void, forwards};

    forwards! {
        _ZdlPvm(p: *mut c_void, size: usize) = "`operator delete(void*, size_t)`", _ZdlPv;
        _ZdaPvm(p: *mut c_void, size: usize) = "`operator delete[](void*, size_t)`", _ZdaPv;
        _ZdlPvmSt11align_val_t(p: *mut c_void, size: usize, alignment: usize)
            = "`operator delete(void*, size_t, align_val_t)`", _ZdlPvSt11align_val_t,
            "mov rsi, rdx" "mov x1, x2";
        _ZdaPvmSt11align_val_t(p: *mut c_void, size: usize, alignment: usize)
            = "`operator delete[](void*, size_t, align_val_t)`", _ZdaPvSt11align_val_t,
            "mov rsi, rdx" "mov x1, x2";
    }
}

/// The sizes are compared with the objects', unless the program has forms of its own and its sizes mean nothing here.
#[cfg(feature = "hardened")]
mod sized {
    use super::{
        aligned_array_forms_are_ours, aligned_forms_are_ours, array_forms_are_ours, c_void, heap,
        single_forms_are_ours,
    };
    use crate::bound::bound;

    /// Defines sized forms of `operator delete`; the form that each is to end in takes the arguments in brackets.
    macro_rules! sized_delete {
        ($($name:ident ( $($alignment:ident)? ) = $signature:literal, $are_ours:ident, $to:ident;)*) => {$(
            #[doc = $signature]
            ///
            /// # Safety
            /// `p` is null or a live object of `size` bytes from the `operator new` of this form, and nobody uses it
            /// afterwards.
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name(p: *mut c_void, size: usize $(, $alignment: usize)?) {
                type Base = unsafe extern "C" fn(*mut c_void $(, replace!($alignment usize))?);
                if $are_ours() {
                    // SAFETY: the caller's contract is `deallocate_known`'s.
                    return unsafe { heap::deallocate_known(p.cast(), 1 $(.max($alignment))?, size) };
                }
                let address = bound!($to);
                // SAFETY: the name stands for a function of this type; the caller's contract is its.
                unsafe { core::mem::transmute::<usize, Base>(address)(p $(, $alignment)?) };
            }
        )*};
    }

    /// A type for each argument.
    macro_rules! replace {
        ($argument:ident $type:ty) => {
            $type
        };
    }

    sized_delete! {
        _ZdlPvm() = "`operator delete(void*, size_t)`", single_forms_are_ours, _ZdlPv;
        _ZdaPvm() = "`operator delete[](void*, size_t)`", array_forms_are_ours, _ZdaPv;
        _ZdlPvmSt11align_val_t(alignment) = "`operator delete(void*, size_t, align_val_t)`",
            aligned_forms_are_ours, _ZdlPvSt11align_val_t;
        _ZdaPvmSt11align_val_t(alignment) = "`operator delete[](void*, size_t, align_val_t)`",
            aligned_array_forms_are_ours, _ZdaPvSt11align_val_t;
    }
}
