//! Raw system calls on x86_64 and aarch64, and the [`Kernel`] made of them.

use core::arch::asm;

use super::{Kernel, Linux, OsError, Target, numa};
use crate::sync::{AtomicU32, AtomicUsize};

#[cfg(target_arch = "x86_64")]
pub(super) mod number {
    pub(in crate::os) const READ: usize = 0;
    pub(in crate::os) const WRITE: usize = 1;
    pub(in crate::os) const CLOSE: usize = 3;
    pub(in crate::os) const MMAP: usize = 9;
    #[cfg(feature = "hardened")]
    pub(in crate::os) const MPROTECT: usize = 10;
    pub(in crate::os) const MUNMAP: usize = 11;
    pub(in crate::os) const RT_SIGPROCMASK: usize = 14;
    pub(in crate::os) const MREMAP: usize = 25;
    pub(in crate::os) const MADVISE: usize = 28;
    pub(in crate::os) const GETPID: usize = 39;
    pub(in crate::os) const GETPPID: usize = 110;
    pub(in crate::os) const PRCTL: usize = 157;
    pub(in crate::os) const GETTID: usize = 186;
    pub(in crate::os) const FUTEX: usize = 202;
    pub(in crate::os) const SCHED_GETAFFINITY: usize = 204;
    pub(in crate::os) const TGKILL: usize = 234;
    pub(in crate::os) const MBIND: usize = 237;
    pub(in crate::os) const MEMBARRIER: usize = 324;
    pub(in crate::os) const OPENAT: usize = 257;
    pub(in crate::os) const PRLIMIT64: usize = 302;
    pub(in crate::os) const GETCPU: usize = 309;
    pub(in crate::os) const GETRANDOM: usize = 318;
}

#[cfg(target_arch = "aarch64")]
pub(super) mod number {
    pub(in crate::os) const OPENAT: usize = 56;
    pub(in crate::os) const CLOSE: usize = 57;
    pub(in crate::os) const READ: usize = 63;
    pub(in crate::os) const WRITE: usize = 64;
    pub(in crate::os) const FUTEX: usize = 98;
    pub(in crate::os) const SCHED_GETAFFINITY: usize = 123;
    pub(in crate::os) const TGKILL: usize = 131;
    pub(in crate::os) const RT_SIGPROCMASK: usize = 135;
    pub(in crate::os) const PRCTL: usize = 167;
    pub(in crate::os) const GETCPU: usize = 168;
    pub(in crate::os) const GETPID: usize = 172;
    pub(in crate::os) const GETPPID: usize = 173;
    pub(in crate::os) const GETTID: usize = 178;
    pub(in crate::os) const MUNMAP: usize = 215;
    pub(in crate::os) const MREMAP: usize = 216;
    pub(in crate::os) const MMAP: usize = 222;
    #[cfg(feature = "hardened")]
    pub(in crate::os) const MPROTECT: usize = 226;
    pub(in crate::os) const MADVISE: usize = 233;
    pub(in crate::os) const MBIND: usize = 235;
    pub(in crate::os) const MEMBARRIER: usize = 283;
    pub(in crate::os) const PRLIMIT64: usize = 261;
    pub(in crate::os) const GETRANDOM: usize = 278;
}

/// One system call; returns what the kernel does (`-errno` on failure).
///
/// # Safety
/// The call with these arguments must not touch memory that Rust relies on.
#[cfg(target_arch = "x86_64")]
pub(super) unsafe fn raw(number: usize, args: [usize; 6]) -> isize {
    let [a, b, c, d, e, f] = args;
    let result: isize;
    // SAFETY: the kernel keeps all registers but rax, rcx and r11; the rest is the caller's promise.
    unsafe {
        asm!("syscall", inlateout("rax") number => result, in("rdi") a, in("rsi") b, in("rdx") c,
             in("r10") d, in("r8") e, in("r9") f, out("rcx") _, out("r11") _, options(nostack));
    }
    result
}

