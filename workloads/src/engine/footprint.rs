//! Memory over time: the sampler, what it reads, and the fragmentation figures by name.
//!
//! The sampler is a thread of the harness that reads files kept open into memory mapped before the
//! run, so that it calls no allocator. `use` below is memory in use as the kernel sees it, less the
//! constant base measured before the first operation; which figure it is, is said by name.

use std::ffi::c_void;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::memory::Region;
use super::outcome::EngineError;
use super::threads::Shared;
use super::timer::now_ns;
use crate::plan::Plan;

/// Samples kept; when they are full, every second one is dropped and the interval doubled.
const SAMPLES: usize = 8192;

/// Live bytes of the run, exactly.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Live {
    bytes: AtomicI64,
    peak: AtomicI64,
    usable: AtomicI64,
}

impl Live {
    #[inline(always)]
    pub(crate) fn add(&self, size: u64) {
        #[expect(clippy::cast_possible_wrap, reason = "no object has 2^63 bytes")]
        let now = self.bytes.fetch_add(size as i64, Ordering::Relaxed) + size as i64;
        if now > self.peak.load(Ordering::Relaxed) {
            self.peak.fetch_max(now, Ordering::Relaxed);
        }
    }

    #[inline(always)]
    pub(crate) fn subtract(&self, size: u64) {
        #[expect(clippy::cast_possible_wrap, reason = "no object has 2^63 bytes")]
        self.bytes.fetch_sub(size as i64, Ordering::Relaxed);
    }

    /// The usable size of an object that was born (positive) or dies (negative).
    pub(crate) fn usable(&self, change: i64) {
        self.usable.fetch_add(change, Ordering::Relaxed);
    }

    pub(crate) fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed).unsigned_abs()
    }
}

/// The process at one moment. Bytes of the kernel are not less the base.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[repr(C)]
pub struct Sample {
    /// Nanoseconds since the first operation.
    pub time_ns: u64,
    /// Requested bytes of live objects.
    pub live_bytes: u64,
    /// Usable bytes of live objects, as the allocator states them; 0 where it does not.
    pub usable_bytes: u64,
    /// Resident.
    pub rss_bytes: u64,
    /// Resident and written to by this process alone.
    pub private_dirty_bytes: u64,
    /// Given up by `MADV_FREE` and not yet taken by the kernel; part of the resident.
    pub lazy_free_bytes: u64,
    /// Address space of the process.
    pub virtual_bytes: u64,
    /// Page faults without disk since the first operation.
    pub minor_faults: u64,
}

/// Memory some time after the last operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// Milliseconds after the last operation.
    pub after_ms: u64,
    /// What was seen then.
    pub sample: Sample,
}

/// Fragmentation by name, over one kind of `use`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Fragmentation {
    /// Johnstone & Wilson 1: mean over time of use ÷ live.
    pub mean_over_time: Option<f64>,
    /// Johnstone & Wilson 2: use ÷ live at the peak of live.
    pub at_peak_live: Option<f64>,
    /// Johnstone & Wilson 3: use ÷ live at the peak of use.
    pub at_peak_use: Option<f64>,
    /// Johnstone & Wilson 4: most use ÷ most live.
    pub peak_to_peak: Option<f64>,
    /// Σ (usable − requested) ÷ usable, at the peak of live.
    pub internal: Option<f64>,
    /// (use − usable in use) ÷ use, at the peak of live.
    pub external: Option<f64>,
}

/// Memory of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Footprint {
    /// Resident bytes of the process before the first operation: harness and libraries.
    pub base_rss_bytes: u64,
    /// Private dirty bytes before the first operation.
    pub base_private_dirty_bytes: u64,
    /// Most live bytes, exactly.
    pub peak_live_bytes: u64,
    /// Nanoseconds from one sample to the next, at the end of the run.
    pub interval_ns: u64,
    /// Over time.
    pub samples: Vec<Sample>,
    /// After the last operation.
    pub drain: Vec<Drain>,
    /// With use = resident bytes less the base.
    pub by_rss: Fragmentation,
    /// With use = private dirty bytes less the base.
    pub by_private_dirty: Fragmentation,
}

