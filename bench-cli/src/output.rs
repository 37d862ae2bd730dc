//! Standard output: results and nothing else, and no complaint about a reader that went away.
#![forbid(unsafe_code)]

use std::io::{self, Write};

use crate::error::{CliError, Exit};

/// Writes `text` to standard output. A closed pipe (`bench-cli … | head`) is no error.
///
/// # Errors
/// [`Exit::Usage`] if standard output cannot take it, for example on a full disk.
pub fn print(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(CliError::new(Exit::Usage, "cannot write to standard output").because(error))
        }
        _ => Ok(()),
    }
}

/// Writes a line to standard error, for people; nobody is told if it cannot be.
pub fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
