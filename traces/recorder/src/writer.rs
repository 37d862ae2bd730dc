//! From a call to a record in the file.
//!
//! The hot path reserves slots by adding to the thread's cursor, writes them, and commits by
//! writing word 0 of the first slot last. A signal handler may do the same in the middle; the
//! addition is one instruction, so slots are never given twice. Another thread never interferes.
//!
//! Cost: a stamp, one addition, two or six stores.

use core::sync::atomic::{AtomicU64, Ordering, compiler_fence};

use trace_format::v1::raw::{Drop, RawOp, RawRecord, SLOT, UNIT};

use crate::clock;
use crate::file::{Block, Chunk, RECORDING};
use crate::process;
use crate::tls::{self, Thread};

/// Ticks before a thread that got no chunk asks again: some milliseconds.
const RETRY_TICKS: u64 = 1 << 23;
/// Slots that must be free in a parked chunk to be worth taking.
const WORTH_TAKING: usize = 16;

/// The block to record to, if recording is on. Opens the file at the first call.
#[inline(always)]
pub(crate) fn recording() -> Option<&'static Block> {
    let block = match process::block() {
        Some(block) => block,
        None => process::block_or_open(tls::thread()),
    };
    (block.gate.load(Ordering::Relaxed) == RECORDING).then_some(block)
}

/// Writes a record of the short form; [`record`] says the same of any.
#[inline(always)]
pub(crate) fn record_short(block: &Block, op: RawOp, stamp: u64, address: u64, size: u64) {
    if size > 0xffff || address >> 48 != 0 || op.has_argument() {
        return record_any(block, op, stamp, address, size);
    }
    let thread = tls::thread();
    let depth = thread.depth.load(Ordering::Relaxed);
    thread.depth.store(depth + 1, Ordering::Relaxed);
    compiler_fence(Ordering::SeqCst);
    let place = reserve(thread, SLOT);
    let fits = place < thread.end.load(Ordering::Relaxed);
    if fits && thread.owner.get() == core::ptr::from_ref(block).addr() {
        let words = core::ptr::with_exposed_provenance::<AtomicU64>(place);
        // SAFETY: as in `write`; slots are reserved whole, so one that begins before the end fits.
        unsafe {
            (*words.add(1)).store(address << 16 | size, Ordering::Relaxed);
            (*words).store(stamp << 8 | op as u64, Ordering::Release);
        }
    } else {
        short_with_new_chunk(thread, op, stamp, address, size);
    }
    compiler_fence(Ordering::SeqCst);
    thread.depth.store(depth, Ordering::Relaxed);
}

/// [`record_short`] for what needs the long form.
#[cold]
#[inline(never)]
fn record_any(block: &Block, op: RawOp, stamp: u64, address: u64, size: u64) {
    record(block, &RawRecord::short(op, stamp, address, size));
}

#[cold]
#[inline(never)]
fn short_with_new_chunk(thread: &Thread, op: RawOp, stamp: u64, address: u64, size: u64) {
    with_new_chunk(thread, &RawRecord::short(op, stamp, address, size));
}

/// Writes one record, or counts it as dropped.
#[inline(always)]
pub(crate) fn record(block: &Block, record: &RawRecord) {
    let thread = tls::thread();
    let slots = record.slots();
    let depth = thread.depth.load(Ordering::Relaxed);
    thread.depth.store(depth + 1, Ordering::Relaxed);
    compiler_fence(Ordering::SeqCst);
    let address = reserve(thread, slots * SLOT);
    let fits = address.wrapping_add(slots * SLOT) <= thread.end.load(Ordering::Relaxed);
    if fits && thread.owner.get() == core::ptr::from_ref(block).addr() {
        write(address, record);
    } else {
        with_new_chunk(thread, record);
    }
    compiler_fence(Ordering::SeqCst);
    thread.depth.store(depth, Ordering::Relaxed);
}

/// Adds to the cursor and returns what it was, in one instruction.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn reserve(thread: &Thread, bytes: usize) -> usize {
    let mut address = bytes;
    // SAFETY: adds to an aligned word that only this thread and its signal handlers touch; without
    // a lock prefix it is still indivisible for them.
    unsafe {
        core::arch::asm!("xadd qword ptr [{}], {}", in(reg) thread.cursor.as_ptr(),
            inout(reg) address, options(nostack));
    }
    address
}

/// Adds to the cursor and returns what it was.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
fn reserve(thread: &Thread, bytes: usize) -> usize {
    thread.cursor.fetch_add(bytes, Ordering::Relaxed)
}

