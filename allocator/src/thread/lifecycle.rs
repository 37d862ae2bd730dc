//! How a thread comes by a heap and what becomes of it when the thread ends.
//!
//! libc tells of a thread's end through a `pthread_key`: keys created early cost no allocation.
//! Destructors of other keys may allocate after ours ran; the thread then adopts a heap again and
//! arms the key again, as often as libc repeats its rounds. What is allocated after the last round
//! stays with a heap that names a dead thread; the next thread that needs a heap notices and takes
//! it.

use core::ffi::c_void;
use core::ptr::null_mut;

use super::global::GLOBAL;
use super::local::ThreadHeap;
use super::tls::Tls;
use crate::bitmap::Pages;
use crate::os::unwatched;
use crate::sync::{AtomicBool, AtomicU32, Ordering};

/// Whether a second heap was made and what needs one was set up.
static SECOND: AtomicBool = AtomicBool::new(false);
static KEY: AtomicU32 = AtomicU32::new(u32::MAX);

/// Creates the key, once.
pub(super) fn register() {
    let mut key = 0;
    // SAFETY: `end` has the type libc asks for and lives in an object that is never unloaded, see
    // `Allocator`.
    if unsafe { libc::pthread_key_create(&raw mut key, Some(end)) } == 0 {
        KEY.store(key, Ordering::Relaxed);
    }
}

/// Gives the calling thread a heap; null when memory is exhausted.
#[cold]
pub(crate) fn attach(tls: Tls) -> *mut ThreadHeap {
    GLOBAL.ensure_ready();
    let heap = GLOBAL.registry.obtain();
    if heap.is_null() {
        return null_mut();
    }
    if GLOBAL.registry().heaps() >= 2 && !SECOND.swap(true, Ordering::Relaxed) {
        GLOBAL.discover_nodes();
    }
    // SAFETY: the heap is this thread's now.
    unsafe { (*heap).upkeep.node.ask() };
    tls.attach(heap);
    arm(heap);
    heap
}

/// Asks libc to call [`end`] when this thread ends. Must follow `tls.attach`: with a late key libc
/// allocates its table through us.
fn arm(heap: *mut ThreadHeap) {
    let key = KEY.load(Ordering::Relaxed);
    if key != u32::MAX {
        // SAFETY: the key exists; failure only means that the heap is found later.
        unsafe { libc::pthread_setspecific(key, heap.cast::<c_void>()) };
    }
}

unsafe extern "C" fn end(_: *mut c_void) {
    let tls = Tls::here();
    let heap = tls.heap();
    if heap.is_null() {
        return;
    }
    tls.count_end();
    // SAFETY: the heap is this thread's until it is parked, and nothing here allocates.
    unwatched(|| unsafe {
        (*heap).rest(Pages::Stay, tls);
        tls.attach(null_mut());
        GLOBAL.registry.park(heap);
    });
}
