//! What happens when the library is loaded: it finds out whether it serves malloc for the process.
//!
//! Only then may the heap grow the program break. Opened by `dlopen` beside glibc's malloc it must not, since glibc
//! moves the break under a lock that we do not have. Linked with `-z initfirst`, this runs before the constructors of
//! every other library; whoever allocates earlier still (the loader itself) is served from mappings.

use core::ffi::{CStr, c_char};
use core::sync::atomic::{AtomicBool, Ordering};

static SERVES: AtomicBool = AtomicBool::new(false);

/// Whether the program's calls of `malloc` end here, as far as was found out: false until this library's turn comes
/// among the constructors.
pub(crate) fn serves_the_process() -> bool {
    SERVES.load(Ordering::Relaxed)
}

/// Run by the loader. It passes argc, argv and envp, which nobody needs here.
#[used]
#[unsafe(link_section = ".init_array")]
static WHEN_LOADED: extern "C" fn() = when_loaded;

extern "C" fn when_loaded() {
    if stands_before_libc() {
        SERVES.store(true, Ordering::Relaxed);
        allocator::heap::own_the_break();
    }
    allocator::heap::call_when_ready(crate::report::when_ready);
}

/// What the loader tells debuggers: `struct r_debug` and `struct link_map` of link.h.
#[repr(C)]
struct Loaded {
    _version: i32,
    first: *const Object,
}

/// A program or library, in the order in which names are looked up.
#[repr(C)]
struct Object {
    _base: usize,
    name: *const c_char,
    dynamic: usize,
    next: *const Object,
}

/// Whether the program's calls of `malloc` end here and not in libc: that is so when this library stands before libc
/// among the loaded ones, and after it when it was opened by `dlopen`. `dlsym` would say the same and leave 100 KiB
/// more of libc resident.
fn stands_before_libc() -> bool {
    let (loaded, here): (*const Loaded, usize);
    // SAFETY: reads two addresses from the global offset table; both are 0 in a program without a loader.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        core::arch::asm!(
            ".weak _r_debug",
            ".weak _DYNAMIC",
            ".hidden _DYNAMIC",
            "mov {loaded}, qword ptr [rip + _r_debug@GOTPCREL]",
            "mov {here}, qword ptr [rip + _DYNAMIC@GOTPCREL]",
            loaded = out(reg) loaded, here = out(reg) here,
            options(nostack, preserves_flags, pure, readonly)
        );
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        core::arch::asm!(
            ".weak _r_debug",
            ".weak _DYNAMIC",
            ".hidden _DYNAMIC",
            "adrp {loaded}, :got:_r_debug",
            "ldr {loaded}, [{loaded}, :got_lo12:_r_debug]",
            "adrp {here}, :got:_DYNAMIC",
            "ldr {here}, [{here}, :got_lo12:_DYNAMIC]",
            loaded = out(reg) loaded, here = out(reg) here,
            options(nostack, preserves_flags, pure, readonly)
        );
    }
    if loaded.is_null() || here == 0 {
        return true;
    }
    // SAFETY: the loader's list is complete and does not change while it runs a constructor.
    unsafe {
        let mut object = (*loaded).first;
        while !object.is_null() {
            if (*object).dynamic == here {
                return true;
            }
            if is_libc((*object).name) {
                return false;
            }
            object = (*object).next;
        }
    }
    false
}

/// # Safety
/// `name` is null or a terminated path.
unsafe fn is_libc(name: *const c_char) -> bool {
    // SAFETY: the caller's promise.
    !name.is_null() && unsafe { CStr::from_ptr(name) }.to_bytes().ends_with(b"/libc.so.6")
}
