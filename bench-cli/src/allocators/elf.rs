//! Whether a file is a shared library of this machine that exports `malloc`.
#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::path::Path;

use object::{Object, ObjectSymbol};

/// Why a file cannot stand in for the system's allocator.
#[derive(Debug, thiserror::Error)]
pub enum NotAnAllocator {
    /// It cannot be read.
    #[error(transparent)]
    Unreadable(#[from] io::Error),
    /// It is no shared library of this kind of machine.
    #[error("it is no shared library of this machine: {0}")]
    NotALibrary(String),
    /// It serves something else.
    #[error("it exports no `{0}`")]
    NoSuchSymbol(&'static str),
}

/// Checks that the library at `path` exports `malloc` and `free`.
///
/// # Errors
/// What is wrong with the file.
pub fn exports_malloc(path: &Path) -> Result<(), NotAnAllocator> {
    let bytes = fs::read(path)?;
    let file = object::File::parse(&*bytes)
        .map_err(|error| NotAnAllocator::NotALibrary(error.to_string()))?;
    if file.kind() != object::ObjectKind::Dynamic {
        return Err(NotAnAllocator::NotALibrary(format!("its kind is {:?}", file.kind())));
    }
    if file.architecture() != native() {
        let found = format!("it is made for {:?}", file.architecture());
        return Err(NotAnAllocator::NotALibrary(found));
    }
    for wanted in ["malloc", "free"] {
        let exported = file
            .dynamic_symbols()
            .any(|symbol| symbol.is_definition() && symbol.name() == Ok(wanted));
        if !exported {
            return Err(NotAnAllocator::NoSuchSymbol(wanted));
        }
    }
    Ok(())
}

fn native() -> object::Architecture {
    if cfg!(target_arch = "aarch64") {
        object::Architecture::Aarch64
    } else {
        object::Architecture::X86_64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_file_is_no_library() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "GROUP ( libfoo.so.1 )").unwrap();
        let error = exports_malloc(file.path()).unwrap_err();
        assert!(matches!(error, NotAnAllocator::NotALibrary(_)), "{error}");
    }

    #[test]
    fn a_program_is_no_allocator() {
        let error = exports_malloc(Path::new("/proc/self/exe")).unwrap_err();
        assert!(!matches!(error, NotAnAllocator::Unreadable(_)), "{error}");
    }

    #[test]
    fn a_missing_file_is_told_apart() {
        let error = exports_malloc(Path::new("/nowhere/libfoo.so")).unwrap_err();
        assert!(matches!(error, NotAnAllocator::Unreadable(_)), "{error}");
    }
}
