//! Threads born and dying: who created a thread, and when it ended.
//!
//! `pthread_create` is wrapped so that the new thread begins here, leaves a record and jumps to
//! its own function: no frame of ours stays on its stack, so cancellation, `pthread_exit`,
//! exceptions and debuggers see what they always saw. The end comes from the destructor of a
//! thread-specific key, in the last of its rounds, so other destructors' frees come before it.

use core::ffi::{c_int, c_void};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicI64, AtomicPtr, AtomicU32, AtomicUsize, Ordering};

use crate::real::{self, Start};
use crate::tls;
use crate::writer;

/// POSIX promises that many rounds of destructors, and glibc makes no more.
const ROUNDS: u32 = 4;
const NO_KEY: i64 = -1;
static KEY: AtomicI64 = AtomicI64::new(NO_KEY);

/// What a new thread is told, in one of a fixed number of places; no memory is asked for.
struct Place {
    taken: AtomicU32,
    parent: AtomicU32,
    start: AtomicPtr<c_void>,
    argument: AtomicPtr<c_void>,
}

static PLACES: [Place; 256] = [const {
    Place {
        taken: AtomicU32::new(0),
        parent: AtomicU32::new(0),
        start: AtomicPtr::new(null_mut()),
        argument: AtomicPtr::new(null_mut()),
    }
}; 256];
static HINT: AtomicUsize = AtomicUsize::new(0);

fn take_place() -> Option<&'static Place> {
    let first = HINT.fetch_add(1, Ordering::Relaxed);
    (0..PLACES.len()).find_map(|i| {
        let place = PLACES.get(first.wrapping_add(i) % PLACES.len())?;
        (place.taken.swap(1, Ordering::Acquire) == 0).then_some(place)
    })
}

/// `pthread_create(3)`: the new thread notes its beginning and its parent.
///
/// # Safety
/// As in C.
#[unsafe(export_name = "pthread_create")]
unsafe extern "C" fn hook_pthread_create(
    thread: *mut libc::pthread_t,
    attributes: *const libc::pthread_attr_t,
    start: Start,
    argument: *mut c_void,
) -> c_int {
    let Some(real) = real::pthread_create() else { return libc::EAGAIN };
    let Some(place) = take_place() else {
        // More threads are being born at once than there are places: this one has no parent.
        // SAFETY: the caller's promise is the real function's.
        return unsafe { real(thread, attributes, start, argument) };
    };
    place.parent.store(writer::number(), Ordering::Relaxed);
    place.start.store(start as *mut c_void, Ordering::Relaxed);
    place.argument.store(argument, Ordering::Relaxed);
    let told = core::ptr::from_ref(place).cast_mut().cast();
    // SAFETY: as the caller's call, with a start function that goes on to the caller's.
    let code = unsafe { real(thread, attributes, begin, told) };
    if code != 0 {
        place.taken.store(0, Ordering::Release);
    }
    code
}

/// Where a thread goes from `begin`: two registers in the C calling convention.
#[repr(C)]
struct Onward {
    start: *mut c_void,
    argument: *mut c_void,
}

/// Notes the beginning of the calling thread and gives its place back.
unsafe extern "C" fn note_beginning(place: &Place) -> Onward {
    let thread = tls::thread();
    thread.parent.set(place.parent.load(Ordering::Relaxed));
    let onward = Onward {
        start: place.start.load(Ordering::Relaxed),
        argument: place.argument.load(Ordering::Relaxed),
    };
    place.taken.store(0, Ordering::Release);
    writer::begin_thread();
    onward
}

/// The start function of every thread: notes the beginning, then jumps.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
unsafe extern "C" fn begin(place: *mut c_void) -> *mut c_void {
    core::arch::naked_asm!(
        "sub rsp, 8",
        "call {note}",
        "add rsp, 8",
        "mov rdi, rdx",
        "jmp rax",
        note = sym note_beginning,
    )
}

/// The start function of every thread: notes the beginning, then jumps.
#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
unsafe extern "C" fn begin(place: *mut c_void) -> *mut c_void {
    core::arch::naked_asm!(
        "stp x29, x30, [sp, #-16]!",
        "bl {note}",
        "ldp x29, x30, [sp], #16",
        "mov x9, x0",
        "mov x0, x1",
        "br x9",
        note = sym note_beginning,
    )
}

/// Makes the key whose destructor tells the end of threads.
pub(crate) fn make_exit_key() {
    let mut key = 0;
    // SAFETY: `key` is written; the destructor lives as long as this library, to the very end.
    if unsafe { libc::pthread_key_create(&mut key, Some(at_exit)) } == 0 {
        KEY.store(i64::from(key), Ordering::Release);
    }
}

/// Has the destructor run when the calling thread ends.
pub(crate) fn watch_exit() {
    let key = KEY.load(Ordering::Acquire);
    if key != NO_KEY {
        let something = core::ptr::without_provenance::<c_void>(1);
        // SAFETY: a key that exists. libc keeps the first 32 keys' values in the thread itself,
        // and this key was made before the program's own, so nothing is allocated.
        unsafe { libc::pthread_setspecific(key as libc::pthread_key_t, something) };
    }
}

unsafe extern "C" fn at_exit(_: *mut c_void) {
    let thread = tls::thread();
    thread.rounds.set(thread.rounds.get() + 1);
    if thread.rounds.get() < ROUNDS {
        watch_exit();
    } else {
        writer::end_thread();
    }
}
