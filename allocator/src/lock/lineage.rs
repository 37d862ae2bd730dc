//! Tells the child of a fork that it is one: `_Fork` and a bare `clone` run no handlers.
//!
//! Owns one page that the kernel wipes in every child (`MADV_WIPEONFORK`). Its word says
//! [`TOLD`] in a process whose locks are sound. In a child it reads 0 until somebody has mended what
//! threads that do not exist there were changing. Every taking of a lock looks, for once the child
//! has two threads nobody could say any more which holders are real.
//!
//! A fork copies memory as it was at one moment: the kernel protects every page, and flushes all
//! processors' translations, before a thread that faults goes on. So a lock that reads free protects
//! whole state, and what is linked without a lock is whole too; only held locks need mending.
//!
//! Cost: two loads per lock taken, and a page.

use core::ptr;

use crate::os;
use crate::sync::{AtomicPtr, AtomicU32, Ordering};

/// Wiped: a child in which nobody looked yet.
const UNTOLD: u32 = 0;
/// All is well.
const TOLD: u32 = 1;
/// A thread of the child is at work; the others wait for it.
const MENDING: u32 = 2;

/// Stands in for the page until there is one.
static ALWAYS_TOLD: AtomicU32 = AtomicU32::new(TOLD);

/// Whether this process knows of its own birth.
#[derive(Debug)]
pub(crate) struct Lineage {
    word: AtomicPtr<AtomicU32>,
    /// Called in a child that was not told. A `fn()`, or null.
    mend: AtomicPtr<()>,
}

impl Lineage {
    pub(crate) const fn new() -> Self {
        Lineage {
            word: AtomicPtr::new((&raw const ALWAYS_TOLD).cast_mut()),
            mend: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// From here on an untold child calls `mend` before it takes a lock. Without a page (an old
    /// kernel, no memory) nobody is told: libc's handlers have to do (see `thread::fork`).
    pub(crate) fn watch(&self, mend: fn()) {
        let page = os::map_wiped_in_children();
        if page.is_null() {
            return;
        }
        // SAFETY: a fresh page of ours, zeroed and never unmapped.
        unsafe { (*page).store(TOLD, Ordering::Relaxed) };
        self.mend.store(mend as *mut (), Ordering::Relaxed);
        self.word.store(page, Ordering::Release);
    }

    #[inline(always)]
    fn word(&self) -> &AtomicU32 {
        // SAFETY: `ALWAYS_TOLD` or the page, both there for ever.
        unsafe { &*self.word.load(Ordering::Relaxed) }
    }

    /// Whether children find out about themselves.
    pub(crate) fn is_watched(&self) -> bool {
        !ptr::eq(self.word(), &ALWAYS_TOLD)
    }

    /// To be called before a lock is taken.
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
        if word.compare_exchange(UNTOLD, MENDING, Ordering::Acquire, Ordering::Relaxed).is_ok() {
            let mend = self.mend.load(Ordering::Relaxed);
            if !mend.is_null() {
                // SAFETY: `watch` stored a `fn()` before it stored the page.
                unsafe { core::mem::transmute::<*mut (), fn()>(mend)() };
            }
            return word.store(TOLD, Ordering::Release);
        }
        while word.load(Ordering::Acquire) == MENDING {
            core::hint::spin_loop();
        }
    }
}
