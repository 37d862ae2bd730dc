//! Catches the system calls for memory of this process: counts them, and lets chosen ones fail.
//!
//! A seccomp filter turns each of them into a signal, whose handler counts it and makes it in its
//! place by an instruction that the filter lets pass. So the allocator and the C library are caught
//! however they call the kernel, no other process takes part, and nothing else is slowed. A call
//! costs about two microseconds more: times of such a run are no measurement.
//!
//! Before each call the kernel is asked what it has promised this process: committed memory changes by
//! these calls alone, so no peak is missed. What is cut off a mapping just made never counts: where an
//! aligned mapping is cut out of a larger one is chance.
//!
//! A thread created by the C library ends with all signals blocked, and then calls `madvise` for its
//! stack: with the filter that call would end the process. So the engine's threads run on stacks of
//! its own, for which nothing is called. A thread of the allocator's own may live on and sleep, but not
//! end, while the filter is there.
//!
//! The filter stays for the life of the process; when nobody [watches](watch), calls pass uncounted.
//!
//! # Invariants
//! 1. The handler calls nothing but the kernel, by [`raw`], and writes nothing but atomics and the
//!    interrupted thread's registers: it may run anywhere, in the midst of an allocator too.
//! 2. `raw` alone holds the instruction that the filter lets pass.

use std::io;
use std::os::fd::IntoRawFd;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};

/// The calls that are caught, by number and name.
#[cfg(target_arch = "x86_64")]
const CALLS: [(libc::c_long, &str); 6] = [
    (libc::SYS_mmap, "mmap"),
    (libc::SYS_munmap, "munmap"),
    (libc::SYS_mremap, "mremap"),
    (libc::SYS_brk, "brk"),
    (libc::SYS_madvise, "madvise"),
    (libc::SYS_mprotect, "mprotect"),
];
#[cfg(not(target_arch = "x86_64"))]
const CALLS: [(libc::c_long, &str); 0] = [];

static COUNTS: [AtomicU64; CALLS.len()] = [const { AtomicU64::new(0) }; CALLS.len()];
static WATCHED: AtomicBool = AtomicBool::new(false);
/// Calls that ask for memory, so far.
static TAKING: AtomicU64 = AtomicU64::new(0);
/// The first that fails; 0: none.
static FIRST: AtomicU64 = AtomicU64::new(0);
/// The last that fails.
static LAST: AtomicU64 = AtomicU64::new(0);
static FAILED: AtomicU64 = AtomicU64::new(0);
/// /proc/self/statm; below 0: not open.
static STATM: AtomicI32 = AtomicI32::new(-1);
/// Pages promised when watching began, and the most since.
static COMMITTED_BEFORE: AtomicU64 = AtomicU64::new(0);
static COMMITTED_PEAK: AtomicU64 = AtomicU64::new(0);
/// The mapping made last: where it begins, and behind its end.
static LAST_MAPPED: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// Counts from now on until it is dropped.
#[derive(Debug)]
pub(super) struct Watch;

/// Counts from now on; the calls for memory (mmap, mremap and brk) numbered `first` to `last`, from
/// 1, fail. `first` 0: none does.
///
/// # Errors
/// If the kernel lets no filter be set.
pub(super) fn watch(first: u64, last: u64) -> io::Result<Watch> {
    FIRST.store(first, Ordering::SeqCst);
    LAST.store(last, Ordering::SeqCst);
    if let Ok(file) = std::fs::File::open("/proc/self/statm") {
        STATM.store(file.into_raw_fd(), Ordering::SeqCst);
    }
    install()?;
    COMMITTED_BEFORE.store(committed_pages().unwrap_or(0), Ordering::SeqCst);
    WATCHED.store(true, Ordering::SeqCst);
    Ok(Watch)
}

impl Drop for Watch {
    fn drop(&mut self) {
        note_committed();
        WATCHED.store(false, Ordering::SeqCst);
    }
}

/// The most that the kernel had promised while somebody watched, above what it had before: private
/// writable memory, in bytes. `None` where it does not say.
pub(super) fn peak_committed_bytes() -> Option<u64> {
    let pages = COMMITTED_PEAK
        .load(Ordering::SeqCst)
        .checked_sub(COMMITTED_BEFORE.load(Ordering::SeqCst))?;
    // SAFETY: asks for a constant of the system.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    (COMMITTED_BEFORE.load(Ordering::SeqCst) > 0).then_some(pages * u64::try_from(page).ok()?)
}

