//! Documents: links that lead somewhere, and a line for every exit code and option.

use std::collections::BTreeSet;
use std::path::Path;

use super::{File, numbered};
use crate::Finding;

/// Where the exit codes are declared, and where a user looks them up.
const EXIT_CODES: (&str, &str) = ("bench-cli/src/error.rs", "docs/exit-codes.md");

/// Where the allocator's options are declared, and where a user looks them up.
const OPTIONS: ([&str; 2], &str) =
    (["allocator/src/options.rs", "allocator/src/options/settings.rs"], "docs/options.md");

/// What is wrong with the documents among `files`, which stand below `root`.
pub(super) fn check(files: &[File], root: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.has_extension("md")) {
        findings.extend(dead_links(file, |target| root.join(target).exists()));
    }
    let text = |path: &str| files.iter().find(|file| file.path.as_os_str() == path);
    if let (Some(code), document) = (text(EXIT_CODES.0), text(EXIT_CODES.1)) {
        findings.extend(undocumented(&exit_codes(&code.text), document, EXIT_CODES.1));
    }
    for code in OPTIONS.0.into_iter().filter_map(text) {
        findings.extend(undocumented(&options(&code.text), text(OPTIONS.1), OPTIONS.1));
    }
    findings
}

fn dead_links(file: &File, exists: impl Fn(&Path) -> bool) -> Vec<Finding> {
    let folder = file.path.parent().unwrap_or(Path::new(""));
    let mut findings = Vec::new();
    let mut in_code = false;
    for (number, line) in numbered(&file.text) {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        for link in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            if !exists(&folder.join(target)) {
                findings.push(Finding::new(
                    &file.path,
                    number,
                    format!("link to `{link}` is dead"),
                ));
            }
        }
    }
    findings
}

/// What of `declared` has no table row or code span in `document`.
fn undocumented(declared: &BTreeSet<String>, document: Option<&File>, path: &str) -> Vec<Finding> {
    let text = document.map_or("", |file| file.text.as_str());
    declared
        .iter()
        .filter(|name| !text.contains(&format!("`{name}`")))
        .map(|name| Finding::new(path, 0, format!("does not document `{name}`")))
        .collect()
}

/// The numbers an enum with discriminants declares.
fn exit_codes(source: &str) -> BTreeSet<String> {
    source
        .lines()
        .filter_map(|line| line.trim().strip_suffix(',')?.split_once(" = "))
        .filter(|(name, number)| {
            name.chars().all(char::is_alphanumeric) && number.parse::<u8>().is_ok()
        })
        .map(|(_, number)| number.to_owned())
        .collect()
}

/// The names of options, from the documentation of their fields: ``/// `name=value|value` ``.
fn options(source: &str) -> BTreeSet<String> {
    source
        .lines()
        .filter_map(|line| line.trim().strip_prefix("/// `")?.split_once('='))
        .map(|(name, _)| name.to_owned())
        .filter(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c == '-'))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn file(text: &str) -> File {
        File { path: PathBuf::from("docs/a.md"), text: text.to_owned() }
    }

    #[test]
    fn a_link_to_nothing_is_found_and_others_are_not() {
        let text = "[a](b.md) [c](../gone.md#x) [d](https://e.f) [g](#h)\n```\n[i](j)\n```\n";
        let found = dead_links(&file(text), |target| target == Path::new("docs/b.md"));
        assert_eq!(found, [Finding::new("docs/a.md", 1, "link to `../gone.md#x` is dead")]);
    }

    #[test]
    fn an_exit_code_without_a_line_in_the_document_is_found() {
        let codes = exit_codes("enum Exit {\n    /// Done.\n    Success = 0,\n    Usage = 2,\n}\n");
        let found = undocumented(&codes, Some(&file("| `0` | done |")), "docs/a.md");
        assert_eq!(found, [Finding::new("docs/a.md", 0, "does not document `2`")]);
    }

    #[test]
    fn without_the_document_everything_is_undocumented() {
        assert_eq!(undocumented(&exit_codes("A = 0,\nB = 130,\n"), None, "docs/a.md").len(), 2);
    }

    #[test]
    fn options_are_read_from_the_documentation_of_their_fields() {
        let source = "struct Options {\n    /// `mode=classic|production`\n    mode: Mode,\n    \
            /// `lock=global`: one lock.\n    lock: Lock,\n    /// See `x=y`.\n}\n";
        let found: Vec<String> = options(source).into_iter().collect();
        assert_eq!(found, ["lock", "mode"]);
    }
}
