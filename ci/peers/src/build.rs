//! Running compilers, and proving that what came out is what a table may call by its name.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs, thread};

use crate::recipes::{How, Recipe};

/// What a library must define itself: else calls would be split between two allocators.
const EXPORTS: [&str; 13] = [
    "malloc",
    "free",
    "calloc",
    "realloc",
    "posix_memalign",
    "aligned_alloc",
    "memalign",
    "malloc_usable_size",
    "_Znwm",
    "_Znam",
    "_ZdlPv",
    "_ZdlPvm",
    "_ZnwmSt11align_val_t",
];

/// Builds `library` from the sources in `source`, with intermediate files in `work`.
pub fn library(recipe: &Recipe, source: &Path, work: &Path, library: &Path) -> Result<(), String> {
    let _ = fs::remove_dir_all(work);
    fs::create_dir_all(work).map_err(|e| format!("failed to create {}: {e}", work.display()))?;
    let unfinished = library.with_extension("so.part");
    match recipe.how {
        How::Compile { flags, link, files } => {
            let flags: Vec<String> = flags
                .iter()
                .map(|flag| flag.replace("{}", &source.display().to_string()))
                .collect();
            let files = files(source)?;
            let objects = compile(&files, &flags, work)?;
            let plus_plus = files.iter().any(|file| is_c_plus_plus(file));
            let mut command = Command::new(if plus_plus { cxx() } else { cc() });
            command.args(["-shared", "-o"]).arg(&unfinished).args(&objects).args(link);
            output(&mut command)?;
        }
        How::Configure { arguments } => configure(source, work, arguments, &unfinished)?,
    }
    fs::rename(&unfinished, library).map_err(|e| format!("failed to place the library: {e}"))
}

/// Compiles `files` on all cores.
fn compile(files: &[PathBuf], flags: &[String], work: &Path) -> Result<Vec<PathBuf>, String> {
    let next = AtomicUsize::new(0);
    let errors = Mutex::new(Vec::new());
    let object = |index: usize| work.join(format!("{index}.o"));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(file) = files.get(index) else { return };
                    let plus_plus = is_c_plus_plus(file);
                    let mut command = Command::new(if plus_plus { cxx() } else { cc() });
                    let assembly = file.extension().is_some_and(|extension| extension == "S");
                    // Sources that are not ours: their warnings are not ours to read either.
                    command
                        .args(flags.iter().filter(|flag| !(assembly && flag.starts_with("-std"))));
                    command.args(["-w", "-c"]).arg(file).arg("-o").arg(object(index));
                    if let Err(error) = output(&mut command) {
                        errors.lock().expect("no holder panics").push(error);
                        return;
                    }
                }
            });
        }
    });
    match errors.into_inner().expect("no holder panics").into_iter().next() {
        Some(error) => Err(error),
        None => Ok((0..files.len()).map(object).collect()),
    }
}

fn is_c_plus_plus(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "cc")
}

/// jemalloc: a copy of its sources, because configure and make write into them.
fn configure(source: &Path, work: &Path, arguments: &[&str], to: &Path) -> Result<(), String> {
    output(Command::new("cp").arg("-R").arg(source.join("jemalloc/.")).arg(work))?;
    output(Command::new("cp").arg(source.join("configure/configure")).arg(work))?;
    let version = source.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let version = version.split_once('+').ok_or("no upstream version in the crate's name")?.1;
    let mut command = Command::new("bash");
    command.current_dir(work).arg("./configure").args(arguments);
    output(command.arg(format!("--with-version={version}")))?;
    let jobs = thread::available_parallelism().map_or(1, usize::from);
    output(
        Command::new("make").current_dir(work).arg(format!("-j{jobs}")).arg("build_lib_shared"),
    )?;
    fs::copy(work.join("lib/libjemalloc.so.2"), to)
        .map(drop)
        .map_err(|e| format!("failed to copy libjemalloc.so.2: {e}"))
}

/// The compilers, as they name themselves.
pub fn compilers() -> Result<String, String> {
    let first = |name: String| -> Result<String, String> {
        let text = output(Command::new(name).arg("--version"))?;
        Ok(text.lines().next().unwrap_or_default().to_owned())
    };
    Ok(format!("{}; {}", first(cc())?, first(cxx())?))
}

/// That `library` itself defines everything a program may call.
pub fn check_exports(library: &Path) -> Result<(), String> {
    let symbols = output(Command::new("nm").args(["-D", "--defined-only"]).arg(library))?;
    let defined: Vec<&str> = symbols
        .lines()
        .filter_map(|line| line.split_whitespace().last())
        .map(|name| name.split('@').next().unwrap_or(name))
        .collect();
    let missing: Vec<&str> = EXPORTS.into_iter().filter(|name| !defined.contains(name)).collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(format!("{} does not define {}", library.display(), missing.join(", ")))
    }
}

/// That a program lives on `library`: the one that lists its own mappings, which must show it.
pub fn check_preload(library: &Path) -> Result<(), String> {
    let maps = output(Command::new("cat").arg("/proc/self/maps").env("LD_PRELOAD", library))?;
    if maps.contains(&library.display().to_string()) {
        Ok(())
    } else {
        Err(format!("{} was not loaded by LD_PRELOAD", library.display()))
    }
}

fn cc() -> String {
    env::var("CC").unwrap_or_else(|_| "cc".to_owned())
}

fn cxx() -> String {
    env::var("CXX").unwrap_or_else(|_| "c++".to_owned())
}

/// The standard output of a command that must succeed.
pub fn output(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let result = command.output().map_err(|e| format!("failed to start {program}: {e}"))?;
    if result.status.success() {
        return Ok(String::from_utf8_lossy(&result.stdout).into_owned());
    }
    let text = String::from_utf8_lossy(&result.stderr);
    let tail: Vec<&str> = text.lines().rev().take(15).collect();
    let tail: Vec<&str> = tail.into_iter().rev().collect();
    Err(format!("{program} ended with {}\n{}", result.status, tail.join("\n")))
}
