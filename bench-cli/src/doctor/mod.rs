//! What limits this machine as a place to measure: one finding per matter, each with its state, why
//! it matters, the exact fix and whether that needs root.
//!
//! `checks` looks at processor, kernel and environment; `memory` at memory, limits and cgroups;
//! `fix` changes settings for the length of one command, `resolution` measures which difference can be told apart.

mod checks;
pub mod fix;
mod memory;
mod resolution;

use std::fs;

use serde::Serialize;

pub use resolution::{Resolution, measure};

/// How a matter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// As a measurement wants it.
    Good,
    /// It costs precision or features; results stay true.
    Limits,
    /// It cannot be seen from here.
    Unknown,
}

/// One matter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub name: &'static str,
    /// How it stands.
    pub state: State,
    /// What was found.
    pub found: String,
    /// Why it matters.
    pub why: &'static str,
    /// The exact fix, where there is one and it is needed.
    pub fix: Option<String>,
    /// Whether the fix needs root.
    pub root: bool,
}

impl Finding {
    fn good(name: &'static str, found: impl Into<String>, why: &'static str) -> Self {
        Finding { name, state: State::Good, found: found.into(), why, fix: None, root: false }
    }

    fn unknown(name: &'static str, found: impl Into<String>, why: &'static str) -> Self {
        Finding { state: State::Unknown, ..Finding::good(name, found, why) }
    }

    fn limits(name: &'static str, found: impl Into<String>, why: &'static str) -> Self {
        Finding { state: State::Limits, ..Finding::good(name, found, why) }
    }

    fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    fn fix_as_root(mut self, fix: impl Into<String>) -> Self {
        self.root = true;
        self.fix(fix)
    }
}

/// Everything that can be seen without measuring.
#[must_use]
pub fn examine() -> Vec<Finding> {
    vec![
        checks::governor(),
        checks::boost(),
        checks::smt(),
        checks::processors(),
        checks::load(),
        checks::steal(),
        checks::clock(),
        checks::perf_counters(),
        checks::address_randomisation(),
        checks::inherited(),
        checks::valgrind(),
        memory::huge_pages(),
        memory::swap(),
        memory::overcommit(),
        memory::cgroup_memory(),
        memory::cgroup_processor(),
    ]
}

/// A one-line file of the kernel, trimmed.
fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}
