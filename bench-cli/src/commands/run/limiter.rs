//! Which memory limit a run gets: none, or a share of what the reference, or the allocator itself, had
//! resident without one.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use crate::allocators::Allocator;
use crate::error::{CliError, Exit};
use crate::pressure::{self, Amount, Cgroup, Limit, Means, Pressure};
use crate::results::RunRow;
use crate::subjects::Prepared;
use crate::worker::Pass;

/// A limit, with the cgroup that has to live as long as the run under it.
pub(super) type Limited = (Limit, Option<Cgroup>);

/// The pressures of a session, and what has been seen without any.
#[derive(Debug)]
pub(super) struct Limiter {
    pressures: Vec<Pressure>,
    reference: String,
    /// Peaks by workload and allocator, and by pass: what observes has memory of its own.
    peaks: BTreeMap<(String, String), BTreeMap<String, u64>>,
}

/// Refuses limits that are a share of the reference's peak, for runs in which the reference does
/// another amount of work than the allocator that is limited.
///
/// # Errors
/// [`Exit::Usage`] with the first of them.
pub(super) fn refuse_shares_of_other_work(pressures: &[Pressure]) -> Result<(), CliError> {
    let Some(share) = pressures.iter().find(|p| matches!(p.amount, Amount::Share(_))) else {
        return Ok(());
    };
    let what = format!("pressure `{share}` cannot be had with --duration-for each");
    Err(CliError::new(Exit::Usage, what)
        .because("it is a share of the system allocator's peak, which does another amount of work")
        .help("limit by a share of its own, `own:90%`, or by bytes, `64M`; or leave --duration-for each away"))
}

impl Limiter {
    /// For `pressures`, with the system's allocator as reference where it is among `allocators`,
    /// else the first.
    ///
    /// # Errors
    /// [`Exit::Unfit`] if this machine lets us make no cgroup and one is needed.
    pub(super) fn new(pressures: &[Pressure], allocators: &[Allocator]) -> Result<Self, CliError> {
        for pressure in pressures {
            pressure::probe_means(pressure.means).map_err(|(why, help)| {
                let what = format!("pressure `{pressure}` cannot be had on this machine");
                CliError::new(Exit::Unfit, what).because(why).help(help)
            })?;
        }
        let reference = allocators.iter().find(|a| a.preload.is_none()).or(allocators.first());
        Ok(Limiter {
            pressures: pressures.to_vec(),
            reference: reference.map_or_else(String::new, |a| a.name.clone()),
            peaks: BTreeMap::new(),
        })
    }

    /// Runs of one workload and allocator: without pressure, and one with each.
    pub(super) fn variants(&self) -> usize {
        1 + self.pressures.len()
    }

    /// The word in the `pressure` column; empty for none.
    pub(super) fn name(&self, variant: usize) -> String {
        match variant.checked_sub(1) {
            None => String::new(),
            Some(index) => self.pressures[index].to_string(),
        }
    }

    /// Looks for peaks in rows.
    pub(super) fn learn(&mut self, rows: &[RunRow]) {
        for row in rows.iter().filter(|row| row.pressure.is_empty() && row.end == "completed") {
            if let Some(peak) = row.peak_rss_bytes {
                let key = (row.workload.clone(), row.allocator.clone());
                let passes = self.peaks.entry(key).or_default();
                let known = passes.entry(row.pass.clone()).or_default();
                *known = peak.max(*known);
            }
        }
    }

    /// Peak of an allocator in the pass that has least of its own, and what `pass` has beyond it.
    fn peak(&self, workload: &str, allocator: &str, pass: Pass) -> Option<(u64, u64)> {
        let passes = self.peaks.get(&(workload.to_owned(), allocator.to_owned()))?;
        let least = *passes.values().min()?;
        Some((least, passes.get(pass.name()).map_or(0, |own| own - least)))
    }

    /// Why nothing can be run under a pressure that is a share of a peak: who has that peak did not
    /// complete the workload without a limit.
    pub(super) fn why_unknown(
        &self,
        variant: usize,
        workload: &str,
        allocator: &str,
        pass: Pass,
    ) -> Option<String> {
        let pressure = &self.pressures[variant.checked_sub(1)?];
        let share = matches!(pressure.amount, Amount::Share(_) | Amount::OwnShare(_));
        (share && self.known(pressure, workload, allocator, pass).is_none()).then(|| {
            let reference = &self.reference;
            format!(
                "{workload} under `{pressure}`: {reference} did not complete it without a limit"
            )
        })
    }

    /// What `pressure` is a share of, as [`Limiter::peak`].
    fn known(
        &self,
        pressure: &Pressure,
        workload: &str,
        allocator: &str,
        pass: Pass,
    ) -> Option<(u64, u64)> {
        // Who failed without a limit fails again, as a row of its own.
        let own = match pressure.amount {
            Amount::OwnShare(_) => self.peak(workload, allocator, pass),
            _ => None,
        };
        own.or_else(|| self.peak(workload, &self.reference, pass))
    }

