//! The loop: run the next process, note what it gave, go on; stop in order on Ctrl-C.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use super::progress::Progress;
use super::schedule::Slot;
use crate::error::{CliError, Exit};
use crate::interrupt;
use crate::results::{Noted, RunDirectory};

/// How to run the processes of a session.
pub trait Cells {
    /// A readable name of the process at `slot`, the same in every session with these settings.
    fn id(&self, slot: &Slot) -> String;

    /// Runs it; `None` where it has to be left out.
    ///
    /// # Errors
    /// What keeps the session from going on. A failing allocator is not that: it is noted.
    fn run(&mut self, slot: &Slot, id: &str) -> Result<Option<Noted>, CliError>;
}

/// When a session ends before its schedule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It does not: everything ran.
    Completed,
    /// The budget was spent; whole rounds only.
    OutOfBudget,
}

/// Runs `slots` in order, leaving out what `directory` holds already.
///
/// # Errors
/// What a cell could not go on from, or [`Exit::Interrupted`]. What ended before is in the files.
pub fn run_all(
    slots: &[Slot],
    cells: &mut dyn Cells,
    directory: &mut RunDirectory,
    budget: Option<Duration>,
    quiet: bool,
) -> Result<Stop, CliError> {
    let start = Instant::now();
    let progress = Progress::new(slots.len() as u64, quiet);
    let mut round = 0;
    let mut stop = Stop::Completed;
    for slot in slots {
        if slot.round != round {
            round = slot.round;
            if budget.is_some_and(|budget| start.elapsed() > budget) {
                stop = Stop::OutOfBudget;
                break;
            }
        }
        let id = cells.id(slot);
        if !directory.holds(&id) {
            progress.at(id.clone());
            let result = match interrupt::requested() {
                true => Err(CliError::new(Exit::Interrupted, "interrupted")),
                false => cells.run(slot, &id),
            };
            let noted = match result {
                Ok(noted) => noted,
                Err(error) => {
                    progress.clear();
                    return Err(keep(directory, error));
                }
            };
            if let Some(noted) = noted {
                progress.ended(noted.run.operations, noted.run.elapsed_ns);
                directory.add(noted)?;
            }
        }
        progress.step();
    }
    progress.clear();
    directory.finish("completed")?;
    Ok(stop)
}

/// Writes what ended, and says in the error where it is.
fn keep(directory: &mut RunDirectory, error: CliError) -> CliError {
    let interrupted = error.exit == Exit::Interrupted;
    let state = if interrupted { "interrupted" } else { "failed" };
    if let Err(unwritable) = directory.finish(state) {
        return unwritable;
    }
    if !interrupted {
        return error;
    }
    let (kept, path) = (directory.runs().len(), directory.path().display().to_string());
    error
        .because(format!("{kept} finished runs are kept in `{path}`"))
        .help(format!("continue with the same arguments and `--resume --out {path}`"))
}
