//! Size profiles of a fleet: CSV rows `size, allocations per second, number alive`, no header.
//!
//! A row says nothing about single lifetimes; by Little's law their mean is the number alive
//! divided by the rate, and they are taken to be exponential. Rows of more than a limit are
//! clamped to it (one published row is 120 GB), and the whole is scaled to a heap size.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::f64::consts::LN_2;
use std::fmt::Write as _;

use super::profile::{
    Birth, Cell, Death, PROFILE_VERSION, Phase, Profile, ProfileError, ThreadSpan,
};
use crate::event::{Event, ObjectId, Op};
use crate::import::IntMap;

/// One row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// Bytes.
    pub size: u64,
    /// Allocations per second.
    pub rate: f64,
    /// Objects alive on average.
    pub live: f64,
}

/// What to make of a size profile.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FleetOptions {
    /// Objects to allocate after the heap is filled.
    pub allocations: u64,
    /// Requested bytes alive, to which the profile is scaled.
    pub heap_bytes: u64,
    /// Larger sizes become this one.
    pub largest: u64,
    /// Threads that allocate, each what another one frees in a tenth of the cases.
    pub threads: u32,
}

impl Default for FleetOptions {
    fn default() -> Self {
        FleetOptions { allocations: 1_000_000, heap_bytes: 64 << 20, largest: 1 << 20, threads: 1 }
    }
}

/// Reads rows; blank lines are skipped.
///
/// # Errors
/// A line is not three numbers that can be sizes and rates.
pub fn parse(text: &str) -> Result<Vec<Row>, ProfileError> {
    let mut rows = Vec::new();
    for (line, content) in (1..).zip(text.lines()) {
        if content.trim().is_empty() {
            continue;
        }
        let fault = |reason: &str| ProfileError::Line { line, reason: reason.to_owned() };
        let mut fields = content.split(',').map(str::trim);
        let mut next = |name| fields.next().ok_or_else(|| fault(name));
        let size = next("a size was expected")?;
        let rate = next("a rate was expected")?;
        let live = next("a number of live objects was expected")?;
        let size = size.parse().map_err(|_| fault("the size is no number of bytes"))?;
        let number = |text: &str, reason| match text.parse::<f64>() {
            Ok(value) if value.is_finite() && value >= 0.0 => Ok(value),
            _ => Err(fault(reason)),
        };
        let rate = number(rate, "the rate is no number")?;
        let live = number(live, "the number of live objects is no number")?;
        rows.push(Row { size, rate, live });
    }
    if rows.is_empty() {
        return Err(ProfileError::Unusable("has no row"));
    }
    Ok(rows)
}

/// Rows as text.
#[must_use]
pub fn format(rows: &[Row]) -> String {
    let mut text = String::new();
    for row in rows {
        let _ = writeln!(text, "{}, {}, {}", row.size, row.rate, row.live);
    }
    text
}

/// Shares of an exponential distribution's lifetimes: eight equal parts, each with its range in
/// multiples of the mean.
const PARTS: [(f64, f64); 8] = [
    (0.0, 0.1335),
    (0.1335, 0.2877),
    (0.2877, 0.4700),
    (0.4700, LN_2),
    (LN_2, 0.9808),
    (0.9808, 1.3863),
    (1.3863, 2.0794),
    (2.0794, 4.0794),
];