impl Fragmentation {
    /// The figures of a run, with `used` saying what is in use at a sample.
    ///
    /// Samples at which nothing is live are left out of the ratios; each counts for the time since
    /// the sample before it.
    #[must_use]
    pub fn of(samples: &[Sample], used: impl Fn(&Sample) -> u64) -> Fragmentation {
        let ratio = |a: u64, b: u64| (b != 0).then(|| a as f64 / b as f64);
        let mut weighted = 0.0;
        let mut time = 0.0;
        let mut before = 0;
        for sample in samples {
            let passed = sample.time_ns.saturating_sub(before) as f64;
            before = sample.time_ns;
            if let Some(r) = ratio(used(sample), sample.live_bytes) {
                weighted += r * passed;
                time += passed;
            }
        }
        let most_live = samples.iter().max_by_key(|s| s.live_bytes);
        let most_used = samples.iter().max_by_key(|s| used(s));
        let part = |a: u64, b: u64, whole: u64| {
            (b != 0 && whole != 0).then(|| (a as f64 - b as f64) / whole as f64)
        };
        Fragmentation {
            mean_over_time: (time > 0.0).then(|| weighted / time),
            at_peak_live: most_live.and_then(|s| ratio(used(s), s.live_bytes)),
            at_peak_use: most_used.and_then(|s| ratio(used(s), s.live_bytes)),
            peak_to_peak: most_used.zip(most_live).and_then(|(u, l)| ratio(used(u), l.live_bytes)),
            internal: most_live
                .filter(|s| s.usable_bytes != 0)
                .and_then(|s| part(s.usable_bytes, s.live_bytes, s.usable_bytes)),
            external: most_live.and_then(|s| part(used(s), s.usable_bytes, used(s))),
        }
    }
}

/// Files about this process, kept open.
#[derive(Debug)]
struct Files {
    rollup: Option<File>,
    statm: File,
}

/// A figure in kB after `name`, in bytes.
fn kilobytes_after(text: &[u8], name: &[u8]) -> Option<u64> {
    let at = text.windows(name.len()).position(|window| window == name)?;
    let digits = text[at + name.len()..].iter().skip_while(|b| b.is_ascii_whitespace());
    let value = digits
        .take_while(|b| b.is_ascii_digit())
        .fold(0_u64, |sum, b| sum * 10 + u64::from(b - b'0'));
    Some(value * 1024)
}

fn read<'b>(file: &File, buffer: &'b mut [u8]) -> &'b [u8] {
    // SAFETY: the buffer is writable for its length; the descriptor is open.
    let n = unsafe { libc::pread(file.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
    &buffer[..usize::try_from(n).unwrap_or(0)]
}

/// Resident bytes now, and at most since [`reset_peak`], as `/proc/self/status` has them.
pub(crate) fn resident() -> (u64, u64) {
    let text = std::fs::read("/proc/self/status").unwrap_or_default();
    let field = |name| kilobytes_after(&text, name).unwrap_or(0);
    (field(b"VmRSS:"), field(b"VmHWM:"))
}

/// Makes the present resident size the highest so far; whether the kernel let us.
pub(crate) fn reset_peak() -> bool {
    std::fs::OpenOptions::new()
        .write(true)
        .open("/proc/self/clear_refs")
        .and_then(|mut file| file.write_all(b"5"))
        .is_ok()
}

/// Page faults without disk of the process so far.
fn minor_faults() -> u64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: `usage` is writable, and zeroed is a valid one.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    u64::try_from(usage.ru_minflt).unwrap_or(0)
}

/// How many places a thread has, and its first and last event: what is asked for most often.
#[derive(Debug)]
struct Ends {
    places: u64,
    first: u64,
    last: u64,
}

