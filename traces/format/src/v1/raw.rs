//! Raw files: what a recorder writes while the program runs, readable after a crash.
//!
//! ```text
//! page        4096 bytes: file header (features RAW), process block at 64, command line at 512
//! chunk …     each begins at a multiple of 64 KiB after the page and is a multiple of 64 KiB long:
//!             64-byte chunk header (kind 1; stored length = bytes of slots), then slots
//! ```
//! A chunk's first sequence number is its ordinal, which no two chunks share, but for a chunk and its
//! copy: a recorder that was killed while moving a full chunk leaves both, and the first one counts.
//! What does not begin with a sound chunk header is skipped, 64 KiB at a time. The first eight bytes
//! of a chunk are cleared before the rest and written after it: where they are zero there was no
//! chunk, and where they are not, nor is the header sound, the file is damaged.
//!
//! A *slot* is two u64. Word 0 is `stamp << 8 | operation`; a slot whose word 0 is zero was never
//! committed, and readers skip it. In the *short* form word 1 is `address << 16 | size`. The *long*
//! form has bit 7 of the operation set and takes three slots:
//! ```text
//! slot 0   stamp << 8 | 80 | operation        address
//! slot 1   stamp before the call << 8 | FF    further argument
//! slot 2   FF                                 size
//! ```
//! It is used where the table names a further argument, where the size is above 65,535, or where
//! the address takes more than 48 bits. Word 0 of the first slot is written last, so what a reader
//! sees is whole.
//!
//! | # | operation | address | size | further argument |
//! |---|---|---|---|---|
//! | 1 | malloc | result | size | |
//! | 2 | calloc | result | size | count |
//! | 3 | realloc | result | size | old |
//! | 4–9 | memalign, aligned_alloc, posix_memalign, valloc, pvalloc, C++ new | result | size | alignment |
//! | 10 | free | address | 0 | |
//! | 11 | sized free | address | stated size | |
//! | 12 | usable size | address | 0 | |
//! | 16 | thread start: the following slots are its | thread | parent + 1, 0 unknown | |
//! | 17 | thread goes on: the following slots are its | thread | 0 | |
//! | 18 | thread end | thread | 0 | |
//! | 19 | fork | 0 | 0 | |
//! | 20 | marker | value | 0 | |
//!
//! A stamp is a 56-bit count of clock ticks, or of calls, since the file was made. It is taken
//! before a release and after an allocation, so that sorting by stamp puts every release of an
//! address before the allocation that gets it again. Slots of one thread stand in the order in
//! which they were reserved; a signal handler's may precede those of the call it interrupted.
//!
//! The process block, all fields little-endian:
//! ```text
//! offset size (from the start of the file)
//!  64     4    process id              68   4   process id of the recorded parent, 0 if none
//!  72     8    stamp of the fork in the parent's count, 0 if none
//!  80     8    tick counter when the file was made
//!  88     8    CLOCK_MONOTONIC then, ns
//!  96     8    CLOCK_REALTIME then, ns
//! 104     8    tick counter at the latest comparison
//! 112     8    CLOCK_MONOTONIC then, ns
//! 120     8    next free file offset
//! 128     4    number of threads so far
//! 132     4    gate: 1 recording, 2 paused
//! 136     4    clock: 1 time stamp counter, 2 count of calls
//! 140     4    objects sampled: one in this many, 0 and 1 mean all
//! 144  8×8    events dropped, by reason: see `Drop`
//! 208     8    picoseconds that writing one record took when tried at the start
//! 216     8    ticks spent on getting chunks
//! 224     8    chunks taken (ring mode reuses the oldest)
//! 232     8    limit of the file's size in bytes, 0 for none
//! 240     4    1 if the oldest chunk is reused when the limit is reached (ring)
//! 244     4    number of images this process had before (exec)
//! 512  3584    command line as in /proc/self/cmdline, cut to fit, then zeros
//! ```

