//! A foreign trace as an event source: a reader of one format behind the resolver.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use super::input::Meter;
use super::raw::RawSource;
use super::resolver::Resolver;
use super::{Census, Format, Position, Source};
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
    ended: bool,
}

impl Importer {
    pub(crate) fn new(
        path: &Path,
        format: Format,
        raw: Box<dyn RawSource>,
        meter: Meter,
        strict: bool,
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
            strict,
            ended: false,
        }
    }

    fn end(&mut self) -> Result<(), TraceError> {
        self.ended = true;
        self.resolver.finish(&mut self.census);
        self.census.leaked = self.resolver.live_objects();
        let anomalies = self.census.anomalies();
        if self.strict && !anomalies.is_empty() {
            let anomalies: Vec<String> =
                anomalies.iter().map(|(name, count)| format!("{name} {count}")).collect();
            let path = self.path.clone();
            return Err(TraceError::Strict { path, anomalies: anomalies.join(", ") });
        }
        Ok(())
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
            match self.raw.next_raw(&mut self.census)? {
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
}
