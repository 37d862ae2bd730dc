//! System calls by instruction: no errno, no cancellation point, nobody else's wrapper.

use core::ffi::{CStr, c_void};
use core::ptr::NonNull;

/// Why a system call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) i32);

/// Makes a system call with up to six arguments.
///
/// # Safety
/// As the system call with these arguments.
#[cfg(target_arch = "x86_64")]
unsafe fn syscall(number: i64, args: [usize; 6]) -> Result<usize, Errno> {
    let result: isize;
    // SAFETY: the kernel clobbers rcx and r11 and returns in rax; the rest is the caller's promise.
    unsafe {
        core::arch::asm!("syscall",
            inlateout("rax") number as isize => result,
            in("rdi") args[0], in("rsi") args[1], in("rdx") args[2],
            in("r10") args[3], in("r8") args[4], in("r9") args[5],
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    check(result)
}

/// Makes a system call with up to six arguments.
///
/// # Safety
/// As the system call with these arguments.
#[cfg(target_arch = "aarch64")]
unsafe fn syscall(number: i64, args: [usize; 6]) -> Result<usize, Errno> {
    let result: isize;
    // SAFETY: the kernel returns in x0 and keeps the rest; the rest is the caller's promise.
    unsafe {
        core::arch::asm!("svc 0",
            in("x8") number, inlateout("x0") args[0] as isize => result,
            in("x1") args[1], in("x2") args[2], in("x3") args[3],
            in("x4") args[4], in("x5") args[5], options(nostack));
    }
    check(result)
}

fn check(result: isize) -> Result<usize, Errno> {
    if (-4095..0).contains(&result) { Err(Errno(-result as i32)) } else { Ok(result as usize) }
}

/// An open file, closed when dropped.
#[derive(Debug)]
pub(crate) struct Fd(usize);

impl Drop for Fd {
    fn drop(&mut self) {
        // SAFETY: the descriptor was opened by `open` and is owned by this value alone.
        let _ = unsafe { syscall(libc::SYS_close, [self.0, 0, 0, 0, 0, 0]) };
    }
}

/// Opens `path` with `flags` and, for a new file, mode 0600.
pub(crate) fn open(path: &CStr, flags: i32) -> Result<Fd, Errno> {
    let args = [
        libc::AT_FDCWD as usize,
        path.as_ptr() as usize,
        (flags | libc::O_CLOEXEC) as usize,
        0o600,
        0,
        0,
    ];
    // SAFETY: `path` is a NUL-terminated string that outlives the call.
    unsafe { syscall(libc::SYS_openat, args) }.map(Fd)
}

/// Takes the name of a file away.
pub(crate) fn unlink(path: &CStr) {
    let args = [libc::AT_FDCWD as usize, path.as_ptr() as usize, 0, 0, 0, 0];
    // SAFETY: `path` is a NUL-terminated string that outlives the call.
    let _ = unsafe { syscall(libc::SYS_unlinkat, args) };
}

/// Reads into `buffer`; 0 is the end of the file.
pub(crate) fn read(fd: &Fd, buffer: &mut [u8]) -> Result<usize, Errno> {
    let args = [fd.0, buffer.as_mut_ptr() as usize, buffer.len(), 0, 0, 0];
    // SAFETY: the kernel writes at most `buffer.len()` bytes to `buffer`.
    unsafe { syscall(libc::SYS_read, args) }
}

/// Makes sure that the disk has room for `len` bytes at `offset`, and that they read as zero.
pub(crate) fn reserve(fd: &Fd, offset: usize, len: usize) -> Result<(), Errno> {
    loop {
        // SAFETY: takes no pointers.
        match unsafe { syscall(libc::SYS_fallocate, [fd.0, 0, offset, len, 0, 0]) } {
            // A signal is no full disk.
            Err(Errno(libc::EINTR)) => {}
            Err(Errno(libc::EOPNOTSUPP)) => return write_zeros(fd, offset, len),
            result => return result.map(drop),
        }
    }
}

/// For file systems without fallocate.
fn write_zeros(fd: &Fd, offset: usize, len: usize) -> Result<(), Errno> {
    static ZEROS: [u8; 4096] = [0; 4096];
    let mut done = 0;
    while done < len {
        let part = (len - done).min(ZEROS.len());
        let args = [fd.0, ZEROS.as_ptr() as usize, part, offset + done, 0, 0];
        // SAFETY: `part` bytes of ZEROS are read.
        match unsafe { syscall(libc::SYS_pwrite64, args) } {
            Ok(0) => return Err(Errno(libc::ENOSPC)),
            Ok(written) => done += written,
            Err(Errno(libc::EINTR)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes the `len` bytes at `address` to `offset` of `fd`; on failure says how many it did write.
///
/// # Safety
/// `[address, address + len)` is readable, and nobody writes to it meanwhile.
pub(crate) unsafe fn write_at(
    fd: &Fd,
    address: usize,
    len: usize,
    offset: usize,
) -> Result<(), usize> {
    let mut done = 0;
    while done < len {
        let args = [fd.0, address + done, len - done, offset + done, 0, 0];
        // SAFETY: the caller's promise.
        match unsafe { syscall(libc::SYS_pwrite64, args) } {
            Ok(0) => return Err(done),
            Ok(written) => done += written,
            Err(Errno(libc::EINTR)) => {}
            Err(_) => return Err(done),
        }
    }
    Ok(())
}

/// Maps `len` bytes of `fd` at `offset`, shared and writable.
pub(crate) fn map_shared(fd: &Fd, offset: usize, len: usize) -> Result<NonNull<u8>, Errno> {
    let args = [
        0,
        len,
        (libc::PROT_READ | libc::PROT_WRITE) as usize,
        (libc::MAP_SHARED | libc::MAP_POPULATE) as usize,
        fd.0,
        offset,
    ];
    // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
    let address = unsafe { syscall(libc::SYS_mmap, args) }?;
    NonNull::new(core::ptr::with_exposed_provenance_mut(address)).ok_or(Errno(libc::ENOMEM))
}

/// Gives a mapping back.
///
/// # Safety
/// `[address, address + len)` is a mapping made by [`map_shared`], and nobody uses it again.
pub(crate) unsafe fn unmap(address: NonNull<u8>, len: usize) {
    let args = [address.as_ptr() as usize, len, 0, 0, 0, 0];
    // SAFETY: the caller's promise.
    let _ = unsafe { syscall(libc::SYS_munmap, args) };
}

/// Asks that a forked child finds these pages zeroed. Fails before Linux 4.14.
pub(crate) fn wipe_on_fork(address: *mut c_void, len: usize) -> Result<(), Errno> {
    let args = [address as usize, len, libc::MADV_WIPEONFORK as usize, 0, 0, 0];
    // SAFETY: changes nothing for this process.
    unsafe { syscall(libc::SYS_madvise, args) }.map(drop)
}

/// This process.
pub(crate) fn pid() -> u32 {
    // SAFETY: takes no arguments and cannot fail.
    unsafe { syscall(libc::SYS_getpid, [0; 6]) }.unwrap_or(0) as u32
}

/// The parent of this process.
pub(crate) fn parent_pid() -> u32 {
    // SAFETY: takes no arguments and cannot fail.
    unsafe { syscall(libc::SYS_getppid, [0; 6]) }.unwrap_or(0) as u32
}

/// The calling thread.
pub(crate) fn tid() -> u32 {
    // SAFETY: takes no arguments and cannot fail.
    unsafe { syscall(libc::SYS_gettid, [0; 6]) }.unwrap_or(0) as u32
}

/// Lets another thread run.
pub(crate) fn yield_now() {
    // SAFETY: takes no arguments and cannot fail.
    let _ = unsafe { syscall(libc::SYS_sched_yield, [0; 6]) };
}

/// How long a file of this process may get; growing one further would raise SIGXFSZ.
pub(crate) fn file_size_limit() -> usize {
    let mut limit = [usize::MAX; 2];
    let args = [0, libc::RLIMIT_FSIZE as usize, 0, limit.as_mut_ptr() as usize, 0, 0];
    // SAFETY: the kernel writes one `rlimit64`, two u64, to `limit`.
    let _ = unsafe { syscall(libc::SYS_prlimit64, args) };
    limit[0]
}

/// Nanoseconds on `clock`.
pub(crate) fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec. With a valid clock it cannot fail, so errno stays.
    unsafe { libc::clock_gettime(clock, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
