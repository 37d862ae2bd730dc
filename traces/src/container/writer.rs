//! Writing a container: events in, a whole file out.
//!
//! The file is written under another name beside its place and renamed at the end, so nobody ever
//! finds half a trace under the name they asked for. Chunks are compressed in parallel.
//!
//! Cost: about 20 ns per event and core; memory for one batch of chunks.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use trace_format::crc32c::crc32c;
use trace_format::v1::file::{MAX_PLAIN, SEVERAL_THREADS, TIMES};
use trace_format::v1::{
    ChunkHeader, ChunkKind, Codec, Compression, FileHeader, Trailer, resolved::MAX_RECORD,
};

use super::convert;
use super::footer::{ChunkIndex, Footer, Totals};
use crate::error::TraceError;
use crate::event::Event;
use crate::whole::WholeFile;

/// How a container is written.
#[derive(Clone, Copy, Debug)]
pub struct WriterOptions {
    /// zstd level; 3 is fast, 19 small.
    pub level: i32,
    /// Events per chunk, at most 65,536. Small chunks seek finer, large ones compress better.
    pub chunk_events: u32,
}

impl Default for WriterOptions {
    fn default() -> Self {
        WriterOptions { level: 3, chunk_events: 1 << 15 }
    }
}

/// A chunk whose events are encoded but not yet compressed.
#[derive(Debug)]
struct Chunk {
    header: ChunkHeader,
    payload: Vec<u8>,
}

/// Writes one container.
///
/// # Invariants
/// 1. `codec` stands where the reader of the open chunk will stand after its last event.
/// 2. `ready` holds closed chunks in order; all before them are in the file.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    whole: WholeFile,
    file: BufWriter<File>,
    options: WriterOptions,
    times: Option<bool>,
    codec: Codec,
    open: Option<Chunk>,
    ready: Vec<Chunk>,
    offset: u64,
    footer: Footer,
}

impl Writer {
    /// Begins a container that [`finish`](Self::finish) will put at `path`.
    ///
    /// # Errors
    /// The folder does not exist or cannot be written.
    pub fn create(path: impl AsRef<Path>, options: WriterOptions) -> Result<Self, TraceError> {
        let path = path.as_ref().to_owned();
        let (whole, file) = WholeFile::create(&path)
            .map_err(|source| TraceError::Write { path: path.clone(), source })?;
        Ok(Writer {
            path,
            whole,
            file: BufWriter::with_capacity(1 << 20, file),
            options: WriterOptions {
                chunk_events: options.chunk_events.clamp(1, 1 << 16),
                ..options
            },
            times: None,
            codec: Codec::new(false, 1, 0),
            open: None,
            ready: Vec::new(),
            offset: 0,
            footer: Footer::default(),
        })
    }

    /// Notes where the trace came from. A key given again replaces the value.
    pub fn provenance(&mut self, key: &str, value: impl Into<String>) {
        self.footer.provenance.retain(|(k, _)| k != key);
        self.footer.provenance.push((key.to_owned(), value.into()));
    }

    /// Appends one event. The first one decides whether the trace has times.
    ///
    /// # Errors
    /// The event breaks the order of the stream, or the disk is full.
    pub fn write(&mut self, event: &Event) -> Result<(), TraceError> {
        let times = match self.times {
            Some(times) => times,
            None => self.begin(event.time_ns.is_some())?,
        };
        if times && event.time_ns.is_none() {
            return Err(self.disorder("it has no time, and events before it have"));
        }
        let record = convert::to_record(event);
        let chunk = match &mut self.open {
            Some(chunk) => chunk,
            None => {
                self.codec = Codec::new(times, self.codec.next_object(), record.time_ns);
                self.open.insert(Chunk {
                    header: self.footer.totals.chunk(&self.codec, record.thread),
                    payload: Vec::with_capacity(self.options.chunk_events as usize * 5),
                })
            }
        };
        let encoded = self.codec.encode(&record, |bytes| chunk.payload.extend_from_slice(bytes));
        if let Err(error) = encoded {
            return Err(self.disorder(&error.to_string()));
        }
        chunk.header.count += 1;
        if chunk.header.thread != record.thread {
            chunk.header.thread = SEVERAL_THREADS;
        }
        let full = chunk.header.count == self.options.chunk_events
            || chunk.payload.len() > MAX_PLAIN as usize - MAX_RECORD;
        let Totals { events, objects, threads } = &mut self.footer.totals;
        *events += 1;
        *objects = self.codec.next_object() - 1;
        *threads = (*threads).max(u64::from(record.thread) + 1);
        if full { self.close_chunk() } else { Ok(()) }
    }

