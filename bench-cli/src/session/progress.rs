//! What a person sees while runs go on: one bar on a terminal, nothing elsewhere.
//!
//! The bar tells how many runs are done, how long the rest will take, which run is at work, how
//! much memory its process has now, and how fast the run before it was. A thread looks five times a
//! second, and only where there is somebody to see it.
#![forbid(unsafe_code)]

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::worker;

/// Between two looks at the process at work.
const EVERY: Duration = Duration::from_millis(200);

/// A bar on standard error with the time left and the run at work.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    shown: Arc<Shown>,
    looker: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shown {
    over: AtomicBool,
    /// The run at work, and the rate of the one before.
    words: Mutex<(String, String)>,
}

impl Shown {
    fn message(&self) -> String {
        let Ok(words) = self.words.lock() else { return String::new() };
        let resident = worker::resident_now()
            .map_or_else(String::new, |bytes| format!("{:.1} MiB  ", bytes as f64 / 1_048_576.0));
        format!("{resident}{}{}", words.1, words.0)
    }
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
        let shown = Arc::<Shown>::default();
        let looker = visible.then(|| {
            let (bar, shown) = (bar.clone(), Arc::clone(&shown));
            thread::spawn(move || {
                while !shown.over.load(Ordering::Relaxed) {
                    bar.set_message(shown.message());
                    thread::park_timeout(EVERY);
                }
            })
        });
        Progress { bar, shown, looker }
    }

    /// Says what is running now.
    pub fn at(&self, what: String) {
        if let Ok(mut words) = self.shown.words.lock() {
            words.0 = what;
        }
    }

    /// Says how fast the run was that just ended.
    pub fn ended(&self, operations: Option<u64>, elapsed_ns: Option<u64>) {
        if let (Some(operations), Some(ns @ 1..), Ok(mut words)) =
            (operations, elapsed_ns, self.shown.words.lock())
        {
            words.1 = format!("last {:.1} Mop/s  ", operations as f64 * 1e3 / ns as f64);
        }
    }

    /// One run ended.
    pub fn step(&self) {
        self.bar.inc(1);
    }

    /// Takes the bar away.
    pub fn clear(&self) {
        self.shown.over.store(true, Ordering::Relaxed);
        if let Some(looker) = &self.looker {
            looker.thread().unpark();
        }
        self.bar.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.shown.over.store(true, Ordering::Relaxed);
        if let Some(looker) = self.looker.take() {
            looker.thread().unpark();
            // It only draws; if it panicked, standard error says so.
            let _ = looker.join();
        }
    }
}
