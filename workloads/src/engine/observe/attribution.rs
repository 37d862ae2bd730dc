//! The attribution pass: what happened around the calls that a latency pass found slowest.
//!
//! Only those calls are looked at, each between two readings of the thread's own counters. The
//! readings are system calls, so the times of this pass are no measurement; and a second run is
//! not the first: a call that was slow then need not be slow now. Results are labelled as such.

use std::ffi::c_void;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use super::latency::{OpKind, SlowCall};
use super::{Observer, Shared};
use crate::engine::timer::Timer;

/// One call of the second run, at the place of a slow one of the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributed {
    /// The call of the first run.
    pub slow: SlowCall,
    /// How long it took this time, the readings left out.
    pub ns: u64,
    /// Page faults without disk during the call.
    pub minor_faults: u64,
    /// Page faults with disk.
    pub major_faults: u64,
    /// Context switches asked for, by waiting.
    pub voluntary_switches: u64,
    /// Context switches not asked for.
    pub involuntary_switches: u64,
}

/// Where all threads put what they found.
#[derive(Debug, Default)]
pub(crate) struct Findings(Mutex<Vec<Attributed>>);

impl Findings {
    /// Everything found, slowest of the first run first.
    pub(crate) fn report(self) -> Vec<Attributed> {
        let mut all = self.0.into_inner().unwrap_or_else(|e| e.into_inner());
        all.sort_unstable_by_key(|found| std::cmp::Reverse(found.slow));
        all
    }
}

/// Looks at the chosen calls of one thread.
#[derive(Debug)]
pub(crate) struct AttributionObserver {
    timer: Timer,
    /// The thread's chosen calls in the order of their places, last one first.
    wanted: Vec<SlowCall>,
    place: u64,
    found: Vec<Attributed>,
}

/// The calling thread's counters: faults without and with disk, switches asked for and not.
fn counters() -> [u64; 4] {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: `usage` is writable, and zeroed is a valid one.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr());
        usage.assume_init()
    };
    [usage.ru_minflt, usage.ru_majflt, usage.ru_nvcsw, usage.ru_nivcsw]
        .map(|n| u64::try_from(n).unwrap_or(0))
}

impl Observer for AttributionObserver {
    const SIZES: bool = true;

    fn new(shared: &Shared<'_>, id: usize) -> Self {
        let places = shared.places(id);
        let slow = shared.options.attribute.iter();
        let mut wanted: Vec<SlowCall> = slow
            .filter(|call| call.thread as usize == id && places.contains(&call.place))
            .copied()
            .collect();
        wanted.sort_unstable_by_key(|call| std::cmp::Reverse(call.place));
        let found = Vec::with_capacity(wanted.len());
        AttributionObserver { timer: shared.timer, wanted, place: places.start, found }
    }

    fn call(&mut self, _: OpKind, _: usize, call: impl FnOnce() -> *mut c_void) -> *mut c_void {
        let Some(slow) = self.wanted.pop_if(|slow| slow.place <= self.place) else {
            return call();
        };
        let before = counters();
        let start = self.timer.ticks();
        let result = call();
        let end = self.timer.ticks();
        let after = counters();
        let [minor_faults, major_faults, voluntary_switches, involuntary_switches] =
            std::array::from_fn(|i| after[i] - before[i]);
        self.found.push(Attributed {
            slow,
            ns: self.timer.ns(end.wrapping_sub(start)),
            minor_faults,
            major_faults,
            voluntary_switches,
            involuntary_switches,
        });
        result
    }

    fn place(&mut self) {
        self.place += 1;
    }

    fn finish(&mut self, shared: &Shared<'_>, _: usize) {
        if let Ok(mut all) = shared.findings.0.lock() {
            all.append(&mut self.found);
        }
    }
}
