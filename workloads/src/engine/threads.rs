//! Birth, end and join of plan threads.
//!
//! The plan's first thread is the caller, so that a plan of one thread runs in a process of one
//! thread. A thread is created by the thread whose stream says so, and joined by the *reaper*, a
//! thread of the harness that sleeps until one ends: stacks and thread-local heaps go back when
//! they would in the program. A thread that is born in a repeated body is a new thread of the
//! system in every repetition.

use std::ffi::c_void;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, AtomicU64, Ordering};

use super::calls::Calls;
use super::execute::Worker;
use super::footprint::Live;
use super::histogram::BUCKETS;
use super::memory::Region;
use super::observe::Observer;
use super::observe::attribution::Findings;
use super::observe::latency::LatencyPool;
use super::observe::verify::Ledger;
use super::options::EngineOptions;
use super::outcome::EngineError;
use super::program::ForkFailure;
use super::progress::{Progress, futex_wait, futex_wake};
use super::stacks::{STACK, Stacks, create};
use super::tally::Tally;
use super::timer::{Timer, now_ns};
use super::windows::{Window, Windows};
use crate::plan::{Plan, Section};

/// What belongs to one thread of the run. Zeroed memory is a valid one.
///
/// A thread of the body is born in every repetition anew, and then has the same state.
///
/// # Invariants
/// 1. From a birth until the reaper has joined the thread, `occupied` is 1; nobody is born before
///    it is 0 again, so that a state belongs to one thread at a time.
/// 2. `next` links the list of ended threads, in which a thread stands once.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub(crate) struct State {
    /// Places done, in the footprint pass.
    pub(crate) places: AtomicU64,
    handle: AtomicU64,
    occupied: AtomicU32,
    /// The stack of ours that the thread runs on, plus one; 0: one of the C library's.
    stack: AtomicU32,
    next: AtomicU32,
    /// The repetition of the body that the thread is born in.
    repetition: AtomicU32,
    /// Where the thread finds what it needs, written before it is created.
    shared: AtomicPtr<c_void>,
    tally: std::cell::UnsafeCell<Tally>,
}

// SAFETY: `tally` is written by its thread before the thread ends, and read after it was joined;
// one thread at a time by invariant 1.
unsafe impl Sync for State {}

/// What all threads of a run share.
pub(crate) struct Shared<'p> {
    pub(crate) plan: &'p Plan,
    pub(crate) options: &'p EngineOptions,
    pub(crate) repeat: u32,
    pub(crate) calls: Calls,
    pub(crate) timer: Timer,
    pub(crate) abandoned: AtomicBool,
    pub(crate) live: Live,
    pub(crate) latency: Option<LatencyPool>,
    windows: Option<Windows>,
    stacks: Option<Stacks>,
    pub(crate) ledger: Ledger,
    pub(crate) findings: Findings,
    pub(crate) start_ns: AtomicU64,
    pub(crate) peak_threads: AtomicU32,
    pub(crate) created: AtomicU32,
    alive: AtomicU32,
    gate: AtomicU32,
    failed_thread: AtomicU32,
    failed_errno: AtomicI32,
    fork_errno: AtomicI32,
    child_status: AtomicI32,
    read_errno: AtomicI32,
    progress: Region,
    states: Region,
    slots: Region,
    sizes: Option<Region>,
    stalls: Region,
    /// The thread that ended last, plus one; 0 = none that is not joined.
    ended: AtomicU32,
    ended_word: AtomicU32,
}

impl std::fmt::Debug for Shared<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("plan", &self.plan.path()).finish_non_exhaustive()
    }
}

fn region<T>(what: &'static str, count: usize) -> Result<Region, EngineError> {
    Region::array::<T>(count, true).map_err(|source| EngineError::Memory {
        what,
        bytes: (count as u64).saturating_mul(size_of::<T>() as u64),
        source,
    })
}

