//! Stored counts: what the same work cost an earlier library, kept in a file beside the source.
//!
//! Counts do not depend on the machine's mood, but on how the library was compiled, on the C
//! library beneath it and on what counts them. So a baseline carries all of that as its key, and is
//! refused where any of it differs: a comparison over other compilers would blame the change.
//!
//! A stored count can fail a gate; alone it never passes one.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use object::{Object, ObjectSection};
use serde::{Deserialize, Serialize};

use super::files;
use super::metric::{Limit, Metric};
use super::outcome::{Counted, Outcome};
use super::session::Row;
use super::trial::Prepared;
use crate::allocators::Allocator;
use crate::error::{CliError, Exit};
use crate::results::Machine;
use crate::worker;

/// Version of the file's layout.
const SCHEMA: u32 = 1;

/// What has to be the same for two counts to compare.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// Architecture.
    pub architecture: String,
    /// What compiled the library, as it says itself.
    pub toolchain: String,
    /// Version of the C library.
    pub libc: String,
    /// Version of valgrind; only where instructions are counted.
    pub valgrind: Option<String>,
    /// Version of this program: its own instructions and pages are counted too.
    pub harness: String,
    /// Transparent huge pages: they decide how many pages are touched.
    pub huge_pages: String,
}

/// Counts of one cell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CellCounts {
    /// Hash of the cell's event stream: another hash is other work.
    stream_hash: Option<String>,
    /// The counts by metric.
    counts: BTreeMap<Metric, u64>,
}

/// A stored baseline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    schema: u32,
    key: Key,
    cells: BTreeMap<String, CellCounts>,
}

impl Key {
    /// The key of counts of `library` on this machine.
    #[must_use]
    pub fn here(library: &Allocator, instructions: bool) -> Self {
        let machine = Machine::here();
        let toolchain = match &library.preload {
            Some(path) => compilers(path).unwrap_or_else(|| "not stated".to_owned()),
            None => "the C library".to_owned(),
        };
        Key {
            architecture: machine.architecture,
            toolchain,
            libc: worker::libc_version().unwrap_or_else(|| "not known".to_owned()),
            valgrind: instructions.then(valgrind_version).flatten(),
            harness: env!("CARGO_PKG_VERSION").to_owned(),
            huge_pages: machine.huge_pages,
        }
    }

    /// What to say where the head, whose key is `head`, was built by another compiler than the base.
    #[must_use]
    pub fn other_compiler(&self, head: &Key) -> Option<String> {
        let (base, head) = (&self.toolchain, &head.toolchain);
        (base != head).then(|| {
            format!(
                "the base was built by `{base}`, the head by `{head}`: what differs may be the compilers' doing"
            )
        })
    }

    /// In what two keys differ, in words.
    fn differences(&self, here: &Key) -> Vec<String> {
        let fields = [
            ("architecture", &self.architecture, &here.architecture),
            ("toolchain", &self.toolchain, &here.toolchain),
            ("C library", &self.libc, &here.libc),
            ("bench-cli", &self.harness, &here.harness),
            ("huge pages", &self.huge_pages, &here.huge_pages),
        ];
        // Where one side counts no instructions, there are none to compare.
        let valgrind = self.valgrind.as_ref().zip(here.valgrind.as_ref());
        fields
            .into_iter()
            .chain(valgrind.map(|(was, is)| ("valgrind", was, is)))
            .filter(|(_, was, is)| was != is)
            .map(|(what, was, is)| format!("{what}: stored under `{was}`, here it is `{is}`"))
            .collect()
    }
}

/// The compilers that a library names in its `.comment` section, each once.
fn compilers(path: &Path) -> Option<String> {
    let bytes = fs::read(path).ok()?;
    let file = object::File::parse(&*bytes).ok()?;
    let comment = file.section_by_name(".comment")?.uncompressed_data().ok()?;
    let mut names: Vec<String> = comment
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| String::from_utf8_lossy(name).trim().to_owned())
        .collect();
    names.sort_unstable();
    names.dedup();
    (!names.is_empty()).then(|| names.join("; "))
}

