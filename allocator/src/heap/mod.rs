//! What every face of the library calls: allocating, freeing, asking.
//!
//! Routing decides which floor serves a request. In hardened builds `hardened` stands before it, under
//! the same names: it seals what is handed out and judges what comes back. In builds for valgrind
//! `memcheck` stands there, and tells it what is an object.

#[cfg(feature = "hardened")]
mod bounds;
#[cfg(feature = "hardened")]
mod hardened;
mod map;
#[cfg(feature = "valgrind")]
pub(crate) mod memcheck;
#[cfg(feature = "hardened")]
mod nothing;
#[cfg(feature = "hardened")]
mod place;
mod process;
mod relief;
mod report;
#[cfg_attr(
    any(feature = "hardened", feature = "valgrind"),
    expect(unreachable_pub, reason = "these builds take `reallocate` from elsewhere, as below")
)]
#[cfg_attr(feature = "valgrind", expect(dead_code, reason = "as above"))]
mod resize;
#[cfg_attr(
    any(feature = "hardened", feature = "valgrind"),
    expect(
        dead_code,
        unreachable_pub,
        reason = "these builds take functions of the same names from `hardened` or `memcheck`"
    )
)]
mod routing;
mod sampled;
#[cfg(feature = "hardened")]
mod seal;
#[cfg(not(feature = "hardened"))]
mod sized;
#[cfg(feature = "hardened")]
mod sound;
#[cfg(feature = "hardened")]
mod wipe;
#[cfg(feature = "hardened")]
mod zeros;

#[cfg(feature = "hardened")]
pub use bounds::may_write;
#[cfg(feature = "hardened")]
pub use hardened::{
    allocate, allocate_aligned, allocate_at_hand, allocate_ready, allocate_slowly,
    allocate_unready, allocate_zeroed, deallocate, deallocate_aligned, deallocate_known,
    deallocate_sized, reallocate, usable_size,
};
#[cfg(feature = "hardened")]
pub(crate) use hardened::{allocate_known, deallocate_layout};
pub use map::{SLICE_BYTES, SegmentMap, SpanMap, Use, for_each_segment};
#[cfg(feature = "valgrind")]
pub use memcheck::{
    allocate, allocate_aligned, allocate_at_hand, allocate_ready, allocate_slowly,
    allocate_unready, allocate_zeroed, deallocate, reallocate, usable_size,
};
#[cfg(feature = "valgrind")]
pub(crate) use memcheck::{allocate_known, deallocate_layout};
pub use process::{call_when_ready, check, configure, options, own_the_break, trim};
pub use report::{InForce, can_report, for_each_class, for_each_thread, in_force, statistics};
#[cfg(not(any(feature = "hardened", feature = "valgrind")))]
pub use resize::reallocate;
pub(crate) use resize::stays;
#[cfg(not(any(feature = "hardened", feature = "valgrind")))]
pub use routing::{
    allocate, allocate_aligned, allocate_at_hand, allocate_ready, allocate_slowly,
    allocate_unready, allocate_zeroed, deallocate, usable_size,
};
#[cfg(not(any(feature = "hardened", feature = "valgrind")))]
pub(crate) use routing::{allocate_known, deallocate_layout};
#[cfg(not(feature = "hardened"))]
pub use sized::{deallocate_aligned, deallocate_sized};

#[cfg(all(feature = "hardened", feature = "valgrind"))]
compile_error!("choose one of the features `hardened` and `valgrind`: both watch every object");

#[cfg(test)]
mod tests;
