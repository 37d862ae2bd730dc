//! Instructions, counted by callgrind: the one metric that repeats to the bit with one thread.
//!
//! Valgrind puts its own `malloc` in place of a preloaded one only in its memory checkers; under
//! callgrind the preloaded library serves, which the worker proves as always. What is counted is
//! the whole worker, so that a difference between two allocators is the allocators', while the
//! absolute figure holds the harness too.
#![forbid(unsafe_code)]

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{CliError, Exit};

/// Where valgrind lies, if it is installed.
fn valgrind() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join("valgrind")).find(|file| file.is_file())
}

/// Refuses to count instructions where valgrind is not installed; `without` says how to do without.
///
/// # Errors
/// [`Exit::Unfit`].
pub fn need_valgrind(without: &str) -> Result<(), CliError> {
    if valgrind().is_some() {
        return Ok(());
    }
    Err(CliError::new(Exit::Unfit, "instructions cannot be counted on this machine")
        .because("valgrind is not installed")
        .help(format!("install valgrind, or {without}")))
}

/// `program` under callgrind, which writes its totals to `counts`.
pub(super) fn command(program: &Path, counts: &Path) -> Command {
    let mut command = Command::new(valgrind().unwrap_or_else(|| PathBuf::from("valgrind")));
    command
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", counts.display()))
        // Threads take turns in a fixed order: the count then varies by 0.01 % and not by 10 %.
        .args(["--fair-sched=yes", "--quiet", "--"])
        .arg(program);
    command
}

/// The total of instructions in a callgrind file.
pub(super) fn instructions(counts: &Path) -> Option<u64> {
    let text = fs::read_to_string(counts).ok()?;
    total(&text)
}

fn total(text: &str) -> Option<u64> {
    let line = |key: &str| text.lines().find_map(|line| line.strip_prefix(key));
    // "summary:" stands at the top, "totals:" at the end; either has the events in their order.
    line("totals:").or_else(|| line("summary:"))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::total;

    #[test]
    fn the_first_event_of_the_totals_is_read() {
        assert_eq!(total("events: Ir\nsummary: 12\nfn=1\n5 12\ntotals: 34\n"), Some(34));
        assert_eq!(total("events: Ir\nsummary: 12\n"), Some(12));
        assert_eq!(total("nothing"), None);
    }
}
