//! Events in memory as a source.
#![forbid(unsafe_code)]

use crate::error::TraceError;
use crate::event::{Event, EventSource};
use crate::import::{Census, Format, Source};

/// A source that yields a list of events.
#[derive(Debug)]
pub struct Stream {
    events: std::vec::IntoIter<Event>,
    census: Census,
}

impl Stream {
    /// The events in their order, which must be one of the event model.
    #[must_use]
    pub fn new(events: Vec<Event>) -> Self {
        Stream { events: events.into_iter(), census: Census::default() }
    }
}

impl EventSource for Stream {
    type Error = TraceError;

    fn next_event(&mut self) -> Result<Option<Event>, TraceError> {
        Ok(self.events.next())
    }

    fn len_hint(&self) -> Option<u64> {
        Some(self.events.len() as u64)
    }
}

impl Source for Stream {
    fn format(&self) -> Format {
        Format::Container
    }

    fn census(&self) -> Census {
        self.census.clone()
    }
}