/// One system call; returns what the kernel does (`-errno` on failure).
///
/// # Safety
/// The call with these arguments must not touch memory that Rust relies on.
#[cfg(target_arch = "aarch64")]
pub(super) unsafe fn raw(number: usize, args: [usize; 6]) -> isize {
    let [a, b, c, d, e, f] = args;
    let result: isize;
    // SAFETY: the kernel keeps all registers but x0; the rest is the caller's promise.
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") a => result, in("x1") b, in("x2") c,
             in("x3") d, in("x4") e, in("x5") f, options(nostack));
    }
    result
}

/// A system call that returns an address or an error.
///
/// # Safety
/// As [`raw`].
pub(super) unsafe fn checked(
    call: &'static str,
    number: usize,
    args: [usize; 6],
) -> Result<usize, OsError> {
    // SAFETY: the caller's promise.
    let result = unsafe { raw(number, args) };
    if (-4095..0).contains(&result) {
        return Err(OsError { call, errno: -result as i32 });
    }
    Ok(result as usize)
}

const READ_WRITE: usize = (libc::PROT_READ | libc::PROT_WRITE) as usize;
const ANONYMOUS: usize = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as usize;

// SAFETY: `map` returns fresh anonymous mappings, which the kernel places apart from all others;
// `remap` moves only onto ranges its caller owns.
unsafe impl Kernel for Linux {
    fn map(&self, hint: usize, len: usize) -> Result<usize, OsError> {
        let args = [hint, len, READ_WRITE, ANONYMOUS, usize::MAX, 0];
        // SAFETY: without MAP_FIXED the kernel chooses a range nobody uses.
        unsafe { checked("mmap", number::MMAP, args) }
    }

    unsafe fn unmap(&self, address: usize, len: usize) -> Result<(), OsError> {
        // SAFETY: the caller's promise.
        unsafe { checked("munmap", number::MUNMAP, [address, len, 0, 0, 0, 0]).map(drop) }
    }

    unsafe fn purge(&self, address: usize, len: usize) -> Result<(), OsError> {
        let advice = libc::MADV_DONTNEED as usize;
        // SAFETY: the caller's promise.
        unsafe { checked("madvise", number::MADVISE, [address, len, advice, 0, 0, 0]).map(drop) }
    }

    unsafe fn remap(
        &self,
        address: usize,
        len: usize,
        new_len: usize,
        to: Target,
    ) -> Result<usize, OsError> {
        let (flags, to) = match to {
            Target::Here => (0, 0),
            Target::Anywhere => (libc::MREMAP_MAYMOVE as usize, 0),
            Target::At(to) => ((libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED) as usize, to),
        };
        // SAFETY: the caller's promise.
        unsafe { checked("mremap", number::MREMAP, [address, len, new_len, flags, to, 0]) }
    }

    fn bind(&self, address: usize, len: usize, node: u32) -> Result<(), OsError> {
        const MPOL_PREFERRED: usize = 1;
        let Some(mask) = numa::mask_of(node) else { return Ok(()) };
        let args = [address, len, MPOL_PREFERRED, (&raw const mask) as usize, 64, 0];
        // SAFETY: the kernel only reads the mask, and only future page faults change.
        unsafe { checked("mbind", number::MBIND, args).map(drop) }
    }

    fn prefer_huge_pages(&self, address: usize, len: usize) {
        let advice = libc::MADV_HUGEPAGE as usize;
        // SAFETY: contents stay. A kernel without huge pages refuses, harmlessly.
        unsafe {
            let _ = raw(number::MADVISE, [address, len, advice, 0, 0, 0]);
        }
    }

    #[inline(always)]
    fn page_size(&self) -> usize {
        page_size()
    }

    fn label(&self, address: usize, len: usize) {
        const PR_SET_VMA: usize = 0x5356_4d41;
        const PR_SET_VMA_ANON_NAME: usize = 0;
        /// A kernel that cannot is asked once. Not from `sync`: loom's atomics cannot stand in a static.
        static CANNOT: core::sync::atomic::AtomicBool = core::sync::atomic::AtomicBool::new(false);
        if CANNOT.load(core::sync::atomic::Ordering::Relaxed) {
            return;
        }
        let name = c"allocator".as_ptr() as usize;
        // SAFETY: names a range; the kernel copies the string. Old kernels refuse, harmlessly.
        let said = unsafe {
            raw(number::PRCTL, [PR_SET_VMA, PR_SET_VMA_ANON_NAME, address, len, name, 0])
        };
        if said == -(libc::EINVAL as isize) {
            CANNOT.store(true, core::sync::atomic::Ordering::Relaxed);
        }
    }

