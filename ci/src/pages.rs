//! What the pages of measured figures share: names, medians, numbers in cells, and the list of the allocators
//! that were compared with.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use serde::Deserialize;

use crate::tools;

/// The allocator the table is about, and the one that memory is compared with.
pub(crate) const OURS: &str = "ours";
pub(crate) const SYSTEM: &str = "system";

/// What `ci/peers` says of the allocators it built.
#[derive(Debug, Deserialize)]
pub(crate) struct Peers {
    peers: Vec<Peer>,
}

#[derive(Debug, Deserialize)]
struct Peer {
    name: String,
    version: String,
    flags: String,
    exports_malloc: String,
}

/// Reads what a run or `ci/peers` wrote.
///
/// # Errors
/// A file that is missing or holds something else, with its name.
pub(crate) fn json<T: serde::de::DeserializeOwned>(file: &Path) -> anyhow::Result<T> {
    std::fs::read_to_string(file)
        .map_err(anyhow::Error::from)
        .and_then(|text| Ok(serde_json::from_str(&text)?))
        .with_context(|| format!("cannot read {}", file.display()))
}

/// The name of an allocator in a table: a library given by its path has its file's name.
pub(crate) fn short_name(allocator: &str) -> &str {
    allocator.trim_start_matches("lib").trim_end_matches(".so")
}

/// The middle of `values`, or the mean of the two in the middle; no number if there are none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (sorted.len().saturating_sub(1) / 2, sorted.len() / 2);
    let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
    f64::midpoint(at(low), at(high))
}

/// What stands behind a mean over `count` rows of a table that has `all`.
pub(crate) fn of_rows(count: usize, all: usize) -> String {
    if count == all { String::new() } else { format!(" ({count} of {all} rows)") }
}

/// Three significant digits.
pub(crate) fn short(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

/// The C library of this machine, which is the one that was measured on, as in `glibc 2.36`.
pub(crate) fn c_library() -> String {
    let said = tools::output(Command::new("getconf").arg("GNU_LIBC_VERSION"));
    said.map_or_else(|_| "unknown".to_owned(), |version| version.trim().to_owned())
}

/// What the allocators are that were compared with: `c_library`, and those that `ci/peers` built.
pub(crate) fn append_peers(peers: &Peers, c_library: &str, page: &mut String) {
    let _ = writeln!(
        page,
        "## The others\n\nBuilt by `ci/peers` from the sources in their Rust crates, but for `{SYSTEM}`, which \
         is the machine's own.\n\n| name | version | how it exports malloc | flags |\n|---|---|---|---|\n\
         | {SYSTEM} | {c_library} | it is the C library itself | as its distribution built it |"
    );
    for Peer { name, version, flags, exports_malloc } in &peers.peers {
        let _ = writeln!(page, "| {name} | {version} | {exports_malloc} | `{flags}` |");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_but_ours_has_a_row_that_says_what_it_is() {
        let other = r#"{"name": "other", "version": "1", "flags": "-O3", "exports_malloc": "so"}"#;
        let peers = serde_json::from_str(&format!(r#"{{"peers": [{other}]}}"#)).expect("sound");
        let mut page = String::new();
        append_peers(&peers, &c_library(), &mut page);
        let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| ")).collect();
        assert_eq!(rows.len(), 3, "{page}");
        let system = format!("| system | {} | it is the C library itself |", c_library());
        assert!(rows[1].starts_with(&system), "{page}");
        assert_eq!(rows[2], "| other | 1 | so | `-O3` |");
        let (name, version) = system.split_once("glibc ").expect("this is a system of glibc's");
        assert!(!name.is_empty() && version.starts_with(|c: char| c.is_ascii_digit()), "{version}");
    }
}
