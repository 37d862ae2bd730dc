//! The door: a source in, a plan file out.
#![forbid(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use traces::EventSource;

use super::build::Builder;
use super::error::PlanError;
use super::open::Plan;
use super::order::Order;
use super::spool::Spool;

/// How a plan is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanOptions {
    /// How much of the total order is kept.
    pub order: Order,
    /// Keep the stream's times, for a paced replay (8 bytes more per operation).
    pub times: bool,
    /// Keep every operation's place in the total order, so that single operations can be named and
    /// skew can be measured. It lies apart from the streams and is not read in the timed part.
    pub index: bool,
    /// Executions of a body in place of what the generator states, if the stream has one.
    pub repeat: Option<u32>,
}

impl Default for PlanOptions {
    fn default() -> Self {
        PlanOptions { order: Order::default(), times: false, index: true, repeat: None }
    }
}

/// A file that is removed unless it was moved to its final name.
#[derive(Debug)]
pub(crate) struct Temporary {
    pub(crate) path: PathBuf,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After the rename there is nothing at this path, which is as well.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A fresh file beside `path`, open for reading and writing.
pub(crate) fn beside(path: &Path, suffix: &str) -> Result<(Temporary, File), PlanError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.{suffix}", std::process::id()));
    let path = path.with_file_name(name);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)
        .map_err(|source| PlanError::Io { verb: "create", path: path.clone(), source })?;
    Ok((Temporary { path }, file))
}

impl Plan {
    /// Reads `source` to its end and writes its plan to `path`, whole or not at all.
    ///
    /// # Errors
    /// If the source fails, its events contradict each other, a number is out of the plan's
    /// range, or a file cannot be written.
    pub fn prepare<E>(
        source: &mut (dyn EventSource<Error = E> + '_),
        options: &PlanOptions,
        path: &Path,
    ) -> Result<Plan, PlanError>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let (spool_path, spool) = beside(path, "spool")?;
        let (index_path, index) = match options.index {
            true => beside(path, "index").map(|(p, f)| (Some(p), Some(f)))?,
            false => (None, None),
        };
        // Nobody else needs their names, and an interrupted preparation leaves no rubbish.
        drop((spool_path, index_path));
        let mut builder = Builder::new(*options, Spool::new(spool), index.map(Spool::new));
        loop {
            match source.next_event() {
                Ok(Some(event)) => builder.event(&event)?,
                Ok(None) => break,
                Err(error) => {
                    let events = builder.events;
                    return Err(PlanError::Source { events, source: Box::new(error) });
                }
            }
        }
        super::write::write(builder, path)?;
        Plan::open(path)
    }
}
