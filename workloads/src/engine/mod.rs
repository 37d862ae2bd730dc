//! Executes a plan on real threads through the process's own `malloc`, and watches.
//!
//! The malloc family is called through dynamic symbols, so that the preloaded library serves it.
//! Everything else the engine needs is mapped and faulted in before the run: nothing in the timed
//! part calls the allocator under test except the operations of the plan, and what libc itself
//! allocates when a thread is created (one block per thread, by `pthread_create`; `Outcome` states
//! how many threads were created).
//!
//! | file | owns |
//! |---|---|
//! | `calls` | the malloc family by address, and the null allocator |
//! | `memory` | mapped memory of the harness |
//! | `windows` | buffers for event data that is not in memory all at once |
//! | `timer` | ticks, their calibration and their cost |
//! | `histogram` | counts by value, two digits, without allocation |
//! | `progress` | publishing and waiting between threads |
//! | `stacks` | creating threads, and stacks of the harness's own for them |
//! | `threads` | birth, end and join of plan threads |
//! | `execute` | the loop over a stream |
//! | `program` | what the program itself does with memory: first writes, forks |
//! | `tally` | what a thread did, in numbers |
//! | `observe` | what each pass notes beside a call |
//! | `footprint` | the sampler and the fragmentation figures |
//! | `outcome` | what a run says |
//!
//! Cost: about one to three nanoseconds per operation around the allocator's own time, measured as
//! a floor with the null allocator ([`CallSet::Null`]) and stated beside each result.
//!
//! # Invariants
//! 1. Waiting for another thread is never inside an operation's time, nor is touching memory.
//! 2. A failed allocation is counted, its slot stays empty and what follows of it is a call on NULL.

mod calls;
mod execute;
mod footprint;
mod histogram;
mod memory;
mod observe;
mod options;
mod outcome;
mod program;
mod progress;
mod run;
mod stacks;
mod tally;
mod threads;
mod timer;
mod windows;

pub use calls::{CallSet, Origin, origins};
pub use footprint::{Drain, Footprint, Fragmentation, Sample};
pub use histogram::{Distribution, Histogram};
pub use observe::attribution::Attributed;
pub use observe::latency::{Latency, LatencyRow, OpKind, SizeClass, SlowCall};
pub use observe::verify::{Broken, BrokenKind, Verification};
pub use options::{DEFAULT_EVENT_MEMORY, EngineOptions, Pace, Pass, Touch, UnknownWord};
pub use outcome::{EngineError, Fidelity, MemoryReport, Outcome, Stalls};
pub use run::{run, run_after};
pub use stacks::STACK;
pub use timer::TimerReport;
