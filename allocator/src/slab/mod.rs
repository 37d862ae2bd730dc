//! Blocks up to 960 bytes: spans of one slice and one size class, free blocks linked through
//! themselves.
//!
//! A thread's heap holds per class one *current* span, whose free blocks it moves as a whole list
//! into a bin (in thread-local storage, see `thread::tls`), and a list of partly free spans. A
//! span without a free block is in *limbo*: no list names it, nobody owns it, and whoever frees a
//! block of it first takes it out (see [`remote`]).
//!
//! # Cost
//! A bin serves malloc in one load and one store. A refill moves every free block of a span at
//! once; a new span is carved one page at a time, so that a class used once costs one page.

mod classes;
mod link;
mod local;
mod protocol;
mod remote;
mod span;
mod upkeep;

pub(crate) use classes::{CLASSES, GRANULES, MAX_SLAB, SizeClass, class_map};
pub(crate) use link::set_secret;
#[cfg(feature = "hardened")]
pub(crate) use link::{FREED, FRESH, key};
use link::{mark_fresh, order_of_blocks};
pub(crate) use local::{SlabSupply, Slabs};
pub(crate) use remote::{LimboQueue, RemoteBatches, leave_limbo, send_one};
#[cfg(feature = "hardened")]
pub(crate) use span::{block_size, number_of};
pub(crate) use span::{is_whole, may_say, put_back};

/// A free block: a link to the next one (see `link`).
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Block {
    next: *mut Block,
}
