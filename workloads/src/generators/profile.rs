//! Production size profiles: for each size, how often it is allocated and how many are alive.
//!
//! The table is that of google/fleetbench: `size, allocation rate, number live`, one row per size,
//! without a header. A heap of any size is made by scaling the numbers alive. Rows of objects larger
//! than `largest` are left out, and what is left makes up the whole heap.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use traces::ObjectId;

use super::distribution::Distribution;
use super::emitter::Emitter;
use super::random::Random;
use super::source::Workload;

/// One row of a profile.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProfileRow {
    /// Bytes of an object.
    pub size: u64,
    /// How often it is allocated, in any unit.
    pub rate: f64,
    /// How many are alive, in any unit.
    pub live: f64,
}

/// A profile that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The file system refused.
    #[error("cannot read `{path}`")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line is not three numbers.
    #[error("line {line} does not read `size, allocation rate, number live`: `{text}`")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What stands there.
        text: String,
    },
    /// Nothing is allocated.
    #[error("no row has an allocation rate")]
    Empty,
}

/// A heap like that of a production profile.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The table: a path, or `builtin` for one made up here.
    pub table: String,
    /// Requested bytes alive, of all workers together.
    pub heap_bytes: u64,
    /// Larger objects are left out.
    pub largest: u64,
    /// Share of objects released by another worker than the one that allocated them.
    #[serde(default)]
    pub cross: f64,
    /// Exchanges of each worker in one body.
    pub exchanges: u32,
}

/// Reads a table of `size, allocation rate, number live`.
///
/// # Errors
/// If a line is not three numbers, or nothing is allocated.
pub fn parse_table(text: &str) -> Result<Vec<ProfileRow>, ProfileError> {
    let mut rows = Vec::new();
    for (n, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let fields: Vec<f64> = line.split(',').filter_map(|f| f.trim().parse().ok()).collect();
        let good = |x: f64| x.is_finite() && x >= 0.0;
        match fields[..] {
            [size, rate, live] if good(size) && size < 2e14 && good(rate) && good(live) => {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "good"
                )]
                rows.push(ProfileRow { size: size as u64, rate, live });
            }
            _ => return Err(ProfileError::Line { line: n + 1, text: line.to_owned() }),
        }
    }
    if rows.iter().all(|row| row.rate <= 0.0) {
        return Err(ProfileError::Empty);
    }
    Ok(rows)
}

/// A table made up here, of the usual form: many small objects that come and go, few large ones
/// that stay; rates fall with size to the power of 1.2, numbers alive with its power of 1.1.
fn builtin() -> Vec<ProfileRow> {
    let mut rows = Vec::new();
    let mut size = 8;
    while size <= 4 << 20 {
        let x = size as f64;
        // Sizes that programs favour: powers of two.
        let favour = if u64::is_power_of_two(size) { 3.0 } else { 1.0 };
        rows.push(ProfileRow {
            size,
            rate: favour * super::math::pow(x, -1.2),
            live: favour * super::math::pow(x, -1.1),
        });
        size += (size / 4).next_multiple_of(8);
    }
    rows
}

impl Profile {
    /// The rows, read from the file if one is named.
    ///
    /// # Errors
    /// If the file cannot be read or is not such a table.
    pub fn rows(&self) -> Result<Vec<ProfileRow>, ProfileError> {
        if self.table == "builtin" {
            return Ok(builtin());
        }
        let path = Path::new(&self.table);
        let text = std::fs::read_to_string(path)
            .map_err(|source| ProfileError::Io { path: path.to_owned(), source })?;
        parse_table(&text)
    }
}

/// [`Profile`] at work.
#[derive(Debug)]
pub(crate) struct ProfileWorkload {
    spec: Profile,
    rows: Vec<ProfileRow>,
    /// Which row the next object belongs to.
    choice: Distribution,
    seed: u64,
    threads: u32,
    workers: Vec<Worker>,
}

#[derive(Debug)]
struct Worker {
    thread: u32,
    random: Random,
    /// Living objects by row.
    living: Vec<Vec<ObjectId>>,
}