    fn now_ms(&self) -> u64 {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the vDSO fills `time`; this clock exists on every kernel we run on, so the call
        // cannot fail and `errno` stays.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut time) };
        time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
    }

    fn resident_bytes(&self) -> Option<usize> {
        resident_bytes()
    }

    fn next_hint(&self) -> &AtomicUsize {
        &super::NEXT_HINT
    }
}

/// A page whose first word reads 0 in every child that is forked; null where the kernel cannot.
pub(crate) fn map_wiped_in_children() -> *mut AtomicU32 {
    let len = page_size();
    let Ok(page) = Linux.map(0, len) else { return core::ptr::null_mut() };
    let advice = libc::MADV_WIPEONFORK as usize;
    // SAFETY: the page is new and nobody else's.
    unsafe {
        if checked("madvise", number::MADVISE, [page, len, advice, 0, 0, 0]).is_err() {
            let _ = Linux.unmap(page, len);
            return core::ptr::null_mut();
        }
    }
    Linux.label(page, len);
    core::ptr::with_exposed_provenance_mut(page)
}

/// Makes every access to the range end the process, or (`!on`) allows it again; the contents go. By
/// markers in the page tables where the kernel has them (6.13) and the pages are not locked, else by
/// protection, which costs a mapping of its own. False if neither can be had, or if the range is not of whole
/// pages, for the kernel would guard the rest of the last one too: then nothing has changed.
///
/// # Safety
/// The range is mapped, is the caller's, and nobody needs its contents.
#[cfg(feature = "hardened")]
pub(crate) unsafe fn guard(address: usize, len: usize, on: bool) -> bool {
    use core::sync::atomic::{AtomicBool, Ordering};
    /// Whether any range was protected: taking markers away succeeds there too, and changes nothing.
    static PROTECTED: AtomicBool = AtomicBool::new(false);
    if (address | len) & (page_size() - 1) != 0 {
        return false;
    }
    // SAFETY: the caller's promise.
    let marked = unsafe { mark(address, len, on) };
    if marked && (on || !PROTECTED.load(Ordering::Relaxed)) {
        return true;
    }
    if on {
        PROTECTED.store(true, Ordering::Relaxed);
    }
    let protection = if on { 0 } else { READ_WRITE };
    // SAFETY: as above.
    unsafe { checked("mprotect", number::MPROTECT, [address, len, protection, 0, 0, 0]).is_ok() }
}

/// As [`guard`], by markers only: those can always be taken away again.
///
/// # Safety
/// As [`guard`].
#[cfg(feature = "hardened")]
pub(crate) unsafe fn mark(address: usize, len: usize, on: bool) -> bool {
    const MADV_GUARD_INSTALL: usize = 102;
    const MADV_GUARD_REMOVE: usize = 103;
    let advice = if on { MADV_GUARD_INSTALL } else { MADV_GUARD_REMOVE };
    let args = [address, len, advice, 0, 0, 0];
    // SAFETY: the caller's promise. A kernel without markers refuses the advice as unknown.
    unsafe {
        (address | len) & (page_size() - 1) == 0
            && checked("madvise", number::MADVISE, args).is_ok()
    }
}

/// Makes every running thread of this process pass a full memory barrier; those that do not run passed
/// one when they were stopped. Half a microsecond. False where the kernel cannot or was not asked to (see
/// [`allow_barriers`]).
pub(crate) fn barrier_everywhere() -> bool {
    const PRIVATE_EXPEDITED: usize = 1 << 3;
    // SAFETY: changes nothing but the order in which memory is seen.
    unsafe { raw(number::MEMBARRIER, [PRIVATE_EXPEDITED, 0, 0, 0, 0, 0]) == 0 }
}

