//! The preload library that records every malloc-family call of a live program.
//!
//! ```text
//! hooks    the exported malloc family: call the real one, record
//! cxx      operator new and delete of allocators that bring their own
//! threads  pthread_create and the end of threads
//! process  what belongs to the process: the raw file, fork, the start and the end
//! writer   the hot path: stamp, reserve, write, commit; the slow path that gets chunks
//! file     the raw file: creation, the process block, chunks as mappings
//! real     the functions that were wrapped, and memory for calls made before they are known
//! clock  tls  sys    time stamps, one record per thread, system calls
//! ```
//!
//! Owns one raw file per process image (its layout: `trace_format::v1::raw`). Every record lies
//! in a shared mapping of that file as soon as it is written, so whatever ends the process, the
//! kernel keeps it.
//!
//! Cost: some 30 ns per call; 64 KiB of memory per thread alive (and per parked chunk, of which
//! there are at most 64). `bench-cli record` prints an estimate for each recording.
//!
//! # Invariants
//! 1. Nothing here calls the wrapped malloc family on its own behalf, or takes a lock on the hot
//!    path, or changes errno, or keeps a file descriptor open.
//! 2. A record that cannot be written is counted by reason in the process block.
//! 3. A chunk's mapping changes only while its thread is in no record, so a signal handler's
//!    record never loses the memory under the record it interrupted.
#![cfg_attr(all(panic = "abort", not(test)), no_std)]
#![cfg(target_os = "linux")]
#![cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]

mod clock;
mod cxx;
mod file;
mod hooks;
mod process;
mod real;
mod sys;
mod threads;
mod tls;
mod writer;

#[cfg(all(panic = "abort", not(test)))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Nothing in this library panics. In the preload profile this symbol is missing on purpose:
    // a panic that the compiler could not rule out would then be a link error.
    unsafe extern "C" {
        fn trace_recorder_must_not_panic() -> !;
    }
    // SAFETY: never executed: a library with a reachable panic does not link (`-z defs`).
    unsafe { trace_recorder_must_not_panic() }
}
