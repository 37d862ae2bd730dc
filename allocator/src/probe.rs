//! Probes on slow paths that tracers find by name (USDT): one `nop` each, and a note in the file.
//!
//! A note (`.note.stapsdt`, version 3) holds the address of the nop, provider and name of the probe,
//! and where its arguments are at that moment. It takes no memory at run time. A tracer puts a
//! breakpoint on the nop; there is no semaphore, so arguments are always at hand.
//!
//! Cost: a nop, and that the arguments are in registers.
//!
//! Source: SystemTap's `sys/sdt.h`.

/// The assembly; in notes registers are written as GNU's assembler names them.
#[cfg(target_arch = "x86_64")]
macro_rules! emit {
    ($($part:tt)*) => {
        // SAFETY: a nop; the rest is data in a section that is never loaded.
        unsafe { core::arch::asm!($($part)*, options(att_syntax, nomem, nostack, preserves_flags)) }
    };
}
/// As on x86_64, where there is but one syntax.
#[cfg(target_arch = "aarch64")]
macro_rules! emit {
    ($($part:tt)*) => {
        // SAFETY: a nop; the rest is data in a section that is never loaded.
        unsafe { core::arch::asm!($($part)*, options(nomem, nostack, preserves_flags)) }
    };
}

/// The probe `allocator:$name` with two or three arguments, each a `usize`.
macro_rules! fire {
    ($name:literal, $first:expr, $second:expr) => {{
        #[inline(always)]
        fn probe(first: usize, second: usize) {
            $crate::probe::note!($name, "8@{0} 8@{1}", in(reg) first, in(reg) second)
        }
        probe($first, $second)
    }};
    ($name:literal, $first:expr, $second:expr, $third:expr) => {{
        #[inline(always)]
        fn probe(first: usize, second: usize, third: usize) {
            $crate::probe::note!(
                $name, "8@{0} 8@{1} 8@{2}", in(reg) first, in(reg) second, in(reg) third
            )
        }
        probe($first, $second, $third)
    }};
}

/// The nop and its note.
macro_rules! note {
    ($name:literal, $arguments:literal, $($operand:tt)*) => {
        $crate::probe::emit!(
            "990: nop",
            ".pushsection .note.stapsdt, \"?\", \"note\"",
            ".balign 4",
            ".4byte 992f - 991f, 994f - 993f, 3",
            "991: .asciz \"stapsdt\"",
            "992: .balign 4",
            "993: .8byte 990b, _.stapsdt.base, 0",
            ".asciz \"allocator\"",
            concat!(".asciz \"", $name, "\""),
            concat!(".asciz \"", $arguments, "\""),
            "994: .balign 4",
            ".popsection",
            // What tracers compare with to see whether the file was prelinked: once per file, and kept
            // (R) though no code refers to it.
            ".ifndef _.stapsdt.base",
            ".pushsection .stapsdt.base, \"aGR\", \"progbits\", .stapsdt.base, comdat",
            ".weak _.stapsdt.base",
            ".hidden _.stapsdt.base",
            "_.stapsdt.base: .space 1",
            ".size _.stapsdt.base, 1",
            ".popsection",
            ".endif",
            $($operand)*
        )
    };
}

pub(crate) use {emit, fire, note};