/// Lets this process, and children that it forks, call [`barrier_everywhere`]. To be called while there is
/// one thread: with two the kernel takes 15 ms. Before Linux 4.14 it refuses.
pub(crate) fn allow_barriers() {
    const REGISTER_PRIVATE_EXPEDITED: usize = 1 << 4;
    // SAFETY: as above.
    unsafe { raw(number::MEMBARRIER, [REGISTER_PRIVATE_EXPEDITED, 0, 0, 0, 0, 0]) };
}

/// Sleeps while `word` holds `value`, for a tenth of a second at most; may return early, and does so after a
/// signal handler: the kernel resumes a sleep by itself only if that has no end.
pub(crate) fn futex_wait(word: &AtomicU32, value: u32) {
    let op = (libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG) as usize;
    let most = libc::timespec { tv_sec: 0, tv_nsec: 100_000_000 };
    let address = core::ptr::from_ref(word) as usize;
    let args = [address, op, value as usize, &raw const most as usize, 0, 0];
    // SAFETY: the kernel reads the word and the time, which live as long as the call.
    unsafe { raw(number::FUTEX, args) };
}

/// Wakes up to `count` sleepers on `word`.
pub(crate) fn futex_wake(word: &AtomicU32, count: usize) {
    let op = (libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG) as usize;
    let args = [core::ptr::from_ref(word) as usize, op, count, 0, 0, 0];
    // SAFETY: the kernel uses the address as a key and touches nothing.
    unsafe { raw(number::FUTEX, args) };
}

/// The processor and the node this thread runs on, for now.
pub(super) fn current_node() -> u32 {
    let (mut cpu, mut node) = (0u32, 0u32);
    let args = [(&raw mut cpu) as usize, (&raw mut node) as usize, 0, 0, 0, 0];
    // SAFETY: the kernel writes the two locals.
    if unsafe { raw(number::GETCPU, args) } < 0 { 0 } else { node }
}

/// Reads up to `buffer.len()` bytes of a file; `None` if it cannot be opened or read.
pub(super) fn read_file<'a>(path: &core::ffi::CStr, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    let here = libc::AT_FDCWD as usize;
    let flags = (libc::O_RDONLY | libc::O_CLOEXEC) as usize;
    // SAFETY: opens a file by a terminated path, reads into the borrowed buffer, closes it again.
    let len = unsafe {
        let fd = checked("openat", number::OPENAT, [here, path.as_ptr() as usize, flags, 0, 0, 0])
            .ok()?;
        let read = checked(
            "read",
            number::READ,
            [fd, buffer.as_mut_ptr() as usize, buffer.len(), 0, 0, 0],
        );
        let _ = raw(number::CLOSE, [fd, 0, 0, 0, 0, 0]);
        read.ok()?
    };
    buffer.get(..len)
}

/// Resident bytes of this process that are no file's, from /proc/self/statm; `None` where that cannot be
/// read.
fn resident_bytes() -> Option<usize> {
    let mut buffer = [0u8; 64];
    let text = read_file(c"/proc/self/statm", &mut buffer)?;
    let mut fields = text.split(|&byte| byte == b' ').skip(1).map(|field| {
        field.iter().try_fold(0usize, |n, &digit| {
            digit.is_ascii_digit().then(|| n.wrapping_mul(10).wrapping_add((digit - b'0') as usize))
        })
    });
    let (resident, of_files) = (fields.next()??, fields.next()??);
    Some(resident.saturating_sub(of_files).wrapping_mul(page_size()))
}

/// Processors this thread may run on; at least 1.
pub(crate) fn processors() -> usize {
    let mut set = [0u64; 16];
    let args = [0, size_of_val(&set), (&raw mut set) as usize, 0, 0, 0];
    // SAFETY: the kernel writes at most as many bytes as it is told there are.
    let written = unsafe { raw(number::SCHED_GETAFFINITY, args) };
    if written <= 0 { 1 } else { set.iter().map(|word| word.count_ones() as usize).sum() }
}

/// The kernel's page size in bytes: x86_64 has one.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn page_size() -> usize {
    crate::units::PAGE
}

