//! What `bench-cli run` prints: the summary on standard output, where the files are on standard
//! error.
#![forbid(unsafe_code)]

use crate::cli::{Format, Global};
use crate::error::{CliError, Exit};
use crate::output;
use crate::results::RunDirectory;
use crate::session;

/// Prints the summary of what is in `directory`.
pub(super) fn print(
    directory: &RunDirectory,
    allocators: &[String],
    global: &Global,
) -> Result<(), CliError> {
    let internal = |error: &dyn std::fmt::Display| {
        CliError::new(Exit::Internal, "cannot write the summary").because(error)
    };
    let lines = session::summarise(directory.runs(), directory.latency(), allocators);
    let text = match global.format {
        Format::Human => session::render(&lines),
        Format::Json => serde_json::to_string_pretty(&lines).map_err(|e| internal(&e))?,
        Format::Csv => {
            let mut writer = csv::Writer::from_writer(Vec::new());
            for line in &lines {
                writer.serialize(line).map_err(|e| internal(&e))?;
            }
            let bytes = writer.into_inner().map_err(|e| internal(&e))?;
            String::from_utf8_lossy(&bytes).trim_end().to_owned()
        }
    };
    output::print(&format!("{text}\n"))?;
    if !global.quiet {
        output::note(&format!(
            "seed {}; every process is a line of {}/runs.csv",
            global.seed,
            directory.path().display()
        ));
    }
    Ok(())
}
