//! Giving the contents of free slices back to the kernel.

use super::scarce::whole_pages;
use super::{Pool, State, low_bits};
use crate::os::Kernel;
use crate::probe::fire;
use crate::segment::{Header, Span};
use crate::units::{SLICE, SLICES};

/// Bytes of a segment's records.
const RECORDS: usize = SLICES * size_of::<Span>();

impl<K: Kernel> Pool<K> {
    /// Purges dirty slices, highest segment first, until `goal` are left; only those an epoch old
    /// if `old_only`. Whether the kernel refused any.
    pub(super) fn purge_down_to(&self, state: &mut State, goal: usize, old_only: bool) -> bool {
        let mut refused = false;
        for index in (0..state.directory.count()).rev() {
            if state.dirty_slices <= goal {
                break;
            }
            let segment = state.directory.get(index);
            // SAFETY: headers belong to the pool, and its lock is held.
            unsafe {
                let which = if old_only { (*segment).old } else { (*segment).dirty };
                refused |= self.purge(state, segment, which);
            }
        }
        refused
    }

    /// Purges what is dirty of the slices `which`; whether the kernel refused any.
    ///
    /// # Safety
    /// `segment` is one of the pool's.
    pub(super) unsafe fn purge(
        &self,
        state: &mut State,
        segment: *mut Header,
        which: u128,
    ) -> bool {
        let mut refused = false;
        // SAFETY: dirty slices are free (invariant 1), so nobody needs their contents.
        unsafe {
            let due = which & (*segment).dirty;
            let page = self.kernel.page_size();
            let mut due = whole_pages(due, (*segment).free, page);
            let empty = low_bits((*segment).slices as usize) & !1;
            if due != 0 && page < RECORDS && (*segment).free == empty {
                // Of an empty segment only the header is needed: zeros are records of free slices.
                let _ = self.kernel.purge(segment.addr() + page, RECORDS - page);
            }
            while due != 0 {
                let start = due.trailing_zeros() as usize;
                let len = (!(due >> start)).trailing_zeros() as usize;
                let bits = low_bits(len) << start;
                due &= !bits;
                let address = segment.addr() + start * SLICE;
                if self.kernel.purge(address, len * SLICE).is_err() {
                    // Locked memory, say: it stays dirty and is reused as it is.
                    refused = true;
                    continue;
                }
                fire!("purge", address, len * SLICE);
                state.dirty_slices -= ((*segment).dirty & bits).count_ones() as usize;
                (*segment).dirty &= !bits;
                (*segment).old &= !bits;
                state.purged += len * SLICE;
            }
        }
        refused
    }
}
