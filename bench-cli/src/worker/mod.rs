//! One measurement: a fresh process that runs one plan under one allocator.
//!
//! [`run_once`] starts this binary again with the hidden subcommand `worker`, the allocator under
//! test preloaded and the environment scrubbed, and returns what the worker wrote. The worker
//! proves which file serves its `malloc`; a library that did not get in is an error and never a
//! number. An allocator that crashes, hangs or breaks its promise is a result.
//!
//! `spec` says what is measured and what came out, `parent` is the side that waits, `child` the
//! side that measures, `affinity` binds processes to processors, `callgrind`
//! counts instructions, `limit` takes memory away, `disturb` does things beside the run, `trap`
//! catches system calls, `proof` finds out who serves `malloc`, `internals` what it says of itself,
//! `heap_map` how its heap looks at the peak.

mod affinity;
mod callgrind;
mod child;
mod disturb;
mod heap_map;
mod internals;
mod limit;
mod parent;
mod proof;
mod spec;
mod trap;

pub use affinity::parse_cpus;
pub(crate) use affinity::{bind, check_cpus, cpu_set};
pub use callgrind::need_valgrind;
pub use child::{WorkerArgs, work};
pub use parent::{WorkerError, resident_now, run_once};
pub(crate) use parent::{apply_allocator, is_scrubbed};
pub(crate) use proof::libc_version;
pub use spec::{CellOutcome, CellSpec, End, OUT_OF_MEMORY, Pass, Report};
pub use trap::INJECTED;
pub use workloads::engine::{CallSet, Pace, SlowCall, Touch};
