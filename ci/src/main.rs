//! `cargo ci …`: the checks of this project that no common tool makes.
//!
//! - `floors`: no crate and no module of the allocator imports from a floor above its own.
//! - `tidy`: manifests, headers, lengths, unsafe arguments, dead links, undocumented exit codes.
//! - `instructions`: what a malloc and a free execute, counted, so that they cannot grow unnoticed.
//! - `valgrind`: programs on our library under memcheck and helgrind.
//! - `figures`: the tables of docs/figures.md from what its runs left (see `ci/figures.sh`).
//! - `programs`: the tables of docs/programs.md from what its runs left (see `ci/programs.sh`).
//!
//! Each check reads the working tree it is started in, prints its findings to stderr as
//! `file:line: what is wrong`, and ends with 0 (sound), 1 (findings) or 2 (could not be made).
//! Links no other crate of this workspace, so that it can say what is wrong with any of them.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a command-line program speaks through its stdout")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;

mod figures;
mod floors;
mod instructions;
mod lexer;
mod pages;
mod programs;
mod tidy;
mod tools;
mod tree;
mod valgrind;

const USAGE: &str = "usage: cargo ci floors | tidy | instructions [--lib LIBRARY.so] [--show] | \
    valgrind [--lib LIBRARY.so] | figures RUN-FOLDER... PEERS.json COMMAND | \
    programs FOLDER PEERS.json COMMAND";

/// One thing that is wrong, at one place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    /// Path relative to the root of the workspace.
    file: PathBuf,
    /// Line from 1, or 0 for the file as a whole.
    line: usize,
    /// A sentence fragment: what is wrong and, where it is not obvious, what would be right.
    what: String,
}

impl Finding {
    fn new(file: impl AsRef<Path>, line: usize, what: impl Into<String>) -> Self {
        Finding { file: file.as_ref().to_owned(), line, what: what.into() }
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file.display(), self.what),
            line => write!(f, "{}:{line}: {}", self.file.display(), self.what),
        }
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = root().and_then(|root| match words.split_first() {
        Some((&"floors", [])) => floors::check(&root),
        Some((&"tidy", [])) => tidy::check(&root),
        Some((&"valgrind", options)) => valgrind::check(&root, options),
        Some((&"instructions", options)) => instructions::check(&root, options),
        Some((&"figures", options)) => figures::write(options),
        Some((&"programs", options)) => programs::write(options),
        _ => anyhow::bail!("{USAGE}"),
    });
    match outcome {
        Ok(report) => {
            println!("{}", report.summary);
            for finding in &report.findings {
                eprintln!("{finding}");
            }
            if report.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// What a check has to say: one line for everybody, and what is wrong.
#[derive(Debug)]
struct Report {
    summary: String,
    findings: Vec<Finding>,
}

/// The root of the workspace: the nearest folder upwards whose manifest has `[workspace]`.
fn root() -> anyhow::Result<PathBuf> {
    let start = std::env::current_dir().context("failed to find the current folder")?;
    start
        .ancestors()
        .find(|folder| {
            std::fs::read_to_string(folder.join("Cargo.toml"))
                .is_ok_and(|manifest| manifest.lines().any(|line| line.trim() == "[workspace]"))
        })
        .map(Path::to_owned)
        .with_context(|| format!("no workspace at or above {}", start.display()))
}
