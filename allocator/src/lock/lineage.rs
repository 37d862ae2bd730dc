//! Tells the child of a fork that it is one: `_Fork` and a bare `clone` run no handlers.
//!
//! Owns one page that the kernel wipes in every child (`MADV_WIPEONFORK`). Its word says
//! [`TOLD`] in a process whose locks are sound. In a child it reads 0 until somebody has mended what
//! threads that do not exist there were changing. Every taking of a lock looks, for once the child
//! has two threads nobody could say any more which holders are real.
//!
//! Where the kernel wipes no pages (before Linux 4.14), libc's fork handlers have to do, which [`LINEAGE`] registers;
//! children made without them are not told. While a fork is under way the word is not `TOLD` in either process,
//! so that whoever takes a lock asks the kernel which of the two this is: handlers of the program's own
//! may run before ours in the child, and allocate.
//!
//! A fork copies memory as it was at one moment: the kernel protects every page, and flushes all
//! processors' translations, before a thread that faults goes on. So a lock that reads free protects
//! whole state, and what is linked without a lock is whole too; only held locks need mending.
//!
//! Cost: two loads per lock taken, and a page.

use core::ptr;

use super::LINEAGE;
use crate::os;
use crate::sync::{AtomicBool, AtomicPtr, AtomicU32, Ordering};

/// Wiped: a child in which nobody looked yet.
const UNTOLD: u32 = 0;
/// All is well.
const TOLD: u32 = 1;
/// A thread of the child is at work; the others wait for it.
const MENDING: u32 = 2;
/// Without a page: added to `TOLD` for each fork that is under way.
const FORKING: u32 = 4;

/// Stands in for the page where there is none.
static COUNTED: AtomicU32 = AtomicU32::new(TOLD);

/// Whether this process knows of its own birth.
#[derive(Debug)]
pub(crate) struct Lineage {
    word: AtomicPtr<AtomicU32>,
    /// Called in a child that was not told. A `fn()`, or null.
    mend: AtomicPtr<()>,
    /// Without a page: the process whose locks are sound; 0 while a thread of a child mends them.
    process: AtomicU32,
    /// Called after `mend`: what classic mode mends. A `fn()`, or null.
    also: AtomicPtr<()>,
    /// Whether children are told, or will be in a moment.
    begun: AtomicBool,
}

impl Lineage {
    pub(crate) const fn new() -> Self {
        Lineage {
            word: AtomicPtr::new((&raw const COUNTED).cast_mut()),
            mend: AtomicPtr::new(ptr::null_mut()),
            also: AtomicPtr::new(ptr::null_mut()),
            process: AtomicU32::new(0),
            begun: AtomicBool::new(false),
        }
    }

    /// From here on a child calls `mend` before it takes a lock.
    pub(crate) fn watch(&self, mend: fn()) {
        self.mend.store(mend as *mut (), Ordering::Release);
        self.begin();
    }

    /// From here on a child calls `mend` too, after the one of `watch`.
    pub(crate) fn also(&self, mend: fn()) {
        self.also.store(mend as *mut (), Ordering::Release);
        self.begin();
    }

    fn begin(&self) {
        if self.begun.swap(true, Ordering::Relaxed) {
            return;
        }
        let page = os::map_wiped_in_children();
        if page.is_null() {
            self.process.store(os::process_id(), Ordering::Relaxed);
            // SAFETY: the handlers live in an object that is never unloaded, see `Allocator`. Failure (no memory) leaves
            // forks as they are without us.
            unsafe { libc::pthread_atfork(Some(before_fork), Some(in_parent), Some(in_child)) };
            return;
        }
        // SAFETY: a fresh page of ours, zeroed and never unmapped.
        unsafe { (*page).store(TOLD, Ordering::Relaxed) };
        self.word.store(page, Ordering::Release);
    }

    /// Whether this is the child of a fork and its locks are being mended, as in a signal handler that
    /// interrupted that.
    pub(crate) fn is_mending(&self) -> bool {
        let word = self.word();
        if ptr::eq(word, &COUNTED) {
            word.load(Ordering::Relaxed) != TOLD && self.process.load(Ordering::Relaxed) == 0
        } else {
            word.load(Ordering::Relaxed) == MENDING
        }
    }

    #[inline(always)]
    fn word(&self) -> &AtomicU32 {
        // SAFETY: `COUNTED` or the page, both there for ever.
        unsafe { &*self.word.load(Ordering::Relaxed) }
    }

    /// To be called before a lock is taken, and again while it is waited for.
    #[inline(always)]
    pub(crate) fn look(&self) {
        if self.word().load(Ordering::Relaxed) != TOLD {
            self.learn();
        }
    }

    #[cold]
    #[inline(never)]
    fn learn(&self) {
        let word = self.word();
        if ptr::eq(word, &COUNTED) {
            return self.ask();
        }
        if word.compare_exchange(UNTOLD, MENDING, Ordering::Acquire, Ordering::Relaxed).is_ok() {
            self.call_mend();
            return word.store(TOLD, Ordering::Release);
        }
        while word.load(Ordering::Acquire) == MENDING {
            core::hint::spin_loop();
        }
    }

    /// Without a page: mends if this is another process than the one that was sound.
    fn ask(&self) {
        let process = os::process_id();
        loop {
            match self.process.load(Ordering::Acquire) {
                sound if sound == process => return,
                0 => core::hint::spin_loop(),
                parent => {
                    let order = (Ordering::Acquire, Ordering::Relaxed);
                    if self.process.compare_exchange(parent, 0, order.0, order.1).is_ok() {
                        self.call_mend();
                        return self.process.store(process, Ordering::Release);
                    }
                }
            }
        }
    }

    fn call_mend(&self) {
        for mend in [&self.mend, &self.also] {
            let mend = mend.load(Ordering::Acquire);
            if !mend.is_null() {
                // SAFETY: `watch` and `also` store a `fn()`.
                unsafe { core::mem::transmute::<*mut (), fn()>(mend)() };
            }
        }
    }
}

/// Without a page: a fork begins.
unsafe extern "C" fn before_fork() {
    COUNTED.fetch_add(FORKING, Ordering::Relaxed);
}

/// Without a page: a fork is over.
unsafe extern "C" fn in_parent() {
    // None where a handler that interrupted the fork made this process, which is told already.
    let _ = COUNTED
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| word.checked_sub(FORKING));
}

/// Without a page: this is a child, of one thread as yet.
unsafe extern "C" fn in_child() {
    LINEAGE.ask();
    COUNTED.store(TOLD, Ordering::Relaxed);
}
