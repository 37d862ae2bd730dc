//! Every way `bench-cli` can end, as documented exit codes, and the one error type that carries
//! a message with its cause and the next command.

use std::fmt;
use std::process::ExitCode;

/// The documented exit codes. Scripts rely on them: a number never changes its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done, or passed.
    Success = 0,
    /// A bug of ours.
    Internal = 1,
    /// Usage, bad configuration, an unknown name, a library that is missing or exports no
    /// malloc, an output folder that cannot be written.
    Usage = 2,
    /// A regression was shown.
    Regression = 3,
    /// Neither a regression nor its absence could be shown.
    Inconclusive = 4,
    /// This machine cannot do it, or the program cannot be recorded.
    Unfit = 5,
    /// An allocator crashed, was killed for memory, or broke its promise.
    AllocatorFault = 6,
    /// A trace that is missing, damaged or not understood.
    Trace = 7,
    /// Ended by Ctrl-C.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// A failure as its user reads it: what, why, and what to do next.
#[derive(Debug)]
pub struct CliError {
    /// How the process ends.
    pub exit: Exit,
    /// What failed: a lower-case sentence without a full stop.
    pub what: String,
    /// Causes, outermost first.
    pub because: Vec<String>,
    /// The next command or step, where there is one.
    pub help: Option<String>,
}

impl CliError {
    /// An error with an exit code and a sentence that says what failed.
    pub fn new(exit: Exit, what: impl Into<String>) -> Self {
        CliError { exit, what: what.into(), because: Vec::new(), help: None }
    }

    /// Adds a cause.
    #[must_use]
    pub fn because(mut self, cause: impl fmt::Display) -> Self {
        self.because.push(cause.to_string());
        self
    }

    /// Says what to do next.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.what)?;
        for cause in &self.because {
            write!(f, "\n  because: {cause}")?;
        }
        if let Some(help) = &self.help {
            write!(f, "\n  help: {help}")?;
        }
        Ok(())
    }
}

impl std::error::Error for CliError {}
