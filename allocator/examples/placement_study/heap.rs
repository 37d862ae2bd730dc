//! One heap under one workload: what it costs in time, and what becomes of its memory.

use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::Barrier;
use std::time::Instant;

use allocator::block::{FixedRegion, Policy, Strategy};
use allocator::classic::{ClassicHeap, Lock};

use crate::workload::{BATCH, Step, Workload};

/// How the heaps grow and shrink, in bytes: by 64 KiB, and back to 128 KiB above what is in use.
const POLICY: Policy = Policy { grow: 64 << 10, trim: 256 << 10, keep: 128 << 10 };

/// What rounds of one heap under one workload showed. Times are in nanoseconds, one per round.
#[derive(Clone, Default)]
pub(crate) struct Outcome {
    pub(crate) malloc: Vec<f64>,
    pub(crate) free: Vec<f64>,
    pub(crate) memory: Memory,
    /// Of the last round: lock acquisitions that waited, and nanoseconds waited per malloc and free.
    pub(crate) waits: f64,
    pub(crate) waited: f64,
}

/// What became of the memory: the same in every round of one thread.
#[derive(Clone, Copy, Default)]
pub(crate) struct Memory {
    /// Free blocks looked at per allocation.
    pub(crate) searched: f64,
    /// (usable − requested) / usable.
    pub(crate) internal: f64,
    /// (committed − usable in use) / committed.
    pub(crate) external: f64,
    /// Free bytes / committed.
    pub(crate) holes: f64,
    /// The same at the moment when most is live; of a trace on one thread.
    pub(crate) holes_at_peak: f64,
    /// Highest committed, in bytes, and over the highest sum of requested bytes.
    pub(crate) peak: usize,
    pub(crate) peak_over_live: f64,
    /// Committed after the last free / highest committed.
    pub(crate) kept: f64,
}

/// One thread's objects, and how long its calls took.
struct Player {
    objects: Vec<Option<NonNull<u8>>>,
    sizes: Vec<u32>,
    malloc: Spent,
    free: Spent,
}

#[derive(Clone, Default)]
struct Spent {
    calls: u64,
    ns: f64,
    batches: Vec<f64>,
}

impl Spent {
    fn add(&mut self, calls: usize, ns: f64) {
        self.calls += calls as u64;
        self.ns += ns;
        if calls == BATCH {
            self.batches.push(ns / calls as f64);
        }
    }
}

// SAFETY: objects are plain memory; whoever holds their address may use them.
unsafe impl Send for Player {}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

impl Player {
    fn new(work: &Workload) -> Self {
        let (objects, sizes) = (vec![None; work.slots], vec![0; work.slots]);
        Self { objects, sizes, malloc: Spent::default(), free: Spent::default() }
    }

    /// Does one step; `None` if the region is too small.
    #[inline(always)]
    fn play<P: Strategy, L: Lock>(
        &mut self,
        heap: &ClassicHeap<P, L>,
        Step { slot, size }: Step,
    ) -> Option<()> {
        let object = &mut self.objects[slot as usize];
        if size == 0 {
            if let Some(object) = object.take() {
                // SAFETY: each object is freed once.
                unsafe { heap.deallocate(object) }.expect("sound");
            }
        } else {
            let layout = Layout::from_size_align(size as usize, 16).expect("a small size");
            *object = Some(heap.allocate(layout).expect("sound")?);
        }
        self.sizes[slot as usize] = size;
        Some(())
    }

    /// Does the timed steps, frees and allocations timed in batches of their own.
    fn play_batches<P: Strategy, L: Lock>(
        &mut self,
        heap: &ClassicHeap<P, L>,
        steps: &[Step],
    ) -> Option<()> {
        for batch in steps.chunk_by(|one, next| (one.size == 0) == (next.size == 0)) {
            let start = Instant::now();
            for &step in batch {
                self.play(heap, step)?;
            }
            let ns = start.elapsed().as_nanos() as f64;
            let frees = batch.first().is_some_and(|step| step.size == 0);
            if frees { &mut self.free } else { &mut self.malloc }.add(batch.len(), ns);
        }
        Some(())
    }

