//! A folder of results as one self-contained HTML page.
//!
//! | module | what it holds |
//! |---|---|
//! | [`frame`] | a CSV table by column name, where columns may be missing |
//! | [`svg`] | charts drawn with classes instead of colours, so that the page's theme paints them |
//! | [`overview`] | what came out, in words and in figures with intervals |
//! | [`latency`] | latency by percentile, size class and thread, and the slowest calls |
//! | [`heap`] | the picture of the heap, where the allocator exports a map of it |
//! | [`memory`] | footprint over time, fragmentation by name |
//! | [`sections`] | what the sections share, verdicts of a gate, fidelity |
//! | [`page`] | the sections in the template |
//!
//! The page loads nothing from anywhere: style and charts are inside, raw tables are linked by
//! relative names. Every text that comes from a file is escaped by the template engine; charts
//! escape their own.

pub mod frame;
pub mod heap;
pub mod latency;
pub mod memory;
pub mod overview;
pub mod page;
pub mod sections;
pub mod svg;
