//! The folder of an earlier run, read.
#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;

use serde::de::DeserializeOwned;

use super::manifest::Manifest;
use super::row::{LatencyCsv, RunRow};
use crate::error::{CliError, Exit};

/// What a run left behind.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// What is needed to repeat it.
    pub manifest: Manifest,
    /// Its processes.
    pub runs: Vec<RunRow>,
    /// Their latencies.
    pub latency: Vec<LatencyCsv>,
}

impl Recorded {
    /// Reads the run in `folder`.
    ///
    /// # Errors
    /// [`Exit::Usage`] if there is none, or a file of it is damaged.
    pub fn read(folder: &Path) -> Result<Self, CliError> {
        let fault = |file: &str, error: &dyn std::fmt::Display| {
            CliError::new(
                Exit::Usage,
                format!("`{}` holds no run that can be read", folder.display()),
            )
            .because(format!("{file}: {error}"))
            .help("name the folder that `bench-cli run` wrote, for example bench-out/latest")
        };
        let text =
            fs::read(folder.join("manifest.json")).map_err(|e| fault("manifest.json", &e))?;
        let manifest = serde_json::from_slice(&text).map_err(|e| fault("manifest.json", &e))?;
        Ok(Recorded {
            manifest,
            runs: rows(folder, "runs.csv").map_err(|e| fault("runs.csv", &e))?,
            latency: rows(folder, "latency.csv").map_err(|e| fault("latency.csv", &e))?,
        })
    }
}

fn rows<T: DeserializeOwned>(folder: &Path, file: &str) -> Result<Vec<T>, csv::Error> {
    csv::Reader::from_path(folder.join(file))?.deserialize().collect()
}
