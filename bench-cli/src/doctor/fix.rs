//! Settings of the kernel that are changed for the length of one command, and put back.
//!
//! # Invariants
//! 1. What a setting was is on disk before it is changed: whoever is killed in between leaves a
//!    note, and `doctor --restore` puts back what it says.
//! 2. The note goes away only when everything was put back.
#![forbid(unsafe_code)]

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{CliError, Exit};
use crate::results::atomic;

/// One setting that is not as a measurement wants it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The kernel's file.
    pub file: PathBuf,
    /// What it says now.
    pub was: String,
    /// What a measurement wants.
    pub wanted: String,
}

/// What could be set better below `root`, which is `/` outside tests.
#[must_use]
pub fn wanted(root: &Path) -> Vec<Change> {
    let cpus = root.join("sys/devices/system/cpu");
    let mut governors: Vec<PathBuf> = fs::read_dir(&cpus)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("cpufreq/scaling_governor"))
        .collect();
    governors.sort_unstable();
    let mut changes: Vec<Change> =
        governors.into_iter().filter_map(|file| change(file, "performance")).collect();
    let single = [
        (cpus.join("intel_pstate/no_turbo"), "1"),
        (cpus.join("cpufreq/boost"), "0"),
        (root.join("proc/sys/kernel/randomize_va_space"), "2"),
    ];
    changes.extend(single.into_iter().filter_map(|(file, wanted)| change(file, wanted)));
    let huge = root.join("sys/kernel/mm/transparent_hugepage/enabled");
    // `madvise` and `never` are both fine: only `always` lets the kernel decide.
    changes.extend(change(huge, "madvise").filter(|change| change.was == "always"));
    let paranoid = root.join("proc/sys/kernel/perf_event_paranoid");
    let strict = |change: &Change| change.was.parse::<i32>().is_ok_and(|level| level > 1);
    changes.extend(change(paranoid, "1").filter(strict));
    changes
}

fn change(file: PathBuf, wanted: &str) -> Option<Change> {
    let text = fs::read_to_string(&file).ok()?;
    // Of several words the one in brackets is in force.
    let was = text.split(['[', ']']).nth(1).unwrap_or(text.trim()).to_owned();
    (was != wanted).then(|| Change { file, was, wanted: wanted.to_owned() })
}

/// Whether everything that was changed earlier was put back.
///
/// # Errors
/// [`Exit::Usage`]: a note is left of settings that were not.
pub fn nothing_noted(note: &Path) -> Result<(), CliError> {
    if !note.exists() {
        return Ok(());
    }
    Err(CliError::new(Exit::Usage, "settings changed earlier were never put back")
        .because(format!("`{}` says which", note.display()))
        .help("put them back first: `bench-cli doctor --restore`"))
}

/// Settings that are changed until this value is put back or goes away.
#[derive(Debug)]
#[must_use = "dropped, it puts everything back at once"]
pub struct Changed {
    note: PathBuf,
    changes: Vec<Change>,
}

