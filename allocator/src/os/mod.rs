//! Memory from the kernel, and the few other things only the kernel or libc knows.
//!
//! Owns nothing: ranges are returned to whoever asked. System calls are made raw, so `errno` stays
//! as it is and libc is not re-entered. The one exception is the program break: glibc caches it,
//! and a raw `brk` would make its next `sbrk` unmap our memory, so [`brk`] goes through libc.
//!
//! States of a range: reserved → committed ⇄ purged → released.

mod brk;
mod cgroup;
mod file;
mod loader;
mod numa;
#[cfg(test)]
mod paged;
mod scarcity;
mod syscall;
mod valgrind;

use core::fmt;

#[cfg(test)]
use crate::sync::AtomicU32;
use crate::sync::AtomicUsize;

pub(crate) use brk::extend_break;
pub(crate) use cgroup::memory_limit;
#[cfg(feature = "hardened")]
pub(crate) use syscall::{guard, mark};

pub(crate) use file::File;
pub(crate) use loader::{Object, is_readable, object_at};
pub(crate) use numa::{MAX_NODES, Topology};
#[cfg(test)]
pub(crate) use paged::Paged;
pub(crate) use scarcity::{address_space_is_scarce, limit_may_allow};
pub(crate) use syscall::{
    address_bits, allow_barriers, barrier_everywhere, futex_wait, futex_wake,
    map_wiped_in_children, page_size, parent_id, process_id, processors, random_word,
    single_threaded_flag, thread_alive, thread_id, thread_pointer, write_stderr,
};

pub(crate) use valgrind::unwatched;
#[cfg(feature = "valgrind")]
pub(crate) use valgrind::{Request, ask};

/// A system call that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OsError {
    /// Name of the call.
    pub(crate) call: &'static str,
    /// The positive error number.
    pub(crate) errno: i32,
}

impl fmt::Display for OsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} failed with errno {}", self.call, self.errno)
    }
}

/// Where the pages of a mapping that is resized may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// They stay.
    Here,
    /// Wherever there is room, if there is none here.
    Anywhere,
    /// To this multiple of a page, in place of what is mapped there.
    At(usize),
}

/// The kernel's memory calls, as one seam that tests can stand in for.
///
/// Addresses and lengths are multiples of [`Kernel::page_size`].
///
/// # Safety
/// A range returned by `map` or `remap` is zeroed (what `remap` added), readable and writable,
/// overlaps no other live range and stays so until it is given to `unmap`.
pub(crate) unsafe trait Kernel {
    /// New memory of `len` bytes, at `hint` if that address is free.
    fn map(&self, hint: usize, len: usize) -> Result<usize, OsError>;

    /// Gives the range back, address and all.
    ///
    /// # Safety
    /// The range was mapped through this trait and nobody uses it any more.
    unsafe fn unmap(&self, address: usize, len: usize) -> Result<(), OsError>;

    /// Gives up the contents and keeps the mapping; a later read sees zeros.
    ///
    /// # Safety
    /// The range was mapped through this trait and nobody needs its contents.
    unsafe fn purge(&self, address: usize, len: usize) -> Result<(), OsError>;

    /// Grows or shrinks a mapping, whose pages may move to where `to` says.
    ///
    /// # Safety
    /// As `unmap`, for the old range when it moves, and for the range of [`Target::At`].
    unsafe fn remap(
        &self,
        address: usize,
        len: usize,
        new_len: usize,
        to: Target,
    ) -> Result<usize, OsError>;

    /// Asks that the range's pages come from `node`; nothing is asked where several nodes share that number (see
    /// [`MAX_NODES`]). Failure changes nothing but speed.
    fn bind(&self, address: usize, len: usize, node: u32) -> Result<(), OsError>;

    /// Asks that the range comes in huge pages when it is first touched. Failure changes nothing but
    /// speed.
    fn prefer_huge_pages(&self, address: usize, len: usize);

    /// Bytes of a page: 4, 16 or 64 KiB.
    fn page_size(&self) -> usize;

    /// Names the range in /proc/PID/maps, where the kernel can.
    fn label(&self, address: usize, len: usize);

    /// Milliseconds of a coarse clock that never goes back.
    fn now_ms(&self) -> u64;

    /// Resident bytes of this process that are no file's; `None` where that cannot be known.
    fn resident_bytes(&self) -> Option<usize>;

    /// Where the next mapping is asked for, so that mappings come aligned without cutting; see [`next_place`].
    fn next_hint(&self) -> &AtomicUsize;
}

/// What [`Kernel::next_hint`] gives; its start is chosen at random when options are read.
static NEXT_HINT: AtomicUsize = AtomicUsize::new(0x1000_0000_0000);

/// The kernel this process runs on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Linux;

