//! Allocation traces: the event model, the container, importers, analysis and rewriting.
//!
//! A workload is a trace that is not yet written down: generators, importers and recordings all
//! yield the same [`Event`]s through [`EventSource`], and whoever executes, analyses or rewrites
//! them sees nothing else.

pub mod event;

pub use event::{AlignedApi, Event, EventSource, ObjectId, Op, ThreadId};