impl ProfileWorkload {
    pub(crate) fn new(spec: Profile, seed: u64, threads: u32) -> Result<Self, ProfileError> {
        let mut rows = spec.rows()?;
        rows.retain(|row| row.size <= spec.largest && (row.rate > 0.0 || row.live > 0.0));
        let weights = rows.iter().enumerate().map(|(i, row)| ((i as u64, 1), row.rate));
        let choice =
            Distribution::from_weights("rates", weights).map_err(|_| ProfileError::Empty)?;
        Ok(ProfileWorkload { spec, rows, choice, seed, threads, workers: Vec::new() })
    }
}

impl Workload for ProfileWorkload {
    fn prologue(&mut self, out: &mut Emitter) {
        let total: f64 = self.rows.iter().map(|row| row.live * row.size as f64).sum();
        let scale = self.spec.heap_bytes as f64 / total.max(1.0) / f64::from(self.threads.max(1));
        for (n, thread) in out.workers(self.threads).into_iter().enumerate() {
            let mut random = Random::new(self.seed, n as u64);
            let mut living = vec![Vec::new(); self.rows.len()];
            let mut order = Vec::new();
            for (i, row) in self.rows.iter().enumerate() {
                let wanted = row.live * scale;
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "count"
                )]
                let whole = wanted as u32;
                // The part of an object is made up for by chance.
                let count = whole + u32::from(random.chance(wanted - f64::from(whole)));
                order.extend(std::iter::repeat_n(i, count as usize));
            }
            for i in (1..order.len()).rev() {
                order.swap(i, random.index(i + 1));
            }
            for i in order {
                living[i].push(out.malloc(thread, self.rows[i].size));
            }
            self.workers.push(Worker { thread, random, living });
        }
    }

    fn body(&mut self, out: &mut Emitter) {
        let count = self.workers.len();
        for _ in 0..self.spec.exchanges {
            for w in 0..count {
                let worker = &mut self.workers[w];
                let row = usize::try_from(self.choice.draw(&mut worker.random)).unwrap_or(0);
                let new = out.malloc(worker.thread, self.rows[row].size);
                let living = &mut worker.living[row];
                let old = match living.is_empty() {
                    true => new,
                    false => {
                        let i = worker.random.index(living.len());
                        std::mem::replace(&mut living[i], new)
                    }
                };
                let cross =
                    count > 1 && self.spec.cross > 0.0 && worker.random.chance(self.spec.cross);
                let by = if cross { (w + 1) % count } else { w };
                out.free(self.workers[by].thread, old);
            }
        }
    }

    fn epilogue(&mut self, out: &mut Emitter) {
        for worker in &mut self.workers {
            for object in worker.living.iter_mut().flat_map(|row| row.drain(..)) {
                out.free(worker.thread, object);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_and_a_line_that_is_none_is_named() {
        let rows = parse_table("8, 1.5, 2\r\n\n16,0.5,120259084288\n").unwrap();
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0], ProfileRow { size: 8, rate: 1.5, live: 2.0 });
        let error = parse_table("8,1,1\nsize,rate,live\n").unwrap_err();
        assert!(matches!(error, ProfileError::Line { line: 2, .. }), "{error}");
        assert!(matches!(parse_table("8,0,5\n"), Err(ProfileError::Empty)));
    }

    #[test]
    fn the_heap_has_the_size_that_was_asked_for() {
        let spec = Profile {
            table: "builtin".to_owned(),
            heap_bytes: 8 << 20,
            largest: 1 << 20,
            cross: 0.0,
            exchanges: 0,
        };
        let mut workload = ProfileWorkload::new(spec, 1, 2).unwrap();
        let mut out = Emitter::default();
        workload.prologue(&mut out);
        let bytes: u64 = out.events.iter().filter_map(|e| e.op.requested()).sum();
        let share = bytes as f64 / f64::from(8 << 20);
        assert!((0.8..1.2).contains(&share), "{share}");
    }
}
