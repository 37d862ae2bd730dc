//! What can be given up in whole pages; when memory is short, what is free goes back to the kernel, address
//! and all, and runs are as long as there are any; and what a fork does to a pool.

use super::{Pool, Run, State, low_bits};
use crate::os::Kernel;
use crate::segment::{Header, NOBODY};
use crate::sync::Ordering;
use crate::units::{SLICE, SLICES, pages_within, round_up};

/// The slices of `due` that can be given up alone: all where a page is no larger than a slice, else whole
/// pages of slices that are free.
#[inline]
pub(super) fn whole_pages(due: u128, free: u128, page: usize) -> u128 {
    if page <= SLICE {
        return due;
    }
    let mut whole = 0;
    let mut slices = low_bits(page / SLICE);
    while slices != 0 {
        if due & slices != 0 && free & slices == slices {
            whole |= slices;
        }
        slices <<= page / SLICE;
    }
    whole
}

impl<K: Kernel> Pool<K> {
    /// When memory is short: the longest run of `least` to `most` slices, of a new segment only if the others
    /// have none.
    #[cold]
    pub(crate) fn allocate_longest(&self, least: usize, most: usize) -> Option<Run> {
        let longest = |state: &mut State| (least..=most).rev().find_map(|len| state.find(len));
        let mut state = self.state.lock();
        let dirty = state.dirty_slices;
        let run = longest(&mut state).or_else(|| {
            self.grow(&mut state, least)?;
            longest(&mut state)
        })?;
        self.count_fresh(run.len as usize + state.dirty_slices - dirty);
        Some(run)
    }

    /// Unmaps the whole pages of the `lead` bytes in front of a segment from the break: limits count them.
    ///
    /// # Safety
    /// They are mapped, the caller's, and of no use.
    pub(super) unsafe fn unmap_lead(&self, segment: usize, lead: usize) {
        if let Some((start, len)) = pages_within(segment - lead, lead, self.kernel.page_size()) {
            // SAFETY: the caller's promise. What the kernel keeps costs nothing but address space.
            let _ = unsafe { self.kernel.unmap(start, len) };
        }
    }

    /// Unmaps segments that are wholly free and the free end of the others.
    ///
    /// An address limit counts what is mapped, used or not, and so does a kernel that promises no
    /// more than it has. Segments of the break go the same way: the break itself stays where it is.
    pub(crate) fn release_free(&self) {
        let mut state = self.state.lock();
        for index in (0..state.directory.count()).rev() {
            let segment = state.directory.get(index);
            // SAFETY: headers belong to the pool, and its lock is held; nobody uses free slices.
            unsafe {
                let slices = (*segment).slices as usize;
                let end = (*segment).free << (SLICES - slices);
                match (end.leading_ones() as usize).min(slices - 1) {
                    0 => {}
                    free if free == slices - 1 => self.release_whole(&mut state, segment, index),
                    free => self.release_end(&mut state, segment, free),
                }
            }
        }
        // Segments may have moved down in the directory.
        state.hints = [0; SLICES + 1];
    }

    /// # Safety
    /// `segment` is the pool's, at `index`, and all its slices are free.
    unsafe fn release_whole(&self, state: &mut State, segment: *mut Header, index: u32) {
        // SAFETY: the caller's promise. Nothing names the segment any more when it is unmapped, so
        // that a fork at any point finds a directory of mapped segments.
        unsafe {
            let dirty = (*segment).dirty.count_ones() as usize;
            let len = (*segment).slices as usize * SLICE;
            state.dirty_slices -= dirty;
            state.directory.remove(index);
            #[cfg(feature = "hardened")]
            crate::segment::forget(segment.addr());
            if self.kernel.unmap(segment.addr(), len).is_ok() {
                state.purged += dirty * SLICE;
                return;
            }
            #[cfg(feature = "hardened")]
            crate::segment::note(segment.addr(), crate::segment::Segment::Pool);
            // There was room for it a moment ago.
            (*segment).index = state.directory.count();
            state.directory.push(segment);
            state.dirty_slices += dirty;
        }
    }

    /// # Safety
    /// `segment` is the pool's, and its last `free` slices, fewer than all, are free.
    unsafe fn release_end(&self, state: &mut State, segment: *mut Header, free: usize) {
        // SAFETY: the caller's promise; as in `release_whole` the books come first.
        unsafe {
            let header = &mut *segment;
            let slices = header.slices as usize;
            // The kernel takes whole pages, which may be of several slices.
            let keep = round_up(slices - free, (self.kernel.page_size() / SLICE).max(1));
            let free = slices - keep;
            if free == 0 {
                return;
            }
            let gone = low_bits(free) << keep;
            let dirty = header.dirty & gone;
            let dirty_count = dirty.count_ones() as usize;
            header.free &= !gone;
            header.dirty &= !gone;
            header.old &= !gone;
            header.slices = keep as u16;
            state.dirty_slices -= dirty_count;
            if self.kernel.unmap(segment.addr() + keep * SLICE, free * SLICE).is_ok() {
                state.purged += dirty_count * SLICE;
            } else {
                header.free |= gone;
                header.dirty |= dirty;
                header.slices = slices as u16;
                state.dirty_slices += dirty_count;
            }
        }
    }

    /// In a child that was not told of its fork: if a thread that does not exist here was changing
    /// the pool, counts everything anew.
    pub(crate) fn mend(&self) {
        self.state.mend(|state| {
            state.directory.mend();
            (state.used, state.dirty_slices) = (0, 0);
            for index in 0..state.directory.count() {
                // SAFETY: segments in the directory are mapped, and nobody else changes them.
                let header = unsafe { &mut *state.directory.get(index) };
                header.index = index;
                header.owner.store(NOBODY, Ordering::Relaxed);
                // Which free slices hold pages may not have been noted yet: all may.
                header.dirty = header.free;
                header.old = 0;
                let free = header.free.count_ones() as usize;
                state.dirty_slices += free;
                state.used += (header.slices as usize).saturating_sub(1 + free);
            }
            state.hints = [0; SLICES + 1];
        });
    }
}
