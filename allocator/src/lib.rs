//! A thread-safe memory allocator: a Rust [`GlobalAlloc`](core::alloc::GlobalAlloc), and the core
//! of `liballocator.so`.
//!
//! # Floors, ground floor first
//! | module | owns |
//! |---|---|
//! | `units`, `sync` | constants; core's atomics or loom's |
//! | `probe` | what tracers find on slow paths |
//! | `os` | memory from the kernel |
//! | `lock`, `fatal`, `options`, `stats` | the lock, the one way to die, settings, counters |
//! | `sampling` | which call stacks allocate, by samples |
//! | `segment` | 4 MiB segments cut into slices; where an address finds its owner |
//! | `slab` | blocks up to 960 bytes, linked through themselves |
//! | `bitmap` | blocks up to 1 MiB, with their free map outside |
//! | `block`, `placement` | the boundary-tag heap and its placement strategies |
//! | `huge` | objects with a mapping of their own |
//! | `classic` | heaps that users choose: embedded ones, and `mode=classic` for the process |
//! | `thread` | one heap per thread; birth, death, fork |
//! | `heap` | routing: which floor serves a request |
//! | `global_alloc` | the Rust face |
//!
//! Imports go down only; `cargo ci floors` proves it.
//!
//! # Features
//! | feature | what it changes |
//! |---|---|
//! | `hardened` | every object is sealed when handed out and judged when freed; costs the fast paths |
//! | `valgrind` | memcheck and helgrind are told what is an object; for programs run under them |
//!
//! # Invariants of the crate
//! 1. Nothing here panics, unwinds, allocates through itself, or changes `errno`; nothing is written but
//!    faults, options that are not understood, and reports that were asked for.
//! 2. Every address handed out is a multiple of 16 and lies inside exactly one live block.
//! 3. A thread that neither creates nor ends a heap takes no lock and issues no atomic
//!    read-modify-write on the fast paths.
#![no_std]
#![cfg_attr(
    not(test),
    deny(clippy::panic, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)
)]

#[cfg(any(test, loom))]
extern crate std;

#[cfg(not(loom))]
mod bitmap;
#[cfg(not(loom))]
pub mod block;
#[cfg(not(loom))]
pub mod classic;
#[cfg(not(loom))]
pub mod fatal;
#[cfg(not(loom))]
mod global_alloc;
#[cfg(not(loom))]
pub mod heap;
#[cfg(not(loom))]
mod huge;
#[cfg(not(loom))]
mod lock;
#[cfg(not(loom))]
pub mod options;
#[cfg(not(loom))]
mod os;
#[cfg(not(loom))]
pub mod placement;
#[cfg(not(loom))]
mod probe;
#[cfg(not(loom))]
pub mod sampling;
#[cfg(not(loom))]
mod segment;
#[cfg(not(loom))]
mod slab;
#[cfg(not(loom))]
pub mod stats;
// Under loom the crate is its lock-free protocols and the models of them.
#[cfg(loom)]
mod bitmap {
    pub(crate) mod protocol;
}
#[cfg(loom)]
mod lock {
    pub(crate) mod door {
        pub(crate) mod protocol;
    }
}
#[cfg(loom)]
mod slab {
    pub(crate) mod protocol;
}
#[cfg(all(test, loom))]
mod thread {
    mod models;
}
mod sync;
#[cfg(not(loom))]
mod thread;
#[cfg(not(loom))]
mod units;

#[cfg(not(loom))]
pub use global_alloc::Allocator;