    /// Writes what is left and puts the file in its place.
    ///
    /// # Errors
    /// The disk is full, or the place cannot be written.
    pub fn finish(mut self) -> Result<Totals, TraceError> {
        if self.times.is_none() {
            self.begin(false)?;
        }
        self.close_chunk()?;
        self.flush_ready()?;
        let footer_offset = self.offset;
        let plain = self.footer.encode();
        let header = ChunkHeader {
            kind: ChunkKind::Footer,
            count: 0,
            thread: SEVERAL_THREADS,
            ..self.footer.totals.chunk(&self.codec, 0)
        };
        let (header, payload) = self.pack(Chunk { header, payload: plain })?;
        self.put(&header.encode())?;
        self.put(&payload)?;
        self.put(&Trailer { footer_offset }.encode())?;
        self.file.flush().map_err(|source| self.failed(source))?;
        let Writer { path, whole, footer, .. } = self;
        whole.finish().map_err(|source| TraceError::Write { path, source })?;
        Ok(footer.totals)
    }

    fn begin(&mut self, times: bool) -> Result<bool, TraceError> {
        self.times = Some(times);
        let features = if times { TIMES } else { 0 };
        self.put(&FileHeader { features }.encode())?;
        Ok(times)
    }

    fn close_chunk(&mut self) -> Result<(), TraceError> {
        let Some(chunk) = self.open.take() else { return Ok(()) };
        self.ready.push(chunk);
        if self.ready.len() >= rayon::current_num_threads().min(16) {
            self.flush_ready()?;
        }
        Ok(())
    }

    fn flush_ready(&mut self) -> Result<(), TraceError> {
        let ready = std::mem::take(&mut self.ready);
        let packed: Vec<_> = ready.into_par_iter().map(|chunk| self.pack(chunk)).collect();
        for chunk in packed {
            let (header, payload) = chunk?;
            self.footer.index.push(ChunkIndex {
                offset: self.offset,
                first_sequence: header.first_sequence,
                first_object: header.first_object,
                base_time: header.base_time,
                thread: header.thread,
                count: header.count,
            });
            self.put(&header.encode())?;
            self.put(&payload)?;
        }
        Ok(())
    }

    /// Compresses a chunk, where that makes it smaller, and completes its header.
    fn pack(&self, chunk: Chunk) -> Result<(ChunkHeader, Vec<u8>), TraceError> {
        let Chunk { mut header, payload: plain } = chunk;
        header.plain_len = plain.len() as u32;
        let packed = zstd::bulk::compress(&plain, self.options.level)
            .map_err(|source| self.failed(source))?;
        let (compression, payload) = match packed.len() < plain.len() {
            true => (Compression::Zstd, packed),
            false => (Compression::None, plain),
        };
        header.compression = compression;
        header.stored_len = payload.len() as u32;
        header.checksum = crc32c(&payload);
        Ok((header, payload))
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), TraceError> {
        self.offset += bytes.len() as u64;
        self.file.write_all(bytes).map_err(|source| self.failed(source))
    }

    fn failed(&self, source: io::Error) -> TraceError {
        TraceError::Write { path: self.path.clone(), source }
    }

    fn disorder(&self, reason: &str) -> TraceError {
        TraceError::Disorder {
            path: self.path.clone(),
            event: self.footer.totals.events,
            reason: reason.to_owned(),
        }
    }
}

impl Totals {
    /// The header of a chunk that begins here.
    fn chunk(&self, codec: &Codec, thread: u32) -> ChunkHeader {
        ChunkHeader {
            kind: ChunkKind::Resolved,
            compression: Compression::None,
            thread,
            count: 0,
            first_sequence: self.events,
            first_object: codec.next_object(),
            base_time: codec.time_ns(),
            stored_len: 0,
            plain_len: 0,
            checksum: 0,
        }
    }
}
