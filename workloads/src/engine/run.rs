//! One run: checks, preparation, the threads, and what they leave behind.

use std::io;
use std::sync::atomic::Ordering;

use super::calls::Calls;
use super::footprint::{Footprint, Sampler, reset_peak, resident};
use super::histogram::Histogram;
use super::observe::attribution::AttributionObserver;
use super::observe::footprint::FootprintObserver;
use super::observe::latency::{LatencyObserver, LatencyPool};
use super::observe::throughput::{SizedThroughput, Throughput};
use super::observe::verify::VerifyObserver;
use super::options::{EngineOptions, Pace, Pass};
use super::outcome::{EngineError, Fidelity, MemoryReport, Outcome, Stalls};
use super::tally::Tally;
use super::threads::Shared;
use super::windows::{Window, Windows};
use crate::plan::{Counts, Plan};

/// Executes `plan` on real threads through the process's own `malloc` and says what happened.
///
/// The caller's thread executes the plan's first stream. For figures of memory that mean something,
/// call it in a process that does little else.
///
/// # Errors
/// If the plan or the options make no sense, a thread cannot be created, or the harness gets no
/// memory of its own. Failed allocations are results, not errors.
pub fn run(plan: &Plan, options: &EngineOptions) -> Result<Outcome, EngineError> {
    run_after(plan, options, || Ok(|| ()))
}

/// As [`run`], with `ready` called when all that the harness needs is mapped and nothing of the
/// plan has been executed: the moment to take memory away from the process. What it returns is called
/// after the last operation and the last look at the process, before anything is told of the run:
/// the moment to give it back. A run that fails drops it instead.
///
/// # Errors
/// As [`run`], and what `ready` fails with.
pub fn run_after<D: FnOnce()>(
    plan: &Plan,
    options: &EngineOptions,
    ready: impl FnOnce() -> io::Result<D>,
) -> Result<Outcome, EngineError> {
    check(plan, options)?;
    let no_windows = |source| EngineError::Memory {
        what: "windows of events",
        bytes: options.event_memory,
        source,
    };
    let windows = Windows::new(plan, options).map_err(no_windows)?;
    let mut window = windows.as_ref().map(Windows::lend).transpose().map_err(no_windows)?;
    plan.check(window.as_mut().map(Window::words))?;
    drop(window);
    let calls = Calls::of(options.calls).map_err(|function| EngineError::Missing { function })?;
    let latency = match options.pass {
        Pass::Latency => {
            let threads = usize::try_from(plan.peak_threads()).unwrap_or(usize::MAX);
            let alive = threads.saturating_mul(options.copies.max(1) as usize).saturating_add(8);
            let pool = LatencyPool::new(alive, options.sample_every, options.slowest);
            Some(pool.map_err(|source| EngineError::Memory {
                what: "histograms",
                bytes: 0,
                source,
            })?)
        }
        _ => None,
    };
    let sizes =
        options.pass != Pass::Throughput || plan.has_sized_frees() || plan.has_unsure_accesses();
    let shared = Shared::new(plan, options, calls, sizes, latency, windows)?;
    let sampler = match options.pass {
        Pass::Footprint => Some(Sampler::new(&shared)?),
        _ => None,
    };
    let reset = reset_peak();
    let (base, _) = resident();
    let done = ready().map_err(|source| EngineError::Ready { source })?;
    let before = Usage::now();
    let mut looks = None;
    match options.pass {
        Pass::Throughput if sizes => shared.run::<SizedThroughput>()?,
        Pass::Throughput => shared.run::<Throughput>()?,
        Pass::Latency => shared.run::<LatencyObserver>()?,
        Pass::Verify => shared.run::<VerifyObserver>()?,
        Pass::Attribution => shared.run::<AttributionObserver>()?,
        Pass::Footprint => {
            if let Some(sampler) = &sampler {
                looks = Some(sampler.watch(|| shared.run::<FootprintObserver>())?);
            }
        }
    }
    let usage = Usage::now().since(&before);
    let (_, peak) = resident();
    done();
    let footprint = sampler.as_ref().zip(looks).map(|(sampler, looks)| sampler.report(looks));
    let skew = sampler.as_ref().and_then(Sampler::largest_skew);
    let memory =
        MemoryReport { base_rss_bytes: base, peak_rss_bytes: peak, peak_is_of_this_run: reset };
    Ok(outcome(shared, usage, memory, footprint, skew))
}

fn check(plan: &Plan, options: &EngineOptions) -> Result<(), EngineError> {
    let complain = |what: &str| Err(EngineError::Options { what: what.to_owned() });
    if matches!(options.pace, Pace::Paced(_)) && !plan.has_times() {
        return complain("a paced run needs a stream with times, and a plan that keeps them");
    }
    if options.calls == super::CallSet::Null && options.pass == Pass::Verify {
        return complain("the null allocator keeps no promise that could be verified");
    }
    if options.sample_every == 0 {
        return complain("one call in 0 cannot be timed");
    }
    if options.repeat.is_some_and(|repeat| repeat != plan.repeat()) && !plan.is_folded() {
        return complain("only a stream with a body can be repeated");
    }
    Ok(())
}

