//! Rust files: header, length, and arguments for unsafe blocks that say something.
//!
//! That each unsafe block *has* an argument is clippy's rule (`undocumented_unsafe_blocks`); here
//! they are counted, and those that only repeat the claim are found.

use super::File;
use crate::Finding;
use crate::lexer::{self, Kind, Token};

/// Lines a file may have before it is usually two.
const LINES: usize = 500;

/// Files that are longer for now, each with a ceiling it may not grow beyond. The list may only
/// get shorter: an entry for a file that has become short enough is a finding.
const LONG: &[(&str, usize)] = &[];

/// What a SAFETY comment may not say alone: it repeats the claim instead of giving the reason.
const EMPTY_ARGUMENTS: [&str; 7] = [
    "",
    "safe",
    "this is safe",
    "it is valid",
    "valid pointer",
    "the pointer is valid",
    "pointer is valid",
];

/// Unsafe blocks, and the comments that argue for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Unsafety {
    pub(super) blocks: usize,
    pub(super) comments: usize,
}

/// The unsafe blocks of all Rust files among `files`.
pub(super) fn count(files: &[File]) -> Unsafety {
    rust(files).map(|file| unsafety(&lexer::tokens(&file.text))).fold(
        Unsafety::default(),
        |sum, one| Unsafety {
            blocks: sum.blocks + one.blocks,
            comments: sum.comments + one.comments,
        },
    )
}

/// What is wrong with the Rust files among `files`.
pub(super) fn check(files: &[File]) -> Vec<Finding> {
    rust(files).flat_map(|file| check_file(file, LONG)).collect()
}

fn rust(files: &[File]) -> impl Iterator<Item = &File> {
    files.iter().filter(|file| file.has_extension("rs"))
}

fn check_file(file: &File, long: &[(&str, usize)]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut add = |line, what: String| findings.push(Finding::new(&file.path, line, what));
    let lines = file.text.lines().count();
    match long.iter().find(|(path, _)| file.path.as_os_str() == *path) {
        Some((_, ceiling)) if lines > *ceiling => {
            add(0, format!("has {lines} lines and may not grow beyond {ceiling}: split it"));
        }
        Some(_) if lines <= LINES => {
            add(0, format!("has {lines} lines again: take it off the list of long files"));
        }
        None if lines > LINES => add(0, format!("has {lines} lines, more than {LINES}: split it")),
        _ => {}
    }
    let tokens = lexer::tokens(&file.text);
    let header = tokens.first().map(|token| token.kind);
    if !matches!(header, Some(Kind::Comment(text)) if text.starts_with("//!")) {
        add(1, "has no header: open it with `//!` and say what it is".to_owned());
    }
    for (line, text) in safety_comments(&tokens) {
        let text = text.trim().trim_end_matches('.').to_lowercase();
        if EMPTY_ARGUMENTS.contains(&text.as_str()) {
            add(line, "names no fact that makes the line below it sound".to_owned());
        }
    }
    findings
}

fn unsafety(tokens: &[Token<'_>]) -> Unsafety {
    let code: Vec<&Token<'_>> =
        tokens.iter().filter(|token| !matches!(token.kind, Kind::Comment(_))).collect();
    let blocks = code
        .windows(2)
        .filter(|pair| {
            pair[0].kind == Kind::Word("unsafe")
                && matches!(pair[1].kind, Kind::Sign('{') | Kind::Word("impl"))
        })
        .count();
    Unsafety { blocks, comments: safety_comments(tokens).len() }
}

/// Every SAFETY comment: its line, and what it says including the lines that continue it.
fn safety_comments(tokens: &[Token<'_>]) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    let mut last_line = 0;
    for token in tokens {
        let Kind::Comment(text) = token.kind else { continue };
        if let Some((_, says)) = text.split_once("SAFETY:") {
            found.push((token.line, says.trim().to_owned()));
            last_line = token.line;
        } else if let Some((_, says)) = found.last_mut().filter(|_| token.line == last_line + 1) {
            says.push_str(text.trim_start_matches('/'));
            last_line = token.line;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::tidy::found;

    fn check_text(text: &str) -> Vec<String> {
        found(check, "a.rs", text)
    }

    #[test]
    fn an_argued_unsafe_block_passes() {
        let text = "//! X.\n// SAFETY: the list owns every block between head and tail.\n\
            fn f() { unsafe { g() } }\n";
        assert_eq!(check_text(text), [""; 0]);
    }

    #[test]
    fn unsafe_blocks_and_implementations_are_counted_and_unsafe_functions_are_not() {
        let text = "// SAFETY: the list owns it.\nfn f() { unsafe { g() } }\n\
            unsafe impl Send for A {}\nunsafe fn h() {}\nunsafe trait T {}\n";
        let counted = unsafety(&lexer::tokens(text));
        assert_eq!(counted, Unsafety { blocks: 2, comments: 1 });
    }

    #[test]
    fn an_argument_that_says_nothing_is_found() {
        let text = "//! X.\n// SAFETY: The pointer\n// is valid.\nfn f() { unsafe { g() } }\n";
        assert_eq!(check_text(text), ["a.rs:2: names no fact that makes the line below it sound"]);
    }

    #[test]
    fn an_argument_may_continue_on_the_next_line() {
        let text = "//! X.\n// SAFETY: the\n// list owns every block.\nfn f() { unsafe { g() } }\n";
        assert_eq!(check_text(text), [""; 0]);
    }

    #[test]
    fn a_file_without_a_header_is_found() {
        assert_eq!(check_text("fn f() {}\n").len(), 1);
        assert_eq!(check_text("// not a header\nfn f() {}\n").len(), 1);
    }

    #[test]
    fn a_long_file_is_found_unless_it_is_listed_and_stays_below_its_ceiling() {
        let file = |lines| File { path: PathBuf::from("a.rs"), text: "//! X.\n".repeat(lines) };
        assert_eq!(check_file(&file(LINES), &[]), []);
        assert_eq!(check_file(&file(LINES + 1), &[]).len(), 1);
        assert_eq!(check_file(&file(LINES + 1), &[("a.rs", LINES + 1)]), []);
        assert_eq!(check_file(&file(LINES + 2), &[("a.rs", LINES + 1)]).len(), 1);
        assert_eq!(check_file(&file(LINES), &[("a.rs", LINES + 1)]).len(), 1, "shorter again");
    }
}
