//! The bytes of a trace: a file, uncompressed as it is read, in one bounded buffer.
//!
//! gzip, zstd and zip (its first file) are told by their magic numbers. Memory is bounded by the
//! longest line accepted; what comes out of a compressed file is bounded by its size, or by what
//! has come through the pipe that it is.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Format, Position};
use crate::error::TraceError;

/// The longest line of a text format, in bytes.
pub(crate) const MAX_LINE: usize = 1 << 20;

/// How far a compressed file may expand: no honest trace comes near it.
const MAX_EXPANSION: u64 = 1 << 14;
const MIN_LIMIT: u64 = 1 << 28;

const BUFFER: usize = 1 << 18;

/// A trace file being read.
pub(crate) struct Input {
    path: PathBuf,
    reader: Box<dyn Read + Send>,
    layer: Option<&'static str>,
    /// Size of the file; 0 where it is none, for example a pipe.
    compressed: u64,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Position of `buffer[0]` in the uncompressed stream.
    base: u64,
    line: u64,
    at_end: bool,
    meter: Meter,
    stop: Option<fn() -> bool>,
}

/// How much of the file has been read, for whoever watches.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meter {
    done: Arc<AtomicU64>,
    total: u64,
    unfinished: Arc<AtomicU64>,
}

impl Meter {
    pub(crate) fn position(&self) -> Position {
        Position { done: self.done.load(Ordering::Relaxed), total: self.total }
    }

    /// Length of the last line, if the file ends without ending it and it has been read.
    pub(crate) fn unfinished_line(&self) -> u64 {
        self.unfinished.load(Ordering::Relaxed)
    }
}

/// A file whose bytes are counted as they are read.
struct Metered {
    file: File,
    done: Arc<AtomicU64>,
}

impl Read for Metered {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.file.read(buffer)?;
        self.done.fetch_add(got as u64, Ordering::Relaxed);
        Ok(got)
    }
}

impl Input {
    /// Opens a file and looks through one layer of compression.
    pub(crate) fn open(path: &Path) -> Result<Self, TraceError> {
        let read_error = |source| TraceError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(read_error)?;
        let metadata = file.metadata().map_err(read_error)?;
        if metadata.is_dir() {
            return Err(TraceError::Directory { path: path.to_owned() });
        }
        let compressed = metadata.len();
        let meter = Meter { total: compressed, ..Meter::default() };
        let (reader, layer) = uncompress(file, path, &meter)?;
        let mut input = Input::from_reader(path, reader);
        input.layer = layer;
        input.compressed = compressed;
        input.meter = meter;
        Ok(input)
    }

    /// Reads from anything; `path` names it in messages.
    pub(crate) fn from_reader(path: &Path, reader: Box<dyn Read + Send>) -> Self {
        Input {
            path: path.to_owned(),
            reader,
            layer: None,
            compressed: 0,
            buffer: vec![0; BUFFER],
            start: 0,
            end: 0,
            base: 0,
            line: 0,
            at_end: false,
            meter: Meter::default(),
            stop: None,
        }
    }

    /// Gives up with [`TraceError::Stopped`] once `stop` says so.
    pub(crate) fn stop_when(&mut self, stop: Option<fn() -> bool>) {
        self.stop = stop;
    }

