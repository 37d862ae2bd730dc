//! A recorder's file: its process block, and where the slots of each thread lie.
//!
//! The first pass reads the whole file and notes, per thread, the *segments*: runs of slots that
//! belong to it. The second pass, [`Resolver`], goes through them merged by stamp.
//! Memory: about 40 bytes per chunk and per short-lived thread; a window of slots per thread.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use trace_format::v1::ChunkHeader;
use trace_format::v1::raw::{self, ProcessBlock, RawOp, RawRecord, Slot};

use super::reader::read_file_header;
use super::resolve::{ResolveOptions, Resolver};
use crate::error::TraceError;
use crate::event::{Event, EventSource};
use crate::import::{Census, Format, Position, Source};

/// A run of slots of one thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Segment {
    /// Stamp of its first record.
    pub(super) first_stamp: u64,
    /// File offset of its first slot.
    pub(super) offset: u64,
    /// Bytes of slots.
    pub(super) len: u32,
    /// The recorder's number of its thread.
    pub(super) thread: u32,
}

/// The bytes of a raw file, and how to say that they cannot be read.
#[derive(Debug)]
pub(super) struct Bytes {
    file: File,
    path: PathBuf,
}

impl Bytes {
    /// Reads up to `buffer.len()` bytes at `offset`; fewer only at the end of the file.
    pub(super) fn read(&self, buffer: &mut [u8], offset: u64) -> Result<usize, TraceError> {
        let mut done = 0;
        while done < buffer.len() {
            match self.file.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(got) => done += got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(TraceError::Read { path: self.path.clone(), source }),
            }
        }
        Ok(done)
    }
}

/// A recorder's file, read as a trace: threads merged, addresses turned into objects.
#[derive(Debug)]
pub struct RawTrace {
    block: ProcessBlock,
    command: Vec<String>,
    resolver: Resolver,
}

impl RawTrace {
    /// Bytes that the recorder has to write before the first call.
    pub const FIRST_PAGE: usize = raw::PAGE;

    /// Opens a raw file and finds every thread's slots in it. The file may still be written to:
    /// what is there now is read.
    ///
    /// # Errors
    /// The file cannot be read, or is no raw file.
    pub fn open(path: impl AsRef<Path>, options: ResolveOptions) -> Result<Self, TraceError> {
        let (bytes, page) = open_page(path.as_ref())?;
        let len = match bytes.file.metadata() {
            Ok(metadata) => metadata.len(),
            Err(source) => return Err(TraceError::Read { path: bytes.path, source }),
        };
        let block = ProcessBlock::decode(&page);
        let command = ProcessBlock::command(&page).split(|&byte| byte == 0);
        let command = command.map(|part| String::from_utf8_lossy(part).into_owned()).collect();
        let mut census = Census {
            dropped_by_recorder: block
                .drops
                .iter()
                .fold(0, |sum, &drops| u64::saturating_add(sum, drops)),
            ..Census::default()
        };
        let chunks = find_chunks(&bytes, len, &mut census)?;
        let found: Result<Vec<_>, _> =
            chunks.par_iter().map(|&(offset, len)| find_segments(&bytes, offset, len)).collect();
        let mut segments = Vec::new();
        for (found, damaged) in found? {
            segments.extend(found);
            census.damaged_parts += damaged;
        }
        segments.sort_unstable();
        let resolver = Resolver::new(bytes, &block, segments, census, options);
        Ok(RawTrace { block, command, resolver })
    }

    /// Reads only what the recorder noted about its process.
    ///
    /// # Errors
    /// The file cannot be read, or is no raw file.
    pub fn process_of(path: impl AsRef<Path>) -> Result<ProcessBlock, TraceError> {
        let (_, page) = open_page(path.as_ref())?;
        Ok(ProcessBlock::decode(&page))
    }

    /// Starts or stops the recording of a process that is still running, through its file. False if
    /// the file is not begun yet: then it is left alone.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn set_recording(path: impl AsRef<Path>, on: bool) -> io::Result<bool> {
        let gate = if on { raw::GATE_OPEN } else { raw::GATE_PAUSED };
        let file = File::options().read(true).write(true).open(path)?;
        let mut present = [0; 4];
        let got = file.read_at(&mut present, raw::GATE_AT)?;
        if got < present.len() || present == [0; 4] {
            return Ok(false);
        }
        file.write_all_at(&gate.to_le_bytes(), raw::GATE_AT)?;
        Ok(true)
    }

    /// The addresses that were live at each fork of a known child, by the fork's stamp. Complete
    /// once the stream has ended; for [`ResolveOptions::inherited`] of the children.
    pub fn take_fork_heaps(&mut self) -> HashMap<u64, HashSet<u64>> {
        std::mem::take(&mut self.resolver.fork_heaps)
    }

    /// What the recorder noted about its process.
    #[must_use]
    pub fn process(&self) -> &ProcessBlock {
        &self.block
    }

    /// Processor time that recording took: records at the cost tried at the start, and the ticks
    /// spent on chunks. An estimate: caches and the kernel's write-back are not in it.
    #[must_use]
    pub fn overhead_estimate_ns(&self, records: u64) -> u64 {
        let block = &self.block;
        let ticks = block.last_ticks.saturating_sub(block.first_ticks).max(1);
        let ns = block.last_ns.saturating_sub(block.first_ns);
        let chunks = u128::from(block.chunk_ticks) * u128::from(ns) / u128::from(ticks);
        let records = u128::from(records) * u128::from(block.record_ps) / 1000;
        u64::try_from(chunks + records).unwrap_or(u64::MAX)
    }

    /// The command line of the recorded process.
    #[must_use]
    pub fn command(&self) -> &[String] {
        &self.command
    }
}

