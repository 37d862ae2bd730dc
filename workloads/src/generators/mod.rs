//! Generators: programs that yield the events of a workload.
//!
//! Each is written here from the published description of the benchmark it is named after; none
//! contains code of it. A generator has a prologue, a body and an epilogue. Folded, its stream
//! holds the body once, between [`Seam`](crate::plan::Seam)s; flat, the body comes as many times as
//! it is to be executed, with fresh random choices each time.
//!
//! | file | workloads |
//! |---|---|
//! | `cells` | replace a random one of many: larson, glibc-thread, alloc-test, malloc-large, churn |
//! | `batches` | allocate many, free many: threadtest, glibc-simple, sh6bench, pair, lifo, rand |
//! | `handoff` | one thread allocates, another frees: xmalloc, xthread, rptest |
//! | `stress` | mstress |
//! | `pool` | threads come and go: thread pools, leaks on exit, mleak |
//! | `writes` | what placement does to a program's own writes: cache-scratch, cache-thrash |
//! | `lifetimes` | sizes and lifetimes by distribution: the classic single-threaded shapes |
//! | `growth` | buffers that grow by realloc |
//! | `profile` | production size profiles: size, allocation rate, number live |
//! | `adversary` | fragmentation: Robson-like, sawtooth, plateau then drain, size drift |
//! | `server` | phases, bursts, connections, hand-off; fork server |
//!
//! # Invariants
//! 1. Same specification, same seed, same events, whatever the machine: integers and the four
//!    exactly rounded operations only (`math`), and one named random generator (`random`).
//! 2. A worker's choices do not depend on the number of workers.
#![forbid(unsafe_code)]

mod adversary;
mod batches;
mod cells;
mod distribution;
mod emitter;
mod growth;
mod handoff;
mod lifetimes;
mod math;
mod pool;
mod profile;
mod random;
mod server;
mod source;
mod stress;
mod writes;

pub(crate) use adversary::AdversaryWorkload;
pub(crate) use batches::BatchesWorkload;
pub(crate) use cells::CellsWorkload;
pub(crate) use growth::GrowthWorkload;
pub(crate) use handoff::{HandoffWorkload, RingWorkload};
pub(crate) use lifetimes::LifetimesWorkload;
pub(crate) use pool::PoolWorkload;
pub(crate) use profile::ProfileWorkload;
pub(crate) use server::{ForkServerWorkload, ServerWorkload};
pub(crate) use stress::StressWorkload;
pub(crate) use writes::WritesWorkload;

pub use adversary::Adversary;
pub use batches::{Batches, FreeOrder};
pub use cells::Cells;
pub use distribution::{Distribution, DistributionError};
pub use emitter::Emitter;
pub use growth::Growth;
pub use handoff::{Handoff, Ring};
pub use lifetimes::Lifetimes;
pub use pool::Pool;
pub use profile::{Profile, ProfileError, ProfileRow, parse_table};
pub use random::Random;
pub use server::{ForkServer, Server};
pub use source::{GeneratorSource, Workload};
pub use stress::Stress;
pub use writes::Writes;
