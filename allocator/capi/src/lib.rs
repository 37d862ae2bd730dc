//! `liballocator.so` and `.a`: the C and C++ face of the allocator.
//!
//! Owns the names that programs link against and their contracts: argument checks, `errno`, what C23, POSIX and
//! glibc say about each edge. It owns no memory: every function ends in `allocator::heap`.
//!
//! | module | names |
//! |---|---|
//! | `standard` | malloc calloc realloc free reallocarray free_sized free_aligned_sized cfree malloc_usable_size |
//! | `aligned` | aligned_alloc memalign posix_memalign valloc pvalloc |
//! | `libc_names` | `__libc_malloc` and its siblings, which old libraries call directly |
//! | `cxx`, `cxx_throw` | the 8 `operator new` and 12 `operator delete`; the way to the C++ runtime that throws |
//! | `bound` | none: whom the names that a program may define for itself stand for |
//! | `introspection` | mallopt malloc_trim mallinfo mallinfo2 malloc_stats malloc_info |
//! | `copies` | memcpy memmove memset, of the hardened library that is preloaded |
//! | `hot` | none: puts the fast paths on lines of their own |
//! | `loading` | none: runs when the library is loaded |
//! | `report` | allocator_report allocator_heap_map; reports at exit and on a signal |
//! | `sample` | allocator_sample_dump; profiles at exit and on a signal |
//! | `fault` | allocator_on_fault |
//! | `control` | the `allocator_…` functions of `include/allocator.h` |
//!
//! # Cost
//! `malloc` and `free` hold the heap's fast path inline: no call, no atomic, no initialisation check.
//!
//! # Invariants
//! 1. A successful call leaves `errno` as it was, `free` always does; a failed one sets `ENOMEM` or `EINVAL`.
//! 2. Nothing here panics: with the feature `preload` a reachable panic does not link (see `panic`).
//! 3. No function inside the crates is called `malloc` except the exported one, and nothing inside calls it: LLVM
//!    knows the name, and would fold `malloc` + `memset` inside `calloc` into a call of `calloc`.
//! 4. `#[no_mangle]` stands in this crate only, so that a Rust program using `allocator` is never interposed.
#![cfg_attr(all(panic = "abort", not(test)), no_std)]
#![deny(clippy::panic, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod aligned;
mod bound;
mod control;
#[cfg(all(feature = "hardened", feature = "preload"))]
mod copies;
mod cxx;
mod cxx_throw;
mod errno;
mod fault;
mod hot;
mod introspection;
mod libc_names;
mod loading;
mod panic;
mod report;
mod sample;
mod standard;
mod text;
