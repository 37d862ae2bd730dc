//! Which memory limit a run gets: none, or a share of what the reference had resident without one.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use crate::allocators::Allocator;
use crate::error::{CliError, Exit};
use crate::pressure::{self, Amount, Cgroup, Limit, Means, Pressure};
use crate::results::RunRow;
use crate::subjects::Prepared;

/// The pressures of a session, and what has been seen without any.
#[derive(Debug)]
pub(super) struct Limiter {
    pressures: Vec<Pressure>,
    reference: String,
    /// Peak of the reference by workload.
    peaks: BTreeMap<String, u64>,
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

    /// Looks for the reference's peaks in rows.
    pub(super) fn learn(&mut self, rows: &[RunRow]) {
        for row in rows.iter().filter(|row| row.pressure.is_empty() && row.end == "completed") {
            if let (true, Some(peak)) = (row.allocator == self.reference, row.peak_rss_bytes) {
                let known = self.peaks.entry(row.workload.clone()).or_default();
                *known = peak.max(*known);
            }
        }
    }

    /// The limit of a run, with the cgroup that has to live as long as it.
    ///
    /// # Errors
    /// If the reference has no peak, or the cgroup cannot be made.
    pub(super) fn limit(
        &self,
        variant: usize,
        subject: &Prepared,
    ) -> Result<Option<(Limit, Option<Cgroup>)>, CliError> {
        let Some(index) = variant.checked_sub(1) else { return Ok(None) };
        let pressure = &self.pressures[index];
        let name = &subject.name;
        let peak = match (self.peaks.get(name), pressure.amount) {
            (Some(peak), _) => *peak,
            (None, Amount::Share(_)) => {
                let what = format!("{name} cannot be put under pressure");
                return Err(CliError::new(Exit::AllocatorFault, what)
                    .because(format!("{} did not complete it without a limit", self.reference)));
            }
            (None, _) => 0,
        };
        let bytes = match pressure.amount {
            Amount::Count(count) => count,
            _ => pressure.bytes(peak).max(4096),
        };
        let group = match pressure.means {
            Means::Cgroup => Some(Cgroup::new(bytes).map_err(|refusal| {
                CliError::new(Exit::Unfit, "a memory cgroup cannot be made").because(refusal)
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
