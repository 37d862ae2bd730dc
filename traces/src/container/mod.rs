//! Our own trace files: written, read, and made from what the recorder leaves.
//!
//! ```text
//! Writer    events → chunks (compressed in parallel) → a file that appears whole or not at all
//! Reader    a file → events, chunks decoded in parallel; without a footer up to the last whole chunk
//! RawTrace  a recorder's file → events: threads merged by stamp, addresses turned into objects
//! ```
//! Layout: [`trace_format::v1`]. Memory is bounded by a few chunks (Reader, Writer), and by live
//! objects and threads (RawTrace), never by the length of the trace.
//!
//! # Invariants
//! 1. A count or length in a file is believed only within the limits of the format.
//! 2. A [`Writer`] that is dropped unfinished leaves no file behind.
#![forbid(unsafe_code)]

mod convert;
mod copy;
mod footer;
mod held;
mod raw;
mod reader;
mod resolve;
mod writer;

pub use copy::{open, save};
pub use footer::{ChunkIndex, Footer, Totals};
pub use raw::RawTrace;
pub use reader::Reader;
pub use resolve::ResolveOptions;
pub use writer::{Writer, WriterOptions};

/// Key of the provenance that says that the process was still running when its trace was made.
pub const STILL_RUNNING: &str = "still_running";

/// Key of the provenance that says that one in so many objects was recorded.
pub const SAMPLED: &str = "sampled_one_in";

/// The first bytes of every file of this format, raw or resolved.
pub const MAGIC: [u8; 8] = trace_format::v1::file::MAGIC;

/// Whether a file that begins with `start` is a container.
#[must_use]
pub fn is_container(start: &[u8]) -> bool {
    start.starts_with(&MAGIC)
}
