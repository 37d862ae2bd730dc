//! Creating threads, and stacks of the harness's own for them.
//!
//! As a rule the C library maps a thread's stack and gives it back, as it would in the program. A thread
//! that ends then advises the kernel to take the pages of its stack, with all signals blocked: where
//! system calls are turned into signals, that ends the process. On a stack that was handed to it
//! the C library makes no system call, so that there is none to catch but the allocator's.

use std::ffi::c_void;
use std::io;
use std::sync::{Mutex, PoisonError};

use super::memory::Region;

/// Bytes of a plan thread's stack, thread-local storage of the preloaded library included.
pub const STACK: usize = 1 << 20;

/// Bytes below a stack that nobody can write to.
const GUARD: usize = 4096;

/// Stacks mapped before the run; those used last are used again first.
///
/// # Invariants
/// 1. A stack is on the list of free ones, or a thread that was not joined runs on it.
/// 2. The list has room for all stacks, so that it never allocates.
#[derive(Debug)]
pub(crate) struct Stacks {
    memory: Region,
    free: Mutex<Vec<u32>>,
}

impl Stacks {
    /// `count` of them; a page is resident from the first write to it.
    pub(crate) fn new(count: u32) -> io::Result<Stacks> {
        let memory = Region::array::<[u8; GUARD + STACK]>(count as usize, false)?;
        let stacks = Stacks { memory, free: Mutex::new((0..count).rev().collect()) };
        for n in 0..count {
            // SAFETY: the first page of a part of the region, which nobody uses yet.
            let status = unsafe { libc::mprotect(stacks.place(n).cast(), GUARD, libc::PROT_NONE) };
            if status != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(stacks)
    }

    /// Where the guard of a stack begins, and the stack behind it.
    fn place(&self, n: u32) -> *mut u8 {
        self.memory.start::<u8>().wrapping_add(n as usize * (GUARD + STACK))
    }

    /// A free stack; `None` if there is none.
    pub(crate) fn take(&self) -> Option<u32> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Gives a stack back.
    ///
    /// # Safety
    /// Whoever ran on it was joined, or never began.
    pub(crate) unsafe fn give(&self, n: u32) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(n);
    }
}

/// Creates a joinable thread with a small stack, the given one or the C library's, without a word to
/// Rust's runtime or its heap.
pub(crate) fn create(
    start: extern "C" fn(*mut c_void) -> *mut c_void,
    argument: *mut c_void,
    stack: Option<(&Stacks, u32)>,
) -> io::Result<libc::pthread_t> {
    let mut attributes = std::mem::MaybeUninit::<libc::pthread_attr_t>::uninit();
    let mut handle: libc::pthread_t = 0;
    // SAFETY: initialised by the first call before the others use it; a stack is free until it was
    // taken and stays mapped until its thread was joined; `start` and `argument` are what the
    // caller vouches for.
    let status = unsafe {
        libc::pthread_attr_init(attributes.as_mut_ptr());
        match stack {
            Some((stacks, n)) => {
                let bottom = stacks.place(n).wrapping_add(GUARD).cast();
                libc::pthread_attr_setstack(attributes.as_mut_ptr(), bottom, STACK);
            }
            None => {
                libc::pthread_attr_setstacksize(attributes.as_mut_ptr(), STACK);
            }
        }
        let status = libc::pthread_create(&raw mut handle, attributes.as_ptr(), start, argument);
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
        status
    };
    if status == 0 { Ok(handle) } else { Err(io::Error::from_raw_os_error(status)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    extern "C" fn own_place(_: *mut c_void) -> *mut c_void {
        let here = 0_u8;
        std::hint::black_box(&raw const here).cast_mut().cast()
    }

    #[test]
    fn a_thread_runs_on_the_stack_that_it_was_given() {
        let stacks = Stacks::new(2).unwrap();
        let n = stacks.take().unwrap();
        let thread = create(own_place, std::ptr::null_mut(), Some((&stacks, n))).unwrap();
        let mut place = std::ptr::null_mut();
        // SAFETY: created above and joined once.
        unsafe { libc::pthread_join(thread, &raw mut place) };
        let bottom = stacks.place(n).addr() + GUARD;
        assert!((bottom..bottom + STACK).contains(&place.addr()));
        // SAFETY: joined above.
        unsafe { stacks.give(n) };
        assert_eq!((stacks.take(), stacks.take(), stacks.take()), (Some(n), Some(1 - n), None));
    }
}
