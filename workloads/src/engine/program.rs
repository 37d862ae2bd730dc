//! What the program itself does with memory: first writes to fresh objects, and forks.

use std::ffi::c_void;
use std::io::{Error, ErrorKind};

use super::calls::Calls;
use super::options::Touch;

/// Bytes of a page, for touching.
const PAGE: usize = 4096;

/// Writes to a fresh object as the policy says.
///
/// # Safety
/// `p` is the start of `size` bytes that this thread alone may write.
#[inline(always)]
pub(super) unsafe fn touch(p: *mut u8, size: usize, policy: Touch) {
    // SAFETY: every write lies below `size`; zeros, so that `calloc` keeps its promise.
    unsafe {
        match policy {
            Touch::None | Touch::Recorded => {}
            Touch::Header => p.write_bytes(0, size.min(8)),
            Touch::All => p.write_bytes(0, size),
            Touch::Pages => {
                if size == 0 {
                    return;
                }
                p.write_volatile(0);
                let mut offset = PAGE - p.addr() % PAGE;
                while offset < size {
                    p.wrapping_add(offset).write_volatile(0);
                    offset += PAGE;
                }
            }
        }
    }
}

/// A forked child that has not made its calls and left after so many seconds never will.
const PATIENCE_S: u32 = 10;

/// Why a fork is no fork of a program that goes on.
pub(super) enum ForkFailure {
    /// There is no child, for this errno.
    NoChild(i32),
    /// The child ended with this status of `waitpid`, which is not 0.
    Child(i32),
}

/// How a child ended whose `waitpid` said `status`, to be read after "a forked child".
pub(super) fn ending(status: i32) -> String {
    match (libc::WIFSIGNALED(status), libc::WTERMSIG(status)) {
        (true, libc::SIGALRM) => format!("hung for {PATIENCE_S} seconds"),
        (true, signal) => format!("was ended by signal {signal}"),
        _ if libc::WEXITSTATUS(status) == 1 => "could not allocate".to_owned(),
        _ => format!("exited with status {}", libc::WEXITSTATUS(status)),
    }
}

/// Whether this status says that the child, or the kernel for it, had no memory.
pub(super) fn out_of_memory(status: i32) -> bool {
    match libc::WIFSIGNALED(status) {
        true => libc::WTERMSIG(status) == libc::SIGKILL,
        false => libc::WEXITSTATUS(status) == 1,
    }
}

/// Forks a child that makes a few calls, as a worker of a fork server would, and leaves.
///
/// # Errors
/// If there is no child, or it did not end well.
pub(super) fn fork(calls: &Calls) -> Result<(), ForkFailure> {
    // SAFETY: the child calls nothing but the allocator, whose business it is to survive a
    // fork, and the kernel.
    unsafe {
        match libc::fork() {
            0 => {
                // A child that an allocator holds up outlives neither its parent nor our patience.
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                libc::alarm(PATIENCE_S);
                let mut all_well = true;
                let mut objects = [std::ptr::null_mut::<c_void>(); 64];
                for (i, object) in objects.iter_mut().enumerate() {
                    *object = (calls.malloc)(16 << (i % 8));
                    all_well &= !object.is_null();
                    if !object.is_null() && !calls.null {
                        object.cast::<u8>().write_volatile(1);
                    }
                }
                objects.iter().for_each(|&object| (calls.free)(object));
                libc::_exit(if all_well { 0 } else { 1 });
            }
            -1 => {
                let errno = Error::last_os_error().raw_os_error().unwrap_or(libc::EAGAIN);
                Err(ForkFailure::NoChild(errno))
            }
            child => {
                let mut status = 0;
                while libc::waitpid(child, &raw mut status, 0) == -1
                    && Error::last_os_error().kind() == ErrorKind::Interrupted
                {}
                if status == 0 { Ok(()) } else { Err(ForkFailure::Child(status)) }
            }
        }
    }
}
