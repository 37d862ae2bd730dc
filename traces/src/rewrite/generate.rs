//! From a [`Profile`] to a trace like the one it was taken from, at any scale.
//!
//! Objects are dealt from a shuffled deck per phase, without putting back, so that counts and
//! bytes come out right and not only on average. Time runs in calls: an object whose lifetime is
//! over is freed or reallocated before anything new is allocated.
//!
//! Random choices come from ChaCha8 and a seed: the same seed makes the same trace.
#![forbid(unsafe_code)]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::choose::choose;
use super::fit::LARGE;
use super::profile::{Birth, Cell, Death, Phase, Profile, ProfileError, TIMES_OF_BIRTH};
use crate::error::TraceError;
use crate::event::{AlignedApi, Event, EventSource, ObjectId, Op, ThreadId};
use crate::import::{Census, Format, Source};

/// The most objects of one phase: their cards are held in memory.
const MOST_CARDS: f64 = (1_u64 << 28) as f64;

/// When an object dies: call, object, its thread, its size, and for a realloc how often it may wait
/// for a card that suits it, plus one.
type Due = (u64, u64, u32, u64, u8);

/// How often a large object waits for what it becomes, and for how many calls each time: its card may
/// be dealt only with the next phase.
const WAITS: (u8, u64) = (16, 4);

/// The generated trace, as a source.
pub struct Generator {
    profile: Profile,
    random: ChaCha8Rng,
    scale: f64,
    phase: usize,
    /// Objects of this phase that are still to be allocated, and to come from a `realloc`.
    fresh: Vec<Card>,
    reborn: Vec<Card>,
    /// What [`scaled`](Self::scaled) has left over.
    fraction: f64,
    null_frees: u64,
    /// `malloc_usable_size` per birth or release, in this phase.
    questions: f64,
    calls: u64,
    deaths: BinaryHeap<Reverse<Due>>,
    births: u64,
    threads: Vec<Life>,
    /// Per thread of this phase: its number, what it has still to allocate, and how many objects
    /// of the phase are dealt before it may begin.
    turns: Vec<Turn>,
    dealt: u64,
    frees: BTreeMap<u32, Vec<(u32, u64)>>,
    current: usize,
    /// The thread whose last allocation in its last phase is being made.
    leaving: Option<usize>,
    clock: Clock,
    names: u32,
    /// What is allocated next: its cell, its thread, and the calls of `free(NULL)` before it.
    next: Option<(Cell, usize, u64)>,
    /// Events that are ready, each so many times.
    out: VecDeque<(Event, u64)>,
    done: bool,
}

/// A cell of the profile: its phase and its place in it. Four bytes instead of fifty.
type Card = (u16, u32);

struct Turn {
    thread: u32,
    left: u64,
    begins: u64,
    ends_here: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Life {
    Unborn,
    Alive(ThreadId),
    Ended,
}

/// Regular times within each phase.
struct Clock {
    now: f64,
    step: Option<f64>,
}

impl std::fmt::Debug for Generator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Generator").field("calls", &self.calls).finish_non_exhaustive()
    }
}

impl Generator {
    /// A trace of `scale` times as many objects as the profile's, with the same lifetimes.
    ///
    /// # Errors
    /// A phase would hold more than 2^28 objects, or the scale is no positive number.
    pub fn new(profile: Profile, scale: f64, seed: u64) -> Result<Self, ProfileError> {
        if !(scale > 0.0 && scale.is_finite()) {
            return Err(ProfileError::Unusable(
                "cannot be scaled by anything but a positive number",
            ));
        }
        let most = |phase: &Phase| {
            phase.cells.iter().map(|cell| cell.count as f64).sum::<f64>() * scale > MOST_CARDS
        };
        if profile.phases.iter().any(most) || profile.phases.len() > usize::from(u16::MAX) {
            return Err(ProfileError::Unusable("asks for more than 2^28 objects in one phase"));
        }
        let mut frees: BTreeMap<u32, Vec<(u32, u64)>> = BTreeMap::new();
        for &(from, to, count) in &profile.frees {
            frees.entry(from).or_default().push((to, count));
        }
        let threads = vec![Life::Unborn; profile.threads.len()];
        let mut generator = Generator {
            random: ChaCha8Rng::seed_from_u64(seed),
            scale,
            phase: 0,
            fresh: Vec::new(),
            reborn: Vec::new(),
            fraction: 0.0,
            null_frees: 0,
            questions: 0.0,
            calls: 0,
            deaths: BinaryHeap::new(),
            births: 0,
            threads,
            turns: Vec::new(),
            dealt: 0,
            frees,
            current: 0,
            leaving: None,
            clock: Clock { now: 0.0, step: None },
            names: 0,
            next: None,
            out: VecDeque::new(),
            done: false,
            profile,
        };
        generator.fraction = generator.random.random();
        generator.deal();
        Ok(generator)
    }

