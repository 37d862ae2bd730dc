//! What belongs to the process: configuration, the raw file, fork, the start and the end.
//!
//! Everything that must not survive a fork lies in one page which the kernel zeroes in a forked
//! child, however it was forked. A zero there sends the next record to the slow path, and the
//! child opens a file of its own.
//!
//! # Invariants
//! 1. `WIPED.block` is null or points to the process block of this very process.
//! 2. Parked chunks belong to no thread; the lock guards them.

use core::cell::UnsafeCell;
use core::ffi::{CStr, c_int, c_void};
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use trace_format::v1::raw::{Drop, GATE_OPEN, GATE_PAUSED, PAGE, RawOp, RawRecord, STAMP_BITS};

use crate::clock;
use crate::file::{Block, Chunk, Options, Origin};
use crate::sys;
use crate::tls::{self, Thread};
use crate::writer;

const MAX_PARKED: usize = 64;
const MAX_PATH: usize = 512;

/// Zeroed by the kernel in a forked child.
#[repr(C, align(4096))]
struct Wiped {
    block: AtomicPtr<Block>,
    /// 0, or the address of the [`Thread`] that holds the lock.
    lock: AtomicUsize,
    parked_count: AtomicUsize,
    parked: UnsafeCell<[Chunk; MAX_PARKED]>,
    _pad: [u8; PAGE - 24 - MAX_PARKED * size_of::<Chunk>()],
}

const _: () = assert!(size_of::<Wiped>() == PAGE, "whole pages are wiped");

// SAFETY: `parked` is touched only under `lock`; the rest are atomics.
unsafe impl Sync for Wiped {}

const NO_CHUNK: Chunk = Chunk { base: 0, len: 0, cursor: 0, unit: 0 };

/// All zero, so that it lies in `.bss`: the kernel wipes anonymous pages alone, and `.data` is a file's.
static WIPED: Wiped = Wiped {
    block: AtomicPtr::new(core::ptr::null_mut()),
    lock: AtomicUsize::new(0),
    parked_count: AtomicUsize::new(0),
    parked: UnsafeCell::new([NO_CHUNK; MAX_PARKED]),
    _pad: [0; PAGE - 24 - MAX_PARKED * size_of::<Chunk>()],
};

/// What survives a fork: configuration, and where the parent stood.
struct Kept {
    /// The block of this process or of the one it was forked from.
    block: AtomicPtr<Block>,
    /// 1 once the environment was read.
    configured: AtomicU32,
    settings: UnsafeCell<Settings>,
}

struct Settings {
    directory: [u8; MAX_PATH],
    path: [u8; MAX_PATH],
    options: Options,
}

// SAFETY: `settings` is written only by `open_file`, under the lock, before the block that readers
// wait for is published.
unsafe impl Sync for Kept {}

static KEPT: Kept = Kept {
    block: AtomicPtr::new(core::ptr::null_mut()),
    configured: AtomicU32::new(0),
    settings: UnsafeCell::new(Settings {
        directory: [0; MAX_PATH],
        path: [0; MAX_PATH],
        options: Options { one_in: 0, limit: 0, ring: false, paused: false },
    }),
};

/// Stands in for a block when no file can be had: its gate lets nothing pass.
#[repr(C, align(4096))]
struct Closed([AtomicU64; PAGE / 8]);
static CLOSED: Closed = Closed([const { AtomicU64::new(0) }; PAGE / 8]);

/// The block of this process, if the file is open.
#[inline(always)]
pub(crate) fn block() -> Option<&'static Block> {
    // SAFETY: invariant 1; blocks are never unmapped.
    unsafe { WIPED.block.load(Ordering::Acquire).as_ref() }
}

/// Path of the raw file. Only for threads that saw [`block`] return one.
pub(crate) fn path() -> &'static CStr {
    // SAFETY: written before the block was published, not again in this process.
    let path = unsafe { &(*KEPT.settings.get()).path };
    CStr::from_bytes_until_nul(path).unwrap_or(c"")
}

/// Holds the lock until dropped.
#[derive(Debug)]
struct Guard;

impl Guard {
    fn take() -> Guard {
        loop {
            if let Some(guard) = Guard::take_as(crate::tls::thread()) {
                return guard;
            }
            sys::yield_now();
        }
    }

    /// `None`: somebody holds it.
    fn take_as(thread: &Thread) -> Option<Guard> {
        let ours = core::ptr::from_ref(thread).addr();
        let order = (Ordering::Acquire, Ordering::Relaxed);
        WIPED.lock.compare_exchange(0, ours, order.0, order.1).is_ok().then_some(Guard)
    }

    /// Whether this thread holds it: it is in a signal handler that interrupted it.
    fn is_held_by(thread: &Thread) -> bool {
        WIPED.lock.load(Ordering::Relaxed) == core::ptr::from_ref(thread).addr()
    }
}

