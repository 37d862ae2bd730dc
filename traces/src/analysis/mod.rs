//! Understanding traces: one pass over the events, a [`Summary`] at the end.
//!
//! Memory grows with live objects and threads, never with the length of the trace.
#![forbid(unsafe_code)]

mod classes;
mod counter;
mod curve;
mod histogram;
mod profiler;
mod summary;
mod verify;

pub use classes::{SizeClasses, round_up};
pub use counter::Counter;
pub use curve::{Curve, CurvePoint};
pub(crate) use histogram::bucket_of;
pub use histogram::{Bucket, Distribution, LogHistogram};
pub use profiler::Profiler;
pub use summary::{
    CrossThreadPair, Fragmentation, Grid, HotSize, Operations, Reallocs, Summary, ThreadSummary,
};
pub use verify::{Fault, Verifier};

use crate::error::TraceError;
use crate::import::Source;

/// Reads a trace to its end and sums it up.
///
/// # Errors
/// Whatever keeps the source from being read to its end.
pub fn summarise(source: &mut dyn Source) -> Result<Summary, TraceError> {
    let mut profiler = Profiler::new();
    while let Some(event) = source.next_event()? {
        profiler.observe(&event);
    }
    Ok(profiler.finish(source.census()))
}
