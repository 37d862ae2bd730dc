//! Objects above 1 MiB: each has a mapping of its own, kept for reuse after it is freed.
//!
//! An object lies in units of 4 MiB of address space that begin like a segment, so that its
//! address finds a record. Its first byte follows the record, 64 bytes behind the start (or further,
//! for an alignment); an object aligned to 4 MiB or more has its record one segment before it.
//!
//! Record and first byte share a page on purpose: programs that know malloc from glibc take the page
//! before an object's first for somebody else's and may map over it (gnulib's test-free does).
//!
//! In hardened builds a mapping ends with the object's last page, a gap that is never mapped on purpose
//! separates it from the next, nothing is cached, and the record carries a checksum.
//!
//! # Cost
//! One lock per call, a look at each of at most 512 free extents. Untouched parts of a mapping cost
//! nothing, so the cache is limited by what is *resident*: only when the objects that were freed into it
//! were larger than what is live plus 64 MiB is /proc/self/statm read, at most once per clock tick.

mod extents;
mod record;
mod resize;

use core::ptr;

use self::extents::Extents;
use self::record::Place;
use crate::lock::Lock;
use crate::os::{self, Kernel};
use crate::probe::fire;
use crate::segment::{Held, Kind, Span};
use crate::sync::{AtomicUsize, Ordering};
use crate::units::{SEGMENT, pages_within, round_up, set_zero};

pub(crate) use self::record::{huge_record, limit_usable, usable};
#[cfg(feature = "hardened")]
pub(crate) use self::record::{is_intact, is_object};

/// From the start of a mapping to an object without an alignment of its own: the first record.
const HEAD: usize = Span::BYTES;
const HARDENED: bool = cfg!(feature = "hardened");
/// Address space left free behind a mapping.
const GAP: usize = if HARDENED { SEGMENT } else { 0 };

/// From this size on a used mapping becomes zero by giving its pages back: writing them makes all of a table resident of
/// which the program may touch a part. Below, that is no more than may be cached anyway, and new pages cost more than
/// writing where all are used: mstress, which asks for 5 to 20 MiB of zeros, took 1.16 times as long with them
/// (`bench-cli run mstress -a with.so,without.so --pass throughput --runs 11`).
const GIVEN_BACK_FROM: usize = 64 << 20;

/// Bytes of address space: what does not fit there is refused before anything is given back for it.
fn addresses() -> usize {
    1 << os::address_bits()
}

/// Bytes to map for `used` ones.
fn whole(used: usize) -> usize {
    if HARDENED { used } else { round_up(used, SEGMENT) }
}

/// Milliseconds after which as much of what is cached goes as nobody needed meanwhile: all of it within twice that.
const EPOCH_MS: u64 = 250;

/// Everything about objects with a mapping of their own.
#[derive(Debug)]
pub(crate) struct Huge<K> {
    kernel: K,
    /// Bytes without pages that were handed out since [`Huge::take_fresh`] told so: an estimate.
    fresh: AtomicUsize,
    /// Bytes unmapped so far.
    purged: AtomicUsize,
    state: Lock<State>,
}

#[derive(Debug)]
struct State {
    free: Extents,
    /// Live objects.
    objects: usize,
    /// Bytes of live objects, as their pages count.
    live: usize,
    /// Bytes mapped for live objects.
    mapped: usize,
    cache_floor: usize,
    /// Whether new mappings ask for huge pages.
    huge_pages: bool,
    epoch_began: u64,
    calls: u32,
    /// Clock and answer of the last look at what is resident.
    looked_at: u64,
    resident_is_fine: bool,
}

/// What huge objects hold, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HugeUsage {
    /// A number.
    pub(crate) objects: usize,
    pub(crate) live: usize,
    pub(crate) mapped: usize,
    pub(crate) cached: usize,
    /// Of those, bytes with pages.
    pub(crate) cached_resident: usize,
    /// Given back to the kernel so far.
    pub(crate) purged: usize,
    pub(crate) lock: (usize, usize),
}

impl<K: Kernel> Huge<K> {
    /// Empty and all zero; it is configured before it is used.
    pub(crate) const fn new(kernel: K) -> Self {
        Huge {
            kernel,
            fresh: AtomicUsize::new(0),
            purged: AtomicUsize::new(0),
            state: Lock::new(State {
                free: Extents::EMPTY,
                objects: 0,
                live: 0,
                mapped: 0,
                cache_floor: 0,
                huge_pages: false,
                epoch_began: 0,
                calls: 0,
                looked_at: 0,
                resident_is_fine: false,
            }),
        }
    }

    /// Keeps at least `cache_floor` bytes of freed mappings, and asks for huge pages for new ones if
    /// they are wanted.
    pub(crate) fn configure(&self, cache_floor: usize, huge_pages: bool) {
        let mut state = self.state.lock();
        state.cache_floor = cache_floor;
        state.huge_pages = huge_pages;
    }

