//! A source that somebody watches: a bar on a terminal, and an end by Ctrl-C.
//!
//! Every verb reads through it, so every verb can be interrupted: the stream then ends in
//! [`TraceError::Stopped`], and whoever was writing removes what is not whole.
#![forbid(unsafe_code)]

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use traces::event::{Event, EventSource};
use traces::{Census, Format, Position, Source, TraceError};

use crate::interrupt;

/// Events between two looks at the flag and at the clock.
const EVERY: u64 = 1 << 12;

/// `source` with a bar and an ear for Ctrl-C.
pub(crate) struct Watched<S> {
    source: S,
    path: PathBuf,
    bar: ProgressBar,
    events: u64,
    over: bool,
}

impl<S: Source> Watched<S> {
    /// Watches `source`; `path` names it on the bar, which is invisible if `quiet`, or if standard
    /// error is no terminal.
    pub(crate) fn new(source: S, path: &Path, quiet: bool) -> Self {
        interrupt::listen();
        let whole = source.position().map(|position| position.total).or(source.len_hint());
        let bytes = source.position().is_some();
        let path = path.to_owned();
        Watched {
            bar: bar(whole.unwrap_or(0), bytes, &path, quiet),
            source,
            path,
            events: 0,
            over: false,
        }
    }

    fn look(&mut self) -> Result<(), TraceError> {
        if interrupt::requested() {
            return Err(TraceError::Stopped { path: self.path.clone() });
        }
        if !self.bar.is_hidden() {
            let position = self.source.position().map_or(self.events, |position| position.done);
            self.bar.set_position(position);
        }
        Ok(())
    }
}

fn bar(whole: u64, bytes: bool, path: &Path, quiet: bool) -> ProgressBar {
    let target = match !quiet && std::io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    // A pipe has no length.
    let length = (whole > 0).then_some(whole);
    let template = match (length, bytes) {
        (None, _) => "{spinner} {pos}  {wide_msg}",
        (Some(_), true) => "{bar:24} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left  {wide_msg}",
        (Some(_), false) => "{bar:24} {pos}/{len} events, {eta} left  {wide_msg}",
    };
    let bar = ProgressBar::with_draw_target(length, target);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    let name = path.file_name().unwrap_or(path.as_os_str());
    bar.with_message(name.to_string_lossy().into_owned())
}

impl<S: Source> EventSource for Watched<S> {
    type Error = TraceError;

    fn next_event(&mut self) -> Result<Option<Event>, TraceError> {
        if self.events.is_multiple_of(EVERY) {
            self.look()?;
        }
        self.events += 1;
        let next = self.source.next_event();
        if !matches!(next, Ok(Some(_))) {
            // What is said next stands on a line of its own.
            self.bar.finish_and_clear();
            if let (Ok(None), Some(lost), false) = (&next, self.source.lost(), self.over) {
                crate::output::note(&format!("{}: {lost}", self.path.display()));
            }
            self.over = true;
        }
        next
    }

    fn len_hint(&self) -> Option<u64> {
        self.source.len_hint()
    }
}

impl<S: Source> Source for Watched<S> {
    fn format(&self) -> Format {
        self.source.format()
    }

    fn census(&self) -> Census {
        self.source.census()
    }

    fn position(&self) -> Option<Position> {
        self.source.position()
    }

    fn lost(&self) -> Option<String> {
        self.source.lost()
    }

    fn provenance(&self) -> Vec<(String, String)> {
        self.source.provenance()
    }
}

impl<S> Drop for Watched<S> {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
