//! The placement strategies: which free block serves a request.
//!
//! | strategy | file | which block | cost of a search |
//! |---|---|---|---|
//! | first fit | `first_fit.rs` | the lowest address that fits | three cache lines of index, then one 4 KiB slice |
//! | first fit, LIFO | `first_fit.rs` | the one freed last that fits | at most 64 blocks and 25 list heads |
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
mod first_fit;
mod list;
mod next_fit;
mod segregated;
#[cfg(test)]
mod tests;

pub use first_fit::FirstFit;
pub use next_fit::NextFit;
pub use segregated::Segregated;
