//! The loop over a stream.

use std::ffi::c_void;
use std::sync::atomic::Ordering;

use super::calls::SizedFree;
use super::observe::latency::OpKind;
use super::observe::{Birth, Observer};
use super::options::{Pace, Touch};
use super::program::{fork, touch};
use super::tally::Tally;
use super::threads::Shared;
use super::timer::now_ns;
use crate::plan::record::{self, aligned_parts, code, size, slot, wait_parts};

/// Less than this before an intended time, a paced thread no longer sleeps.
const SLEEP_MARGIN_NS: u64 = 100_000;

/// One thread at its stream.
pub(crate) struct Worker<'s, 'p, O> {
    shared: &'s Shared<'p>,
    calls: super::calls::Calls,
    slots: *mut *mut u8,
    sizes: *mut u64,
    base: usize,
    id: usize,
    touch: Touch,
    pace: Option<f64>,
    pub(crate) repetition: u32,
    /// The run was abandoned while this thread waited: what it waits for never comes.
    stopped: bool,
    pub(crate) observer: O,
    pub(crate) tally: Tally,
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "usize has 64 bits wherever this runs")]
fn bytes(size: u64) -> usize {
    size as usize
}

impl<'s, 'p, O: Observer> Worker<'s, 'p, O> {
    pub(crate) fn new(shared: &'s Shared<'p>, id: usize, observer: O) -> Self {
        let base = shared.base(id);
        let null = shared.calls.null;
        Worker {
            shared,
            calls: shared.calls,
            slots: shared.slots(base),
            sizes: shared.sizes(base),
            base,
            id,
            touch: if null { Touch::None } else { shared.options.touch },
            pace: match shared.options.pace {
                Pace::Asap => None,
                Pace::Paced(k) => Some(k),
            },
            repetition: 0,
            stopped: false,
            observer,
            tally: Tally::default(),
        }
    }

    /// Executes words of the stream, and says how many: all if they are the `last` of their
    /// section, else all but a last one that may belong to the next window, and none if the run
    /// was abandoned.
    ///
    /// # Safety
    /// `Plan::check` accepted the plan that `words` is a part of: slots and threads are in
    /// range, no operation lacks its second word. Waits of the plan keep two threads from using
    /// one slot at a time.
    #[inline(never)]
    pub(crate) unsafe fn section(&mut self, words: &[u64], last: bool) -> usize {
        if self.stopped || words.is_empty() {
            return 0;
        }
        let mut next = words.as_ptr();
        let end = words.as_ptr_range().end.wrapping_sub(usize::from(!last));
        while next < end {
            // SAFETY: `next` is within `words`.
            let word = unsafe { *next };
            next = next.wrapping_add(1);
            // The two commonest calls first: a predicted branch is cheaper than a table.
            if code(word) == record::MALLOC {
                // SAFETY: by contract of this function.
                unsafe { self.malloc(slot(word) as usize, bytes(size(word))) };
            } else if code(word) == record::FREE {
                // SAFETY: by contract of this function.
                unsafe { self.free(slot(word) as usize, false) };
            } else if code(word) < record::WIDE {
                // SAFETY: by contract of this function.
                if !unsafe { self.narrow(word) } {
                    if self.stopped {
                        return 0;
                    }
                    continue;
                }
            } else {
                // SAFETY: by contract a wide operation has its second word within `words`.
                let second = unsafe { *next };
                next = next.wrapping_add(1);
                // SAFETY: by contract of this function.
                unsafe { self.wide(word, second) };
            }
            self.observer.place();
        }
        (next.addr() - words.as_ptr().addr()) / size_of::<u64>()
    }

    /// One operation of one word; whether it takes a place.
    #[inline(always)]
    unsafe fn narrow(&mut self, word: u64) -> bool {
        let at = slot(word) as usize;
        // SAFETY: by contract of `section`.
        unsafe {
            match code(word) {
                record::PUBLISH => {
                    (*self.shared.progress().wrapping_add(self.id)).publish();
                    return false;
                }
                record::WAIT => {
                    let (thread, ordinal) = wait_parts(word);
                    self.wait(thread, ordinal);
                    return false;
                }
                record::WAIT_BODY => {
                    let (thread, ordinal) = wait_parts(word);
                    let marks = self.shared.plan.threads()[thread as usize].marks[1];
                    #[expect(clippy::cast_possible_truncation, reason = "counters wrap at 2^32")]
                    let done = (marks * u64::from(self.repetition)) as u32;
                    self.wait(thread, ordinal.wrapping_add(done));
                    return false;
                }
                record::REALLOC => self.realloc(at, bytes(size(word)), false),
                record::CALLOC => self.calloc(at, 1, bytes(size(word))),
                _ => return self.rare(word),
            }
        }
        true
    }

