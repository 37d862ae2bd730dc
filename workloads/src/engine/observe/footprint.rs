//! The footprint pass: live bytes, exactly, and places done, for the sampler.

use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering};

use super::latency::OpKind;
use super::{Birth, Observer, Shared};
use crate::engine::footprint::Live;

/// Keeps the count of live bytes.
#[derive(Debug)]
pub(crate) struct FootprintObserver {
    live: *const Live,
    places: *const AtomicU64,
    done: u64,
    usable_size: Option<unsafe extern "C" fn(*mut c_void) -> usize>,
}

impl FootprintObserver {
    #[inline(always)]
    fn live(&self) -> &Live {
        // SAFETY: `Shared` outlives every observer, and `Live` lies in it.
        unsafe { &*self.live }
    }

    /// What the allocator says an object can hold; 0 if it says nothing.
    fn room(&self, p: *mut u8) -> i64 {
        // SAFETY: `p` is live and of the allocator that serves this function.
        self.usable_size.map_or(0, |usable| i64::try_from(unsafe { usable(p.cast()) }).unwrap_or(0))
    }
}

impl Observer for FootprintObserver {
    const SIZES: bool = true;

    fn new(shared: &Shared<'_>, id: usize) -> Self {
        FootprintObserver {
            live: &raw const shared.live,
            places: &raw const shared.state(id).places,
            done: 0,
            usable_size: shared.calls.usable_size.filter(|_| !shared.calls.null),
        }
    }

    #[inline(always)]
    fn call(&mut self, _: OpKind, _: usize, call: impl FnOnce() -> *mut c_void) -> *mut c_void {
        call()
    }

    fn born(&mut self, _: usize, p: *mut u8, birth: Birth) {
        self.live().add(birth.size as u64);
        self.live().usable(self.room(p));
    }

    fn dying(&mut self, _: usize, p: *mut u8, size: usize) {
        self.live().subtract(size as u64);
        self.live().usable(-self.room(p));
    }

    fn survived(&mut self, _: usize, p: *mut u8, size: usize) {
        self.live().add(size as u64);
        self.live().usable(self.room(p));
    }

    fn place(&mut self) {
        self.done += 1;
        // SAFETY: `Shared` outlives every observer, and the counter lies in it.
        unsafe { &*self.places }.store(self.done, Ordering::Relaxed);
    }
}
