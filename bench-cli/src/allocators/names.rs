//! What stands behind `-a`: bare names, paths, and options after a `?`.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use super::{Allocator, exports_malloc, found};
use crate::error::{CliError, Exit};
use crate::preload::{self, Library};
use crate::suggest;

/// Resolves the values of one or more `-a`, in order, each once.
///
/// Commas split names and paths. They do not split what follows a `?`, because options may hold
/// commas; nor a value that names an existing file.
///
/// # Errors
/// [`Exit::Usage`] for an unknown name, and for a library that is missing or exports no malloc.
pub fn resolve_all(values: &[String]) -> Result<Vec<Allocator>, CliError> {
    let mut allocators: Vec<Allocator> = Vec::new();
    for value in values {
        for spec in split(value) {
            let allocator = resolve(spec)?;
            let twin = allocators.iter_mut().find(|other| other.name == allocator.name);
            match twin {
                Some(twin) if *twin == allocator => {}
                Some(twin) => {
                    // Two libraries of one file name: their paths tell them apart.
                    twin.name = by_path(twin);
                    allocators.push(Allocator { name: by_path(&allocator), ..allocator });
                }
                None => allocators.push(allocator),
            }
        }
    }
    Ok(allocators)
}

/// The allocators that are compared when nobody says which: ours, the system's, every peer found.
///
/// # Errors
/// If the embedded library cannot be unpacked.
pub fn standard() -> Result<Vec<Allocator>, CliError> {
    let mut allocators = vec![resolve("ours")?, Allocator::system()];
    allocators.extend(found::peers().into_iter().map(|peer| Allocator {
        name: peer.name.to_owned(),
        preload: Some(peer.path),
        env: Vec::new(),
    }));
    Ok(allocators)
}

/// Resolves one name or path, with its options.
///
/// # Errors
/// [`Exit::Usage`] for an unknown name, and for a library that is missing or exports no malloc.
pub fn resolve(spec: &str) -> Result<Allocator, CliError> {
    let (name, options) = match spec.split_once('?') {
        // A file may have a question mark in its name.
        Some(_) if looks_like_path(spec) && Path::new(spec).is_file() => (spec, ""),
        Some((name, options)) => (name, options),
        None => (spec, ""),
    };
    let (label, preload) = if looks_like_path(name) {
        let path = library(Path::new(name))?;
        let file = path.file_name().unwrap_or(path.as_os_str());
        (file.to_string_lossy().into_owned(), Some(path))
    } else {
        (canonical(name).to_owned(), by_name(name)?)
    };
    let env = read_options(spec, &label, options)?;
    let name = if options.is_empty() { label } else { format!("{label}?{options}") };
    Ok(Allocator { name, preload, env })
}

/// The name of an allocator with the whole path of its library in place of the file name.
fn by_path(allocator: &Allocator) -> String {
    let Some(path) = &allocator.preload else { return allocator.name.clone() };
    match allocator.name.split_once('?') {
        Some((_, options)) => format!("{}?{options}", path.display()),
        None => path.display().to_string(),
    }
}

fn split(value: &str) -> Vec<&str> {
    if looks_like_path(value) && Path::new(value).is_file() {
        return vec![value];
    }
    let mut specs = Vec::new();
    let mut rest = value;
    loop {
        match (rest.find(','), rest.find('?')) {
            (Some(comma), question) if question.is_none_or(|q| comma < q) => {
                specs.push(&rest[..comma]);
                rest = &rest[comma + 1..];
            }
            _ => {
                specs.push(rest);
                return specs.into_iter().filter(|spec| !spec.is_empty()).collect();
            }
        }
    }
}

fn looks_like_path(name: &str) -> bool {
    name.contains('/') || name.ends_with(".so") || name.contains(".so.")
}

fn canonical(name: &str) -> &str {
    match name {
        "glibc" | "libc" | "sys" => "system",
        "allocator" => "ours",
        "hardened" => "ours-hardened",
        other => other,
    }
}

/// The library behind a bare name; `None` for the system's allocator.
fn by_name(name: &str) -> Result<Option<PathBuf>, CliError> {
    match canonical(name) {
        "system" => return Ok(None),
        "ours" => return embedded(Library::Allocator).map(Some),
        "ours-hardened" => return embedded(Library::Hardened).map(Some),
        _ => {}
    }
    if let Some(peer) = found::peers().into_iter().find(|peer| peer.name == name) {
        return Ok(Some(peer.path));
    }
    if found::known_names().any(|known| known == name) {
        return Err(CliError::new(Exit::Usage, format!("{name} is not installed on this machine"))
            .because("no library of that name lies where the dynamic linker looks")
            .help(format!(
                "install it, or give the path of its library: `-a /path/to/lib{name}.so`"
            )));
    }
    let known = ["ours", "ours-hardened", "system"].into_iter().chain(found::known_names());
    Err(CliError::new(Exit::Usage, format!("unknown allocator `{name}`")).help(suggest::help(
        name,
        known,
        "bench-cli list allocators",
    )))
}