    /// An object of `size` bytes at a multiple of `align` (a power of two), zeroed if asked for;
    /// null when the kernel has no more memory.
    pub(crate) fn allocate(&self, size: usize, align: usize, zeroed: bool) -> *mut u8 {
        if size >= addresses().saturating_sub(align + 2 * SEGMENT) {
            return ptr::null_mut();
        }
        let offset = align.clamp(HEAD, SEGMENT);
        let used = round_up(offset + size.max(1), self.kernel.page_size());
        let mapped = whole(used);
        let reused = if align <= SEGMENT {
            let mut state = self.state.lock();
            let reused = state.free.take(mapped);
            if reused.is_some() {
                state.count(used, mapped);
            }
            reused
        } else {
            None
        };
        let (place, held) = match reused {
            Some(reused) => {
                self.count_fresh(used.saturating_sub(reused.resident));
                let resident = reused.with(used, mapped);
                let place = Place { base: reused.base, offset, mapped, used, resident };
                (place, reused.resident.min(used))
            }
            None => match self.map(offset, mapped, used, align) {
                Some(place) => {
                    let huge_pages = {
                        let mut state = self.state.lock();
                        state.count(place.used, place.mapped);
                        state.huge_pages
                    };
                    if huge_pages {
                        self.kernel.prefer_huge_pages(place.base, place.mapped);
                    }
                    self.kernel.label(place.base, place.mapped);
                    self.count_fresh(used);
                    fire!("huge_map", place.base, place.mapped);
                    (place, 0)
                }
                None => return ptr::null_mut(),
            },
        };
        // SAFETY: the mapping is this object's from here on.
        unsafe {
            let object = place.write();
            if zeroed && held != 0 {
                self.make_zero(object, size, held);
            }
            object
        }
    }

    /// Makes an object zero whose memory was used before; `held` bytes of it may hold pages.
    ///
    /// # Safety
    /// The object has `size` bytes, and nobody needs what they hold.
    unsafe fn make_zero(&self, object: *mut u8, size: usize, held: usize) {
        let page = self.kernel.page_size();
        let pages = pages_within(object.addr(), size, page).filter(|_| size >= GIVEN_BACK_FROM);
        // SAFETY: the caller's promise, for the pages wholly in the object and for what lies around them.
        unsafe {
            match pages {
                Some((first, len)) if self.kernel.purge(first, len).is_ok() => {
                    self.count_fresh(len.min(held));
                    self.purged.fetch_add(len, Ordering::Relaxed);
                    let (head, end) = (first - object.addr(), first + len - object.addr());
                    set_zero(object, head);
                    set_zero(object.add(end), size - end);
                }
                // Locked memory, say.
                _ => set_zero(object, size),
            }
        }
    }

    #[cold]
    fn map(&self, offset: usize, mapped: usize, used: usize, align: usize) -> Option<Place> {
        // The object, not the base, has the alignment when that is above a segment.
        let lead = if align > SEGMENT { align } else { 0 };
        let hint = os::next_place(&self.kernel, round_up(mapped, SEGMENT) + GAP);
        // When memory is short, whole units are a luxury; what is cached, too.
        let first = if os::address_space_is_scarce() { used } else { mapped };
        for bytes in [first, used] {
            if lead == 0 {
                if let Ok(base) = os::map_aligned(&self.kernel, hint, bytes, SEGMENT) {
                    return Some(Place { base, offset, mapped: bytes, used, resident: used });
                }
            } else if let Ok(start) = self.kernel.map(0, bytes.checked_add(lead)?) {
                return Some(self.cut_around(start, bytes, used, lead));
            }
            self.purge_all();
        }
        None
    }

    /// Keeps of a mapping of `bytes + lead` the object at a multiple of `lead` and one segment
    /// before it.
    fn cut_around(&self, start: usize, bytes: usize, used: usize, lead: usize) -> Place {
        let object = round_up(start + SEGMENT, lead);
        let base = object - SEGMENT;
        let (end, kept_end) = (start + bytes + lead, base + bytes);
        // SAFETY: both parts belong to this mapping and lie outside what is kept.
        unsafe {
            if base > start {
                let _ = self.kernel.unmap(start, base - start);
            }
            if end > kept_end {
                let _ = self.kernel.unmap(kept_end, end - kept_end);
            }
        }
        Place { base, offset: SEGMENT, mapped: bytes, used, resident: used }
    }

    /// Gives a mapping back; false if the kernel keeps it.
    ///
    /// # Safety
    /// The range is a mapping of this floor's that nobody uses any more.
    unsafe fn unmap(&self, base: usize, len: usize) -> bool {
        fire!("huge_unmap", base, len);
        // SAFETY: the caller's promise.
        let gone = unsafe { self.kernel.unmap(base, len).is_ok() };
        if gone {
            self.purged.fetch_add(len, Ordering::Relaxed);
        }
        gone
    }