/// Where to ask for the next `len` bytes: behind all that was asked for before, from an eighth of the address space to
/// half of it and round again. There the kernel puts nothing by itself: programs, the break, libraries, and the stack,
/// which grows only as far as nothing is in its way, lie outside. Requests that failed have moved it too.
pub(crate) fn next_place<K: Kernel>(kernel: &K, len: usize) -> usize {
    let asked = kernel.next_hint().fetch_add(len, crate::sync::Ordering::Relaxed);
    let eighth = 1usize << (address_bits() - 3);
    eighth + asked.wrapping_sub(eighth) % (3 * eighth)
}

/// Maps `len` bytes at a multiple of `align` (a power of two of at least a page).
///
/// # Errors
/// The kernel's, after the parts cut off were given back.
pub(crate) fn map_aligned<K: Kernel>(
    kernel: &K,
    hint: usize,
    len: usize,
    align: usize,
) -> Result<usize, OsError> {
    let first = kernel.map(hint, len)?;
    if first & (align - 1) == 0 {
        return Ok(first);
    }
    // SAFETY: just mapped, and nobody else knows of it.
    unsafe { kernel.unmap(first, len)? };
    let room = len.checked_add(align).ok_or(OsError { call: "mmap", errno: libc::ENOMEM })?;
    let start = kernel.map(0, room)?;
    let aligned = crate::units::round_up(start, align);
    let (before, after) = (aligned - start, room - len - (aligned - start));
    // SAFETY: both parts belong to the mapping just made and lie outside what is returned. A
    // failure (too many mappings) leaves them mapped, which costs address space and nothing else.
    unsafe {
        if before > 0 {
            let _ = kernel.unmap(start, before);
        }
        if after > 0 {
            let _ = kernel.unmap(aligned + len, after);
        }
    }
    Ok(aligned)
}

/// Lets kernel calls fail from a chosen one on; wraps the real kernel in tests.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct Failing<K> {
    kernel: K,
    /// Calls left before every further one fails; `u32::MAX` never fails.
    left: AtomicU32,
    refused: AtomicU32,
}

/// Every range that was to be bound, and to which node.
#[cfg(test)]
pub(crate) static BOUND: std::sync::Mutex<std::vec::Vec<(usize, usize, u32)>> =
    std::sync::Mutex::new(std::vec::Vec::new());

#[cfg(test)]
impl<K> Failing<K> {
    pub(crate) const fn new(kernel: K) -> Self {
        Failing { kernel, left: AtomicU32::new(u32::MAX), refused: AtomicU32::new(0) }
    }

    /// The kernel behind.
    pub(crate) fn inner(&self) -> &K {
        &self.kernel
    }

    /// Calls that failed so far.
    pub(crate) fn refused(&self) -> u32 {
        self.refused.load(crate::sync::Ordering::Relaxed)
    }

    /// Lets `calls` further calls succeed, then fails all.
    pub(crate) fn fail_after(&self, calls: u32) {
        self.left.store(calls, crate::sync::Ordering::Relaxed);
    }

    fn pass(&self, call: &'static str) -> Result<(), OsError> {
        use crate::sync::Ordering::Relaxed;
        match self.left.load(Relaxed) {
            u32::MAX => Ok(()),
            0 => {
                self.refused.fetch_add(1, Relaxed);
                Err(OsError { call, errno: libc::ENOMEM })
            }
            n => {
                self.left.store(n - 1, Relaxed);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
// SAFETY: what succeeds is passed on unchanged; what fails returns no range.
unsafe impl<K: Kernel> Kernel for Failing<K> {
    fn map(&self, hint: usize, len: usize) -> Result<usize, OsError> {
        self.pass("mmap")?;
        self.kernel.map(hint, len)
    }

    unsafe fn unmap(&self, address: usize, len: usize) -> Result<(), OsError> {
        self.pass("munmap")?;
        // SAFETY: the caller's promise.
        unsafe { self.kernel.unmap(address, len) }
    }

    unsafe fn purge(&self, address: usize, len: usize) -> Result<(), OsError> {
        self.pass("madvise")?;
        // SAFETY: the caller's promise.
        unsafe { self.kernel.purge(address, len) }
    }

    unsafe fn remap(
        &self,
        address: usize,
        len: usize,
        new_len: usize,
        to: Target,
    ) -> Result<usize, OsError> {
        self.pass("mremap")?;
        // SAFETY: the caller's promise.
        unsafe { self.kernel.remap(address, len, new_len, to) }
    }

    fn bind(&self, address: usize, len: usize, node: u32) -> Result<(), OsError> {
        BOUND.lock().expect("no test panics inside").push((address, len, node));
        self.pass("mbind")?;
        self.kernel.bind(address, len, node)
    }

    fn prefer_huge_pages(&self, address: usize, len: usize) {
        self.kernel.prefer_huge_pages(address, len);
    }

    fn page_size(&self) -> usize {
        self.kernel.page_size()
    }

    fn label(&self, address: usize, len: usize) {
        self.kernel.label(address, len);
    }

    fn now_ms(&self) -> u64 {
        self.kernel.now_ms()
    }

    fn resident_bytes(&self) -> Option<usize> {
        self.kernel.resident_bytes()
    }

    fn next_hint(&self) -> &AtomicUsize {
        self.kernel.next_hint()
    }
}