fn embedded(library: Library) -> Result<PathBuf, CliError> {
    let path = preload::path(library)?;
    exports_malloc(&path).map_err(|why| {
        CliError::new(
            Exit::Internal,
            format!("the {} library in this build of bench-cli is no allocator", library.name()),
        )
        .because(why)
        .help("build bench-cli again from a source tree whose allocator is complete")
    })?;
    Ok(path)
}

/// A library given by path, made absolute, because `ld.so` resolves a bare name elsewhere.
fn library(path: &Path) -> Result<PathBuf, CliError> {
    let fault = |why: &dyn std::fmt::Display| {
        CliError::new(Exit::Usage, format!("`{}` cannot be measured", path.display()))
            .because(why)
            .help("give a shared library that exports malloc and free, for example the one that `bench-cli preload --print` names")
    };
    let absolute = path.canonicalize().map_err(|error| fault(&error))?;
    exports_malloc(&absolute).map_err(|why| fault(&why))?;
    // ld.so splits LD_PRELOAD at both, and has no way to quote them.
    if absolute.to_string_lossy().contains([' ', ':']) {
        return Err(fault(&"its path holds a space or a colon, which LD_PRELOAD cannot express"));
    }
    Ok(absolute)
}

/// `key=value&key=value`: variables as they are for a stranger, options for ours.
///
/// Options of ours travel together in `ALLOCATOR_OPTIONS`; a name in capitals is a variable.
fn read_options(spec: &str, label: &str, options: &str) -> Result<Vec<(String, String)>, CliError> {
    let ours = matches!(label, "ours" | "ours-hardened");
    let mut env = Vec::new();
    let mut own = Vec::new();
    for option in options.split('&').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some((key, _)) if ours && key.chars().any(|c| c.is_ascii_lowercase()) => {
                own.push(option);
            }
            Some((key, value)) if !key.is_empty() => env.push((key.to_owned(), value.to_owned())),
            _ => {
                return Err(CliError::new(
                    Exit::Usage,
                    format!("`{option}` in `{spec}` is no option of an allocator"),
                )
                .help("write options as NAME?KEY=VALUE&KEY=VALUE, quoted for the shell"));
            }
        }
    }
    if !own.is_empty() {
        env.push(("ALLOCATOR_OPTIONS".to_owned(), own.join(",")));
    }
    Ok(env)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_split_names_but_not_options() {
        assert_eq!(split("ours,system,jemalloc"), ["ours", "system", "jemalloc"]);
        assert_eq!(split("ours,./a.so?X=1,2"), ["ours", "./a.so?X=1,2"]);
        assert_eq!(split("system,"), ["system"]);
    }

    #[test]
    fn options_of_ours_travel_together_and_those_of_strangers_are_variables() {
        let read = |label, options| read_options("spec", label, options).unwrap();
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(
            read("ours", "mode=classic&placement=best-fit"),
            [pair("ALLOCATOR_OPTIONS", "mode=classic,placement=best-fit")]
        );
        assert_eq!(
            read("ours", "ALLOCATOR_OPTIONS=memory=low"),
            [pair("ALLOCATOR_OPTIONS", "memory=low")]
        );
        assert_eq!(
            read("jemalloc", "MALLOC_CONF=narenas:2,tcache:false"),
            [pair("MALLOC_CONF", "narenas:2,tcache:false")]
        );
    }

    #[test]
    fn the_system_allocator_goes_by_its_other_names_too() {
        assert_eq!(resolve("glibc").unwrap(), Allocator::system());
        assert_eq!(resolve_all(&["system,glibc".to_owned()]).unwrap().len(), 1);
    }

    #[test]
    fn a_mistyped_name_is_answered_with_the_near_one() {
        let error = resolve("jemaloc").unwrap_err();
        assert_eq!(error.exit, Exit::Usage);
        assert!(error.help.as_deref().is_some_and(|h| h.contains("`jemalloc`")), "{error}");
    }

    #[test]
    fn a_missing_library_is_a_usage_error_that_names_the_file() {
        let error = resolve("./nowhere.so").unwrap_err();
        assert_eq!(error.exit, Exit::Usage);
        assert!(error.what.contains("./nowhere.so"), "{error}");
    }

    #[test]
    fn an_option_without_a_value_is_refused() {
        assert_eq!(resolve("system?MALLOC_ARENA_MAX").unwrap_err().exit, Exit::Usage);
    }
}
