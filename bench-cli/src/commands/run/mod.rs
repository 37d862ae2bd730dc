//! `bench-cli run`: workloads, traces or a program under several allocators.
//!
//! `args` is the command line, `measure` runs workloads and traces, `exec` a user's program;
//! `work` is what each allocator does of them, and `duration` finds how much takes a given time; `rows` turns what a worker says into lines of
//! the result files, `report` prints what came out and `details` what of it needs more than a table.
#![forbid(unsafe_code)]

mod args;
mod details;
mod duration;
mod exec;
mod limiter;
mod measure;
mod report;
mod rows;
mod work;

pub use args::RunArgs;

use crate::allocators::{self, Allocator};
use crate::cli::{Format, Global};
use crate::error::{CliError, Exit};
use crate::history::commit::Commit;
use crate::results::{AllocatorNote, Machine, Manifest, RunDirectory, SCHEMA, Subject, utc};

/// Runs `bench-cli run`.
///
/// # Errors
/// Bad names and files, an output folder that cannot be written, Ctrl-C: see [`Exit`].
pub fn run(args: RunArgs, global: &Global) -> Result<Exit, CliError> {
    crate::interrupt::listen();
    crate::worker::check_cpus(&args.cpus.clone().unwrap_or_default().0)?;
    match &args.exec {
        Some(command) => exec::run(command, &args, global),
        None => measure::run(&args, global),
    }
}

/// Measures `args` as [`run`] does, prints the table for people only, and hands back what it left.
///
/// # Errors
/// As [`run`]; a failing allocator is a row and no error.
pub(super) fn session(args: &RunArgs, global: &Global) -> Result<RunDirectory, CliError> {
    crate::interrupt::listen();
    measure::session(args, global, global.format == Format::Human)
}

/// The allocators named by `-a`, or all that are here.
fn chosen_allocators(args: &RunArgs) -> Result<Vec<Allocator>, CliError> {
    let allocators = match args.allocators.is_empty() {
        true => allocators::standard()?,
        false => allocators::resolve_all(&args.allocators)?,
    };
    if allocators.is_empty() {
        return Err(CliError::new(Exit::Usage, "-a names no allocator")
            .help("`bench-cli list allocators` lists those on this machine"));
    }
    Ok(allocators)
}

/// What is noted about a session before it begins. `settings` is whatever else has to be the same
/// for the session to be continued.
fn manifest(
    subjects: Vec<Subject>,
    allocators: &[Allocator],
    args: &RunArgs,
    global: &Global,
    settings: &str,
) -> Manifest {
    let allocators: Vec<AllocatorNote> = allocators
        .iter()
        .map(|allocator| AllocatorNote {
            name: allocator.name.clone(),
            given: None,
            library: allocator.preload.as_ref().map(|path| path.display().to_string()),
            library_hash: allocator
                .preload
                .as_ref()
                .and_then(|path| std::fs::read(path).ok())
                .map(|bytes| format!("{:016x}", fnv1a(&bytes))),
            env: allocator.env.clone(),
        })
        .collect();
    let identity = format!("{subjects:?} {allocators:?} {} {settings}", global.seed);
    Manifest {
        schema: SCHEMA,
        bench_cli: env!("CARGO_PKG_VERSION").to_owned(),
        command: std::env::args().collect(),
        started_utc: utc::rfc3339(utc::now()),
        state: "running".to_owned(),
        seed: global.seed,
        generator: "ChaCha8".to_owned(),
        fingerprint: format!("{:016x}", fnv1a(identity.as_bytes())),
        commit: Commit::checked_out(std::path::Path::new(".")),
        copies: args.copies.filter(|copies| *copies > 1),
        cpus: args.cpus.clone().unwrap_or_default().0,
        machine: Machine::here(),
        subjects,
        allocators,
    }
}

/// 64-bit FNV-1a: tells contents apart, defends against nothing.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// A word that is safe in a file name and in a CSV field.
fn slug(text: &str) -> String {
    let mut slug = String::new();
    for c in text.chars() {
        if c.is_ascii_alphanumeric() || ".+=".contains(c) {
            slug.push(c);
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    let end = slug.char_indices().nth(40).map_or(slug.len(), |(end, _)| end);
    slug[..end].trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::slug;

    #[test]
    fn slugs_are_short_and_safe() {
        assert_eq!(slug("python3 -c 'print(1)'"), "python3-c-print-1");
        assert_eq!(slug("ours?mode=classic&x=1"), "ours-mode=classic-x=1");
        assert!(slug(&"a".repeat(100)).len() <= 40);
    }
}
