//! The folder of a run: made before anything is measured, filled run by run.
//!
//! # Invariants
//! 1. Every file in it is whole at any moment: each is written aside and renamed.
//! 2. A line is there only if its run ended; an interrupted run is continued after the last one.
//! 3. Every line in it belongs to the manifest: a run that takes a folder over begins with none.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::detail::{FragmentationRow, InternalRow, Noted, SyscallRow, TailRow};
use super::manifest::Manifest;
use super::row::{LatencyCsv, RunRow, TimelineRow};
use super::{atomic, utc};
use crate::error::{CliError, Exit};

/// About this long a finished run is known only to this process.
const FLUSH_EVERY: Duration = Duration::from_secs(1);
/// Writing may take one part in so many of the time.
const FLUSH_SHARE: u32 = 20;

/// The folder of a run and what is to stand in it.
#[derive(Debug)]
pub struct RunDirectory {
    path: PathBuf,
    manifest: Manifest,
    runs: Vec<RunRow>,
    latency: Vec<LatencyCsv>,
    timeline: Vec<TimelineRow>,
    tail: Vec<TailRow>,
    fragmentation: Vec<FragmentationRow>,
    internals: Vec<InternalRow>,
    syscalls: Vec<SyscallRow>,
    next_flush: Instant,
}

/// Where the newest run lies, unless told otherwise.
const LATEST: &str = "bench-out/latest";

/// What is noted about the run that is to be continued, where there is one.
#[must_use]
pub fn earlier(out: Option<&Path>) -> Option<Manifest> {
    manifest_in(out.unwrap_or(Path::new(LATEST)))
}

fn manifest_in(folder: &Path) -> Option<Manifest> {
    let text = fs::read(folder.join("manifest.json")).ok()?;
    serde_json::from_slice(&text).ok()
}

impl RunDirectory {
    /// Makes the folder, or continues the run in it.
    ///
    /// # Errors
    /// [`Exit::Usage`] if the folder cannot be written, holds an interrupted run that nobody asked
    /// to continue, or holds a run of other settings or another machine than the one to be continued.
    pub fn open(out: Option<&Path>, resume: bool, manifest: Manifest) -> Result<Self, CliError> {
        let path = match (out, resume) {
            (Some(path), _) => path.to_path_buf(),
            (None, true) => PathBuf::from(LATEST),
            (None, false) => default_path(),
        };
        let mut directory = RunDirectory {
            path,
            manifest,
            runs: Vec::new(),
            latency: Vec::new(),
            timeline: Vec::new(),
            tail: Vec::new(),
            fragmentation: Vec::new(),
            internals: Vec::new(),
            syscalls: Vec::new(),
            next_flush: Instant::now() + FLUSH_EVERY,
        };
        directory.look_at_what_is_there(resume)?;
        let made = fs::create_dir_all(directory.histograms());
        made.map_err(|error| unwritable(&directory.path, &error))?;
        if !resume {
            // Before the manifest: what ran under another one is not continued under this.
            directory.write("runs.csv", &directory.runs)?;
        }
        directory.write_manifest("running")?;
        if out.is_none() && !resume {
            directory.link_latest();
        }
        Ok(directory)
    }