    #[cold]
    #[inline(never)]
    unsafe fn rare(&mut self, word: u64) -> bool {
        let at = slot(word) as usize;
        // SAFETY: by contract of `section`.
        unsafe {
            match code(word) {
                record::REALLOC_NEW => self.realloc_new(at, bytes(size(word))),
                record::REALLOC_ZERO => self.realloc(at, 0, true),
                record::FREE_SIZED => self.free(at, true),
                record::FREE_NULL => {
                    let free = self.calls.free;
                    self.observer.call(OpKind::Free, 0, || {
                        free(std::ptr::null_mut());
                        std::ptr::null_mut()
                    });
                    self.tally.free_null += 1;
                }
                record::USABLE => self.usable(at),
                record::USABLE_NULL => {
                    self.tally.usable_size += 1;
                    if let Some(usable) = self.calls.usable_size {
                        usable(std::ptr::null_mut());
                    }
                }
                record::SPAWN => self.shared.spawn::<O>(self.base + at, self.repetition),
                record::FORK => {
                    if let Err(failure) = fork(&self.calls) {
                        self.shared.fork_failed(&failure);
                    }
                }
                record::MOVE => {
                    let from = bytes(size(word));
                    *self.slots.wrapping_add(at) = *self.slots.wrapping_add(from);
                    if O::SIZES {
                        *self.sizes.wrapping_add(at) = *self.sizes.wrapping_add(from);
                    }
                    let (p, size) = self.object(at);
                    if !p.is_null() {
                        self.observer.moved(from, at, p, size);
                    }
                }
                record::AT => {
                    self.intend(word >> 8);
                    return false;
                }
                _ => {}
            }
        }
        true
    }

    #[cold]
    #[inline(never)]
    unsafe fn wide(&mut self, word: u64, second: u64) {
        let at = slot(word) as usize;
        // SAFETY: by contract of `section`.
        unsafe {
            match code(word) {
                record::MALLOC_WIDE => self.malloc(at, bytes(second)),
                record::REALLOC_WIDE => self.realloc(at, bytes(second), false),
                record::REALLOC_NEW_WIDE => self.realloc_new(at, bytes(second)),
                record::CALLOC_N => self.calloc(at, bytes(second), bytes(size(word))),
                record::ALIGNED => self.aligned(at, second),
                record::TRY => self.try_again(bytes(second)),
                record::ACCESS => self.access(at, bytes(size(word)), second),
                record::REALLOC_TRY => self.realloc_try(at, bytes(second)),
                _ => {}
            }
        }
    }

    #[inline(always)]
    fn wait(&mut self, thread: u32, ordinal: u32) {
        self.tally.waits += 1;
        // SAFETY: threads of waits are in range by `Plan::check`, and the region holds as many
        // counters as the run has threads.
        let progress =
            unsafe { &*self.shared.progress().wrapping_add(self.base + thread as usize) };
        if !progress.reached(ordinal) {
            self.stall(progress, ordinal);
        }
    }

    #[cold]
    fn stall(&mut self, progress: &super::progress::Progress, ordinal: u32) {
        let before = now_ns();
        progress.wait(ordinal, &self.shared.abandoned);
        let ns = now_ns() - before;
        self.stopped = !progress.reached(ordinal);
        self.tally.stalled += 1;
        self.tally.stall_ns += ns;
        self.shared.stall(ns);
    }

    /// Sleeps until the time that the stream gives the next operation.
    fn intend(&mut self, at_ns: u64) {
        let Some(speed) = self.pace else { return };
        let start = self.shared.start_ns.load(Ordering::Relaxed);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time")]
        let target = start + (at_ns as f64 / speed) as u64;
        loop {
            let now = now_ns();
            if now >= target || self.shared.abandoned.load(Ordering::Relaxed) {
                break;
            }
            let left = target - now;
            if left > SLEEP_MARGIN_NS {
                let sleep = (left - SLEEP_MARGIN_NS / 2).min(100_000_000);
                let time = libc::timespec { tv_sec: 0, tv_nsec: sleep.min(999_999_999) as i64 };
                // SAFETY: `time` is a valid interval.
                unsafe { libc::nanosleep(&raw const time, std::ptr::null_mut()) };
            } else {
                std::hint::spin_loop();
            }
        }
        self.observer.intended(target);
    }

