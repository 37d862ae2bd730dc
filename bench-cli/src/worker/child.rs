//! The measuring side: what the hidden subcommand `worker` does.
#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;

use super::parent::{FAULT_FILE, REPORT_FILE, SPEC_FILE, STATUS_FAILED, STATUS_UNPROVEN};
use super::proof;
use super::spec::{CellSpec, Report};

/// Where the parent left the cell.
#[derive(Clone, Debug, Args)]
pub struct WorkerArgs {
    /// Folder that holds the cell and takes the report
    folder: PathBuf,
}

/// Runs the cell in `args` and returns the status to end with.
#[must_use]
pub fn work(args: &WorkerArgs) -> i32 {
    let failed = |status: i32, why: &str| {
        let _ = fs::write(args.folder.join(FAULT_FILE), why);
        status
    };
    let spec = match read_spec(&args.folder) {
        Ok(spec) => spec,
        Err(why) => return failed(STATUS_FAILED, &why),
    };
    let served_by = match proof::prove(spec.allocator.preload.as_deref()) {
        Ok(path) => path,
        Err(why) => return failed(STATUS_UNPROVEN, &why),
    };
    let version = match spec.allocator.preload {
        None => proof::libc_version(),
        Some(_) => proof::version(),
    };
    let report = Report { served_by, version, ..Report::default() };
    match write_report(&args.folder, &report) {
        Ok(()) => 0,
        Err(why) => failed(STATUS_FAILED, &why),
    }
}

fn read_spec(folder: &Path) -> Result<CellSpec, String> {
    let text =
        fs::read(folder.join(SPEC_FILE)).map_err(|e| format!("cannot read the cell: {e}"))?;
    serde_json::from_slice(&text).map_err(|e| format!("cannot read the cell: {e}"))
}

fn write_report(folder: &Path, report: &Report) -> Result<(), String> {
    let text = serde_json::to_vec(report).map_err(|e| e.to_string())?;
    fs::write(folder.join(REPORT_FILE), text).map_err(|e| format!("cannot write the report: {e}"))
}