fn valgrind_version() -> Option<String> {
    let output = Command::new("valgrind").arg("--version").output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

impl Baseline {
    /// Reads the baseline at `path` and refuses it where it does not compare with counts of `here`.
    ///
    /// # Errors
    /// [`Exit::Usage`]: it cannot be read, was stored under another key, for other work, or for
    /// other cells alone.
    pub fn read(path: &Path, here: &Key, cells: &[Prepared]) -> Result<Self, CliError> {
        let shown = path.display();
        let refuse = |what: String| {
            CliError::new(Exit::Usage, what).help(format!(
                "store it anew, from a library that is known to be good: \
                 `bench-cli gate --base-rev main --save-baseline {shown}`"
            ))
        };
        let text = fs::read(path)
            .map_err(|e| refuse(format!("cannot read the baseline `{shown}`")).because(e))?;
        let read: Baseline = serde_json::from_slice(&text)
            .map_err(|e| refuse(format!("`{shown}` is no baseline")).because(e))?;
        if read.schema != SCHEMA {
            return Err(refuse(format!("`{shown}` is a baseline of another version of bench-cli")));
        }
        let mut differences = read.key.differences(here);
        for prepared in cells {
            let name = &prepared.cell.name;
            if read.cells.get(name).is_some_and(|c| c.stream_hash != prepared.stream_hash) {
                differences.push(format!("{name}: stored for other work than it does now"));
            }
        }
        if !differences.is_empty() {
            let what = format!("the baseline `{shown}` does not compare with this library");
            return Err(differences.into_iter().fold(refuse(what), CliError::because));
        }
        let missing = read.missing(cells);
        if missing.len() == cells.len() {
            let what = format!("the baseline `{shown}` has nothing to hold this gate against");
            let why = format!("none of these cells is stored in it: {}", missing.join(", "));
            return Err(refuse(what).because(why));
        }
        Ok(read)
    }

    /// The names of the cells that are not stored in it.
    #[must_use]
    pub fn missing<'a>(&self, cells: &'a [Prepared]) -> Vec<&'a str> {
        let names = cells.iter().map(|prepared| prepared.cell.name.as_str());
        names.filter(|name| !self.cells.contains_key(*name)).collect()
    }

    /// The counts of the head in `outcome`, with every cell that was measured.
    #[must_use]
    pub fn of(outcome: &Outcome, key: Key, cells: &[Prepared]) -> Self {
        let mut stored = BTreeMap::new();
        for prepared in cells {
            let name = &prepared.cell.name;
            let of_cell = outcome.counted.iter().filter(|c| c.cell == *name && !c.stored);
            let counts: BTreeMap<Metric, u64> = of_cell.map(|c| (c.metric, c.head)).collect();
            let measured = |row: &Row| outcome.cells[row.cell].cell.name == *name;
            if !counts.is_empty() || outcome.rows.iter().any(measured) {
                let stream_hash = prepared.stream_hash.clone();
                stored.insert(name.clone(), CellCounts { stream_hash, counts });
            }
        }
        Baseline { schema: SCHEMA, key, cells: stored }
    }

    /// Writes it, whole or not at all.
    ///
    /// # Errors
    /// [`Exit::Usage`]: the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), CliError> {
        let mut text = serde_json::to_vec_pretty(self)
            .map_err(|error| CliError::new(Exit::Internal, "a baseline").because(error))?;
        text.push(b'\n');
        files::write_whole(path, &text)
    }

    /// What was counted of the head in `outcome`, and in which cells, that is not stored for cells that are.
    #[must_use]
    pub fn unstored(&self, outcome: &Outcome) -> BTreeMap<Metric, Vec<String>> {
        let mut missing: BTreeMap<Metric, Vec<String>> = BTreeMap::new();
        for c in outcome.counted.iter().filter(|c| !c.stored) {
            let Some(cell) = self.cells.get(&c.cell) else { continue };
            // Of those, none stored are none.
            if c.metric != Metric::FailedAllocations && !cell.counts.contains_key(&c.metric) {
                missing.entry(c.metric).or_default().push(c.cell.clone());
            }
        }
        missing
    }

    /// The head's counts in `outcome` against the stored ones, for every count that both have.
    /// Failed allocations of a cell that is stored without any were none.
    #[must_use]
    pub fn judge(&self, outcome: &Outcome, limits: &BTreeMap<Metric, Limit>) -> Vec<Counted> {
        outcome
            .counted
            .iter()
            .filter(|c| !c.stored)
            .filter_map(|c| {
                let base = match self.cells.get(&c.cell)?.counts.get(&c.metric) {
                    Some(stored) => *stored,
                    None if c.metric == Metric::FailedAllocations => 0,
                    None => return None,
                };
                let allowed = limits.get(&c.metric)?.allowed(base);
                Some(Counted { base, allowed, stored: true, ..c.clone() })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use workloads::engine::Touch;

    use super::super::outcome::Cell;
    use super::super::outcome::tests::outcome;
    use super::super::session::Process;
    use super::*;
    use crate::verdict::block::{Order, Side};
    use crate::verdict::procedure::Stage;
    use crate::verdict::rules::Verdict;

    fn key() -> Key {
        Key {
            architecture: "x86_64".to_owned(),
            toolchain: "rustc 1".to_owned(),
            libc: "2.36".to_owned(),
            valgrind: None,
            harness: "1".to_owned(),
            huge_pages: "madvise".to_owned(),
        }
    }

    fn prepared(hash: &str) -> Prepared {
        Prepared {
            cell: Cell { name: "cell0-2t".to_owned(), workload: "cell0".to_owned(), threads: 2 },
            plan: PathBuf::new(),
            touch: Touch::default(),
            stream_hash: Some(hash.to_owned()),
        }
    }

    fn counted(head: u64) -> Counted {
        Counted {
            cell: "cell0-2t".to_owned(),
            metric: Metric::MinorFaults,
            base: head,
            head,
            allowed: head,
            quarantined: false,
            stored: false,
        }
    }

    fn row(cell: usize) -> Row {
        Row {
            cell,
            stage: Stage::Screen,
            block: 0,
            position: 0,
            order: Order::Abba,
            side: Side::A,
            seed: 1,
            process: Process::default(),
        }
    }

    #[test]
    fn a_count_over_its_stored_one_fails_a_gate_whose_base_grew_as_well() {
        let mut before = outcome(&[Verdict::Pass]);
        before.counted = vec![counted(1000)];
        let baseline = Baseline::of(&before, key(), &[prepared("a")]);
        let mut after = outcome(&[Verdict::Pass]);
        after.counted = vec![counted(1200)];
        assert_eq!(after.exit(false), Exit::Success, "base and head grew alike");
        let limits = BTreeMap::from([(Metric::MinorFaults, Limit { share: 0.05, absolute: 16 })]);
        let judged = baseline.judge(&after, &limits);
        after.counted.extend(judged);
        assert_eq!(after.exit(false), Exit::Regression);
        let said = after.sentence();
        assert!(said.starts_with("FAIL cell0-2t: minor_faults_against_stored"), "{said}");
    }

    #[test]
    fn a_cell_stored_without_failed_allocations_had_none() {
        let mut before = outcome(&[Verdict::Pass, Verdict::Pass]);
        before.rows = vec![row(0)];
        let baseline = Baseline::of(&before, key(), &[prepared("a")]);
        let mut after = outcome(&[Verdict::Pass, Verdict::Pass]);
        let refused = Counted { metric: Metric::FailedAllocations, ..counted(1) };
        after.counted = vec![refused.clone(), Counted { cell: "cell1-2t".to_owned(), ..refused }];
        let limits = BTreeMap::from([(
            Metric::FailedAllocations,
            Metric::FailedAllocations.default_limit(),
        )]);
        let judged = baseline.judge(&after, &limits);
        let found: Vec<_> = judged.iter().map(|c| (c.cell.as_str(), c.base, c.within())).collect();
        assert_eq!(found, [("cell0-2t", 0, false)], "the other one was not measured");
    }

    #[test]
    fn a_count_that_is_not_stored_for_a_stored_cell_is_told() {
        let mut before = outcome(&[Verdict::Pass]);
        before.counted = vec![counted(1000)];
        let baseline = Baseline::of(&before, key(), &[prepared("a")]);
        let of = |metric| Counted { metric, ..counted(1) };
        let mut after = outcome(&[Verdict::Pass]);
        after.counted = vec![
            of(Metric::MinorFaults),
            of(Metric::FailedAllocations),
            of(Metric::Instructions),
            Counted { cell: "new-1t".to_owned(), ..of(Metric::Instructions) },
            Counted { stored: true, ..of(Metric::MappingCalls) },
        ];
        let missing = BTreeMap::from([(Metric::Instructions, vec!["cell0-2t".to_owned()])]);
        assert_eq!(baseline.unstored(&after), missing);
    }

    #[test]
    fn another_compiler_of_the_base_is_told() {
        assert_eq!(key().other_compiler(&key()), None);
        let head = Key { toolchain: "rustc 2".to_owned(), ..key() };
        let said = key().other_compiler(&head).unwrap();
        assert!(said.contains("`rustc 1`") && said.contains("`rustc 2`"), "{said}");
    }

    #[test]
    fn a_baseline_that_knows_no_cell_of_this_gate_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("b.json");
        let mut before = outcome(&[Verdict::Pass]);
        before.counted = vec![counted(1000)];
        Baseline::of(&before, key(), &[prepared("a")]).write(&path).unwrap();
        let other = Cell { name: "other-1t".to_owned(), workload: "other".to_owned(), threads: 1 };
        let other = Prepared { cell: other, ..prepared("b") };
        let error = Baseline::read(&path, &key(), std::slice::from_ref(&other)).unwrap_err();
        assert_eq!(error.exit, Exit::Usage);
        let said = error.to_string();
        assert!(said.contains("none of these cells is stored in it: other-1t"), "{said}");
        assert!(said.contains("--save-baseline"), "{said}");
        let both = [prepared("a"), other];
        let read = Baseline::read(&path, &key(), &both).unwrap();
        assert_eq!(read.missing(&both), ["other-1t"]);
    }

    #[test]
    fn a_baseline_of_another_key_or_other_work_is_refused_with_the_difference() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("b.json");
        let mut before = outcome(&[Verdict::Pass]);
        before.counted = vec![counted(1000)];
        let baseline = Baseline::of(&before, key(), &[prepared("a")]);
        baseline.write(&path).unwrap();
        assert_eq!(Baseline::read(&path, &key(), &[prepared("a")]).unwrap(), baseline);
        let refuse = |key: &Key, hash: &str| {
            Baseline::read(&path, key, &[prepared(hash)]).unwrap_err().to_string()
        };
        let newer = Key { toolchain: "rustc 2".to_owned(), ..key() };
        assert!(refuse(&newer, "a").contains("stored under `rustc 1`, here it is `rustc 2`"));
        assert!(refuse(&key(), "b").contains("cell0-2t: stored for other work"));
        let counting = Key { valgrind: Some("valgrind-3.19.0".to_owned()), ..key() };
        assert!(Baseline::read(&path, &counting, &[prepared("a")]).is_ok());
        fs::write(&path, "{\"schema\": 1, ").unwrap();
        assert!(refuse(&key(), "a").contains("is no baseline"));
    }
}
