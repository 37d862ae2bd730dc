//! Which program or library an address of code lies in, without the loader's lock; and whether an
//! address can be read at all.

use core::arch::asm;

use super::syscall::{number, raw};

/// A program or library that the loader mapped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Object {
    /// Its first address.
    pub(crate) start: usize,
    /// Whether it is the program and not one of its libraries.
    pub(crate) is_program: bool,
    /// Its index of unwinding tables (`.eh_frame_hdr`); null if it has none.
    pub(crate) tables: *const u8,
}

/// `struct dl_find_object` of glibc's dlfcn.h.
#[repr(C)]
struct Found {
    _flags: u64,
    start: usize,
    _end: usize,
    link_map: *const LinkMap,
    tables: *const u8,
    _reserved: [u64; 9],
}

/// The public beginning of `struct link_map`.
#[repr(C)]
struct LinkMap {
    _base: usize,
    name: *const u8,
}

/// The object that `code` lies in; `None` if it lies in none, or where libc cannot tell without a lock
/// (before glibc 2.35).
pub(crate) fn object_at(code: usize) -> Option<Object> {
    type Find = unsafe extern "C" fn(usize, *mut Found) -> i32;
    let function: usize;
    // SAFETY: loads the address of a weak symbol from the GOT; 0 when it is undefined.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!(".weak _dl_find_object",
             "mov {0}, qword ptr [rip + _dl_find_object@GOTPCREL]",
             out(reg) function, options(nostack, preserves_flags, pure, readonly));
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!(".weak _dl_find_object",
             "adrp {0}, :got:_dl_find_object",
             "ldr {0}, [{0}, :got_lo12:_dl_find_object]",
             out(reg) function, options(nostack, preserves_flags, pure, readonly));
    }
    if function == 0 {
        return None;
    }
    let mut found = core::mem::MaybeUninit::<Found>::zeroed();
    // SAFETY: libc's function of this name has this type, fills the structure when it returns 0, takes
    // no lock and may be called from signal handlers.
    let found = unsafe {
        let find = core::mem::transmute::<usize, Find>(function);
        if find(code, found.as_mut_ptr()) != 0 {
            return None;
        }
        found.assume_init()
    };
    // SAFETY: the loader's own description of a mapped object; the program's name is empty.
    let is_program = unsafe {
        let map = found.link_map;
        map.is_null() || (*map).name.is_null() || *(*map).name == 0
    };
    Some(Object { start: found.start, is_program, tables: found.tables })
}

/// Whether the eight bytes at `address`, a multiple of 8, can be read.
///
/// The kernel looks at a signal mask before it refuses to use it in an unknown way.
pub(crate) fn is_readable(address: usize) -> bool {
    const NO_WAY: usize = i32::MAX as usize;
    // SAFETY: changes nothing, since there is no such way to change the mask.
    let answer = unsafe { raw(number::RT_SIGPROCMASK, [NO_WAY, address, 0, 8, 0, 0]) };
    answer == -(libc::EINVAL as isize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::{Kernel, Linux};

    #[test]
    fn what_is_mapped_is_readable_and_nothing_else() {
        let page = Linux.map(0, 4096).unwrap();
        assert!(is_readable(page));
        assert!(is_readable(page + 4088));
        // SAFETY: mapped just now.
        unsafe { Linux.unmap(page, 4096).unwrap() };
        assert!(!is_readable(page));
        assert!(!is_readable(8));
        assert!(!is_readable(usize::MAX - 7));
    }

    #[test]
    fn code_of_the_program_and_of_libc_are_told_apart() {
        let here = object_at(what_is_mapped_is_readable_and_nothing_else as *const () as usize);
        let Some(here) = here else { return };
        assert!(here.is_program && !here.tables.is_null());
        let libc = object_at(libc::getpid as *const () as usize).unwrap();
        assert!(!libc.is_program && libc.start != here.start);
        assert!(object_at(4096).is_none());
    }
}
