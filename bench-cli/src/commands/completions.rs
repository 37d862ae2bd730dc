//! `bench-cli completions SHELL` and `bench-cli man DIR`: what packagers install beside the binary.
#![forbid(unsafe_code)]

use std::fs;
use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

use crate::cli;
use crate::error::{CliError, Exit};
use crate::output;
use crate::results::atomic;

/// For which shell.
#[derive(Clone, Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Where the pages go.
#[derive(Clone, Debug, Args)]
pub struct ManArgs {
    /// Folder for the pages: one per subcommand
    folder: PathBuf,
}

/// Prints the completion script.
///
/// # Errors
/// If standard output cannot take it.
pub fn run(args: &CompletionsArgs) -> Result<Exit, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut cli::command(), "bench-cli", &mut script);
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Success)
}

/// Writes the manual pages.
///
/// # Errors
/// [`Exit::Usage`] if the folder cannot be written.
pub fn man(args: &ManArgs) -> Result<Exit, CliError> {
    let unwritable = |error: std::io::Error| {
        let folder = args.folder.display();
        CliError::new(Exit::Usage, format!("cannot write manual pages to `{folder}`"))
            .because(error)
            .help("name a folder that can be written")
    };
    fs::create_dir_all(&args.folder).map_err(unwritable)?;
    let mut command = cli::command();
    // Gives every subcommand its whole name.
    command.build();
    let mut pages = vec![("bench-cli.1".to_owned(), command.clone())];
    for subcommand in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        let name = subcommand.get_display_name().unwrap_or(subcommand.get_name());
        pages.push((format!("{name}.1"), subcommand.clone()));
    }
    for (file, command) in pages {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page).map_err(unwritable)?;
        atomic::write(&args.folder.join(file), &page).map_err(unwritable)?;
    }
    Ok(Exit::Success)
}
