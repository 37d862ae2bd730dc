//! Records as foreign formats state them: addresses and thread ids that are used again and again.
#![forbid(unsafe_code)]

use super::Census;
use crate::error::TraceError;
use crate::event::AlignedApi;

/// The largest address, size or count an importer accepts.
pub(crate) const MAX_NUMBER: u64 = 1 << 48;

/// One record of a foreign trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Raw {
    /// The thread id of the source; 0 where it knows no threads.
    pub(crate) thread: u64,
    /// Nanoseconds on any clock.
    pub(crate) time: Option<u64>,
    pub(crate) op: RawOp,
}

/// What was asked. Address 0 is NULL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RawOp {
    Malloc { ptr: u64, size: u64 },
    Calloc { ptr: u64, count: u64, size: u64 },
    Realloc { old: u64, ptr: u64, size: u64 },
    Aligned { ptr: u64, align: u64, size: u64, api: AlignedApi },
    Free { ptr: u64, stated_size: Option<u64> },
    UsableSize { ptr: u64 },
    Access { ptr: u64, bytes: u64, times: u32 },
    ThreadStart { parent: Option<u64> },
    ThreadEnd,
    Fork { child: u32 },
    Marker { value: u64 },
}

impl RawOp {
    /// The address this call returned, if any.
    pub(crate) fn returned(&self) -> Option<u64> {
        match *self {
            RawOp::Malloc { ptr, .. }
            | RawOp::Calloc { ptr, .. }
            | RawOp::Realloc { ptr, .. }
            | RawOp::Aligned { ptr, .. } => (ptr != 0).then_some(ptr),
            _ => None,
        }
    }

    /// The address this call released, if any.
    pub(crate) fn released(&self) -> Option<u64> {
        match *self {
            RawOp::Free { ptr, .. } => (ptr != 0).then_some(ptr),
            RawOp::Realloc { old, ptr, size } if ptr != 0 || size == 0 => (old != 0).then_some(old),
            _ => None,
        }
    }

    /// The address this call was given and left alive, if any.
    pub(crate) fn used(&self) -> Option<u64> {
        match *self {
            RawOp::UsableSize { ptr } | RawOp::Access { ptr, .. } => (ptr != 0).then_some(ptr),
            RawOp::Realloc { old, ptr: 0, size } if size > 0 => (old != 0).then_some(old),
            _ => None,
        }
    }
}

/// A foreign trace, parsed but not resolved.
pub(crate) trait RawSource: Send {
    /// The next record; lines that are none are counted in `census`.
    fn next_raw(&mut self, census: &mut Census) -> Result<Option<Raw>, TraceError>;

    /// Whether records name their threads.
    fn threaded(&self) -> bool;
}
