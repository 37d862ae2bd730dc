//! Generators that yield events, and the engine that executes events on threads.
//!
//! A workload is a trace that is not yet written down. [`spec`] reads what a workload claims and
//! generates its events; [`plan`] prepares any event stream for threads; [`engine`] executes a
//! plan on real threads through the process's own `malloc` and watches.

pub mod engine;
pub mod generators;
pub mod plan;
pub mod spec;