fn ends(plan: &Plan) -> Vec<Ends> {
    let event = |t, place| plan.event_at(t, place).unwrap_or(0);
    let threads = (0..).zip(plan.threads()).filter(|_| plan.has_events());
    let ends = threads.map(|(t, row)| {
        let places: u64 = row.places.iter().sum();
        Ends { places, first: event(t, 0), last: event(t, places.saturating_sub(1)) }
    });
    ends.collect()
}

/// What was seen before a run and after it, beside the samples of the sampler.
#[derive(Debug)]
pub(crate) struct Looks {
    before: Sample,
    drain: Vec<Drain>,
}

/// Watches a run from a thread of its own.
pub(crate) struct Sampler<'s, 'p> {
    shared: &'s Shared<'p>,
    files: Files,
    buffer: Region,
    samples: Region,
    count: AtomicU64,
    interval_ns: AtomicU64,
    stop: AtomicBool,
    largest_skew: AtomicU64,
    /// Of each thread of the plan, where that can be known.
    ends: Vec<Ends>,
    faults_before: u64,
}

impl<'s, 'p> Sampler<'s, 'p> {
    /// Opens and maps everything; starts nothing.
    pub(crate) fn new(shared: &'s Shared<'p>) -> Result<Self, EngineError> {
        let memory = |what| move |source| EngineError::Memory { what, bytes: 0, source };
        let files = Files {
            rollup: File::open("/proc/self/smaps_rollup").ok(),
            statm: File::open("/proc/self/statm").map_err(memory("/proc/self/statm"))?,
        };
        let bytes = SAMPLES * size_of::<Sample>();
        Ok(Sampler {
            shared,
            files,
            buffer: Region::new(16 << 10, true).map_err(memory("the sampler"))?,
            samples: Region::new(bytes, true).map_err(memory("samples"))?,
            count: AtomicU64::new(0),
            interval_ns: AtomicU64::new(shared.options.sample_interval_ns.max(100_000)),
            stop: AtomicBool::new(false),
            largest_skew: AtomicU64::new(0),
            ends: ends(shared.plan),
            faults_before: minor_faults(),
        })
    }

    /// Runs `work` while a thread samples beside it, then looks again as the options say.
    pub(crate) fn watch(
        &self,
        work: impl FnOnce() -> Result<(), EngineError>,
    ) -> Result<Looks, EngineError> {
        let before = self.look();
        let thread = super::stacks::create(
            sample_loop,
            (&raw const *self).cast_mut().cast(),
            self.shared.stack(),
        )
        .map_err(|source| EngineError::Thread { thread: 0, source })?;
        let result = work();
        self.stop.store(true, Ordering::SeqCst);
        // SAFETY: created above and joined once.
        unsafe { libc::pthread_join(thread, std::ptr::null_mut()) };
        self.keep(self.look());
        result?;
        let ended = now_ns();
        let mut drain = Vec::with_capacity(self.shared.options.drain_ms.len());
        for &after_ms in &self.shared.options.drain_ms {
            let until = ended + after_ms * 1_000_000;
            while now_ns() < until {
                std::thread::sleep(std::time::Duration::from_nanos(until - now_ns().min(until)));
            }
            drain.push(Drain { after_ms, sample: self.look() });
        }
        Ok(Looks { before, drain })
    }

    /// What was seen, copied and computed.
    pub(crate) fn report(&self, Looks { before, drain }: Looks) -> Footprint {
        #[expect(clippy::cast_possible_truncation, reason = "at most SAMPLES")]
        let count = self.count.load(Ordering::SeqCst) as usize;
        // SAFETY: the region holds SAMPLES samples, of which `count` were written by threads that
        // have been joined.
        let samples =
            unsafe { std::slice::from_raw_parts(self.samples.start::<Sample>(), count) }.to_vec();
        let rss = |s: &Sample| s.rss_bytes.saturating_sub(before.rss_bytes);
        let dirty = |s: &Sample| s.private_dirty_bytes.saturating_sub(before.private_dirty_bytes);
        Footprint {
            base_rss_bytes: before.rss_bytes,
            base_private_dirty_bytes: before.private_dirty_bytes,
            peak_live_bytes: self.shared.live.peak(),
            interval_ns: self.interval_ns.load(Ordering::SeqCst),
            by_rss: Fragmentation::of(&samples, rss),
            by_private_dirty: Fragmentation::of(&samples, dirty),
            samples,
            drain,
        }
    }

