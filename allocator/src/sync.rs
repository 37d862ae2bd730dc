//! The one switch between core's atomics and loom's.

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering,
};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering,
};

/// The ordering of one step of a protocol; `step` names it, so that models can weaken it and show
/// that they notice.
#[cfg(not(loom))]
#[inline(always)]
pub(crate) const fn order(_step: &'static str, right: Ordering) -> Ordering {
    right
}

#[cfg(loom)]
std::thread_local! {
    /// The step that the model running on this thread weakens.
    static WEAKENED: core::cell::Cell<&'static str> = const { core::cell::Cell::new("") };
}

/// As without loom, but relaxed where [`weaken`] said so.
#[cfg(loom)]
pub(crate) fn order(step: &'static str, right: Ordering) -> Ordering {
    if WEAKENED.get() == step { Ordering::Relaxed } else { right }
}

/// Makes `step` relaxed in what this thread models from here on.
#[cfg(loom)]
pub(crate) fn weaken(step: &'static str) {
    WEAKENED.set(step);
}