    /// Does the timed steps, each timed for itself; `empty` nanoseconds are the clock's.
    fn play_singly<P: Strategy, L: Lock>(
        &mut self,
        heap: &ClassicHeap<P, L>,
        steps: &[Step],
        empty: f64,
    ) -> Option<()> {
        for &step in steps {
            let start = Instant::now();
            self.play(heap, step)?;
            let ns = start.elapsed().as_nanos() as f64 - empty;
            if step.size == 0 { &mut self.free } else { &mut self.malloc }.add(1, ns);
        }
        Some(())
    }

    fn requested(&self) -> usize {
        let live = self.objects.iter().zip(&self.sizes).filter(|(object, _)| object.is_some());
        live.map(|(_, &size)| size as usize).sum()
    }
}

/// What two readings of the clock with nothing in between come to: the median, in nanoseconds.
fn empty_reading() -> f64 {
    let mut readings: Vec<f64> = (0..10_001)
        .map(|_| {
            let start = Instant::now();
            start.elapsed().as_nanos() as f64
        })
        .collect();
    median(&mut readings)
}

/// One round on one thread; `None` if the region is too small.
///
/// Where frees and allocations alternate, the round's figure is the median batch. Elsewhere the whole
/// is timed without looking, and divided by what a second pass finds each kind of call to take.
pub(crate) fn alone<P: Strategy, L: Lock>(
    work: &Workload,
    region: &mut [u8],
    out: &mut Outcome,
) -> Option<()> {
    if work.batched {
        let mut player = Player::new(work);
        let heap = heap_over::<P, L>(region);
        work.first.iter().try_for_each(|&step| player.play(&heap, step))?;
        let searched = heap.examined();
        player.play_batches(&heap, &work.timed)?;
        out.malloc.push(median(&mut player.malloc.batches));
        out.free.push(median(&mut player.free.batches));
        out.memory = memory(&heap, work, &[player]);
        out.memory.searched = (heap.examined() - searched) as f64 / allocations(&work.timed);
        return Some(());
    }
    let mut looking = Player::new(work);
    looking.play_singly(&heap_over::<P, L>(region), &work.timed, empty_reading())?;
    let mut player = Player::new(work);
    let heap = heap_over::<P, L>(region);
    let (to_peak, rest) = work.timed.split_at(work.peak(|size| size as usize).1);
    let start = Instant::now();
    to_peak.iter().try_for_each(|&step| player.play(&heap, step))?;
    let counters = heap.counters();
    rest.iter().try_for_each(|&step| player.play(&heap, step))?;
    let whole = start.elapsed().as_nanos() as f64;
    share(whole, &[&looking], out);
    out.memory = memory(&heap, work, &[player]);
    let used = counters.overhead + counters.live_bytes;
    out.memory.holes_at_peak = (counters.committed - used) as f64 / counters.committed as f64;
    out.memory.searched = heap.examined() as f64 / allocations(&work.timed);
    Some(())
}

/// Divides the `whole` time among the calls as the players found each kind to take.
fn share(whole: f64, players: &[&Player], out: &mut Outcome) {
    let sum = |of: fn(&Player) -> (f64, u64)| {
        players.iter().map(|&player| of(player)).fold((0.0, 0), |a, b| (a.0 + b.0, a.1 + b.1))
    };
    let (malloc_ns, mallocs) = sum(|player| (player.malloc.ns, player.malloc.calls));
    let (free_ns, frees) = sum(|player| (player.free.ns, player.free.calls));
    let scale = whole / (malloc_ns + free_ns);
    out.malloc.push(malloc_ns * scale / mallocs as f64);
    out.free.push(free_ns * scale / frees as f64);
}

