//! The two things done with whole containers: opening one of either kind, and saving any source
//! as one.

use std::fs::File;
use std::path::Path;

use super::reader::read_file_header;
use super::{RawTrace, Reader, ResolveOptions, Totals, Writer};
use crate::error::TraceError;
use crate::import::Source;

/// Opens a resolved container, or a raw file as the resolved stream it stands for; with `salvage`, a
/// damaged one ends where the damage begins.
///
/// # Errors
/// The file cannot be read, is no container, or is of an unknown version.
pub fn open(path: impl AsRef<Path>, salvage: bool) -> Result<Box<dyn Source>, TraceError> {
    let path = path.as_ref();
    let read = |source| TraceError::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(read)?;
    if !file.metadata().map_err(read)?.is_file() {
        let reason = "a container is read from a file, and this is a pipe or a device".to_owned();
        return Err(TraceError::Unsupported { path: path.to_owned(), reason });
    }
    if read_file_header(&mut file, path)?.is_raw() {
        Ok(Box::new(RawTrace::open(path, ResolveOptions::default())?))
    } else {
        let mut reader = Reader::open(path)?;
        reader.salvage(salvage);
        Ok(Box::new(reader))
    }
}

/// Writes all that `source` still yields, notes its census, and finishes the container.
///
/// # Errors
/// Whatever keeps `source` from going on or the container from being written; then nothing is
/// left at the writer's place.
pub fn save(source: &mut dyn Source, mut writer: Writer) -> Result<Totals, TraceError> {
    while let Some(event) = source.next_event()? {
        writer.write(&event)?;
    }
    if let Ok(census) = serde_json::to_string(&source.census()) {
        writer.provenance("census", census);
    }
    writer.finish()
}
