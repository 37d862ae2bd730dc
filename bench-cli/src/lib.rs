//! Measures memory allocators: runs, records, replays, compares and gates.
//!
//! `cli` declares the command line, `commands` holds one module per subcommand, `error` every
//! message and exit code.

pub mod allocators;
pub mod arena;
pub mod cli;
pub mod commands;
pub mod doctor;
pub mod error;
pub mod exec;
pub mod gate;
pub mod history;
pub mod interrupt;
pub mod output;
pub mod preload;
pub mod pressure;
pub mod report;
pub mod results;
pub mod session;
pub mod subjects;
mod suggest;
pub mod verdict;
pub mod worker;

pub use cli::main;
