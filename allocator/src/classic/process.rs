//! `mode=classic` for a whole process: the surface that routing calls.
//!
//! Owns the one process heap. [`configure`] makes it, before the first request and once; every other
//! function here may then be called from any thread. The strategy is chosen by one `match` per call;
//! behind it everything is compiled for that strategy.
//!
//! A fault goes to [`on_fault`]'s callback if there is one, else to `fatal`: it is reported in one line
//! and the process ends, unless the program has a callback there. After a callback the call that was wrong
//! has no effect; damage that was there before the call ends the process after `fatal`'s all the same.

use core::sync::atomic::{AtomicPtr, Ordering};

use super::arenas::{Arenas, Shared};
use super::cache::{self, ThreadCache};
use super::kernel;
use super::lock::Contention;
use super::mapped::Mapped;
use super::registry::Registry;
use crate::block::{Counters, Fault, FaultKind, GRAIN, Totals};
use crate::fatal;
use crate::options::settings::{PlacementChoice, Settings};
use crate::placement::{
    BestFit, Buddy, FirstFit, FirstFitLifo, NextFit, QuickFit, Segregated, Slab, WorstFit,
};
use crate::sampling;

/// A strategy that may defer coalescing, as options decide.
type Maybe<P> = QuickFit<P, false>;

#[derive(Debug)]
enum Heaps {
    FirstFit(Arenas<Maybe<FirstFit>>),
    FirstFitLifo(Arenas<Maybe<FirstFitLifo>>),
    NextFit(Arenas<Maybe<NextFit>>),
    BestFit(Arenas<Maybe<BestFit>>),
    WorstFit(Arenas<Maybe<WorstFit>>),
    Segregated(Arenas<Maybe<Segregated>>),
    Buddy(Arenas<Buddy>),
    Slab(Arenas<Slab>),
}

/// The process heap and what it was made from.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Process {
    /// First, so that its address is the process heap's.
    shared: Shared,
    settings: Settings,
    heaps: core::mem::MaybeUninit<Heaps>,
}

macro_rules! each {
    ($process:expr, $arenas:ident => $body:expr) => {
        match $process.heaps() {
            Heaps::FirstFit($arenas) => $body,
            Heaps::FirstFitLifo($arenas) => $body,
            Heaps::NextFit($arenas) => $body,
            Heaps::BestFit($arenas) => $body,
            Heaps::WorstFit($arenas) => $body,
            Heaps::Segregated($arenas) => $body,
            Heaps::Buddy($arenas) => $body,
            Heaps::Slab($arenas) => $body,
        }
    };
}

/// What the process heap holds and what its locks saw.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot {
    /// What is in force.
    pub settings: Settings,
    /// Sums over all heaps; peaks are sums of each heap's own.
    pub counters: Counters,
    /// Blocks examined by all searches.
    pub examined: u64,
    /// All locks together.
    pub contention: Contention,
    /// Objects with a mapping of their own.
    pub mapped_objects: usize,
    /// Bytes of their mappings.
    pub mapped_bytes: usize,
    /// Highest of these bytes so far.
    pub mapped_peak: usize,
}