/// Fills reserved slots.
#[inline(always)]
fn write(address: usize, record: &RawRecord) {
    let words = record.words();
    let slots = core::ptr::with_exposed_provenance::<AtomicU64>(address);
    let put = |index: usize, order: Ordering| {
        // SAFETY: `address` was reserved in the thread's chunk with room for the record's slots,
        // which `index` stays within; the mapping does not change meanwhile (depth is above 0).
        unsafe { (*slots.add(index)).store(words[index], order) };
    };
    if record.slots() > 1 {
        put(2, Ordering::Relaxed);
        put(3, Ordering::Relaxed);
        put(4, Ordering::Relaxed);
        put(5, Ordering::Relaxed);
    }
    put(1, Ordering::Relaxed);
    put(0, Ordering::Release);
}

/// Gets a chunk, then writes `record` to it.
#[cold]
#[inline(never)]
fn with_new_chunk(thread: &Thread, record: &RawRecord) {
    if thread.depth.load(Ordering::Relaxed) > 1 || thread.busy.load(Ordering::Relaxed) != 0 {
        process::count_drop(Drop::Nested);
        return;
    }
    thread.busy.store(1, Ordering::Relaxed);
    compiler_fence(Ordering::SeqCst);
    let block = process::block_or_open(thread);
    if block.gate.load(Ordering::Relaxed) == RECORDING {
        forget_foreign_chunk(thread, block);
        match if thread.ended.get() != 0 {
            None
        } else {
            Some(refill(thread, block, record.before))
        } {
            // Invariant 2 of `Thread`: the record that did not fit reserved behind the end.
            Some(Ok(())) => match reserve_within(thread, record.slots() * SLOT) {
                Some(address) => write(address, record),
                // A signal handler's calls have filled the chunk since it was got.
                None => block.count_drop(Drop::Nested),
            },
            Some(Err(reason)) => block.count_drop(reason),
            None => write_late(thread, block, record),
        }
    }
    compiler_fence(Ordering::SeqCst);
    thread.busy.store(0, Ordering::Relaxed);
}

/// [`reserve`], where the chunk has room.
fn reserve_within(thread: &Thread, bytes: usize) -> Option<usize> {
    let address = reserve(thread, bytes);
    let fits = address.wrapping_add(bytes) <= thread.end.load(Ordering::Relaxed);
    fits.then_some(address)
}

/// The thread's chunk as a value, with `cursor`.
fn chunk_of(thread: &Thread, cursor: usize) -> Chunk {
    let (base, len) = (thread.chunk.get(), thread.chunk_len.get());
    Chunk { base, len, cursor, unit: thread.chunk_unit.get() }
}

/// After a fork: the chunk, the number and who made the thread are the parent's.
fn forget_foreign_chunk(thread: &Thread, block: &Block) {
    let owner = core::ptr::from_ref(block).addr();
    if thread.owner.get() == owner {
        return;
    }
    // First, so that a signal handler finds no room in a chunk that is gone.
    thread.end.store(0, Ordering::Relaxed);
    compiler_fence(Ordering::SeqCst);
    if thread.chunk.get() != 0 {
        // Unmaps this process's view; the parent keeps its own.
        Chunk { unit: usize::MAX, ..chunk_of(thread, 0) }.retire();
    }
    thread.chunk.set(0);
    thread.chunk_len.set(0);
    thread.cursor.store(0, Ordering::Relaxed);
    thread.number.set(0);
    // A thread without an owner is new: what it was told is of this process.
    if thread.owner.get() != 0 {
        thread.parent.set(0);
    }
    thread.ended.set(0);
    thread.retry_at.set(0);
    compiler_fence(Ordering::SeqCst);
    thread.owner.set(owner);
}

/// Gives the thread a chunk with room, and says in it whose slots follow.
fn refill(thread: &Thread, block: &Block, since: u64) -> Result<(), Drop> {
    let start = clock::now();
    if start < thread.retry_at.get() {
        thread.cursor.store(thread.end.load(Ordering::Relaxed), Ordering::Relaxed);
        return Err(Drop::NoSpace);
    }
    let old = chunk_of(thread, 0);
    let chunk = match next_chunk(block, old) {
        Ok(chunk) => chunk,
        Err(reason) => {
            thread.cursor.store(thread.end.load(Ordering::Relaxed), Ordering::Relaxed);
            thread.retry_at.set(start.wrapping_add(RETRY_TICKS));
            return Err(reason);
        }
    };
    // A signal handler may record between any two of these. Until whose slots follow is written, it
    // finds no room.
    thread.end.store(0, Ordering::Relaxed);
    write(chunk.cursor, &whose_slots_follow(thread, block, since));
    thread.chunk.set(chunk.base);
    thread.chunk_len.set(chunk.len);
    thread.chunk_unit.set(chunk.unit);
    compiler_fence(Ordering::SeqCst);
    thread.cursor.store(chunk.cursor + SLOT, Ordering::Relaxed);
    compiler_fence(Ordering::SeqCst);
    thread.end.store(chunk.end(), Ordering::Relaxed);
    block.chunk_ticks.fetch_add(clock::now().wrapping_sub(start), Ordering::Relaxed);
    Ok(())
}

