//! Walks all there is, for who suspects damage, while other threads go on.
//!
//! # What is looked at
//! | what | how |
//! |---|---|
//! | segments | each header; each record of a slice, free or used, as far as it is right at any moment |
//! | spans of the calling thread, and of heaps whose threads have ended | their records in full |
//! | the lists of these heaps | each link, each span in them, each free block of those, and stashed blocks |
//! | the lists of other threads' heaps | each link, and the records of the spans in them; not a heap whose thread is on a slow path each time, nor one whose thread a fork left behind |
//! | huge objects | the free extents, and not the objects: no list names those |
//!
//! No free block of a running thread is looked at: it may be an object by the time that its link is read.
//!
//! # What is right at any moment
//! A record is read while the registry and its pool are locked, and mostly another thread's.
//! 1. A free slice stays free, and the record of one says so: runs are given back with such records. A used
//!    slice stays used, and a run of several keeps its length and has no second span after its first: it
//!    would have to pass the pool, as a run of one need not (see `spares`).
//! 2. The word that holds the kind is of one use (see `segment::Reading`), so kind, class, and length or number
//!    of live blocks agree. Of a run of several so do all other words, which are read later, and the records
//!    of its slices, which are free before the span begins and after it ends.
//! 3. `owner` only ever names heaps, which are never freed, and no heap is created meanwhile.
//! 4. Heaps without a thread change under the registry's lock alone, and the calling thread's not now. So their
//!    spans stay as they are in all but what others free. In limbo a span is nobody's, and counts as another's.
//!
//! # Cost
//! Two locks per segment, held while its 128 records are read; the registry's while one parked heap is walked;
//! a system call per heap in use, whose thread waits at its next slow path.

use core::cell::Cell;
use core::hint::spin_loop;
use core::ptr::null_mut;

use super::global::Global;
use super::local::ThreadHeap;
use super::registry::Registry;
use crate::bitmap::{self, OWNED};
use crate::os;
use crate::segment::{Depth, Header, Kind, NOBODY, Reading, Span, slice_of};
use crate::slab;
use crate::sync::Ordering;
use crate::units::SLICES;

/// A broken invariant, and the address where it shows.
type Fault = (&'static str, usize);

const OVERWRITTEN: &str = "a span record was overwritten";
/// The bits of an owner that tell what kind of span it has.
const TAGS: usize = 7;
/// Times that a heap is visited whose thread is inside.
const TRIES: usize = 100;

impl Global {
    /// Tests all there is (see the module); the first broken invariant is named.
    ///
    /// # Safety
    /// `mine` is the calling thread's heap, or null.
    pub(crate) unsafe fn check(&self, mine: *mut ThreadHeap) -> Result<(), Fault> {
        // SAFETY: the caller's promise.
        unsafe {
            if mine.is_null() {
                self.check_segments(mine)?;
            } else {
                // No visitor takes a span away meanwhile.
                let _inside = (*mine).enter();
                self.check_segments(mine)?;
                (*mine).check(Depth::Blocks)?;
            }
            self.huge.check().map_err(|what| (what, 0))?;
            self.allow_visits(true);
            let mut found = Ok(());
            self.registry.for_each(|heap| {
                if found.is_ok() && heap != mine {
                    found = self.registry.check_other(heap);
                }
            });
            found
        }
    }

    /// # Safety
    /// As [`Global::check`]; if there is a heap, its thread is inside.
    unsafe fn check_segments(&self, mine: *mut ThreadHeap) -> Result<(), Fault> {
        for pool in self.used_pools() {
            // Downwards: where a segment goes the last one comes, which was looked at.
            for index in (0..pool.segments()).rev() {
                self.registry.hold(|| {
                    let last = Cell::new((null_mut(), false));
                    let walk = Walk { registry: &self.registry, mine, last };
                    // SAFETY: both are locked, and the header is the pool's.
                    let look = |header| unsafe { walk.segment(header, index) };
                    pool.look_at(index, look).unwrap_or(Ok(()))
                })?;
            }
            pool.check().map_err(|what| (what, 0))?;
        }
        Ok(())
    }
}

impl Registry {
    /// Tests the lists of a heap that is not the calling thread's.
    ///
    /// # Safety
    /// The calling thread holds no lock.
    unsafe fn check_other(&self, heap: *mut ThreadHeap) -> Result<(), Fault> {
        let parked = self.hold(|| {
            // SAFETY: heap records are never freed; while it is parked, the heap is the lock's.
            unsafe { (*heap).slab_queue.is_parked().then(|| (*heap).check(Depth::Blocks)) }
        });
        if let Some(found) = parked {
            return found;
        }
        // Neither parked nor, in the child of a fork, left as its thread had it just then.
        let has_thread = || self.thread_of(heap) != 0;
        for _ in 0..TRIES {
            if !has_thread() {
                break;
            }
            // SAFETY: heap records are never freed; what the door protects stays as it is during the visit, and
            // no heap is parked then.
            unsafe {
                if let Some(_visit) = (*heap).door.visit(os::barrier_everywhere)
                    && has_thread()
                {
                    return (*heap).check(Depth::Records);
                }
            }
            spin_loop();
        }
        Ok(())
    }
}

/// A walk along the records of a segment.
struct Walk<'a> {
    registry: &'a Registry,
    mine: *mut ThreadHeap,
    /// The heap that a record named last, and whether its spans stay as they are.
    last: Cell<(*mut ThreadHeap, bool)>,
}

/// What was seen of the slices before one.
#[derive(Clone, Copy, Default)]
struct Before {
    /// The last span of several slices: its first one, the one behind it, and its class.
    first: usize,
    end: usize,
    class: u8,
    /// The last span of one slice.
    single: usize,
}