use super::file::{ChunkHeader, ChunkKind, Compression, SEVERAL_THREADS};

/// Bytes before the first chunk.
pub const PAGE: usize = 4096;
/// Every chunk is a multiple of this long, and begins at such a multiple after the page.
pub const UNIT: usize = 64 << 10;
/// The largest chunk.
pub const MAX_CHUNK: usize = 16 * UNIT;
/// Bytes of one slot.
pub const SLOT: usize = 16;
/// Bit of the operation byte that marks the long form.
pub const LONG: u8 = 0x80;
/// Slots of the long form.
pub const LONG_SLOTS: usize = 3;
/// Operation byte of the further slots of the long form.
pub const EXTENSION: u8 = 0xff;
/// Where the process block begins.
pub const BLOCK_AT: usize = 64;
/// Where the command line begins.
pub const COMMAND_AT: usize = 512;
/// Where the gate stands.
pub const GATE_AT: u64 = 132;
/// Gate: records are written.
pub const GATE_OPEN: u32 = 1;
/// Gate: nothing is written until it is opened.
pub const GATE_PAUSED: u32 = 2;
/// Stamps are counted modulo this.
pub const STAMP_BITS: u32 = 56;

/// Operation byte of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "named after the C functions; the table above explains the rest")]
pub enum RawOp {
    Malloc = 1,
    Calloc = 2,
    Realloc = 3,
    Memalign = 4,
    AlignedAlloc = 5,
    PosixMemalign = 6,
    Valloc = 7,
    Pvalloc = 8,
    CxxNew = 9,
    Free = 10,
    FreeSized = 11,
    UsableSize = 12,
    ThreadStart = 16,
    ThreadGoesOn = 17,
    ThreadEnd = 18,
    Fork = 19,
    Marker = 20,
}

impl RawOp {
    /// The operation with this byte.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<RawOp> {
        use RawOp::{
            AlignedAlloc, Calloc, CxxNew, Fork, Free, FreeSized, Malloc, Marker, Memalign,
            PosixMemalign, Pvalloc, Realloc, ThreadEnd, ThreadGoesOn, ThreadStart, UsableSize,
            Valloc,
        };
        [
            Malloc,
            Calloc,
            Realloc,
            Memalign,
            AlignedAlloc,
            PosixMemalign,
            Valloc,
            Pvalloc,
            CxxNew,
            Free,
            FreeSized,
            UsableSize,
            ThreadStart,
            ThreadGoesOn,
            ThreadEnd,
            Fork,
            Marker,
        ]
        .into_iter()
        .find(|op| *op as u8 == byte)
    }

    /// Whether it has a further argument, and so always takes the long form.
    #[must_use]
    #[inline(always)]
    pub fn has_argument(self) -> bool {
        matches!(self as u8, 2..=9)
    }
}

/// Why an event was not recorded: index of its counter in the process block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Drop {
    /// The file system had no room for another chunk.
    NoSpace = 0,
    /// The file could not be opened again, or not be mapped.
    NoFile = 1,
    /// The size limit was reached.
    Limit = 2,
    /// The call came from a signal handler while its thread was getting a chunk, or was interrupted
    /// there by so many that they filled the chunk.
    Nested = 3,
}

/// Names of the drop counters, in the order of [`Drop`].
pub const DROP_NAMES: [&str; 4] = ["no space", "no file", "size limit", "nested in a signal"];

/// One operation, put together from its slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawRecord {
    /// What it is.
    pub op: RawOp,
    /// When it took effect, in ticks.
    pub stamp: u64,
    /// The address.
    pub address: u64,
    /// The size.
    pub size: u64,
    /// The further argument.
    pub extra: u64,
    /// When the call began; `stamp` in the short form.
    pub before: u64,
}

impl RawRecord {
    /// How many slots it takes.
    #[must_use]
    #[inline(always)]
    pub fn slots(&self) -> usize {
        let fits = self.size <= 0xffff && self.address >> 48 == 0;
        if fits && !self.op.has_argument() { 1 } else { LONG_SLOTS }
    }

