//! Imports go down only: this is the table of floors, and the check that proves it.
//!
//! Two buildings are checked. The *crates* by their manifests: a normal or build dependency may
//! only be one the table grants (development dependencies do not count: a test may look down
//! from anywhere). The *modules* of crate `allocator` by their source: every `crate::…` and
//! `super::…` path, in an import or in code, outside tests, must lead to a lower floor.
//!
//! # Invariants
//! 1. Every member of the workspace and every module of `allocator` has a floor; a new one
//!    without a floor is a finding, so that the table cannot fall behind the house.
//! 2. A floor that no crate or module stands on is a finding too.

use std::path::Path;

use anyhow::Context;

use crate::Report;

mod crates;
mod modules;

/// What each member of the workspace may depend on, lowest first.
///
/// `workloads`, `traces` and `bench-cli` reach an allocator only through the C ABI of a worker
/// process, so they must not link ours; `ci` judges all and links none.
const CRATES: &[(&str, &[&str])] = &[
    ("allocator", &[]),
    ("allocator-capi", &["allocator"]),
    ("trace-format", &[]),
    ("trace-recorder", &["trace-format"]),
    ("traces", &["trace-format"]),
    ("workloads", &["traces"]),
    ("bench-cli", &["traces", "workloads"]),
    ("ci", &[]),
];

/// The modules of crate `allocator`, ground floor first. Modules of one floor do not know each
/// other; each may import whatever stands on a lower floor.
const MODULES: &[&[&str]] = &[
    // Bytes, pages and slices as constants and types that refuse to mix.
    &["units"],
    // The one switch between core atomics and loom's; what tracers find on slow paths.
    &["sync", "probe"],
    // The kernel: memory, futexes, one line to standard error.
    &["os"],
    // What everything above needs from the kernel: a lock, settings, counters, the one way to die.
    &["lock", "fatal", "options", "stats"],
    // 4 MiB of memory, and how an address finds its owner; which call stacks allocate, by samples.
    &["segment", "sampling"],
    // Blocks of one size linked through themselves; blocks with boundary tags (and the
    // `Placement` trait).
    &["slab", "block"],
    // Blocks of one size with their free map outside; the strategies that implement `Placement`.
    &["bitmap", "placement"],
    // Objects with a mapping of their own.
    &["huge"],
    // Per-thread heaps; the heap with boundary tags.
    &["thread", "classic"],
    // Routing only: size -> who serves it.
    &["heap"],
    // The Rust face.
    &["global_alloc"],
];

/// Checks crates and modules of the workspace at `root`.
///
/// # Errors
/// A manifest or source file that cannot be read or understood.
pub(crate) fn check(root: &Path) -> anyhow::Result<Report> {
    let manifests = crates::read(root)?;
    let sources = modules::read(root, "allocator/src").context("failed to read the allocator")?;
    let mut findings = crates::check(&manifests, CRATES);
    findings.extend(modules::check(&sources, MODULES));
    findings.sort();
    let summary = format!(
        "floors: {} crates and {} source files of the allocator, {} imports that go up",
        manifests.len(),
        sources.len(),
        findings.len()
    );
    Ok(Report { summary, findings })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_workspace_imports_downwards_only() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let report = check(&root).unwrap();
        assert_eq!(report.findings, [], "{}", report.summary);
    }

    #[test]
    fn no_floor_is_listed_twice() {
        let mut modules: Vec<&str> =
            MODULES.iter().flat_map(|floor| floor.iter().copied()).collect();
        let before = modules.len();
        modules.sort_unstable();
        modules.dedup();
        assert_eq!(modules.len(), before);
        for (position, (_, below)) in CRATES.iter().enumerate() {
            for name in *below {
                let granted = CRATES.iter().position(|(other, _)| other == name);
                assert!(granted.is_some_and(|granted| granted < position), "{name} is not below");
            }
        }
    }
}
