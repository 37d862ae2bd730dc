//! C++ `operator new` and `operator delete`.
//!
//! libstdc++'s operators call `malloc` and `free`, which are recorded: calls are only passed on to
//! them. An allocator that brings operators of its own serves them without `malloc`, so here they
//! are recorded. Which of the two it is, the first call finds out: where `malloc` and
//! `operator new` come from one file, it is such an allocator.
//!
//! Its operators may call one another and its exported `malloc`, each by name and so through this
//! library again. So memory is taken from and given to its C functions, which share the heap; its
//! operator is jumped to only when memory is out, to call the new-handler and throw as if the
//! program had called it. Nothing is ever thrown through a function of this library.

use core::ffi::{CStr, c_void};
use core::mem::{MaybeUninit, transmute};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use trace_format::v1::raw::RawOp;

use crate::hooks::{hook_malloc, hook_memalign, note, note_long, release};
use crate::real;

type Any = *mut c_void;
/// `std::nothrow_t const &`: an object without contents, so any address will do.
type NoThrow = *const c_void;

/// The operators, by their place in [`TABLE`].
const NAMES: [&CStr; 20] = [
    c"_Znwm",
    c"_Znam",
    c"_ZnwmSt11align_val_t",
    c"_ZnamSt11align_val_t",
    c"_ZnwmRKSt9nothrow_t",
    c"_ZnamRKSt9nothrow_t",
    c"_ZnwmSt11align_val_tRKSt9nothrow_t",
    c"_ZnamSt11align_val_tRKSt9nothrow_t",
    c"_ZdlPv",
    c"_ZdaPv",
    c"_ZdlPvm",
    c"_ZdaPvm",
    c"_ZdlPvSt11align_val_t",
    c"_ZdaPvSt11align_val_t",
    c"_ZdlPvmSt11align_val_t",
    c"_ZdaPvmSt11align_val_t",
    c"_ZdlPvRKSt9nothrow_t",
    c"_ZdaPvRKSt9nothrow_t",
    c"_ZdlPvSt11align_val_tRKSt9nothrow_t",
    c"_ZdaPvSt11align_val_tRKSt9nothrow_t",
];
/// The operators behind this library, null where there is none.
static TABLE: [AtomicPtr<c_void>; NAMES.len()] =
    [const { AtomicPtr::new(null_mut()) }; NAMES.len()];

const NOT_YET: u32 = 0;
const PASSED_ON: u32 = 1;
const RECORDED: u32 = 2;
static STATE: AtomicU32 = AtomicU32::new(NOT_YET);

/// Whether calls are recorded here; finds the operators at the first call. Two threads may both do
/// so, and find the same.
#[inline(always)]
fn are_recorded() -> bool {
    match STATE.load(Ordering::Acquire) {
        NOT_YET => find_all(),
        state => state == RECORDED,
    }
}

#[cold]
#[inline(never)]
fn find_all() -> bool {
    for (place, name) in TABLE.iter().zip(NAMES) {
        place.store(real::next(name), Ordering::Relaxed);
    }
    let malloc = real::malloc().map(|function| function as *const c_void);
    let own = malloc.and_then(file_of).is_some_and(|file| file_of(operator(0)) == Some(file));
    STATE.store(if own { RECORDED } else { PASSED_ON }, Ordering::Release);
    own
}

/// Where the file that holds this function is mapped.
fn file_of(function: *const c_void) -> Option<usize> {
    let mut found = MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: any address may be asked for; the structure is written.
    if function.is_null() || unsafe { libc::dladdr(function, found.as_mut_ptr()) } == 0 {
        return None;
    }
    // SAFETY: written by dladdr, and zero bytes are valid too.
    Some(unsafe { found.assume_init() }.dli_fbase.addr())
}

#[inline(always)]
fn operator(index: usize) -> *mut c_void {
    TABLE.get(index).map_or(null_mut(), |place| place.load(Ordering::Relaxed))
}

/// Memory, or where to jump to for it. Returned in two registers.
#[repr(C)]
struct Served {
    memory: Any,
    next: *mut c_void,
}

