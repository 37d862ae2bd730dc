//! The `allocator_…` functions of `include/allocator.h`: what a program says to this allocator in particular.

use crate::errno;
use crate::text::{Sink, Text};
use allocator::heap::{self, InForce};
use core::ffi::{CStr, c_char, c_int};

/// The heap's counters at one moment, in bytes.
#[derive(Clone, Copy)]
pub(crate) struct Picture {
    /// In live objects.
    pub(crate) live: usize,
    /// Held ready for objects.
    pub(crate) committed: usize,
    /// Address space taken from the kernel.
    pub(crate) mapped: usize,
    /// Dirty and free: what a trim gives back.
    pub(crate) cached: usize,
    /// Given back to the kernel so far, in all.
    pub(crate) purged: usize,
    /// Objects with a mapping of their own (a number), which `live` and `committed` count as their pages do.
    pub(crate) huge_objects: usize,
    /// In those objects' pages.
    pub(crate) huge: usize,
    /// In their mappings.
    pub(crate) huge_mapped: usize,
}

impl Picture {
    /// Reads the counters.
    pub(crate) fn take() -> Self {
        let now = heap::statistics();
        Self {
            live: now.live,
            committed: now.committed,
            mapped: now.mapped,
            cached: now.cached,
            purged: now.purged,
            huge_objects: now.huge_objects,
            huge: now.huge,
            huge_mapped: now.huge_mapped,
        }
    }

    /// Bytes held, in use or free, but for objects with a mapping of their own, as glibc counts an arena.
    pub(crate) fn arena(&self) -> usize {
        self.committed.saturating_sub(self.huge) + self.cached
    }

    /// Live bytes in the arena.
    pub(crate) fn arena_live(&self) -> usize {
        self.live.saturating_sub(self.huge)
    }

    /// Bytes of the arena in which no object lives.
    pub(crate) fn free(&self) -> usize {
        self.arena().saturating_sub(self.arena_live())
    }
}

/// `struct allocator_statistics` of the header.
#[repr(C)]
struct Statistics {
    live_bytes: u64,
    committed_bytes: u64,
    mapped_bytes: u64,
    cached_bytes: u64,
    purged_bytes: u64,
    lock_acquisitions: u64,
    lock_waits: u64,
    lock_wait_ns: u64,
}

/// Makes the allocator ready; 0, or -1 with `errno`.
///
/// Nothing needs it (the first allocation does the same). A program that calls it learns early whether there is
/// memory at all.
#[unsafe(no_mangle)]
extern "C" fn allocator_init() -> c_int {
    let p = heap::allocate(1);
    if p.is_null() {
        errno::set(libc::ENOMEM);
        return -1;
    }
    // SAFETY: `p` was allocated above and is used nowhere else.
    unsafe { heap::deallocate(p) };
    0
}

/// Gives cached memory back to the kernel. Live objects stay valid and the allocator stays usable.
#[unsafe(no_mangle)]
extern "C" fn allocator_cleanup() {
    heap::trim();
}

/// Applies one setting, `name=value` as in `ALLOCATOR_OPTIONS`; 0, or -1 with `EINVAL` when it is not understood or
/// comes too late.
///
/// # Safety
/// `setting` is null or a terminated string.
#[unsafe(no_mangle)]
unsafe extern "C" fn allocator_configure(setting: *const c_char) -> c_int {
    if !setting.is_null() {
        // SAFETY: a terminated string by the caller's contract.
        let setting = unsafe { CStr::from_ptr(setting) };
        if heap::configure(setting.to_bytes()) {
            return 0;
        }
    }
    errno::set(libc::EINVAL);
    -1
}

/// Walks the heap (`heap::check` says what of it); 0 when it is sound, else -1 with the first fault in one line on standard error.
#[unsafe(no_mangle)]
extern "C" fn allocator_check() -> c_int {
    let Err((fault, address)) = heap::check() else {
        return 0;
    };
    let kept = errno::get();
    let mut text = Text::new(Sink::Descriptor(2));
    text.put("allocator: the heap is damaged: ")
        .put(fault)
        .put(" at ")
        .hexadecimal(address)
        .put("\n");
    text.finish();
    errno::set(kept);
    -1
}

/// Writes the counters to standard error.
#[unsafe(no_mangle)]
extern "C" fn allocator_stats() {
    let kept = errno::get();
    let mut text = Text::new(Sink::Descriptor(2));
    describe(&mut text, &Picture::take());
    text.finish();
    errno::set(kept);
}

/// Fills the first `size` bytes of `out`; returns 0, or -1 with `EINVAL`.
///
/// `size` is `sizeof(struct allocator_statistics)` as the caller knows it: fields are only ever added at the end.
///
/// # Safety
/// `out` is null or `size` writable bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn allocator_get_stats(out: *mut Statistics, size: usize) -> c_int {
    if out.is_null() || size < size_of::<u64>() {
        errno::set(libc::EINVAL);
        return -1;
    }
    let now = heap::statistics();
    let full = Statistics {
        live_bytes: now.live as u64,
        committed_bytes: now.committed as u64,
        mapped_bytes: now.mapped as u64,
        cached_bytes: now.cached as u64,
        purged_bytes: now.purged as u64,
        lock_acquisitions: now.locks_taken as u64,
        lock_waits: now.locks_waited as u64,
        lock_wait_ns: now.lock_wait_ns as u64,
    };
    let known = size.min(size_of::<Statistics>());
    // SAFETY: `out` has `size >= known` writable bytes by contract; `full` has at least `known`.
    unsafe {
        core::ptr::copy_nonoverlapping((&raw const full).cast::<u8>(), out.cast::<u8>(), known);
        out.cast::<u8>().add(known).write_bytes(0, size - known);
    }
    0
}

/// The version of the library, `major.minor.patch`.
#[unsafe(no_mangle)]
extern "C" fn allocator_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

/// Appends the mode in force, one line, spelt as options are.
fn describe_mode(text: &mut Text) {
    match heap::in_force() {
        InForce::Production { hardened } => {
            text.put("  mode=production").put(if hardened { " (hardened build)\n" } else { "\n" });
        }
        InForce::Classic { placement, lock, cache, deferred } => {
            text.put("  mode=classic,placement=").put(placement).put(",lock=").put(lock);
            text.put(if cache { ",cache=on" } else { ",cache=off" });
            text.put(if deferred { ",coalesce=deferred\n" } else { ",coalesce=immediate\n" });
        }
    }
}

/// Appends the statistics as lines for people.
pub(crate) fn describe(text: &mut Text, now: &Picture) {
    text.put("allocator ").put(env!("CARGO_PKG_VERSION")).put("\n");
    describe_mode(text);
    for (name, bytes) in [
        ("live      bytes in objects          ", now.live),
        ("committed bytes held ready          ", now.committed),
        ("mapped    bytes of address space    ", now.mapped),
        ("cached    bytes a trim gives back   ", now.cached),
        ("purged    bytes given back so far    ", now.purged),
    ] {
        text.put("  ").put(name).padded(bytes, 16).put("\n");
    }
    let locks = heap::statistics();
    text.put("  locks taken ").number(locks.locks_taken);
    text.put(", waited for ").number(locks.locks_waited);
    if locks.lock_wait_ns > 0 {
        text.put(", for ").number(locks.lock_wait_ns).put(" ns in all");
    }
    text.put("\n");
}
