//! Ticks, their calibration and their cost.
//!
//! The time-stamp counter where it is invariant (one rate, whatever the core does), else
//! `clock_gettime`. Reads are fenced, so that an operation's time holds the operation and nothing
//! of its neighbours. Values are stored as read: subtracting the timer's cost would invent
//! operations of 0 ns, so the cost stands beside the result instead.

use serde::{Deserialize, Serialize};

/// What the timer is and how well it kept time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TimerReport {
    /// `tsc` or `clock_gettime`.
    pub source: String,
    /// Nanoseconds per tick, measured before the run.
    pub ns_per_tick_start: f64,
    /// Nanoseconds per tick, measured from the start of the run to its end.
    pub ns_per_tick_end: f64,
    /// What the shortest interval costs: two reads with nothing between them, median; 0 where nobody
    /// measured it.
    pub cost_ns: f64,
}

/// A timer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timer {
    tsc: bool,
    ns_per_tick: f64,
    /// `ns_per_tick` × 2^32.
    scale: u64,
    start_ticks: u64,
    start_ns: u64,
    cost_ns: f64,
}

/// Nanoseconds of the monotonic clock.
pub(crate) fn now_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is writable; the clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    #[expect(clippy::cast_sign_loss, reason = "a monotonic clock does not go below zero")]
    let ns = time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64;
    ns
}

#[cfg(target_arch = "x86_64")]
fn invariant_tsc() -> bool {
    use std::arch::x86_64::__cpuid;
    let highest = __cpuid(0x8000_0000).eax;
    highest >= 0x8000_0007 && __cpuid(0x8000_0007).edx & (1 << 8) != 0
}

#[cfg(not(target_arch = "x86_64"))]
fn invariant_tsc() -> bool {
    false
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn read_tsc() -> u64 {
    // SAFETY: both instructions exist on every x86-64 and touch no memory.
    unsafe {
        std::arch::x86_64::_mm_lfence();
        let ticks = std::arch::x86_64::_rdtsc();
        std::arch::x86_64::_mm_lfence();
        ticks
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn read_tsc() -> u64 {
    now_ns()
}

impl Timer {
    /// The clock as it is, read once: nothing is measured, and its cost is not known.
    pub(crate) fn uncalibrated() -> Timer {
        let mut timer = Timer {
            tsc: false,
            ns_per_tick: 1.0,
            scale: 1 << 32,
            start_ticks: 0,
            start_ns: 0,
            cost_ns: 0.0,
        };
        (timer.start_ticks, timer.start_ns) = timer.both();
        timer
    }

    /// Calibrates for about 10 ms.
    pub(crate) fn calibrate() -> Timer {
        let mut timer = Timer { tsc: invariant_tsc(), ..Timer::uncalibrated() };
        let (ticks, ns) = timer.both();
        if timer.tsc {
            while now_ns() - ns < 10_000_000 {
                std::hint::spin_loop();
            }
            let (ticks_later, ns_later) = timer.both();
            timer.set_rate((ns_later - ns) as f64 / (ticks_later - ticks).max(1) as f64);
        }
        let mut costs: Vec<u64> = (0..1001)
            .map(|_| {
                let before = timer.ticks();
                timer.ticks() - before
            })
            .collect();
        costs.sort_unstable();
        timer.cost_ns = costs[500] as f64 * timer.ns_per_tick;
        (timer.start_ticks, timer.start_ns) = timer.both();
        timer
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small rate")]
    fn set_rate(&mut self, ns_per_tick: f64) {
        self.ns_per_tick = ns_per_tick;
        self.scale = (ns_per_tick * (1_u64 << 32) as f64) as u64;
    }

    /// A reading of both clocks taken as closely together as a few tries allow.
    fn both(&self) -> (u64, u64) {
        if !self.tsc {
            let now = now_ns();
            return (now, now);
        }
        (0..5)
            .map(|_| {
                let before = now_ns();
                let ticks = self.ticks();
                let after = now_ns();
                (after - before, ticks, before + (after - before) / 2)
            })
            .min()
            .map_or((0, 0), |(_, ticks, ns)| (ticks, ns))
    }

    /// The present reading.
    #[inline(always)]
    pub(crate) fn ticks(&self) -> u64 {
        if self.tsc { read_tsc() } else { now_ns() }
    }

    /// Ticks as nanoseconds.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "intervals of less than centuries")]
    pub(crate) fn ns(&self, ticks: u64) -> u64 {
        ((u128::from(ticks) * u128::from(self.scale)) >> 32) as u64
    }

    /// What the two clocks say of each other since the start.
    pub(crate) fn report(&self) -> TimerReport {
        let (ticks, ns) = self.both();
        let passed = ticks.saturating_sub(self.start_ticks).max(1);
        TimerReport {
            source: if self.tsc { "tsc" } else { "clock_gettime" }.to_owned(),
            ns_per_tick_start: self.ns_per_tick,
            ns_per_tick_end: ns.saturating_sub(self.start_ns) as f64 / passed as f64,
            cost_ns: self.cost_ns,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_become_nanoseconds_by_the_calibrated_rate() {
        let mut timer = Timer::calibrate();
        timer.set_rate(0.5);
        assert_eq!(timer.ns(1_000_000), 500_000);
        assert_eq!(timer.ns(1 << 40), 1 << 39);
    }

    #[test]
    fn an_uncalibrated_timer_is_the_clock_and_knows_no_cost() {
        let timer = Timer::uncalibrated();
        let report = timer.report();
        assert_eq!((report.source.as_str(), report.ns_per_tick_start), ("clock_gettime", 1.0));
        assert_eq!((timer.ns(1 << 40), report.cost_ns), (1 << 40, 0.0));
    }

    #[test]
    fn the_timer_reports_a_rate_and_a_cost_that_are_not_zero() {
        let report = Timer::calibrate().report();
        assert!(report.ns_per_tick_start > 0.0 && report.cost_ns > 0.0, "{report:?}");
    }
}
