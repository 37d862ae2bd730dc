//! Compares the placement strategies on one thread: time, search length, fragmentation, memory kept.
//!
//! ```text
//! cargo run --release -p allocator --example placement_study [-- small|profile|mixed|adversarial]
//! ```
//! Every strategy runs the same operations on a region of its own, handed out in steps of 64 KiB.
//! Frees and allocations are timed in batches of 64 that alternate, the strategies' rounds are
//! interleaved, and the table shows the median batch. Fragmentation is read at the end of the
//! churn, when as much is live as at the start:
//!
//! - internal = (usable − requested) / usable; the 8-byte header counts as external
//! - external = (committed − usable in use) / committed; the side index counts as external
//! - holes = free bytes / committed: what the strategy is to blame for; the rest of `external` is
//!   headers (8 bytes per object) and the side index
//! - scatter = 1 − largest free block / all free bytes
//! - kept = committed after the last free, relative to the peak
//!
//! `small` is the profile with 1.5 MB live, which caches hold: it shows the code. `profile` has 48 MB
//! live, freed in random order: it shows mostly cache misses, as any heap would.
//!
//! With `ALLOCATOR_TEST_DATA` set, the profile is the production size distribution `TCMALLOC_1.csv`
//! (google/fleetbench) below 128 KiB; without it, a built-in shape of the same kind.
#![expect(clippy::print_stdout, reason = "a table is what this program is for")]

use std::fs;
use std::path::Path;
use std::time::Instant;

use allocator::block::{FixedRegion, Policy, Strategy};
use allocator::classic::{ClassicHeap, FutexLock, Lock, NoLock};
use allocator::placement::{
    BestFit, Buddy, FirstFit, FirstFitLifo, NextFit, QuickFit, Segregated, Slab, WorstFit,
};

const BATCH: usize = 64;
const ROUNDS: usize = 5;
const POLICY: Policy = Policy { grow: 64 << 10, trim: 256 << 10, keep: 128 << 10 };

/// What to do: frees and allocations in turn, `BATCH` of each, after the first objects stand.
struct Workload {
    name: String,
    first: Vec<u32>,
    /// Slot to free, then size to allocate in its place; 0: leave it empty.
    churn: Vec<(u32, u32)>,
}

/// A small generator (xorshift64*): the same numbers everywhere.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.next()) * end as u128) >> 64) as usize
    }

    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Rows of size, allocation rate, number live.
fn profile_rows() -> (String, Vec<(f64, f64, f64)>) {
    let folder = std::env::var_os("ALLOCATOR_TEST_DATA");
    let file = folder.map(|folder| Path::new(&folder).join("TCMALLOC_1.csv"));
    if let Some(text) = file.and_then(|file| fs::read_to_string(file).ok()) {
        let rows = text.lines().filter_map(|line| {
            let mut fields = line.split(',').map(|field| field.trim().parse::<f64>());
            Some((fields.next()?.ok()?, fields.next()?.ok()?, fields.next()?.ok()?))
        });
        let rows = rows.filter(|row| row.0 >= 1.0 && row.0 < 131_072.0 - 8.0 && row.2 > 0.0);
        return ("profile TCMALLOC_1".into(), rows.collect());
    }
    // Most objects are small, most bytes are not: rates fall with size, lifetimes grow.
    let sizes = (3..17).flat_map(|log| (0..8).map(move |step| (1u32 << log) + (step << log) / 8));
    let rows = sizes.map(|size| {
        let size = f64::from(size);
        (size, 1e6 / size.powf(1.1), 1e6 / size)
    });
    ("profile (built in)".into(), rows.collect())
}

/// Each size has its own live number and rate; who is freed is drawn by rate, so lifetimes differ.
fn profile(live: f64) -> Workload {
    let (name, rows) = profile_rows();
    let bytes: f64 = rows.iter().map(|row| row.0 * row.2).sum();
    let scale = live / bytes;
    let mut numbers = Numbers(0x9e37_79b9);
    let mut first = Vec::new();
    let mut groups: Vec<(f64, Vec<u32>, u32)> = Vec::new();
    for &(size, rate, live) in &rows {
        let exact = live * scale;
        let count = exact as usize + usize::from(numbers.share() < exact.fract());
        let slots = (first.len()..first.len() + count).map(|slot| slot as u32).collect();
        first.extend(std::iter::repeat_n(size as u32, count));
        if count > 0 {
            groups.push((rate, slots, size as u32));
        }
    }
    let mut order: Vec<u32> = (0..first.len() as u32).collect();
    for index in (1..order.len()).rev() {
        order.swap(index, numbers.below(index + 1));
    }
    let mut shuffled = vec![0; first.len()];
    for (slot, &place) in order.iter().enumerate() {
        shuffled[place as usize] = first[slot];
    }
    let total: f64 = groups.iter().map(|group| group.0).sum();
    let mut sums = Vec::new();
    let mut sum = 0.0;
    for group in &groups {
        sum += group.0 / total;
        sums.push(sum);
    }
    let churn = (0..400_000).map(|_| {
        let share = numbers.share();
        let group = &groups[sums.partition_point(|&sum| sum < share).min(groups.len() - 1)];
        (order[group.1[numbers.below(group.1.len())] as usize], group.2)
    });
    Workload { name, churn: distinct(churn), first: shuffled }
}

