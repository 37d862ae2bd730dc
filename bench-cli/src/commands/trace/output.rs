//! Where a rewritten trace goes: a container, or a file in a foreign format; whole or not at all.
#![forbid(unsafe_code)]

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use traces::container::{self, Writer, WriterOptions};
use traces::rewrite::export::{Exporter, Losses};
use traces::{Source, TraceError, WholeFile};

use crate::error::CliError;

/// The container to write; the same for every verb that writes one.
#[derive(Clone, Debug, Args)]
pub(super) struct OutputArgs {
    /// The container to write
    #[arg(short = 'o', long = "output", value_name = "FILE")]
    output: PathBuf,
    /// zstd level: 3 is fast, 19 small
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(i32).range(1..=22))]
    level: i32,
}

impl OutputArgs {
    pub(super) fn path(&self) -> &Path {
        &self.output
    }

    /// Writes all of `source`, and notes where it came from.
    pub(super) fn save(
        &self,
        source: &mut dyn Source,
        notes: &[(&str, String)],
    ) -> Result<container::Totals, CliError> {
        let options = WriterOptions { level: self.level, ..WriterOptions::default() };
        let mut writer = Writer::create(&self.output, options)?;
        for (key, value) in notes {
            writer.provenance(key, value.clone());
        }
        Ok(container::save(source, writer)?)
    }
}

/// Writes all of `source` in a foreign format to `path`, or to standard output.
pub(super) fn export(
    source: &mut dyn Source,
    format: traces::Format,
    path: Option<&Path>,
) -> Result<Losses, CliError> {
    let Some(path) = path else {
        let out = BufWriter::new(io::stdout().lock());
        let result = copy(source, format, out, Path::new("-"));
        return match result {
            // A reader that went away has all it wanted.
            Err(TraceError::Write { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => {
                Ok(Losses::default())
            }
            other => Ok(other?.1),
        };
    };
    let failed = |source| TraceError::Write { path: path.to_owned(), source };
    let (whole, file) = WholeFile::create(path).map_err(failed)?;
    let (mut out, losses) = copy(source, format, BufWriter::with_capacity(1 << 18, file), path)?;
    out.flush().and_then(|()| whole.finish()).map_err(failed)?;
    Ok(losses)
}

fn copy<W: Write>(
    source: &mut dyn Source,
    format: traces::Format,
    out: W,
    path: &Path,
) -> Result<(W, Losses), TraceError> {
    let failed = |source| TraceError::Write { path: path.to_owned(), source };
    let mut exporter = Exporter::new(format, out)?;
    while let Some(event) = source.next_event()? {
        exporter.write(&event).map_err(failed)?;
    }
    exporter.finish().map_err(failed)
}
