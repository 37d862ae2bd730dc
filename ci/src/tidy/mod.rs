//! What every file of this repository has to look like, as far as a machine can say.
//!
//! - manifests inherit version, edition, licence and lints from the workspace, and the lockfile
//!   knows one registry;
//! - Rust files open with a header, stay short, and give reasons where they are unsafe;
//! - text holds no paths of somebody's machine, no unfinished business, no conflict markers;
//! - links inside the repository lead somewhere, and every exit code and option is documented.
//!
//! Formatting, lints and dead documentation links in Rust are `cargo fmt`'s, clippy's and
//! rustdoc's business; nothing here repeats them.

use std::path::{Path, PathBuf};

use crate::{Report, tree};

mod documents;
mod manifests;
mod rust;
mod text;

/// One file that is text, as every check sees it.
#[derive(Debug)]
struct File {
    path: PathBuf,
    text: String,
}

impl File {
    fn has_extension(&self, extension: &str) -> bool {
        self.path.extension().is_some_and(|own| own == extension)
    }
}

/// Checks every text file of the working tree at `root`.
///
/// # Errors
/// A folder or file that cannot be read, or a manifest that is not valid.
pub(crate) fn check(root: &Path) -> anyhow::Result<Report> {
    let files = read(root)?;
    let unsafety = rust::count(&files);
    let mut findings = manifests::check(&files)?;
    findings.extend(rust::check(&files));
    findings.extend(text::check(&files));
    findings.extend(documents::check(&files, root));
    findings.sort();
    let summary = format!(
        "tidy: {} text files, {} unsafe blocks with {} SAFETY comments, {} findings",
        files.len(),
        unsafety.blocks,
        unsafety.comments,
        findings.len()
    );
    Ok(Report { summary, findings })
}

/// The text files of the tree; what is not UTF-8 is data, and none of our business.
fn read(root: &Path) -> anyhow::Result<Vec<File>> {
    let mut files = Vec::new();
    for path in tree::files(root, "")? {
        if path.starts_with("ci/fixtures") {
            continue;
        }
        if let Ok(text) = String::from_utf8(std::fs::read(root.join(&path))?) {
            files.push(File { path, text });
        }
    }
    Ok(files)
}

/// Line numbers from 1 beside the lines of `text`.
fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

#[cfg(test)]
fn found(check: impl Fn(&[File]) -> Vec<crate::Finding>, path: &str, text: &str) -> Vec<String> {
    let files = [File { path: PathBuf::from(path), text: text.to_owned() }];
    check(&files).iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_repository_is_tidy() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let report = check(&root).unwrap();
        let found: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
        assert_eq!(found, [""; 0], "{}", report.summary);
    }
}
