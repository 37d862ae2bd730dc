//! Models of parking and adoption, explored by loom (see `sync::all_hold`): what `thread::registry`
//! does with the steps of `slab::protocol` and `bitmap::protocol`. Loom's mutex stands for its lock.

use core::ptr::null_mut;

use loom::cell::UnsafeCell;
use loom::sync::{Arc, Mutex};
use loom::thread;

use crate::bitmap::protocol::{FULL, publish, take};
use crate::slab::protocol::Queue;
use crate::sync::{AtomicU64, AtomicUsize, Model, Ordering, all_hold, each_is_needed, none_holds};

/// The heap whose thread ended, and the one that is short of spans.
const DEAD: usize = 64;
const SHORT: usize = 128;

/// A bitmap span: block i is bit i.
struct Span {
    owner: AtomicUsize,
    remote: AtomicU64,
    /// Mask of free blocks, its owner's: loom finds who else touches it.
    free: UnsafeCell<u64>,
    next: UnsafeCell<*mut Span>,
}

/// The registry, with one heap that has one span.
struct Registry {
    /// Whether the heap is in the list of parked ones.
    state: Mutex<bool>,
    /// The heap's queue, and its flag that says that it is parked.
    queue: Queue<Span>,
    /// Whether the heap lists the span. Its owner's, and the lock's while it is parked.
    lists: UnsafeCell<bool>,
    span: Span,
}

// SAFETY: what is not atomic is loom's cells, whose use from two threads at once is what loom finds.
unsafe impl Sync for Registry {}
// SAFETY: as above.
unsafe impl Send for Registry {}

impl Registry {
    fn new(parked: bool, remote: u64) -> Arc<Self> {
        let registry = Registry {
            state: Mutex::new(parked),
            queue: Queue::new(),
            lists: UnsafeCell::new(remote & FULL == 0),
            span: Span {
                owner: AtomicUsize::new(DEAD),
                remote: AtomicU64::new(remote),
                free: UnsafeCell::new(0),
                next: UnsafeCell::new(null_mut()),
            },
        };
        registry.queue.set_parked(parked);
        Arc::new(registry)
    }

    /// The span's owner notes blocks as free.
    fn gain(&self, mask: u64) {
        // SAFETY: loom tests that nobody else is at it.
        self.span.free.with_mut(|free| unsafe { *free |= mask });
    }

    /// Whoever may use the heap takes over what is queued. How many spans that was.
    fn take_over(&self) -> u32 {
        let mut spans = 0;
        let mut span = self.queue.take_all();
        while !span.is_null() {
            spans += 1;
            // SAFETY: the only node is the span, which lives as long.
            span = unsafe { (*span).next.with(|next| *next) };
            self.gain(take(&self.span.remote) & !FULL);
            // SAFETY: as in `gain`.
            self.lists.with_mut(|lists| unsafe { *lists = true });
        }
        spans
    }

    /// As `Registry::park`.
    fn park(&self) -> u32 {
        let mut state = self.state.lock().expect("no panic");
        self.queue.set_parked(true);
        *state = true;
        self.take_over()
    }

    /// As `Registry::tend`.
    fn tend(&self) -> u32 {
        let Ok(_state) = self.state.try_lock() else { return 0 };
        if self.queue.is_parked() { self.take_over() } else { 0 }
    }

    /// As `Registry::obtain` of a parked heap: whether the calling thread has it now.
    fn obtain(&self) -> bool {
        let mut state = self.state.lock().expect("no panic");
        let parked = core::mem::replace(&mut *state, false);
        if parked {
            self.queue.set_parked(false);
        }
        parked
    }

    /// As `Registry::take_bitmap`: whether the short heap has the span now. `late` names the owner
    /// only after the lock is free again.
    fn take_span(&self, late: bool) -> bool {
        let state = self.state.lock().expect("no panic");
        if !*state {
            return false;
        }
        self.take_over();
        // SAFETY: as in `gain`.
        let given = self.lists.with_mut(|lists| unsafe { core::mem::replace(&mut *lists, false) });
        if given && !late {
            self.span.owner.store(SHORT, Ordering::Relaxed);
        }
        drop(state);
        if given && late {
            self.span.owner.store(SHORT, Ordering::Relaxed);
        }
        given
    }