    /// A fresh object at `p`, or a failed request.
    #[inline(always)]
    unsafe fn arrived(&mut self, at: usize, p: *mut c_void, birth: Birth) {
        let p: *mut u8 = p.cast();
        // SAFETY: `at` is a slot in range that this thread alone uses now; a `p` that is not
        // NULL has `birth.size` bytes.
        unsafe {
            *self.slots.wrapping_add(at) = p;
            if O::SIZES {
                *self.sizes.wrapping_add(at) = birth.size as u64;
            }
            if p.is_null() {
                self.tally.failed += 1;
                return;
            }
            if self.touch != Touch::None {
                let policy = self.touch;
                self.observer.touch(birth.size, || touch(p, birth.size, policy));
            }
            self.observer.born(at, p, birth);
        }
    }

    /// Address and size of the object in a slot.
    #[inline(always)]
    unsafe fn object(&self, at: usize) -> (*mut u8, usize) {
        // SAFETY: `at` is a slot in range that this thread alone uses now.
        let p = unsafe { *self.slots.wrapping_add(at) };
        if !O::SIZES {
            return (p, 0);
        }
        // SAFETY: sizes are kept for as many slots as there are.
        (p, bytes(unsafe { *self.sizes.wrapping_add(at) }))
    }

    #[inline(always)]
    unsafe fn malloc(&mut self, at: usize, size: usize) {
        let malloc = self.calls.malloc;
        // SAFETY: malloc takes any size.
        let p = self.observer.call(OpKind::Malloc, size, || unsafe { malloc(size) });
        self.tally.malloc += 1;
        // SAFETY: a fresh object of `size` bytes or NULL; the slot by contract of `section`.
        unsafe { self.arrived(at, p, Birth { size, align: 0, zeroed: false, kept: 0 }) };
    }

    #[inline(always)]
    unsafe fn free(&mut self, at: usize, sized: bool) {
        // SAFETY: by contract of `section`.
        let (p, size) = unsafe { self.object(at) };
        if !p.is_null() {
            self.observer.dying(at, p, size);
        }
        let calls = &self.calls;
        let q: *mut c_void = p.cast();
        if sized {
            let call = calls.sized_free;
            self.tally.sized_frees += u64::from(!matches!(call, SizedFree::Plain));
            let free = calls.free;
            self.observer.call(OpKind::Free, size, || {
                // SAFETY: the slot holds a live object of this allocator or NULL, and the plan
                // releases it once; its size is what was asked for.
                unsafe {
                    match call {
                        _ if q.is_null() => free(q),
                        SizedFree::FreeSized(f) => f(q, size),
                        SizedFree::Sdallocx(f) => f(q, size.max(1), 0),
                        SizedFree::Plain => free(q),
                    }
                }
                std::ptr::null_mut()
            });
        } else {
            let free = calls.free;
            self.observer.call(OpKind::Free, size, || {
                // SAFETY: the slot holds a live object of this allocator or NULL, and the plan
                // releases it once.
                unsafe { free(q) };
                std::ptr::null_mut()
            });
        }
        self.tally.free += 1;
    }

    unsafe fn calloc(&mut self, at: usize, count: usize, each: usize) {
        let size = count.saturating_mul(each);
        let calloc = self.calls.calloc;
        // SAFETY: calloc takes any sizes.
        let p = self.observer.call(OpKind::Calloc, size, || unsafe { calloc(count, each) });
        self.tally.calloc += 1;
        // SAFETY: a fresh object of `size` bytes or NULL; the slot by contract of `section`.
        unsafe { self.arrived(at, p, Birth { size, align: 0, zeroed: true, kept: 0 }) };
    }

    unsafe fn aligned(&mut self, at: usize, payload: u64) {
        let (align, api, size) = aligned_parts(payload);
        let (align, size) = (bytes(align), bytes(size));
        let calls = self.calls;
        // SAFETY: `aligned_parts` yields a power of two.
        let call = || unsafe { calls.aligned(align, api, size) };
        let p = self.observer.call(OpKind::Aligned, size, call);
        self.tally.aligned += 1;
        let none = calls.memalign.is_none()
            && calls.aligned_alloc.is_none()
            && calls.posix_memalign.is_none();
        self.tally.unsupported += u64::from(none);
        // SAFETY: a fresh object of `size` bytes or NULL; the slot by contract of `section`.
        unsafe { self.arrived(at, p, Birth { size, align, zeroed: false, kept: 0 }) };
    }

    unsafe fn realloc_new(&mut self, at: usize, size: usize) {
        let realloc = self.calls.realloc;
        // SAFETY: realloc of NULL takes any size.
        let call = || unsafe { realloc(std::ptr::null_mut(), size) };
        let p = self.observer.call(OpKind::Realloc, size, call);
        self.tally.realloc += 1;
        self.tally.realloc_births += 1;
        // SAFETY: a fresh object of `size` bytes or NULL; the slot by contract of `section`.
        unsafe { self.arrived(at, p, Birth { size, align: 0, zeroed: false, kept: 0 }) };
    }