    fn look_at_what_is_there(&mut self, resume: bool) -> Result<(), CliError> {
        let shown = self.path.display();
        match (manifest_in(&self.path), resume) {
            (None, false) => Ok(()),
            (None, true) => {
                Err(CliError::new(Exit::Usage, format!("there is no run in `{shown}` to continue"))
                    .help("name its folder with --out, or leave --resume away"))
            }
            (Some(there), false) if there.state == "completed" => Ok(()),
            (Some(there), false) => Err(CliError::new(
                Exit::Usage,
                format!("`{shown}` holds a run that is {}", there.state),
            )
            .help("continue it with --resume, or choose another folder with --out")),
            (Some(there), true) if there.fingerprint != self.manifest.fingerprint => {
                Err(CliError::new(
                    Exit::Usage,
                    format!("the run in `{shown}` was made with other settings"),
                )
                .because(format!("it was started as `{}`", there.command.join(" ")))
                .help("give the same arguments, or choose another folder with --out"))
            }
            (Some(there), true) => {
                let differences = there.machine.differences(&self.manifest.machine);
                if !differences.is_empty() {
                    return Err(other_machine(&self.path, &differences));
                }
                // When and from what it began: the libraries are the same, whatever is checked out by now.
                (self.manifest.started_utc, self.manifest.commit) =
                    (there.started_utc, there.commit);
                self.runs = self.read("runs.csv")?;
                let done: BTreeSet<String> = self.runs.iter().map(|r| r.run_id.clone()).collect();
                self.latency = self.kept("latency.csv", &done, |row: &LatencyCsv| &row.run_id)?;
                self.timeline =
                    self.kept("timeline.csv", &done, |row: &TimelineRow| &row.run_id)?;
                self.tail = self.kept("tail.csv", &done, |row: &TailRow| &row.run_id)?;
                self.fragmentation =
                    self.kept("fragmentation.csv", &done, |row: &FragmentationRow| &row.run_id)?;
                self.internals =
                    self.kept("internals.csv", &done, |row: &InternalRow| &row.run_id)?;
                self.syscalls = self.kept("syscalls.csv", &done, |row: &SyscallRow| &row.run_id)?;
                Ok(())
            }
        }
    }