    /// As `thread::local::queue` after a block was freed for the heap: spans that this thread's tending
    /// took over.
    fn free_remotely(&self, number: u32) -> u32 {
        if !publish(&self.span.remote, 1 << number) {
            return 0;
        }
        // SAFETY: as in `gain`.
        let link = |head| self.span.next.with_mut(|next| unsafe { *next = head });
        self.queue.link((&raw const self.span).cast_mut(), link);
        if self.queue.is_parked() { self.tend() } else { 0 }
    }

    /// A thread whose heap is `heap` frees a block.
    fn free(&self, heap: usize, number: u32) {
        if self.span.owner.load(Ordering::Relaxed) == heap {
            self.gain(1 << number);
        } else {
            self.free_remotely(number);
        }
    }

    fn free_blocks(&self) -> u64 {
        // SAFETY: as in `gain`.
        self.span.free.with(|free| unsafe { *free })
    }
}

/// A thread parks its heap while another frees a block of it: one thread at a time is at the heap.
fn parking_and_tending_do_not_meet() {
    let registry = Registry::new(false, FULL);
    let other = registry.clone();
    let freer = thread::spawn(move || other.free_remotely(1));
    let parking = registry.park();
    let tending = freer.join().expect("no panic");
    // Who finds the lock taken leaves the span to the next one that looks.
    let later = registry.tend();
    assert_eq!(parking + tending + later, 1, "the span is taken over once");
    assert_eq!(registry.free_blocks(), 0b10, "the block came home");
}

/// A thread obtains a parked heap while another frees a block of it.
fn an_obtained_heap_is_its_threads() {
    let registry = Registry::new(true, FULL);
    let other = registry.clone();
    let freer = thread::spawn(move || other.free_remotely(1));
    assert!(registry.obtain(), "it is parked");
    let mine = registry.take_over();
    let tending = freer.join().expect("no panic");
    let later = registry.take_over();
    assert_eq!(mine + tending + later, 1, "the span is taken over once");
    assert_eq!(registry.free_blocks(), 0b10, "the block came home");
}

/// One thread takes a span of a parked heap; another obtains the heap and frees a block of the span.
fn a_span_is_given(late: bool) {
    let registry = Registry::new(true, 0);
    let other = registry.clone();
    let newcomer = thread::spawn(move || {
        let has = other.obtain();
        // A thread without a heap frees as a stranger does.
        other.free(if has { DEAD } else { 0 }, 1);
    });
    let taken = registry.take_span(late);
    if taken {
        registry.gain(0b1);
        registry.gain(take(&registry.span.remote));
    }
    newcomer.join().expect("no panic");
    if taken {
        registry.gain(take(&registry.span.remote));
        assert_eq!(registry.free_blocks(), 0b11, "both blocks came home");
    }
}

fn a_taken_span_is_the_takers() {
    a_span_is_given(false);
}

fn a_taken_span_names_its_owner_too_late() {
    a_span_is_given(true);
}

/// Two threads are short: one of them gets the span.
fn a_span_is_taken_once() {
    let registry = Registry::new(true, FULL);
    let (other, freer) = (registry.clone(), registry.clone());
    let freer = thread::spawn(move || freer.free_remotely(1));
    let taker = thread::spawn(move || other.take_span(false));
    let mine = registry.take_span(false);
    let theirs = taker.join().expect("no panic");
    assert!(!(mine && theirs), "two owners");
    freer.join().expect("no panic");
}

const MODELS: [Model; 4] = [
    ("parking_and_tending_do_not_meet", parking_and_tending_do_not_meet),
    ("an_obtained_heap_is_its_threads", an_obtained_heap_is_its_threads),
    ("a_taken_span_is_the_takers", a_taken_span_is_the_takers),
    ("a_span_is_taken_once", a_span_is_taken_once),
];

#[test]
fn every_model_holds_in_every_interleaving() {
    all_hold(&MODELS);
}

#[test]
fn every_weakened_step_is_noticed() {
    each_is_needed(&["push", "take_all"], &MODELS);
}

#[test]
fn every_wrong_order_is_noticed() {
    let late = a_taken_span_names_its_owner_too_late;
    none_holds(&[("a_taken_span_names_its_owner_too_late", late)]);
}
