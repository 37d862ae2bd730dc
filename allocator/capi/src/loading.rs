//! What happens when the library is loaded: it finds out whether it serves malloc for the process.
//!
//! Only then may the heap grow the program break. Opened by `dlopen` beside glibc's malloc it must not, since glibc
//! moves the break under a lock that we do not have. Linked with `-z initfirst`, this runs before the constructors of
//! every other library; whoever allocates earlier still (the loader itself) is served from mappings.

use core::ffi::c_void;

/// Run by the loader. It passes argc, argv and envp, which nobody needs here.
#[used]
#[unsafe(link_section = ".init_array")]
static WHEN_LOADED: extern "C" fn() = when_loaded;

extern "C" fn when_loaded() {
    // SAFETY: a terminated name; the default search order is the one that the program's own calls follow.
    let served_by = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"malloc".as_ptr()) };
    if served_by.cast_const() == crate::standard::malloc as *const c_void {
        allocator::heap::own_the_break();
    }
    allocator::heap::call_when_ready(crate::report::when_ready);
}