    /// The lines of a file that belong to runs that ended.
    fn kept<T: DeserializeOwned>(
        &self,
        name: &str,
        done: &BTreeSet<String>,
        id: impl Fn(&T) -> &String,
    ) -> Result<Vec<T>, CliError> {
        let mut rows = self.read(name)?;
        rows.retain(|row| done.contains(id(row)));
        Ok(rows)
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the histograms go.
    #[must_use]
    pub fn histograms(&self) -> PathBuf {
        self.path.join("hist")
    }

    /// What is needed to repeat it.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The runs that ended so far.
    #[must_use]
    pub fn runs(&self) -> &[RunRow] {
        &self.runs
    }

    /// The latencies of the runs that ended so far.
    #[must_use]
    pub fn latency(&self) -> &[LatencyCsv] {
        &self.latency
    }

    /// The footprints of the runs that ended so far.
    #[must_use]
    pub fn timeline(&self) -> &[TimelineRow] {
        &self.timeline
    }

    /// The slowest calls of the runs that ended so far.
    #[must_use]
    pub fn tail(&self) -> &[TailRow] {
        &self.tail
    }

    /// The fragmentation of the runs that ended so far.
    #[must_use]
    pub fn fragmentation(&self) -> &[FragmentationRow] {
        &self.fragmentation
    }

    /// Every figure that an allocator stated of itself.
    #[must_use]
    pub fn internals(&self) -> &[InternalRow] {
        &self.internals
    }

    /// Whether a run of this id ended already.
    #[must_use]
    pub fn holds(&self, run_id: &str) -> bool {
        self.runs.iter().any(|row| row.run_id == run_id)
    }

    /// Adds a run that ended. It stands in the files within a second, or at [`finish`](Self::finish).
    ///
    /// # Errors
    /// [`Exit::Usage`] if the folder cannot be written any more.
    pub fn add(&mut self, noted: Noted) -> Result<(), CliError> {
        self.runs.push(noted.run);
        self.latency.extend(noted.latency);
        self.timeline.extend(noted.timeline);
        self.tail.extend(noted.tail);
        self.fragmentation.extend(noted.fragmentation);
        self.internals.extend(noted.internals);
        self.syscalls.extend(noted.syscalls);
        if Instant::now() >= self.next_flush { self.flush() } else { Ok(()) }
    }

    /// Writes everything and notes how the run ended.
    ///
    /// # Errors
    /// [`Exit::Usage`] if the folder cannot be written any more.
    pub fn finish(&mut self, state: &str) -> Result<(), CliError> {
        self.flush()?;
        self.write_manifest(state)
    }

    fn flush(&mut self) -> Result<(), CliError> {
        let start = Instant::now();
        // Runs come last: a line there promises the lines elsewhere.
        self.write("timeline.csv", &self.timeline)?;
        self.write("latency.csv", &self.latency)?;
        self.write("tail.csv", &self.tail)?;
        self.write("fragmentation.csv", &self.fragmentation)?;
        self.write("internals.csv", &self.internals)?;
        self.write("syscalls.csv", &self.syscalls)?;
        self.write("runs.csv", &self.runs)?;
        self.next_flush = Instant::now() + FLUSH_EVERY.max(start.elapsed() * FLUSH_SHARE);
        Ok(())
    }

    fn write_manifest(&mut self, state: &str) -> Result<(), CliError> {
        state.clone_into(&mut self.manifest.state);
        let mut text = serde_json::to_vec_pretty(&self.manifest)
            .map_err(|error| unwritable(&self.path, &error))?;
        text.push(b'\n');
        atomic::write(&self.path.join("manifest.json"), &text)
            .map_err(|error| unwritable(&self.path, &error))
    }

    fn write<T: Serialize>(&self, name: &str, rows: &[T]) -> Result<(), CliError> {
        let fault = |error: &dyn std::fmt::Display| unwritable(&self.path, error);
        let mut writer =
            csv::WriterBuilder::new().has_headers(!rows.is_empty()).from_writer(Vec::new());
        if rows.is_empty() {
            // An empty file would be no table at all for whoever reads it.
            let columns = super::METRICS.iter().filter(|m| m.file == name).map(|m| m.name);
            writer.write_record(columns).map_err(|e| fault(&e))?;
        }
        for row in rows {
            writer.serialize(row).map_err(|e| fault(&e))?;
        }
        let bytes = writer.into_inner().map_err(|e| fault(&e))?;
        atomic::write(&self.path.join(name), &bytes).map_err(|e| fault(&e))
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Vec<T>, CliError> {
        let path = self.path.join(name);
        if !path.exists() {
            return Ok(Vec::new());
        }
        let damaged = |error: csv::Error| {
            CliError::new(Exit::Usage, format!("`{}` is not a result file", path.display()))
                .because(error)
                .help("choose another folder with --out, or remove the file")
        };
        csv::Reader::from_path(&path)
            .map_err(damaged)?
            .deserialize()
            .map(|row| row.map_err(damaged))
            .collect()
    }

    /// Points `bench-out/latest` here. A convenience: no error where it cannot be made.
    fn link_latest(&self) {
        let (Some(parent), Some(name)) = (self.path.parent(), self.path.file_name()) else {
            return;
        };
        let aside = parent.join(format!(".latest-{}", std::process::id()));
        let made = std::os::unix::fs::symlink(name, &aside)
            .and_then(|()| fs::rename(&aside, parent.join("latest")));
        if made.is_err() {
            let _ = fs::remove_file(&aside);
        }
    }
}

/// `bench-out/<utc>-<id>`.
fn default_path() -> PathBuf {
    // Two runs of one second differ in their process, and hardly ever in these four digits.
    let id = std::process::id() % 0x1_0000;
    PathBuf::from("bench-out").join(format!("{}-{id:04x}", utc::compact(utc::now())))
}

fn other_machine(path: &Path, differences: &[String]) -> CliError {
    let shown = path.display();
    let what = format!("the run in `{shown}` was made on another machine, or under other settings");
    CliError::new(Exit::Usage, what)
        .because(differences.join("; "))
        .help("continue it there, under the same settings, or choose another folder with --out")
}

fn unwritable(path: &Path, error: &dyn std::fmt::Display) -> CliError {
    CliError::new(Exit::Usage, format!("cannot write results to `{}`", path.display()))
        .because(error)
        .help("choose a folder that can be written with --out DIR")
}
