//! What a person sees while runs go on: one bar on a terminal, nothing elsewhere.
#![forbid(unsafe_code)]

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar on standard error with the time left and the run at work.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A bar over `runs` runs; invisible if `quiet`, or if standard error is no terminal.
    #[must_use]
    pub fn new(runs: u64, quiet: bool) -> Self {
        let visible = !quiet && std::io::stderr().is_terminal();
        let target =
            if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(runs), target);
        if let Ok(style) =
            ProgressStyle::with_template("{bar:24} {pos}/{len} runs, {eta} left  {wide_msg}")
        {
            bar.set_style(style);
        }
        Progress { bar }
    }

    /// Says what is running now.
    pub fn at(&self, what: String) {
        self.bar.set_message(what);
    }

    /// One run ended.
    pub fn step(&self) {
        self.bar.inc(1);
    }

    /// Takes the bar away.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