impl<'p> Shared<'p> {
    pub(crate) fn new(
        plan: &'p Plan,
        options: &'p EngineOptions,
        calls: Calls,
        sizes: bool,
        latency: Option<LatencyPool>,
        windows: Option<Windows>,
    ) -> Result<Self, EngineError> {
        let copies = options.copies.max(1) as usize;
        let threads = plan.threads().len() * copies;
        let slots = usize::try_from(plan.slots()).unwrap_or(usize::MAX).saturating_mul(copies);
        // Any two threads of the plan may be alive at once, and the harness has two of its own.
        let count = u32::try_from(threads + 2).unwrap_or(u32::MAX);
        let stacks =
            options.own_stacks.then(|| Stacks::new(count)).transpose().map_err(|source| {
                EngineError::Memory {
                    what: "stacks",
                    bytes: u64::from(count) * STACK as u64,
                    source,
                }
            })?;
        Ok(Shared {
            plan,
            options,
            repeat: options.repeat.unwrap_or(plan.repeat()).max(1),
            calls,
            timer: if options.calibrate { Timer::calibrate() } else { Timer::uncalibrated() },
            abandoned: AtomicBool::new(false),
            live: Live::default(),
            latency,
            windows,
            stacks,
            ledger: Ledger::default(),
            findings: Findings::default(),
            start_ns: AtomicU64::new(0),
            peak_threads: AtomicU32::new(0),
            created: AtomicU32::new(0),
            alive: AtomicU32::new(0),
            gate: AtomicU32::new(0),
            failed_thread: AtomicU32::new(0),
            failed_errno: AtomicI32::new(0),
            fork_errno: AtomicI32::new(0),
            child_status: AtomicI32::new(0),
            read_errno: AtomicI32::new(0),
            progress: region::<Progress>("counters of threads", threads)?,
            states: region::<State>("states of threads", threads)?,
            slots: region::<*mut u8>("addresses of objects", slots)?,
            sizes: sizes.then(|| region::<u64>("sizes of objects", slots)).transpose()?,
            stalls: region::<AtomicU64>("the stall histogram", BUCKETS)?,
            ended: AtomicU32::new(0),
            ended_word: AtomicU32::new(0),
        })
    }

    /// Threads of the run: those of the plan, times copies.
    pub(crate) fn threads(&self) -> usize {
        self.plan.threads().len() * self.options.copies.max(1) as usize
    }

    /// First thread of the copy that `id` belongs to.
    pub(crate) fn base(&self, id: usize) -> usize {
        id - id % self.plan.threads().len()
    }

    pub(crate) fn state(&self, id: usize) -> &State {
        assert!(id < self.threads());
        // SAFETY: the region holds `threads()` states, and zeroed memory is a valid one.
        unsafe { &*self.states.start::<State>().wrapping_add(id) }
    }

    /// The counters of all threads, `threads()` of them.
    pub(crate) fn progress(&self) -> *const Progress {
        self.progress.start()
    }

    /// The slots of a copy whose first thread is `base`.
    pub(crate) fn slots(&self, base: usize) -> *mut *mut u8 {
        self.slots.start::<*mut u8>().wrapping_add(self.first_slot(base))
    }

    /// The sizes that belong to these slots; NULL if they are not kept.
    pub(crate) fn sizes(&self, base: usize) -> *mut u64 {
        match &self.sizes {
            Some(sizes) => sizes.start::<u64>().wrapping_add(self.first_slot(base)),
            None => std::ptr::null_mut(),
        }
    }

    fn first_slot(&self, base: usize) -> usize {
        let copy = base / self.plan.threads().len();
        copy * usize::try_from(self.plan.slots()).unwrap_or(0)
    }

