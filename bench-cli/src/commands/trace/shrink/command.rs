//! Any command as a trial: a trace shows it where the command fails.
#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{self, Child, ExitStatus, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use traces::container::{self, Writer, WriterOptions};
use traces::event::Event;
use traces::rewrite::Stream;

use super::{Seen, ShrinkArgs, Trial};
use crate::error::{CliError, Exit};
use crate::interrupt;

/// Runs a command on candidates.
pub(super) struct Command<'a> {
    path: PathBuf,
    words: &'a [String],
}

impl Drop for Command<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl<'a> Command<'a> {
    /// The command of `args`; candidates lie beside the output.
    pub(super) fn new(args: &'a ShrinkArgs) -> Result<Self, CliError> {
        if !args.command.iter().any(|word| word.contains("{}")) {
            return Err(CliError::new(Exit::Usage, "the command does not name the trace to try")
                .help("put `{}` where its path belongs: `… -- ./replay {}`"));
        }
        let output = args.output.path();
        let mut name = std::ffi::OsString::from(".");
        name.push(output.file_name().unwrap_or_default());
        name.push(format!(".{}.trial", process::id()));
        Ok(Command { path: output.with_file_name(name), words: &args.command })
    }

    fn words(&self, path: &str) -> Vec<String> {
        self.words.iter().map(|word| word.replace("{}", path)).collect()
    }
}

/// Waits for the end of `child`; Ctrl-C ends it with all that it started.
fn wait(mut child: Child) -> io::Result<ExitStatus> {
    let pid = Pid::from_child(&child);
    let ended = pidfd_open(pid, PidfdFlags::empty())?;
    let patience = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
    while child.try_wait()?.is_none() {
        if interrupt::requested() {
            kill_process_group(pid, Signal::KILL)?;
            break;
        }
        // An interrupted poll is looked at like any other wake-up.
        let _ = poll(&mut [PollFd::new(&ended, PollFlags::IN)], Some(&patience));
    }
    child.wait()
}

impl Trial for Command<'_> {
    fn look(&mut self, events: Vec<Event>) -> Result<Seen, CliError> {
        let options = WriterOptions { level: 1, ..WriterOptions::default() };
        let writer = Writer::create(&self.path, options)?;
        container::save(&mut Stream::new(events), writer)?;
        let words = self.words(&self.path.display().to_string());
        let status = process::Command::new(&words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .and_then(wait);
        match status {
            Ok(status) => Ok(Seen {
                shows: !status.success(),
                what: format!("the command ends with {status}"),
            }),
            Err(error) => Err(CliError::new(Exit::Usage, format!("cannot run `{}`", words[0]))
                .because(error)
                .help("give a command that is found, after `--`")),
        }
    }

    fn wanted(&self) -> String {
        "a command that fails".to_owned()
    }

    fn by_hand(&self, file: &str) -> String {
        self.words(file).join(" ")
    }
}