    /// Frees an object. `elsewhere` tells the bytes that are live outside this floor.
    ///
    /// # Safety
    /// `record` is that of a live huge object, which nobody uses any more.
    pub(crate) unsafe fn free(&self, record: *mut Span, elsewhere: impl FnOnce() -> usize) {
        // SAFETY: the caller's promise; the record says where the mapping is.
        let place = unsafe {
            let place = Place::read(record);
            (*record).kind = Kind::Free;
            #[cfg(feature = "hardened")]
            crate::segment::forget(place.base);
            place
        };
        let mut state = self.state.lock();
        state.discount(place);
        let whole = place.mapped.is_multiple_of(SEGMENT) && !HARDENED;
        if !whole || !state.free.insert(place.base, place.mapped, place.resident) {
            drop(state);
            // SAFETY: the mapping is nobody's.
            unsafe { self.unmap(place.base, place.mapped) };
            return;
        }
        state.calls = state.calls.wrapping_add(1);
        if state.calls.is_multiple_of(8) || state.calls < 8 {
            self.pass_epoch(&mut state);
        }
        self.limit(&mut state, elsewhere);
    }

    /// Gives back what time has made due; cheap when nothing is.
    pub(crate) fn tick(&self) {
        if let Some(mut state) = self.state.try_lock() {
            self.pass_epoch(&mut state);
        }
    }

    fn pass_epoch(&self, state: &mut State) {
        let now = self.kernel.now_ms();
        let elapsed = now.wrapping_sub(state.epoch_began);
        if elapsed < EPOCH_MS {
            return;
        }
        state.epoch_began = now;
        // After an idle second nothing that is cached was freed recently.
        state.free.pass_epoch(elapsed >= 4 * EPOCH_MS, |base, len| {
            // SAFETY: cached extents are nobody's.
            unsafe { self.unmap(base, len) }
        });
    }

    /// Unmaps cached extents, highest first, when they make the process too large.
    fn limit(&self, state: &mut State, elsewhere: impl FnOnce() -> usize) {
        let cap = state.live + state.cache_floor;
        if state.free.resident() <= cap {
            return;
        }
        let now = self.kernel.now_ms();
        if now != state.looked_at {
            state.looked_at = now;
            let fair = state.live + elsewhere() + cap;
            state.resident_is_fine =
                self.kernel.resident_bytes().is_some_and(|bytes| bytes <= fair);
        }
        if !state.resident_is_fine {
            state.free.drop_above(cap, |base, len| {
                // SAFETY: cached extents are nobody's.
                unsafe { self.unmap(base, len) }
            });
        }
    }

    /// Unmaps everything that is cached.
    pub(crate) fn purge_all(&self) {
        let mut state = self.state.lock();
        state.free.drop_above(0, |base, len| {
            // SAFETY: cached extents are nobody's.
            unsafe { self.unmap(base, len) }
        });
    }

    fn count_fresh(&self, bytes: usize) {
        if bytes != 0 {
            self.fresh.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Bytes without pages that were handed out since somebody took this sum, if they are `many`; else 0.
    pub(crate) fn take_fresh(&self, many: usize) -> usize {
        if self.fresh.load(Ordering::Relaxed) < many {
            0
        } else {
            self.fresh.swap(0, Ordering::Relaxed)
        }
    }

    /// What it holds; `None` while somebody changes that.
    pub(crate) fn held_now(&self) -> Option<Held> {
        let state = self.state.try_lock()?;
        Some(Held { used: state.live, peak: state.live, spare: state.free.resident() })
    }

    /// Unmaps at least `bytes` of what is cached, or all if that is less; how many it were.
    pub(crate) fn shed(&self, bytes: usize) -> usize {
        if bytes == 0 {
            return 0;
        }
        let mut state = self.state.lock();
        let before = state.free.resident();
        state.free.drop_above(before.saturating_sub(bytes), |base, len| {
            // SAFETY: cached extents are nobody's.
            unsafe { self.unmap(base, len) }
        });
        before - state.free.resident()
    }

    /// What huge objects hold.
    pub(crate) fn usage(&self) -> HugeUsage {
        let state = self.state.lock();
        HugeUsage {
            objects: state.objects,
            live: state.live,
            mapped: state.mapped,
            cached: state.free.bytes(),
            cached_resident: state.free.resident(),
            purged: self.purged.load(Ordering::Relaxed),
            lock: self.state.contention(),
        }
    }

    /// Tests the invariants; the first broken one is named.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        self.state.lock().free.check()
    }

    /// Whether the calling thread was interrupted while it held this floor's lock.
    pub(crate) fn is_held_by_us(&self) -> bool {
        self.state.is_held_by_us()
    }

    /// In a child that was not told of its fork: forgets what is cached if that was in the middle
    /// of a change. Its address space is lost to this child.
    pub(crate) fn mend(&self) {
        self.state.mend(|state| state.free = Extents::EMPTY);
    }
}

impl State {
    fn count(&mut self, used: usize, mapped: usize) {
        self.objects += 1;
        self.live += used;
        self.mapped += mapped;
    }

    fn discount(&mut self, place: Place) {
        self.objects -= 1;
        self.live -= place.used;
        self.mapped -= place.mapped;
    }
}

#[cfg(test)]
mod tests;
