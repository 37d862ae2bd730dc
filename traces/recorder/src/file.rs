//! The raw file: its first page, and chunks as mappings of it. Layout: `trace_format::v1::raw`.
//!
//! A thread maps one chunk and fills it again and again: when it is full, its bytes are copied to
//! a new place of the file by one `pwrite`, and the mapping, whose pages are in the caches and in
//! the page table, is emptied. A mapping that moves on instead costs a fault, a page table entry and
//! a journal entry per 256 calls, more than all the rest. Whatever moment a kill comes at, the chunk
//! or its copy is whole; where both are, they carry one ordinal, and readers take the first.
//!
//! No descriptor is kept: programs close all they find, and reuse the numbers. The file is opened
//! again by its path for every chunk, about 10 µs for some thousands of records.

use core::ffi::CStr;
use core::mem::offset_of;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering, compiler_fence};

use trace_format::v1::file::{FileHeader, RAW, TIMES};
use trace_format::v1::raw::{self, Drop};

use crate::clock;
use crate::sys::{self, Errno};

/// The process block, in its page. Shared with the file; fields that change are atomics.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Block {
    header: [u8; FileHeader::LEN],
    _gap: [u8; raw::BLOCK_AT - FileHeader::LEN],
    pub(crate) pid: AtomicU32,
    parent: AtomicU32,
    fork_stamp: AtomicU64,
    pub(crate) first_ticks: AtomicU64,
    first_ns: AtomicU64,
    real_ns: AtomicU64,
    last_ticks: AtomicU64,
    last_ns: AtomicU64,
    next_offset: AtomicU64,
    pub(crate) threads: AtomicU32,
    pub(crate) gate: AtomicU32,
    clock: AtomicU32,
    pub(crate) one_in: AtomicU32,
    drops: [AtomicU64; 8],
    record_ps: AtomicU64,
    pub(crate) chunk_ticks: AtomicU64,
    chunks: AtomicU64,
    limit: AtomicU64,
    ring: AtomicU32,
    image: AtomicU32,
    _rest: [u8; raw::COMMAND_AT - 248],
    command: [u8; raw::PAGE - raw::COMMAND_AT],
}

const _: () = {
    assert!(size_of::<Block>() == raw::PAGE);
    assert!(offset_of!(Block, pid) == raw::BLOCK_AT);
    assert!(offset_of!(Block, next_offset) == 120);
    assert!(offset_of!(Block, gate) == raw::GATE_AT as usize);
    assert!(offset_of!(Block, drops) == 144);
    assert!(offset_of!(Block, image) == 244);
    assert!(offset_of!(Block, command) == raw::COMMAND_AT);
};

/// `gate`: records are written.
pub(crate) use trace_format::v1::raw::GATE_OPEN as RECORDING;

/// What a new file says about its process.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) pid: u32,
    pub(crate) parent: u32,
    pub(crate) fork_stamp: u64,
    pub(crate) image: u32,
}

/// What the user asked for; read once from the environment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) one_in: u32,
    pub(crate) limit: u64,
    pub(crate) ring: bool,
    pub(crate) paused: bool,
}

/// Bytes of a chunk's header.
const HEADER: usize = trace_format::v1::ChunkHeader::LEN;

/// A chunk to write slots into.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chunk {
    /// Address of the mapping.
    pub(crate) base: usize,
    /// Its length.
    pub(crate) len: usize,
    /// Address of the next free slot.
    pub(crate) cursor: usize,
    /// Place in the file, counted in units; matters in ring mode only.
    pub(crate) unit: usize,
}

/// Ring mode: which units of the file a thread, or nobody any more, writes to.
static IN_USE: [AtomicU8; MAX_RING] = [const { AtomicU8::new(0) }; MAX_RING];
/// Units a ring has at most: 4 GiB.
const MAX_RING: usize = 1 << 16;

impl Chunk {
    /// Address behind the last slot.
    pub(crate) fn end(&self) -> usize {
        self.base + HEADER + (self.len - HEADER) / raw::SLOT * raw::SLOT
    }