    /// The words of its slots; those of the short form are the first two.
    #[must_use]
    #[inline(always)]
    pub fn words(&self) -> [u64; 2 * LONG_SLOTS] {
        let extension = u64::from(EXTENSION);
        if self.slots() == 1 {
            [self.stamp << 8 | self.op as u64, self.address << 16 | self.size, 0, 0, 0, 0]
        } else {
            let head = self.stamp << 8 | u64::from(LONG | self.op as u8);
            let before = self.before << 8 | extension;
            [head, self.address, before, self.extra, extension, self.size]
        }
    }

    /// An operation without further argument.
    #[must_use]
    #[inline(always)]
    pub fn short(op: RawOp, stamp: u64, address: u64, size: u64) -> RawRecord {
        RawRecord { op, stamp, address, size, extra: 0, before: stamp }
    }
}

/// What stands at a position of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// A whole operation.
    Record(RawRecord),
    /// Reserved and never committed, or never reserved.
    Empty,
    /// No operation has this byte: the file is damaged here.
    Unknown,
}

fn word(bytes: &[u8], index: usize) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[8 * index..8 * index + 8]);
    u64::from_le_bytes(eight)
}

/// Takes one slot, or the three of the long form, from the front of `input`; `None` if less than
/// a slot is left.
pub fn take_slot(input: &mut &[u8]) -> Option<Slot> {
    if input.len() < SLOT {
        return None;
    }
    let (head, word_1) = (word(input, 0), word(input, 1));
    *input = &input[SLOT..];
    let byte = head as u8;
    // The rest of a long form whose first slot was never committed is no damage.
    if head == 0 || byte == EXTENSION {
        return Some(Slot::Empty);
    }
    let Some(op) = RawOp::from_byte(byte & !LONG) else { return Some(Slot::Unknown) };
    let stamp = head >> 8;
    if byte & LONG == 0 {
        let short = RawRecord::short(op, stamp, word_1 >> 16, word_1 & 0xffff);
        return Some(if op.has_argument() { Slot::Unknown } else { Slot::Record(short) });
    }
    let further = (LONG_SLOTS - 1) * SLOT;
    if input.len() < further || input[0] != EXTENSION || input[SLOT] != EXTENSION {
        return Some(Slot::Unknown);
    }
    let (before, extra, size) = (word(input, 0) >> 8, word(input, 1), word(input, 3));
    *input = &input[further..];
    Some(Slot::Record(RawRecord { op, stamp, address: word_1, size, extra, before }))
}

/// The header of a raw chunk that is `len` bytes long in all and the `ordinal`-th of its file.
#[must_use]
pub fn chunk_header(len: usize, ordinal: u64) -> ChunkHeader {
    let slots = (len - ChunkHeader::LEN) / SLOT * SLOT;
    ChunkHeader {
        kind: ChunkKind::Raw,
        compression: Compression::None,
        thread: SEVERAL_THREADS,
        count: 0,
        first_sequence: ordinal,
        first_object: 1,
        base_time: 0,
        stored_len: slots as u32,
        plain_len: slots as u32,
        checksum: 0,
    }
}

/// Length of the whole chunk behind `header`, or `None` if no recorder would write it.
#[must_use]
pub fn chunk_len(header: &ChunkHeader) -> Option<usize> {
    let len = (ChunkHeader::LEN + header.stored_len as usize).next_multiple_of(UNIT);
    let sound = header.kind == ChunkKind::Raw
        && len <= MAX_CHUNK
        && (len - ChunkHeader::LEN) / SLOT * SLOT == header.stored_len as usize;
    sound.then_some(len)
}

