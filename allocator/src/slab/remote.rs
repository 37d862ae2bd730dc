//! Blocks freed by a thread that does not own them, and the limbo of spans that nobody owns.
//!
//! # A span's two states
//! *Owned*: its `owner` is a heap. Only that heap's thread touches the plain fields of the record
//! and the links of its free blocks. `remote` collects what others free.
//!
//! *In limbo*: no block was free when its owner let go of it. `owner` is `heap | 1`, which matches
//! no thread. Nobody touches the plain fields; everybody, the former owner too, frees through
//! `remote`. It leaves limbo in one of two ways:
//! - The former owner's thread frees a block of it and wins the CAS from FULL to 0: it owns the
//!   span from there on.
//! - Another thread's CAS replaces FULL by blocks: that thread links the span into the former
//!   owner's [`LimboQueue`], and whoever takes the queue owns the spans in it.
//!
//! So **whoever clears FULL decides about the span, and whoever takes a queue owns what is in it.**
//! A queue may be taken by any thread, because no field of a span in limbo is anybody's: a busy
//! thread reuses what was freed for a sleeping one.
//!
//! # Blocks travel as numbers
//! Linking each freed block into a list would move its cache line to the freeing thread and back.
//! Their 16-bit numbers (offset / 16) wait in the freeing thread's [`RemoteBatches`] and are then
//! written into one of the blocks, the *carrier*; carriers are chained, and one CAS publishes them.
//! `remote` holds `(number of the first carrier + 1) << 16`, or `FULL`, or 0.
//!
//! Cost: a compare, a store and a count per block; a CAS per batch of up to 4 KiB of blocks.

use core::ptr::null_mut;

use super::protocol::{self, Queue};
use super::{Block, MAX_SLAB, SizeClass};
use crate::segment::{Span, slice_of};
use crate::sync::Ordering;
use crate::units::{MIN_ALIGN, SLICE, TRAILER};

const _: () = assert!(SLICE / MIN_ALIGN < 1 << 16, "a block's number plus one fits 16 bits");

/// Spans on their way from limbo to whoever takes the queue.
pub(crate) type LimboQueue = Queue<Span>;

impl LimboQueue {
    /// Links a span whose FULL the caller cleared.
    ///
    /// # Safety
    /// The caller's own CAS cleared the span's FULL, and it pushes the span once.
    pub(crate) unsafe fn push(&self, span: *mut Span) {
        // SAFETY: between clearing FULL and the exchange that publishes it the link is the caller's.
        self.link(span, |next| unsafe { (*span).next = next });
    }
}

/// What the owner found in `remote`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    /// Blocks put on the span's free list.
    pub(crate) blocks: u32,
}

/// Puts a span into limbo. False if blocks arrived meanwhile: then it is still the caller's.
///
/// # Safety
/// The caller owns the span, whose local list is empty, and forgets it if this returns true.
pub(super) unsafe fn enter_limbo(span: *mut Span, heap: usize, alone: bool) -> bool {
    // SAFETY: records of used spans stay mapped.
    unsafe { protocol::enter(&(*span).owner, &(*span).remote, heap, alone) }
}

/// Takes a span of the caller's heap back out of limbo, if nobody else did before.
///
/// # Safety
/// The caller's thread owns `heap` and holds a block of the span, so the span is in use.
pub(crate) unsafe fn leave_limbo(span: *mut Span, heap: usize, alone: bool) -> bool {
    // SAFETY: records of used spans stay mapped.
    unsafe { protocol::leave(&(*span).owner, &(*span).remote, heap, alone) }
}

/// Moves what others freed onto the span's local list.
///
/// # Safety
/// The caller owns the span.
pub(super) unsafe fn collect(span: *mut Span) -> Taken {
    // SAFETY: the acquire pairs with the release in `send`, so the carriers' contents and the
    // freed blocks are the caller's. Numbers were taken from blocks of this very slice.
    unsafe {
        let base = slice_of(span);
        let mut carrier = protocol::take(&(*span).remote) as usize;
        let mut head = (*span).free as usize as *mut Block;
        let mut blocks = 0;
        while carrier != 0 {
            let block = base.add((carrier - 1) * MIN_ALIGN);
            let words = block.cast::<u16>();
            let (next, count) = (words.read() as usize, words.add(1).read() as usize);
            for i in 0..count {
                let freed = base.add(words.add(2 + i).read() as usize * MIN_ALIGN).cast::<Block>();
                Block::set_next(freed, head);
                head = freed;
            }
            if cfg!(feature = "hardened") {
                // Nothing but the link stays in a block, and whoever hands it out takes that away.
                words.write_bytes(0, 2 + count);
            }
            let block = block.cast::<Block>();
            Block::set_next(block, head);
            head = block;
            blocks += count as u32 + 1;
            carrier = next;
        }
        (*span).free = head as u64;
        Taken { blocks }
    }
}

