//! Any text file: nothing of one machine, nothing unfinished.

use super::{File, numbered};
use crate::Finding;

/// What must not stand in any file, and why. Written in two halves, so that this file passes.
const FORBIDDEN: &[(&str, &str, &str)] = &[
    ("/wo", "rk/", "is a path of one machine"),
    ("/ro", "ot/", "is a path of one machine"),
    ("/ho", "me/", "is a path of one machine"),
    ("TO", "DO", "is unfinished: do it, or open an issue"),
    ("FIX", "ME", "is unfinished: do it, or open an issue"),
    ("<<<<", "<<< ", "is left of a merge"),
    (">>>>", ">>> ", "is left of a merge"),
];

/// What is wrong with the text of `files`.
pub(super) fn check(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files {
        for (number, line) in numbered(&file.text) {
            for (first, second, why) in FORBIDDEN {
                let word = format!("{first}{second}");
                if line.contains(&word) {
                    findings.push(Finding::new(&file.path, number, format!("`{word}` {why}")));
                }
            }
        }
        if is_bash(file) && !file.text.lines().any(|line| line.trim() == "set -euo pipefail") {
            let what = "goes on after a failure: write `set -euo pipefail`";
            findings.push(Finding::new(&file.path, 0, what));
        }
    }
    findings
}

fn is_bash(file: &File) -> bool {
    file.text.lines().next().is_some_and(|line| line.starts_with("#!") && line.ends_with("bash"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::found;

    #[test]
    fn every_forbidden_word_is_found_with_its_line() {
        for (first, second, _) in FORBIDDEN {
            let text = format!("fine\nsee {first}{second}x\n");
            let found = found(check, "a.md", &text);
            assert_eq!(found.len(), 1, "{first}{second}");
            assert!(found[0].starts_with("a.md:2: "), "{found:?}");
        }
    }

    #[test]
    fn a_script_that_goes_on_after_a_failure_is_found() {
        assert_eq!(found(check, "a.sh", "#!/usr/bin/env bash\necho\n").len(), 1);
        let sound = "#!/usr/bin/env bash\nset -euo pipefail\necho\n";
        assert_eq!(found(check, "a.sh", sound), [""; 0]);
    }
}