/// What all threads did together.
fn sum(shared: &Shared<'_>) -> (Counts, Tally) {
    let mut t = Tally::default();
    for id in 0..shared.threads() {
        // SAFETY: every thread was joined, except the caller itself.
        t.add(&unsafe { shared.tally(id) });
    }
    let copies = u64::from(shared.options.copies.max(1));
    let counts = Counts {
        operations: t.malloc
            + t.calloc
            + t.realloc
            + t.aligned
            + t.free
            + t.free_null
            + t.usable_size
            + t.retried,
        allocations: t.malloc + t.calloc + t.aligned + t.realloc_births,
        frees: t.free + t.realloc_deaths,
        malloc: t.malloc,
        calloc: t.calloc,
        realloc: t.realloc,
        aligned: t.aligned,
        free: t.free,
        free_null: t.free_null,
        usable_size: t.usable_size,
        retried: t.retried,
        requested_bytes: shared.plan.counts(shared.repeat).requested_bytes * copies,
    };
    (counts, t)
}

fn outcome(
    shared: Shared<'_>,
    usage: Usage,
    memory: MemoryReport,
    footprint: Option<Footprint>,
    skew: Option<u64>,
) -> Outcome {
    let (plan, options) = (shared.plan, shared.options);
    let (counts, tally) = sum(&shared);
    let copies = options.copies.max(1);
    let start = shared.start_ns.load(Ordering::SeqCst);
    let replay_peak = footprint.as_ref().map(|f| f.peak_live_bytes);
    let trace_peak = plan.peak_live_bytes() * u64::from(copies);
    let comparable = !plan.is_folded() && trace_peak != 0;
    let fidelity = Fidelity {
        order: plan.order(),
        waits: plan.static_waits(),
        stalled_share: tally.stalled as f64 / counts.operations.max(1) as f64,
        trace_peak_live_bytes: trace_peak,
        replay_peak_live_bytes: replay_peak,
        peak_live_deviation: replay_peak
            .filter(|_| comparable)
            .map(|peak| peak as f64 / trace_peak as f64 - 1.0),
        largest_skew_events: skew,
        threads_created: u64::from(shared.created.load(Ordering::SeqCst)),
        trace_peak_threads: plan.peak_threads(),
        replay_peak_threads: u64::from(shared.peak_threads.load(Ordering::SeqCst)),
    };
    Outcome {
        pass: options.pass,
        touch: options.touch,
        stream_hash: plan.stream_hash(),
        repeat: shared.repeat,
        copies,
        counts,
        elapsed_ns: tally.end_ns.saturating_sub(start),
        body_ns: (tally.body_end_ns != 0)
            .then(|| tally.body_end_ns.saturating_sub(tally.body_start_ns)),
        cpu_ns: usage.cpu_ns,
        failed_allocations: tally.failed,
        unexpected_successes: tally.unexpected,
        unsupported: tally.unsupported,
        sized_frees: tally.sized_frees,
        minor_faults: usage.minor_faults,
        major_faults: usage.major_faults,
        voluntary_switches: usage.voluntary_switches,
        involuntary_switches: usage.involuntary_switches,
        memory,
        timer: shared.timer.report(),
        stalls: Stalls {
            waits: tally.waits,
            stalled: tally.stalled,
            total_ns: tally.stall_ns,
            histogram: Histogram::from_counters(&shared.stall_counters()),
        },
        fidelity,
        latency: shared.latency.map(|pool| pool.report(plan)),
        footprint,
        attribution: (options.pass == Pass::Attribution).then(|| shared.findings.report()),
        verification: (options.pass == Pass::Verify).then(|| shared.ledger.report()),
    }
}

/// What the process used of the machine.
#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    cpu_ns: u64,
    minor_faults: u64,
    major_faults: u64,
    voluntary_switches: u64,
    involuntary_switches: u64,
}

impl Usage {
    fn now() -> Usage {
        let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: `usage` is writable, and zeroed is a valid one.
        let usage = unsafe {
            libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
            usage.assume_init()
        };
        let count = |n: libc::c_long| u64::try_from(n).unwrap_or(0);
        let time = |t: libc::timeval| count(t.tv_sec) * 1_000_000_000 + count(t.tv_usec) * 1000;
        Usage {
            cpu_ns: time(usage.ru_utime) + time(usage.ru_stime),
            minor_faults: count(usage.ru_minflt),
            major_faults: count(usage.ru_majflt),
            voluntary_switches: count(usage.ru_nvcsw),
            involuntary_switches: count(usage.ru_nivcsw),
        }
    }

    fn since(self, before: &Usage) -> Usage {
        Usage {
            cpu_ns: self.cpu_ns - before.cpu_ns,
            minor_faults: self.minor_faults - before.minor_faults,
            major_faults: self.major_faults - before.major_faults,
            voluntary_switches: self.voluntary_switches - before.voluntary_switches,
            involuntary_switches: self.involuntary_switches - before.involuntary_switches,
        }
    }
}
