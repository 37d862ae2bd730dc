//! Events in foreign formats.
//!
//! Objects get addresses that are never used again, threads ids counted from 1. What a format
//! cannot say is left out and counted (`Exporter::losses`); CSV says everything.
#![forbid(unsafe_code)]

mod binary;
mod text;
mod workload;

use std::collections::BTreeMap;
use std::io::{self, Write};

use crate::error::TraceError;
use crate::event::{Event, ObjectId, ThreadId};
use crate::import::Format;

/// Writes events in one format.
pub struct Exporter<W: Write> {
    encoder: Box<dyn Encoder>,
    out: W,
    buffer: Vec<u8>,
    losses: Losses,
}

impl<W: Write> std::fmt::Debug for Exporter<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exporter").field("losses", &self.losses).finish_non_exhaustive()
    }
}

/// How many events or properties a format could not express, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Losses(BTreeMap<&'static str, u64>);

impl Losses {
    fn note(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    /// Name and count, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.0.iter().map(|(&what, &count)| (what, count))
    }

    /// Whether the file says everything the events said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// One format.
trait Encoder: Send {
    fn begin(&mut self, _out: &mut Vec<u8>) {}

    fn event(&mut self, event: &Event, out: &mut Vec<u8>, losses: &mut Losses);

    fn end(&mut self, _out: &mut Vec<u8>) {}
}

const FULL: usize = 1 << 16;

impl<W: Write> Exporter<W> {
    /// An exporter to `out`.
    ///
    /// # Errors
    /// [`TraceError::Inexpressible`] for a format that is only read.
    pub fn new(format: Format, out: W) -> Result<Self, TraceError> {
        let encoder: Box<dyn Encoder> = match format {
            Format::Csv => Box::new(text::Csv),
            Format::Android => Box::new(text::Android),
            Format::Logalloc => Box::new(text::Logalloc),
            Format::Mtrace => Box::new(text::Mtrace),
            Format::Valgrind => Box::new(text::Valgrind),
            Format::Ltrace => Box::new(text::Ltrace),
            Format::HeaptrackRaw => Box::new(text::HeaptrackRaw::default()),
            Format::GlibcBinary => Box::new(binary::GlibcBinary),
            Format::Protobuf => Box::new(binary::Protobuf),
            Format::Ops => Box::new(binary::Ops::default()),
            Format::Workload => Box::new(workload::Workload::default()),
            Format::Container | Format::Heaptrack => {
                let what = "an export; it is only read".to_owned();
                return Err(TraceError::Inexpressible { format, what });
            }
        };
        let mut exporter =
            Exporter { encoder, out, buffer: Vec::with_capacity(FULL), losses: Losses::default() };
        exporter.encoder.begin(&mut exporter.buffer);
        Ok(exporter)
    }

    /// Writes one event.
    ///
    /// # Errors
    /// What `out` says.
    pub fn write(&mut self, event: &Event) -> io::Result<()> {
        self.encoder.event(event, &mut self.buffer, &mut self.losses);
        if self.buffer.len() >= FULL { self.flush() } else { Ok(()) }
    }

    /// Writes what is left and returns `out` and what could not be said.
    ///
    /// # Errors
    /// What `out` says.
    pub fn finish(mut self) -> io::Result<(W, Losses)> {
        self.encoder.end(&mut self.buffer);
        self.flush()?;
        self.out.flush()?;
        Ok((self.out, self.losses))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}

/// The address under which an object is written; 0 for NULL.
fn address(object: Option<ObjectId>) -> u64 {
    object.map_or(0, |object| (object.index() + 1) * 16)
}

/// The id under which a thread is written.
fn tid(thread: ThreadId) -> u64 {
    u64::from(thread.0) + 1
}