    pub(crate) fn stall(&self, ns: u64) {
        let bucket = super::histogram::bucket_of(ns);
        // SAFETY: the region holds BUCKETS counters; `bucket_of` is less.
        let counter = unsafe { &*self.stalls.start::<AtomicU64>().wrapping_add(bucket) };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Counters of the stall histogram, when all threads are joined.
    pub(crate) fn stall_counters(&self) -> Vec<u64> {
        // SAFETY: the region holds BUCKETS counters.
        let counters =
            unsafe { std::slice::from_raw_parts(self.stalls.start::<AtomicU64>(), BUCKETS) };
        counters.iter().map(|c| c.load(Ordering::Relaxed)).collect()
    }

    /// What thread `id` did.
    ///
    /// # Safety
    /// The thread was joined, or is the caller.
    pub(crate) unsafe fn tally(&self, id: usize) -> Tally {
        // SAFETY: by contract nobody writes any more.
        unsafe { *self.state(id).tally.get() }
    }

    /// Ends the run early: nobody waits any more.
    pub(crate) fn abandon(&self) {
        self.abandoned.store(true, Ordering::SeqCst);
        for id in 0..self.threads() {
            // SAFETY: the region holds `threads()` counters.
            unsafe { &*self.progress().wrapping_add(id) }.wake();
        }
    }

    /// Ends the run because of a fork.
    pub(crate) fn fork_failed(&self, failure: &ForkFailure) {
        match *failure {
            ForkFailure::NoChild(errno) => self.fork_errno.store(errno, Ordering::SeqCst),
            ForkFailure::Child(status) => self.child_status.store(status, Ordering::SeqCst),
        }
        self.abandon();
    }

    /// The failure that made the run end early, if one did.
    pub(crate) fn failure(&self) -> Option<EngineError> {
        let thread = self.failed_errno.load(Ordering::SeqCst);
        if thread != 0 {
            return Some(EngineError::Thread {
                thread: self.failed_thread.load(Ordering::SeqCst),
                source: io::Error::from_raw_os_error(thread),
            });
        }
        let read = self.read_errno.load(Ordering::SeqCst);
        if read != 0 {
            return Some(EngineError::Events { source: io::Error::from_raw_os_error(read) });
        }
        let child = self.child_status.load(Ordering::SeqCst);
        if child != 0 {
            return Some(EngineError::Child { status: child });
        }
        let fork = self.fork_errno.load(Ordering::SeqCst);
        (fork != 0).then(|| EngineError::Fork { source: io::Error::from_raw_os_error(fork) })
    }

    fn arrived(&self) {
        let alive = self.alive.fetch_add(1, Ordering::Relaxed) + 1;
        self.peak_threads.fetch_max(alive, Ordering::Relaxed);
    }

    /// Creates thread `id`, in a repetition of the body; on failure the run is abandoned.
    pub(crate) fn spawn<O: Observer>(&self, id: usize, repetition: u32) {
        let state = self.state(id);
        while state.occupied.swap(1, Ordering::SeqCst) != 0 {
            if self.abandoned.load(Ordering::SeqCst) {
                return;
            }
            futex_wait(&state.occupied, 1);
        }
        state.repetition.store(repetition, Ordering::SeqCst);
        state.shared.store((&raw const *self).cast_mut().cast(), Ordering::SeqCst);
        self.arrived();
        // Before the thread exists, so that it is never joined before it is counted.
        self.created.fetch_add(1, Ordering::SeqCst);
        let stack = self.stack();
        state.stack.store(stack.map_or(0, |(_, n)| n + 1), Ordering::SeqCst);
        match create(start::<O>, (&raw const *state).cast_mut().cast(), stack) {
            Ok(handle) => state.handle.store(handle, Ordering::SeqCst),
            Err(error) => {
                self.alive.fetch_sub(1, Ordering::Relaxed);
                self.created.fetch_sub(1, Ordering::SeqCst);
                self.failed_thread.store(u32::try_from(id).unwrap_or(u32::MAX), Ordering::SeqCst);
                let errno = error.raw_os_error().unwrap_or(libc::EAGAIN);
                self.failed_errno.store(errno, Ordering::SeqCst);
                self.abandon();
            }
        }
    }

    /// A stack for a thread that is about to be created, if stacks are to be ours.
    pub(crate) fn stack(&self) -> Option<(&Stacks, u32)> {
        let stacks = self.stacks.as_ref()?;
        Some((stacks, stacks.take()?))
    }

    /// Joins the thread of a state and gives its stack and the state away.
    fn join(&self, state: &State) {
        // The creator stores the handle just after the thread began.
        let mut handle = state.handle.swap(0, Ordering::SeqCst);
        while handle == 0 {
            std::thread::yield_now();
            handle = state.handle.swap(0, Ordering::SeqCst);
        }
        // SAFETY: a thread created by us and joined once, since its handle is gone.
        unsafe { libc::pthread_join(handle as libc::pthread_t, std::ptr::null_mut()) };
        let stack = state.stack.swap(0, Ordering::SeqCst).checked_sub(1);
        if let (Some(stacks), Some(n)) = (&self.stacks, stack) {
            // SAFETY: the thread that `spawn` gave it to was joined above.
            unsafe { stacks.give(n) };
        }
        state.occupied.store(0, Ordering::SeqCst);
        futex_wake(&state.occupied);
    }

    /// The repetitions of the body in which thread `id` takes part; only the present one if it
    /// was born there.
    fn repetitions(&self, id: usize) -> Range<u32> {
        if !self.plan.threads()[id % self.plan.threads().len()].in_body {
            return 0..self.repeat;
        }
        let now = self.state(id).repetition.load(Ordering::SeqCst);
        now..now + 1
    }

    /// The places that thread `id` does, now that it is born, counted over all repetitions.
    pub(crate) fn places(&self, id: usize) -> Range<u64> {
        let row = self.plan.threads()[id % self.plan.threads().len()];
        if !row.in_body {
            return 0..u64::MAX;
        }
        let Range { start, end } = self.repetitions(id);
        row.places[1] * u64::from(start)..row.places[1] * u64::from(end)
    }

    /// Executes the stream of thread `id` on the calling thread.
    fn execute<O: Observer>(&self, id: usize) {
        let mut worker = Worker::new(self, id, O::new(self, id));
        if let Err(error) = self.sections(id, &mut worker) {
            self.read_errno.store(error.raw_os_error().unwrap_or(libc::EIO), Ordering::SeqCst);
            self.abandon();
        }
        worker.tally.end_ns = now_ns();
        worker.observer.finish(self, id);
        // SAFETY: this thread alone writes its tally, and nobody reads it yet.
        unsafe { (*self.state(id).tally.get()).add(&worker.tally) };
        self.alive.fetch_sub(1, Ordering::Relaxed);
    }

    fn sections<O: Observer>(&self, id: usize, worker: &mut Worker<'_, '_, O>) -> io::Result<()> {
        let row = id % self.plan.threads().len();
        let mut window = self.windows.as_ref().map(Windows::lend).transpose()?;
        let mut section = |section, worker: &mut Worker<'_, '_, O>| {
            let buffer = window.as_mut().map(Window::words);
            self.plan.windows(row, section, buffer, |words, last| {
                // SAFETY: `Plan::check` looked at every word before the run.
                unsafe { worker.section(words, last) }
            })
        };
        section(Section::Prologue, worker)?;
        if self.plan.threads()[row].words[1] != 0 {
            worker.tally.body_start_ns = now_ns();
            for repetition in self.repetitions(id) {
                worker.repetition = repetition;
                section(Section::Body, worker)?;
            }
            worker.tally.body_end_ns = now_ns();
        }
        // A thread without a part in the body may wait for what another does in its last repetition.
        worker.repetition = self.repetitions(id).end - 1;
        section(Section::Epilogue, worker)
    }

    /// Tells the reaper that thread `id` is about to end.
    fn leave(&self, id: usize) {
        let me = u32::try_from(id + 1).unwrap_or(u32::MAX);
        let mut last = self.ended.load(Ordering::SeqCst);
        loop {
            self.state(id).next.store(last, Ordering::SeqCst);
            match self.ended.compare_exchange(last, me, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => break,
                Err(now) => last = now,
            }
        }
        self.ended_word.fetch_add(1, Ordering::SeqCst);
        futex_wake(&self.ended_word);
    }

    /// Joins every thread that ends, until nobody is left who could create another.
    fn reap(&self) {
        let mut joined = 0;
        loop {
            let word = self.ended_word.load(Ordering::SeqCst);
            let all_left = self.gate.load(Ordering::SeqCst) == 2
                && self.created.load(Ordering::SeqCst) == joined;
            if all_left {
                return;
            }
            let mut ended = self.ended.swap(0, Ordering::SeqCst) as usize;
            if ended == 0 {
                futex_wait(&self.ended_word, word);
            }
            while ended != 0 {
                let state = self.state(ended - 1);
                // Read before the state is given away.
                ended = state.next.load(Ordering::SeqCst) as usize;
                self.join(state);
                joined += 1;
            }
        }
    }

    /// Runs all threads to their end on and beside the calling thread.
    pub(crate) fn run<O: Observer>(&self) -> Result<(), EngineError> {
        let rows = self.plan.threads().len();
        if rows == 0 {
            self.start_ns.store(now_ns(), Ordering::SeqCst);
            return Ok(());
        }
        let alone = self.threads() == 1;
        let reaper = match alone {
            true => None,
            false => Some(
                create(reaper, (&raw const *self).cast_mut().cast(), self.stack())
                    .map_err(|source| EngineError::Thread { thread: 0, source })?,
            ),
        };
        for copy in 1..self.threads() / rows {
            self.spawn::<O>(copy * rows, 0);
        }
        self.arrived();
        self.start_ns.store(now_ns(), Ordering::SeqCst);
        self.gate.store(1, Ordering::SeqCst);
        futex_wake(&self.gate);
        self.execute::<O>(0);
        if let Some(reaper) = reaper {
            // Threads that only others can create are created by threads not yet joined, so the
            // reaper may leave once all that were created are joined and the first is done.
            self.gate.store(2, Ordering::SeqCst);
            self.ended_word.fetch_add(1, Ordering::SeqCst);
            futex_wake(&self.ended_word);
            // SAFETY: created above and joined once.
            unsafe { libc::pthread_join(reaper, std::ptr::null_mut()) };
        }
        self.failure().map_or(Ok(()), Err)
    }
}

extern "C" fn start<O: Observer>(argument: *mut c_void) -> *mut c_void {
    let state: *const State = argument.cast_const().cast();
    // SAFETY: `run` returns only after every thread was joined, and what threads share
    // outlives it; `spawn` stored the pointer before it created this thread.
    let shared = unsafe { (*state).shared.load(Ordering::SeqCst) };
    // SAFETY: as above; it is this run's `Shared`.
    let shared = unsafe { &*shared.cast_const().cast::<Shared<'_>>() };
    let id = (state.addr() - shared.states.start::<State>().addr()) / size_of::<State>();
    while shared.gate.load(Ordering::SeqCst) == 0 {
        futex_wait(&shared.gate, 0);
    }
    shared.execute::<O>(id);
    shared.leave(id);
    std::ptr::null_mut()
}

extern "C" fn reaper(argument: *mut c_void) -> *mut c_void {
    // SAFETY: `run` joins the reaper before it returns.
    let shared = unsafe { &*argument.cast_const().cast::<Shared<'_>>() };
    shared.reap();
    std::ptr::null_mut()
}
