//! One heap per thread: its birth, its life beside the fast paths, its parking when the thread
//! ends, its adoption by a later thread, and what a fork does to it.
//!
//! A heap's record is never freed: blocks of a dead thread go on naming it as their owner. A
//! parked heap keeps its partly used spans; a new thread adopts it whole, and threads that run
//! short take spans from it. What was freed for a thread that sleeps is taken from its queue, and from
//! its lists where nothing in a span is live; what it keeps of bitmap spans goes after an idle second (see
//! `reap`).
//!
//! # Invariants
//! 1. A heap is used by the thread whose storage points to it, or it is parked and used under the
//!    registry's lock, or it is frozen (its thread did not survive a fork) and used by nobody.
//!    A thread whose heap is visited is on no slow path and at none of its bitmap spans until the visitor
//!    has gone.
//! 2. The address of a heap is a multiple of 64: the low bits of a span's `owner` are tags.

mod check;
mod empties;
mod footprint;
mod fork;
mod global;
mod lifecycle;
mod local;
mod purger;
#[cfg(feature = "hardened")]
mod quarantine;
mod reap;
mod registry;
mod sampled;
mod setup;
mod spares;
mod supplies;
mod tls;

pub(crate) use global::GLOBAL;
pub(crate) use lifecycle::attach;
pub(crate) use local::{ThreadHeap, free_elsewhere};
#[cfg(feature = "hardened")]
pub(crate) use quarantine::BATCH;
pub(crate) use tls::Tls;
