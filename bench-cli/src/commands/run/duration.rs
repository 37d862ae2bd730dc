//! `--duration`: how much of each workload takes about that long. The factor is found once, under
//! the first allocator, and holds for all of them: the same work everywhere. It stands in the
//! manifest, and a run that is continued takes it from there.
#![forbid(unsafe_code)]

use std::path::Path;
use std::time::Duration;

use super::args::RunArgs;
use crate::allocators::Allocator;
use crate::cli::Global;
use crate::error::CliError;
use crate::results;
use crate::subjects::{Amount, Prepared, Settings, Subject};
use crate::worker::{self, CellSpec, Pass};

/// How the factors are found.
pub(super) struct Trial<'a> {
    /// How long a run is to take.
    pub target: Duration,
    pub args: &'a RunArgs,
    pub global: &'a Global,
    /// Under which the target is met.
    pub allocator: &'a Allocator,
}

/// A run this close to the target tells how much work makes the whole of it.
const NEAR: f64 = 0.3;
/// A short run says nothing of one more than so many times as long.
const MOST_GROWTH: f64 = 30.0;
/// A workload that takes no time at any length is not tried for ever.
const TRIALS: usize = 8;

/// Prepares every subject, a workload with the amount of work that takes the target time.
///
/// # Errors
/// As [`Subject::prepare`], and Ctrl-C.
pub(super) fn prepare(
    subjects: &[Subject],
    settings: &Settings,
    trial: &Trial<'_>,
    folder: &Path,
) -> Result<Vec<Prepared>, CliError> {
    let out = trial.global.out.as_deref();
    let earlier = trial.args.resume.then(|| results::interrupted(out)).flatten();
    let known = |at: usize| earlier.as_ref()?.subjects.get(at)?.scale;
    subjects
        .iter()
        .enumerate()
        .map(|(at, subject)| match (subject, known(at)) {
            (Subject::Trace(_), _) => subject.prepare(settings, folder),
            (Subject::Workload(_), Some(factor)) => {
                subject.prepare(&Settings { amount: Amount::Times(factor), ..*settings }, folder)
            }
            (Subject::Workload(spec), None) => find(subject, spec.short, settings, trial, folder),
        })
        .collect()
}

/// Runs ever more of it until it takes long enough.
fn find(
    subject: &Subject,
    short: f64,
    settings: &Settings,
    trial: &Trial<'_>,
    folder: &Path,
) -> Result<Prepared, CliError> {
    let target = trial.target.as_secs_f64();
    let mut factor = short;
    for _ in 0..TRIALS {
        let settings = Settings { amount: Amount::Times(factor), ..*settings };
        let prepared = subject.prepare(&settings, folder)?;
        let mut spec =
            CellSpec::new(prepared.plan.clone(), trial.allocator.clone(), Pass::Throughput);
        spec.touch = trial.args.touch.unwrap_or(prepared.touch);
        spec.copies = trial.args.copies.unwrap_or(1);
        spec.cpus = trial.args.cpus.clone().unwrap_or_default().0;
        // An allocator that fails here fails again where it is noted.
        let Some(report) = worker::run_once(&spec)?.report else { return Ok(prepared) };
        let taken = Duration::from_nanos(report.elapsed_ns.max(1)).as_secs_f64();
        let growth = (target / taken).min(MOST_GROWTH);
        factor = two_digits(factor * growth);
        if taken >= target * NEAR {
            break;
        }
    }
    subject.prepare(&Settings { amount: Amount::Times(factor), ..*settings }, folder)
}

/// Rounded to what such a factor can say.
fn two_digits(factor: f64) -> f64 {
    format!("{factor:.1e}").parse().unwrap_or(factor)
}

#[cfg(test)]
mod tests {
    use super::two_digits;

    #[test]
    fn a_factor_has_two_digits() {
        assert_eq!([0.012_345, 1.399_9, 37.77, 1234.0].map(two_digits), [0.012, 1.4, 38.0, 1200.0]);
    }
}
