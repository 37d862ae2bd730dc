//! One reader per foreign format: bytes in, [`Raw`](super::raw::Raw) records out.
//!
//! A reader knows its grammar and nothing about objects; the resolver does the rest.

pub(crate) mod android;
