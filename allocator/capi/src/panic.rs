//! What a panic would do: nothing, for there is none.
//!
//! With the feature `preload` the handler calls a symbol that exists nowhere and the library is linked with
//! `-z defs`, so a panic that the optimiser could not prove away is a link error that names
//! `allocator_a_panic_is_reachable`. Without the feature (static library, experiments) it aborts silently:
//! printing or unwinding inside `malloc` would only hide the first fault behind a second.
//!
//! A plain `cargo build --workspace` unwinds, has `std`, and takes std's handler.
#![cfg(all(panic = "abort", not(test)))]

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    #[cfg(feature = "preload")]
    {
        unsafe extern "C" {
            fn allocator_a_panic_is_reachable() -> !;
        }
        // SAFETY: never linked, hence never executed: see the header.
        unsafe { allocator_a_panic_is_reachable() }
    }
    #[cfg(not(feature = "preload"))]
    // SAFETY: `abort` takes nothing and does not return.
    unsafe {
        libc::abort()
    }
}