/// Drops steps whose slot occurs earlier in the same batch: a batch frees first, then allocates.
fn distinct(steps: impl Iterator<Item = (u32, u32)>) -> Vec<(u32, u32)> {
    let mut kept: Vec<(u32, u32)> = Vec::new();
    for step in steps {
        let batch = kept.len() / BATCH * BATCH;
        if kept[batch..].iter().all(|other| other.0 != step.0) {
            kept.push(step);
        }
    }
    kept
}

fn mixed() -> Workload {
    let mut numbers = Numbers(0x1234_5678);
    let mut size = || {
        let log = 4 + numbers.below(9);
        ((1usize << log) + numbers.below(1 << log)) as u32
    };
    let first: Vec<u32> = (0..100_000).map(|_| size()).collect();
    let sizes: Vec<u32> = (0..400_000).map(|_| size()).collect();
    let churn = distinct(sizes.into_iter().map(|size| (numbers.below(100_000) as u32, size)));
    Workload { name: "100,000 mixed".into(), first, churn }
}

/// After Robson: every second object of one size dies, then objects arrive that fit no hole.
fn adversarial() -> Workload {
    let count = 1 << 19;
    let mut slots: Vec<u32> = (0..count).collect();
    let mut churn = Vec::new();
    let mut size = 24;
    for _ in 0..10 {
        let dying: Vec<u32> = slots.iter().copied().step_by(2).collect();
        let staying: Vec<u32> = slots.iter().copied().skip(1).step_by(2).collect();
        let next = size * 2 + 16;
        let (old, new) = (size + 8, next + 8);
        let arrivals = dying.len() * old as usize / new as usize;
        churn.extend(
            dying.iter().enumerate().map(|(n, &slot)| (slot, if n < arrivals { next } else { 0 })),
        );
        slots = dying.into_iter().take(arrivals).collect();
        drop(staying);
        size = next;
    }
    Workload { name: "adversarial (Robson)".into(), first: vec![24; count as usize], churn }
}

#[derive(Clone, Default)]
struct Outcome {
    malloc: Vec<f64>,
    free: Vec<f64>,
    searched: f64,
    internal: f64,
    external: f64,
    holes: f64,
    scatter: f64,
    peak: usize,
    peak_live: usize,
    kept: f64,
}

/// Runs a workload once; `None` if the region is too small.
fn run<P: Strategy, L: Lock>(work: &Workload, region: &mut [u8], out: &mut Outcome) -> Option<()> {
    // SAFETY: the region is borrowed for longer than the heap lives.
    let source = unsafe { FixedRegion::new(region.as_mut_ptr(), region.len()) };
    let heap = ClassicHeap::<P, L>::new(source.in_steps(64 << 10), POLICY);
    let layout =
        |size: u32| core::alloc::Layout::from_size_align(size as usize, 16).expect("small");
    let mut slots = Vec::with_capacity(work.first.len());
    let mut live: usize = work.first.iter().map(|&size| size as usize).sum();
    let mut sizes = work.first.clone();
    for &size in &work.first {
        slots.push(Some(heap.allocate(layout(size)).expect("sound")?));
    }
    let mut peak_live = live;
    let searched = heap.examined();
    for batch in work.churn.chunks(BATCH) {
        let start = Instant::now();
        for &(slot, _) in batch {
            if let Some(object) = slots[slot as usize].take() {
                // SAFETY: each slot's object is freed once.
                unsafe { heap.deallocate(object) }.expect("sound");
            }
        }
        let middle = Instant::now();
        for &(slot, size) in batch {
            if size != 0 && slots[slot as usize].is_none() {
                slots[slot as usize] = Some(heap.allocate(layout(size)).expect("sound")?);
            }
        }
        let end = Instant::now();
        out.free.push((middle - start).as_nanos() as f64 / batch.len() as f64);
        let allocated = batch.iter().filter(|step| step.1 != 0).count();
        if allocated == batch.len() {
            out.malloc.push((end - middle).as_nanos() as f64 / allocated as f64);
        }
        for &(slot, size) in batch {
            live = live + size as usize - sizes[slot as usize] as usize;
            sizes[slot as usize] = size;
        }
        peak_live = peak_live.max(live);
    }
    let allocations = work.churn.iter().filter(|step| step.1 != 0).count();
    out.searched = (heap.examined() - searched) as f64 / allocations as f64;
    let usable: usize =
        slots.iter().flatten().map(|&object| heap.usable_size(object).expect("live")).sum();
    let live: usize = sizes.iter().map(|&size| size as usize).sum();
    let totals = heap.check().expect("sound");
    let counters = heap.counters();
    out.internal = (usable - live) as f64 / usable as f64;
    out.external = (counters.committed - usable) as f64 / counters.committed as f64;
    out.holes = totals.free_bytes as f64 / counters.committed as f64;
    out.scatter = totals.external_fragmentation();
    (out.peak, out.peak_live) = (counters.peak_committed, peak_live);
    for object in slots.into_iter().flatten() {
        // SAFETY: each slot's object is freed once.
        unsafe { heap.deallocate(object) }.expect("sound");
    }
    out.kept = heap.counters().committed as f64 / counters.peak_committed as f64;
    Some(())
}

