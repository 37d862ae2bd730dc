//! Names that a program may define for itself, and whom the loader bound them to.
//!
//! C++ lets a program replace the forms of `operator new` and `operator delete` in which all others end
//! ([new.delete]), and glibc's `reallocarray` calls whatever `realloc` there is. `replaceable.ld` lists these names;
//! who calls one does so through the global offset table, where the first definition in the process stands: the
//! program's, or this library's. (Opened by `dlopen` in a process with a C++ runtime, the derived operators that `dlsym`
//! finds here end in the runtime's, and the others here: who opens it so asks for no operators. `reallocarray`, which C
//! programs ask for, then stays inside.)
//!
//! # Invariants
//! 1. No other code of this library calls these names. `tests/linking.rs` reads the machine code to prove it.
//! 2. A label `allocator_own` + NAME lies where this library's definition does. Where it does not, in a build of
//!    several units, a name of ours counts as the program's, which is slower and as right.

/// The address that stands for a name in this process.
macro_rules! bound {
    ($symbol:ident) => {{
        let address: usize;
        // SAFETY: reads an entry of the global offset table, which the loader filled before this library ran.
        #[cfg(target_arch = "x86_64")]
        unsafe {
            core::arch::asm!(
                concat!("mov {address}, qword ptr [rip + ", stringify!($symbol), "@GOTPCREL]"),
                address = out(reg) address,
                options(nostack, preserves_flags, pure, readonly)
            );
        }
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        unsafe {
            core::arch::asm!(
                concat!("adrp {address}, :got:", stringify!($symbol)),
                concat!("ldr {address}, [{address}, :got_lo12:", stringify!($symbol), "]"),
                address = out(reg) address,
                options(nostack, preserves_flags, pure, readonly)
            );
        }
        address
    }};
}

/// The address of this library's definition of a name that has a label.
macro_rules! own {
    ($symbol:ident) => {{
        let address: usize;
        // SAFETY: computes an address.
        #[cfg(target_arch = "x86_64")]
        unsafe {
            core::arch::asm!(
                concat!("lea {address}, [rip + allocator_own", stringify!($symbol), "]"),
                address = out(reg) address,
                options(nostack, preserves_flags, pure, nomem)
            );
        }
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        unsafe {
            core::arch::asm!(
                concat!("adrp {address}, allocator_own", stringify!($symbol)),
                concat!("add {address}, {address}, :lo12:allocator_own", stringify!($symbol)),
                address = out(reg) address,
                options(nostack, preserves_flags, pure, nomem)
            );
        }
        address
    }};
}

/// Whether all these names, which have labels, stand for this library's definitions.
macro_rules! are_ours {
    ($($symbol:ident)*) => {
        true $(&& crate::bound::bound!($symbol) == crate::bound::own!($symbol))*
    };
}

/// Begins what is in a section with the label that [`own`] asks for.
macro_rules! mark {
    ($symbol:ident) => {
        concat!(
            ".globl allocator_own",
            stringify!($symbol),
            "\n.hidden allocator_own",
            stringify!($symbol),
            "\nallocator_own",
            stringify!($symbol),
            ":"
        )
    };
}

/// Defines functions that jump to whoever `$to` is bound to, with the arguments as they are, or as one instruction
/// for each architecture leaves them.
macro_rules! forwards {
    ($($name:ident ( $($argument:ident: $type:ty),* ) $(-> $result:ty)?
        = $signature:literal, $to:ident $(, $x86_64:literal $aarch64:literal)?;)*) => {$(
        #[doc = $signature]
        ///
        /// # Safety
        /// As the form that it jumps to.
        #[unsafe(no_mangle)]
        #[unsafe(naked)]
        #[unsafe(link_section = ".text.hot.forwards")]
        unsafe extern "C" fn $name($($argument: $type),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            core::arch::naked_asm!(
                crate::bound::mark!($name),
                $($x86_64,)?
                concat!("jmp qword ptr [rip + ", stringify!($to), "@GOTPCREL]"),
            );
            #[cfg(target_arch = "aarch64")]
            core::arch::naked_asm!(
                crate::bound::mark!($name),
                $($aarch64,)?
                concat!("adrp x16, :got:", stringify!($to)),
                concat!("ldr x16, [x16, :got_lo12:", stringify!($to), "]"),
                "br x16",
            );
        }
    )*};
}

pub(crate) use {are_ours, bound, forwards, mark, own};