/// The kernel's page size in bytes.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
pub(crate) fn page_size() -> usize {
    use crate::sync::Ordering;
    /// 0 until asked for.
    static SIZE: AtomicUsize = AtomicUsize::new(0);
    match SIZE.load(Ordering::Relaxed) {
        0 => {
            // SAFETY: reads the auxiliary vector, which glibc holds from the start on.
            let size = match unsafe { libc::getauxval(libc::AT_PAGESZ) } {
                0 => crate::units::PAGE,
                size => size as usize,
            };
            SIZE.store(size, Ordering::Relaxed);
            size
        }
        size => size,
    }
}

/// Bits of the addresses of this process: 47 on x86_64, where more have to be asked for.
#[cfg(target_arch = "x86_64")]
pub(crate) fn address_bits() -> u32 {
    47
}

/// Bits of the addresses of this process: 36 to 48, by page size and kernel. Stacks lie in the upper half.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn address_bits() -> u32 {
    let here = 0u8;
    (usize::BITS - (&raw const here).addr().leading_zeros()).clamp(36, 48)
}

/// A word nobody outside can guess. The kernel is asked and not the bytes it gives each process, for
/// finding those brings 64 KiB of libc into memory that little else needs.
pub(crate) fn random_word() -> u64 {
    const NONBLOCK: usize = 1;
    let mut word = 0u64;
    let args = [(&raw mut word) as usize, size_of::<u64>(), NONBLOCK, 0, 0, 0];
    // SAFETY: the kernel writes at most the eight bytes of the word.
    if unsafe { raw(number::GETRANDOM, args) } != size_of::<u64>() as isize {
        // An early boot, or a filter: an address and a clock have to do.
        word = (&raw const word).addr() as u64 ^ Linux.now_ms().rotate_left(32);
    }
    word
}

/// Writes to standard error without stdio; what cannot be written is lost.
pub(crate) fn write_stderr(text: &[u8]) {
    // SAFETY: the kernel reads the borrowed bytes.
    unsafe { raw(number::WRITE, [2, text.as_ptr() as usize, text.len(), 0, 0, 0]) };
}

/// The kernel's id of this thread.
pub(crate) fn thread_id() -> u32 {
    // SAFETY: takes no arguments and cannot fail.
    unsafe { raw(number::GETTID, [0; 6]) as u32 }
}

/// The kernel's id of this process.
pub(crate) fn process_id() -> u32 {
    // SAFETY: takes no arguments and cannot fail.
    unsafe { raw(number::GETPID, [0; 6]) as u32 }
}

/// The kernel's id of the process that this one's parent is; 0 where that cannot be seen from here.
pub(crate) fn parent_id() -> u32 {
    // SAFETY: takes no arguments and cannot fail.
    unsafe { raw(number::GETPPID, [0; 6]) as u32 }
}

/// Whether thread `id` of this process still exists.
pub(crate) fn thread_alive(id: u32) -> bool {
    // SAFETY: signal 0 is only checked for, never delivered.
    unsafe {
        let process = process_id() as usize;
        raw(number::TGKILL, [process, id as usize, 0, 0, 0, 0]) != -(libc::ESRCH as isize)
    }
}

/// A number no other living thread has: the address of its control block.
#[inline(always)]
pub(crate) fn thread_pointer() -> usize {
    let pointer: usize;
    // SAFETY: reads this thread's pointer to itself, which the ABI demands at fs:0.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!("mov {0}, qword ptr fs:[0]", out(reg) pointer, options(nostack, preserves_flags, pure, readonly));
    }
    // SAFETY: reads a register.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!("mrs {0}, tpidr_el0", out(reg) pointer, options(nostack, preserves_flags, pure, nomem));
    }
    pointer
}

/// glibc's `__libc_single_threaded`, or null where libc has none.
pub(crate) fn single_threaded_flag() -> *mut u8 {
    let flag: *mut u8;
    // SAFETY: loads the address of a weak symbol from the GOT; null when it is undefined.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!(".weak __libc_single_threaded",
             "mov {0}, qword ptr [rip + __libc_single_threaded@GOTPCREL]",
             out(reg) flag, options(nostack, preserves_flags, pure, readonly));
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!(".weak __libc_single_threaded",
             "adrp {0}, :got:__libc_single_threaded",
             "ldr {0}, [{0}, :got_lo12:__libc_single_threaded]",
             out(reg) flag, options(nostack, preserves_flags, pure, readonly));
    }
    flag
}
