//! Freeing blocks of bitmap spans that belong to another thread.

use core::ptr::null_mut;

use super::{SizeClass, protocol};
use crate::segment::Span;

const ENTRIES: usize = 8;
/// Bytes of blocks after which a batch is sent.
const STRAND_BYTES: usize = 8192;

#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Batch {
    span: *mut Span,
    mask: u64,
    left: usize,
}

/// Blocks this thread freed for other threads and has not yet sent.
#[derive(Debug)]
pub(crate) struct MaskBatches([Batch; ENTRIES]);

/// Publishes freed blocks. Returns the span if this cleared FULL: then the caller must push it
/// into the queue of the heap that `owner` names *now*; else null.
///
/// # Safety
/// Each bit of `mask` is a block of `span`, a span's first record, that the caller has just freed.
#[must_use]
pub(crate) unsafe fn send(span: *mut Span, mask: u64) -> *mut Span {
    // SAFETY: records of used spans stay mapped.
    let cleared = protocol::publish(unsafe { &(*span).remote }, mask);
    if cleared { span } else { null_mut() }
}

impl MaskBatches {
    /// Keeps the block with `mask`; returns a span that must be queued, or null, as [`send`].
    ///
    /// # Safety
    /// As [`send`].
    #[must_use]
    pub(crate) unsafe fn add(&mut self, span: *mut Span, mask: u64) -> *mut Span {
        let slot = (span.addr() / size_of::<Span>()) % ENTRIES;
        // SAFETY: `slot < ENTRIES`; every mask came with its span from a caller of `add`.
        unsafe {
            let batch = self.0.get_unchecked_mut(slot);
            if batch.span == span {
                batch.mask |= mask;
                batch.left -= 1;
                if batch.left == 0 {
                    batch.span = null_mut();
                    return send(span, batch.mask);
                }
                return null_mut();
            }
            let size = SizeClass::from_index((*span).class).size();
            if 2 * size > STRAND_BYTES {
                return send(span, mask);
            }
            let old = *batch;
            *batch = Batch { span, mask, left: STRAND_BYTES / size - 1 };
            if old.span.is_null() { null_mut() } else { send(old.span, old.mask) }
        }
    }

    /// Sends everything; calls `push` with each span that must be queued.
    pub(crate) fn flush(&mut self, mut push: impl FnMut(*mut Span)) {
        for batch in &mut self.0 {
            if !batch.span.is_null() {
                // SAFETY: as in `add`.
                let span = unsafe { send(batch.span, batch.mask) };
                batch.span = null_mut();
                if !span.is_null() {
                    push(span);
                }
            }
        }
    }
}
