//! What goes on beside a run under pressure: threads and processes that come and go, a balloon,
//! paging out.
//!
//! Everything begins just before the first operation and ends with the run. Threads of the harness
//! keep their own data in the harness's arena; what they do to the allocator under test are plain
//! calls of `malloc` and `free` through the dynamic linker, as the engine's.

use std::ffi::c_void;
use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crate::pressure::Means;

const PAGE: usize = 4096;
/// Objects that a thread or a process that comes and goes allocates.
const OBJECTS: usize = 64;
/// A forked child that has not allocated and left after so many seconds never will.
const PATIENCE_S: u32 = 10;

/// What goes on beside a run, until it is dropped.
#[derive(Debug)]
pub(super) struct Disturbance {
    seen: Arc<Seen>,
    threads: Vec<JoinHandle<()>>,
}

/// What all threads of a disturbance share.
#[derive(Debug, Default)]
struct Seen {
    stop: AtomicBool,
    /// Threads or processes that came and went, or times that everything was paged out.
    rounds: AtomicU64,
    /// Children that did not end well.
    failed: AtomicU64,
}

impl Disturbance {
    /// Begins what `means` says, so often as `amount` says; nothing for what is a limit.
    ///
    /// # Errors
    /// If a thread of the harness cannot be created.
    pub(super) fn begin(means: Means, amount: u64) -> io::Result<Self> {
        let (count, work): (u64, fn(&Seen, u64)) = match means {
            Means::ThreadChurn => (amount, churn),
            Means::ForkStorm => (amount, storm),
            Means::PageOut => (1, page_out),
            _ => (0, |_, _| {}),
        };
        let mut disturbance = Disturbance { seen: Arc::default(), threads: Vec::new() };
        for _ in 0..count {
            let seen = Arc::clone(&disturbance.seen);
            let thread = Builder::new().stack_size(256 << 10).spawn(move || {
                while !seen.stop.load(Ordering::Relaxed) {
                    work(&seen, amount);
                }
            })?;
            disturbance.threads.push(thread);
        }
        Ok(disturbance)
    }

    /// Ends it. How many threads, processes or rounds of paging there were, and how many forked
    /// children could not allocate.
    pub(super) fn end(mut self) -> (u64, u64) {
        self.stop();
        (self.seen.rounds.load(Ordering::SeqCst), self.seen.failed.load(Ordering::SeqCst))
    }

    fn stop(&mut self) {
        self.seen.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            // A thread of the harness that panicked has said so on standard error.
            let _ = thread.join();
        }
    }
}

impl Drop for Disturbance {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Objects of 16 to 1024 bytes; whether there was memory for all.
fn allocate(objects: &mut [*mut c_void; OBJECTS]) -> bool {
    for (i, object) in objects.iter_mut().enumerate() {
        // SAFETY: malloc takes any size; what it returns has at least one byte.
        unsafe {
            *object = libc::malloc(16 << (i % 7));
            if !object.is_null() {
                object.cast::<u8>().write_volatile(1);
            }
        }
    }
    objects.iter().all(|object| !object.is_null())
}

/// One thread that allocates, releases half, leaves the rest to its creator, and ends.
fn churn(seen: &Seen, _: u64) {
    let born = Builder::new().stack_size(128 << 10).spawn(|| {
        let mut objects = [std::ptr::null_mut(); OBJECTS];
        allocate(&mut objects);
        let (own, left) = objects.split_at(OBJECTS / 2);
        // SAFETY: each was just allocated, or is NULL, and is released once.
        own.iter().for_each(|object| unsafe { libc::free(*object) });
        left.iter().map(|object| object.expose_provenance()).collect::<Vec<usize>>()
    });
    // Under a limit there may be no memory for a thread; there may be later.
    let Ok(left) = born.map_err(drop).and_then(|thread| thread.join().map_err(drop)) else {
        return std::thread::sleep(Duration::from_millis(1));
    };
    for object in left {
        // SAFETY: allocated by the thread above, which handed it over.
        unsafe { libc::free(std::ptr::with_exposed_provenance_mut(object)) };
    }
    seen.rounds.fetch_add(1, Ordering::Relaxed);
}

/// One process that allocates and leaves.
fn storm(seen: &Seen, _: u64) {
    // SAFETY: the child of a process of many threads calls nothing but the allocator, whose
    // business it is to survive a fork, `alarm` and `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let mut objects = [std::ptr::null_mut(); OBJECTS];
        // SAFETY: as above; every object was just allocated or is NULL.
        unsafe {
            libc::alarm(PATIENCE_S);
            let all_well = allocate(&mut objects);
            objects.iter().for_each(|object| libc::free(*object));
            libc::_exit(i32::from(!all_well));
        }
    }
    if child < 0 {
        return std::thread::sleep(Duration::from_millis(1));
    }
    let mut status = 0;
    // SAFETY: a child of this thread that nobody else waits for; `status` is writable.
    while unsafe { libc::waitpid(child, &raw mut status, 0) } < 0
        && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
    {}
    seen.rounds.fetch_add(1, Ordering::Relaxed);
    seen.failed.fetch_add(u64::from(status != 0), Ordering::Relaxed);
}

