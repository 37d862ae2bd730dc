//! What a pool holds, for those who look at all pools together, and giving back what is too much of it.

use super::{Pool, State};
use crate::os::Kernel;
use crate::sync::Ordering;
use crate::units::SLICE;

/// What a pool, or the floor of huge objects, holds: in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Held {
    pub(crate) used: usize,
    /// Highest `used` of late.
    pub(crate) peak: usize,
    /// Free, and likely to hold pages.
    pub(crate) spare: usize,
}

impl State {
    fn held(&self) -> Held {
        Held {
            used: self.used * SLICE,
            peak: self.peak.max(self.peak_before).max(self.used) * SLICE,
            spare: self.dirty_slices * SLICE,
        }
    }
}

impl<K: Kernel> Pool<K> {
    /// What it holds.
    pub(crate) fn held(&self) -> Held {
        self.state.lock().held()
    }

    /// What it holds; `None` while somebody changes that.
    pub(crate) fn held_now(&self) -> Option<Held> {
        Some(self.state.try_lock()?.held())
    }

    /// Counts slices without pages that are handed out.
    #[inline]
    pub(super) fn count_fresh(&self, slices: usize) {
        if slices != 0 {
            let before = self.fresh.load(Ordering::Relaxed);
            self.fresh.store(before.wrapping_add(slices as u32), Ordering::Relaxed);
        }
    }

    /// Bytes without pages that were handed out since somebody took this sum, if they are `many`; else 0.
    #[inline]
    pub(crate) fn take_fresh(&self, many: usize) -> usize {
        let slices = self.fresh.load(Ordering::Relaxed) as usize;
        if slices < many / SLICE {
            return 0;
        }
        self.fresh.store(0, Ordering::Relaxed);
        slices * SLICE
    }

    /// Purges at least `bytes` of what is free, or all if that is less, and begins with what was free for long;
    /// how many it were.
    pub(crate) fn shed(&self, bytes: usize) -> usize {
        if bytes == 0 {
            return 0;
        }
        let mut state = self.state.lock();
        let before = state.dirty_slices;
        let goal = before.saturating_sub(bytes.div_ceil(SLICE));
        self.purge_down_to(&mut state, goal, true);
        self.purge_down_to(&mut state, goal, false);
        (before - state.dirty_slices) * SLICE
    }
}
