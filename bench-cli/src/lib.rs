//! Measures memory allocators: runs, records, replays, compares and gates.
//!
//! `cli` declares the command line, `commands` holds one module per subcommand, `error` every
//! message and exit code.

pub mod cli;
pub mod commands;
pub mod error;
pub mod verdict;

pub use cli::main;
