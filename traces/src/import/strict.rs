//! A container read strictly: its stream ends in an error if what it was made from needed repairs.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use super::{Census, Format, Position, Source};
use crate::error::TraceError;
use crate::event::{Event, EventSource};

/// `source`, whose census must be clean at the end.
pub(super) struct Strict {
    source: Box<dyn Source>,
    path: PathBuf,
    ended: bool,
}

impl Strict {
    pub(super) fn new(source: Box<dyn Source>, path: &Path) -> Self {
        Strict { source, path: path.to_owned(), ended: false }
    }
}

/// What a strict reader says of this census of the trace at `path`.
///
/// # Errors
/// Something in it is an anomaly.
pub(super) fn check(path: &Path, census: &Census) -> Result<(), TraceError> {
    let anomalies = census.anomalies();
    if anomalies.is_empty() {
        return Ok(());
    }
    let anomalies: Vec<String> =
        anomalies.iter().map(|(name, count)| format!("{name} {count}")).collect();
    Err(TraceError::Strict { path: path.to_owned(), anomalies: anomalies.join(", ") })
}

impl EventSource for Strict {
    type Error = TraceError;

    fn next_event(&mut self) -> Result<Option<Event>, TraceError> {
        let next = self.source.next_event()?;
        if next.is_none() && !std::mem::replace(&mut self.ended, true) {
            check(&self.path, &self.source.census())?;
        }
        Ok(next)
    }

    fn len_hint(&self) -> Option<u64> {
        self.source.len_hint()
    }
}

impl Source for Strict {
    fn format(&self) -> Format {
        self.source.format()
    }

    fn census(&self) -> Census {
        self.source.census()
    }

    fn position(&self) -> Option<Position> {
        self.source.position()
    }

    fn lost(&self) -> Option<String> {
        self.source.lost()
    }

    fn provenance(&self) -> Vec<(String, String)> {
        self.source.provenance()
    }
}
