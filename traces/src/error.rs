//! Every way reading or writing a trace can fail, with the place where it did.
//!
//! A fragment says what is wrong and where, never what to do: advice belongs to the command line.

use std::io;
use std::path::{Path, PathBuf};

use crate::import::Format;

/// Why a trace could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// The operating system refused to open or read the file.
    #[error("cannot read trace `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A directory where a file was expected.
    #[error("trace `{}` is a directory", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
    },
    /// A file without a byte, or an archive without a file.
    #[error("trace `{}` is empty", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// No reader recognises the content.
    #[error("trace `{}` is in no known format (it begins with {begins})", path.display())]
    Unrecognised {
        /// The file.
        path: PathBuf,
        /// Its first bytes, made printable.
        begins: String,
    },
    /// A line of a text format does not parse.
    #[error("{format} trace `{}` line {line}, column {column}: {reason}", path.display())]
    Text {
        /// The file.
        path: PathBuf,
        /// The format being read.
        format: Format,
        /// Line, counted from 1.
        line: u64,
        /// Byte within the line, counted from 1.
        column: u64,
        /// What was expected or found.
        reason: String,
    },
    /// A record of a binary format does not parse, or contradicts what came before.
    #[error("{format} trace `{}` is damaged at event {event} (byte {byte}): {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The format being read.
        format: Format,
        /// Events read soundly before the damage.
        event: u64,
        /// Position in the (uncompressed) stream.
        byte: u64,
        /// What was expected or found.
        reason: String,
    },
    /// The compressed layer around a trace is truncated or corrupt.
    #[error("the {layer} data of trace `{}` is damaged after {byte} uncompressed bytes", path.display())]
    Compression {
        /// The file.
        path: PathBuf,
        /// `gzip`, `zstd` or `zip`.
        layer: &'static str,
        /// Bytes that came out before the damage.
        byte: u64,
        /// What the decompressor said.
        source: io::Error,
    },
    /// The compressed layer yields more than any honest trace of its size would.
    #[error(
        "the {layer} data of trace `{}` expands from {compressed} bytes to more than {limit}",
        path.display()
    )]
    Bomb {
        /// The file.
        path: PathBuf,
        /// `gzip`, `zstd` or `zip`.
        layer: &'static str,
        /// Size of the file, or what had come through a pipe.
        compressed: u64,
        /// Bytes at which reading stopped.
        limit: u64,
    },
    /// A strict import met something that a lenient one repairs and counts.
    #[error("trace `{}` is not clean: {anomalies}", path.display())]
    Strict {
        /// The file.
        path: PathBuf,
        /// The census counters above zero, as `name count` pairs.
        anomalies: String,
    },
    /// Whoever reads asked to stop.
    #[error("reading trace `{}` was stopped", path.display())]
    Stopped {
        /// The file.
        path: PathBuf,
    },
    /// The system refused to create or write a file.
    #[error("cannot write trace `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A container of a version, or with a feature, that this program does not know.
    #[error("trace `{}` cannot be read by this version: {reason}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What is not known.
        reason: String,
    },
    /// An event that is to be written breaks the order of its stream.
    #[error("event {event} cannot be written to trace `{}`: {reason}", path.display())]
    Disorder {
        /// The file.
        path: PathBuf,
        /// Events written before it.
        event: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// The format that was asked for cannot say what an event says.
    #[error("{format} cannot express {what}")]
    Inexpressible {
        /// The format being written.
        format: Format,
        /// The event or property.
        what: String,
    },
}

impl TraceError {
    /// The file this is about, where there is one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            TraceError::Read { path, .. }
            | TraceError::Directory { path }
            | TraceError::Empty { path }
            | TraceError::Unrecognised { path, .. }
            | TraceError::Text { path, .. }
            | TraceError::Damaged { path, .. }
            | TraceError::Compression { path, .. }
            | TraceError::Bomb { path, .. }
            | TraceError::Strict { path, .. }
            | TraceError::Stopped { path }
            | TraceError::Write { path, .. }
            | TraceError::Unsupported { path, .. }
            | TraceError::Disorder { path, .. } => Some(path),
            TraceError::Inexpressible { .. } => None,
        }
    }
}