impl Changed {
    /// Makes `changes`, after noting in the file `note` what was.
    ///
    /// # Errors
    /// [`Exit::Usage`]: there is a note already, or it cannot be written. [`Exit::Unfit`]: a
    /// setting cannot be changed; all are as they were then.
    pub fn make(changes: Vec<Change>, note: &Path) -> Result<Self, CliError> {
        nothing_noted(note)?;
        let unwritten = |error: &dyn std::fmt::Display| {
            CliError::new(Exit::Usage, format!("cannot write `{}`", note.display())).because(error)
        };
        let text = serde_json::to_vec_pretty(&changes).map_err(|error| unwritten(&error))?;
        let folder = note.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)
            .and_then(|()| atomic::write(note, &text))
            .map_err(|error| unwritten(&error))?;
        let mut made = Changed { note: note.to_owned(), changes: Vec::new() };
        for change in changes {
            if let Err(error) = write(&change.file, &change.wanted) {
                // If this fails too, the note stays and says what is left to be put back.
                let _ = made.restore();
                return Err(CliError::new(
                    Exit::Unfit,
                    format!("cannot change `{}`", change.file.display()),
                )
                .because(error)
                .help(
                    "it needs root, on a machine whose settings are its own: `sudo bench-cli …`",
                ));
            }
            made.changes.push(change);
        }
        Ok(made)
    }

    /// What a note at `note` says was changed; `None`: there is none.
    ///
    /// # Errors
    /// [`Exit::Usage`]: the note is damaged.
    pub fn noted(note: &Path) -> Result<Option<Self>, CliError> {
        let Ok(text) = fs::read(note) else { return Ok(None) };
        let changes = serde_json::from_slice(&text).map_err(|error| {
            CliError::new(Exit::Usage, format!("`{}` is damaged", note.display()))
                .because(error)
                .help("set by hand what it names, and remove it")
        })?;
        Ok(Some(Changed { note: note.to_owned(), changes }))
    }

    /// Puts everything back, and removes the note if all of it worked.
    ///
    /// # Errors
    /// [`Exit::Unfit`]: which setting could not be put back.
    pub fn put_back(mut self) -> Result<usize, CliError> {
        let n = self.changes.len();
        self.restore().map(|()| n)
    }

    fn restore(&mut self) -> Result<(), CliError> {
        // The last change is undone first; one that fails stops none of the others.
        let failed: Vec<String> = self
            .changes
            .iter()
            .rev()
            .filter_map(|change| {
                let error = write(&change.file, &change.was).err()?;
                Some(format!("`{}` was `{}`: {error}", change.file.display(), change.was))
            })
            .collect();
        self.changes.clear();
        if failed.is_empty() {
            let _ = fs::remove_file(&self.note);
            return Ok(());
        }
        let error = CliError::new(Exit::Unfit, "some settings could not be put back")
            .help("run `bench-cli doctor --restore` as root");
        Err(failed.into_iter().fold(error, CliError::because))
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        if !self.changes.is_empty() {
            let _ = self.restore();
        }
    }
}

fn write(file: &Path, text: &str) -> io::Result<()> {
    // Not created: where the kernel has no such file there is nothing to set.
    OpenOptions::new().write(true).truncate(true).open(file)?.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel whose settings are files in a folder.
    fn kernel(home: &Path) -> [PathBuf; 3] {
        let files = [
            ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n"),
            ("sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never\n"),
            ("proc/sys/kernel/randomize_va_space", "0\n"),
        ];
        files.map(|(name, text)| {
            let path = home.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            path
        })
    }

    fn read(path: &Path) -> String {
        fs::read_to_string(path).unwrap().trim().to_owned()
    }

    #[test]
    fn settings_are_changed_and_put_back_and_the_note_goes_with_them() {
        let home = tempfile::tempdir().unwrap();
        let [governor, huge, random] = kernel(home.path());
        let note = home.path().join("state/note.json");
        let changes = wanted(home.path());
        assert_eq!(changes.len(), 3);
        let changed = Changed::make(changes, &note).unwrap();
        assert_eq!((read(&governor), read(&random)), ("performance".to_owned(), "2".to_owned()));
        assert!(note.is_file());
        assert_eq!(changed.put_back().unwrap(), 3);
        assert_eq!((read(&governor), read(&huge)), ("powersave".to_owned(), "always".to_owned()));
        assert!(!note.exists());
    }

    #[test]
    fn one_that_cannot_be_changed_leaves_all_as_they_were() {
        let home = tempfile::tempdir().unwrap();
        let [governor, _, random] = kernel(home.path());
        let note = home.path().join("note.json");
        let changes = wanted(home.path());
        fs::remove_file(&random).unwrap();
        fs::create_dir(&random).unwrap();
        assert_eq!(Changed::make(changes, &note).unwrap_err().exit, Exit::Unfit);
        assert_eq!(read(&governor), "powersave");
        assert!(!note.exists());
    }

    #[test]
    fn whoever_is_killed_leaves_a_note_from_which_all_is_put_back() {
        let home = tempfile::tempdir().unwrap();
        let [governor, ..] = kernel(home.path());
        let note = home.path().join("note.json");
        std::mem::forget(Changed::make(wanted(home.path()), &note).unwrap());
        let second = Changed::make(wanted(home.path()), &note).unwrap_err().to_string();
        assert!(second.contains("doctor --restore"), "{second}");
        Changed::noted(&note).unwrap().unwrap().put_back().unwrap();
        assert_eq!(read(&governor), "powersave");
        assert!(Changed::noted(&note).unwrap().is_none());
    }

    #[test]
    fn a_machine_that_is_set_well_needs_no_change() {
        let home = tempfile::tempdir().unwrap();
        let [governor, huge, random] = kernel(home.path());
        fs::write(governor, "performance\n").unwrap();
        fs::write(huge, "always madvise [never]\n").unwrap();
        fs::write(random, "2\n").unwrap();
        assert_eq!(wanted(home.path()), []);
    }
}
