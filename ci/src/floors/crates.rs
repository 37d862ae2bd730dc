//! The floors of crates, read from manifests.

use std::path::{Path, PathBuf};

use anyhow::Context;
use toml::Table;

use crate::{Finding, tree};

/// One member of the workspace.
#[derive(Debug)]
pub(super) struct Manifest {
    path: PathBuf,
    name: String,
    /// Packages that a build links or runs, with the line that names them.
    dependencies: Vec<(String, usize)>,
}

/// The manifests of all members.
///
/// # Errors
/// A manifest that is missing or not valid.
pub(super) fn read(root: &Path) -> anyhow::Result<Vec<Manifest>> {
    let top: Table = tree::read(root, Path::new("Cargo.toml"))?.parse()?;
    let members = top
        .get("workspace")
        .and_then(|workspace| workspace.get("members"))
        .and_then(|members| members.as_array())
        .context("Cargo.toml has no workspace.members")?;
    members
        .iter()
        .map(|member| {
            let folder = member.as_str().context("a workspace member is not a string")?;
            let path = Path::new(folder).join("Cargo.toml");
            parse(path.clone(), &tree::read(root, &path)?)
                .with_context(|| format!("failed to understand {}", path.display()))
        })
        .collect()
}

fn parse(path: PathBuf, text: &str) -> anyhow::Result<Manifest> {
    let manifest: Table = text.parse()?;
    let name = manifest
        .get("package")
        .and_then(|package| package.get("name"))
        .and_then(|name| name.as_str())
        .context("no package.name")?
        .to_owned();
    let mut dependencies = Vec::new();
    collect(&manifest, text, &mut dependencies);
    if let Some(targets) = manifest.get("target").and_then(|target| target.as_table()) {
        for target in targets.values().filter_map(|target| target.as_table()) {
            collect(target, text, &mut dependencies);
        }
    }
    Ok(Manifest { path, name, dependencies })
}

fn collect(table: &Table, text: &str, dependencies: &mut Vec<(String, usize)>) {
    for section in ["dependencies", "build-dependencies"] {
        let Some(section) = table.get(section).and_then(|section| section.as_table()) else {
            continue;
        };
        for (key, value) in section {
            let package = value.get("package").and_then(|package| package.as_str()).unwrap_or(key);
            let line = text
                .lines()
                .position(|line| line.trim_start().starts_with(key.as_str()))
                .map_or(0, |index| index + 1);
            dependencies.push((package.to_owned(), line));
        }
    }
}

/// What breaks `floors`, a table of names and what each may depend on.
pub(super) fn check(manifests: &[Manifest], floors: &[(&str, &[&str])]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for manifest in manifests {
        let Some((name, below)) = floors.iter().find(|(name, _)| *name == manifest.name) else {
            let what = format!("crate `{}` has no floor: give it one in CRATES", manifest.name);
            findings.push(Finding::new(&manifest.path, 0, what));
            continue;
        };
        for (dependency, line) in &manifest.dependencies {
            let ours = floors.iter().any(|(other, _)| other == dependency);
            if ours && !below.contains(&dependency.as_str()) {
                let what =
                    format!("`{name}` must not depend on `{dependency}`: it may on {below:?}");
                findings.push(Finding::new(&manifest.path, *line, what));
            }
        }
    }
    for (name, _) in floors {
        if !manifests.iter().any(|manifest| manifest.name == *name) {
            let what = format!("the floor of `{name}` is empty: no member has that name");
            findings.push(Finding::new("Cargo.toml", 0, what));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOORS: &[(&str, &[&str])] =
        &[("ground", &[]), ("first", &["ground"]), ("roof", &["first"])];

    fn manifest(name: &str, rest: &str) -> Manifest {
        let text = format!("[package]\nname = \"{name}\"\n{rest}");
        parse(Path::new(name).join("Cargo.toml"), &text).unwrap()
    }

    fn check_house(ground: &str, first: &str, roof: &str) -> Vec<String> {
        let house = [manifest("ground", ground), manifest("first", first), manifest("roof", roof)];
        check(&house, FLOORS).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn dependencies_that_go_down_pass() {
        let down = "[dependencies]\nground.workspace = true\nserde = \"1\"\n";
        assert!(
            check_house("", down, "[dependencies]\nfirst = { path = \"../first\" }\n").is_empty()
        );
    }

    #[test]
    fn a_dependency_that_goes_up_is_found_with_its_line() {
        let up = "[dependencies]\nserde = \"1\"\nroof.workspace = true\n";
        assert_eq!(
            check_house(up, "", ""),
            ["ground/Cargo.toml:5: `ground` must not depend on `roof`: it may on []"]
        );
    }

    #[test]
    fn a_floor_cannot_be_jumped_unless_the_table_grants_it() {
        assert_eq!(check_house("", "", "[dependencies]\nground.workspace = true\n").len(), 1);
    }

    #[test]
    fn renamed_build_and_target_dependencies_count() {
        for section in [
            "[dependencies]\ninnocent = { package = \"roof\", version = \"1\" }\n",
            "[build-dependencies]\nroof = \"1\"\n",
            "[target.'cfg(unix)'.dependencies]\nroof = \"1\"\n",
        ] {
            assert_eq!(check_house(section, "", "").len(), 1, "{section}");
        }
    }

    #[test]
    fn development_dependencies_may_look_anywhere() {
        assert!(check_house("[dev-dependencies]\nroof.workspace = true\n", "", "").is_empty());
    }

    #[test]
    fn a_crate_without_a_floor_and_a_floor_without_a_crate_are_found() {
        let house = [manifest("ground", ""), manifest("first", ""), manifest("annex", "")];
        let found: Vec<String> = check(&house, FLOORS).iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "annex/Cargo.toml: crate `annex` has no floor: give it one in CRATES",
                "Cargo.toml: the floor of `roof` is empty: no member has that name",
            ]
        );
    }
}