/// Without any `operator new` behind this library (a plugin brought its C++ with it).
#[cold]
#[inline(never)]
fn by_malloc(size: usize, align: usize) -> Any {
    // SAFETY: both take any size, and the caller's alignment is C++'s.
    unsafe { if align == 0 { hook_malloc(size.max(1)) } else { hook_memalign(align, size.max(1)) } }
}

/// [`by_malloc`] for the forms that never return null.
#[cold]
#[inline(never)]
fn surely_by_malloc(size: usize, align: usize) -> Served {
    let memory = by_malloc(size, align);
    if memory.is_null() {
        // SAFETY: nothing can be thrown from here, and the caller expects memory.
        unsafe { libc::abort() }
    }
    Served { memory, next: null_mut() }
}

/// Memory from the allocator's own `malloc`, or `memalign` where `align` is not 0; recorded.
#[inline(always)]
fn take(size: usize, align: usize) -> Any {
    // SAFETY: both take any size, and the caller's alignment is C++'s.
    unsafe {
        if align == 0 {
            let memory = real::malloc().map_or(null_mut(), |malloc| malloc(size.max(1)));
            if !memory.is_null() {
                note(RawOp::Malloc, memory, size);
            }
            memory
        } else {
            let memory =
                real::memalign().map_or(null_mut(), |memalign| memalign(align, size.max(1)));
            if !memory.is_null() {
                note_long(RawOp::CxxNew, memory, size, align);
            }
            memory
        }
    }
}

#[inline(always)]
fn serve(index: usize, size: usize, align: usize) -> Served {
    let recorded = are_recorded();
    let next = operator(index);
    if next.is_null() {
        return surely_by_malloc(size, align);
    }
    let memory = if recorded { take(size, align) } else { null_mut() };
    Served { memory, next }
}

unsafe extern "C" fn serve_new(size: usize) -> Served {
    serve(0, size, 0)
}

unsafe extern "C" fn serve_new_array(size: usize) -> Served {
    serve(1, size, 0)
}

unsafe extern "C" fn serve_new_aligned(size: usize, align: usize) -> Served {
    serve(2, size, align)
}

unsafe extern "C" fn serve_new_array_aligned(size: usize, align: usize) -> Served {
    serve(3, size, align)
}

macro_rules! throwing {
    ($($name:literal $hook:ident = $serve:ident;)*) => {$(
        /// `operator new`: calls the function that serves it, and jumps on where that got nothing.
        #[cfg(target_arch = "x86_64")]
        #[unsafe(naked)]
        #[unsafe(export_name = $name)]
        unsafe extern "C" fn $hook(size: usize, align: usize) -> Any {
            core::arch::naked_asm!(
                "push rdi",
                "push rsi",
                "sub rsp, 8",
                "call {serve}",
                "add rsp, 8",
                "pop rsi",
                "pop rdi",
                "test rax, rax",
                "je 2f",
                "ret",
                "2:",
                "jmp rdx",
                serve = sym $serve,
            )
        }

        /// `operator new`: calls the function that serves it, and jumps on where that got nothing.
        #[cfg(target_arch = "aarch64")]
        #[unsafe(naked)]
        #[unsafe(export_name = $name)]
        unsafe extern "C" fn $hook(size: usize, align: usize) -> Any {
            core::arch::naked_asm!(
                "stp x29, x30, [sp, #-32]!",
                "stp x0, x1, [sp, #16]",
                "bl {serve}",
                "cbz x0, 2f",
                "ldp x29, x30, [sp], #32",
                "ret",
                "2:",
                "mov x16, x1",
                "ldp x0, x1, [sp, #16]",
                "ldp x29, x30, [sp], #32",
                "br x16",
                serve = sym $serve,
            )
        }
    )*};
}

throwing! {
    "_Znwm" hook_new = serve_new;
    "_Znam" hook_new_array = serve_new_array;
    "_ZnwmSt11align_val_t" hook_new_aligned = serve_new_aligned;
    "_ZnamSt11align_val_t" hook_new_array_aligned = serve_new_array_aligned;
}

