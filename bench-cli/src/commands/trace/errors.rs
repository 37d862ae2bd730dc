//! What a user reads when a trace cannot be read or written: the cause, and the next command.
#![forbid(unsafe_code)]

use std::error::Error;
use std::io;
use std::path::Path;

use traces::TraceError;

use crate::error::{CliError, Exit};

impl From<TraceError> for CliError {
    fn from(error: TraceError) -> Self {
        let mut message = CliError::new(exit(&error), error.to_string());
        let mut cause = error.source();
        while let Some(source) = cause {
            message = message.because(source);
            cause = source.source();
        }
        message.help(help(&error))
    }
}

fn exit(error: &TraceError) -> Exit {
    match error {
        TraceError::Stopped { .. } => Exit::Interrupted,
        TraceError::Write { .. } | TraceError::Inexpressible { .. } => Exit::Usage,
        _ => Exit::Trace,
    }
}

fn help(error: &TraceError) -> String {
    let named = |path: &Path| quoted(path);
    match error {
        TraceError::Read { path, source } => match source.kind() {
            io::ErrorKind::NotFound => {
                let folder = match path.parent() {
                    Some(folder) if !folder.as_os_str().is_empty() => folder,
                    _ => Path::new("."),
                };
                format!("see which traces are there with `ls {}`", named(folder))
            }
            io::ErrorKind::PermissionDenied => {
                format!("see who may read it with `ls -l {}`", named(path))
            }
            _ => format!("see what it is with `stat {}`", named(path)),
        },
        TraceError::Directory { path } => {
            format!("name a file in it: `ls {}`", named(path))
        }
        TraceError::Empty { path } => {
            format!("record it again with `bench-cli record -o {} -- COMMAND`", named(path))
        }
        TraceError::Unrecognised { path, .. } => format!(
            "name its format with `bench-cli trace info --from FORMAT {}`; \
             `bench-cli trace info --help` lists them",
            named(path)
        ),
        TraceError::Text { path, line, .. } => format!(
            "correct line {line}, or read what precedes it with `bench-cli trace info --salvage {}`",
            named(path)
        ),
        TraceError::Compression { path, layer, .. } => {
            let test = match *layer {
                "zip" => "unzip -t",
                "gzip" => "gzip -t",
                _ => "zstd -t",
            };
            format!(
                "fetch the file again and test it with `{test} {0}`, or read what precedes the \
                 damage with `bench-cli trace info --salvage {0}`",
                named(path)
            )
        }
        TraceError::Bomb { path, .. } => format!(
            "if you trust it, uncompress it yourself and give the result instead of {}",
            named(path)
        ),
        TraceError::Strict { path, .. } => format!(
            "read it with repairs by `bench-cli trace info {}`, without --strict",
            named(path)
        ),
        TraceError::Write { path, .. } => {
            format!("make room, choose another place with `-o`, or see `ls -ld {}`", named(path))
        }
        TraceError::Stopped { .. } => "nothing was written; start it again".to_owned(),
        TraceError::Inexpressible { .. } => {
            "export as CSV, which expresses everything: `bench-cli trace export --to csv`"
                .to_owned()
        }
        other => match other.path() {
            Some(path) => {
                format!("see how far it is sound with `bench-cli trace verify {}`", named(path))
            }
            None => "see `bench-cli trace --help`".to_owned(),
        },
    }
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+=:@,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_trace_ends_with_its_documented_exit_code_and_a_next_command() {
        let error = TraceError::Text {
            path: "a b.txt".into(),
            format: traces::Format::Android,
            line: 7,
            column: 3,
            reason: "an address was expected".to_owned(),
        };
        let message = CliError::from(error);
        assert_eq!(message.exit, Exit::Trace);
        assert!(message.what.contains("line 7, column 3"), "{}", message.what);
        assert!(message.help.unwrap().contains("'a b.txt'"));
    }
}
