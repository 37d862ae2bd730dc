//! The jump from an `operator new` that fails, or is not to catch by itself what another throws, to the C++ runtime's
//! own, which may throw and catch.
//!
//! An exception must not pass through a Rust frame: under `panic=abort` such a frame does not exist (`C-unwind`) or
//! is undefined behaviour (`C`). So the last step is a naked function: it saves the arguments, asks [`next`] for an
//! address, restores them, and jumps. The runtime's operator then returns, or throws, straight to the program.
//!
//! Cost: paid by failing allocations, and by `nothrow` forms in programs that define an `operator new` of their own.

use crate::bound::{are_ours, bound};
use core::ffi::{CStr, c_char, c_int, c_void};
use core::ptr;

/// Defines one naked function per operator, and the row of [`FORMS`] that it asks for.
macro_rules! forms {
    ($($row:literal $name:ident ( $($argument:ident: $type:ty),* ) = $symbol:literal, $throws:literal;)*) => {
        /// Mangled names, in the order of the rows below, and whether the form throws.
        static FORMS: &[(&CStr, bool)] = &[$(($symbol, $throws)),*];
        $(
            #[doc = concat!("Continues in the next `", stringify!($symbol), "` after this library.")]
            #[unsafe(naked)]
            pub(crate) extern "C" fn $name($($argument: $type),*) -> *mut c_void {
                // Three arguments at most. Three pushes also align the stack for the call.
                #[cfg(target_arch = "x86_64")]
                core::arch::naked_asm!(
                    ".cfi_startproc",
                    "push rdi", ".cfi_adjust_cfa_offset 8",
                    "push rsi", ".cfi_adjust_cfa_offset 8",
                    "push rdx", ".cfi_adjust_cfa_offset 8",
                    "mov edi, {row}",
                    "call {next}",
                    "pop rdx", ".cfi_adjust_cfa_offset -8",
                    "pop rsi", ".cfi_adjust_cfa_offset -8",
                    "pop rdi", ".cfi_adjust_cfa_offset -8",
                    "jmp rax",
                    ".cfi_endproc",
                    row = const $row,
                    next = sym next,
                );
                #[cfg(target_arch = "aarch64")]
                core::arch::naked_asm!(
                    ".cfi_startproc",
                    "stp x29, x30, [sp, #-48]!", ".cfi_adjust_cfa_offset 48",
                    ".cfi_rel_offset x30, 8",
                    "stp x0, x1, [sp, #16]",
                    "str x2, [sp, #32]",
                    "mov w0, #{row}",
                    "bl {next}",
                    "mov x16, x0",
                    "ldp x0, x1, [sp, #16]",
                    "ldr x2, [sp, #32]",
                    "ldp x29, x30, [sp], #48", ".cfi_adjust_cfa_offset -48",
                    ".cfi_restore x30",
                    "br x16",
                    ".cfi_endproc",
                    row = const $row,
                    next = sym next,
                );
            }
        )*
        // The literal rows are the positions in FORMS.
        #[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
        const _: () = {
            let rows = [$($row),*];
            let mut at = 0;
            while at < rows.len() {
                assert!(rows[at] == at, "rows count from 0 without a gap");
                at += 1;
            }
        };
    };
}

forms! {
    0 new(size: usize) = c"_Znwm", true;
    1 new_nothrow(size: usize, nothrow: *const c_void) = c"_ZnwmRKSt9nothrow_t", false;
    2 new_array_nothrow(size: usize, nothrow: *const c_void) = c"_ZnamRKSt9nothrow_t", false;
    3 new_aligned(size: usize, alignment: usize) = c"_ZnwmSt11align_val_t", true;
    4 new_aligned_nothrow(size: usize, alignment: usize, nothrow: *const c_void)
        = c"_ZnwmSt11align_val_tRKSt9nothrow_t", false;
    5 new_array_aligned_nothrow(size: usize, alignment: usize, nothrow: *const c_void)
        = c"_ZnamSt11align_val_tRKSt9nothrow_t", false;
}

/// Where C++ runtimes live when the program loaded them privately (a plugin in a C program).
static RUNTIMES: [&CStr; 2] = [c"libstdc++.so.6", c"libc++.so.1"];

/// The address at which form `row` goes on; for throwing forms without a runtime, one that ends the process.
extern "C" fn next(row: usize) -> *const c_void {
    let Some(&(symbol, throws)) = FORMS.get(row) else {
        return end as *const c_void;
    };
    let found = after_us(symbol);
    if !found.is_null() {
        return found;
    }
    if throws { end as *const c_void } else { programs(row).unwrap_or(give_null as *const c_void) }
}

/// For a `nothrow` form whose plain form is the program's, where no runtime is there to catch what that one throws: the
/// plain form, which ignores the last argument.
fn programs(row: usize) -> Option<*const c_void> {
    let (plain, ours) = match row {
        1 => (bound!(_Znwm), are_ours!(_Znwm)),
        2 => (bound!(_Znam), are_ours!(_Znam _Znwm)),
        4 => (bound!(_ZnwmSt11align_val_t), are_ours!(_ZnwmSt11align_val_t)),
        _ => (bound!(_ZnamSt11align_val_t), are_ours!(_ZnamSt11align_val_t _ZnwmSt11align_val_t)),
    };
    (!ours).then(|| ptr::without_provenance(plain))
}

/// Looks `symbol` up behind this library, then in a runtime that is loaded but not visible to everyone.
fn after_us(symbol: &CStr) -> *const c_void {
    // SAFETY: RTLD_NEXT and a terminated name; `dlsym` only searches.
    let found = unsafe { libc::dlsym(libc::RTLD_NEXT, symbol.as_ptr()) };
    if !found.is_null() {
        return found;
    }
    for runtime in &RUNTIMES {
        if let Some(found) = in_loaded(runtime.as_ptr(), symbol.as_ptr()) {
            return found;
        }
    }
    ptr::null()
}

/// `symbol` in `library`, when that is loaded already; the reference taken stays, so the code stays mapped.
fn in_loaded(library: *const c_char, symbol: *const c_char) -> Option<*const c_void> {
    const QUIET: c_int = libc::RTLD_LAZY | libc::RTLD_NOLOAD;
    // SAFETY: a terminated name; RTLD_NOLOAD runs no code of the library.
    let handle = unsafe { libc::dlopen(library, QUIET) };
    if handle.is_null() {
        return None;
    }
    // SAFETY: `handle` is open (tested), the name is terminated.
    let found = unsafe { libc::dlsym(handle, symbol) };
    if found.is_null() { None } else { Some(found) }
}

/// What a `nothrow` form does when no C++ runtime can run a new-handler.
extern "C" fn give_null() -> *mut c_void {
    crate::errno::no_memory()
}

/// What a throwing form does when nobody can throw: says so and ends the process.
extern "C" fn end() -> ! {
    const LINE: &[u8] = b"allocator: operator new: no memory, and no C++ runtime is loaded to throw std::bad_alloc\n";
    // SAFETY: writes a constant to descriptor 2, then ends the process.
    unsafe {
        libc::syscall(libc::SYS_write, 2, LINE.as_ptr(), LINE.len());
        libc::abort()
    }
}
