//! Classic mode: boundary-tag heaps that users choose.
//!
//! Two faces. [`ClassicHeap`] is a heap of a program's own, over a region it owns, with a placement
//! strategy and a lock named by type. For the whole process, `mode=classic` routes every request to
//! one heap or to arenas of heaps, chosen by [`Settings`].
//!
//! Owns every object it hands out. Cost: see the strategies in [`crate::placement`] and the locks in
//! [`lock`](FutexLock).
#![cfg_attr(
    not(test),
    deny(clippy::panic, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)
)]

mod arena;
mod arenas;
mod cache;
mod cached;
mod heap;
mod kernel;
mod lock;
mod mapped;
mod orphans;
mod process;
mod registry;
mod source;
#[cfg(test)]
mod tests;

pub use crate::options::settings::{LockChoice, PlacementChoice, Settings};
pub use heap::ClassicHeap;
pub use lock::{Contention, FutexLock, Lock, NoLock};
pub use process::{
    OnFault, Snapshot, allocate, allocate_aligned, allocate_zeroed, check, configure, deallocate,
    is_configured, is_interrupted, on_fault, owns, reallocate, snapshot, trim, usable_size,
};
