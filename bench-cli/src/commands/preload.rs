//! `bench-cli preload`: where a library of ours lies, for `LD_PRELOAD` by hand.
#![forbid(unsafe_code)]

use std::io::{self, Write};

use clap::Args;

use crate::error::{CliError, Exit};
use crate::preload::{self, Library};

/// Which library.
#[derive(Clone, Debug, Args)]
pub struct PreloadArgs {
    /// The library
    #[arg(value_enum, default_value = "allocator")]
    library: Name,
    /// Print the path alone (one line), for scripts
    #[arg(long)]
    print: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Name {
    /// The allocator as it ships
    Allocator,
    /// The allocator with its integrity checks on
    Hardened,
    /// The trace recorder
    Recorder,
}

/// Prints the path of the library, or how to use it.
///
/// # Errors
/// If the library cannot be unpacked.
pub fn run(args: &PreloadArgs) -> Result<Exit, CliError> {
    let library = match args.library {
        Name::Allocator => Library::Allocator,
        Name::Hardened => Library::Hardened,
        Name::Recorder => Library::Recorder,
    };
    let path = preload::path(library)?;
    let mut out = io::stdout().lock();
    // A reader that went away needs no message.
    let _ = if args.print {
        writeln!(out, "{}", path.display())
    } else {
        writeln!(out, "LD_PRELOAD={} PROGRAM ARGS", path.display())
    };
    Ok(Exit::Success)
}
