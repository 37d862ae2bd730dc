//! One segment at a time, for those who look at the heap from outside.

use super::Pool;
use crate::os::Kernel;
use crate::segment::Header;

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

    /// Whether the calling thread was interrupted while it held the pool.
    pub(crate) fn is_held_by_us(&self) -> bool {
        self.state.is_held_by_us()
    }
}