impl EventSource for RawTrace {
    type Error = TraceError;

    fn next_event(&mut self) -> Result<Option<Event>, TraceError> {
        self.resolver.next_event()
    }
}

impl Source for RawTrace {
    fn format(&self) -> Format {
        Format::Container
    }

    fn census(&self) -> Census {
        self.resolver.census()
    }

    fn position(&self) -> Option<Position> {
        Some(self.resolver.position())
    }

    fn provenance(&self) -> Vec<(String, String)> {
        let block = &self.block;
        let mut pairs = vec![
            (
                "recorder".to_owned(),
                concat!("trace-recorder ", env!("CARGO_PKG_VERSION")).to_owned(),
            ),
            ("command".to_owned(), self.command.join(" ")),
            ("pid".to_owned(), block.pid.to_string()),
            ("parent_pid".to_owned(), block.parent.to_string()),
            ("started_unix_ns".to_owned(), block.real_ns.to_string()),
            (
                "order".to_owned(),
                if block.clocked { "clock ticks" } else { "count of calls" }.to_owned(),
            ),
            ("cost_per_record_ps".to_owned(), block.record_ps.to_string()),
        ];
        let mut note = |key: &str, value: u64| {
            if value > 0 {
                pairs.push((key.to_owned(), value.to_string()));
            }
        };
        note("fork_stamp", block.fork_stamp);
        note("images_before", u64::from(block.image));
        note(super::SAMPLED, u64::from(block.one_in));
        note("ring_bytes", if block.ring { block.limit } else { 0 });
        // Added to `started_unix_ns` it is the moment at which the times of the stream begin.
        note("began_after_ns", self.resolver.began_ns());
        for (name, count) in block.dropped() {
            note(&format!("dropped: {name}"), count);
        }
        pairs
    }
}

/// Opens a raw file and reads its first page; what is missing of it reads as zero.
fn open_page(path: &Path) -> Result<(Bytes, [u8; raw::PAGE]), TraceError> {
    let path = path.to_owned();
    let mut file =
        File::open(&path).map_err(|source| TraceError::Read { path: path.clone(), source })?;
    if !read_file_header(&mut file, &path)?.is_raw() {
        let reason = "it holds no raw chunks".to_owned();
        return Err(TraceError::Unsupported { path, reason });
    }
    let bytes = Bytes { file, path };
    let mut page = [0; raw::PAGE];
    bytes.read(&mut page, 0)?;
    Ok((bytes, page))
}

/// Offsets and lengths of the slots of all chunks. Where no chunk header stands, one unit is
/// skipped: a recorder that was killed between taking the room and using it leaves such gaps. They
/// begin with zeros; what begins with anything else is damaged. Of two chunks with one ordinal the
/// second is a copy of the first, and is left out.
fn find_chunks(
    bytes: &Bytes,
    len: u64,
    census: &mut Census,
) -> Result<Vec<(u64, u32)>, TraceError> {
    let mut chunks = Vec::new();
    let mut offset = raw::PAGE as u64;
    while offset < len {
        let mut found = [0; ChunkHeader::LEN];
        let got = bytes.read(&mut found, offset)?;
        let header = ChunkHeader::decode(&found).ok();
        let sound = header.and_then(|h| Some((raw::chunk_len(&h)?, h.stored_len)));
        match sound {
            Some((whole, slots)) if got == ChunkHeader::LEN => {
                let behind = offset + whole as u64;
                census.truncated_bytes += behind.saturating_sub(len);
                let ordinal = header.map_or(0, |h| h.first_sequence);
                chunks.push((ordinal, offset + ChunkHeader::LEN as u64, slots));
                offset = behind;
            }
            _ => {
                census.damaged_parts += u64::from(found[..8] != [0; 8]);
                offset += raw::UNIT as u64;
            }
        }
    }
    // Killed between copying a chunk and emptying it, a recorder leaves both.
    chunks.sort_unstable();
    chunks.dedup_by_key(|&mut (ordinal, ..)| ordinal);
    Ok(chunks.into_iter().map(|(_, offset, len)| (offset, len)).collect())
}

/// Where in one chunk the slots change hands, and how many of them are damaged.
fn find_segments(bytes: &Bytes, offset: u64, len: u32) -> Result<(Vec<Segment>, u64), TraceError> {
    let mut buffer = vec![0; len as usize];
    let got = bytes.read(&mut buffer, offset)?;
    let mut input = &buffer[..got / raw::SLOT * raw::SLOT];
    let total = input.len();
    let mut segments: Vec<Segment> = Vec::new();
    let mut damaged = 0;
    loop {
        let at = (total - input.len()) as u64;
        match raw::take_slot(&mut input) {
            None => break,
            Some(Slot::Empty) => {}
            Some(Slot::Unknown) => damaged += 1,
            Some(Slot::Record(record)) => {
                if let Some(thread) = hand_over(&record) {
                    let first_stamp = record.stamp;
                    segments.push(Segment { first_stamp, offset: offset + at, len: 0, thread });
                }
                if let Some(segment) = segments.last_mut() {
                    let end = offset + (total - input.len()) as u64;
                    segment.len = (end - segment.offset) as u32;
                }
            }
        }
    }
    Ok((segments, damaged))
}

/// The thread whose slots begin with this record, if one's do.
fn hand_over(record: &RawRecord) -> Option<u32> {
    matches!(record.op, RawOp::ThreadStart | RawOp::ThreadGoesOn)
        .then(|| u32::try_from(record.address).ok())
        .flatten()
}
