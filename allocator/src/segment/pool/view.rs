//! What is in use, for those who look at the heap from outside.

use super::{Pool, State};
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
    pub(crate) fn for_each_span(&self, visit: impl FnMut(*mut Span)) {
        self.state.lock().for_each_span(visit);
    }

    /// As [`Pool::for_each_span`] in a child of a fork, for whom mends what threads of the parent were changing.
    /// Nothing where the caller was interrupted while it held the pool.
    ///
    /// # Safety
    /// The pool was mended, and the child has taken no lock since.
    pub(crate) unsafe fn for_each_span_to_mend(&self, visit: impl FnMut(*mut Span)) {
        if !self.state.is_held_by_us() {
            // SAFETY: the caller's promise; who held it does not exist here.
            unsafe { self.state.value_unlocked() }.for_each_span(visit);
        }
    }

    /// Whether the calling thread was interrupted while it held the pool.
    pub(crate) fn is_held_by_us(&self) -> bool {
        self.state.is_held_by_us()
    }
}

impl State {
    fn for_each_span(&self, mut visit: impl FnMut(*mut Span)) {
        for segment in self.segments() {
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
}
