//! Reading a container: a stream of events, chunk after chunk.
//!
//! Chunks are read in order, in batches that are decompressed and decoded in parallel. A file
//! without a footer is read up to its last whole chunk, and [`Reader::loss`] says what is missing.
//!
//! Cost: about 30 ns per event and core. Memory: one batch, at most 8 chunks.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use trace_format::crc32c::crc32c;
use trace_format::v1::file::{MAX_PLAIN, MAX_STORED};
use trace_format::v1::{
    ChunkHeader, ChunkKind, Codec, Compression, FileHeader, HeaderError, Trailer,
};

use super::convert;
use super::footer::Footer;
use crate::error::TraceError;
use crate::event::{Event, EventSource, Op};
use crate::import::{Census, Format, Position, Source};

/// Most bytes of a footer, compressed and not: an index of some 70 billion events.
const MAX_FOOTER: u32 = 64 << 20;

/// A chunk as it lies in the file.
#[derive(Debug)]
struct Packed {
    header: ChunkHeader,
    payload: Vec<u8>,
    /// File offset of the header.
    offset: u64,
}

/// Reads one resolved container.
///
/// # Invariants
/// 1. `sequence` and `next_object` are what the next chunk's header must say.
/// 2. `decoded` holds events of chunks that were checked whole.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    file: BufReader<File>,
    times: bool,
    offset: u64,
    end: u64,
    sequence: u64,
    next_object: u64,
    events: u64,
    decoded: VecDeque<std::vec::IntoIter<Event>>,
    /// What stopped the reading, to be told once the events before it are out.
    failure: Option<TraceError>,
    finished: bool,
    footer: Option<Footer>,
    loss: Option<String>,
    salvage: bool,
    census: Census,
}

impl Reader {
    /// Opens a resolved container and reads its footer, if it has one.
    ///
    /// # Errors
    /// The file cannot be read, is no container, is raw, or is of an unknown version.
    pub fn open(path: impl AsRef<Path>) -> Result<Reader, TraceError> {
        let path = path.as_ref().to_owned();
        let read = |source| TraceError::Read { path: path.clone(), source };
        let mut file = File::open(&path).map_err(read)?;
        let len = file.metadata().map_err(read)?.len();
        let header = read_file_header(&mut file, &path)?;
        if header.is_raw() {
            let reason = "it is a recorder's raw file; resolve it first".to_owned();
            return Err(TraceError::Unsupported { path, reason });
        }
        let found = find_footer(&file, len);
        let census = found.as_ref().and_then(|(_, f)| f.get("census"));
        let census = census.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let loss = found.is_none().then(|| "it has no footer".to_owned());
        let (end, footer) = found.map_or((len, None), |(offset, footer)| (offset, Some(footer)));
        Ok(Reader {
            path,
            file: BufReader::with_capacity(1 << 20, file),
            times: header.has_times(),
            offset: FileHeader::LEN as u64,
            end,
            sequence: 0,
            next_object: 1,
            events: 0,
            decoded: VecDeque::new(),
            failure: None,
            finished: false,
            footer,
            loss,
            salvage: false,
            census: Census { leaked: 0, free_null: 0, failed_allocations: 0, ..census },
        })
    }

    /// Totals, index and provenance; `None` for a file that was never finished.
    #[must_use]
    pub fn footer(&self) -> Option<&Footer> {
        self.footer.as_ref()
    }

    /// What is missing from the file, if anything. Final once the stream has ended.
    #[must_use]
    pub fn loss(&self) -> Option<&str> {
        self.loss.as_deref()
    }

    /// Whether a damaged file ends where the damage begins, without an error; [`Reader::loss`] says
    /// so then.
    pub fn salvage(&mut self, salvage: bool) {
        self.salvage = salvage;
    }

    /// Whether every event carries a time.
    #[must_use]
    pub fn has_times(&self) -> bool {
        self.times
    }

    /// Goes on at chunk `index` of the footer's index, which must not lie behind the present one.
    /// References of later events to objects of the chunks left out are still right.
    ///
    /// # Errors
    /// The file cannot be read, or has no such chunk.
    pub fn skip_to_chunk(&mut self, index: usize) -> Result<(), TraceError> {
        let entry = self.footer.as_ref().and_then(|footer| footer.index.get(index)).copied();
        let Some(entry) = entry else {
            return Err(self.damaged(self.offset, "the index has no such chunk"));
        };
        self.file
            .seek(SeekFrom::Start(entry.offset))
            .map_err(|source| TraceError::Read { path: self.path.clone(), source })?;
        self.decoded.clear();
        self.offset = entry.offset;
        self.sequence = entry.first_sequence;
        self.events = entry.first_sequence;
        self.next_object = entry.first_object;
        Ok(())
    }

