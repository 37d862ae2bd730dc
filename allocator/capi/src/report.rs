//! Reports for people and for tools: counters by class and thread, the map of the heap; on request, at the end of the
//! process, or on a signal.
//!
//! Cost: walks over all span records when asked, nothing otherwise. Nothing allocates, and no lock of the heap is held
//! while text is written.
//!
//! # Invariants
//! 1. A signal handler that interrupted a change of the heap's writes one line instead of its report: it could only
//!    wait for itself.

use crate::control::{Picture, describe};
use crate::errno;
use crate::sample;
use crate::text::{Sink, Text};
use allocator::heap::{self, Use};
use allocator::options::{Options, Report};
use core::cell::UnsafeCell;
use core::ffi::{c_int, c_void};
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};

/// Whether the end of the process writes a report.
static AT_EXIT: AtomicBool = AtomicBool::new(false);
/// Where reports are written that an option asked for, -1 where none did. At exit that is a duplicate of standard error,
/// which many programs close before they end; a signal may come to a daemon, whose standard error is not to be held open
/// for whoever reads it.
static COPY: AtomicI32 = AtomicI32::new(-1);
/// Which file that is, see [`file_of`]: a program that closes all descriptors may have opened another one there.
static FILE: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// Which signal is taken: a number, 0 for none, or [`CHANGING`].
static TAKEN: AtomicI32 = AtomicI32::new(0);
/// What the program had that signal do before; whoever sets [`TAKEN`] to this may touch it.
static BEFORE: Before = Before(UnsafeCell::new(MaybeUninit::uninit()));
const CHANGING: c_int = -1;

struct Before(UnsafeCell<MaybeUninit<libc::sigaction>>);

// SAFETY: one thread at a time touches it, see `BEFORE`.
unsafe impl Sync for Before {}

/// Device and number of the file behind a descriptor; zeros where there is none.
#[inline(never)]
fn file_of(descriptor: c_int) -> [u64; 2] {
    // SAFETY: the kernel writes into a record of its own layout, for which zeros are a value.
    unsafe {
        let mut status: libc::stat = core::mem::zeroed();
        if libc::fstat(descriptor, &raw mut status) == 0 {
            [status.st_dev, status.st_ino]
        } else {
            [0; 2]
        }
    }
}

/// Run by the loader when the process ends, after the destructors of every other library.
#[used]
#[unsafe(link_section = ".fini_array")]
static WHEN_ENDED: extern "C" fn() = when_ended;

extern "C" fn when_ended() {
    if AT_EXIT.load(Ordering::Relaxed) {
        write_unasked();
    }
}

/// Writes report and profile, as the option `report` asked.
#[inline(never)]
fn write_unasked() {
    let place = standard_error();
    if let Some(place) = place {
        write_report(place);
    }
    sample::write_next(place);
}

/// A descriptor behind which there is still the file that standard error was when reports were chosen.
fn standard_error() -> Option<c_int> {
    let file = FILE.each_ref().map(|part| part.load(Ordering::Relaxed));
    [COPY.load(Ordering::Relaxed), 2].into_iter().find(|&place| file_of(place) == file)
}

/// Notes where standard error is, and has it stay open if it is `held`.
#[cold]
#[inline(never)]
fn note_standard_error(held: bool) {
    let mut descriptor = 2;
    if held {
        // SAFETY: duplicates a descriptor to a number above those that programs count on.
        descriptor = unsafe { libc::fcntl(2, libc::F_DUPFD_CLOEXEC, 100) };
    }
    if descriptor < 0 {
        descriptor = 2;
    }
    for (part, value) in FILE.iter().zip(file_of(descriptor)) {
        part.store(value, Ordering::Relaxed);
    }
    COPY.store(descriptor, Ordering::Relaxed);
}

/// Sets up what the option `report` asks for, once the options are read, and again when a program changes them before
/// its first allocation. As a rule that is later than the library is loaded, when libc does not know its environment
/// yet; in a program linked with the archive, whose other constructors may come first and allocate, it is earlier.
pub(crate) fn when_ready(options: &Options) {
    // The first allocation calls this, and standard error may be closed.
    let kept = errno::get();
    undo();
    if options.report != Report::Never {
        note_standard_error(options.report == Report::Exit);
    }
    match options.report {
        Report::Never => (),
        Report::Exit => AT_EXIT.store(true, Ordering::Relaxed),
        Report::Usr1 => take(libc::SIGUSR1),
        Report::Usr2 => take(libc::SIGUSR2),
    }
    errno::set(kept);
}

/// Has `signal` ask for a report.
#[cold]
#[inline(never)]
fn take(signal: c_int) {
    if TAKEN.compare_exchange(0, CHANGING, Ordering::Acquire, Ordering::Relaxed).is_err() {
        return;
    }
    // SAFETY: zeroed is a valid sigaction; the handler has the type that SA_SIGINFO's absence asks for, and lives in
    // an object that is never unloaded, see `allocator::Allocator`. `BEFORE` is this thread's meanwhile.
    unsafe {
        let mut action: libc::sigaction = core::mem::zeroed();
        action.sa_sigaction = on_signal as *const c_void as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigemptyset(&raw mut action.sa_mask);
        let taken = libc::sigaction(signal, &raw const action, BEFORE.0.get().cast()) == 0;
        TAKEN.store(if taken { signal } else { 0 }, Ordering::Release);
    }
}

