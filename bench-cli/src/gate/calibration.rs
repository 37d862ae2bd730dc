//! What `calibrate` learned about this machine, kept where `gate` finds it.
//!
//! One file in the user's cache folder, for one machine: a calibration made on other hardware or
//! another kernel is ignored, because it says nothing here.

#![forbid(unsafe_code)]

use std::env;
use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::files;
use crate::allocators::Allocator;
use crate::error::{CliError, Exit};
use crate::results::Machine;
use crate::verdict::binomial;

/// Confidence of the bounds that are stated.
pub const CONFIDENCE: f64 = 0.95;

/// Gates of a library against itself, or against a slowed or relinked twin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Gates that ran to their end.
    pub gates: u64,
    /// Gates that failed on time.
    pub failed: u64,
    /// Gates that failed on a counted metric.
    pub failed_on_counts: u64,
    /// Gates that failed on either.
    #[serde(default)]
    pub alarms: u64,
    /// Gates that passed.
    pub passed: u64,
    /// Gates whose every cell passed in stage 1.
    pub passed_in_stage_one: u64,
    /// Gates that ended without a verdict.
    pub inconclusive: u64,
}

impl Tally {
    /// The largest rate of failures, on time or on counts, that these gates leave possible.
    #[must_use]
    pub fn at_most(&self) -> f64 {
        binomial::upper_bound(self.alarms, self.gates, CONFIDENCE)
    }

    /// The smallest rate of failures on time that these gates leave possible.
    #[must_use]
    pub fn at_least(&self) -> f64 {
        binomial::lower_bound(self.failed, self.gates, CONFIDENCE)
    }
}

/// What was learned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Where.
    pub machine: Machine,
    /// When, in UTC.
    pub measured_utc: String,
    /// The cells.
    pub cells: Vec<String>,
    /// The library against itself.
    pub alike: Tally,
    /// 95th percentile of the sizes of the differences between relinked twins, as a share;
    /// of an earlier calibration where no twin was given, `None` where there is none either.
    pub layout_floor: Option<f64>,
    /// Standard deviation of a block's difference.
    pub block_deviation: f64,
    /// Seconds that a block takes.
    pub block_seconds: f64,
}

/// What was learned on this machine, if anything was.
fn stored() -> Option<Calibration> {
    let text = fs::read(path()?).ok()?;
    let calibration: Calibration = serde_json::from_slice(&text).ok()?;
    calibration.machine.differences(&Machine::here()).is_empty().then_some(calibration)
}

/// The layout floor that was measured on this machine, if one was.
#[must_use]
pub fn stored_floor() -> Option<f64> {
    stored()?.layout_floor
}

/// Keeps the layout floor of `calibration`, and what else was learned here before.
///
/// # Errors
/// As [`store`].
pub fn store_floor(calibration: &Calibration) -> Result<PathBuf, CliError> {
    let layout_floor = calibration.layout_floor;
    match stored() {
        Some(before) => store(&Calibration { layout_floor, ..before }),
        None => store(calibration),
    }
}

/// Keeps what was learned.
///
/// # Errors
/// A cache folder that cannot be written.
pub fn store(calibration: &Calibration) -> Result<PathBuf, CliError> {
    let path = path().ok_or_else(|| {
        CliError::new(Exit::Usage, "there is no folder to keep the calibration in")
            .help("set XDG_CACHE_HOME or HOME")
    })?;
    let text = serde_json::to_vec_pretty(calibration)
        .map_err(|error| CliError::new(Exit::Internal, "a calibration").because(error))?;
    files::write_whole(&path, &text)?;
    Ok(path)
}

fn path() -> Option<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")))?;
    Some(cache.join("bench-cli").join("calibration.json"))
}

/// Hash of a library's content; of the word `system` for the C library's own allocator.
#[must_use]
pub fn library_hash(allocator: &Allocator) -> String {
    let content = allocator.preload.as_ref().map(fs::read);
    match content {
        Some(Ok(bytes)) => format!("{:016x}", fnv1a(&bytes)),
        _ => fingerprint(&allocator.name),
    }
}

/// A short name for a text: equal texts have equal names.
#[must_use]
pub fn fingerprint(text: &str) -> String {
    format!("{:016x}", fnv1a(text.as_bytes()))
}

/// 64-bit FNV-1a: tells contents apart, defends against nothing.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_alarm_in_299_gates_proves_less_than_one_per_cent() {
        let tally = Tally { gates: 299, ..Tally::default() };
        assert!(tally.at_most() < 0.01);
        assert!(Tally { gates: 298, ..tally }.at_most() > 0.01);
        assert_eq!(tally.at_least(), 0.0);
    }
}
