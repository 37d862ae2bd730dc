//! Records as foreign formats state them: addresses and thread ids that are used again and again.
#![forbid(unsafe_code)]

use super::Census;
use crate::error::TraceError;
use crate::event::AlignedApi;

/// The largest address an importer accepts, and the largest size or count of a call that did not
/// fail.
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

    /// Whether it asked for memory and was given NULL.
    pub(crate) fn failed(&self) -> bool {
        matches!(
            self,
            RawOp::Malloc { ptr: 0, .. }
                | RawOp::Calloc { ptr: 0, .. }
                | RawOp::Realloc { ptr: 0, .. }
                | RawOp::Aligned { ptr: 0, .. }
        )
    }

    /// Whether it was given a size, a count or an alignment beyond [`MAX_NUMBER`]. A call that
    /// failed may have been given any.
    pub(crate) fn is_beyond(&self) -> bool {
        let largest = match *self {
            RawOp::Malloc { size, .. } | RawOp::Realloc { size, .. } => size,
            RawOp::Calloc { count, size, .. } => count.saturating_mul(size).max(count).max(size),
            RawOp::Aligned { align, size, .. } => align.max(size),
            _ => 0,
        };
        largest > MAX_NUMBER && !self.failed()
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
