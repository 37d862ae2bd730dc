//! The list of a pool's segments.

use core::ptr::{self, null_mut};
use core::sync::atomic::compiler_fence;

use crate::os::Kernel;
use crate::segment::Header;
use crate::sync::Ordering;

const INLINE: usize = 32;
/// Of a chunk only the pages in use cost more than address space.
const CHUNK: usize = 4096;
const CHUNKS: usize = 256;
/// Segments there may be: 4 TiB.
#[cfg(test)]
pub(super) const CAPACITY: usize = INLINE + CHUNK * CHUNKS;

/// Segment `i`, for ever at the same place, without a table sized for the worst case.
#[derive(Debug)]
pub(super) struct Directory {
    count: u32,
    first: [*mut Header; INLINE],
    chunks: [*mut *mut Header; CHUNKS],
}

impl Directory {
    pub(super) const EMPTY: Directory =
        Directory { count: 0, first: [null_mut(); INLINE], chunks: [null_mut(); CHUNKS] };

    /// Number of segments.
    #[inline(always)]
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// Segment `index`, which is below the count.
    pub(super) fn get(&self, index: u32) -> *mut Header {
        let i = index as usize;
        debug_assert!(index < self.count);
        // SAFETY: `index < count`, and `push` filled every slot below `count`.
        unsafe {
            if i < INLINE {
                *self.first.get_unchecked(i)
            } else {
                *self.chunks.get_unchecked((i - INLINE) / CHUNK).add((i - INLINE) % CHUNK)
            }
        }
    }

    /// Makes room for one more segment; false when no memory or no slot is left.
    pub(super) fn make_room<K: Kernel>(&mut self, kernel: &K) -> bool {
        let Some(beyond) = (self.count as usize).checked_sub(INLINE) else { return true };
        let Some(chunk) = self.chunks.get_mut(beyond / CHUNK) else { return false };
        if chunk.is_null() {
            let Ok(table) = kernel.map(0, CHUNK * size_of::<*mut Header>()) else { return false };
            *chunk = ptr::with_exposed_provenance_mut(table);
        }
        true
    }

    /// Appends a segment, for which [`Directory::make_room`] made room.
    pub(super) fn push(&mut self, segment: *mut Header) {
        self.set(self.count, segment);
        // In this order, in which a fork finds them too.
        compiler_fence(Ordering::Release);
        self.count += 1;
    }

    fn set(&mut self, index: u32, segment: *mut Header) {
        let i = index as usize;
        if let Some(slot) = self.first.get_mut(i) {
            *slot = segment;
        } else if let Some(chunk) = self.chunks.get((i - INLINE) / CHUNK) {
            // SAFETY: `make_room` saw to the chunk, which holds CHUNK slots; the remainder is below that.
            unsafe { *chunk.add((i - INLINE) % CHUNK) = segment };
        }
    }

    /// Takes a segment out; the last one takes its place.
    pub(super) fn remove(&mut self, index: u32) {
        let last = self.get(self.count - 1);
        self.set(index, last);
        // SAFETY: the last segment is the pool's.
        unsafe { (*last).index = index };
        // As in `push`.
        compiler_fence(Ordering::Release);
        self.count -= 1;
    }

    /// After a fork that interrupted [`Directory::remove`]: the last segment, if it has taken its place already, is
    /// listed once.
    pub(super) fn mend(&mut self) {
        let Some(others) = self.count.checked_sub(1) else { return };
        if (0..others).any(|index| self.get(index) == self.get(others)) {
            self.count = others;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_that_has_taken_the_place_of_one_removed_is_listed_once_after_a_fork() {
        let mut directory = Directory::EMPTY;
        directory.mend();
        assert_eq!(directory.count(), 0);
        let segments = [1, 2, 3].map(|address| ptr::without_provenance_mut(address << 22));
        for segment in segments {
            directory.push(segment);
        }
        directory.mend();
        assert_eq!(directory.count(), 3);
        directory.set(0, segments[2]);
        directory.mend();
        let left: [_; 2] = core::array::from_fn(|index| directory.get(index as u32));
        assert_eq!((directory.count(), left), (2, [segments[2], segments[1]]));
    }
}
