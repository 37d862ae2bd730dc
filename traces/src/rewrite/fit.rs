//! From a trace to its [`Profile`], in one pass and in memory that does not grow with its length.
//!
//! There are at most 256 phases; when there are more, neighbours are joined and phases become twice
//! as long.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use super::profile::{
    Birth, Cell, Death, PROFILE_VERSION, Phase, Profile, TIMES_OF_BIRTH, ThreadSpan,
};
use crate::analysis::bucket_of;
use crate::event::{Event, ObjectId, Op};
use crate::import::IntMap;

const MOST_PHASES: usize = 512;
const FIRST_PHASE_CALLS: u64 = 64;
/// Sizes up to here are kept exactly.
const EXACT_SIZES: u64 = 1024;
/// Sizes from here on are large.
pub(super) const LARGE: u64 = 4096;

/// Collects a profile event by event.
pub struct Fitter {
    calls: u64,
    phase_calls: u64,
    phases: Vec<Gathered>,
    live: IntMap<u64, Live>,
    threads: BTreeMap<u32, ThreadTimes>,
    frees: BTreeMap<(u32, u32), u64>,
    last_thread: Option<u32>,
    switches: u64,
    last_ns: Option<u64>,
}

impl std::fmt::Debug for Fitter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fitter").field("calls", &self.calls).finish_non_exhaustive()
    }
}

#[derive(Clone, Copy)]
struct Live {
    thread: u32,
    born_call: u64,
    size: u64,
    birth: Birth,
    align: u64,
}

#[derive(Clone, Copy)]
struct ThreadTimes {
    first_call: u64,
    ended_call: Option<u64>,
}

/// What sort of objects a cell holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    birth: u8,
    align: u8,
    size: u16,
    /// The shortest lifetime of its range; 0 where it did not end.
    lifetime: u64,
    death: u8,
    /// For a large object 1 + in which sixteenth of its phase it was born, 0 for others: what is
    /// alive at once of large ones makes the peak.
    at: u8,
}

#[derive(Default)]
struct Gathered {
    cells: BTreeMap<Key, (u64, u64)>,
    allocations: BTreeMap<u32, u64>,
    free_null: u64,
    usable_size: u64,
    ends_ns: Option<u64>,
}

impl Gathered {
    /// This phase and the one after it as one of `phase_calls` calls.
    fn join(&mut self, other: Gathered, phase_calls: u64) {
        let half = |at: u8, later: u8| if at == 0 { 0 } else { (at - 1) / 2 + later + 1 };
        let first = std::mem::take(&mut self.cells).into_iter().map(|(key, sum)| (key, sum, 0));
        let second = other.cells.into_iter().map(|(key, sum)| (key, sum, TIMES_OF_BIRTH / 2));
        let mut cells: BTreeMap<Key, (u64, u64)> = BTreeMap::new();
        for (key, (count, bytes), later) in first.chain(second) {
            let lifetime = lifetime_range(key.lifetime, phase_calls, key.at > 0).0;
            let key = Key { lifetime, at: half(key.at, later), ..key };
            let cell = cells.entry(key).or_default();
            cell.0 += count;
            cell.1 += bytes;
        }
        self.cells = cells;
        for (thread, count) in other.allocations {
            *self.allocations.entry(thread).or_default() += count;
        }
        self.free_null += other.free_null;
        self.usable_size += other.usable_size;
        self.ends_ns = other.ends_ns.or(self.ends_ns);
    }
}

const BIRTHS: [Birth; 5] =
    [Birth::Malloc, Birth::Calloc, Birth::ReallocOfNull, Birth::Realloc, Birth::Aligned];
const DEATHS: [Death; 3] = [Death::None, Death::Free, Death::Realloc];

/// The lifetimes that are told apart from those around `calls` no further: exact up to 32 calls, then
/// quarters of an octave, but never wider than an eighth of a phase (`large`: a 64th). What dies together, however
/// long after its birth, so dies together again. Ranges of shorter phases lie within those of longer.
fn lifetime_range(calls: u64, phase_calls: u64, large: bool) -> (u64, u64) {
    if calls < 32 {
        return (calls, calls);
    }
    let width = (1 << (calls.ilog2() - 2)).min(phase_calls / if large { 64 } else { 8 }).max(1);
    let from = calls / width * width;
    (from, from + (width - 1))
}

fn size_key(size: u64) -> u16 {
    if size <= EXACT_SIZES { size as u16 } else { (EXACT_SIZES as usize + bucket_of(size)) as u16 }
}

impl Default for Fitter {
    fn default() -> Self {
        Fitter::new()
    }
}

impl Fitter {
    /// Nothing seen yet.
    #[must_use]
    pub fn new() -> Self {
        Fitter {
            calls: 0,
            phase_calls: FIRST_PHASE_CALLS,
            phases: Vec::new(),
            live: IntMap::default(),
            threads: BTreeMap::new(),
            frees: BTreeMap::new(),
            last_thread: None,
            switches: 0,
            last_ns: None,
        }
    }