/// Asks the kernel to take every anonymous page, then waits `every_ms`.
fn page_out(seen: &Seen, every_ms: u64) {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    for line in maps.lines().filter(|line| line.contains(" rw-p 00000000 00:00 0")) {
        let Some((start, end)) = line.split(' ').next().and_then(|range| range.split_once('-'))
        else {
            continue;
        };
        let number = |text| usize::from_str_radix(text, 16).unwrap_or(0);
        let (start, end) = (number(start), number(end));
        // SAFETY: paging out changes where bytes lie and nothing else; a range that is gone by now
        // gives an error, which is no matter.
        unsafe {
            let start = std::ptr::without_provenance_mut(start);
            libc::madvise(start, end.saturating_sub(start.addr()), libc::MADV_PAGEOUT);
        }
    }
    seen.rounds.fetch_add(1, Ordering::Relaxed);
    let until = Instant::now() + Duration::from_millis(every_ms);
    while Instant::now() < until && !seen.stop.load(Ordering::Relaxed) {
        std::thread::sleep(
            until.saturating_duration_since(Instant::now()).min(Duration::from_millis(20)),
        );
    }
}

/// A process that holds memory until it is dropped.
#[derive(Debug)]
pub(super) struct Balloon(libc::pid_t);

impl Balloon {
    /// Holds `bytes`, all of them resident when this returns.
    ///
    /// To be called while this process is small and of one thread: the child is a copy of it.
    ///
    /// # Errors
    /// If there is no process or no memory for it.
    pub(super) fn inflate(bytes: u64) -> io::Result<Self> {
        let bytes = usize::try_from(bytes).map_err(io::Error::other)?;
        let mut ends = [0; 2];
        // SAFETY: `ends` has room for two descriptors; the child makes system calls only, and none
        // of the allocator's.
        let child = unsafe {
            if libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) != 0 {
                return Err(io::Error::last_os_error());
            }
            match libc::fork() {
                0 => hold(bytes, ends[1]),
                child => child,
            }
        };
        let mut word = 0_u8;
        // SAFETY: both descriptors are ours and closed once; `word` is one writable byte.
        let told = unsafe {
            libc::close(ends[1]);
            let told = libc::read(ends[0], (&raw mut word).cast(), 1);
            libc::close(ends[0]);
            told
        };
        let balloon = Balloon(child);
        match (child, told) {
            (..0, _) => Err(io::Error::other("no process for the balloon")),
            (_, 1) => Ok(balloon),
            _ => Err(io::Error::new(io::ErrorKind::OutOfMemory, "no memory for the balloon")),
        }
    }
}

impl Drop for Balloon {
    fn drop(&mut self) {
        if self.0 > 0 {
            // SAFETY: a child of ours that was not waited for, so its number is still its own.
            unsafe {
                libc::kill(self.0, libc::SIGKILL);
                libc::waitpid(self.0, std::ptr::null_mut(), 0);
            }
        }
    }
}

/// The child: maps, writes to every page, says so, and keeps the pages warm until it is ended.
///
/// # Safety
/// To be called in a fresh child; `say` is the writing end of a pipe.
unsafe fn hold(bytes: usize, say: libc::c_int) -> ! {
    // SAFETY: a fresh anonymous mapping, written to within its length; the rest are system calls
    // that touch no memory of ours but the byte that is written to the pipe.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        let start = libc::mmap(
            std::ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        if start == libc::MAP_FAILED {
            libc::_exit(1);
        }
        let start: *mut u8 = start.cast();
        let mut told = false;
        loop {
            for offset in (0..bytes).step_by(PAGE) {
                start.wrapping_add(offset).write_volatile(1);
            }
            if !told {
                told = libc::write(say, c"y".as_ptr().cast(), 1) == 1;
            }
            let pause = libc::timespec { tv_sec: 0, tv_nsec: 100_000_000 };
            libc::nanosleep(&raw const pause, std::ptr::null_mut());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_and_processes_come_and_go_until_the_end() {
        for means in [Means::ThreadChurn, Means::ForkStorm] {
            let disturbance = Disturbance::begin(means, 2).unwrap();
            while disturbance.seen.rounds.load(Ordering::Relaxed) < 3 {
                std::thread::yield_now();
            }
            let (rounds, failed) = disturbance.end();
            assert!(rounds >= 3 && failed == 0, "{means:?}: {rounds} {failed}");
        }
    }

    #[test]
    fn a_balloon_is_resident_while_it_is_held() {
        let balloon = Balloon::inflate(8 << 20).unwrap();
        let status = fs::read_to_string(format!("/proc/{}/status", balloon.0)).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().unwrap();
        assert!(kib >= 8 << 10, "{kib}");
    }
}