impl core::ops::Drop for Guard {
    fn drop(&mut self) {
        WIPED.lock.store(0, Ordering::Release);
    }
}

/// The block of this process; opens the file at the first call and after a fork.
pub(crate) fn block_or_open(thread: &Thread) -> &'static Block {
    if let Some(block) = block() {
        return block;
    }
    // SAFETY: as large and aligned as a `Block`; zeros are a valid one; both sides see atomics.
    let closed = unsafe { &*(&raw const CLOSED).cast::<Block>() };
    if Guard::is_held_by(thread) {
        // There is no file yet in which to count what the handler does.
        return closed;
    }
    let _guard = Guard::take();
    if let Some(block) = block() {
        return block;
    }
    let block = open_file(thread).unwrap_or(closed);
    let _ = sys::wipe_on_fork((&raw const WIPED).cast_mut().cast::<c_void>(), size_of::<Wiped>());
    KEPT.block.store(core::ptr::from_ref(block).cast_mut(), Ordering::Relaxed);
    WIPED.block.store(core::ptr::from_ref(block).cast_mut(), Ordering::Release);
    block
}

fn open_file(thread: &Thread) -> Option<&'static Block> {
    // SAFETY: the caller holds the lock, and no block is published that would let others read.
    let settings = unsafe { &mut *KEPT.settings.get() };
    if KEPT.configured.load(Ordering::Relaxed) == 0 {
        read_environment(settings);
        KEPT.configured.store(1, Ordering::Relaxed);
    }
    // SAFETY: null, or a block that is never unmapped (invariant 1, in this process or its parent).
    let forked_from = unsafe { KEPT.block.load(Ordering::Relaxed).as_ref() };
    let parent = forked_from.map_or_else(sys::parent_pid, |b| b.pid.load(Ordering::Relaxed));
    let fork_stamp = match forked_from {
        Some(_) => thread.fork_stamp.replace(0),
        None => 0,
    };
    let mut options = settings.options;
    // A forked child begins as its parent stands.
    match forked_from.map_or(0, |parent| parent.gate.load(Ordering::Relaxed)) {
        GATE_OPEN => options.paused = false,
        GATE_PAUSED => options.paused = true,
        _ => {}
    }
    let pid = sys::pid();
    for image in 0..1000 {
        write_path(settings, pid, image);
        let path = CStr::from_bytes_until_nul(&settings.path).ok()?;
        let origin = Origin { pid, parent, fork_stamp, image };
        match Block::create(path, &origin, &options) {
            Ok(block) => return Some(block),
            Err(sys::Errno(libc::EEXIST)) => {}
            Err(_) => return None,
        }
    }
    None
}

/// Puts `DIRECTORY/PID-IMAGE.raw` into the settings.
fn write_path(settings: &mut Settings, pid: u32, image: u32) {
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        for &byte in bytes {
            if let Some(place) = settings.path.get_mut(at)
                && at < MAX_PATH - 1
            {
                *place = byte;
                at += 1;
            }
        }
    };
    for part in settings.directory.split(|&b| b == 0).take(1) {
        put(part);
    }
    put(b"/");
    let mut digits = [0; 10];
    put(decimal(pid, &mut digits));
    put(b"-");
    put(decimal(image, &mut digits));
    put(b".raw\0");
}

fn decimal(mut value: u32, digits: &mut [u8; 10]) -> &[u8] {
    let mut at = digits.len();
    for place in digits.iter_mut().rev() {
        *place = b'0' + (value % 10) as u8;
        value /= 10;
        at -= 1;
        if value == 0 {
            break;
        }
    }
    digits.get(at..).unwrap_or(&[])
}

/// Reads `ATRACE_*` from the environment the program was started with. `getenv` is of no use: the
/// first call of malloc comes before libc knows its environment.
fn read_environment(settings: &mut Settings) {
    settings.directory[0] = b'.';
    let Ok(fd) = sys::open(c"/proc/self/environ", libc::O_RDONLY) else { return };
    let mut line = [0u8; MAX_PATH + 32];
    let mut len = 0;
    let mut buffer = [0u8; 1024];
    while let Ok(got @ 1..) = sys::read(&fd, &mut buffer) {
        for &byte in buffer.iter().take(got) {
            if byte == 0 {
                if let Some(line) = line.get(..len) {
                    apply(settings, line);
                }
                len = 0;
            } else if let Some(place) = line.get_mut(len) {
                *place = byte;
                len += 1;
            }
        }
    }
}