/// One round on `threads` threads that share the heap, each with the whole workload for itself.
///
/// Times are those of the wall: the whole, divided by the calls of all threads.
pub(crate) fn together<P: Strategy, L: Lock + Sync>(
    work: &Workload,
    region: &mut [u8],
    threads: usize,
    out: &mut Outcome,
) -> Option<()> {
    let heap = &heap_over::<P, L>(region);
    let barrier = &Barrier::new(threads);
    let empty = empty_reading();
    let played: Option<Vec<(Player, Instant, Instant)>> = std::thread::scope(|scope| {
        let play = |_| {
            scope.spawn(move || {
                let mut player = Player::new(work);
                let ready = work.first.iter().try_for_each(|&step| player.play(heap, step));
                barrier.wait();
                let start = Instant::now();
                ready?;
                if work.batched {
                    player.play_batches(heap, &work.timed)?;
                } else {
                    player.play_singly(heap, &work.timed, empty)?;
                }
                Some((player, start, Instant::now()))
            })
        };
        let running: Vec<_> = (0..threads).map(play).collect();
        running.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    let players = played?;
    let start = players.iter().map(|player| player.1).min()?;
    let end = players.iter().map(|player| player.2).max()?;
    let mut whole = (end - start).as_nanos() as f64;
    let players: Vec<Player> = players.into_iter().map(|player| player.0).collect();
    let calls: u64 = players.iter().map(|player| player.malloc.calls + player.free.calls).sum();
    if !work.batched {
        // Each thread read the clock around each call, and as many at a time as there are processors.
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        whole -= empty * calls as f64 / processors.min(threads) as f64;
    }
    share(whole, &players.iter().collect::<Vec<_>>(), out);
    let contention = heap.contention();
    out.waits = contention.waits as f64 / contention.acquisitions.max(1) as f64;
    out.waited = 2.0 * contention.wait_ns as f64 / contention.acquisitions.max(1) as f64;
    out.memory = memory(heap, work, &players);
    let all = allocations(&work.first) + allocations(&work.timed);
    out.memory.searched = heap.examined() as f64 / (all * threads as f64);
    Some(())
}

fn heap_over<P: Strategy, L: Lock>(region: &mut [u8]) -> ClassicHeap<P, L> {
    // SAFETY: callers keep the region borrowed for longer than the heap lives, and use one at a time.
    let source = unsafe { FixedRegion::new(region.as_mut_ptr(), region.len()) };
    ClassicHeap::<P, L>::new(source.in_steps(64 << 10), POLICY)
}

fn allocations(steps: &[Step]) -> f64 {
    steps.iter().filter(|step| step.size != 0).count() as f64
}

/// Reads the heap at the end of what the players did, then frees what is left.
fn memory<P: Strategy, L: Lock>(
    heap: &ClassicHeap<P, L>,
    work: &Workload,
    players: &[Player],
) -> Memory {
    let objects = || players.iter().flat_map(|player| player.objects.iter().flatten());
    let usable: usize = objects().map(|&object| heap.usable_size(object).expect("live")).sum();
    let requested: usize = players.iter().map(Player::requested).sum();
    let totals = heap.check().expect("sound");
    let counters = heap.counters();
    let committed = counters.committed as f64;
    let internal = (usable - requested) as f64 / usable as f64;
    for &object in objects() {
        // SAFETY: each object is freed once.
        unsafe { heap.deallocate(object) }.expect("sound");
    }
    Memory {
        searched: 0.0,
        holes_at_peak: 0.0,
        internal,
        external: (committed - usable as f64) / committed,
        holes: totals.free_bytes as f64 / committed,
        peak: counters.peak_committed,
        peak_over_live: counters.peak_committed as f64
            / (work.peak(|size| size as usize).0 * players.len()) as f64,
        kept: heap.counters().committed as f64 / counters.peak_committed as f64,
    }
}
