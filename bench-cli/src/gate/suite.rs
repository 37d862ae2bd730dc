//! Which cells a gate runs: names in, cells with plans out.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::path::Path;

use workloads::spec::Spec;

use super::outcome::Cell;
use super::trial::Prepared;
use crate::error::{CliError, Exit};
use crate::subjects::{self, Amount, Settings, Subject};

/// What a gate runs where neither the command line nor the thresholds say. Each runs its gate
/// form: fixed work of about 0.1 s, so that a verdict takes minutes.
pub const DEFAULT: [&str; 6] =
    ["small-churn", "realloc-growth", "profile", "larson", "xmalloc", "mstress"];

/// Resolves and prepares every name; plans are written to `folder`.
///
/// # Errors
/// An unknown workload, a trace that cannot be read, a folder that cannot be written.
pub fn prepare(
    names: &[String],
    threads: Option<u32>,
    folder: &Path,
) -> Result<Vec<Prepared>, CliError> {
    let defaults: Vec<String>;
    let names = if names.is_empty() {
        defaults = DEFAULT.map(str::to_owned).to_vec();
        &defaults
    } else {
        names
    };
    let prepared = names
        .iter()
        .map(|name| {
            let subject = subjects::resolve(name)?;
            // A workload that takes no other number of threads keeps its own.
            let threads = threads.filter(|_| match &subject {
                Subject::Workload(spec) => spec.any_threads,
                Subject::Trace(_) => false,
            });
            // No seed: it is the specification's own, so that every gate does the same work.
            let settings = Settings { threads, amount: Amount::Gate, ..Settings::default() };
            let prepared = subject.prepare(&settings, folder)?;
            let threads = u32::try_from(prepared.threads).unwrap_or(u32::MAX);
            let (workload, touch) = (prepared.name, prepared.touch);
            Ok(Prepared {
                cell: Cell { name: format!("{workload}-{threads}t"), workload, threads },
                plan: prepared.plan,
                touch,
                stream_hash: prepared.note.stream_hash,
            })
        })
        .collect::<Result<Vec<_>, CliError>>()?;
    refuse_one_name_for_two(&prepared)?;
    Ok(prepared)
}

/// Verdicts, thresholds and baselines know a cell by its name alone.
fn refuse_one_name_for_two(prepared: &[Prepared]) -> Result<(), CliError> {
    let mut names = BTreeSet::new();
    match prepared.iter().map(|p| &p.cell.name).find(|name| !names.insert(*name)) {
        None => Ok(()),
        Some(name) => Err(CliError::new(Exit::Usage, format!("two cells are called `{name}`"))
            .because(
                "a cell is named after its workload, or the file of its trace, and its threads",
            )
            .help("name each once; give one of two files of the same name another")),
    }
}

/// Workloads that thresholds may speak of though they are not at hand.
#[must_use]
pub fn workloads() -> Vec<String> {
    Spec::names().into_iter().map(str::to_owned).collect()
}

/// The workload in a cell's name: `larson` of `larson-2t`.
#[must_use]
pub fn workload_of(cell: &str) -> &str {
    match cell.rsplit_once('-') {
        Some((workload, threads))
            if threads.strip_suffix('t').is_some_and(|n| n.parse::<u32>().is_ok()) =>
        {
            workload
        }
        _ => cell,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_workload_of_the_default_suite_exists_and_has_a_plan_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let prepared = prepare(&[], None, folder.path()).unwrap();
        assert_eq!(prepared.len(), DEFAULT.len());
        let mut plans: Vec<_> = prepared.iter().map(|p| &p.plan).collect();
        plans.dedup();
        assert_eq!(plans.len(), DEFAULT.len());
        let other = tempfile::tempdir().unwrap();
        let again = prepare(&["larson".to_owned()], None, other.path()).unwrap();
        let first = prepared.iter().find(|p| p.cell.workload == "larson").unwrap();
        assert_eq!(again[0].stream_hash, first.stream_hash, "the same work in every gate");
    }

    #[test]
    fn an_unknown_workload_is_refused_and_a_missing_trace_too() {
        let folder = tempfile::tempdir().unwrap();
        let refuse = |name: &str| prepare(&[name.to_owned()], None, folder.path()).unwrap_err();
        assert_eq!(refuse("larsen").exit, crate::error::Exit::Usage);
        assert_eq!(refuse("no/such.trace").exit, crate::error::Exit::Trace);
    }

    #[test]
    fn two_cells_of_one_name_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let twice = ["larson".to_owned(), "larson".to_owned()];
        let error = prepare(&twice, None, folder.path()).unwrap_err();
        assert_eq!(error.exit, crate::error::Exit::Usage);
        assert!(error.to_string().contains("two cells are called `larson-2t`"), "{error}");
    }

    #[test]
    fn a_cell_is_named_after_its_workload_and_threads() {
        assert_eq!(workload_of("larson-2t"), "larson");
        assert_eq!(workload_of("remote-free-ring-16t"), "remote-free-ring");
        assert_eq!(workload_of("systemui.zip"), "systemui.zip");
        assert_eq!(workload_of("a-t"), "a-t");
    }
}
