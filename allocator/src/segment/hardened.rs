//! Hardened builds: which addresses are ours, memory that nobody may touch, and blocks that were
//! never handed out.
//!
//! A segment of small blocks has a slice every mebibyte that ends the process when it is touched, and
//! so have the pages between its records and its first slice: what runs along memory in either
//! direction meets one. A span of large blocks ends with such a slice of its own. Where the kernel marks
//! pages so (6.13), the slices of a segment that were never used do the same, one system call for a
//! segment and one for each run that is used for the first time. A fork may come at any point of that, so
//! the header says of a slice that it was never used from before it is marked until after it is no more, and a
//! slice stops being free before it becomes a guard.
//!
//! Owns two bits per 4 MiB of address space, 16 MiB in all, of which a process touches a page or two, and
//! 256 KiB that remember which slices hold blocks of which slab class. Cost: two shifts, a load and a
//! comparison per free.

use super::{Header, Run, Span, slice_of};
use crate::options::{Hardening, guard_is_due, guards_all, hardening};
use crate::os;
use crate::sync::{AtomicU64, Ordering};
use crate::units::{MIN_ALIGN, SEGMENT, SLICE, SLICE_SHIFT, SLICES, TRAILER, round_up};

/// Bits of a user address at most: 47 on x86_64, 48 on aarch64.
const ADDRESS_BITS: u32 = 48;
/// Two bits a unit.
const WORDS: usize = (1 << ADDRESS_BITS) / SEGMENT / 32;

static OURS: [AtomicU64; WORDS] = [const { AtomicU64::new(0) }; WORDS];

/// What 4 MiB of address space begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Segment {
    /// The records of a pool's slices.
    Pool = 1,
    /// The record of a huge object.
    Huge = 2,
}

/// The word of an address, and where its bits lie in it; `None` beyond user space.
#[inline(always)]
fn place(address: usize) -> Option<(&'static AtomicU64, usize)> {
    let unit = address / SEGMENT;
    Some((OURS.get(unit / 32)?, unit % 32 * 2))
}

/// Says what the segment at `address` begins with from now on.
pub(crate) fn note(address: usize, segment: Segment) {
    if let Some((word, shift)) = place(address) {
        word.fetch_or((segment as u64) << shift, Ordering::Relaxed);
    }
}

/// Says that it will be gone.
pub(crate) fn forget(address: usize) {
    if let Some((word, shift)) = place(address) {
        word.fetch_and(!(3 << shift), Ordering::Relaxed);
    }
}

/// What the segment that `address` lies in begins with; `None` if it is not ours, or the later part
/// of a huge object.
#[inline(always)]
pub(crate) fn segment_at(address: usize) -> Option<Segment> {
    let (word, shift) = place(address)?;
    match word.load(Ordering::Relaxed) >> shift & 3 {
        1 => Some(Segment::Pool),
        2 => Some(Segment::Huge),
        _ => None,
    }
}

/// Slices of slabs, each where [`slab_place`] says: its number, the size of its blocks in steps of 16 bytes and
/// their class, a byte each.
static SLABS: [AtomicU64; SLABS_KNOWN] = [const { AtomicU64::new(0) }; SLABS_KNOWN];
/// As many as 1 GiB has. In a larger heap two slices may share a place; the one that comes later takes it.
const SLABS_KNOWN: usize = (1 << 30) / SLICE;
/// Bits that tell the blocks.
const BLOCKS_BITS: u32 = 16;
/// Bits of them that tell the class.
const CLASS_BITS: u32 = 8;

/// Where the slice of an address stands if it is of a slab, and what stands there but for the blocks. Slices
/// count from 2, so that no address, not even the one before null, has the number of an empty place.
#[inline(always)]
fn slab_place(address: usize) -> (&'static AtomicU64, u64) {
    let number = address.wrapping_add(2 * SLICE) >> SLICE_SHIFT;
    // SAFETY: the remainder is below the length.
    let place = unsafe { SLABS.get_unchecked(number % SLABS_KNOWN) };
    (place, (number as u64) << BLOCKS_BITS)
}

/// The class number and the size in bytes of the blocks of the slab that `address` lies in; `None` if it
/// lies in none, or in one that is not known for the moment. Its slice is then mapped and in use.
#[inline(always)]
pub(crate) fn slab_at(address: usize) -> Option<(u8, usize)> {
    let (place, number) = slab_place(address);
    let blocks = place.load(Ordering::Relaxed) ^ number;
    let size = blocks as usize >> CLASS_BITS << MIN_ALIGN.ilog2();
    (blocks < 1 << BLOCKS_BITS).then_some((blocks as u8, size))
}

