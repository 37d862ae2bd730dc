//! Reading traces: one entry for our container and for every foreign format, told by content.
//!
//! [`open`] yields a [`Source`]: a resolved event stream (see [`crate::event`]) that also knows
//! its format and what had to be repaired ([`Census`]). Sources stream: memory grows with live
//! objects, never with the length of the trace.
#![forbid(unsafe_code)]

mod address_map;
mod census;
mod cursor;
mod detect;
mod format;
mod formats;
mod held;
mod importer;
mod input;
mod raw;
mod resolver;
mod strict;

use std::path::Path;

pub(crate) use address_map::IntMap;
pub use census::Census;
pub use format::{Format, UnknownFormat};
pub(crate) use formats::{csv, glibc_binary, ops};

use self::importer::Importer;
use self::input::Input;
use self::raw::RawSource;
use self::strict::Strict;
use crate::container;
use crate::error::TraceError;
use crate::event::EventSource;

/// A trace being read.
pub trait Source: EventSource<Error = TraceError> + Send {
    /// The format it is read from.
    fn format(&self) -> Format;

    /// What was repaired or left out so far; final once the stream has ended.
    fn census(&self) -> Census;

    /// How far the file has been read, where that is known.
    fn position(&self) -> Option<Position> {
        None
    }

    /// What of the file is missing or could not be read; final once the stream has ended.
    fn lost(&self) -> Option<String> {
        None
    }

    /// Where it came from, as far as the file says so: key and value, as in a container's footer.
    fn provenance(&self) -> Vec<(String, String)> {
        Vec::new()
    }
}

/// How much of a file has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Bytes of the file, compressed as it may be, read so far.
    pub done: u64,
    /// Bytes of the file; 0 where it is none, for example a pipe.
    pub total: u64,
}

impl<S: Source + ?Sized> Source for &mut S {
    fn format(&self) -> Format {
        (**self).format()
    }

    fn census(&self) -> Census {
        (**self).census()
    }

    fn position(&self) -> Option<Position> {
        (**self).position()
    }

    fn lost(&self) -> Option<String> {
        (**self).lost()
    }

    fn provenance(&self) -> Vec<(String, String)> {
        (**self).provenance()
    }
}

impl<S: Source + ?Sized> Source for Box<S> {
    fn format(&self) -> Format {
        (**self).format()
    }

    fn census(&self) -> Census {
        (**self).census()
    }

    fn position(&self) -> Option<Position> {
        (**self).position()
    }

    fn lost(&self) -> Option<String> {
        (**self).lost()
    }

    fn provenance(&self) -> Vec<(String, String)> {
        (**self).provenance()
    }
}

/// How to read a foreign trace.
#[derive(Clone, Debug)]
pub struct ImportOptions {
    /// Fail with [`TraceError::Strict`] at the end of a stream that needed repairs.
    pub strict: bool,
    /// The process to read where a file holds several; the first one seen by default.
    pub pid: Option<u64>,
    /// Leave out the releases that a converter appended for everything still alive.
    pub strip_tail: bool,
    /// Read as this format instead of detecting it.
    pub format: Option<Format>,
    /// Let a damaged trace end where the damage begins, and say so by [`Source::lost`].
    pub salvage: bool,
    /// Asked now and then, and whenever a signal interrupts a read: whether to give up with
    /// [`TraceError::Stopped`].
    pub stop: Option<fn() -> bool>,
}

impl Default for ImportOptions {
    fn default() -> Self {
        ImportOptions {
            strict: false,
            pid: None,
            strip_tail: true,
            format: None,
            salvage: false,
            stop: None,
        }
    }
}

/// Opens a trace in any known format.
///
/// # Errors
/// The file is missing, unreadable, empty, a directory, or in no known format.
pub fn open(path: impl AsRef<Path>) -> Result<Box<dyn Source>, TraceError> {
    open_with(path, &ImportOptions::default())
}

/// Opens a trace, with options for foreign formats.
///
/// # Errors
/// As [`open`].
pub fn open_with(
    path: impl AsRef<Path>,
    options: &ImportOptions,
) -> Result<Box<dyn Source>, TraceError> {
    let mut input = Input::open(path.as_ref())?;
    input.stop_when(options.stop);
    let own = container::is_container(input.peek(container::MAGIC.len())?) && input.is_plain();
    if own && options.format.is_none_or(|format| format == Format::Container) {
        let source = container::open(&path, options.salvage)?;
        return Ok(match options.strict {
            true => Box::new(Strict::new(source, path.as_ref())),
            false => source,
        });
    }
    import(input, options)
}

/// Reads a foreign trace from anything that is not compressed; `name` stands for it in messages.
///
/// # Errors
/// It is empty or in no known foreign format.
pub fn read(
    name: impl AsRef<Path>,
    reader: Box<dyn std::io::Read + Send>,
    options: &ImportOptions,
) -> Result<Box<dyn Source>, TraceError> {
    import(Input::from_reader(name.as_ref(), reader), options)
}

fn import(mut input: Input, options: &ImportOptions) -> Result<Box<dyn Source>, TraceError> {
    let path = input.path().to_owned();
    let meter = input.meter();
    let format = match options.format {
        Some(format) => format,
        None => detect::detect(&mut input)?,
    };
    use formats as f;
    let pid = options.pid;
    let raw: Box<dyn RawSource> = match format {
        Format::Container => return Err(detect::unrecognised(&mut input)),
        Format::Android => Box::new(f::android::Android(input)),
        Format::Logalloc => Box::new(f::logalloc::Logalloc::new(input, pid)),
        Format::Mtrace => Box::new(f::mtrace::Mtrace::new(input)),
        Format::GlibcBinary => Box::new(f::glibc_binary::GlibcBinary::new(input)?),
        Format::Workload => Box::new(f::workload::Workload::new(input)?),
        Format::Protobuf => Box::new(f::protobuf::Protobuf::new(input, options.strip_tail)),
        Format::Valgrind => Box::new(f::valgrind::Valgrind::new(input, pid)),
        Format::HeaptrackRaw => Box::new(f::heaptrack::Heaptrack::new(input, true)),
        Format::Heaptrack => Box::new(f::heaptrack::Heaptrack::new(input, false)),
        Format::Ops => Box::new(f::ops::Ops::new(input)?),
        Format::Ltrace => Box::new(f::ltrace::Ltrace::new(input)),
        Format::Csv => Box::new(f::csv::Csv(input)),
    };
    Ok(Box::new(Importer::new(&path, format, raw, meter, options)))
}
