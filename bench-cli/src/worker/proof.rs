//! Who serves `malloc` in this process, asked of the dynamic linker.
//!
//! `ld.so` only warns when it cannot preload a library, and goes on with the system's allocator.
//! Numbers would then be of the wrong one. So the worker asks for the address that the name
//! `malloc` has in this process, and for the file that this address lies in.

use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::mem;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The calls that every allocator serves; the engine makes others only where the same file does.
const FAMILY: [&CStr; 4] = [c"malloc", c"calloc", c"realloc", c"free"];

/// The file that serves the `malloc` family, if it is the right one.
///
/// # Errors
/// A sentence that says who serves what instead.
pub(super) fn prove(preload: Option<&Path>) -> Result<PathBuf, String> {
    let expected = match preload {
        Some(path) => path.to_path_buf(),
        // The system's allocator lies in the file that also holds `getpid`.
        None => serving(c"getpid").ok_or("the dynamic linker does not know `getpid`")?,
    };
    let expected = expected.canonicalize().unwrap_or(expected);
    for name in FAMILY {
        let shown = name.to_string_lossy();
        let file = serving(name).ok_or_else(|| format!("nobody serves `{shown}`"))?;
        let file = file.canonicalize().unwrap_or(file);
        if file != expected {
            return Err(format!(
                "`{shown}` is served by `{}`, not by `{}`",
                file.display(),
                expected.display()
            ));
        }
    }
    Ok(expected)
}

/// The file that the symbol `name` of this process lies in.
fn serving(name: &CStr) -> Option<PathBuf> {
    let address = symbol(name)?;
    let mut info = mem::MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: `info` is writable for one `Dl_info`; the address is only looked up.
    let found = unsafe { libc::dladdr(address, info.as_mut_ptr()) };
    if found == 0 {
        return None;
    }
    // SAFETY: `dladdr` succeeded and filled it in; zeroed bytes are valid for the rest.
    let info = unsafe { info.assume_init() };
    if info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: a string of the dynamic linker, which no library here unloads.
    let file = unsafe { CStr::from_ptr(info.dli_fname) };
    Some(PathBuf::from(OsStr::from_bytes(file.to_bytes())))
}

pub(super) fn symbol(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: the name is a C string; the look-up has no side effect on loaded libraries.
    let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!address.is_null()).then_some(address)
}

/// The version the allocator states, asked of whichever of the well-known calls it exports.
pub(super) fn version() -> Option<String> {
    own_version().or_else(jemalloc_version).or_else(mimalloc_version).or_else(tcmalloc_version)
}

/// The version of the C library, for the system's allocator.
pub(crate) fn libc_version() -> Option<String> {
    type Version = unsafe extern "C" fn() -> *const c_char;
    let address = symbol(c"gnu_get_libc_version")?;
    // SAFETY: glibc documents this signature for the name.
    let version = unsafe { mem::transmute::<*mut c_void, Version>(address) };
    // SAFETY: no arguments; returns a static C string.
    let text = unsafe { CStr::from_ptr(version()) };
    Some(format!("glibc {}", text.to_string_lossy()))
}

fn own_version() -> Option<String> {
    type Version = unsafe extern "C" fn() -> *const c_char;
    let address = symbol(c"allocator_version")?;
    // SAFETY: our own C interface gives the name this signature.
    let version = unsafe { mem::transmute::<*mut c_void, Version>(address) };
    // SAFETY: no arguments; returns a static C string.
    let text = unsafe { CStr::from_ptr(version()) };
    Some(text.to_string_lossy().into_owned())
}

fn jemalloc_version() -> Option<String> {
    type Mallctl =
        unsafe extern "C" fn(*const c_char, *mut c_void, *mut usize, *mut c_void, usize) -> c_int;
    let address = symbol(c"mallctl")?;
    // SAFETY: jemalloc documents this signature for the name.
    let mallctl = unsafe { mem::transmute::<*mut c_void, Mallctl>(address) };
    let mut text: *const c_char = std::ptr::null();
    let mut length = mem::size_of_val(&text);
    // SAFETY: "version" is read into one `const char *`, whose size is passed along.
    let failed = unsafe {
        mallctl(
            c"version".as_ptr(),
            (&raw mut text).cast(),
            &raw mut length,
            std::ptr::null_mut(),
            0,
        )
    };
    if failed != 0 || text.is_null() {
        return None;
    }
    // SAFETY: `mallctl` succeeded; the version is a static C string.
    let text = unsafe { CStr::from_ptr(text) };
    // "5.3.0-0-g54eaed1d…": the commit says nothing to a reader of a table.
    let text = text.to_string_lossy();
    Some(text.split('-').next().unwrap_or(&text).to_owned())
}

fn mimalloc_version() -> Option<String> {
    type Version = unsafe extern "C" fn() -> c_int;
    let address = symbol(c"mi_version")?;
    // SAFETY: mimalloc documents this signature for the name.
    let version = unsafe { mem::transmute::<*mut c_void, Version>(address) };
    // SAFETY: no arguments, no preconditions.
    let number = unsafe { version() };
    // 209 is 2.0.9; since 3.x releases it is 30304 for 3.3.4 in some builds.
    Some(if number >= 10_000 {
        format!("{}.{}.{}", number / 10_000, number / 100 % 100, number % 100)
    } else {
        format!("{}.{}.{}", number / 100, number / 10 % 10, number % 10)
    })
}

fn tcmalloc_version() -> Option<String> {
    type Version =
        unsafe extern "C" fn(*mut c_int, *mut c_int, *mut *const c_char) -> *const c_char;
    let address = symbol(c"tc_version")?;
    // SAFETY: gperftools documents this signature for the name.
    let version = unsafe { mem::transmute::<*mut c_void, Version>(address) };
    let (mut major, mut minor, mut patch) = (0, 0, std::ptr::null());
    // SAFETY: three writable out parameters of the documented types.
    unsafe { version(&raw mut major, &raw mut minor, &raw mut patch) };
    Some(format!("gperftools {major}.{minor}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_preload_the_c_library_serves_malloc() {
        let file = prove(None).unwrap();
        assert!(file.to_string_lossy().contains("libc"), "{}", file.display());
    }

    #[test]
    fn a_library_that_did_not_get_in_is_not_believed() {
        let error = prove(Some(Path::new("/nowhere/libfoo.so"))).unwrap_err();
        assert!(error.contains("libfoo.so"), "{error}");
    }
}
