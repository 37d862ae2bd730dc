//! What the study does to every heap: sequences of frees and allocations, the same for all.
//!
//! A step names a slot and a size: the slot's object is freed first if the size is 0, else an object
//! of that size is put there. Everything random comes from fixed seeds.

use std::fs;
use std::path::Path;

/// Steps that one timing covers where frees and allocations alternate.
pub(crate) const BATCH: usize = 64;

/// Frees the slot's object (`size` 0) or allocates one for the empty slot.
#[derive(Clone, Copy)]
pub(crate) struct Step {
    pub(crate) slot: u32,
    pub(crate) size: u32,
}

/// One workload: what stands before anything is timed, then what is timed.
pub(crate) struct Workload {
    pub(crate) name: String,
    pub(crate) slots: usize,
    pub(crate) first: Vec<Step>,
    pub(crate) timed: Vec<Step>,
    /// Whether `timed` consists of frees and allocations in turn, up to `BATCH` of each, so that they
    /// can be timed apart.
    pub(crate) batched: bool,
}

impl Workload {
    /// Highest sum of `weight` over the objects that are live at once, and how many steps reach it.
    pub(crate) fn peak(&self, weight: impl Fn(u32) -> usize) -> (usize, usize) {
        let mut sizes = vec![0; self.slots];
        let (mut live, mut peak) = (0, (0, 0));
        for (number, step) in self.first.iter().chain(&self.timed).enumerate() {
            let size = &mut sizes[step.slot as usize];
            if step.size == 0 {
                live -= weight(*size);
            } else {
                live += weight(step.size);
            }
            *size = step.size;
            if live > peak.0 {
                peak = (live, number + 1);
            }
        }
        peak
    }
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
pub(crate) fn profile(live: f64) -> Workload {
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
    batched(name, &shuffled, churn)
}

/// 100,000 objects of 16 to 8191 bytes, each doubling as likely as the other, replaced at random.
pub(crate) fn mixed(count: usize) -> Workload {
    let mut numbers = Numbers(0x1234_5678);
    let mut size = || {
        let log = 4 + numbers.below(9);
        ((1usize << log) + numbers.below(1 << log)) as u32
    };
    let first: Vec<u32> = (0..count).map(|_| size()).collect();
    let sizes: Vec<u32> = (0..400_000).map(|_| size()).collect();
    let churn = sizes.into_iter().map(|size| (numbers.below(count) as u32, size));
    batched("100,000 mixed objects".into(), &first, churn)
}

/// After Robson: every second object of one size dies, then objects arrive that fit no hole.
pub(crate) fn adversarial(count: u32) -> Workload {
    let mut slots: Vec<u32> = (0..count).collect();
    let mut churn = Vec::new();
    let mut size = 24;
    for _ in 0..10 {
        let dying: Vec<u32> = slots.iter().copied().step_by(2).collect();
        let next = size * 2 + 16;
        let (old, new) = (size + 8, next + 8);
        let arrivals = dying.len() * old as usize / new as usize;
        churn.extend(
            dying.iter().enumerate().map(|(n, &slot)| (slot, if n < arrivals { next } else { 0 })),
        );
        slots = dying.into_iter().take(arrivals).collect();
        size = next;
    }
    batched("adversarial (Robson)".into(), &vec![24; count as usize], churn.into_iter())
}

/// Pairs of a slot to free and a size to put there (0: nothing), in batches that free first. A pair
/// whose slot occurs earlier in its batch is left out.
fn batched(name: String, sizes: &[u32], churn: impl Iterator<Item = (u32, u32)>) -> Workload {
    let first = sizes.iter().enumerate().map(|(slot, &size)| Step { slot: slot as u32, size });
    let mut timed: Vec<Step> = Vec::new();
    let mut batch: Vec<Step> = Vec::new();
    let mut flush = |batch: &mut Vec<Step>| {
        timed.extend(batch.iter().map(|step| Step { size: 0, ..*step }));
        timed.extend(batch.drain(..).filter(|step| step.size != 0));
    };
    for (slot, size) in churn {
        if batch.iter().all(|other| other.slot != slot) {
            batch.push(Step { slot, size });
        }
        if batch.len() == BATCH {
            flush(&mut batch);
        }
    }
    flush(&mut batch);
    Workload { name, slots: sizes.len(), first: first.collect(), timed, batched: true }
}

/// A recorded program, all its threads' calls in the order of the file: what
/// `bench-cli trace export TRACE --to csv` writes. A realloc is an allocation and a free. Requests of
/// 128 KiB and more, which a process's heap hands to mappings, are left out, and so are frees of them.
pub(crate) fn trace(file: &Path) -> Result<Workload, String> {
    let text = fs::read_to_string(file)
        .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    let mut lines = text.lines();
    if lines.next() != Some("ns,tid,op,ptr,old,size,align") {
        return Err(format!(
            "{} is no exported trace: make one with `bench-cli trace export TRACE -o FILE`",
            file.display()
        ));
    }
    let mut live = std::collections::HashMap::new();
    let (mut spare, mut slots) = (Vec::new(), 0);
    let mut timed = Vec::new();
    for (number, line) in lines.enumerate() {
        let wrong = || format!("{}, line {}: not a call: {line}", file.display(), number + 2);
        let fields: Vec<&str> = line.split(',').collect();
        let &[_, _, op, pointer, old, size, more] = fields.as_slice() else { return Err(wrong()) };
        if op.starts_with("thread") {
            continue;
        }
        // Behind the size stands an alignment, of a calloc the size of one of `size` members.
        let (gone, count) = match op {
            "free" => (pointer, 1),
            "realloc" => (old, 1),
            "calloc" => ("", more.parse().map_err(|_| wrong())?),
            _ => ("", 1),
        };
        let release = live.remove(gone);
        if !size.is_empty() {
            let size = count * size.parse::<usize>().map_err(|_| wrong())?;
            if size < (128 << 10) - 8 {
                let slot = spare.pop().unwrap_or_else(|| {
                    slots += 1;
                    slots - 1
                });
                live.insert(pointer.to_owned(), slot);
                timed.push(Step { slot, size: size.max(1) as u32 });
            }
        }
        if let Some(slot) = release {
            spare.push(slot);
            timed.push(Step { slot, size: 0 });
        }
    }
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    let name = format!("trace {name}");
    Ok(Workload { name, slots: slots as usize, first: Vec::new(), timed, batched: false })
}