impl Process {
    /// A process heap in memory of its own, which stays; `None` if the kernel has none.
    pub(super) fn make(settings: &Settings, processors: usize) -> Option<&'static Self> {
        let bytes = size_of::<Self>().next_multiple_of(kernel::page());
        let at = kernel::map(bytes);
        if at == 0 {
            return None;
        }
        let place = core::ptr::with_exposed_provenance_mut::<Self>(at);
        // The registry is large and all zeros when empty, as fresh memory is: write only the rest.
        // SAFETY: a fresh mapping, page-aligned and large enough; nobody else knows of it.
        unsafe { (&raw mut (*place).shared.mapped).write(Mapped::empty()) };
        // SAFETY: as above.
        unsafe { (&raw mut (*place).settings).write(*settings) };
        // SAFETY: an all-zero registry is an empty one (a test compares them).
        let shared: &'static Shared = unsafe { &(*place).shared };
        let secret = crate::os::random_word() | 1;
        let set = *settings;
        let quick = Settings { deferred: true, ..*settings };
        let heaps = match settings.placement {
            PlacementChoice::FirstFit => {
                Heaps::FirstFit(Arenas::new(shared, set, processors, secret))
            }
            PlacementChoice::QuickFit => {
                Heaps::FirstFit(Arenas::new(shared, quick, processors, secret))
            }
            PlacementChoice::FirstFitLifo => {
                Heaps::FirstFitLifo(Arenas::new(shared, set, processors, secret))
            }
            PlacementChoice::NextFit => {
                Heaps::NextFit(Arenas::new(shared, set, processors, secret))
            }
            PlacementChoice::BestFit => {
                Heaps::BestFit(Arenas::new(shared, set, processors, secret))
            }
            PlacementChoice::WorstFit => {
                Heaps::WorstFit(Arenas::new(shared, set, processors, secret))
            }
            PlacementChoice::Segregated => {
                Heaps::Segregated(Arenas::new(shared, set, processors, secret))
            }
            PlacementChoice::Buddy => Heaps::Buddy(Arenas::new(shared, set, processors, secret)),
            PlacementChoice::Slab => Heaps::Slab(Arenas::new(shared, set, processors, secret)),
        };
        // SAFETY: as above; the last field to be written.
        unsafe { (&raw mut (*place).heaps).cast::<Heaps>().write(heaps) };
        // SAFETY: every field is initialised, and the mapping stays for good.
        let made = unsafe { &*place };
        if settings.cache
            && let Some(key) = cache::make_key(thread_ends)
        {
            each!(made, arenas => arenas.use_caches(key));
        }
        Some(made)
    }

    #[inline(always)]
    fn heaps(&self) -> &Heaps {
        // SAFETY: `make` is the only constructor and writes the field before it returns.
        unsafe { self.heaps.assume_init_ref() }
    }

    #[inline]
    pub(super) fn allocate(
        &self,
        size: usize,
        align: usize,
        zero: bool,
    ) -> Result<Option<usize>, Fault> {
        each!(self, arenas => arenas.allocate(size, align, zero))
    }

    #[inline]
    pub(super) fn free(&self, object: usize) -> Result<(), Fault> {
        each!(self, arenas => arenas.free(object))
    }

    pub(super) fn reallocate(&self, object: usize, size: usize) -> Result<Option<usize>, Fault> {
        each!(self, arenas => arenas.reallocate(object, size))
    }

    pub(super) fn usable(&self, object: usize) -> Result<usize, Fault> {
        each!(self, arenas => arenas.usable(object))
    }

    pub(super) fn owns(&self, object: usize) -> bool {
        each!(self, arenas => arenas.owns(object))
    }

    pub(super) fn check(&self) -> Result<Totals, Fault> {
        each!(self, arenas => arenas.check())
    }

    pub(super) fn trim(&self, keep: usize) -> Result<usize, Fault> {
        each!(self, arenas => arenas.trim(keep))
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let (counters, examined, contention) = each!(self, arenas => arenas.sums());
        let (mapped_objects, mapped_bytes, mapped_peak) = self.shared.mapped.counts();
        let settings = self.settings;
        Snapshot {
            settings,
            counters,
            examined,
            contention,
            mapped_objects,
            mapped_bytes,
            mapped_peak,
        }
    }

    pub(super) fn flush_cache(&self) -> Result<(), Fault> {
        each!(self, arenas => arenas.flush_cache())
    }

    /// Whether the calling thread holds a lock of ours, as in a signal handler that interrupted it.
    fn is_interrupted(&self) -> bool {
        each!(self, arenas => arenas.is_interrupted())
    }

    pub(super) fn mend(&self) {
        each!(self, arenas => arenas.mend());
    }
}

/// Empties the cache of a thread that ends, and gives its memory back.
///
/// # Safety
/// Called by libc with what the thread kept under the key of its process heap.
unsafe extern "C" fn thread_ends(kept: *mut libc::c_void) {
    let kept = kept.cast::<ThreadCache>();
    // SAFETY: the thread's own cache, whose owner is a process heap; those stay.
    let process = unsafe { &*core::ptr::with_exposed_provenance::<Process>((*kept).owner) };
    // SAFETY: the thread has no other use for it: libc has forgotten it before it calls.
    let cache = unsafe { &mut *kept };
    or_handle(each!(process, arenas => arenas.retire(cache)), ());
    // SAFETY: empty now, and unknown to its thread.
    unsafe { cache::bury(kept) };
}

static PROCESS: AtomicPtr<Process> = AtomicPtr::new(core::ptr::null_mut());
static CALLBACK: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

/// What to do about a fault instead of ending the process. It may not allocate, free or check: a lock may
/// be held.
pub type OnFault = fn(Fault);

/// Hands faults of classic mode to `callback` instead of ending the process; `None` undoes it.
/// `fatal::on_fault` does the same for all modes, but for damage that was there before the call that found
/// it.
pub fn on_fault(callback: Option<OnFault>) {
    let raw = callback.map_or(core::ptr::null_mut(), |callback| callback as *mut ());
    CALLBACK.store(raw, Ordering::Release);
}

/// Reports a fault, or hands it to the callback.
#[cold]
pub(super) fn handle(fault: Fault) {
    tell(fault, fault.kind == FaultKind::UseAfterFree);
}

/// As [`handle`]. What was `damaged` before this call stays so, and every later one would come upon it.
#[cold]
pub(super) fn tell(fault: Fault, damaged: bool) {
    let raw = CALLBACK.load(Ordering::Acquire);
    if raw.is_null() {
        let what = fault.kind.line();
        if damaged {
            fatal::report(what, fault.address, fault.size);
        }
        return fatal::fault(what, fault.address, fault.size);
    }
    // SAFETY: only `on_fault` stores here, and it stores a function of this type.
    let callback = unsafe { core::mem::transmute::<*mut (), OnFault>(raw) };
    callback(fault);
}

fn or_handle<T>(result: Result<T, Fault>, otherwise: T) -> T {
    match result {
        Ok(value) => value,
        Err(fault) => {
            handle(fault);
            otherwise
        }
    }
}

