//! A foreign trace as an event source: a reader of one format behind the resolver.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use super::input::Meter;
use super::raw::{Raw, RawSource};
use super::resolver::Resolver;
use super::{Census, Format, ImportOptions, Position, Source, strict};
use crate::error::TraceError;
use crate::event::{Event, EventSource};

/// Parses, resolves and counts.
pub(crate) struct Importer {
    path: PathBuf,
    format: Format,
    raw: Box<dyn RawSource>,
    meter: Meter,
    resolver: Resolver,
    census: Census,
    strict: bool,
    salvage: bool,
    lost: Option<String>,
    ended: bool,
}

impl Importer {
    pub(crate) fn new(
        path: &Path,
        format: Format,
        raw: Box<dyn RawSource>,
        meter: Meter,
        options: &ImportOptions,
    ) -> Self {
        let resolver = Resolver::new(raw.threaded());
        let path = path.to_owned();
        Importer {
            path,
            format,
            raw,
            meter,
            resolver,
            census: Census::default(),
            strict: options.strict,
            salvage: options.salvage,
            lost: None,
            ended: false,
        }
    }

    /// The next record; `None` at the end of what can be read.
    fn next_raw(&mut self) -> Result<Option<Raw>, TraceError> {
        let error = match self.raw.next_raw(&mut self.census) {
            Err(error) => error,
            sound => return sound,
        };
        let ragged = self.meter.unfinished_line();
        self.lost = Some(match error {
            // Whoever wrote the file was cut off in the middle of its last line.
            TraceError::Text { line, .. } if ragged > 0 => {
                self.census.truncated_bytes += ragged;
                format!("it ends inside line {line}, whose {ragged} bytes are lost")
            }
            TraceError::Text { .. }
            | TraceError::Damaged { .. }
            | TraceError::Compression { .. }
            | TraceError::Bomb { .. }
                if self.salvage =>
            {
                format!("{error}; what comes from there on is lost")
            }
            other => return Err(other),
        });
        Ok(None)
    }

    fn end(&mut self) -> Result<(), TraceError> {
        self.ended = true;
        self.resolver.finish(&mut self.census);
        self.census.leaked = self.resolver.live_objects();
        match self.strict {
            true => strict::check(&self.path, &self.census),
            false => Ok(()),
        }
    }
}

impl EventSource for Importer {
    type Error = TraceError;

    fn next_event(&mut self) -> Result<Option<Event>, TraceError> {
        loop {
            if let Some(event) = self.resolver.pop() {
                return Ok(Some(event));
            }
            if self.ended {
                return Ok(None);
            }
            match self.next_raw()? {
                Some(raw) => self.resolver.push(raw, &mut self.census),
                None => self.end()?,
            }
        }
    }
}

impl Source for Importer {
    fn format(&self) -> Format {
        self.format
    }

    fn census(&self) -> Census {
        self.census.clone()
    }

    fn position(&self) -> Option<Position> {
        Some(self.meter.position())
    }

    fn lost(&self) -> Option<String> {
        self.lost.clone()
    }
}
