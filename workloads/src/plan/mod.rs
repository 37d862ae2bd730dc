//! A plan: one event stream, prepared so that real threads can execute it without thinking.
//!
//! Preparation happens before any measured process starts. It turns events into one stream of
//! small records per thread, gives every object a dense slot, and replaces the stream's total
//! order by the few waits that order really needs. The result is a file that a worker maps.
//!
//! | file | owns |
//! |---|---|
//! | `record` | the words of a stream: how an operation is written and read |
//! | `layout` | header and thread table of the file |
//! | `order` | the orders by name |
//! | `clock` | vector clocks: which waits are implied by earlier ones |
//! | `known` | what one of them knows, sharing memory with what the others know |
//! | `slots` | which slot an object gets, and when a slot may be given again |
//! | `spool` | streams under construction, in bounded memory |
//! | `births` | threads are born and end |
//! | `build` | events in, one at a time: waits, slots and words out |
//! | `seam` | how a repeated part is marked, and closed so that it can be repeated |
//! | `hash` | the golden hash of an event stream |
//! | `write` | streams, waits and publications merged into the file |
//! | `prepare` | the door: a source in, a plan file out |
//! | `open` | a plan file, mapped |
//! | `window` | its words, at once or in bounded memory |
//!
//! Cost: memory for preparation is proportional to live objects and to waits, not to events.
//!
//! # Invariants
//! 1. Every wait names a position that comes earlier in the total order, so no plan can deadlock.
//! 2. A slot is given again only if its release happens before its next birth under the waits of
//!    this plan (program order, births of threads, static waits), whatever the timing.
//! 3. An operation takes one word of 8 bytes; a second one where it states a size of 256 MiB or
//!    more, a count or an alignment; a time adds one. Waits add about one word per hundred.

mod births;
mod build;
mod clock;
mod error;
mod hash;
mod known;
mod layout;
mod open;
mod order;
mod prepare;
pub(crate) mod record;
mod seam;
mod slots;
mod spool;
mod window;
mod write;

pub use error::PlanError;
pub use hash::StreamHash;
pub use layout::{Counts, Section, ThreadInfo};
pub use open::Plan;
pub use order::{Order, OrderError};
pub use prepare::PlanOptions;
pub use seam::Seam;