/// Makes the process heap, once. `false` if there is one already or the kernel has no memory.
///
/// `processors` bounds the number of arenas.
pub fn configure(settings: &Settings, processors: usize) -> bool {
    if is_configured() {
        return false;
    }
    let Some(made) = Process::make(settings, processors) else { return false };
    let made = core::ptr::from_ref(made).cast_mut();
    let none = core::ptr::null_mut();
    crate::lock::LINEAGE.also(mend);
    PROCESS.compare_exchange(none, made, Ordering::AcqRel, Ordering::Acquire).is_ok()
}

/// Whether [`configure`] made a heap.
#[inline(always)]
pub fn is_configured() -> bool {
    !PROCESS.load(Ordering::Acquire).is_null()
}

#[inline(always)]
fn process() -> Option<&'static Process> {
    // SAFETY: null, or a process heap that was made whole and stays.
    unsafe { PROCESS.load(Ordering::Acquire).as_ref() }
}

#[inline(always)]
fn place(size: usize, align: usize, zero: bool) -> *mut u8 {
    let Some(process) = process() else { return core::ptr::null_mut() };
    let at = match process.allocate(size, align, zero) {
        Ok(found) => found.unwrap_or(0),
        Err(fault) => {
            // A request can do nothing wrong.
            tell(fault, true);
            0
        }
    };
    if sampling::is_on() {
        sample(at, size);
    }
    core::ptr::with_exposed_provenance_mut(at)
}

/// Counts an object that was just allocated, and notes it if it is a sample.
#[cold]
#[inline(never)]
fn sample(object: usize, size: usize) {
    if object != 0 && sampling::shared_takes(size) {
        sampling::note(object, size);
    }
}

/// An object of `size` bytes at a multiple of 16; null out of memory.
pub fn allocate(size: usize) -> *mut u8 {
    place(size, GRAIN, false)
}

/// As [`allocate`], all bytes zero.
pub fn allocate_zeroed(size: usize) -> *mut u8 {
    place(size, GRAIN, true)
}

/// As [`allocate`], at a multiple of `align` (a power of two), all bytes zero if asked.
pub fn allocate_aligned(size: usize, align: usize, zero: bool) -> *mut u8 {
    place(size, align.max(GRAIN), zero)
}

/// Gives an object back; null is nothing.
///
/// # Safety
/// Nobody uses the object after this call.
pub unsafe fn deallocate(object: *mut u8) {
    if let Some(process) = process()
        && !object.is_null()
    {
        // Before the address can become somebody else's.
        sampling::forget(object.addr());
        or_handle(process.free(object.expose_provenance()), ());
    }
}

/// Makes the object hold `size` bytes, moving it if need be; null out of memory, and then it stays.
///
/// # Safety
/// If the result is not null, nobody uses the old address after this call.
pub unsafe fn reallocate(object: *mut u8, size: usize) -> *mut u8 {
    let Some(process) = process() else { return core::ptr::null_mut() };
    if object.is_null() {
        return allocate(size);
    }
    // To samples a change of size is a free and an allocation.
    let kept = sampling::take(object.addr());
    let moved = or_handle(process.reallocate(object.expose_provenance(), size), None);
    if moved.is_none() {
        sampling::restore(kept);
    } else if sampling::is_on() {
        sample(moved.unwrap_or(0), size);
    }
    core::ptr::with_exposed_provenance_mut(moved.unwrap_or(0))
}

/// Bytes that the program may use of the object; 0 for null.
pub fn usable_size(object: *mut u8) -> usize {
    match process() {
        Some(process) if !object.is_null() => {
            or_handle(process.usable(object.expose_provenance()), 0)
        }
        _ => 0,
    }
}

/// Whether the object is the process heap's.
pub fn owns(object: *mut u8) -> bool {
    process().is_some_and(|process| process.owns(object.expose_provenance()))
}

/// Walks every heap of the process.
///
/// # Errors
/// The first invariant found broken.
pub fn check() -> Result<Totals, Fault> {
    process().map_or(Ok(Totals::default()), Process::check)
}

/// Empties the calling thread's cache, then gives memory back but for `keep` bytes per region;
/// whether any was given.
pub fn trim(keep: usize) -> bool {
    process().is_some_and(|process| {
        or_handle(process.flush_cache(), ());
        or_handle(process.trim(keep), 0) > 0
    })
}

/// What the process heap holds; `None` before [`configure`].
#[must_use]
pub fn snapshot() -> Option<Snapshot> {
    process().map(Process::snapshot)
}

/// Whether the calling thread holds a lock of classic mode, as in a signal handler that interrupted it.
#[must_use]
pub fn is_interrupted() -> bool {
    process().is_some_and(Process::is_interrupted)
}

/// Called in the child of a fork, by the thread that first wants a lock.
fn mend() {
    if let Some(process) = process() {
        process.mend();
    }
}

const _: () = assert!(
    size_of::<Registry>() > 4096,
    "the registry is why `make` does not build a Process on the stack"
);
