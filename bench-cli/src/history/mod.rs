//! Results over commits: folders of results go into one SQLite file, and come out as series with
//! the places where their level changed.
//!
//! | module | what it holds |
//! |---|---|
//! | [`commit`] | which commit a result speaks of, as git says |
//! | [`points`] | what one folder of results is worth: a value per subject, allocator and metric |
//! | [`store`] | the file |
//! | [`series`] | one metric over commits, with its changes of level |
//!
//! # Invariants
//! 1. A folder is in the file wholly or not at all, and once.
//! 2. A series never crosses machines, nor conditions of measuring: other figures are no change.
#![forbid(unsafe_code)]

pub mod commit;
pub mod points;
pub mod series;
pub mod store;
