//! `bench-cli trace info`: one pass over a trace, told as a table or as JSON.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use traces::analysis::{self, Summary};

use super::{InputArgs, html, human, json, model, say, show};
use crate::cli::Format;
use crate::error::{CliError, Exit};

/// What to tell.
#[derive(Clone, Debug, Args)]
pub(super) struct InfoArgs {
    /// The trace: our container or any foreign format, also inside gz, zst or zip
    file: PathBuf,
    /// Write a page with plots besides
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    #[command(flatten)]
    input: InputArgs,
}

#[derive(Serialize)]
struct Report<'a> {
    file: &'a str,
    format: traces::Format,
    #[serde(flatten)]
    summary: &'a Summary,
}

pub(super) fn run(args: &InfoArgs, output: Format, quiet: bool) -> Result<Exit, CliError> {
    let mut source = args.input.open(&args.file, quiet)?;
    let summary = analysis::summarise(&mut *source)?;
    let file = args.file.display().to_string();
    if let Some(path) = &args.html {
        model::write(path, &html::page(&file, source.format(), &summary)?)?;
        say(quiet, &format!("{}: open it in a browser", path.display()));
    }
    let text = match output {
        Format::Human => human::tell(&file, source.format(), &summary),
        Format::Json => {
            let report = Report { file: &file, format: source.format(), summary: &summary };
            json(&report)?
        }
        Format::Csv => human::csv(&summary),
    };
    show(&text)?;
    Ok(Exit::Success)
}
