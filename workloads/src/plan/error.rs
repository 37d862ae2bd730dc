//! Why a plan cannot be made or opened.
#![forbid(unsafe_code)]

use std::io;
use std::path::PathBuf;

/// Why a plan cannot be made or opened.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The event source gave up.
    #[error("the event source failed after {events} events")]
    Source {
        /// Events read before.
        events: u64,
        /// What the source said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The stream breaks an invariant of the event model.
    #[error("event {event} is impossible: {what}")]
    Stream {
        /// Position in the stream, counted from 0.
        event: u64,
        /// What is wrong, as a sentence.
        what: String,
    },
    /// More than the plan format can number.
    #[error("too large for a plan: {what}")]
    TooLarge {
        /// Which number is out of range.
        what: &'static str,
    },
    /// The file system refused.
    #[error("cannot {verb} `{path}`")]
    Io {
        /// What was tried.
        verb: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not a plan, or not one of this version.
    #[error("`{path}` is not a usable plan: {what}")]
    NotAPlan {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}
