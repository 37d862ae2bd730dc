//! `bench-cli report`: a folder of results as one HTML page.
#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;

use crate::error::{CliError, Exit};
use crate::gate::files;
use crate::report::page;

/// Which folder, and where the page goes.
#[derive(Clone, Debug, Args)]
pub struct ReportArgs {
    /// Folder of results, as given to --out
    #[arg(value_name = "DIR", default_value = "bench-out/latest")]
    folder: PathBuf,
    /// Where the page is written (default: report.html in the folder)
    #[arg(short = 'o', long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Runs `bench-cli report`.
///
/// # Errors
/// See [`Exit`].
pub fn run(args: &ReportArgs) -> Result<Exit, CliError> {
    let page = page::of_folder(&args.folder)?;
    let path = args.output.clone().unwrap_or_else(|| args.folder.join("report.html"));
    files::write_whole(&path, page.as_bytes())?;
    let _ = writeln!(io::stdout(), "{}", path.display());
    Ok(Exit::Success)
}
