//! Which commit a result speaks of. Git is asked as a program; where there is none, or no
//! repository, nothing is known and nothing is wrong.
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::results::utc;

/// A commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Its hash, in full.
    pub hash: String,
    /// When it was committed, in UTC: commits are ordered by it.
    pub committed_utc: String,
    /// Whether tracked files differed from it.
    pub modified: bool,
}

impl Commit {
    /// The commit that is checked out in `folder`.
    #[must_use]
    pub fn checked_out(folder: &Path) -> Option<Self> {
        let mut commit = Self::of_revision(folder, "HEAD")?;
        let changes = git(folder, &["status", "--porcelain", "--untracked-files=no"])?;
        commit.modified = !changes.is_empty();
        Some(commit)
    }

    /// The commit that `revision` names in `folder`.
    #[must_use]
    pub fn of_revision(folder: &Path, revision: &str) -> Option<Self> {
        // What begins with a dash would be an option; `--` would make it a path.
        if revision.starts_with('-') {
            return None;
        }
        let named = format!("{revision}^{{commit}}");
        let text = git(folder, &["show", "--no-patch", "--format=%H %ct", &named])?;
        let (hash, seconds) = text.split_once(' ')?;
        let committed_utc = utc::rfc3339(seconds.parse().ok()?);
        Some(Commit { hash: hash.to_owned(), committed_utc, modified: false })
    }

    /// `1a2b3c4d5e6f`, or `1a2b3c4d5e6f+` with modifications.
    #[must_use]
    pub fn short(&self) -> String {
        let hash = self.hash.get(..12).unwrap_or(&self.hash);
        format!("{hash}{}", if self.modified { "+" } else { "" })
    }
}

/// What git answers, without the end of its last line.
fn git(folder: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new("git")
        .arg("-C")
        .arg(folder)
        .args(args)
        // Looking must not take the lock that somebody else may need.
        .env("GIT_OPTIONAL_LOCKS", "0")
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim_end().to_owned())
}
