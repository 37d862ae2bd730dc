//! Requests to valgrind, for builds that are run under it. Outside valgrind one is five instructions
//! that do nothing.
//!
//! Source: `valgrind.h` and `memcheck.h`; the section on client requests in valgrind's manual.

#[cfg(feature = "valgrind")]
use core::arch::asm;

/// Numbers of requests, as in `valgrind.h`.
#[cfg(feature = "valgrind")]
#[derive(Clone, Copy)]
#[repr(usize)]
pub(crate) enum Request {
    /// Address, size, bytes of red zone, whether it is zeroed.
    Allocated = 0x1301,
    /// Address, bytes of red zone.
    Freed = 0x1302,
    /// 1: report no errors of this thread's; −1: go on.
    Silence = 0x1801,
    /// Address, size: no memory to the program. This one and the next are memcheck's own: 'M', 'C'.
    Forbidden = 0x4d43_0000,
    /// Address, size: the first byte in it that is no memory, or 0.
    FirstUnaddressable = 0x4d43_0004,
    /// Address, size: as if no thread had ever touched it. Helgrind's own: 'H', 'G'.
    Untouched = 0x4847_0000,
}

/// Asks valgrind; 0 where there is none.
#[cfg(feature = "valgrind")]
pub(crate) fn ask(request: Request, arguments: [usize; 4]) -> usize {
    let [a, b, c, d] = arguments;
    let block = [request as usize, a, b, c, d, 0];
    let mut answer = 0_usize;
    // SAFETY: the rotations add up to whole turns and the last instruction changes nothing: valgrind
    // alone sees more in them, and reads the block and writes the answer.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!(
            "rol rdi, 3", "rol rdi, 13", "rol rdi, 61", "rol rdi, 51",
            "xchg rbx, rbx",
            inout("rdi") 0_usize => _,
            in("rax") &raw const block,
            inout("rdx") answer,
            options(nostack),
        );
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!(
            "ror x12, x12, #3", "ror x12, x12, #13", "ror x12, x12, #51", "ror x12, x12, #61",
            "orr x10, x10, x10",
            inout("x12") 0_usize => _,
            in("x4") &raw const block,
            inout("x3") answer,
            options(nostack),
        );
    }
    answer
}

/// Runs `work`, which may read and write free blocks: what valgrind takes for faults meanwhile is not
/// reported. In other builds nothing but `work`.
#[inline(always)]
pub(crate) fn unwatched<T>(work: impl FnOnce() -> T) -> T {
    #[cfg(feature = "valgrind")]
    ask(Request::Silence, [1, 0, 0, 0]);
    let result = work();
    #[cfg(feature = "valgrind")]
    ask(Request::Silence, [usize::MAX, 0, 0, 0]);
    result
}