    pub(crate) fn meter(&self) -> Meter {
        self.meter.clone()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether nothing had to be uncompressed.
    pub(crate) fn is_plain(&self) -> bool {
        self.layer.is_none()
    }

    /// Position of the next byte in the uncompressed stream.
    pub(crate) fn position(&self) -> u64 {
        self.base + self.start as u64
    }

    /// Up to `count` bytes from here, fewer only at the end; they stay unread.
    pub(crate) fn peek(&mut self, count: usize) -> Result<&[u8], TraceError> {
        while self.end - self.start < count && self.fill()? {}
        Ok(&self.buffer[self.start..self.end.min(self.start + count)])
    }

    /// Marks `count` bytes that were peeked as read.
    pub(crate) fn skip(&mut self, count: usize) {
        debug_assert!(count <= self.end - self.start);
        self.start += count;
    }

    /// The next byte.
    pub(crate) fn byte(&mut self) -> Result<Option<u8>, TraceError> {
        if self.start == self.end && !self.fill()? {
            return Ok(None);
        }
        self.start += 1;
        Ok(Some(self.buffer[self.start - 1]))
    }

    /// The next line without its end (`\n` or `\r\n`), also one that the file ends in.
    pub(crate) fn next_line(&mut self, format: Format) -> Result<Option<&[u8]>, TraceError> {
        let mut searched = 0;
        let length = loop {
            let window = &self.buffer[self.start + searched..self.end];
            if let Some(at) = window.iter().position(|&byte| byte == b'\n') {
                break searched + at + 1;
            }
            searched = self.end - self.start;
            if searched > MAX_LINE {
                let reason = format!("the line is longer than {MAX_LINE} bytes");
                return Err(self.text_error(format, self.line + 1, MAX_LINE, reason));
            }
            if !self.fill()? {
                if searched == 0 {
                    return Ok(None);
                }
                self.meter.unfinished.store(searched as u64, Ordering::Relaxed);
                break searched;
            }
        };
        self.line += 1;
        let mut line = &self.buffer[self.start..self.start + length];
        self.start += length;
        line = line.strip_suffix(b"\n").unwrap_or(line);
        Ok(Some(line.strip_suffix(b"\r").unwrap_or(line)))
    }

    /// The error for the line read last.
    pub(crate) fn line_error(&self, format: Format, fault: Fault) -> TraceError {
        self.text_error(format, self.line, fault.at, fault.reason.to_owned())
    }

    fn text_error(&self, format: Format, line: u64, at: usize, reason: String) -> TraceError {
        TraceError::Text { path: self.path.clone(), format, line, column: at as u64 + 1, reason }
    }

    /// Reads more behind `end`; false at the end of the file.
    fn fill(&mut self) -> Result<bool, TraceError> {
        if self.at_end {
            return Ok(false);
        }
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.base += self.start as u64;
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.buffer.len() {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        let got = loop {
            if self.stop.is_some_and(|stop| stop()) {
                return Err(TraceError::Stopped { path: self.path.clone() });
            }
            match self.reader.read(&mut self.buffer[self.end..]) {
                Ok(got) => break got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(self.read_error(source)),
            }
        };
        self.end += got;
        self.at_end = got == 0;
        if let Some(layer) = self.layer {
            self.check_expansion(layer)?;
        }
        Ok(got > 0)
    }

    /// Refuses what has unpacked to more than an honest trace of its size could.
    fn check_expansion(&self, layer: &'static str) -> Result<(), TraceError> {
        // A pipe has no size: what has come through it counts.
        let compressed = self.compressed.max(self.meter.position().done);
        let limit = compressed.saturating_mul(MAX_EXPANSION).max(MIN_LIMIT);
        if self.base + self.end as u64 > limit {
            return Err(TraceError::Bomb { path: self.path.clone(), layer, compressed, limit });
        }
        Ok(())
    }

    fn read_error(&self, source: io::Error) -> TraceError {
        let path = self.path.clone();
        match self.layer {
            Some(layer) => {
                let byte = self.base + self.end as u64;
                TraceError::Compression { path, layer, byte, source }
            }
            None => TraceError::Read { path, source },
        }
    }
}

/// Where in a line parsing stopped, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Bytes before the fault.
    pub(crate) at: usize,
    pub(crate) reason: &'static str,
}

type Layer = (Box<dyn Read + Send>, Option<&'static str>);

fn uncompress(mut file: File, path: &Path, meter: &Meter) -> Result<Layer, TraceError> {
    let read_error = |source| TraceError::Read { path: path.to_owned(), source };
    let mut magic = [0; 4];
    let mut got = 0;
    while got < magic.len() {
        match file.read(&mut magic[got..]).map_err(read_error)? {
            0 => break,
            more => got += more,
        }
    }
    if got == 0 {
        return Err(TraceError::Empty { path: path.to_owned() });
    }
    if let Err(error) = file.seek(SeekFrom::Start(0)) {
        // A pipe cannot be rewound: what was read is put back in front of it, uncompressed.
        if error.kind() == io::ErrorKind::NotSeekable {
            let head = io::Cursor::new(magic[..got].to_vec());
            let file = Metered { file, done: Arc::clone(&meter.done) };
            return unwrap_stream(Box::new(head.chain(file)), &magic[..got], path);
        }
        return Err(read_error(error));
    }
    if magic[..got].starts_with(b"PK\x03\x04") || magic[..got].starts_with(b"PK\x05\x06") {
        return Ok((first_of_zip(file, path, meter)?, Some("zip")));
    }
    let file = Metered { file, done: Arc::clone(&meter.done) };
    unwrap_stream(Box::new(file), &magic[..got], path)
}

fn unwrap_stream(
    file: Box<dyn Read + Send>,
    magic: &[u8],
    path: &Path,
) -> Result<Layer, TraceError> {
    if magic.starts_with(&[0x1f, 0x8b]) {
        let reader = flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(BUFFER, file));
        return Ok((Box::new(reader), Some("gzip")));
    }
    if magic == [0x28, 0xb5, 0x2f, 0xfd] {
        let reader = zstd::stream::read::Decoder::new(file)
            .map_err(|source| TraceError::Read { path: path.to_owned(), source })?;
        return Ok((Box::new(reader), Some("zstd")));
    }
    Ok((file, None))
}

/// The content of the first file of a zip archive, checked against its CRC at the end.
fn first_of_zip(
    file: File,
    path: &Path,
    meter: &Meter,
) -> Result<Box<dyn Read + Send>, TraceError> {
    let damaged = |source: io::Error| TraceError::Compression {
        path: path.to_owned(),
        layer: "zip",
        byte: 0,
        source,
    };
    let mut archive = zip::ZipArchive::new(file).map_err(|error| damaged(error.into()))?;
    let mut first = None;
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).map_err(|error| damaged(error.into()))?;
        if entry.is_file() {
            let start = entry.data_start();
            first = Some((entry.compression(), start, entry.compressed_size(), entry.crc32()));
            break;
        }
    }
    let Some((method, start, length, crc)) = first else {
        return Err(TraceError::Empty { path: path.to_owned() });
    };
    let mut file = archive.into_inner();
    file.seek(SeekFrom::Start(start)).map_err(damaged)?;
    let file = Metered { file, done: Arc::clone(&meter.done) };
    let data = BufReader::with_capacity(BUFFER, file.take(length));
    let reader: Box<dyn Read + Send> = match method {
        zip::CompressionMethod::Stored => Box::new(data),
        zip::CompressionMethod::Deflated => Box::new(flate2::bufread::DeflateDecoder::new(data)),
        _ => {
            let reason = "its compression method is neither stored nor deflated";
            return Err(damaged(io::Error::new(io::ErrorKind::Unsupported, reason)));
        }
    };
    Ok(Box::new(Checked { reader, hasher: crc32fast::Hasher::new(), expected: crc }))
}

