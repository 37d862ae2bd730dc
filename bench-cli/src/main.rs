//! `bench-cli`: measures memory allocators. A thin command line over the library of this crate.

use std::process::ExitCode;

/// The harness never uses the allocator it measures; see the module for why.
#[global_allocator]
static ARENA: bench_cli::arena::Arena = bench_cli::arena::Arena::new();

fn main() -> ExitCode {
    bench_cli::main()
}