    /// `count` at this scale. Fractions add up from one cell to the next, which is like it, so that
    /// sums come out right also where every cell holds one object; chance decides where they begin.
    fn scaled(&mut self, count: u64) -> u64 {
        let exact = count as f64 * self.scale + self.fraction;
        self.fraction = exact.fract();
        exact as u64
    }

    /// Deals the cards of the current phase.
    fn deal(&mut self) {
        let Some(phase) = self.profile.phases.get(self.phase) else { return };
        let (cells, nulls, questions) = (phase.cells.clone(), phase.free_null, phase.usable_size);
        let duration = phase.duration_ns;
        for (cell, place) in cells.iter().zip(0..) {
            let card = (self.phase as u16, place);
            let count = self.scaled(cell.count) as usize;
            let deck =
                if cell.birth == Birth::Realloc { &mut self.reborn } else { &mut self.fresh };
            deck.resize(deck.len() + count, card);
        }
        self.null_frees = self.scaled(nulls);
        self.fresh.shuffle(&mut self.random);
        self.place_large_ones();
        self.reborn.shuffle(&mut self.random);
        self.deal_turns();
        // About two calls per object: one gives it, one takes it.
        let calls = ((self.fresh.len() + self.reborn.len()) * 2).max(1) as f64;
        self.questions = questions as f64 * self.scale / calls;
        self.clock.step = duration.map(|ns| ns as f64 * self.scale / calls);
    }

    /// Moves the cards whose time of birth is known to their part of the deck, which is dealt from its
    /// end; the others stay in their random order.
    fn place_large_ones(&mut self) {
        if self.fresh.iter().all(|&card| self.cell(card).at == 0) {
            return;
        }
        let deck = std::mem::take(&mut self.fresh);
        let all = deck.len() as u64;
        let (placed, others): (Vec<Card>, Vec<Card>) =
            deck.into_iter().partition(|&card| self.cell(card).at > 0);
        let mut placed: Vec<(u64, Card)> = placed
            .into_iter()
            .map(|card| {
                let part = u64::from(TIMES_OF_BIRTH - self.cell(card).at);
                let span = all / u64::from(TIMES_OF_BIRTH);
                let within = self.random.random_range(0..=span);
                (all * part / u64::from(TIMES_OF_BIRTH) + within, card)
            })
            .collect();
        placed.sort_unstable();
        let mut placed = placed.into_iter().peekable();
        let mut others = others.into_iter();
        for position in 0..all {
            let due = placed.next_if(|&(place, _)| place <= position).map(|(_, card)| card);
            self.fresh.extend(due.or_else(|| others.next()).or_else(|| Some(placed.next()?.1)));
        }
    }

    fn cell(&self, (phase, place): Card) -> Cell {
        self.profile.phases[usize::from(phase)].cells[place as usize]
    }

    /// Makes the next call, or moves on.
    fn step(&mut self) {
        if let Some((cell, thread, nulls)) = self.next.take() {
            return self.before_birth(cell, thread, nulls);
        }
        let due = self.deaths.peek().is_some_and(|Reverse(death)| death.0 <= self.calls);
        if due || (self.fresh.is_empty() && self.phase >= self.profile.phases.len()) {
            match self.deaths.pop() {
                Some(Reverse(death)) => {
                    self.end_object(death);
                }
                None => self.done = true,
            }
        } else if let Some(card) = self.fresh.pop() {
            let cell = self.cell(card);
            let thread = self.allocating_thread();
            // Here nothing is due, so that no lifetime becomes longer.
            let left = self.fresh.len() as u64 + 1;
            let nulls = self.null_frees / left;
            let more = self.random.random_range(0..left) < self.null_frees % left;
            self.next = Some((cell, thread, nulls + u64::from(more)));
        } else {
            self.end_phase();
        }
    }

    /// Makes one of `nulls` calls of `free(NULL)`, or the object that comes after them: there may
    /// be more of them than fit in memory.
    fn before_birth(&mut self, cell: Cell, thread: usize, nulls: u64) {
        if nulls > 0 {
            self.null_frees -= 1;
            self.call(thread, Op::Free { object: None, stated_size: None });
            self.next = Some((cell, thread, nulls - 1));
            return;
        }
        self.bear(cell, thread, None);
        if let Some(thread) = self.leaving.take() {
            self.end_thread(thread);
        }
    }

