//! Compares the placement strategies: time, search length, fragmentation, memory kept, waiting.
//!
//! ```text
//! cargo run --release -p allocator --example placement_study [-- WORKLOAD... [strategy=NAME] [threads=1|8]]
//! ```
//! A workload is `small`, `profile`, `mixed`, `adversarial`, or a file that `bench-cli trace export`
//! wrote; without any, the first four. Every strategy runs the same operations on a region of its own,
//! handed out in steps of 64 KiB, the strategies' rounds interleaved. `ci/strategies.sh` writes the
//! tables of the documentation; `tables.rs` says what the columns mean.
//!
//! `small` is the profile with 1.5 MB live, which caches hold: it shows the code. `profile` has 48 MB
//! live, freed in random order: it shows mostly cache misses, as any heap would. With
//! `ALLOCATOR_TEST_DATA` set, the profile is the production size distribution `TCMALLOC_1.csv`
//! (google/fleetbench) below 128 KiB; without it, a built-in shape of the same kind.
#![expect(clippy::print_stdout, reason = "a table is what this program is for")]

mod heap;
mod tables;
mod workload;

use std::path::Path;
use std::process::ExitCode;

use allocator::classic::{FutexLock, NoLock};
use allocator::placement::{
    BestFit, Buddy, FirstFit, FirstFitLifo, NextFit, QuickFit, Segregated, Slab, WorstFit,
};

use heap::{Outcome, alone, together};
use workload::Workload;

const ROUNDS: usize = 5;
const THREADS: usize = 8;

type Round = fn(&Workload, &mut [u8], &mut Outcome) -> Option<()>;

/// A strategy by the name of its row, alone and with eight threads.
struct Entry(&'static str, Round, Option<Round>);

macro_rules! entry {
    ($name:expr, $strategy:ty) => {
        Entry(
            $name,
            alone::<$strategy, FutexLock>,
            Some(|work, region, out| together::<$strategy, FutexLock>(work, region, THREADS, out)),
        )
    };
}

const ENTRIES: [Entry; 11] = [
    Entry("first-fit, no lock", alone::<FirstFit, NoLock>, None),
    entry!("first-fit", FirstFit),
    entry!("first-fit-lifo", FirstFitLifo),
    entry!("next-fit", NextFit),
    entry!("best-fit", BestFit),
    entry!("worst-fit", WorstFit),
    entry!("quick-fit", QuickFit),
    entry!("segregated", Segregated),
    entry!("segregated, deferred", QuickFit<Segregated>),
    entry!("buddy", Buddy),
    entry!("slab", Slab),
];

struct Row {
    name: &'static str,
    round: Round,
    region: Vec<u8>,
    outcome: Outcome,
}

/// A row with the smallest region that will do, as a side index is sized for the whole region.
fn row(work: &Workload, threads: usize, name: &'static str, round: Round) -> Row {
    let live = work.peak(|size| size as usize + 24).0 * threads;
    for tenths in [11, 12, 13, 14, 16, 20, 26, 40, 80, 160] {
        let mut region = vec![0; live * tenths / 10];
        if round(work, &mut region, &mut Outcome::default()).is_some() {
            return Row { name, round, region, outcome: Outcome::default() };
        }
    }
    panic!("{name} needs more than sixteen times what is live");
}

fn study(works: &[Workload; 2], wanted: &Wanted) {
    for threads in [1, THREADS] {
        if wanted.threads.is_some_and(|only| only != threads) {
            continue;
        }
        let work = &works[usize::from(threads > 1)];
        let entries =
            ENTRIES.iter().filter(|entry| wanted.strategy.is_none_or(|only| only == entry.0));
        let rounds = entries.filter_map(|&Entry(name, alone, together)| {
            Some((name, if threads == 1 { alone } else { together? }))
        });
        let mut rows: Vec<Row> =
            rounds.map(|(name, round)| row(work, threads, name, round)).collect();
        for _ in 0..ROUNDS {
            for row in &mut rows {
                // With several threads the order of things differs, and with it what fits.
                let more = row.region.len() / 4;
                while (row.round)(work, &mut row.region, &mut row.outcome).is_none() {
                    row.region.resize(row.region.len() + more, 0);
                }
            }
        }
        let rows = rows.iter_mut().map(|row| (row.name, &mut row.outcome));
        println!("{}", tables::table(work, threads, rows));
    }
}

/// What the command line asks for.
#[derive(Default)]
struct Wanted<'a> {
    workloads: Vec<&'a str>,
    strategy: Option<&'a str>,
    threads: Option<usize>,
}

/// A workload for one thread, and one for each of eight.
fn workloads(name: &str) -> Result<[Workload; 2], String> {
    let share = THREADS as f64;
    Ok(match name {
        "small" => [workload::profile(1.5e6), workload::profile(1.5e6 / share)],
        "profile" => [workload::profile(48e6), workload::profile(48e6 / share)],
        "mixed" => [workload::mixed(100_000), workload::mixed(100_000 / THREADS)],
        "adversarial" => [workload::adversarial(1 << 19), workload::adversarial((1 << 19) / 8)],
        file if Path::new(file).is_file() => {
            [workload::trace(file.as_ref())?, workload::trace(file.as_ref())?]
        }
        other => {
            return Err(format!(
                "no workload and no file `{other}`: small, profile, mixed, adversarial, or a trace \
                 exported by bench-cli"
            ));
        }
    })
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut wanted = Wanted::default();
    for argument in &arguments {
        match argument.split_once('=') {
            Some(("strategy", name)) => wanted.strategy = Some(name),
            Some(("threads", number)) => wanted.threads = number.parse().ok(),
            _ => wanted.workloads.push(argument),
        }
    }
    if wanted.workloads.is_empty() {
        wanted.workloads = vec!["small", "profile", "mixed", "adversarial"];
    }
    for name in &wanted.workloads {
        match workloads(name) {
            Ok(works) => study(&works, &wanted),
            Err(message) => {
                eprintln!("error: {message}");
                return ExitCode::from(2);
            }
        }
    }
    ExitCode::SUCCESS
}