struct Row {
    name: &'static str,
    run: fn(&Workload, &mut [u8], &mut Outcome) -> Option<()>,
    region: Vec<u8>,
    outcome: Outcome,
}

fn rows(work: &Workload) -> Vec<Row> {
    let live: usize = work.first.iter().map(|&size| size as usize + 24).sum();
    let make = |name, run: fn(&Workload, &mut [u8], &mut Outcome) -> Option<()>| {
        // The side index is sized for the whole region, so take the smallest that does.
        for tenths in [11, 12, 13, 14, 16, 20, 26, 40, 80, 160] {
            let mut region = vec![0; live * tenths / 10];
            if run(work, &mut region, &mut Outcome::default()).is_some() {
                return Row { name, run, region, outcome: Outcome::default() };
            }
        }
        panic!("{name} needs more than sixteen times what is live");
    };
    vec![
        make("first-fit, no lock", run::<FirstFit, NoLock>),
        make("first-fit", run::<FirstFit, FutexLock>),
        make("first-fit-lifo", run::<FirstFitLifo, FutexLock>),
        make("next-fit", run::<NextFit, FutexLock>),
        make("best-fit", run::<BestFit, FutexLock>),
        make("worst-fit", run::<WorstFit, FutexLock>),
        make("quick-fit", run::<QuickFit, FutexLock>),
        make("segregated", run::<Segregated, FutexLock>),
        make("segregated, deferred", run::<QuickFit<Segregated>, FutexLock>),
        make("buddy", run::<Buddy, FutexLock>),
        make("slab", run::<Slab, FutexLock>),
    ]
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn study(work: &Workload) {
    let mut rows = rows(work);
    for _ in 0..ROUNDS {
        for row in &mut rows {
            (row.run)(work, &mut row.region, &mut row.outcome).expect("it fitted before");
        }
    }
    let live = rows.first().map_or(0, |row| row.outcome.peak_live);
    println!(
        "\n{}: {} objects at first, {:.1} MB live",
        work.name,
        work.first.len(),
        live as f64 / 1e6
    );
    println!(
        "| strategy | malloc ns | free ns | searched | internal | external | holes | scatter | peak / live | kept |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for row in &mut rows {
        let out = &mut row.outcome;
        println!(
            "| {} | {:.1} | {:.1} | {:.2} | {:.1} % | {:.1} % | {:.1} % | {:.1} % | {:.3} | {:.1} % |",
            row.name,
            median(&mut out.malloc),
            median(&mut out.free),
            out.searched,
            out.internal * 100.0,
            out.external * 100.0,
            out.holes * 100.0,
            out.scatter * 100.0,
            out.peak as f64 / out.peak_live as f64,
            out.kept * 100.0,
        );
    }
}

fn main() {
    let wanted = std::env::args().nth(1);
    type Make = fn() -> Workload;
    let works: [(&str, Make); 4] = [
        ("small", || profile(1.5e6)),
        ("profile", || profile(48e6)),
        ("mixed", mixed),
        ("adversarial", adversarial),
    ];
    for (name, make) in works {
        if wanted.as_deref().is_none_or(|wanted| wanted == name) {
            study(&make());
        }
    }
}
