//! One record per thread, in initial-exec thread-local storage.
//!
//! `thread_local!` in a shared library compiles to a call of `__tls_get_addr`, which may allocate:
//! not to be had inside malloc. A symbol of our own in `.tbss`, reached through its offset from
//! the thread pointer, costs two instructions and is zero in every new thread.

use core::cell::Cell;
use core::sync::atomic::{AtomicU32, AtomicUsize};

/// What a thread knows. All zero at its birth.
///
/// # Invariants
/// 1. `chunk` is 0, or the address of a mapping of `chunk_len` bytes that only this thread writes.
/// 2. `cursor` ascends; slots from the chunk's begin to `min(cursor, end)` are reserved.
/// 3. `chunk`, `end` and `owner` change only while `depth` is at most 1.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Thread {
    /// Address of the next free slot.
    pub(crate) cursor: AtomicUsize,
    /// Address behind the last slot.
    pub(crate) end: AtomicUsize,
    /// Records being written: 1, and more in a signal handler that interrupted one.
    pub(crate) depth: AtomicU32,
    /// Set while chunks are being changed.
    pub(crate) busy: AtomicU32,
    /// Address of the chunk.
    pub(crate) chunk: Cell<usize>,
    /// Its length.
    pub(crate) chunk_len: Cell<usize>,
    /// Its place in the file, counted in units; `usize::MAX` outside ring mode.
    pub(crate) chunk_unit: Cell<usize>,
    /// Address of the process block that the chunk, the number and the parent belong to; 0 in a new
    /// thread.
    pub(crate) owner: Cell<usize>,
    /// Number of this thread, plus 1.
    pub(crate) number: Cell<u32>,
    /// Number of the thread that created it, plus 1.
    pub(crate) parent: Cell<u32>,
    /// Set once the thread's end is recorded.
    pub(crate) ended: Cell<u32>,
    /// Rounds of the exit destructor so far.
    pub(crate) rounds: Cell<u32>,
    /// When the fork now in progress began.
    pub(crate) fork_stamp: Cell<u64>,
    /// No chunk is asked for before this moment.
    pub(crate) retry_at: Cell<u64>,
}

const SIZE: usize = 88;
const _: () = assert!(size_of::<Thread>() == SIZE, "the assembly below reserves this much");

core::arch::global_asm!(
    ".section .tbss,\"awT\",%nobits",
    ".globl trace_recorder_thread",
    ".hidden trace_recorder_thread",
    ".type trace_recorder_thread, %object",
    ".size trace_recorder_thread, {size}",
    ".p2align 6",
    "trace_recorder_thread:",
    ".zero {size}",
    ".previous",
    size = const SIZE,
);

/// The calling thread's record.
#[inline(always)]
pub(crate) fn thread() -> &'static Thread {
    let address: *const Thread;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: computes the address of a thread-local symbol defined above, at least as large and
    // as aligned as `Thread`.
    unsafe {
        core::arch::asm!(
            "mov {0}, qword ptr [rip + trace_recorder_thread@GOTTPOFF]",
            "add {0}, qword ptr fs:[0]",
            out(reg) address, options(pure, readonly, nostack),
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        core::arch::asm!(
            "mrs {1}, tpidr_el0",
            "adrp {0}, :gottprel:trace_recorder_thread",
            "ldr {0}, [{0}, :gottprel_lo12:trace_recorder_thread]",
            "add {0}, {1}, {0}",
            out(reg) address, out(reg) _, options(pure, readonly, nostack),
        );
    }
    // SAFETY: the memory lives as long as the thread; zero bytes are a valid `Thread`; cells are
    // used by this thread and its signal handlers only, so a shared reference is all there is.
    unsafe { &*address }
}