fn apply(settings: &mut Settings, line: &[u8]) {
    let number = |digits: &[u8]| {
        digits.iter().fold(0u64, |value, digit| {
            value.wrapping_mul(10).wrapping_add(u64::from(digit.wrapping_sub(b'0')))
        })
    };
    if let Some(directory) = line.strip_prefix(b"ATRACE_DIR=") {
        if directory.len() < MAX_PATH - 32 {
            settings.directory = [0; MAX_PATH];
            for (place, byte) in settings.directory.iter_mut().zip(directory) {
                *place = *byte;
            }
        }
    } else if let Some(digits) = line.strip_prefix(b"ATRACE_ONE_IN=") {
        settings.options.one_in = number(digits) as u32;
    } else if let Some(digits) = line.strip_prefix(b"ATRACE_LIMIT=") {
        settings.options.limit = number(digits);
    } else if let Some(digits) = line.strip_prefix(b"ATRACE_RING=") {
        settings.options.ring = number(digits) != 0;
    } else if let Some(digits) = line.strip_prefix(b"ATRACE_PAUSED=") {
        settings.options.paused = number(digits) != 0;
    }
}

/// A chunk that no thread uses and that has room for `slots`, if there is one.
pub(crate) fn unpark(slots: usize) -> Option<Chunk> {
    let _guard = Guard::take();
    let count = WIPED.parked_count.load(Ordering::Relaxed).checked_sub(1)?;
    // SAFETY: the lock is held (invariant 2).
    let chunk = unsafe { (*WIPED.parked.get()).get(count).copied() }?;
    WIPED.parked_count.store(count, Ordering::Relaxed);
    if chunk.end().saturating_sub(chunk.cursor) < slots * trace_format::v1::raw::SLOT {
        chunk.retire();
        return None;
    }
    Some(chunk)
}

/// Gives back every chunk that no thread uses; whether there was one.
pub(crate) fn retire_parked() -> bool {
    let _guard = Guard::take();
    let count = WIPED.parked_count.swap(0, Ordering::Relaxed);
    // SAFETY: the lock is held (invariant 2).
    let parked = unsafe { &*WIPED.parked.get() };
    parked.iter().take(count).for_each(|chunk| chunk.retire());
    count > 0
}

/// Leaves a chunk for another thread to go on with.
pub(crate) fn park(chunk: Chunk) {
    let _guard = Guard::take();
    let count = WIPED.parked_count.load(Ordering::Relaxed);
    // SAFETY: the lock is held (invariant 2).
    match unsafe { (*WIPED.parked.get()).get_mut(count) } {
        Some(place) => {
            *place = chunk;
            WIPED.parked_count.store(count + 1, Ordering::Relaxed);
        }
        None => chunk.retire(),
    }
}

/// The moment now in the count of `block`.
#[inline(always)]
pub(crate) fn stamp(block: &Block) -> u64 {
    let ticks = clock::now().wrapping_sub(block.first_ticks.load(Ordering::Relaxed));
    ticks & ((1 << STAMP_BITS) - 1)
}

extern "C" fn before_fork() {
    let thread = tls::thread();
    // Forked itself and without a call since, this process has no file yet: the child's stamp is to
    // be one of its own count.
    let block = block_or_open(thread);
    thread.fork_stamp.set(stamp(block));
}

extern "C" fn after_fork_in_parent() {
    let thread = tls::thread();
    let stamp = thread.fork_stamp.replace(0);
    if stamp != 0
        && let Some(block) = writer::recording()
    {
        writer::record(block, &RawRecord::short(RawOp::Fork, stamp, 0, 0));
    }
}

extern "C" fn after_fork_in_child() {
    // Kernels before 4.14 do not wipe: the same by hand.
    if let Some(block) = block()
        && block.pid.load(Ordering::Relaxed) != sys::pid()
    {
        WIPED.parked_count.store(0, Ordering::Relaxed);
        WIPED.lock.store(0, Ordering::Relaxed);
        WIPED.block.store(core::ptr::null_mut(), Ordering::Release);
    }
}

/// Counts an event of this process that is not recorded.
pub(crate) fn count_drop(reason: Drop) {
    if let Some(block) = block() {
        block.count_drop(reason);
    }
}

unsafe extern "C" {
    fn pthread_atfork(
        prepare: extern "C" fn(),
        parent: extern "C" fn(),
        child: extern "C" fn(),
    ) -> c_int;
}

extern "C" fn at_start() {
    // SAFETY: the three handlers live as long as this library, which is never unloaded.
    let _ = unsafe { pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child) };
    crate::threads::make_exit_key();
    let _ = block_or_open(tls::thread());
}

extern "C" fn at_end() {
    if let Some(block) = block()
        && block.pid.load(Ordering::Relaxed) != 0
    {
        block.compare_clocks();
    }
}

#[used]
#[unsafe(link_section = ".init_array")]
static AT_START: extern "C" fn() = at_start;

#[used]
#[unsafe(link_section = ".fini_array")]
static AT_END: extern "C" fn() = at_end;