/// The process block, as a reader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessBlock {
    /// Process id.
    pub pid: u32,
    /// Process id of the recorded parent, 0 if none.
    pub parent: u32,
    /// Stamp of the fork in the parent's count.
    pub fork_stamp: u64,
    /// Tick counter when the file was made.
    pub first_ticks: u64,
    /// `CLOCK_MONOTONIC` then, ns.
    pub first_ns: u64,
    /// `CLOCK_REALTIME` then, ns.
    pub real_ns: u64,
    /// Tick counter at the latest comparison.
    pub last_ticks: u64,
    /// `CLOCK_MONOTONIC` then, ns.
    pub last_ns: u64,
    /// Next free file offset.
    pub next_offset: u64,
    /// Number of threads so far.
    pub threads: u32,
    /// Whether stamps are ticks of a clock.
    pub clocked: bool,
    /// Objects sampled: one in this many.
    pub one_in: u32,
    /// Events dropped, by [`Drop`].
    pub drops: [u64; 8],
    /// Picoseconds that writing one record took.
    pub record_ps: u64,
    /// Ticks spent on getting chunks.
    pub chunk_ticks: u64,
    /// Chunks taken.
    pub chunks: u64,
    /// Limit of the file's size, 0 for none.
    pub limit: u64,
    /// Whether the oldest chunk is reused at the limit.
    pub ring: bool,
    /// Images this process had before.
    pub image: u32,
}

impl ProcessBlock {
    /// Reads the block from the first page of a raw file.
    #[must_use]
    pub fn decode(page: &[u8; PAGE]) -> ProcessBlock {
        let u64_at = |at: usize| word(&page[at..], 0);
        let u32_at = |at: usize| u64_at(at) as u32;
        let mut drops = [0; 8];
        for (i, count) in drops.iter_mut().enumerate() {
            *count = u64_at(144 + 8 * i);
        }
        ProcessBlock {
            pid: u32_at(64),
            parent: u32_at(68),
            fork_stamp: u64_at(72),
            first_ticks: u64_at(80),
            first_ns: u64_at(88),
            real_ns: u64_at(96),
            last_ticks: u64_at(104),
            last_ns: u64_at(112),
            next_offset: u64_at(120),
            threads: u32_at(128),
            clocked: u32_at(136) == 1,
            one_in: u32_at(140),
            drops,
            record_ps: u64_at(208),
            chunk_ticks: u64_at(216),
            chunks: u64_at(224),
            limit: u64_at(232),
            ring: u32_at(240) != 0,
            image: u32_at(244),
        }
    }

    /// Events dropped, by name of the reason; those above zero.
    pub fn dropped(&self) -> impl Iterator<Item = (&'static str, u64)> {
        DROP_NAMES.into_iter().zip(self.drops).filter(|&(_, count)| count > 0)
    }

    /// The command line in a first page, arguments separated by NUL.
    #[must_use]
    pub fn command(page: &[u8; PAGE]) -> &[u8] {
        let text = &page[COMMAND_AT..];
        let end = text.iter().rposition(|&byte| byte != 0).map_or(0, |at| at + 1);
        &text[..end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_operation_is_found_by_its_byte() {
        let known = (0..=255u8).filter_map(RawOp::from_byte);
        assert!(known.clone().all(|op| RawOp::from_byte(op as u8) == Some(op)));
        assert_eq!(known.count(), 17);
    }

    #[test]
    fn a_raw_chunk_header_tells_the_length_of_its_chunk() {
        for units in 1..=16 {
            let header = chunk_header(units * UNIT, 3);
            let decoded = ChunkHeader::decode(&header.encode()).expect("our own header");
            assert_eq!(chunk_len(&decoded), Some(units * UNIT));
        }
        let odd = ChunkHeader { stored_len: 25, ..chunk_header(UNIT, 0) };
        assert_eq!(chunk_len(&odd), None);
    }

    proptest! {
        #[test]
        fn arbitrary_slots_are_read_to_their_end(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
            let mut input = &bytes[..];
            while take_slot(&mut input).is_some() {}
            prop_assert!(input.len() < SLOT);
        }
    }
}
