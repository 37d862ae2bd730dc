//! The one switch between core's atomics and loom's.

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering,
};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering,
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
fn weaken(step: &'static str) {
    WEAKENED.set(step);
}

/// A model by its name.
#[cfg(all(test, loom))]
pub(crate) type Model = (&'static str, fn());

/// Whether `model` holds in every interleaving of two threads, and of three with at most three
/// preemptions.
#[cfg(all(test, loom))]
fn holds(model: fn()) -> bool {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    std::panic::catch_unwind(|| builder.check(model)).is_ok()
}

/// Every model must hold.
#[cfg(all(test, loom))]
pub(crate) fn all_hold(models: &[Model]) {
    weaken("");
    for (name, model) in models {
        assert!(holds(*model), "{name}");
    }
}

/// No model may hold: each says what a wrong order of steps would do.
#[cfg(all(test, loom))]
pub(crate) fn none_holds(models: &[Model]) {
    weaken("");
    for (name, model) in models {
        assert!(!holds(*model), "{name} holds though it is wrong");
    }
}

/// With any one of `steps` relaxed some model must fail.
#[cfg(all(test, loom))]
pub(crate) fn each_is_needed(steps: &[&'static str], models: &[Model]) {
    for step in steps {
        weaken(step);
        let noticed = models.iter().any(|(_, model)| !holds(*model));
        weaken("");
        assert!(noticed, "{step} may be relaxed and no model fails");
    }
}
