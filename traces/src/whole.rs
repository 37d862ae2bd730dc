//! A file that appears whole or not at all: written under another name beside its place, and
//! renamed at the end. What is no file but a device or a pipe is written to directly.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// The name under which the file is written; removed when dropped unfinished.
#[derive(Debug)]
pub struct WholeFile {
    path: PathBuf,
    /// `None` where the place itself is written to, and once the file has its name.
    partial: Option<PathBuf>,
}

impl WholeFile {
    /// Begins a file that [`finish`](Self::finish) puts at `path`.
    ///
    /// # Errors
    /// The place is a folder, or its folder does not exist or cannot be written.
    pub fn create(path: &Path) -> io::Result<(Self, File)> {
        let path = path.to_owned();
        match fs::metadata(&path) {
            Ok(place) if place.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
            // Renaming over `/dev/null` would replace it.
            Ok(place) if !place.is_file() => {
                let file = File::options().write(true).open(&path)?;
                return Ok((WholeFile { path, partial: None }, file));
            }
            _ => {}
        }
        let mut name = OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(format!(".{}.partial", std::process::id()));
        let partial = path.with_file_name(name);
        let file = File::create(&partial)?;
        Ok((WholeFile { path, partial: Some(partial) }, file))
    }

    /// Gives the file its name. Whatever was written has to be in it by now.
    ///
    /// # Errors
    /// The system refuses to rename it; then nothing is left.
    pub fn finish(mut self) -> io::Result<()> {
        if let Some(partial) = &self.partial {
            fs::rename(partial, &self.path)?;
            self.partial = None;
        }
        Ok(())
    }
}

impl Drop for WholeFile {
    fn drop(&mut self) {
        if let Some(partial) = &self.partial {
            let _ = fs::remove_file(partial);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_file_appears_when_it_is_finished_and_leaves_nothing_when_it_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let (whole, mut file) = WholeFile::create(&path).unwrap();
        file.write_all(b"all").unwrap();
        assert!(!path.exists());
        whole.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"all");
        drop(WholeFile::create(&path).unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(fs::read(&path).unwrap(), b"all", "what was there before is still there");
    }

    #[test]
    fn a_device_is_written_to_and_stays_one() {
        let place = Path::new("/dev/null");
        let (whole, mut file) = WholeFile::create(place).unwrap();
        file.write_all(b"gone").unwrap();
        whole.finish().unwrap();
        assert!(!fs::metadata(place).unwrap().is_file());
    }
}