/// Blocks that others freed and nobody took yet.
///
/// # Safety
/// The caller owns the span.
pub(super) unsafe fn waiting(span: *mut Span) -> u32 {
    // SAFETY: as in `collect`; what is published stays as it is until it is taken, which is the owner's.
    unsafe {
        let base = slice_of(span);
        let mut carrier = ((*span).remote.load(Ordering::Acquire) >> 16) as usize;
        let mut blocks = 0;
        while carrier != 0 {
            let words = base.add((carrier - 1) * MIN_ALIGN).cast::<u16>();
            blocks += u32::from(words.add(1).read()) + 1;
            carrier = words.read() as usize;
        }
        blocks
    }
}

/// Publishes freed blocks by their numbers. True if this cleared FULL: then the caller must push
/// the span into the queue of the heap that `owner` names *now*.
///
/// # Safety
/// Each number is that of a block of `span` that the caller has just freed.
pub(super) unsafe fn send(span: *mut Span, numbers: &[u16]) -> bool {
    // SAFETY: freed blocks are the caller's until the exchange; they hold at least 16 bytes, and
    // `per_carrier` fills one exactly.
    unsafe {
        let base = slice_of(span);
        let size = SizeClass::from_index((*span).class).size();
        let per_carrier = (size - TRAILER) / size_of::<u16>() - 2;
        let mut head = 0u16;
        let mut tail: *mut u16 = null_mut();
        let mut rest = numbers;
        while let Some((&carrier, others)) = rest.split_first() {
            let (inside, later) = others.split_at(per_carrier.min(others.len()));
            let words = base.add(carrier as usize * MIN_ALIGN).cast::<u16>();
            words.write(head);
            words.add(1).write(inside.len() as u16);
            words.add(2).copy_from_nonoverlapping(inside.as_ptr(), inside.len());
            if tail.is_null() {
                tail = words;
            }
            head = carrier + 1;
            rest = later;
        }
        if tail.is_null() {
            return false;
        }
        protocol::publish(&(*span).remote, head, |before| tail.write(before))
    }
}

const ENTRIES: usize = 8;
/// Room of one batch; bounds what a thread that only frees can keep back.
const NUMBERS: usize = 56;
/// Bytes of blocks after which a batch is sent.
const STRAND_BYTES: usize = 4096;
const _: () = assert!(STRAND_BYTES / MAX_SLAB >= 2, "a fresh batch is never full");

#[derive(Debug)]
#[repr(C)]
struct Batch {
    span: *mut Span,
    len: u16,
    limit: u16,
    numbers: [u16; NUMBERS],
}

/// Numbers of blocks this thread freed for other threads and has not yet sent.
#[derive(Debug)]
pub(crate) struct RemoteBatches([Batch; ENTRIES]);

/// The number of `block` within its slice.
#[inline(always)]
fn number_of(block: *mut u8) -> u16 {
    ((block.addr() & (SLICE - 1)) / MIN_ALIGN) as u16
}

impl RemoteBatches {
    /// Keeps `block` for its span; returns a span whose FULL a sending cleared, which the caller
    /// must push into its owner's queue, or null.
    ///
    /// # Safety
    /// The caller has just freed `block`, a block of the slab span `span`, and owns neither.
    #[inline]
    #[must_use]
    pub(crate) unsafe fn add(&mut self, span: *mut Span, block: *mut u8) -> *mut Span {
        let slot = (span.addr() / size_of::<Span>()) % ENTRIES;
        // SAFETY: `slot < ENTRIES`; `len < limit <= NUMBERS` holds whenever a batch has a span.
        unsafe {
            let batch = self.0.get_unchecked_mut(slot);
            let mut cleared = null_mut();
            if batch.span != span {
                cleared = batch.flush();
                batch.span = span;
                // No size is 0, but the compiler does not know.
                let size = SizeClass::from_index((*span).class).size().max(1);
                batch.limit = (STRAND_BYTES / size).clamp(1, NUMBERS) as u16;
            }
            *batch.numbers.get_unchecked_mut(batch.len as usize) = number_of(block);
            batch.len += 1;
            if batch.len >= batch.limit {
                // Not a fresh batch (assertion above), so nothing was cleared before.
                cleared = batch.flush();
            }
            cleared
        }
    }

    /// Sends everything; calls `push` with each span that must be queued.
    pub(crate) fn flush(&mut self, mut push: impl FnMut(*mut Span)) {
        for batch in &mut self.0 {
            let span = batch.flush();
            batch.span = null_mut();
            if !span.is_null() {
                push(span);
            }
        }
    }
}

impl Batch {
    /// Sends the batch; its span if that cleared FULL, else null.
    fn flush(&mut self) -> *mut Span {
        let numbers = self.numbers.get(..self.len as usize).unwrap_or(&[]);
        self.len = 0;
        // SAFETY: `add` took each number from a block of `span` that its caller had freed.
        if !numbers.is_empty() && unsafe { send(self.span, numbers) } {
            return self.span;
        }
        null_mut()
    }
}

/// Sends one block without a batch, for threads that have no heap. As [`RemoteBatches::add`].
///
/// # Safety
/// As [`RemoteBatches::add`].
pub(crate) unsafe fn send_one(span: *mut Span, block: *mut u8) -> *mut Span {
    // SAFETY: the caller's promise.
    if unsafe { send(span, &[number_of(block)]) } { span } else { null_mut() }
}

#[cfg(test)]
mod tests;
