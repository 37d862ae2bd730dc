//! Classic mode as a library to preload: `malloc` and its family over `allocator::classic`.
//!
//! ```text
//! cargo build --release -p allocator --example classic_preload
//! LD_PRELOAD=target/release/examples/libclassic_preload.so \
//!     ALLOCATOR_OPTIONS=placement=first-fit,lock=arena ls
//! ```
//! Options are those of `classic::Settings`; what is not understood is passed over. The misuse
//! programs in `tests/misuse` are judged by this library.
#![expect(unsafe_code, reason = "the C face of an allocator")]
#![expect(clippy::missing_safety_doc, reason = "the C standard states what each function asks")]
#![expect(missing_docs, reason = "the C standard documents each function")]

use core::ffi::{CStr, c_int, c_void};
use core::ptr::null_mut;

use allocator::classic::{self, Settings};

#[cold]
fn make() {
    let mut settings = Settings::DEFAULT;
    // SAFETY: the program's environment, read before the program can change it.
    let options = unsafe { libc::getenv(c"ALLOCATOR_OPTIONS".as_ptr()) };
    if !options.is_null() {
        // SAFETY: a C string, as `getenv` returns it.
        let options = unsafe { CStr::from_ptr(options) };
        for setting in options.to_bytes().split(|&byte| byte == b',') {
            settings.set(setting);
        }
    }
    // SAFETY: an empty set of processors is all zeros.
    let mut set: libc::cpu_set_t = unsafe { core::mem::zeroed() };
    // SAFETY: writes the set; on failure it stays empty.
    unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) };
    // SAFETY: reads the set.
    let processors = unsafe { libc::CPU_COUNT(&set) }.max(1) as usize;
    let _ = classic::configure(&settings, processors);
}

#[inline(always)]
fn ready() {
    if !classic::is_configured() {
        make();
    }
}

fn set_errno(value: c_int) {
    // SAFETY: this thread's errno.
    unsafe { *libc::__errno_location() = value };
}

fn or_enomem(object: *mut u8) -> *mut c_void {
    if object.is_null() {
        set_errno(libc::ENOMEM);
    }
    object.cast()
}

#[unsafe(no_mangle)]
pub extern "C" fn malloc(size: usize) -> *mut c_void {
    ready();
    or_enomem(classic::allocate(size))
}

#[unsafe(no_mangle)]
pub extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    ready();
    or_enomem(count.checked_mul(size).map_or(null_mut(), classic::allocate_zeroed))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn free(object: *mut c_void) {
    // SAFETY: the program gives the object up.
    unsafe { classic::deallocate(object.cast()) };
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn realloc(object: *mut c_void, size: usize) -> *mut c_void {
    ready();
    // SAFETY: the program gives the old address up unless the result is null.
    or_enomem(unsafe { classic::reallocate(object.cast(), size) })
}

#[unsafe(no_mangle)]
pub extern "C" fn aligned_alloc(align: usize, size: usize) -> *mut c_void {
    ready();
    if !align.is_power_of_two() {
        set_errno(libc::EINVAL);
        return null_mut();
    }
    or_enomem(classic::allocate_aligned(size, align, false))
}

#[unsafe(no_mangle)]
pub extern "C" fn memalign(align: usize, size: usize) -> *mut c_void {
    aligned_alloc(align, size)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_memalign(to: *mut *mut c_void, align: usize, size: usize) -> c_int {
    ready();
    if !align.is_power_of_two() || align < size_of::<usize>() {
        return libc::EINVAL;
    }
    let object = classic::allocate_aligned(size, align, false);
    if object.is_null() {
        return libc::ENOMEM;
    }
    // SAFETY: the program passes where the address goes.
    unsafe { to.write(object.cast()) };
    0
}

#[unsafe(no_mangle)]
pub extern "C" fn malloc_usable_size(object: *mut c_void) -> usize {
    classic::usable_size(object.cast())
}

#[unsafe(no_mangle)]
pub extern "C" fn malloc_trim(keep: usize) -> c_int {
    c_int::from(classic::trim(keep))
}

/// 0 if the whole heap is sound, else 1.
#[unsafe(no_mangle)]
pub extern "C" fn allocator_check() -> c_int {
    c_int::from(classic::check().is_err())
}