/// A chunk with room, for a thread whose full one is `old`, if it had one.
fn next_chunk(block: &Block, old: Chunk) -> Result<Chunk, Drop> {
    let path = process::path();
    if old.base == 0 {
        return match process::unpark(WORTH_TAKING) {
            Some(chunk) => Ok(chunk),
            None => block.new_chunk(path, UNIT),
        };
    }
    if !block.is_ring() {
        block.move_out(path, &old)?;
        return Ok(old.emptied());
    }
    let mut unit = block.new_chunk(path, UNIT);
    if unit.is_err() && process::retire_parked() {
        unit = block.new_chunk(path, UNIT);
    }
    match unit {
        Ok(chunk) => {
            old.retire();
            Ok(chunk)
        }
        Err(_) => {
            // Threads alive have all the others: the oldest calls that may go are this one's own.
            block.begin_again(&old);
            Ok(old.emptied())
        }
    }
}

/// `ThreadStart` for a thread without a number, which gets one; `ThreadGoesOn` for others. Its
/// stamp is that of the record that follows: getting a chunk takes its time.
fn whose_slots_follow(thread: &Thread, block: &Block, stamp: u64) -> RawRecord {
    let started = thread.number.get() != 0;
    if !started {
        thread.number.set(block.threads.fetch_add(1, Ordering::Relaxed) + 1);
        crate::threads::watch_exit();
    }
    let number = u64::from(thread.number.get() - 1);
    if started {
        RawRecord::short(RawOp::ThreadGoesOn, stamp, number, 0)
    } else {
        RawRecord::short(RawOp::ThreadStart, stamp, number, u64::from(thread.parent.get()))
    }
}

/// Writes a record of a thread whose end was already recorded: libc still frees what was the
/// thread's. The thread owns no chunk any more, so one is borrowed for this record alone.
fn write_late(thread: &Thread, block: &Block, record: &RawRecord) {
    thread.cursor.store(0, Ordering::Relaxed);
    let chunk = match process::unpark(WORTH_TAKING) {
        Some(chunk) => Ok(chunk),
        None => block.new_chunk(process::path(), UNIT),
    };
    match chunk {
        Ok(mut chunk) => {
            write(chunk.cursor, &whose_slots_follow(thread, block, record.before));
            write(chunk.cursor + SLOT, record);
            chunk.cursor += SLOT * (1 + record.slots());
            process::park(chunk);
        }
        Err(reason) => block.count_drop(reason),
    }
}

/// Records the end of the calling thread, also in a pause, and leaves its chunk to others.
pub(crate) fn end_thread() {
    let thread = tls::thread();
    let Some(block) = process::block() else { return };
    let number = thread.number.get();
    if number == 0 || thread.owner.get() != core::ptr::from_ref(block).addr() {
        return;
    }
    let stamp = process::stamp(block);
    record(block, &RawRecord::short(RawOp::ThreadEnd, stamp, u64::from(number - 1), 0));
    thread.busy.store(1, Ordering::Relaxed);
    compiler_fence(Ordering::SeqCst);
    // The end first: a signal handler from here on finds no room, so the cursor stands still.
    let end = thread.end.swap(0, Ordering::Relaxed);
    let cursor = thread.cursor.load(Ordering::Relaxed).min(end);
    let chunk = chunk_of(thread, cursor);
    thread.ended.set(1);
    thread.chunk.set(0);
    thread.chunk_len.set(0);
    if chunk.base != 0 {
        process::park(chunk);
    }
    compiler_fence(Ordering::SeqCst);
    thread.busy.store(0, Ordering::Relaxed);
}

/// Gives the calling thread its number and chunk before its first call; in a pause its owner alone,
/// so that what it was told is not taken for its own in a child that it forks.
pub(crate) fn begin_thread() {
    let thread = tls::thread();
    let block = process::block_or_open(thread);
    thread.busy.store(1, Ordering::Relaxed);
    compiler_fence(Ordering::SeqCst);
    forget_foreign_chunk(thread, block);
    if block.gate.load(Ordering::Relaxed) == RECORDING {
        // Without room the first record tries again, and counts what is lost.
        let _ = refill(thread, block, process::stamp(block));
    }
    compiler_fence(Ordering::SeqCst);
    thread.busy.store(0, Ordering::Relaxed);
}

/// Number of the calling thread in this very process, plus 1; 0 if it has none yet.
pub(crate) fn number() -> u32 {
    let thread = tls::thread();
    match process::block() {
        Some(block) if thread.owner.get() == core::ptr::from_ref(block).addr() => {
            thread.number.get()
        }
        _ => 0,
    }
}