    fn end_phase(&mut self) {
        let phase = self.phase as u32;
        for index in 0..self.profile.threads.len() {
            if self.profile.threads[index].first == phase && self.threads[index] == Life::Unborn {
                // It may have nothing to do but to be there.
                self.born_thread(index);
            }
            if self.profile.threads[index].ended == Some(phase) {
                self.end_thread(index);
            }
        }
        self.phase += 1;
        self.deal();
    }

    fn end_thread(&mut self, index: usize) {
        if let Life::Alive(thread) = self.threads[index] {
            let time_ns = self.clock.read();
            self.out.push_back((Event { thread, time_ns, op: Op::ThreadEnd }, 1));
            self.threads[index] = Life::Ended;
        }
    }

    fn bear(&mut self, cell: Cell, thread: usize, old: Option<ObjectId>) {
        let id = ObjectId::from_index(self.births);
        self.births += 1;
        let (object, size) = (Some(id), cell.size);
        let op = match cell.birth {
            _ if old.is_some() => Op::Realloc { old, object, size },
            Birth::Malloc => Op::Malloc { object, size },
            Birth::Calloc => Op::Calloc { object, count: 1, size },
            Birth::ReallocOfNull | Birth::Realloc => Op::Realloc { old: None, object, size },
            Birth::Aligned => {
                let align = cell.align.max(1);
                Op::Aligned { object, align, size, api: AlignedApi::Memalign }
            }
        };
        self.call(thread, op);
        self.ask(thread, id);
        if cell.death != Death::None {
            let lifetime = self.random.random_range(cell.from..=cell.to).max(1);
            let due = (self.calls - 1).saturating_add(lifetime);
            let waits = match cell.death {
                Death::Realloc if size >= LARGE => WAITS.0 + 1,
                Death::Realloc => 1,
                _ => 0,
            };
            self.deaths.push(Reverse((due, id.index(), thread as u32, size, waits)));
        }
    }

    fn end_object(&mut self, (_, object, thread, size, waits): Due) {
        let old = Some(ObjectId::from_index(object));
        let suits = |card: &Card| self.cell(*card).size >= size / 2;
        if waits > 1 && !self.fresh.is_empty() && !self.reborn.iter().any(suits) {
            self.deaths.push(Reverse((self.calls + WAITS.1, object, thread, size, waits - 1)));
            return;
        }
        if waits > 0
            && let Some(cell) = self.next_reborn(size)
        {
            let thread = self.living(thread as usize);
            self.bear(cell, thread, old);
            return;
        }
        let thread = self.freeing_thread(thread);
        self.ask(thread, ObjectId::from_index(object));
        self.call(thread, Op::Free { object: old, stated_size: None });
    }

    /// What an object of `size` bytes becomes: of a few cards the one that grows least.
    fn next_reborn(&mut self, size: u64) -> Option<Cell> {
        let count = self.reborn.len();
        // There are few large ones, and which of them becomes which makes the peak.
        let first = if size < LARGE { count.saturating_sub(8) } else { 0 };
        let looked_at = first..count;
        let grown = |index: &usize| {
            let new = self.cell(self.reborn[*index]).size;
            if new > size { new - size } else { u64::MAX - new }
        };
        let best = looked_at.min_by_key(grown)?;
        let card = self.reborn.swap_remove(best);
        Some(self.cell(card))
    }

    /// Deals the turns of the current phase: newcomers begin one after the other.
    fn deal_turns(&mut self) {
        let phase = self.phase as u32;
        let Some(Phase { allocations, .. }) = self.profile.phases.get(self.phase) else { return };
        let spans = &self.profile.threads;
        let is_new = |thread: u32| phase > 0 && spans[thread as usize].first == phase;
        let newcomers = allocations.iter().filter(|&&(thread, _)| is_new(thread)).count() as u64;
        let all = self.fresh.len() as u64;
        let mut rank = 0;
        self.dealt = 0;
        self.turns = allocations
            .iter()
            .map(|&(thread, count)| {
                rank += u64::from(is_new(thread));
                Turn {
                    thread,
                    left: (count as f64 * self.scale).ceil() as u64,
                    begins: if is_new(thread) { all * (rank - 1) / newcomers } else { 0 },
                    ends_here: spans[thread as usize].ended == Some(phase),
                }
            })
            .collect();
    }

