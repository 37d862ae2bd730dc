//! `--duration`: how much of each workload takes about that long.
//!
//! The factor is found once, by trial: under the first allocator, and holds for all of them; or with
//! `--duration-for each` under every allocator, for itself. It stands in the manifest, and a run that
//! is continued takes it from there without a trial.
#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::args::RunArgs;
use super::measure;
use super::work::Work;
use crate::allocators::Allocator;
use crate::cli::Global;
use crate::error::CliError;
use crate::results;
use crate::session::Progress;
use crate::subjects::{Amount, Prepared, Settings, Subject};
use crate::worker::{self, Pass};

/// How the factors are found.
pub(super) struct Trial<'a> {
    /// How long a run is to take.
    pub target: Duration,
    pub args: &'a RunArgs,
    pub global: &'a Global,
    /// Under whom: each gets an amount of its own, which is that of all if there is only one here.
    pub allocators: &'a [Allocator],
    pub settings: &'a Settings,
    /// Where the plans go.
    pub folder: &'a Path,
}

/// A run this close to the target tells how much work makes the whole of it.
const NEAR: f64 = 0.3;
/// A short run says nothing of one more than so many times as long.
const MOST_GROWTH: f64 = 30.0;
/// A workload that takes no time at any length is not tried for ever.
const TRIALS: usize = 8;

/// Prepares every subject, a workload with the amounts of work that take the target time.
///
/// # Errors
/// As [`Subject::prepare`], and Ctrl-C.
pub(super) fn prepare(subjects: &[Subject], trial: &Trial<'_>) -> Result<Vec<Work>, CliError> {
    let workloads = subjects.iter().filter(|s| matches!(s, Subject::Workload(_))).count();
    let trials = if trial.args.resume { 0 } else { workloads * trial.allocators.len() };
    let progress = Progress::new(trials as u64, trial.global.quiet);
    let out = trial.global.out.as_deref();
    let earlier = trial.args.resume.then(|| results::earlier(out)).flatten();
    let prepared = subjects.iter().enumerate().map(|(at, subject)| {
        let Subject::Workload(spec) = subject else {
            return subject.prepare(trial.settings, trial.folder).map(Work::of_all);
        };
        let earlier = earlier.as_ref().and_then(|manifest| manifest.subjects.get(at));
        let plans = trial.allocators.iter().map(|allocator| {
            let mut plan = if trial.args.resume {
                // What is not noted there is another run, and refused before anything is measured.
                let noted = earlier.and_then(|noted| known(noted, &allocator.name));
                trial.prepare(subject, noted.unwrap_or(spec.short))?
            } else {
                progress.at(format!("how much of {} under {}", spec.name, allocator.name));
                let found = trial.find(subject, spec.short, allocator)?;
                progress.step();
                found
            };
            plan.note.length_ns = u64::try_from(trial.target.as_nanos()).ok();
            Ok(plan)
        });
        plans.collect::<Result<_, CliError>>().map(Work::of_each)
    });
    prepared.collect()
}

/// The factor that is noted for an allocator.
fn known(noted: &results::Subject, allocator: &str) -> Option<f64> {
    let own = noted.own_work.iter().find(|work| work.allocator == allocator);
    own.map_or(noted.scale, |work| work.scale)
}

impl Trial<'_> {
    fn prepare(&self, subject: &Subject, factor: f64) -> Result<Prepared, CliError> {
        let settings = Settings { amount: Amount::Times(factor), ..*self.settings };
        subject.prepare(&settings, self.folder)
    }

    /// Runs ever more of it until it takes long enough.
    fn find(
        &self,
        subject: &Subject,
        short: f64,
        allocator: &Allocator,
    ) -> Result<Prepared, CliError> {
        let mut factor = short;
        for _ in 0..TRIALS {
            let prepared = self.prepare(subject, factor)?;
            let spec = measure::cell(self.args, &prepared, allocator, Pass::Throughput);
            // An allocator that fails here fails again where it is noted.
            let Some(report) = worker::run_once(&spec)?.report else { return Ok(prepared) };
            // Removed with its folder if not now.
            let _ = fs::remove_file(&prepared.plan);
            let taken = Duration::from_nanos(report.elapsed_ns.max(1));
            factor = next(factor, taken, self.target);
            if taken.as_secs_f64() >= self.target.as_secs_f64() * NEAR {
                break;
            }
        }
        self.prepare(subject, factor)
    }
}

/// The factor to try after one that took so long.
fn next(factor: f64, taken: Duration, target: Duration) -> f64 {
    let growth = (target.as_secs_f64() / taken.as_secs_f64()).min(MOST_GROWTH);
    two_digits(factor * growth)
}

/// Rounded to what such a factor can say.
fn two_digits(factor: f64) -> f64 {
    format!("{factor:.1e}").parse().unwrap_or(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_factor_has_two_digits() {
        assert_eq!([0.012_345, 1.399_9, 37.77, 1234.0].map(two_digits), [0.012, 1.4, 38.0, 1200.0]);
    }

    #[test]
    fn the_next_factor_meets_the_target_and_grows_by_no_more_than_a_short_run_can_say() {
        let ms = Duration::from_millis;
        assert_eq!(next(0.1, ms(20), ms(100)), 0.5);
        assert_eq!(next(0.1, ms(2000), ms(20)), 0.001, "a slow one gets less at once");
        assert_eq!(next(0.1, ms(1), ms(1000)), 3.0, "30 times as much, not 1000");
    }

    #[test]
    fn a_continued_run_takes_the_factor_of_its_allocator_or_that_of_all() {
        let same = results::Subject { scale: Some(2.0), ..results::Subject::default() };
        assert_eq!(known(&same, "ours"), Some(2.0));
        let own = |allocator: &str, scale| results::OwnWork {
            allocator: allocator.to_owned(),
            scale: Some(scale),
            stream_hash: None,
            events: None,
        };
        let each = results::Subject {
            own_work: vec![own("ours", 3.0), own("system", 0.5)],
            ..results::Subject::default()
        };
        assert_eq!((known(&each, "ours"), known(&each, "system")), (Some(3.0), Some(0.5)));
        assert_eq!(known(&each, "other"), None);
    }
}