/// Lets [`slab_at`] know the slab at `address`.
pub(crate) fn know_slab(address: usize, class: u8, size: usize) {
    let (place, number) = slab_place(address);
    let blocks = (size >> MIN_ALIGN.ilog2() << CLASS_BITS) as u64 | u64::from(class);
    place.store(number | blocks, Ordering::Relaxed);
}

/// Says that the slab at `address` will be none any more.
pub(crate) fn forget_slab(address: usize) {
    if slab_at(address).is_some() {
        slab_place(address).0.store(0, Ordering::Relaxed);
    }
}

/// Slices between two guards of a segment; the longest run of a small class fits between them.
const GUARD_EVERY: usize = 32;
/// Of pools with an odd number, which hold large blocks, the runs are too long for that.
const SMALL: u16 = 2;

/// Notes a new segment, and takes some of its slices away for ever; how many. `number` is its pool's.
///
/// # Safety
/// The segment is the caller's, and all its slices are free.
pub(crate) unsafe fn guard_slices(segment: *mut Header, number: u16) -> usize {
    note(segment.addr(), Segment::Pool);
    let records = round_up(SLICES * size_of::<Span>(), os::page_size());
    if !hardening(Hardening::Guard) || records >= SLICE {
        return 0;
    }
    let base = segment.addr();
    let mut guards = 0;
    // SAFETY: whole pages of free slices, and of slice 0 those behind the records.
    unsafe {
        os::guard(base + records, SLICE - records, true);
        if guards_all() {
            let slices = (*segment).slices as usize;
            (*segment).unused = (*segment).free;
            if !os::mark(base + SLICE, (slices - 1) * SLICE, true) {
                (*segment).unused = 0;
            }
        }
        if !number.is_multiple_of(SMALL) {
            return 0;
        }
        for slice in (GUARD_EVERY..(*segment).slices as usize).step_by(GUARD_EVERY) {
            if guard_is_due() {
                (*segment).free &= !(1 << slice);
                if os::guard(base + slice * SLICE, SLICE, true) {
                    guards += 1;
                } else {
                    (*segment).free |= 1 << slice;
                }
            }
        }
    }
    guards
}

/// Lets slices of a segment be touched that nobody used before.
///
/// # Safety
/// The segment is the caller's, and the `len` slices from `start` on are free.
pub(crate) unsafe fn begin_to_use(segment: &mut Header, start: usize, len: usize) {
    let bits = (u128::MAX >> (SLICES - len)) << start;
    if segment.unused & bits != 0 {
        let base = core::ptr::from_mut(segment).addr();
        // SAFETY: the caller's promise; slices that were used lose nothing by it.
        unsafe { os::mark(base + start * SLICE, len * SLICE, false) };
        segment.unused &= !bits;
    }
}

/// Makes the `blocks` of a run look as if no byte of it had ever been used, as far as checks look, and
/// guards its last slice if it has `guarded` slices (0: no guard).
///
/// # Safety
/// The run is the caller's and holds that many blocks of `size` bytes, none in a guarded slice.
pub(crate) unsafe fn prepare_blocks(run: &Run, size: usize, blocks: usize, guarded: usize) {
    let base = slice_of(run.head);
    // SAFETY: the last word of blocks of the caller's; sizes are multiples of 16. A guard that the
    // kernel refuses is one check less.
    unsafe {
        if !run.zeroed {
            for block in 1..=blocks {
                base.add(block * size - TRAILER).cast::<u64>().write(0);
            }
        }
        if guarded > 0 && guard_is_due() {
            os::guard(base.addr() + (guarded - 1) * SLICE, SLICE, true);
        }
    }
}

/// Clears the trailers of as many `blocks` of `size` bytes, which are free: whoever gets the memory next could tell
/// the secret from them.
///
/// # Safety
/// The blocks are the caller's, and `base` is where the first one begins.
pub(crate) unsafe fn clear_trailers(base: *mut u8, size: usize, blocks: u32) {
    let mut end = base;
    for _ in 0..blocks {
        // SAFETY: the last word of a block of the caller's; sizes are multiples of 16. Of a block that was never
        // used no page is touched.
        unsafe {
            end = end.add(size);
            let trailer = end.sub(TRAILER).cast::<u64>();
            if trailer.read() != 0 {
                trailer.write(0);
            }
        }
    }
}

/// Takes the guard of a span of `guarded` slices away, also where there is none. False if the kernel keeps it:
/// the last slice can never be used again.
///
/// # Safety
/// The span is the caller's and holds nothing that anybody needs.
pub(crate) unsafe fn unguard(span: *mut Span, guarded: usize) -> bool {
    // SAFETY: the caller's promise.
    unsafe { unguard_of_pages(span, guarded, os::page_size()) }
}

