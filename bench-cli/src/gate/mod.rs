//! The gate: a base and a head in, a verdict with its files out.
//!
//! | module | what it holds |
//! |---|---|
//! | [`quantity`], [`date`] | `5%`, `4m`, `2027-01-31` as people write them |
//! | [`metric`] | deterministic metrics and their limits |
//! | [`thresholds`] | `ci/thresholds.toml` |
//! | [`base`] | the base built from a git revision |
//! | [`baseline`] | counts of an earlier library, stored with their key |
//! | [`trial`] | one gate from libraries and plans to an outcome |
//! | [`scale`] | one gate on many machines |
//! | [`suite`] | which cells, by name |
//! | [`session`], [`workers`] | run processes for the procedure of [`crate::verdict`] within a budget |
//! | [`outcome`] | what was found: the one value behind every output |
//! | [`calibration`] | what is known of this machine |
//! | [`explain`] | what is checked, in words |
//! | [`files`], [`table`], [`junit`], [`github`], [`openmetrics`] | the outputs |
//!
//! Statistics live in [`crate::verdict`]; nothing here decides what a number means.

pub mod base;
pub mod baseline;
pub mod calibration;
pub mod date;
pub mod explain;
pub mod files;
pub mod github;
pub mod junit;
pub mod metric;
pub mod openmetrics;
pub mod outcome;
pub mod quantity;
pub mod scale;
pub mod session;
pub mod suite;
pub mod table;
pub mod thresholds;
pub mod trial;
pub mod workers;