/// Takes back what was set up for an earlier choice, unless the program has another use for it by now.
fn undo() {
    if COPY.load(Ordering::Relaxed) >= 0 {
        undo_choice();
    }
}

#[cold]
#[inline(never)]
fn undo_choice() {
    AT_EXIT.store(false, Ordering::Relaxed);
    let descriptor = COPY.swap(-1, Ordering::Relaxed);
    if descriptor > 2
        && file_of(descriptor) == FILE.each_ref().map(|part| part.load(Ordering::Relaxed))
    {
        // SAFETY: closes the duplicate that `note_standard_error` made.
        unsafe { libc::close(descriptor) };
    }
    let signal = TAKEN.swap(CHANGING, Ordering::Acquire);
    if signal > 0 {
        // SAFETY: zeroed is a valid sigaction; `BEFORE` was filled when the signal was taken, and is this thread's
        // meanwhile.
        unsafe {
            let mut action: libc::sigaction = core::mem::zeroed();
            if libc::sigaction(signal, core::ptr::null(), &raw mut action) == 0
                && action.sa_sigaction == on_signal as *const c_void as usize
            {
                libc::sigaction(signal, BEFORE.0.get().cast(), core::ptr::null_mut());
            }
        }
    }
    if signal != CHANGING {
        TAKEN.store(0, Ordering::Release);
    }
}

extern "C" fn on_signal(_: c_int) {
    let kept = errno::get();
    if heap::can_report() {
        write_unasked();
    } else if let Some(place) = standard_error() {
        let mut text = Text::new(Sink::Descriptor(place));
        text.put("allocator: in the middle of a change; send the signal again\n");
        text.finish();
    }
    errno::set(kept);
}

/// Writes counters, classes and threads to a descriptor; 0, or -1 when something was lost.
#[unsafe(no_mangle)]
extern "C" fn allocator_report(descriptor: c_int) -> c_int {
    let kept = errno::get();
    let whole = write_report(descriptor);
    if whole {
        errno::set(kept);
        return 0;
    }
    -1
}

/// False when something was lost.
fn write_report(descriptor: c_int) -> bool {
    let mut text = Text::new(Sink::Descriptor(descriptor));
    describe(&mut text, &Picture::take());
    text.put("  class bytes      spans  committed bytes    touched bytes       live bytes\n");
    heap::for_each_class(|class| {
        text.put("  ").padded(class.size, 11).put(" ").padded(class.spans, 10);
        text.put(" ").padded(class.committed, 16).put(" ").padded(class.touched, 16);
        text.put(" ").padded(class.live, 16).put("\n");
    });
    text.put("       thread      spans  committed bytes                         live bytes\n");
    heap::for_each_thread(|thread| {
        text.put("  ");
        if thread.thread == 0 {
            text.put("      ended");
        } else {
            text.padded(thread.thread as usize, 11);
        }
        text.put(" ").padded(thread.spans, 10).put(" ").padded(thread.committed, 16);
        text.put("                  ").padded(thread.live, 16).put("\n");
    });
    sample::describe(&mut text);
    text.finish()
}

/// Writes the map of the heap to a descriptor as JSON, one object a line; 0, or -1 when something was lost.
#[unsafe(no_mangle)]
extern "C" fn allocator_heap_map(descriptor: c_int) -> c_int {
    let kept = errno::get();
    let mut json = Text::new(Sink::Descriptor(descriptor));
    let now = Picture::take();
    json.put("{\"heap_map\":1,\"version\":\"").put(env!("CARGO_PKG_VERSION"));
    json.put("\",\"slice_bytes\":").number(heap::SLICE_BYTES);
    json.put(",\"live\":").number(now.live).put(",\"committed\":").number(now.committed);
    json.put(",\"mapped\":").number(now.mapped).put(",\"cached\":").number(now.cached);
    json.put(",\"huge\":").number(heap::statistics().huge).put("}\n");
    let mut segments = 0;
    heap::for_each_segment(|segment| {
        segments += 1;
        json.put("{\"address\":").number(segment.address);
        json.put(",\"bytes\":").number(segment.bytes).put(",\"spans\":[");
        let mut comma = "";
        for span in segment.spans() {
            let used = match span.used {
                Use::Records => "records",
                Use::Clean => "clean",
                Use::Dirty => "dirty",
                Use::Slab => "slab",
                Use::Bitmap => "bitmap",
                Use::Spare => "spare",
            };
            json.put(comma).put("{\"slice\":").number(span.first as usize);
            json.put(",\"slices\":").number(span.slices as usize).put(",\"use\":\"").put(used);
            if span.block != 0 {
                json.put("\",\"block\":").number(span.block as usize);
                json.put(",\"capacity\":").number(span.capacity as usize);
                json.put(",\"live\":").number(span.live as usize).put("}");
            } else {
                json.put("\"}");
            }
            comma = ",";
        }
        json.put("]}\n");
    });
    json.put("{\"end\":true,\"segments\":").number(segments).put("}\n");
    if json.finish() {
        errno::set(kept);
        return 0;
    }
    -1
}