/// What slices of a segment are there for.
struct Slices {
    /// A bit per free one.
    free: u128,
    count: usize,
}

impl Slices {
    fn is_free(&self, slice: usize) -> bool {
        (self.free >> slice) & 1 == 1
    }
}

impl Walk<'_> {
    /// Tests segment `index` of a pool.
    ///
    /// # Safety
    /// `header` is the segment's; its pool and the registry are locked.
    unsafe fn segment(&self, header: *const Header, index: u32) -> Result<(), Fault> {
        // SAFETY: the caller's promise: headers belong to the pool.
        let (free, count, sound) = unsafe {
            let (free, count) = ((*header).free, (*header).slices as usize);
            let names = (*header).owner.load(Ordering::Relaxed) == NOBODY;
            (free, count, names && (*header).index == index)
        };
        // Slice 0 holds the records; a shift by 128 is one too many.
        let outside = 1 | (u128::MAX << 1).checked_shl((count as u32).wrapping_sub(1)).unwrap_or(0);
        if !sound || !(2..=SLICES).contains(&count) || free & outside != 0 {
            return Err(("a segment header was overwritten", header.addr()));
        }
        let slices = Slices { free, count };
        let mut before = Before::default();
        for slice in 1..count {
            let record = header.cast_mut().cast::<Span>().wrapping_add(slice);
            // SAFETY: records of a mapped segment.
            unsafe { self.record(record, slice, &slices, &mut before)? };
        }
        Ok(())
    }

    /// Tests the record of `slice`; `before` is what was seen of those in front of it.
    ///
    /// # Safety
    /// As [`Walk::segment`].
    unsafe fn record(
        &self,
        record: *mut Span,
        slice: usize,
        slices: &Slices,
        before: &mut Before,
    ) -> Result<(), Fault> {
        let fault = |what| Err((what, slice_of(record).addr()));
        // SAFETY: the caller's promise.
        let says = unsafe { Reading::of(record) };
        if says.carved > says.capacity {
            return fault(OVERWRITTEN);
        }
        if slices.is_free(slice) {
            let unused = says.is(Kind::Free) && says.owner <= NOBODY;
            return if unused { Ok(()) } else { fault("the record of a free slice names a use") };
        }
        let Some(stays) = self.stays(says.owner) else {
            return fault("a span's owner is no heap");
        };
        // What an owner holds is of the kind that its tag tells; only of spans that stay are both of one moment.
        let tagged = if says.owner & TAGS == OWNED { Kind::Bitmap } else { Kind::Slab };
        if stays && !says.is(tagged) {
            return fault(OVERWRITTEN);
        }
        if slice < before.end {
            // In a span that was seen: if a block begins here, this record is of that span.
            let back = (says.back as usize, says.class) == (slice - before.first, before.class);
            let sound = says.is(Kind::Free) || says.is(Kind::Bitmap) && back;
            return if sound { Ok(()) } else { fault(OVERWRITTEN) };
        }
        if says.is(Kind::Bitmap) && says.back > 0 {
            // The first record was free when it was looked at: the span began since then, or ends, or a fork left
            // it half ended. So none of the slices from there on was seen in another span.
            let first = slice.wrapping_sub(says.back as usize);
            let classed = bitmap::SizeClass::from_number(says.class).is_some();
            if !classed || first < before.end || first > slice || first == 0 {
                return fault(OVERWRITTEN);
            }
            let alone = record.wrapping_sub(slice - before.single);
            let fits = first > before.single;
            return if fits { Ok(()) } else { Err((OVERWRITTEN, slice_of(alone).addr())) };
        }
        let sound = if says.is(Kind::Slab) {
            let start = slice_of(record).addr();
            before.single = slice;
            slab::may_say(&says) && (!stays || slab::is_whole(&says, start))
        } else if says.is(Kind::Bitmap) {
            may_begin_bitmap(&says, stays, slice, slices, before)
        } else {
            says.is(Kind::Free)
        };
        if !sound {
            return fault(OVERWRITTEN);
        }
        if stays && says.is(Kind::Bitmap) {
            // SAFETY: the span stays as it is, and its first record was found right.
            let whole = unsafe { bitmap::is_whole(record) };
            return whole.map_err(|record| (OVERWRITTEN, slice_of(record).addr()));
        }
        Ok(())
    }

    /// Whether the spans of an owner stay as they are while the registry is locked; `None` if no heap has that
    /// name.
    fn stays(&self, owner: usize) -> Option<bool> {
        if owner <= NOBODY {
            return Some(false);
        }
        let (address, tag) = (owner & !TAGS, owner & TAGS);
        if tag > OWNED {
            return None;
        }
        let (mut heap, mut stays) = self.last.get();
        if heap.addr() != address {
            heap = self.registry.find(address)?;
            // SAFETY: heap records are never freed.
            stays = heap == self.mine || unsafe { (*heap).slab_queue.is_parked() };
            self.last.set((heap, stays));
        }
        // Slabs with the odd tag are in limbo.
        Some(stays && tag & 1 == 0)
    }
}

/// Whether the first record of a bitmap span is right, which stands in no span seen before.
fn may_begin_bitmap(
    says: &Reading,
    stays: bool,
    slice: usize,
    slices: &Slices,
    before: &mut Before,
) -> bool {
    let length = says.live as usize;
    if !bitmap::may_say(says, stays || length > 1) {
        return false;
    }
    if length == 1 {
        before.single = slice;
        return true;
    }
    (before.first, before.end, before.class) = (slice, slice + length, says.class);
    before.end <= slices.count && !(slice..before.end).any(|slice| slices.is_free(slice))
}
