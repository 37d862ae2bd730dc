//! A session: many cells, in an order that spreads noise evenly, into one run directory.
//!
//! | file | owns |
//! |---|---|
//! | `schedule` | which process comes when |
//! | `runner` | the loop: run, note, go on; stop in order on Ctrl-C |
//! | `summary` | from rows to estimates with intervals |
//! | `table` | the summary for people |
//! | `progress` | the bar |
#![forbid(unsafe_code)]

mod progress;
mod runner;
mod schedule;
mod summary;
mod table;

pub use progress::Progress;
pub use runner::{Cells, Stop, run_all};
pub use schedule::{Slot, schedule};
pub use summary::{Line, OWN_WORK, Standing, reference, summarise};
pub use table::{remarks, render};
