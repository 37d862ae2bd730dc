//! A trace without what could tell whose it is.
//!
//! A resolved stream holds no address, name or call site to begin with. What else is dropped:
//! exact times, values of markers, process ids, sizes stated to `free`, and, where asked for,
//! exact sizes. What remains is said by [`Anonymize::remaining`].
#![forbid(unsafe_code)]

use crate::error::TraceError;
use crate::event::{Event, EventSource, Op};
use crate::import::{Census, Format, Source};

/// How much is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnonymizeOptions {
    /// Times become multiples of this; 0 drops them altogether.
    pub resolution_ns: u64,
    /// Sizes become the upper end of one of eight classes per doubling.
    pub size_classes: bool,
}

/// The anonymous trace, as a source.
pub struct Anonymize<S> {
    source: S,
    options: AnonymizeOptions,
    markers: u64,
}

impl<S> std::fmt::Debug for Anonymize<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Anonymize").field("options", &self.options).finish_non_exhaustive()
    }
}

impl<S: Source> Anonymize<S> {
    /// `source` without what `options` drop.
    pub fn new(source: S, options: AnonymizeOptions) -> Self {
        Anonymize { source, options, markers: 0 }
    }

    /// What can still be read from the result, one sentence each.
    #[must_use]
    pub fn remaining(options: &AnonymizeOptions) -> Vec<String> {
        let times = match options.resolution_ns {
            0 => "the order of calls, without times".to_owned(),
            ns => format!("the order of calls, and their times in steps of {ns} ns from 0"),
        };
        let sizes = if options.size_classes {
            "sizes, rounded up to one of eight classes per doubling".to_owned()
        } else {
            "exact sizes: they can identify types of a known program".to_owned()
        };
        vec![
            times,
            sizes,
            "which kind of call each was, and its alignment".to_owned(),
            "threads as numbers in order of birth, and who started whom".to_owned(),
            "which call released which object, and so lifetimes and cross-thread traffic"
                .to_owned(),
        ]
    }

    fn size(&self, size: u64) -> u64 {
        if !self.options.size_classes || size <= 8 {
            return size;
        }
        let octave = (size - 1).ilog2();
        crate::analysis::round_up(size, 1 << octave.saturating_sub(3))
    }

    fn op(&mut self, op: Op) -> Op {
        match op {
            Op::Malloc { object, size } => Op::Malloc { object, size: self.size(size) },
            Op::Calloc { object, count, size } if self.options.size_classes => {
                Op::Calloc { object, count: 1, size: self.size(count.saturating_mul(size)) }
            }
            Op::Realloc { old, object, size } => Op::Realloc { old, object, size: self.size(size) },
            Op::Aligned { object, align, size, api } => {
                Op::Aligned { object, align, size: self.size(size), api }
            }
            Op::Free { object, .. } => Op::Free { object, stated_size: None },
            Op::Access { object, bytes, times } => {
                Op::Access { object, bytes: self.size(bytes), times }
            }
            Op::Fork { .. } => Op::Fork { child: 0 },
            Op::Marker { .. } => {
                self.markers += 1;
                Op::Marker { value: self.markers }
            }
            Op::Calloc { .. } | Op::UsableSize { .. } => op,
            Op::ThreadStart { .. } | Op::ThreadEnd => op,
        }
    }
}

impl<S: Source> EventSource for Anonymize<S> {
    type Error = TraceError;

    fn next_event(&mut self) -> Result<Option<Event>, TraceError> {
        let Some(event) = self.source.next_event()? else { return Ok(None) };
        let time_ns = match self.options.resolution_ns {
            0 => None,
            step => event.time_ns.map(|time| time / step * step),
        };
        Ok(Some(Event { thread: event.thread, time_ns, op: self.op(event.op) }))
    }
}

impl<S: Source> Source for Anonymize<S> {
    fn format(&self) -> Format {
        self.source.format()
    }

    fn census(&self) -> Census {
        self.source.census()
    }
}
