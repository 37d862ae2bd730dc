//! Writing traces down again: in other formats, in part, together, smaller or without secrets.
#![forbid(unsafe_code)]

pub mod export;