    /// Largest skew seen, in events, where it can be known.
    pub(crate) fn largest_skew(&self) -> Option<u64> {
        let known = self.shared.plan.has_events() && self.shared.options.copies <= 1;
        known.then(|| self.largest_skew.load(Ordering::SeqCst))
    }

    /// Distance between the latest event done and the earliest one not done. All that is done is
    /// read before all that is not, so that what happens in between can only make it smaller: a
    /// lower bound, never an invention.
    fn skew(&self) -> u64 {
        let plan = self.shared.plan;
        let done = |t: usize| self.shared.state(t).places.load(Ordering::SeqCst);
        let event = |t: usize, place| plan.event_at(u32::try_from(t).ok()?, place);
        let ends = || self.ends.iter().enumerate().filter(|(_, end)| end.places > 0);
        let latest = ends().filter_map(|(t, end)| match done(t) {
            0 => None,
            places if places >= end.places => Some(end.last),
            places => event(t, places - 1),
        });
        let latest = latest.max();
        let earliest = ends().filter_map(|(t, end)| match done(t) {
            0 => Some(end.first),
            places if places >= end.places => None,
            places => event(t, places),
        });
        let earliest = earliest.min();
        match (latest, earliest) {
            (Some(latest), Some(earliest)) => latest.saturating_sub(earliest),
            _ => 0,
        }
    }

    /// Reads everything now.
    fn look(&self) -> Sample {
        // SAFETY: the buffer is this sampler's own, and only one thread looks at a time.
        let buffer =
            unsafe { std::slice::from_raw_parts_mut(self.buffer.start::<u8>(), self.buffer.len()) };
        let start = self.shared.start_ns.load(Ordering::Relaxed);
        let live = &self.shared.live;
        let mut sample = Sample {
            time_ns: if start == 0 { 0 } else { now_ns().saturating_sub(start) },
            live_bytes: u64::try_from(live.bytes.load(Ordering::Relaxed)).unwrap_or(0),
            usable_bytes: u64::try_from(live.usable.load(Ordering::Relaxed)).unwrap_or(0),
            minor_faults: minor_faults().saturating_sub(self.faults_before),
            ..Sample::default()
        };
        let mut pages = read(&self.files.statm, buffer)
            .split(|b| *b == b' ')
            .map(|word| word.iter().fold(0, |sum, b| sum * 10 + u64::from(b.wrapping_sub(b'0'))));
        sample.virtual_bytes = pages.next().unwrap_or(0) * 4096;
        sample.rss_bytes = pages.next().unwrap_or(0) * 4096;
        if let Some(rollup) = &self.files.rollup {
            let text = read(rollup, buffer);
            sample.rss_bytes = kilobytes_after(text, b"\nRss:").unwrap_or(sample.rss_bytes);
            sample.private_dirty_bytes = kilobytes_after(text, b"Private_Dirty:").unwrap_or(0);
            sample.lazy_free_bytes = kilobytes_after(text, b"LazyFree:").unwrap_or(0);
        }
        sample
    }