/// A profile of steady traffic: first the heap is filled, then what dies is replaced.
///
/// # Errors
/// The rows have no rate or nothing alive.
pub fn to_profile(rows: &[Row], options: &FleetOptions) -> Result<Profile, ProfileError> {
    let size = |row: &Row| row.size.min(options.largest).max(1);
    let rate: f64 = rows.iter().map(|row| row.rate).sum();
    let live_bytes: f64 = rows.iter().map(|row| row.live * size(row) as f64).sum();
    if rate <= 0.0 || live_bytes <= 0.0 {
        return Err(ProfileError::Unusable("has no rate or nothing alive"));
    }
    let shrink = options.heap_bytes as f64 / live_bytes;
    let (mut fill, mut steady) = (Vec::new(), Vec::new());
    let mut debts = [0.0_f64; 2];
    for row in rows {
        let live = row.live * shrink;
        let allocations = row.rate / rate * options.allocations as f64;
        // Little's law, in calls: two for each allocation of any size.
        let mean = if allocations > 0.0 {
            live / allocations * options.allocations as f64 * 2.0
        } else {
            f64::INFINITY
        };
        spread(&mut fill, size(row), live, mean, &mut debts[0]);
        spread(&mut steady, size(row), allocations, mean, &mut debts[1]);
    }
    let threads = options.threads.max(1);
    let share = |cells: &[Cell]| {
        let objects: u64 = cells.iter().map(|cell| cell.count).sum();
        (0..threads).map(|thread| (thread, objects / u64::from(threads) + 1)).collect()
    };
    let phase = |cells: Vec<Cell>| Phase { allocations: share(&cells), cells, ..Phase::default() };
    let pairs = (0..threads).flat_map(|from| {
        let next = (from + 1) % threads;
        let own = (from, from, 9);
        if next == from { vec![own] } else { vec![own, (from, next, 1)] }
    });
    Ok(Profile {
        version: PROFILE_VERSION,
        run_length: 16.0,
        threads: vec![ThreadSpan { first: 0, ended: None }; threads as usize],
        frees: pairs.collect(),
        phases: vec![phase(fill), phase(steady)],
    })
}

/// Cells for `count` objects with exponential lifetimes; fractions of objects are owed to the
/// next row, so that sums come out right.
fn spread(cells: &mut Vec<Cell>, size: u64, count: f64, mean: f64, debt: &mut f64) {
    for (from, to) in PARTS {
        *debt += count / PARTS.len() as f64;
        let whole = debt.floor();
        *debt -= whole;
        if whole < 1.0 {
            continue;
        }
        let (death, from, to) = if mean.is_finite() {
            let range = [from * mean, to * mean].map(|calls| calls.round() as u64);
            (Death::Free, range[0].max(1), range[1].max(range[0]).max(1))
        } else {
            (Death::None, 0, 0)
        };
        let count = whole as u64;
        cells.push(Cell { birth: Birth::Malloc, align: 0, size, from, to, death, count, at: 0 });
    }
}

/// Collects the rows of a trace.
#[derive(Default)]
pub struct FleetFitter {
    live: IntMap<u64, (u64, u64)>,
    sizes: BTreeMap<u64, (u64, u128)>,
    calls: u64,
    last_ns: u64,
}

impl std::fmt::Debug for FleetFitter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FleetFitter").field("calls", &self.calls).finish_non_exhaustive()
    }
}

impl FleetFitter {
    /// Takes the next event of the stream.
    pub fn observe(&mut self, event: &Event) {
        self.calls += u64::from(event.op.requested().is_some() || event.op.released().is_some());
        self.last_ns = self.last_ns.max(event.time_ns.unwrap_or(0));
        if let Some(object) = event.op.released() {
            self.release(object);
        }
        if let Some(object) = event.op.born() {
            let size = event.op.requested().unwrap_or(0);
            self.live.insert(object.index(), (size, self.calls));
            self.sizes.entry(size).or_default().0 += 1;
        }
        if let Op::Free { object: None, .. } = event.op {
            self.calls += 1;
        }
    }

    fn release(&mut self, object: ObjectId) {
        if let Some((size, born)) = self.live.remove(&object.index()) {
            self.sizes.entry(size).or_default().1 += u128::from(self.calls - born);
        }
    }

    /// The rows, by size. Without times a million calls count as a second.
    #[must_use]
    pub fn finish(mut self) -> Vec<Row> {
        let alive: Vec<u64> = self.live.keys().copied().collect();
        for object in alive {
            self.release(ObjectId::from_index(object));
        }
        let seconds =
            if self.last_ns > 0 { self.last_ns as f64 / 1e9 } else { self.calls as f64 / 1e6 };
        let calls = self.calls.max(1) as f64;
        let row = |(&size, &(count, lifetimes)): (&u64, &(u64, u128))| Row {
            size,
            rate: count as f64 / seconds.max(1e-9),
            live: lifetimes as f64 / calls,
        };
        self.sizes.iter().map(row).collect()
    }
}
