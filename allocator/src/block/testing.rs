//! A source of regions for tests: memory from the test's own allocator, with failures on demand.
extern crate std;
use super::region::{Added, Extent, Source};
use std::alloc::{Layout, alloc, dealloc};
use std::vec::Vec;

/// Regions of at least `chunk` bytes, of which `step` are committed at first.
#[derive(Debug)]
pub(crate) struct TestSource {
    chunk: usize,
    step: usize,
    /// Bytes that may still be handed out.
    pub(crate) budget: usize,
    live: Vec<(usize, usize)>,
}

const ALIGN: usize = 4096;

impl TestSource {
    pub(crate) fn new(chunk: usize, step: usize, budget: usize) -> Self {
        Self { chunk, step, budget, live: Vec::new() }
    }
}

impl Drop for TestSource {
    fn drop(&mut self) {
        for (base, bytes) in self.live.drain(..) {
            let layout = Layout::from_size_align(bytes, ALIGN).unwrap();
            // SAFETY: allocated below with this layout and freed once.
            unsafe { dealloc(core::ptr::with_exposed_provenance_mut(base), layout) };
        }
    }
}

// SAFETY: each region is an allocation of its own, kept until `release` or drop; `extend` stays
// inside it.
unsafe impl Source for TestSource {
    fn acquire(&mut self, bytes: usize) -> Option<Extent> {
        let limit = (bytes + 4095).max(self.chunk) & !4095;
        let bytes = ((bytes + 4095) & !4095).max(self.step).min(limit);
        self.budget = self.budget.checked_sub(bytes)?;
        let layout = Layout::from_size_align(limit, ALIGN).ok()?;
        // SAFETY: the layout is not empty.
        let base = unsafe { alloc(layout) };
        // SAFETY: just allocated; filled so that nobody can rely on zeros that were not promised.
        unsafe { base.write_bytes(0xa5, limit) };
        let base = base.expose_provenance();
        self.live.push((base, limit));
        Some(Extent { base, bytes, limit, zeroed: false })
    }

    fn reach(&self, bytes: usize) -> usize {
        (bytes + 4095).max(self.chunk)
    }

    fn extend(&mut self, base: usize, end: usize, bytes: usize) -> Added {
        let limit = self.live.iter().find(|live| live.0 == base).map_or(0, |live| base + live.1);
        let bytes = (bytes + 4095) & !4095;
        let Some(left) = self.budget.checked_sub(bytes) else {
            return Added { bytes: 0, zeroed: false };
        };
        if end + bytes > limit {
            return Added { bytes: 0, zeroed: false };
        }
        self.budget = left;
        // SAFETY: the bytes behind `end` belong to the region's allocation and are in nobody's use.
        unsafe { core::ptr::with_exposed_provenance_mut::<u8>(end).write_bytes(0, bytes) };
        Added { bytes, zeroed: true }
    }

    fn shrink(&mut self, _base: usize, _end: usize, bytes: usize) -> usize {
        self.budget += bytes;
        bytes
    }

    fn release(&mut self, base: usize, bytes: usize, _limit: usize) -> bool {
        let Some(index) = self.live.iter().position(|live| live.0 == base) else { return false };
        let (base, limit) = self.live.swap_remove(index);
        let layout = Layout::from_size_align(limit, ALIGN).unwrap();
        // SAFETY: allocated above with this layout and freed once.
        unsafe { dealloc(core::ptr::with_exposed_provenance_mut(base), layout) };
        self.budget += bytes;
        true
    }
}