    /// The same chunk, to be filled from its first slot on.
    pub(crate) fn emptied(self) -> Chunk {
        Chunk { cursor: self.base + HEADER, ..self }
    }

    /// Gives the mapping back; what was written is the file's.
    pub(crate) fn retire(self) {
        if let Some(used) = IN_USE.get(self.unit) {
            used.store(0, Ordering::Release);
        }
        if let Some(base) = NonNull::new(core::ptr::with_exposed_provenance_mut(self.base)) {
            // SAFETY: `base` and `len` come from `map_shared` in `Block::new_chunk`, and the only
            // owner of the chunk gives it up here.
            unsafe { sys::unmap(base, self.len) };
        }
    }
}

impl Block {
    /// Creates a raw file and maps its first page, which stays mapped to the end of the process.
    ///
    /// # Errors
    /// There is such a file, or no room for it, also by the system's limit of a file's size; then
    /// none is left behind.
    pub(crate) fn create(
        path: &CStr,
        origin: &Origin,
        options: &Options,
    ) -> Result<&'static Block, Errno> {
        if sys::file_size_limit() < raw::PAGE {
            return Err(Errno(libc::EFBIG));
        }
        let fd = sys::open(path, libc::O_RDWR | libc::O_CREAT | libc::O_EXCL)?;
        let page = sys::reserve(&fd, 0, raw::PAGE)
            .and_then(|()| sys::map_shared(&fd, 0, raw::PAGE))
            .inspect_err(|_| sys::unlink(path))?;
        let header = FileHeader { features: RAW | TIMES }.encode();
        // SAFETY: `page` is a fresh writable page nobody else knows.
        unsafe { page.as_ptr().cast::<[u8; FileHeader::LEN]>().write(header) };
        read_command(page);
        // SAFETY: page-aligned, PAGE bytes, initialised, never unmapped; other threads learn of it
        // only through a store that follows, and change it only through atomics.
        let block = unsafe { page.cast::<Block>().as_ref() };
        for used in IN_USE.iter().take(if options.ring { MAX_RING } else { 0 }) {
            used.store(0, Ordering::Relaxed);
        }
        block.pid.store(origin.pid, Ordering::Relaxed);
        block.parent.store(origin.parent, Ordering::Relaxed);
        block.fork_stamp.store(origin.fork_stamp, Ordering::Relaxed);
        block.image.store(origin.image, Ordering::Relaxed);
        block.next_offset.store(raw::PAGE as u64, Ordering::Relaxed);
        block.clock.store(u32::from(clock::choose()), Ordering::Relaxed);
        block.one_in.store(options.one_in, Ordering::Relaxed);
        block.limit.store(options.limit, Ordering::Relaxed);
        block.ring.store(u32::from(options.ring), Ordering::Relaxed);
        block.first_ticks.store(clock::now(), Ordering::Relaxed);
        block.first_ns.store(sys::clock_ns(libc::CLOCK_MONOTONIC), Ordering::Relaxed);
        // Also keeps the first comparison of the clocks apart from the second.
        block.record_ps.store(try_records(), Ordering::Relaxed);
        block.real_ns.store(sys::clock_ns(libc::CLOCK_REALTIME), Ordering::Relaxed);
        block.compare_clocks();
        let gate = if options.paused { raw::GATE_PAUSED } else { RECORDING };
        block.gate.store(gate, Ordering::Relaxed);
        Ok(block)
    }

    /// Notes how the tick counter stands against the clock, so that readers can convert.
    pub(crate) fn compare_clocks(&self) {
        self.last_ticks.store(clock::now(), Ordering::Relaxed);
        self.last_ns.store(sys::clock_ns(libc::CLOCK_MONOTONIC), Ordering::Relaxed);
    }

    /// Counts an event that is not recorded.
    pub(crate) fn count_drop(&self, reason: Drop) {
        self.drops[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Whether chunks must be of one length, because they are used again.
    pub(crate) fn is_ring(&self) -> bool {
        self.ring.load(Ordering::Relaxed) != 0
    }

    /// Appends a chunk of `len` bytes to the file at `path` and maps it, or in ring mode takes the
    /// oldest one that nobody writes to.
    pub(crate) fn new_chunk(&self, path: &CStr, len: usize) -> Result<Chunk, Drop> {
        if self.is_ring() {
            return self.next_of_ring(path);
        }
        let offset = self.take_offset(len)?;
        let give_up = |reason| {
            self.give_back(offset, len);
            reason
        };
        let chunk = self.map_chunk(path, offset, len).map_err(give_up)?;
        self.begin_chunk(chunk.base, len);
        Ok(chunk)
    }

    /// Copies a full `chunk` to a new place of the file at `path`, and empties it.
    ///
    /// # Errors
    /// There is no room; then the chunk is as it was.
    pub(crate) fn move_out(&self, path: &CStr, chunk: &Chunk) -> Result<(), Drop> {
        let offset = self.take_offset(chunk.len)?;
        if let Err((written, reason)) = copy_chunk(path, chunk, offset) {
            if written == 0 {
                self.give_back(offset, chunk.len);
            }
            return Err(reason);
        }
        self.begin_again(chunk);
        Ok(())
    }

    /// Empties a chunk whose place in the file stays what it is, and makes it another one.
    pub(crate) fn begin_again(&self, chunk: &Chunk) {
        let words = core::ptr::with_exposed_provenance::<AtomicU64>(chunk.base);
        let slots = core::ptr::with_exposed_provenance_mut::<u8>(chunk.base + HEADER);
        // SAFETY: the chunk is a writable mapping of `len` bytes that only the caller uses. Without
        // its first word it is no chunk to readers, until `begin_chunk` makes it another one: so a
        // kill in between leaves the copy alone.
        unsafe {
            (*words).store(0, Ordering::Relaxed);
            compiler_fence(Ordering::SeqCst);
            slots.write_bytes(0, chunk.len - HEADER);
        }
        compiler_fence(Ordering::SeqCst);
        self.begin_chunk(chunk.base, chunk.len);
    }

    /// Offers a place that was taken and not written to again, unless another was taken behind it.
    fn give_back(&self, offset: usize, len: usize) {
        let (ours, behind) = (offset as u64, (offset + len) as u64);
        let order = Ordering::Relaxed;
        let _ = self.next_offset.compare_exchange(behind, ours, order, order);
    }

    /// Reserves room in the file and maps it. Nothing is written.
    fn map_chunk(&self, path: &CStr, offset: usize, len: usize) -> Result<Chunk, Drop> {
        let fd = sys::open(path, libc::O_RDWR | libc::O_NOFOLLOW).map_err(|_| Drop::NoFile)?;
        sys::reserve(&fd, offset, len).map_err(|_| Drop::NoSpace)?;
        let base = sys::map_shared(&fd, offset, len).map_err(|_| Drop::NoFile)?;
        let base = base.as_ptr().expose_provenance();
        Ok(Chunk { base, len, cursor: base + HEADER, unit: usize::MAX })
    }

    /// Writes the header of a fresh chunk, and uses the occasion to compare the clocks.
    fn begin_chunk(&self, base: usize, len: usize) {
        let ordinal = self.chunks.fetch_add(1, Ordering::Relaxed);
        let header = raw::chunk_header(len, ordinal).encode();
        let place = core::ptr::with_exposed_provenance::<AtomicU64>(base);
        let mut words = [0u64; HEADER / 8];
        for (word, bytes) in words.iter_mut().zip(header.as_chunks().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        for (index, &word) in words.iter().enumerate().rev() {
            // The first word last: with it the chunk begins to exist.
            compiler_fence(Ordering::SeqCst);
            // SAFETY: `base` is a writable mapping of at least UNIT bytes that only the caller uses,
            // and the index stays within the header.
            unsafe { (*place.add(index)).store(word, Ordering::Relaxed) };
        }
        self.compare_clocks();
    }

    /// Takes the oldest unit of the ring that nobody writes to, and forgets what it held.
    fn next_of_ring(&self, path: &CStr) -> Result<Chunk, Drop> {
        let room = (self.limit.load(Ordering::Relaxed) as usize).saturating_sub(raw::PAGE);
        let units = (room / raw::UNIT).clamp(1, MAX_RING);
        for _ in 0..units {
            // Bytes handed out so far tell whose turn it is.
            let turn = self.next_offset.fetch_add(raw::UNIT as u64, Ordering::Relaxed) as usize;
            let unit = (turn - raw::PAGE) / raw::UNIT % units;
            let Some(used) = IN_USE.get(unit) else { continue };
            if used.swap(1, Ordering::Acquire) != 0 {
                continue;
            }
            let offset = raw::PAGE + unit * raw::UNIT;
            if offset + raw::UNIT > sys::file_size_limit() {
                used.store(0, Ordering::Relaxed);
                return Err(Drop::Limit);
            }
            let chunk = match self.map_chunk(path, offset, raw::UNIT) {
                Ok(chunk) => Chunk { unit, ..chunk },
                Err(reason) => {
                    used.store(0, Ordering::Relaxed);
                    return Err(reason);
                }
            };
            self.begin_again(&chunk);
            return Ok(chunk);
        }
        Err(Drop::Limit)
    }

    fn take_offset(&self, len: usize) -> Result<usize, Drop> {
        let limit = match self.limit.load(Ordering::Relaxed) {
            0 => usize::MAX,
            limit => limit as usize,
        };
        let limit = limit.min(sys::file_size_limit());
        let mut offset = self.next_offset.load(Ordering::Relaxed);
        loop {
            let behind = offset + len as u64;
            if behind as usize > limit {
                return Err(Drop::Limit);
            }
            let order = Ordering::Relaxed;
            match self.next_offset.compare_exchange_weak(offset, behind, order, order) {
                Ok(_) => return Ok(offset as usize),
                Err(current) => offset = current,
            }
        }
    }
}

/// Writes the bytes of `chunk` to `offset` of the file at `path`, its header last: half a copy is no
/// chunk to readers. On failure says how many bytes were written.
fn copy_chunk(path: &CStr, chunk: &Chunk, offset: usize) -> Result<(), (usize, Drop)> {
    let fd = sys::open(path, libc::O_RDWR | libc::O_NOFOLLOW).map_err(|_| (0, Drop::NoFile))?;
    let (slots, len) = (chunk.base + HEADER, chunk.len - HEADER);
    let no_space = |written| (written, Drop::NoSpace);
    // SAFETY: both are parts of the chunk, a mapping that only the caller uses.
    unsafe {
        sys::write_at(&fd, slots, len, offset + HEADER).map_err(no_space)?;
        sys::write_at(&fd, chunk.base, HEADER, offset)
            .map_err(|written| (len + written, Drop::NoSpace))
    }
}

/// Copies /proc/self/cmdline into its place of a first page.
fn read_command(page: NonNull<u8>) {
    let mut text = [0u8; raw::PAGE - raw::COMMAND_AT];
    let Ok(fd) = sys::open(c"/proc/self/cmdline", libc::O_RDONLY) else { return };
    if sys::read(&fd, &mut text).is_ok() {
        // SAFETY: the destination is the end of the page, exactly as long as `text`.
        unsafe { page.as_ptr().add(raw::COMMAND_AT).cast::<[u8; 3584]>().write(text) };
    }
}

/// Picoseconds that a stamp and a record take on this machine now. Takes about 30 µs.
fn try_records() -> u64 {
    const SLOTS: usize = 128;
    const ROUNDS: u64 = 8;
    static SCRATCH: [[AtomicU64; 2]; SLOTS] = [const { [const { AtomicU64::new(0) }; 2] }; SLOTS];
    let start = sys::clock_ns(libc::CLOCK_MONOTONIC);
    for round in 0..ROUNDS {
        for slot in &SCRATCH {
            slot[1].store(round, Ordering::Relaxed);
            slot[0].store(clock::now(), Ordering::Release);
        }
    }
    let ns = sys::clock_ns(libc::CLOCK_MONOTONIC) - start;
    ns * 1000 / (ROUNDS * SLOTS as u64)
}
