//! Manifests and lockfiles.

use anyhow::Context;
use toml::Table;

use super::{File, numbered};
use crate::Finding;

/// What a member inherits, so that there is one place to change it.
const INHERITED: [&str; 5] = ["version", "edition", "rust-version", "license", "publish"];

/// The one registry. A lockfile that names another was written behind somebody's mirror.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// What is wrong with the manifests and lockfiles among `files`.
pub(super) fn check(files: &[File]) -> anyhow::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for file in files {
        if file.path.ends_with("Cargo.toml") {
            let manifest: Table = file
                .text
                .parse()
                .with_context(|| format!("failed to understand {}", file.path.display()))?;
            findings.extend(manifest_findings(file, &manifest));
        }
        if file.path.ends_with("Cargo.lock") {
            for (number, line) in numbered(&file.text) {
                if line.starts_with("source = ") && !line.contains(REGISTRY) {
                    let what = "locks a package from somewhere else than crates.io";
                    findings.push(Finding::new(&file.path, number, what));
                }
            }
        }
    }
    if files.iter().all(|file| file.path.as_os_str() != "LICENSE") {
        findings.push(Finding::new("LICENSE", 0, "is missing: the manifests say MIT"));
    }
    Ok(findings)
}

fn manifest_findings(file: &File, manifest: &Table) -> Vec<Finding> {
    let Some(package) = manifest.get("package").and_then(|package| package.as_table()) else {
        return Vec::new();
    };
    let mut wrong = Vec::new();
    if package.get("description").is_none() {
        wrong.push("has no description".to_owned());
    }
    if manifest.contains_key("workspace") {
        // A workspace of its own has nothing to inherit, but is no less ours.
        if package.get("license").and_then(|license| license.as_str()) != Some("MIT") {
            wrong.push("license must be MIT".to_owned());
        }
        if package.get("publish").and_then(|publish| publish.as_bool()) != Some(false) {
            wrong.push("publish must be false".to_owned());
        }
    } else {
        for key in INHERITED {
            let inherits = package.get(key).and_then(|value| value.get("workspace"));
            if inherits.and_then(|inherits| inherits.as_bool()) != Some(true) {
                wrong.push(format!("write `{key}.workspace = true`"));
            }
        }
        let lints = manifest.get("lints").and_then(|lints| lints.get("workspace"));
        if lints.and_then(|lints| lints.as_bool()) != Some(true) {
            wrong.push("has no `[lints] workspace = true`".to_owned());
        }
    }
    wrong.into_iter().map(|what| Finding::new(&file.path, 0, what)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::found;

    fn found_in(path: &str, text: &str) -> Vec<String> {
        let mut found = found(|files| check(files).unwrap(), path, text);
        found.retain(|what| !what.starts_with("LICENSE"));
        found
    }

    const SOUND: &str = "[package]\nname = \"x\"\ndescription = \"y\"\nversion.workspace = true\n\
        edition.workspace = true\nrust-version.workspace = true\nlicense.workspace = true\n\
        publish.workspace = true\n[lints]\nworkspace = true\n";

    #[test]
    fn a_member_that_inherits_everything_passes() {
        assert_eq!(found_in("x/Cargo.toml", SOUND), [""; 0]);
    }

    #[test]
    fn each_line_a_member_must_have_is_missed() {
        let mut parts: Vec<String> =
            INHERITED.iter().map(|key| format!("{key}.workspace = true\n")).collect();
        parts
            .extend(["description = \"y\"\n".to_owned(), "[lints]\nworkspace = true\n".to_owned()]);
        for part in parts {
            let without = SOUND.replacen(&format!("\n{part}"), "\n", 1);
            assert_eq!(found_in("x/Cargo.toml", &without).len(), 1, "without {part}");
        }
    }

    #[test]
    fn a_lockfile_written_behind_a_mirror_is_found() {
        let lock = format!("source = \"{REGISTRY}\"\nsource = \"sparse+https://mirror/\"\n");
        assert_eq!(
            found_in("Cargo.lock", &lock),
            ["Cargo.lock:2: locks a package from somewhere else than crates.io"]
        );
    }

    #[test]
    fn a_repository_without_a_licence_is_found() {
        assert_eq!(check(&[]).unwrap().len(), 1);
    }
}
