//! `allocator_on_fault`: a C program's own answer to a double free, an overflow or their like.
//!
//! Owns the address of the program's function. Cost: none, until a fault is found.

use allocator::fatal;
use core::ffi::{CStr, c_char, c_void};
use core::ptr::{null_mut, with_exposed_provenance_mut};
use core::sync::atomic::{AtomicPtr, Ordering};

/// What a program hands over: gets what was found as a terminated string that lasts for the call, the object's
/// address, and its size in bytes or 0.
type Callback = unsafe extern "C" fn(what: *const c_char, object: *mut c_void, size: usize);

static CALLBACK: AtomicPtr<()> = AtomicPtr::new(null_mut());

/// Hands every fault to `callback` instead of ending the process; null undoes it.
///
/// # Safety
/// `callback` is null or a function of this type, which stays for as long as it is registered.
#[unsafe(no_mangle)]
unsafe extern "C" fn allocator_on_fault(callback: Option<Callback>) {
    let raw = callback.map_or(null_mut(), |callback| callback as *mut ());
    CALLBACK.store(raw, Ordering::Release);
    fatal::on_fault(callback.map(|_| tell as fatal::Callback));
}

/// Passes a fault on, its words terminated as C expects.
fn tell(what: &'static str, address: usize, size: usize) {
    let raw = CALLBACK.load(Ordering::Acquire);
    if raw.is_null() {
        return;
    }
    let mut words = [0u8; 128];
    // One byte stays zero: it ends the string.
    for (to, from) in words.iter_mut().take(127).zip(what.bytes()) {
        *to = from;
    }
    let text = CStr::from_bytes_until_nul(&words).unwrap_or(c"fault");
    // SAFETY: `allocator_on_fault` alone stores here, and it stores a function of this type.
    let callback = unsafe { core::mem::transmute::<*mut (), Callback>(raw) };
    // SAFETY: the program's own promise when it registered the function; the string outlasts the call.
    unsafe { callback(text.as_ptr(), with_exposed_provenance_mut(address), size) };
}