    /// The limit of one worker, which lifts it at its end: another one needs another. It is of use where
    /// [`Limiter::why_unknown`] says nothing.
    ///
    /// # Errors
    /// If the cgroup cannot be made, or a balloon does not fit.
    pub(super) fn limit(
        &self,
        variant: usize,
        subject: &Prepared,
        allocator: &str,
        pass: Pass,
    ) -> Result<Option<Limited>, CliError> {
        let Some(index) = variant.checked_sub(1) else { return Ok(None) };
        let pressure = &self.pressures[index];
        let known = self.known(pressure, &subject.name, allocator, pass);
        let (peak, observing) = known.unwrap_or_default();
        let bytes = match (pressure.amount, pressure.means) {
            (Amount::Count(count), _) => count,
            (_, Means::Balloon) => pressure.bytes(peak).max(4096),
            // The allocator is pressed, not what observes it.
            _ => pressure.bytes(peak).max(4096) + observing,
        };
        let group = match pressure.means {
            Means::Cgroup => Some(Cgroup::new(bytes).map_err(|refusal| {
                CliError::new(Exit::Unfit, "a memory cgroup cannot be made")
                    .because(&refusal)
                    .help(refusal.help())
            })?),
            Means::Balloon => {
                pressure::probe_balloon(bytes, peak).map_err(|why| {
                    CliError::new(Exit::Unfit, format!("pressure `{pressure}` does not fit"))
                        .because(why)
                        .help("choose a smaller balloon, or limit the run: `--pressure 80%`")
                })?;
                None
            }
            _ => None,
        };
        let cgroup = group.as_ref().map(|group| group.path().to_path_buf());
        Ok(Some((Limit { means: pressure.means, bytes, cgroup }, group)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_what_did_other_work_is_refused_and_every_other_limit_is_not() {
        let of = |texts: &[&str]| -> Vec<Pressure> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let sound = of(&["own:90%", "64M", "as:64M", "fail:3", "churn:2"]);
        assert!(refuse_shares_of_other_work(&sound).is_ok());
        for share in ["80%", "as:80%", "data:80%", "balloon:50%"] {
            let error = refuse_shares_of_other_work(&of(&["64M", share])).unwrap_err();
            assert_eq!(error.exit, Exit::Usage);
            assert!(error.what.contains(&format!("`{share}`")), "{error}");
        }
    }

    #[test]
    fn a_share_is_one_of_the_allocators_memory_and_not_of_the_histograms() {
        let row = |allocator: &str, pass: &str, mib: u64| RunRow {
            workload: "w".to_owned(),
            allocator: allocator.to_owned(),
            pass: pass.to_owned(),
            end: "completed".to_owned(),
            peak_rss_bytes: Some(mib << 20),
            ..RunRow::default()
        };
        let mut limiter = Limiter::new(&[], &[Allocator::system()]).unwrap();
        assert_eq!(limiter.peak("w", "system", Pass::Throughput), None);
        limiter.learn(&[
            row("system", "throughput", 13),
            row("system", "latency", 38),
            row("system", "throughput", 14),
            row("ours", "throughput", 3),
        ]);
        let of = |allocator, pass| limiter.peak("w", allocator, pass);
        assert_eq!(of("system", Pass::Throughput), Some((14 << 20, 0)));
        assert_eq!(of("system", Pass::Latency), Some((14 << 20, 24 << 20)));
        assert_eq!(of("system", Pass::Verify), Some((14 << 20, 0)), "not known yet");
        assert_eq!(of("ours", Pass::Throughput), Some((3 << 20, 0)));
    }

    #[test]
    fn what_nobody_completed_without_a_limit_has_no_share_and_every_other_limit_is_known() {
        let pressures: Vec<Pressure> =
            ["as:80%", "own:90%", "as:64M"].iter().map(|text| text.parse().unwrap()).collect();
        let mut limiter = Limiter::new(&pressures, &[Allocator::system()]).unwrap();
        let unknown = |limiter: &Limiter| -> Vec<bool> {
            let why = |variant| limiter.why_unknown(variant, "w", "ours", Pass::Throughput);
            (0..=3).map(|variant| why(variant).is_some()).collect()
        };
        let row = |allocator: &str, end: &str| RunRow {
            workload: "w".to_owned(),
            allocator: allocator.to_owned(),
            pass: "throughput".to_owned(),
            end: end.to_owned(),
            peak_rss_bytes: Some(1 << 20),
            ..RunRow::default()
        };
        limiter.learn(&[row("system", "crashed (SIGSEGV)")]);
        assert_eq!(unknown(&limiter), [false, true, true, false]);
        limiter.learn(&[row("ours", "completed")]);
        assert_eq!(unknown(&limiter), [false, true, false, false], "its own share is known");
        limiter.learn(&[row("system", "completed")]);
        assert_eq!(unknown(&limiter), [false; 4]);
    }
}