/// Fails at the end of the data if its CRC-32 is not the expected one.
struct Checked {
    reader: Box<dyn Read + Send>,
    hasher: crc32fast::Hasher,
    expected: u32,
}

impl Read for Checked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.reader.read(buffer)?;
        self.hasher.update(&buffer[..got]);
        if got == 0 && !buffer.is_empty() && self.hasher.clone().finalize() != self.expected {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the checksum does not match"));
        }
        Ok(got)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads on where as much is unpacked as any file may hold, from `done` bytes of a pipe.
    fn read_on(done: u64) -> Result<bool, TraceError> {
        let blank = Box::new(io::repeat(b'\n').take(100));
        let mut input = Input::from_reader(Path::new("pipe"), blank);
        input.layer = Some("gzip");
        input.base = MIN_LIMIT;
        input.meter.done.store(done, Ordering::Relaxed);
        input.fill()
    }

    #[test]
    fn what_has_come_through_a_pipe_is_the_size_of_what_it_unpacks_to() {
        let refused = read_on(MIN_LIMIT / MAX_EXPANSION);
        assert!(matches!(refused, Err(TraceError::Bomb { limit: MIN_LIMIT, .. })), "{refused:?}");
        let read = read_on(MIN_LIMIT / MAX_EXPANSION + 1);
        assert!(matches!(read, Ok(true)), "{read:?}");
    }
}