    fn damaged(&self, byte: u64, reason: impl ToString) -> TraceError {
        TraceError::Damaged {
            path: self.path.clone(),
            format: Format::Container,
            event: self.sequence,
            byte,
            reason: reason.to_string(),
        }
    }

    /// Reads a batch of chunks, checks them and decodes them.
    fn fill(&mut self) {
        let batch = rayon::current_num_threads().min(8);
        let mut packed = Vec::with_capacity(batch);
        while packed.len() < batch && !self.finished && self.failure.is_none() {
            match self.next_chunk() {
                Ok(Some(chunk)) => packed.push(chunk),
                Ok(None) => self.finished = true,
                Err(error) => self.failure = Some(error),
            }
        }
        let times = self.times;
        let decoded: Vec<_> = packed.into_par_iter().map(|chunk| decode(chunk, times)).collect();
        for (header, offset, result) in decoded {
            let sound = result.and_then(|chunk| match header.first_object == self.next_object {
                true => Ok(chunk),
                false => Err("its object numbers do not continue".to_owned()),
            });
            match sound {
                Ok((next_object, events)) => {
                    self.next_object = next_object;
                    self.decoded.push_back(events.into_iter());
                }
                Err(why) => {
                    self.sequence = header.first_sequence;
                    self.failure = Some(self.damaged(offset, why));
                    return;
                }
            }
        }
    }

    /// Reads the next chunk's bytes; `None` at the end, whole or not.
    fn next_chunk(&mut self) -> Result<Option<Packed>, TraceError> {
        let offset = self.offset;
        let left = self.end.saturating_sub(offset);
        if left == 0 {
            return Ok(None);
        }
        let mut bytes = [0; ChunkHeader::LEN];
        if left < bytes.len() as u64 || !self.read_exact(&mut bytes)? {
            return Ok(self.cut_off(left));
        }
        if bytes == [0; ChunkHeader::LEN] && self.footer.is_none() {
            // Room that was reserved and never written, as a full disk or a crash leaves it.
            return Ok(self.cut_off(left));
        }
        let header = ChunkHeader::decode(&bytes).map_err(|why| self.damaged(offset, why))?;
        match header.kind {
            // Reached only where the trailer is missing: what follows is a footer cut short.
            ChunkKind::Footer => return Ok(self.cut_off(left)),
            ChunkKind::Raw => return Err(self.damaged(offset, "a raw chunk in a resolved file")),
            ChunkKind::Resolved => {}
        }
        if header.first_sequence != self.sequence {
            return Err(self.damaged(offset, "its events do not continue those before"));
        }
        if left - (bytes.len() as u64) < u64::from(header.stored_len) {
            return Ok(self.cut_off(left));
        }
        let mut payload = vec![0; header.stored_len as usize];
        if !self.read_exact(&mut payload)? {
            return Ok(self.cut_off(left));
        }
        self.offset += (ChunkHeader::LEN + payload.len()) as u64;
        self.sequence += u64::from(header.count);
        Ok(Some(Packed { header, payload, offset }))
    }

    /// The file ends inside a chunk: says so, and ends the stream.
    fn cut_off<T>(&mut self, bytes: u64) -> Option<T> {
        self.census.truncated_bytes = bytes;
        self.loss = Some(format!(
            "it ends inside a chunk: the last {bytes} bytes, behind event {}, are lost",
            self.sequence
        ));
        None
    }

    fn read_exact(&mut self, buffer: &mut [u8]) -> Result<bool, TraceError> {
        match self.file.read_exact(buffer) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(source) => Err(TraceError::Read { path: self.path.clone(), source }),
        }
    }

    fn count(&mut self, op: &Op) {
        self.events += 1;
        self.census.records = self.events;
        let born = op.born().is_some();
        let released = op.released().is_some();
        match op {
            Op::Free { object: None, .. } => self.census.free_null += 1,
            Op::Realloc { object: None, size: 0, .. } => {}
            _ if op.requested().is_some() && !born => self.census.failed_allocations += 1,
            _ => {}
        }
        self.census.leaked += u64::from(born);
        self.census.leaked = self.census.leaked.saturating_sub(u64::from(released));
    }
}

impl EventSource for Reader {
    type Error = TraceError;

    fn next_event(&mut self) -> Result<Option<Event>, TraceError> {
        loop {
            while let Some(chunk) = self.decoded.front_mut() {
                if let Some(event) = chunk.next() {
                    self.count(&event.op);
                    return Ok(Some(event));
                }
                self.decoded.pop_front();
            }
            if let Some(failure) = self.failure.take() {
                self.finished = true;
                if self.salvage {
                    self.loss = Some(format!("{failure}; what comes from there on is lost"));
                    return Ok(None);
                }
                return Err(failure);
            }
            if self.finished {
                return Ok(None);
            }
            self.fill();
        }
    }

