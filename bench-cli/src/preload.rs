//! The libraries that travel inside this binary: the allocator in two builds, and the recorder.
//!
//! Owns a folder `bench-cli` in the user's cache. Each library lies there below the hash of its
//! content, so two versions of this binary never disturb each other, and a program that still
//! runs with an older library keeps it.
//!
//! Cost: one read of the cached file per call, to be sure it is whole.
//!
//! # Invariants
//! 1. A path handed out names a file whose bytes are the embedded ones.
//! 2. A file appears under its name only when it is complete (written aside, then renamed).
#![forbid(unsafe_code)]

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::error::{CliError, Exit};

mod embedded {
    include!(concat!(env!("OUT_DIR"), "/preload_libraries.rs"));
}

/// A library of ours that another program can preload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Library {
    /// The allocator as it ships.
    Allocator,
    /// The allocator with the integrity checks that touch its fast path.
    Hardened,
    /// The library that writes a trace of the program it is preloaded into.
    Recorder,
}

impl Library {
    /// All of them.
    pub const ALL: [Library; 3] = [Library::Allocator, Library::Hardened, Library::Recorder];

    /// The name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Library::Allocator => "allocator",
            Library::Hardened => "hardened",
            Library::Recorder => "recorder",
        }
    }

    /// The file name in the cache.
    #[must_use]
    pub fn file_name(self) -> &'static str {
        match self {
            Library::Allocator => "liballocator.so",
            Library::Hardened => "liballocator-hardened.so",
            Library::Recorder => "librecorder.so",
        }
    }

    fn bytes(self) -> &'static [u8] {
        match self {
            Library::Allocator => embedded::ALLOCATOR,
            Library::Hardened => embedded::HARDENED,
            Library::Recorder => embedded::RECORDER,
        }
    }

    fn hash(self) -> &'static str {
        match self {
            Library::Allocator => embedded::ALLOCATOR_HASH,
            Library::Hardened => embedded::HARDENED_HASH,
            Library::Recorder => embedded::RECORDER_HASH,
        }
    }

    fn failure(self) -> &'static str {
        match self {
            Library::Allocator => embedded::ALLOCATOR_FAILURE,
            Library::Hardened => embedded::HARDENED_FAILURE,
            Library::Recorder => embedded::RECORDER_FAILURE,
        }
    }
}

/// Absolute path of `library`, unpacked into the user's cache if it is not there yet.
///
/// # Errors
/// [`Exit::Internal`] if this binary was built without the library, [`Exit::Usage`] if the cache
/// cannot be written.
pub fn path(library: Library) -> Result<PathBuf, CliError> {
    let bytes = library.bytes();
    if bytes.is_empty() {
        return Err(CliError::new(
            Exit::Internal,
            format!("this build of bench-cli carries no {} library", library.name()),
        )
        .because(library.failure())
        .help("build bench-cli again from a source tree in which `cargo build -p allocator-capi --profile preload --features preload` works"));
    }
    let folder = cache_folder()?.join(library.hash());
    let path = folder.join(library.file_name());
    if fs::read(&path).is_ok_and(|found| found == bytes) {
        return Ok(path);
    }
    unpack(&folder, &path, bytes).map_err(|error| {
        CliError::new(Exit::Usage, format!("cannot unpack a library to `{}`", path.display()))
            .because(error)
            .help("make the folder writable, or set XDG_CACHE_HOME to one that is")
    })?;
    Ok(path)
}

fn unpack(folder: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().set_permissions(fs::Permissions::from_mode(0o755))?;
    file.persist(path).map_err(|e| e.error)?;
    Ok(())
}

/// The folder for everything that can be made again: `$XDG_CACHE_HOME/bench-cli`, else
/// `~/.cache/bench-cli`, else one in the temporary folder that belongs to this user alone.
///
/// # Errors
/// [`Exit::Usage`] if the only place left belongs to somebody else.
pub fn cache_folder() -> Result<PathBuf, CliError> {
    let absolute = |name: &str| {
        env::var_os(name).filter(|v: &OsString| Path::new(v).is_absolute()).map(PathBuf::from)
    };
    if let Some(xdg) = absolute("XDG_CACHE_HOME") {
        return Ok(xdg.join("bench-cli"));
    }
    if let Some(home) = absolute("HOME") {
        return Ok(home.join(".cache/bench-cli"));
    }
    let uid = rustix::process::getuid().as_raw();
    let folder = env::temp_dir().join(format!("bench-cli-{uid}"));
    let _ = fs::DirBuilder::new().mode(0o700).create(&folder);
    // A library is code: a folder that another user could fill must not be trusted.
    match fs::symlink_metadata(&folder) {
        Ok(meta) if meta.is_dir() && meta.uid() == uid && meta.mode() & 0o022 == 0 => Ok(folder),
        _ => Err(CliError::new(
            Exit::Usage,
            format!("`{}` cannot serve as cache: it is not this user's alone", folder.display()),
        )
        .help("set HOME or XDG_CACHE_HOME to a folder of yours")),
    }
}