    /// Takes the next event of the stream.
    pub fn observe(&mut self, event: &Event) {
        let thread = event.thread.0;
        let first_call = self.calls;
        let times =
            self.threads.entry(thread).or_insert(ThreadTimes { first_call, ended_call: None });
        match event.op {
            Op::ThreadEnd => {
                times.ended_call = Some(self.calls);
                return;
            }
            Op::ThreadStart { .. } | Op::Fork { .. } | Op::Marker { .. } | Op::Access { .. } => {
                return;
            }
            _ => {}
        }
        if matches!(event.op, Op::UsableSize { .. }) {
            // A question between two calls, which moves no lifetime.
            self.phase(self.calls).usable_size += 1;
            return;
        }
        self.calls += 1;
        self.last_ns = event.time_ns.max(self.last_ns);
        if self.last_thread.replace(thread) != Some(thread) {
            self.switches += 1;
        }
        let now = self.last_ns;
        self.phase(self.calls - 1).ends_ns = now;
        if let Some(object) = event.op.released() {
            let death =
                if matches!(event.op, Op::Free { .. }) { Death::Free } else { Death::Realloc };
            self.release(thread, object, death);
        }
        if let Op::Free { object: None, .. } = event.op {
            self.phase(self.calls - 1).free_null += 1;
        }
        if let Some(object) = event.op.born() {
            self.bear(thread, object, &event.op);
        }
    }

    fn bear(&mut self, thread: u32, object: ObjectId, op: &Op) {
        let (birth, align) = match *op {
            Op::Calloc { .. } => (Birth::Calloc, 0),
            Op::Realloc { old: None, .. } => (Birth::ReallocOfNull, 0),
            Op::Realloc { .. } => (Birth::Realloc, 0),
            Op::Aligned { align, .. } => (Birth::Aligned, align.max(1)),
            _ => (Birth::Malloc, 0),
        };
        let size = op.requested().unwrap_or(0);
        let live = Live { thread, born_call: self.calls, size, birth, align };
        self.live.insert(object.index(), live);
        *self.phase(self.calls - 1).allocations.entry(thread).or_default() += 1;
    }

    fn release(&mut self, thread: u32, object: ObjectId, death: Death) {
        let Some(live) = self.live.remove(&object.index()) else { return };
        if death == Death::Free {
            *self.frees.entry((live.thread, thread)).or_default() += 1;
        }
        self.record(live, Some(self.calls - live.born_call), death);
    }

    /// The time of birth of a large object; 0 for others.
    fn time_of_birth(&self, live: &Live) -> u8 {
        if live.size < LARGE {
            return 0;
        }
        let call = (live.born_call - 1) % self.phase_calls;
        (call * u64::from(TIMES_OF_BIRTH) / self.phase_calls) as u8 + 1
    }

    fn record(&mut self, live: Live, lifetime: Option<u64>, death: Death) {
        let at = self.time_of_birth(&live);
        let range = |calls| lifetime_range(calls, self.phase_calls, at > 0);
        let key = Key {
            birth: live.birth as u8,
            align: if live.align == 0 { 0 } else { live.align.ilog2() as u8 + 1 },
            size: size_key(live.size),
            lifetime: lifetime.map_or(0, |calls| range(calls).0),
            death: death as u8,
            at,
        };
        let cell = self.phase(live.born_call - 1).cells.entry(key).or_default();
        cell.0 += 1;
        cell.1 = cell.1.saturating_add(live.size);
    }

    /// The phase of a call, made if need be.
    fn phase(&mut self, call: u64) -> &mut Gathered {
        while call / self.phase_calls >= MOST_PHASES as u64 {
            self.phase_calls *= 2;
            let mut old = std::mem::take(&mut self.phases).into_iter();
            while let Some(mut joined) = old.next() {
                if let Some(next) = old.next() {
                    joined.join(next, self.phase_calls);
                }
                self.phases.push(joined);
            }
        }
        let index = (call / self.phase_calls) as usize;
        if self.phases.len() <= index {
            self.phases.resize_with(index + 1, Gathered::default);
        }
        &mut self.phases[index]
    }

    /// The profile of all events seen.
    #[must_use]
    pub fn finish(mut self) -> Profile {
        for (_, live) in std::mem::take(&mut self.live) {
            self.record(live, None, Death::None);
        }
        let phase_of = |call: u64| (call / self.phase_calls).min(MOST_PHASES as u64 - 1) as u32;
        // Threads are dense in a sound stream; one that was left out stands for itself.
        let number: BTreeMap<u32, u32> = self.threads.keys().copied().zip(0..).collect();
        let mut began = 0;
        let phases = self.phases.into_iter().map(|gathered| {
            let duration_ns = gathered.ends_ns.map(|end| {
                let duration = end.saturating_sub(began);
                began = end;
                duration
            });
            let renamed = gathered.allocations.iter().map(|(thread, &n)| (number[thread], n));
            Phase {
                duration_ns,
                free_null: gathered.free_null,
                usable_size: gathered.usable_size,
                allocations: renamed.collect(),
                cells: gathered.cells.into_iter().map(|all| cell(all, self.phase_calls)).collect(),
            }
        });
        Profile {
            version: PROFILE_VERSION,
            run_length: (self.calls as f64 / self.switches.max(1) as f64).max(1.0),
            phases: phases.collect(),
            threads: self
                .threads
                .values()
                .map(|times| ThreadSpan {
                    first: phase_of(times.first_call),
                    ended: times.ended_call.map(phase_of),
                })
                .collect(),
            frees: self.frees.iter().map(|(&(a, b), &n)| (number[&a], number[&b], n)).collect(),
        }
    }
}

fn cell((key, (count, bytes)): (Key, (u64, u64)), phase_calls: u64) -> Cell {
    let (from, to) =
        if key.death == 0 { (0, 0) } else { lifetime_range(key.lifetime, phase_calls, key.at > 0) };
    Cell {
        birth: BIRTHS[usize::from(key.birth)],
        align: if key.align == 0 { 0 } else { 1 << (key.align - 1) },
        size: (bytes as f64 / count as f64).round() as u64,
        from,
        to,
        death: DEATHS[usize::from(key.death)],
        count,
        at: key.at,
    }
}
