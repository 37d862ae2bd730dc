//! The placement strategies: which free block serves a request.
//!
//! | strategy | file | which block | cost of a search |
//! |---|---|---|---|
//! | first fit | `first_fit.rs` | the lowest address that fits | a few cache lines of index, then one slice of 1 KiB |
//! | first fit, LIFO | `lifo.rs` | the one freed last that fits | at most 64 blocks and 25 list heads |
//! | next fit | `next_fit.rs` | the next address behind the last one used | as first fit |
//! | best fit | `best_fit.rs` | the smallest that fits | O(1) below 1 KiB, else O(log n) |
//! | worst fit | `worst_fit.rs` | the largest | O(log n) |
//! | quick fit | `quick_fit.rs` | one freed with exactly this size, else first fit | O(1) |
//! | segregated | `segregated.rs` | one of the smallest class that surely fits | O(1) |
//! | buddy | `buddy.rs` | a power of two, own block rules | O(log size) |
//! | slab | `slab.rs` | a slot of a fixed size, own block rules | O(1) |
//!
//! All but the last two implement [`Placement`](crate::block::Placement) over the boundary-tag heap.
#![cfg_attr(
    not(test),
    deny(clippy::panic, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)
)]

mod address_index;
mod address_view;
mod best_fit;
mod buddy;
mod first_fit;
mod lifo;
mod list;
mod next_fit;
mod quick_fit;
mod run_index;
mod segregated;
mod size_index;
mod slab;
mod slab_page;
mod slab_runs;
#[cfg(test)]
mod tests;
mod treap;
mod worst_fit;

pub use best_fit::BestFit;
pub use buddy::{Buddy, BuddyHeap};
pub use first_fit::FirstFit;
pub use lifo::FirstFitLifo;
pub use next_fit::NextFit;
pub use quick_fit::QuickFit;
pub use segregated::Segregated;
pub use slab::{Slab, SlabHeap};
pub use worst_fit::WorstFit;
