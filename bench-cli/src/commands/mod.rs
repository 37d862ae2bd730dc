//! One module per subcommand: its arguments, and a `run` that returns how the process ends.

pub mod calibrate;
mod cell_latency;
pub mod compare;
pub mod completions;
pub mod doctor;
pub mod export;
pub mod gate;
pub mod history;
mod judge;
pub mod list;
pub mod preload;
pub mod recommend;
pub mod record;
pub mod report;
pub mod run;
pub mod scale;
pub mod trace;
pub mod tune;
