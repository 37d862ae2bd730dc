//! The files of a working tree, as the checks see them: relative paths in a fixed order, without
//! what builds and runs leave behind.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// Names of what holds nothing written by hand, wherever it stands (`.git` is a file in a worktree).
const SKIPPED: [&str; 4] = [".git", "target", "bench-out", "book"];

/// Every file at or below `root`/`below`, relative to `root`, sorted.
///
/// # Errors
/// A folder that cannot be read.
pub(crate) fn files(root: &Path, below: &str) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut waiting = vec![root.join(below)];
    while let Some(folder) = waiting.pop() {
        let entries = fs::read_dir(&folder)
            .with_context(|| format!("failed to read folder {}", folder.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("failed to list {}", folder.display()))?;
            let kind = entry.file_type()?;
            if SKIPPED.iter().any(|skipped| entry.file_name() == *skipped) {
                continue;
            }
            if kind.is_dir() {
                waiting.push(entry.path());
            } else if kind.is_file() {
                let path = entry.path();
                found.push(path.strip_prefix(root).unwrap_or(&path).to_owned());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The Rust files among `files`.
pub(crate) fn rust(files: &[PathBuf]) -> impl Iterator<Item = &PathBuf> {
    files.iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
}

/// The text of one file.
///
/// # Errors
/// A file that cannot be read or is not UTF-8.
pub(crate) fn read(root: &Path, path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(root.join(path))
        .with_context(|| format!("failed to read {}", path.display()))
}