/// The type of an argument.
macro_rules! aligned {
    ($argument:ident) => {
        usize
    };
}

macro_rules! nothrow {
    ($($name:literal $hook:ident = $index:literal ($($align:ident)?);)*) => {$(
        /// `operator new` that returns null where memory is out.
        ///
        /// # Safety
        /// As in C++.
        #[unsafe(export_name = $name)]
        unsafe extern "C" fn $hook(size: usize, $($align: usize,)? nothrow: NoThrow) -> Any {
            type New = unsafe extern "C" fn(usize, $(aligned!($align),)? NoThrow) -> Any;
            let align = 0 $(+ $align)?;
            let recorded = are_recorded();
            let next = operator($index);
            let memory = match recorded {
                _ if next.is_null() => return by_malloc(size, align),
                true => take(size, align),
                false => null_mut(),
            };
            if !memory.is_null() {
                return memory;
            }
            // SAFETY: the operator of this C++ name; the caller's promise.
            unsafe { transmute::<Any, New>(next)(size, $($align,)? nothrow) }
        }
    )*};
}

nothrow! {
    "_ZnwmRKSt9nothrow_t" hook_new_nothrow = 4 ();
    "_ZnamRKSt9nothrow_t" hook_new_array_nothrow = 5 ();
    "_ZnwmSt11align_val_tRKSt9nothrow_t" hook_new_aligned_nothrow = 6 (align);
    "_ZnamSt11align_val_tRKSt9nothrow_t" hook_new_array_aligned_nothrow = 7 (align);
}

/// Releases and records, or passes the call on with all its arguments, whichever they are.
#[inline(always)]
unsafe fn delete(index: usize, pointer: Any, stated: Option<usize>, second: usize, third: usize) {
    let recorded = are_recorded();
    let next = operator(index);
    if recorded || next.is_null() {
        let op = if stated.is_some() { RawOp::FreeSized } else { RawOp::Free };
        // SAFETY: the caller's promise; its memory came from `take` or `by_malloc`, or from a
        // C function of the allocator.
        return unsafe { release(pointer, op, stated.unwrap_or(0)) };
    }
    // SAFETY: the operator of this C++ name; arguments it does not take stay in their registers.
    unsafe {
        transmute::<Any, unsafe extern "C" fn(Any, usize, usize)>(next)(pointer, second, third);
    }
}

macro_rules! deletes {
    ($($name:literal $hook:ident = $index:literal, $sized:literal;)*) => {$(
        /// `operator delete`; what `second` and `third` are depends on the form.
        ///
        /// # Safety
        /// As in C++.
        #[unsafe(export_name = $name)]
        unsafe extern "C" fn $hook(pointer: Any, second: usize, third: usize) {
            // SAFETY: the caller's promise.
            unsafe { delete($index, pointer, $sized.then_some(second), second, third) };
        }
    )*};
}

deletes! {
    "_ZdlPv" hook_delete = 8, false;
    "_ZdaPv" hook_delete_array = 9, false;
    "_ZdlPvm" hook_delete_sized = 10, true;
    "_ZdaPvm" hook_delete_array_sized = 11, true;
    "_ZdlPvSt11align_val_t" hook_delete_aligned = 12, false;
    "_ZdaPvSt11align_val_t" hook_delete_array_aligned = 13, false;
    "_ZdlPvmSt11align_val_t" hook_delete_sized_aligned = 14, true;
    "_ZdaPvmSt11align_val_t" hook_delete_array_sized_aligned = 15, true;
    "_ZdlPvRKSt9nothrow_t" hook_delete_nothrow = 16, false;
    "_ZdaPvRKSt9nothrow_t" hook_delete_array_nothrow = 17, false;
    "_ZdlPvSt11align_val_tRKSt9nothrow_t" hook_delete_aligned_nothrow = 18, false;
    "_ZdaPvSt11align_val_tRKSt9nothrow_t" hook_delete_array_aligned_nothrow = 19, false;
}