    fn keep(&self, sample: Sample) {
        let start = self.samples.start::<Sample>();
        #[expect(clippy::cast_possible_truncation, reason = "at most SAMPLES")]
        let mut count = self.count.load(Ordering::SeqCst) as usize;
        if count == SAMPLES {
            for i in 0..SAMPLES / 2 {
                // SAFETY: within the region; only one thread keeps samples at a time.
                unsafe { *start.wrapping_add(i) = *start.wrapping_add(2 * i + 1) };
            }
            count = SAMPLES / 2;
            let interval = self.interval_ns.load(Ordering::SeqCst);
            self.interval_ns.store(interval * 2, Ordering::SeqCst);
        }
        // SAFETY: `count` is less than SAMPLES.
        unsafe { *start.wrapping_add(count) = sample };
        self.count.store(count as u64 + 1, Ordering::SeqCst);
    }
}

extern "C" fn sample_loop(argument: *mut c_void) -> *mut c_void {
    // SAFETY: `watch` joins this thread before the sampler goes.
    let sampler = unsafe { &*argument.cast_const().cast::<Sampler<'_, '_>>() };
    let skew_known = sampler.largest_skew().is_some();
    let mut peak = 0;
    while !sampler.stop.load(Ordering::SeqCst) {
        if sampler.shared.start_ns.load(Ordering::Relaxed) != 0 {
            let sample = sampler.look();
            sampler.keep(sample);
            if let Some(tell) = sampler.shared.options.at_peak
                && sample.live_bytes > peak + peak / 20
            {
                peak = sample.live_bytes;
                tell();
            }
        }
        if skew_known {
            sampler.largest_skew.fetch_max(sampler.skew(), Ordering::SeqCst);
        }
        let interval = sampler.interval_ns.load(Ordering::SeqCst);
        #[expect(clippy::cast_possible_wrap, reason = "less than a second")]
        let time = libc::timespec { tv_sec: 0, tv_nsec: interval.min(999_999_999) as i64 };
        // SAFETY: `time` is a valid interval.
        unsafe { libc::nanosleep(&raw const time, std::ptr::null_mut()) };
    }
    std::ptr::null_mut()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_in_kilobytes_are_found_by_name() {
        let text = b"VmPeak:\t  12 kB\nVmHWM:\t     345 kB\nVmRSS:\t 7 kB\n";
        assert_eq!(kilobytes_after(text, b"VmHWM:"), Some(345 * 1024));
        assert_eq!(kilobytes_after(text, b"VmSwap:"), None);
    }

    #[test]
    fn the_kernel_tells_how_much_is_resident() {
        let (now, peak) = resident();
        assert!(now > 0 && peak >= now);
    }

    /// Live 100, 400, 200 and use 200, 500, 600, one second each:
    /// 1: (2 + 1.25 + 3) / 3; 2: 500/400; 3: 600/200; 4: 600/400;
    /// internal: (450 − 400)/450; external: (500 − 450)/500.
    #[test]
    fn the_formulas_give_what_was_worked_out_by_hand() {
        let sample = |time: u64, live, usable, rss| Sample {
            time_ns: time * 1_000_000_000,
            live_bytes: live,
            usable_bytes: usable,
            rss_bytes: rss,
            ..Sample::default()
        };
        let samples =
            [sample(1, 100, 110, 200), sample(2, 400, 450, 500), sample(3, 200, 220, 600)];
        let f = Fragmentation::of(&samples, |s| s.rss_bytes);
        let close = |a: Option<f64>, b: f64| (a.unwrap() - b).abs() < 1e-12;
        assert!(close(f.mean_over_time, 6.25 / 3.0));
        assert!(close(f.at_peak_live, 1.25));
        assert!(close(f.at_peak_use, 3.0));
        assert!(close(f.peak_to_peak, 1.5));
        assert!(close(f.internal, 50.0 / 450.0));
        assert!(close(f.external, 0.1));
    }

    #[test]
    fn figures_that_do_not_exist_are_left_out_instead_of_invented() {
        let f = Fragmentation::of(&[], |s| s.rss_bytes);
        assert_eq!(f, Fragmentation::default());
        let idle = [Sample { time_ns: 5, rss_bytes: 100, ..Sample::default() }];
        assert_eq!(Fragmentation::of(&idle, |s| s.rss_bytes).mean_over_time, None);
    }
}
