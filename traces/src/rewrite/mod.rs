//! Writing traces down again: in other formats, in part, together, smaller or without secrets.
//!
//! What changes a stream is itself a [`Source`](crate::Source) over another one, so that steps
//! can be put behind one another and nothing is held in memory but what is alive. Only
//! [`shrink`] holds the whole trace: it needs to try many subsets of it.
#![forbid(unsafe_code)]

mod anonymize;
mod choose;
mod cut;
pub mod export;
mod fit;
pub mod fleetbench;
mod generate;
mod merge;
mod profile;
mod renumber;
pub mod shrink;
mod stream;

pub use anonymize::{Anonymize, AnonymizeOptions};
pub use cut::{CUT_MARKER, Cut, Span};
pub use fit::Fitter;
pub use generate::Generator;
pub use merge::Merge;
pub use profile::{
    Birth, Cell, Death, PROFILE_VERSION, Phase, Profile, ProfileError, TIMES_OF_BIRTH, ThreadSpan,
};
pub use stream::Stream;
