//! What is asked of the whole process: options, giving back, checking.

use super::routing::own_heap;
use crate::classic;
use crate::options::Options;
use crate::os::{self, unwatched};
use crate::thread::{GLOBAL, Tls};

/// Says that this library serves malloc for the whole process, so that it may use `sbrk`. To be
/// called before the first allocation; later it changes nothing.
pub fn own_the_break() {
    GLOBAL.own_the_break();
}

/// Applies one option, `name=value` as in `ALLOCATOR_OPTIONS`, while the process runs; false if it
/// is not understood, or if it counts only before the first allocation, comes later and says something else
/// than what is in force.
pub fn configure(setting: &[u8]) -> bool {
    GLOBAL.configure(setting)
}

/// Lets `hook`, which may not allocate, see the options when the first allocation has read them: at once, if that is
/// over.
pub fn call_when_ready(hook: fn(&Options)) {
    GLOBAL.call_when_ready(hook);
}

/// The options in force.
pub fn options() -> Options {
    GLOBAL.options()
}

/// Gives everything that is free back to the kernel, where address space is scarce with its addresses; whether any of
/// it held pages. Free blocks below 32 KiB in spans in use go back as well, but do not count: nobody notes which did.
pub fn trim() -> bool {
    unwatched(give_back)
}

fn give_back() -> bool {
    if classic::is_configured() {
        return classic::trim(0);
    }
    let before = GLOBAL.purged();
    let tls = Tls::here();
    // Who looks after the heaps of others has one. Where there is none at all, none is made.
    let heap = if GLOBAL.registry().is_empty() { tls.heap() } else { own_heap(tls) };
    if !heap.is_null() {
        // SAFETY: this thread's heap.
        unsafe { (*heap).rest_everywhere(tls) };
    }
    if os::address_space_is_scarce() {
        // The program may want to map something itself.
        GLOBAL.relieve();
    }
    GLOBAL.purge_all();
    GLOBAL.purged() != before
}

/// Walks the heap: every segment with the records of its slices and spans; the lists of all threads' heaps, and of
/// those whose threads have ended; and the free blocks of the latter and of the calling thread. Other threads may
/// go on meanwhile, so of theirs it looks at what is right at every moment, and at their lists while they are on no
/// slow path. It does not look at objects above 1 MiB, which no list names, nor at blocks that wait in a bin
/// or a quarantine. In classic mode it walks every block.
///
/// # Errors
/// The first broken invariant, and the address where it shows (0 where there is none).
pub fn check() -> Result<(), (&'static str, usize)> {
    unwatched(walk)
}

fn walk() -> Result<(), (&'static str, usize)> {
    if classic::is_configured() {
        return classic::check().map(drop).map_err(|fault| (fault.kind.what(), fault.address));
    }
    // SAFETY: this thread's heap.
    unsafe { GLOBAL.check(Tls::here().heap()) }
}