    /// `releases`: the trace says that this call released its object and returned none.
    unsafe fn realloc(&mut self, at: usize, size: usize, releases: bool) {
        // SAFETY: by contract of `section`.
        let (old, old_size) = unsafe { self.object(at) };
        if !old.is_null() {
            self.observer.dying(at, old, old_size);
        }
        let realloc = self.calls.realloc;
        // SAFETY: the slot holds a live object of this allocator or NULL.
        let call = || unsafe { realloc(old.cast(), size) };
        let p = self.observer.call(OpKind::Realloc, size, call);
        self.tally.realloc += 1;
        self.tally.realloc_deaths += 1;
        self.tally.realloc_births += u64::from(!releases);
        if size == 0 && (releases || p.is_null()) {
            // Allocators differ in what realloc(p, 0) returns; nothing is kept either way.
            let free = self.calls.free;
            // SAFETY: what the call returned is live, and nobody else has it; the slot is ours.
            unsafe {
                free(p);
                *self.slots.wrapping_add(at) = std::ptr::null_mut();
            }
            return;
        }
        if p.is_null() && !old.is_null() {
            // The old object lives on in its slot, at its old size.
            self.tally.failed += 1;
            self.observer.survived(at, old, old_size);
            return;
        }
        // A slot whose request failed has a size and no bytes to keep.
        let kept = if old.is_null() { 0 } else { old_size };
        let birth = Birth { size, align: 0, zeroed: false, kept };
        // SAFETY: a fresh object of `size` bytes or NULL; the slot by contract of `section`.
        unsafe { self.arrived(at, p, birth) };
    }

    /// A realloc that failed in the trace.
    unsafe fn realloc_try(&mut self, at: usize, size: usize) {
        // SAFETY: by contract of `section`.
        let (old, old_size) = unsafe { self.object(at) };
        if !old.is_null() {
            self.observer.dying(at, old, old_size);
        }
        let realloc = self.calls.realloc;
        // SAFETY: the slot holds a live object of this allocator or NULL.
        let call = || unsafe { realloc(old.cast(), size) };
        let p = self.observer.call(OpKind::Realloc, size, call);
        self.tally.realloc += 1;
        match (p.is_null(), old.is_null()) {
            (true, true) => {}
            (true, false) => self.observer.survived(at, old, old_size),
            (false, _) => {
                self.tally.unexpected += 1;
                let kept = if old.is_null() { 0 } else { old_size };
                let birth = Birth { size, align: 0, zeroed: false, kept };
                // SAFETY: a fresh object of `size` bytes; the slot by contract of `section`.
                unsafe { self.arrived(at, p, birth) };
            }
        }
    }

    /// A request that failed in the trace: asked again, and given back if it succeeds.
    unsafe fn try_again(&mut self, size: usize) {
        let (malloc, free) = (self.calls.malloc, self.calls.free);
        // SAFETY: malloc takes any size.
        let p = self.observer.call(OpKind::Malloc, size, || unsafe { malloc(size) });
        self.tally.retried += 1;
        if !p.is_null() {
            self.tally.unexpected += 1;
            // SAFETY: fresh, and nobody else has it.
            unsafe { free(p) };
        }
    }

    unsafe fn usable(&mut self, at: usize) {
        self.tally.usable_size += 1;
        // SAFETY: by contract of `section`.
        let (p, size) = unsafe { self.object(at) };
        let Some(usable) = self.calls.usable_size else { return };
        let mut answer = 0;
        self.observer.call(OpKind::UsableSize, size, || {
            // SAFETY: the slot holds a live object of this allocator or NULL.
            answer = unsafe { usable(p.cast()) };
            std::ptr::null_mut()
        });
        if !p.is_null() && !self.calls.null {
            self.observer.usable(at, p, size, answer);
        }
    }

    /// The program writes to an object. In the verify pass the bytes are read and written back.
    unsafe fn access(&mut self, at: usize, length: usize, times: u64) {
        // SAFETY: by contract of `section`.
        let (p, size) = unsafe { self.object(at) };
        if p.is_null() || self.calls.null {
            return;
        }
        let length = if O::SIZES { length.min(size) } else { length };
        for _ in 0..times {
            for offset in 0..length {
                let byte = p.wrapping_add(offset);
                // SAFETY: the object is live and has at least `length` bytes: where sizes are not
                // kept, the plan states no more than are sure in every run; and the plan lets no
                // other thread use it now.
                unsafe { byte.write_volatile(byte.read_volatile()) };
            }
        }
    }
}