    /// Who allocates next: mostly who did before, and each thread as often as in the profile.
    fn allocating_thread(&mut self) -> usize {
        self.dealt += 1;
        let (dealt, current) = (self.dealt, self.current as u32);
        let stays = self.random.random::<f64>() >= 1.0 / self.profile.run_length;
        let here = |turn: &Turn| turn.thread == current && turn.left > 0;
        let kept = if stays { self.turns.iter().position(here) } else { None };
        // Who ends in this phase is soon through, so that few threads are alive at once.
        let weight = |turn: &Turn| {
            let hurry = if turn.ends_here { 16 } else { 1 };
            if turn.begins < dealt { turn.left.saturating_mul(hurry) } else { 0 }
        };
        let weights = self.turns.iter().enumerate().map(|(i, turn)| (i as u32, weight(turn)));
        let chosen = match kept {
            Some(index) => Some(index),
            None => choose(&mut self.random, weights).map(|index| index as usize),
        };
        if let Some(index) = chosen {
            self.turns[index].left -= 1;
            self.current = self.turns[index].thread as usize;
            if self.turns[index].left == 0 && self.turns[index].ends_here {
                self.leaving = Some(self.current);
            }
        }
        self.current = self.living(self.current);
        self.current
    }

    /// Who frees an object of `owner`.
    fn freeing_thread(&mut self, owner: u32) -> usize {
        let (threads, spans, phase) = (&self.threads, &self.profile.threads, self.phase as u32);
        let alive = |&(thread, _): &(u32, u64)| match threads.get(thread as usize) {
            Some(Life::Alive(_)) => true,
            // It may be born to free, as some threads are.
            Some(Life::Unborn) => spans[thread as usize].first < phase,
            _ => false,
        };
        let candidates = self.frees.get(&owner).map(Vec::as_slice).unwrap_or_default();
        let chosen = choose(&mut self.random, candidates.iter().copied().filter(alive));
        self.living(chosen.unwrap_or(owner) as usize)
    }

    /// `thread`, unless it has ended: then another one that has not.
    fn living(&mut self, thread: usize) -> usize {
        match self.threads.get(thread) {
            Some(Life::Ended) | None => {
                let alive = |life: &Life| *life != Life::Ended;
                match self.threads.iter().position(alive) {
                    Some(other) => other,
                    None => {
                        self.threads.push(Life::Unborn);
                        self.threads.len() - 1
                    }
                }
            }
            Some(_) => thread,
        }
    }

    /// Asks for the size of an object, as often as it was asked in this phase.
    fn ask(&mut self, thread: usize, object: ObjectId) {
        let times =
            self.questions as u64 + u64::from(self.random.random::<f64>() < self.questions.fract());
        if times > 0 {
            let (thread, time_ns) = (self.born_thread(thread), self.clock.read());
            let op = Op::UsableSize { object: Some(object) };
            self.out.push_back((Event { thread, time_ns, op }, times));
        }
    }

    /// The thread at `index`, which is born now if it was not before.
    fn born_thread(&mut self, index: usize) -> ThreadId {
        if let Life::Alive(id) = self.threads[index] {
            return id;
        }
        let id = ThreadId(self.names);
        self.names += 1;
        self.threads[index] = Life::Alive(id);
        let time_ns = self.clock.read();
        let op = Op::ThreadStart { parent: None };
        self.out.push_back((Event { thread: id, time_ns, op }, 1));
        id
    }

    fn call(&mut self, thread: usize, op: Op) {
        let id = self.born_thread(thread);
        let time_ns = self.clock.read();
        self.out.push_back((Event { thread: id, time_ns, op }, 1));
        self.calls += 1;
        self.clock.now += self.clock.step.unwrap_or(0.0);
    }
}

impl Clock {
    fn read(&self) -> Option<u64> {
        self.step.map(|_| self.now as u64)
    }
}

impl EventSource for Generator {
    type Error = TraceError;

    fn next_event(&mut self) -> Result<Option<Event>, TraceError> {
        while self.out.is_empty() && !self.done {
            self.step();
        }
        let Some((event, times)) = self.out.front_mut() else { return Ok(None) };
        let event = *event;
        *times -= 1;
        if *times == 0 {
            self.out.pop_front();
        }
        Ok(Some(event))
    }
}

impl Source for Generator {
    fn format(&self) -> Format {
        Format::Container
    }

    fn census(&self) -> Census {
        Census::default()
    }
}
