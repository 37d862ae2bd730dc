//! `manifest.json`: what is needed to repeat a run, and to tell whether two runs compare.
#![forbid(unsafe_code)]

use std::fs;

use serde::{Deserialize, Serialize};

use crate::history::commit::Commit;

/// Version of the layout of a run directory.
pub const SCHEMA: u32 = 1;

/// Everything about a run that is not a measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the layout of the run directory.
    pub schema: u32,
    /// Version of this program.
    pub bench_cli: String,
    /// The command line, word by word.
    pub command: Vec<String>,
    /// When the run began.
    pub started_utc: String,
    /// `running`, `completed`, `interrupted`, or `failed`.
    pub state: String,
    /// Seed of every random choice.
    pub seed: u64,
    /// Generator of the random choices.
    pub generator: String,
    /// What has to be the same for a run to be continued.
    pub fingerprint: String,
    /// The commit checked out in the folder in which the command was first given, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<Commit>,
    /// Copies of everything that ran at the same time, where there were several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copies: Option<u32>,
    /// Processors to which its processes were bound; none: to no processor.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cpus: Vec<usize>,
    /// Where it ran.
    pub machine: Machine,
    /// What was executed.
    pub subjects: Vec<Subject>,
    /// Under which allocators.
    pub allocators: Vec<AllocatorNote>,
}

/// One workload, trace or command.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Subject {
    /// Its name in the `workload` column.
    pub name: String,
    /// `workload`, `trace` or `command`.
    pub kind: String,
    /// Hash of its event stream, where it has one: the same hash is the same work.
    pub stream_hash: Option<String>,
    /// Events in the stream.
    pub events: Option<u64>,
    /// So many times the work of its specification, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<f64>,
    /// How long a run of it was to take, where its amount of work was found by that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length_ns: Option<u64>,
    /// The work of each allocator, where each has an amount of its own; then `stream_hash`, `events`
    /// and `scale` are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub own_work: Vec<OwnWork>,
}

/// The amount of work that one allocator alone has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OwnWork {
    /// Its name in the `allocator` column.
    pub allocator: String,
    /// So many times the work of the specification.
    pub scale: Option<f64>,
    /// Hash of the event stream.
    pub stream_hash: Option<String>,
    /// Events in the stream.
    pub events: Option<u64>,
}

/// One allocator and the exact library behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllocatorNote {
    /// Its name in the `allocator` column.
    pub name: String,
    /// What has that name, where it is a role: as `-a` takes it, with options.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given: Option<String>,
    /// Its library.
    pub library: Option<String>,
    /// Hash of the library's content.
    pub library_hash: Option<String>,
    /// Variables set for it.
    pub env: Vec<(String, String)>,
}

/// Where a run took place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Model of the processor.
    pub processor: String,
    /// Processors this process may use.
    pub processors: usize,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Kernel release.
    pub kernel: String,
    /// Architecture.
    pub architecture: String,
    /// Transparent huge pages: the mode in force.
    pub huge_pages: String,
}

impl Machine {
    /// This machine.
    #[must_use]
    pub fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, key: &str| {
            text.lines()
                .find(|line| line.starts_with(key))
                .and_then(|line| line.split(':').nth(1))
                .map(|value| value.trim().to_owned())
                .unwrap_or_default()
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal");
        let kib: u64 = memory.trim_end_matches("kB").trim().parse().unwrap_or(0);
        let thp = read("/sys/kernel/mm/transparent_hugepage/enabled");
        let mode = thp.split(['[', ']']).nth(1).unwrap_or("").to_owned();
        Machine {
            processor: field(&read("/proc/cpuinfo"), "model name"),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: kib * 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            architecture: std::env::consts::ARCH.to_owned(),
            huge_pages: mode,
        }
    }

    /// In what two machines differ, in words. A kernel that boots anew keeps a little more or less
    /// memory for itself: a fiftieth of it is no difference.
    #[must_use]
    pub fn differences(&self, here: &Machine) -> Vec<String> {
        let (was, is) = (self.memory_bytes, here.memory_bytes);
        let was = if was.abs_diff(is) <= is / 50 { is } else { was };
        let fields = [
            ("processor", self.processor.clone(), here.processor.clone()),
            ("usable processors", self.processors.to_string(), here.processors.to_string()),
            ("bytes of memory", was.to_string(), is.to_string()),
            ("kernel", self.kernel.clone(), here.kernel.clone()),
            ("architecture", self.architecture.clone(), here.architecture.clone()),
            ("huge pages", self.huge_pages.clone(), here.huge_pages.clone()),
        ];
        fields
            .into_iter()
            .filter(|(_, was, is)| was != is)
            .map(|(what, was, is)| format!("{what}: `{was}` there, `{is}` here"))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Machine;

    #[test]
    fn machines_differ_in_their_kernel_and_not_in_what_it_keeps_for_itself() {
        let here = Machine { memory_bytes: 8 << 30, ..Machine::here() };
        let booted = Machine { memory_bytes: (8 << 30) - (64 << 20), ..here.clone() };
        assert_eq!(booted.differences(&here), [""; 0]);
        let other = Machine { memory_bytes: 4 << 30, kernel: "2.6.32".to_owned(), ..here.clone() };
        let found = other.differences(&here);
        assert!(found.len() == 2 && found[1].starts_with("kernel: `2.6.32` there"), "{found:?}");
    }
}
