//! The functions that were wrapped, found behind this library in the search order; and memory for
//! the calls that arrive while they are being looked for (`dlsym` itself may allocate).

use core::cell::UnsafeCell;
use core::ffi::{CStr, c_int, c_void};
use core::mem::transmute;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};

pub(crate) type Malloc = unsafe extern "C" fn(usize) -> *mut c_void;
pub(crate) type Calloc = unsafe extern "C" fn(usize, usize) -> *mut c_void;
pub(crate) type Realloc = unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void;
pub(crate) type Free = unsafe extern "C" fn(*mut c_void);
pub(crate) type Aligned = unsafe extern "C" fn(usize, usize) -> *mut c_void;
pub(crate) type PosixMemalign = unsafe extern "C" fn(*mut *mut c_void, usize, usize) -> c_int;
pub(crate) type UsableSize = unsafe extern "C" fn(*mut c_void) -> usize;
pub(crate) type Start = unsafe extern "C" fn(*mut c_void) -> *mut c_void;
pub(crate) type PthreadCreate = unsafe extern "C" fn(
    *mut libc::pthread_t,
    *const libc::pthread_attr_t,
    Start,
    *mut c_void,
) -> c_int;

macro_rules! functions {
    ($($name:ident: $type:ty = $symbol:literal;)*) => {
        /// The wrapped functions; null where nobody behind this library has one.
        struct Table { $($name: AtomicPtr<c_void>,)* }
        static TABLE: Table = Table { $($name: AtomicPtr::new(null_mut()),)* };

        fn find_all() {
            $(TABLE.$name.store(next($symbol), Ordering::Relaxed);)*
        }

        $(
            /// The function of this name behind this library, unless there is none, or this very
            /// thread is just looking for it.
            #[inline(always)]
            pub(crate) fn $name() -> Option<$type> {
                let mut found = TABLE.$name.load(Ordering::Relaxed);
                if found.is_null() {
                    find_once();
                    found = TABLE.$name.load(Ordering::Relaxed);
                }
                // SAFETY: null, or a symbol with the C signature of its name.
                unsafe { transmute::<*mut c_void, Option<$type>>(found) }
            }
        )*
    };
}

functions! {
    malloc: Malloc = c"malloc";
    calloc: Calloc = c"calloc";
    realloc: Realloc = c"realloc";
    free: Free = c"free";
    memalign: Aligned = c"memalign";
    aligned_alloc: Aligned = c"aligned_alloc";
    posix_memalign: PosixMemalign = c"posix_memalign";
    valloc: Malloc = c"valloc";
    pvalloc: Malloc = c"pvalloc";
    usable_size: UsableSize = c"malloc_usable_size";
    pthread_create: PthreadCreate = c"pthread_create";
}

/// The function of this name behind this library; null if there is none.
pub(crate) fn next(symbol: &CStr) -> *mut c_void {
    // SAFETY: a NUL-terminated name; libc's dlsym finds the caller by its return address, which
    // lies here.
    let found = unsafe { libc::dlsym(libc::RTLD_NEXT, symbol.as_ptr()) };
    // No tail call, or the return address would be our caller's.
    core::hint::black_box(found)
}

const NOT_YET: u32 = 0;
const LOOKING: u32 = 1;
const DONE: u32 = 2;
static STATE: AtomicU32 = AtomicU32::new(NOT_YET);
static LOOKER: AtomicU32 = AtomicU32::new(0);

#[cold]
#[inline(never)]
fn find_once() {
    let order = Ordering::AcqRel;
    match STATE.compare_exchange(NOT_YET, LOOKING, order, Ordering::Acquire) {
        Ok(_) => {
            LOOKER.store(crate::sys::tid(), Ordering::Relaxed);
            find_all();
            STATE.store(DONE, Ordering::Release);
        }
        // The looker itself, from inside dlsym, is served by the arena.
        Err(LOOKING) if LOOKER.load(Ordering::Relaxed) == crate::sys::tid() => {}
        Err(_) => {
            while STATE.load(Ordering::Acquire) != DONE {
                crate::sys::yield_now();
            }
        }
    }
}

/// Memory for calls made before the real functions are known. Never given back.
#[repr(C, align(16))]
struct Arena {
    bytes: UnsafeCell<[u8; ARENA]>,
    used: AtomicUsize,
}

// SAFETY: every byte is given to one caller only, by the addition in `early`.
unsafe impl Sync for Arena {}

const ARENA: usize = 64 << 10;
static EARLY: Arena = Arena { bytes: UnsafeCell::new([0; ARENA]), used: AtomicUsize::new(0) };

/// Zeroed memory of `size` bytes at 16-byte alignment, its size noted in front; null once the
/// arena is used up.
pub(crate) fn early(size: usize) -> *mut c_void {
    let Some(want) = size.checked_next_multiple_of(16).and_then(|s| s.checked_add(16)) else {
        return null_mut();
    };
    let at = EARLY.used.fetch_add(want.min(ARENA), Ordering::Relaxed);
    if want > ARENA || at > ARENA - want {
        return null_mut();
    }
    let base = EARLY.bytes.get().cast::<u8>();
    // SAFETY: `[at, at + want)` lies in the arena and was given to nobody else.
    unsafe {
        let block = base.add(at);
        block.cast::<usize>().write(size);
        block.add(16).cast()
    }
}

/// The size of the memory at `pointer` if it came from [`early`].
#[inline(always)]
pub(crate) fn early_size(pointer: *mut c_void) -> Option<usize> {
    let offset = pointer.addr().wrapping_sub(EARLY.bytes.get().addr());
    if offset >= ARENA {
        return None;
    }
    // SAFETY: pointers into the arena are handed out by `early` alone, with the size 16 in front.
    Some(unsafe { pointer.cast::<u8>().sub(16).cast::<usize>().read() })
}