/// As [`unguard`], on pages of `page` bytes.
///
/// # Safety
/// As there.
unsafe fn unguard_of_pages(span: *mut Span, guarded: usize, page: usize) -> bool {
    // Where a slice is no whole page none was ever guarded.
    if guarded == 0 || !SLICE.is_multiple_of(page) {
        return true;
    }
    // SAFETY: the caller's promise.
    unsafe { os::guard(slice_of(span).addr() + (guarded - 1) * SLICE, SLICE, false) }
}

#[cfg(test)]
mod tests {
    use super::super::header_of;
    use super::super::pool::{Origin, Pool};
    use super::*;
    use crate::os::{Kernel, Linux};

    /// Whether the first and the last word of a slice can be read.
    fn touchable(slice: usize) -> bool {
        os::is_readable(slice) && os::is_readable(slice + SLICE - 8)
    }

    /// Whether the kernel marks pages as untouchable.
    fn kernel_marks() -> bool {
        let at = Linux.map(0, SLICE).expect("memory");
        // SAFETY: mapped just now, and nobody else's.
        unsafe {
            let marks = os::mark(at, SLICE, true);
            Linux.unmap(at, SLICE).expect("mapped just now");
            marks
        }
    }

    /// A pool that gave out one run of `len` slices; the run's record, its first slice and its segment. None
    /// where the kernel does not mark.
    fn first_run(len: usize) -> Option<(Pool<Linux>, *mut Span, usize, *mut Header)> {
        let pool = Pool::new(Linux);
        pool.configure(1, Origin::Map, None);
        pool.configure_purge(0, 0);
        let head = pool.allocate(len).expect("memory").head;
        let slice = slice_of(head);
        kernel_marks().then_some((pool, head, slice.addr(), header_of(slice)))
    }

    #[test]
    fn slices_may_be_touched_from_their_first_use_on_and_also_once_they_are_purged() {
        let Some((pool, head, slice, segment)) = first_run(3) else { return };
        assert!((0..3).all(|number| touchable(slice + number * SLICE)));
        let end = segment.addr() + SEGMENT;
        assert!((slice + 3 * SLICE..end).step_by(SLICE).all(|unused| !touchable(unused)));
        // SAFETY: the run came from this pool and is dropped here.
        unsafe { pool.release(head, 3) };
        pool.purge_all();
        assert!((0..3).all(|number| touchable(slice + number * SLICE)));
        let all = pool.allocate(SLICES - 1).expect("memory");
        assert_eq!(slice_of(all.head).addr(), slice);
        assert!((slice..end).step_by(SLICE).all(touchable));
    }

    #[test]
    fn no_slice_is_lost_where_none_is_a_whole_page_and_so_none_was_guarded() {
        let Some((_pool, head, slice, _)) = first_run(3) else { return };
        // SAFETY: the run is this test's.
        unsafe {
            assert!(os::guard(slice + 2 * SLICE, SLICE, true));
            assert!(unguard_of_pages(head, 3, 2 * SLICE) && !touchable(slice + 2 * SLICE));
            assert!(unguard_of_pages(head, 3, os::page_size()) && touchable(slice + 2 * SLICE));
        }
    }

    #[test]
    fn a_guard_on_locked_pages_which_no_kernel_marks_is_taken_away_as_any_other() {
        let at = Linux.map(0, 2 * SLICE).expect("memory");
        // SAFETY: mapped just now, and nobody else's.
        unsafe {
            if libc::mlock(at as *const libc::c_void, SLICE) != 0 {
                std::println!("skipped: no right to lock {SLICE} bytes");
                return;
            }
            for slice in [at, at + SLICE] {
                assert!(os::guard(slice, SLICE, true) && !touchable(slice));
                assert!(os::guard(slice, SLICE, false) && touchable(slice));
            }
            Linux.unmap(at, 2 * SLICE).expect("mapped just now");
        }
    }

    #[test]
    fn a_fork_between_a_mark_and_its_note_leaves_no_slice_that_is_used_and_marked() {
        let Some((pool, _, slice, segment)) = first_run(1) else { return };
        // SAFETY: the segment is the pool's, whose only user is this thread.
        unsafe {
            // As a child sees it whose parent was just taking the next two slices.
            os::mark(slice + SLICE, 2 * SLICE, false);
            assert_eq!((*segment).unused >> 2 & 3, 3, "noted after the system call");
        }
        let next = pool.allocate(2).expect("memory");
        assert_eq!(slice_of(next.head).addr(), slice + SLICE);
        assert!(touchable(slice + SLICE) && touchable(slice + 2 * SLICE));
        // SAFETY: as above.
        unsafe { assert_eq!((*segment).unused & 0b1111, 0) };
    }
}
