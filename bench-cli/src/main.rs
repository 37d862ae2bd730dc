//! `bench-cli`: measures memory allocators. A thin command line over the library of this crate.

use std::process::ExitCode;

fn main() -> ExitCode {
    bench_cli::main()
}
