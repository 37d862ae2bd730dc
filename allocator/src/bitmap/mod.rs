//! Blocks from 1 KiB to 1 MiB: spans of one size class whose free blocks are bits of one word in
//! the span's record, so that no byte of a free block is ever touched.
//!
//! In front of the spans stands a *stash*: per heap and class the blocks freed last, and one for
//! all classes above 64 KiB. Most medium blocks are freed and asked for again at once.
//!
//! A span without a free block carries FULL in its remote mask. Unlike a slab it stays its heap's:
//! its records are many, so its owner changes only while the owning thread is dead. **Whoever
//! clears FULL decides about the span**: the owner by an exchange with 0, and if it loses, it
//! touches nothing but its local mask until the span arrives in its queue.
//!
//! # Cost
//! malloc: a stash hit, or the lowest set bit of the current span. free: a stash slot, or one
//! multiplication by the reciprocal of the block size and one bit. Both say at the heap's door that their
//! thread is inside: two stores, a load, a branch, and in return another thread can take what one that sleeps
//! keeps. A pair of both through the stash is 72 instructions as compiled into liballocator.so (x86_64; what
//! callgrind counts for 20,000 pairs of 1 KiB less that for 10,000); of 100 allocated and then freed a pair is 130
//! at 1 KiB, 172 at 8 KiB and 361 at 512 KiB, slow paths included (`cargo ci instructions`). Remote free: a bit in a
//! batch, and a `fetch_or` per batch of up to 8 KiB.

mod classes;
mod local;
mod protocol;
mod refill;
mod remote;
mod retired;
mod span;
mod stash;
mod upkeep;

pub(crate) use classes::{CLASSES, KNOWS_ZERO, MAX_BITMAP, SizeClass};
pub(crate) use local::{Bitmaps, Left};
pub(crate) use refill::BitmapSupply;
pub(crate) use remote::{MaskBatches, send};
pub(crate) use span::{OWNED, is_whole, locate, may_say};
pub(crate) use upkeep::Pages;

#[cfg(all(test, not(loom)))]
mod tests;
