//! Allocation traces: the event model, the container, importers, analysis and rewriting.
//!
//! A workload is a trace that is not yet written down: generators, importers and recordings all
//! yield the same [`Event`]s through [`EventSource`], and whoever executes, analyses or rewrites
//! them sees nothing else.

pub mod analysis;
pub mod container;
pub mod error;
pub mod event;
pub mod import;
pub mod rewrite;
mod whole;

pub use error::TraceError;
pub use event::{AlignedApi, Event, EventSource, ObjectId, Op, ThreadId};
pub use import::{
    Census, Format, ImportOptions, Position, Source, UnknownFormat, open, open_with, read,
};
pub use whole::WholeFile;