fn note_committed() {
    if let Some(pages) = committed_pages() {
        COMMITTED_PEAK.fetch_max(pages, Ordering::Relaxed);
    }
}

/// The sixth number of /proc/self/statm: pages of private writable memory.
fn committed_pages() -> Option<u64> {
    let file = STATM.load(Ordering::Relaxed);
    let mut text = [0_u8; 128];
    let read = read_start(file, &mut text)?;
    let number = text.get(..read)?.split(|&byte| byte == b' ').nth(5)?;
    number.iter().try_fold(0_u64, |sum, digit| match digit {
        b'0'..=b'9' => sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

/// What was counted, by name; the failures that were injected last, if any could be.
pub(super) fn counts() -> Vec<(String, u64)> {
    let counts = CALLS.iter().zip(&COUNTS);
    let mut all: Vec<(String, u64)> = counts
        .map(|((_, name), count)| ((*name).to_owned(), count.load(Ordering::SeqCst)))
        .collect();
    if FIRST.load(Ordering::SeqCst) != 0 {
        all.push((INJECTED.to_owned(), FAILED.load(Ordering::SeqCst)));
    }
    all
}

/// The name under which injected failures are counted.
pub const INJECTED: &str = "injected_failures";

#[cfg(not(target_arch = "x86_64"))]
fn install() -> io::Result<()> {
    Err(io::Error::other("system calls are caught on x86-64 only"))
}

#[cfg(not(target_arch = "x86_64"))]
fn read_start(_: i32, _: &mut [u8]) -> Option<usize> {
    None
}

#[cfg(target_arch = "x86_64")]
use x86_64::{install, read_start};

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use std::ffi::{c_int, c_long, c_void};
    use std::io;
    use std::sync::atomic::Ordering;

    use super::{CALLS, COUNTS, FAILED, FIRST, LAST, LAST_MAPPED, TAKING, WATCHED, note_committed};

    // raw(number, a, b, c, d, e, f): the kernel's registers for a call are not quite those of C.
    std::arch::global_asm!(
        ".globl bench_cli_raw_syscall",
        ".hidden bench_cli_raw_syscall",
        ".globl bench_cli_raw_syscall_made",
        ".hidden bench_cli_raw_syscall_made",
        "bench_cli_raw_syscall:",
        "mov rax, rdi",
        "mov rdi, rsi",
        "mov rsi, rdx",
        "mov rdx, rcx",
        "mov r10, r8",
        "mov r8, r9",
        "mov r9, [rsp + 8]",
        "syscall",
        "bench_cli_raw_syscall_made:",
        "ret",
    );

    unsafe extern "C" {
        #[link_name = "bench_cli_raw_syscall"]
        fn raw(number: i64, a: i64, b: i64, c: i64, d: i64, e: i64, f: i64) -> i64;
        /// Not a function: the place just behind the instruction, which the filter compares with.
        #[link_name = "bench_cli_raw_syscall_made"]
        fn made();
    }

    const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

    const fn step(code: u16, k: u32, yes: u8, no: u8) -> libc::sock_filter {
        libc::sock_filter { code, jt: yes, jf: no, k }
    }

    /// `struct seccomp_data`: number at 0, architecture at 4, instruction pointer at 8.
    fn program() -> [libc::sock_filter; 9 + CALLS.len()] {
        let place = (made as unsafe extern "C" fn() as usize) as u64;
        let mut steps = [step(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0); 9 + CALLS.len()];
        let allow = 7 + CALLS.len();
        let to = |from: usize, target: usize| u8::try_from(target - from - 1).unwrap_or(u8::MAX);
        steps[0] = step(LOAD, 4, 0, 0);
        steps[1] = step(EQUAL, AUDIT_ARCH_X86_64, 0, to(1, allow));
        steps[2] = step(LOAD, 8, 0, 0);
        steps[3] = step(EQUAL, (place & 0xffff_ffff) as u32, 0, 2);
        steps[4] = step(LOAD, 12, 0, 0);
        steps[5] = step(EQUAL, (place >> 32) as u32, to(5, allow), 0);
        steps[6] = step(LOAD, 0, 0, 0);
        for (i, (number, _)) in CALLS.iter().enumerate() {
            let number = u32::try_from(*number).unwrap_or(u32::MAX);
            steps[7 + i] = step(EQUAL, number, to(7 + i, allow + 1), 0);
        }
        steps[allow + 1] = step(RETURN, libc::SECCOMP_RET_TRAP, 0, 0);
        steps
    }

    pub(super) fn install() -> io::Result<()> {
        let mut steps = program();
        let filter = libc::sock_fprog {
            len: u16::try_from(steps.len()).unwrap_or(u16::MAX),
            filter: steps.as_mut_ptr(),
        };
        // SAFETY: all-zero bytes are a valid `sigaction` with an empty mask.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction =
            caught as extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER | libc::SA_RESTART;
        // SAFETY: the handler keeps to invariant 1; the filter's steps outlive the call that reads
        // them, every jump of it lands within, and its last two steps return.
        unsafe {
            if libc::sigaction(libc::SIGSYS, &raw const action, std::ptr::null_mut()) != 0
                || libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
                || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter)
                    != 0
            {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }

    extern "C" fn caught(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
        // SAFETY: the kernel passes the interrupted thread's context to a SA_SIGINFO handler.
        let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
        let register = |which: c_int| registers[usize::try_from(which).unwrap_or(0)];
        let number = register(libc::REG_RAX);
        let arguments = [
            register(libc::REG_RDI),
            register(libc::REG_RSI),
            register(libc::REG_RDX),
            register(libc::REG_R10),
            register(libc::REG_R8),
            register(libc::REG_R9),
        ];
        let [a, b, c, d, e, f] = arguments;
        let watched = WATCHED.load(Ordering::Relaxed);
        if watched && !cuts(number, a, b) {
            note_committed();
        }
        let result = match watched && fails(number, a) {
            // A brk that fails says where the break is, and no error.
            // SAFETY: asks, and changes nothing.
            true if number == libc::SYS_brk => unsafe { raw(number, 0, 0, 0, 0, 0, 0) },
            true => -i64::from(libc::ENOMEM),
            // SAFETY: the very call that the program was about to make.
            false => unsafe { raw(number, a, b, c, d, e, f) },
        };
        if number == libc::SYS_mmap && result > 0 {
            LAST_MAPPED[0].store(result.cast_unsigned(), Ordering::Relaxed);
            LAST_MAPPED[1].store(result.wrapping_add(b).cast_unsigned(), Ordering::Relaxed);
        }
        registers[usize::try_from(libc::REG_RAX).unwrap_or(0)] = result;
    }

    /// Whether a call only takes a part off the mapping made last.
    fn cuts(number: c_long, address: i64, len: i64) -> bool {
        let (start, end) = (address.cast_unsigned(), address.wrapping_add(len).cast_unsigned());
        let [first, last] = [&LAST_MAPPED[0], &LAST_MAPPED[1]].map(|a| a.load(Ordering::Relaxed));
        number == libc::SYS_munmap && first <= start && end <= last && (first, last) != (start, end)
    }

    /// Reads the start of a file without a change of its position; the bytes read.
    pub(super) fn read_start(file: i32, into: &mut [u8]) -> Option<usize> {
        let len = i64::try_from(into.len()).ok()?;
        let place = into.as_mut_ptr().expose_provenance().cast_signed() as i64;
        // SAFETY: the kernel writes at most `len` bytes into the slice.
        let read = unsafe { raw(libc::SYS_pread64, i64::from(file), place, len, 0, 0, 0) };
        usize::try_from(read).ok()
    }

    /// Counts a call and says whether it is one that has to fail.
    fn fails(number: c_long, argument: i64) -> bool {
        for ((known, _), count) in CALLS.iter().zip(&COUNTS) {
            if *known == number {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
        let takes = number == libc::SYS_mmap
            || number == libc::SYS_mremap
            || number == libc::SYS_brk && argument != 0;
        let first = FIRST.load(Ordering::Relaxed);
        if !takes || first == 0 {
            return false;
        }
        let n = TAKING.fetch_add(1, Ordering::Relaxed) + 1;
        let fails = (first..=LAST.load(Ordering::Relaxed)).contains(&n);
        FAILED.fetch_add(u64::from(fails), Ordering::Relaxed);
        fails
    }
}
