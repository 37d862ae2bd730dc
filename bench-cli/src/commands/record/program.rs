//! The program that is recorded: where it lies, why it may not be recordable, how it ended.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, elf};

/// The status as shells put it: 128 and the signal for a program that was killed.
pub(super) fn exit_code(status: &ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Where the shell would find `command`.
pub(super) fn find(command: &OsStr) -> Option<PathBuf> {
    let runnable = |path: &Path| {
        fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
    };
    if Path::new(command).components().count() > 1 {
        let path = PathBuf::from(command);
        return runnable(&path).then_some(path);
    }
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(command)).find(|p| runnable(p))
}

/// Why the program at `path` made no call that the recorder saw; as an error where the recorder
/// cannot have been in it at all.
pub(super) fn why_unrecordable(path: &Path) -> Result<&'static str, &'static str> {
    if fs::metadata(path).is_ok_and(|m| m.mode() & 0o6000 != 0) {
        return Err("the program is setuid or setgid, so the system ignores LD_PRELOAD");
    }
    let Ok(bytes) = fs::read(path) else { return Ok("the program file cannot be read") };
    if bytes.starts_with(b"#!") {
        return Ok("the program is a script, and its interpreter made no call");
    }
    if bytes.get(4) == Some(&elf::ELFCLASS32) {
        return Err("the program is a 32-bit one, and the recorder is a 64-bit library");
    }
    match has_interpreter(&bytes) {
        Some(true) => Ok("the program never called malloc, or brings an allocator of its own"),
        Some(false) => Err("the program is statically linked, so nothing can be preloaded"),
        None => Err("the program is no ELF executable of this machine"),
    }
}

fn has_interpreter(bytes: &[u8]) -> Option<bool> {
    let header = elf::FileHeader64::<Endianness>::parse(bytes).ok()?;
    let endian = header.endian().ok()?;
    let segments = header.program_headers(endian, bytes).ok()?;
    Some(segments.iter().any(|segment| segment.p_type(endian) == elf::PT_INTERP))
}