    fn len_hint(&self) -> Option<u64> {
        self.footer.as_ref().map(|footer| footer.totals.events)
    }
}

impl Source for Reader {
    fn format(&self) -> Format {
        Format::Container
    }

    fn census(&self) -> Census {
        self.census.clone()
    }

    fn position(&self) -> Option<Position> {
        Some(Position { done: self.offset, total: self.end })
    }

    fn lost(&self) -> Option<String> {
        let open = self.footer.as_ref().and_then(|footer| footer.get(super::STILL_RUNNING));
        let goes_on =
            || "its process went on when this was recorded, and its end is not in it".to_owned();
        self.loss.clone().or_else(|| open.map(|_| goes_on()))
    }

    fn provenance(&self) -> Vec<(String, String)> {
        self.footer.as_ref().map_or_else(Vec::new, |footer| footer.provenance.clone())
    }
}

/// Reads and checks the first 16 bytes.
pub(super) fn read_file_header(file: &mut File, path: &Path) -> Result<FileHeader, TraceError> {
    let mut bytes = [0; FileHeader::LEN];
    if let Err(error) = file.read_exact(&mut bytes) {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return Err(TraceError::Damaged {
                path: path.to_owned(),
                format: Format::Container,
                event: 0,
                byte: 0,
                reason: "it ends inside its header".to_owned(),
            });
        }
        return Err(TraceError::Read { path: path.to_owned(), source: error });
    }
    FileHeader::decode(&bytes).map_err(|error| match error {
        HeaderError::Magic => TraceError::Unrecognised {
            path: path.to_owned(),
            begins: bytes.escape_ascii().to_string(),
        },
        unknown => TraceError::Unsupported { path: path.to_owned(), reason: unknown.to_string() },
    })
}

/// The footer and the offset of its header, if the file ends with a sound one.
fn find_footer(file: &File, len: u64) -> Option<(u64, Footer)> {
    let mut bytes = [0; Trailer::LEN];
    let trailer_at = len.checked_sub(Trailer::LEN as u64)?;
    file.read_exact_at(&mut bytes, trailer_at).ok()?;
    let offset = Trailer::decode(&bytes).ok()?.footer_offset;
    let mut bytes = [0; ChunkHeader::LEN];
    let room = trailer_at.checked_sub(offset)?.checked_sub(ChunkHeader::LEN as u64)?;
    file.read_exact_at(&mut bytes, offset).ok()?;
    let header = ChunkHeader::decode(&bytes).ok()?;
    if header.kind != ChunkKind::Footer
        || u64::from(header.stored_len) != room
        || header.stored_len > MAX_FOOTER
        || header.plain_len > MAX_FOOTER
    {
        return None;
    }
    let mut payload = vec![0; header.stored_len as usize];
    file.read_exact_at(&mut payload, offset + ChunkHeader::LEN as u64).ok()?;
    let plain = unpack(&header, payload).ok()?;
    Some((offset, Footer::decode(&plain)?))
}

/// The payload after checksum and decompression.
fn unpack(header: &ChunkHeader, payload: Vec<u8>) -> Result<Vec<u8>, String> {
    if crc32c(&payload) != header.checksum {
        return Err("its checksum does not match".to_owned());
    }
    let plain = match header.compression {
        Compression::None => payload,
        Compression::Zstd => zstd::bulk::decompress(&payload, header.plain_len as usize)
            .map_err(|error| format!("it does not decompress: {error}"))?,
    };
    if plain.len() != header.plain_len as usize {
        return Err("it is not as long as its header says".to_owned());
    }
    Ok(plain)
}

/// The next object's number and the events, or what is wrong.
type Decoded = Result<(u64, Vec<Event>), String>;

/// Checks and decodes one chunk; its header and offset come back for the record.
fn decode(chunk: Packed, times: bool) -> (ChunkHeader, u64, Decoded) {
    const _: () = assert!(MAX_PLAIN <= 4 << 20 && MAX_STORED <= 8 << 20, "a batch stays small");
    let header = chunk.header;
    let result = unpack(&header, chunk.payload).and_then(|plain| {
        let mut codec = Codec::new(times, header.first_object, header.base_time);
        let mut input = &plain[..];
        let mut events = Vec::with_capacity(header.count as usize);
        for _ in 0..header.count {
            let record = codec.decode(&mut input).map_err(|error| error.to_string())?;
            events.push(convert::to_event(&record, times));
        }
        match input.is_empty() {
            true => Ok((codec.next_object(), events)),
            false => Err("bytes are left behind its last event".to_owned()),
        }
    });
    (header, chunk.offset, result)
}
