//! `bench-cli run`: workloads, traces or a program under several allocators.

use clap::Args;

use crate::cli::Global;
use crate::error::{CliError, Exit};

/// What to run and under which allocators.
#[derive(Clone, Debug, Default, Args)]
pub struct RunArgs {
    /// Workloads by name, or traces by path (default: the standard short suite)
    pub what: Vec<String>,
}

/// Runs `bench-cli run`.
///
/// # Errors
/// See `Exit`.
pub fn run(_args: RunArgs, _global: &Global) -> Result<Exit, CliError> {
    Ok(Exit::Success)
}
