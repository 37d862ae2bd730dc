//! Which difference can be told apart here: the system's allocator against itself for a few
//! seconds, and what its scatter means for a verdict.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::allocators::Allocator;
use crate::error::{CliError, Exit};
use crate::subjects::{self, Amount, Settings};
use crate::worker::{self, CellSpec, End, Pass};

/// What an A/A measurement showed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Resolution {
    /// Blocks of four processes that were run.
    pub blocks: usize,
    /// Seconds that a block takes.
    pub seconds_per_block: f64,
    /// Standard deviation of a block's difference, as a share.
    pub scatter: f64,
    /// The smallest slowdown of one workload that ten minutes show with 95 % certainty.
    pub smallest_difference: f64,
}

/// Blocks that are run whatever the time, so that there is a scatter to speak of.
const FEWEST_BLOCKS: usize = 4;

/// Runs blocks of four processes of one short workload, all under the system's allocator, for
/// about `time`.
///
/// # Errors
/// If a process cannot be run; [`Exit::Unfit`] if one does not come to its end.
pub fn measure(time: Duration) -> Result<Resolution, CliError> {
    let folder = tempfile::tempdir().map_err(|error| {
        CliError::new(Exit::Usage, "cannot make a temporary folder").because(error)
    })?;
    let settings = Settings { amount: Amount::Short, ..Settings::default() };
    let prepared = subjects::resolve("larson")?.prepare(&settings, folder.path())?;
    let start = Instant::now();
    let mut differences = Vec::new();
    while differences.len() < FEWEST_BLOCKS || start.elapsed() < time {
        let mut logs = [0.0; 4];
        for (position, log) in logs.iter_mut().enumerate() {
            let plan = prepared.plan.clone();
            let mut spec = CellSpec::new(plan, Allocator::system(), Pass::Throughput);
            spec.touch = prepared.touch;
            spec.seed = (differences.len() * 4 + position) as u64;
            let outcome = worker::run_once(&spec)?;
            let Some(report) = outcome.report else { return Err(unfinished(&outcome.end)) };
            *log = (report.elapsed_ns.max(1) as f64).ln();
        }
        // A block ABBA in which both are the same: what is left is noise.
        differences.push((logs[1] + logs[2] - logs[0] - logs[3]) / 2.0);
    }
    let seconds_per_block = start.elapsed().as_secs_f64() / differences.len() as f64;
    Ok(conclude(&differences, seconds_per_block))
}

fn unfinished(end: &End) -> CliError {
    CliError::new(Exit::Unfit, "this machine does not let a short run finish")
        .because(format!("larson under the system's allocator: {}", end.name()))
        .help("give this process more memory and time (`ulimit -a`, the limits of its cgroup)")
}

fn conclude(differences: &[f64], seconds_per_block: f64) -> Resolution {
    let n = differences.len() as f64;
    let mean = differences.iter().sum::<f64>() / n;
    let variance = differences.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let scatter = variance.sqrt();
    let blocks = (600.0 / seconds_per_block).max(1.0);
    // One-sided at 1 %, found in 95 of 100 cases; the signed-rank test has 95.5 % of the
    // efficiency of a mean of normal values.
    let quantiles = 2.326 + 1.645;
    let smallest_difference = (quantiles * scatter / (blocks * 0.955).sqrt()).exp_m1();
    Resolution { blocks: differences.len(), seconds_per_block, scatter, smallest_difference }
}

#[cfg(test)]
mod tests {
    use super::conclude;

    #[test]
    fn the_scatter_of_the_reference_machine_resolves_about_half_a_percent_in_ten_minutes() {
        // 4.4 % per block and half a second per block: 1200 blocks.
        let differences = [0.044, -0.044, 0.044, -0.044, 0.044, -0.044, 0.044, -0.044];
        let resolution = conclude(&differences, 0.5);
        assert!((resolution.scatter - 0.047).abs() < 0.001, "{resolution:?}");
        assert!((0.004..0.008).contains(&resolution.smallest_difference), "{resolution:?}");
    }
}
