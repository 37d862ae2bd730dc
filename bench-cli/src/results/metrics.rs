//! Every column of every result file in words; what `bench-cli list metrics` prints.
#![forbid(unsafe_code)]

use serde::Serialize;

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// The file it stands in.
    pub file: &'static str,
    /// `ns`, `bytes`, `count`, or `text`.
    pub unit: &'static str,
    /// `lower` or `higher` where one of them is better.
    pub better: Option<&'static str>,
    /// What it means.
    pub meaning: &'static str,
}

const fn metric(
    file: &'static str,
    name: &'static str,
    unit: &'static str,
    better: Option<&'static str>,
    meaning: &'static str,
) -> Metric {
    Metric { name, file, unit, better, meaning }
}

const RUNS: &str = "runs.csv";
const LATENCY: &str = "latency.csv";
const TIMELINE: &str = "timeline.csv";
const TAIL: &str = "tail.csv";
const FRAGMENTATION: &str = "fragmentation.csv";
const INTERNALS: &str = "internals.csv";
const SYSCALLS: &str = "syscalls.csv";
const LOW: Option<&str> = Some("lower");

/// All columns, in the order of the files.
pub const METRICS: &[Metric] = &[
    metric(RUNS, "run_id", "text", None, "one process; joins all files of a run"),
    metric(RUNS, "workload", "text", None, "the workload, trace or command"),
    metric(RUNS, "allocator", "text", None, "who served malloc: ours, system, a peer, a library"),
    metric(RUNS, "allocator_version", "text", None, "as the library itself states it"),
    metric(RUNS, "library", "text", None, "the file that served malloc, proven in the process"),
    metric(RUNS, "threads", "count", None, "threads of the workload, or of the trace"),
    metric(RUNS, "pass", "text", None, "what the run looked at; each looks at one thing"),
    metric(RUNS, "round", "count", None, "runs of one round stand next to each other in time"),
    metric(RUNS, "order", "text", None, "how much of the trace's order the replay kept"),
    metric(RUNS, "pace", "text", None, "asap (closed loop), or the trace's own times"),
    metric(RUNS, "touch", "text", None, "which bytes of new objects were written"),
    metric(RUNS, "pressure", "text", None, "the memory pressure applied; empty: none"),
    metric(RUNS, "limit_bytes", "bytes", None, "the memory limit of a run under pressure"),
    metric(RUNS, "limit_hits", "count", None, "how often the run reached a cgroup's limit"),
    metric(RUNS, "end", "text", None, "completed, or how the process failed"),
    metric(RUNS, "exit_status", "count", None, "of a user's program; 128 + signal as in a shell"),
    metric(RUNS, "operations", "count", None, "calls of the malloc family that were executed"),
    metric(RUNS, "elapsed_ns", "ns", LOW, "from the first operation to the end of the last thread"),
    metric(RUNS, "cpu_ns", "ns", LOW, "processor time of all threads, user and kernel"),
    metric(
        RUNS,
        "floor_ns",
        "ns",
        None,
        "the harness's own share: the same plan with an allocator that does nothing",
    ),
    metric(RUNS, "instructions", "count", LOW, "instructions executed (instructions pass)"),
    metric(
        RUNS,
        "system_calls",
        "count",
        LOW,
        "mmap, munmap, mremap, brk, madvise and mprotect together (syscalls pass)",
    ),
    metric(RUNS, "peak_rss_bytes", "bytes", LOW, "peak of resident memory above base_rss_bytes"),
    metric(RUNS, "base_rss_bytes", "bytes", None, "resident memory of the harness before the run"),
    metric(RUNS, "peak_live_bytes", "bytes", None, "requested bytes of live objects at their peak"),
    metric(RUNS, "failed_allocations", "count", LOW, "requests that the allocator refused"),
    metric(RUNS, "minor_faults", "count", LOW, "page faults without disk access"),
    metric(RUNS, "major_faults", "count", LOW, "page faults with disk access"),
    metric(RUNS, "involuntary_switches", "count", LOW, "times the kernel took the processor away"),
    metric(RUNS, "waits", "count", None, "order edges between threads in the plan"),
    metric(RUNS, "stalled_operations", "count", LOW, "operations that waited for another thread"),
    metric(RUNS, "stalled_ns", "ns", LOW, "time spent in such waits, summed over threads"),
    metric(RUNS, "trace_peak_live_bytes", "bytes", None, "peak of live bytes in the trace itself"),
    metric(RUNS, "peak_threads", "count", None, "threads alive at once during the run"),
    metric(RUNS, "trace_peak_threads", "count", None, "threads alive at once in the trace"),
    metric(
        RUNS,
        "largest_skew_events",
        "count",
        LOW,
        "how far, in events of the trace, one thread was ahead of another (footprint pass)",
    ),
    metric(RUNS, "timer_cost_ns", "ns", None, "what the timer adds to each measured operation"),
    metric(RUNS, "output_bytes", "bytes", None, "bytes a user's program wrote to standard output"),
    metric(RUNS, "output_hash", "text", None, "hash of those bytes: the same output or not"),
    metric(RUNS, "seed", "count", None, "seed of every random choice"),
    metric(RUNS, "started_utc", "text", None, "when the process was started"),
    metric(LATENCY, "run_id", "text", None, "one process; joins all files of a run"),
    metric(LATENCY, "op", "text", None, "the call, or stall and first_touch"),
    metric(LATENCY, "size_class", "bytes", None, "upper bound of the requested size; empty: all"),
    metric(LATENCY, "thread", "count", None, "thread of the trace; empty: all"),
    metric(LATENCY, "quantile", "share", None, "share of operations that took value_ns or less"),
    metric(LATENCY, "value_ns", "ns", LOW, "as measured: the timer's cost is not subtracted"),
    metric(LATENCY, "count", "count", None, "operations in this distribution"),
    metric(TIMELINE, "run_id", "text", None, "one process; joins all files of a run"),
    metric(TIMELINE, "time_ns", "ns", None, "since the first operation"),
    metric(TIMELINE, "after_ms", "ms", None, "since the last operation, of a look after it"),
    metric(TIMELINE, "live_bytes", "bytes", None, "requested bytes of live objects"),
    metric(TIMELINE, "usable_bytes", "bytes", None, "usable bytes of live objects, if stated"),
    metric(TIMELINE, "rss_bytes", "bytes", LOW, "resident memory above the base"),
    metric(TIMELINE, "private_dirty_bytes", "bytes", LOW, "pages written and shared with nobody"),
    metric(TIMELINE, "lazy_free_bytes", "bytes", None, "pages given up that the kernel may take"),
    metric(TIMELINE, "virtual_bytes", "bytes", None, "address space of the process"),
    metric(TIMELINE, "minor_faults", "count", LOW, "page faults since the first operation"),
    metric(TAIL, "run_id", "text", None, "one process; joins all files of a run"),
    metric(
        TAIL,
        "rank",
        "count",
        None,
        "1 is the slowest; the slowest 0.1 %, at most 1000, are here",
    ),
    metric(TAIL, "op", "text", None, "the call"),
    metric(TAIL, "size_bytes", "bytes", None, "the size that it was about"),
    metric(TAIL, "thread", "count", None, "thread of the trace"),
    metric(TAIL, "place", "count", None, "place in that thread's stream, repetitions included"),
    metric(TAIL, "event", "count", None, "event of the trace, where its plan keeps the numbers"),
    metric(TAIL, "value_ns", "ns", LOW, "as measured in the latency pass"),
    metric(TAIL, "again_ns", "ns", None, "the same call in a second run, the one looked at below"),
    metric(TAIL, "minor_faults", "count", None, "page faults without disk in it, second run"),
    metric(TAIL, "major_faults", "count", None, "page faults with disk in it, second run"),
    metric(TAIL, "voluntary_switches", "count", None, "context switches by waiting, second run"),
    metric(TAIL, "involuntary_switches", "count", None, "context switches forced, second run"),
    metric(FRAGMENTATION, "run_id", "text", None, "one process; joins all files of a run"),
    metric(FRAGMENTATION, "used", "text", None, "what counts as use: rss or private_dirty"),
    metric(
        FRAGMENTATION,
        "mean_over_time",
        "share",
        LOW,
        "Johnstone and Wilson 1: mean over time of use / live",
    ),
    metric(FRAGMENTATION, "at_peak_live", "share", LOW, "2: use / live at the peak of live"),
    metric(FRAGMENTATION, "at_peak_use", "share", LOW, "3: use / live at the peak of use"),
    metric(FRAGMENTATION, "peak_to_peak", "share", LOW, "4: most use / most live"),
    metric(
        FRAGMENTATION,
        "internal",
        "share",
        LOW,
        "(usable - requested) / usable over live objects, at the peak of live",
    ),
    metric(
        FRAGMENTATION,
        "external",
        "share",
        LOW,
        "(use - usable of live objects) / use, at the peak of live",
    ),
    metric(
        FRAGMENTATION,
        "retained_100ms_bytes",
        "bytes",
        LOW,
        "use 100 ms after the last operation",
    ),
    metric(FRAGMENTATION, "retained_1s_bytes", "bytes", LOW, "1 s after it (--drain 1s)"),
    metric(FRAGMENTATION, "retained_5s_bytes", "bytes", LOW, "5 s after it (--drain 5s)"),
    metric(INTERNALS, "run_id", "text", None, "one process; joins all files of a run"),
    metric(INTERNALS, "name", "text", None, "the allocator's own name for the figure"),
    metric(INTERNALS, "value", "count", None, "what it states after the last operation"),
    metric(SYSCALLS, "run_id", "text", None, "one process; joins all files of a run"),
    metric(SYSCALLS, "call", "text", None, "the system call, or injected_failures"),
    metric(SYSCALLS, "count", "count", None, "how often, from the first operation to the last"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{
        FragmentationRow, InternalRow, LatencyCsv, RunRow, SyscallRow, TailRow, TimelineRow,
    };

    fn check<T: Serialize>(file: &str, row: &T) {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.serialize(row).unwrap();
        let text = String::from_utf8(writer.into_inner().unwrap()).unwrap();
        let header: Vec<&str> = text.lines().next().unwrap().split(',').collect();
        let listed: Vec<&str> = METRICS.iter().filter(|m| m.file == file).map(|m| m.name).collect();
        assert_eq!(header, listed, "{file}");
    }

    #[test]
    fn every_column_of_every_file_is_explained_in_its_order() {
        check(RUNS, &RunRow::default());
        check(
            LATENCY,
            &LatencyCsv {
                run_id: String::new(),
                op: String::new(),
                size_class: None,
                thread: None,
                quantile: 0.5,
                value_ns: 1,
                count: 1,
            },
        );
        check(TIMELINE, &TimelineRow::default());
        check(TAIL, &TailRow::default());
        check(FRAGMENTATION, &FragmentationRow::default());
        check(INTERNALS, &InternalRow::default());
        check(SYSCALLS, &SyscallRow::default());
    }
}
