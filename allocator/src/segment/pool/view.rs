//! What is in use, for those who look at the heap from outside.

use super::Pool;
use crate::os::Kernel;
use crate::segment::{Header, Kind, Span};
use crate::units::SLICES;

impl<K: Kernel> Pool<K> {
    /// Calls `look` with the header of segment `index` while the pool is locked; `None` past the
    /// last. Between two calls segments may come, go and change places.
    pub(crate) fn look_at<R>(
        &self,
        index: u32,
        look: impl FnOnce(*const Header) -> R,
    ) -> Option<R> {
        let state = self.state.lock();
        (index < state.directory.count()).then(|| look(state.directory.get(index)))
    }

    /// How many segments there are.
    pub(crate) fn segments(&self) -> u32 {
        self.state.lock().directory.count()
    }

    /// Calls `visit` with the first record of each span in use; the pool is locked meanwhile.
    pub(crate) fn for_each_span(&self, mut visit: impl FnMut(*mut Span)) {
        let state = self.state.lock();
        for segment in state.segments() {
            // SAFETY: headers belong to the pool, and its lock is held.
            let (free, slices) = unsafe { ((*segment).free, (*segment).slices as usize) };
            let mut slice = 1;
            while slice < slices {
                let head = segment.cast::<Span>().wrapping_add(slice);
                slice += 1;
                if (free >> (slice - 1)) & 1 == 0 {
                    visit(head);
                    // SAFETY: as above; a racing change only makes the walk look once more.
                    let (kind, length) = unsafe { ((*head).kind, (*head).live as usize) };
                    if kind == Kind::Bitmap {
                        slice += length.clamp(1, SLICES) - 1;
                    }
                }
            }
        }
    }

    /// Whether the calling thread was interrupted while it held the pool.
    pub(crate) fn is_held_by_us(&self) -> bool {
        self.state.is_held_by_us()
    }
}
