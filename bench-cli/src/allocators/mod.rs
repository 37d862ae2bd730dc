//! Names of allocators, and what it takes to run a program under one.
//!
//! `names` reads what the command line says, `found` looks for peers on this machine, `elf` asks
//! a library whether it serves `malloc` at all. What is resolved here is a claim: only the worker
//! process proves which file serves `malloc`.
#![forbid(unsafe_code)]

mod elf;
mod found;
mod names;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use elf::exports_malloc;
pub use found::{Peer, peers};
pub use names::{resolve, resolve_all, standard};

/// An allocator under test: its name in results, and how a process gets it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocator {
    /// The word in the `allocator` column: `ours`, `system`, `jemalloc`, a library's file name,
    /// with options behind a `?` where some were given.
    pub name: String,
    /// The library to preload; `None` for the system's allocator.
    pub preload: Option<PathBuf>,
    /// Variables set for the process beside the scrubbed environment.
    pub env: Vec<(String, String)>,
}

impl Allocator {
    /// The allocator of the C library itself.
    #[must_use]
    pub fn system() -> Self {
        Allocator { name: "system".to_owned(), preload: None, env: Vec::new() }
    }

    /// Whether it is one of ours: `ours`, `ours-hardened`, either with options.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        matches!(self.name.split('?').next(), Some("ours" | "ours-hardened"))
    }
}
