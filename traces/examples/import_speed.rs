//! How fast traces are read: `cargo run --release -p traces --example import_speed FILE...`
//!
//! Reads each file to its end, five times, and prints the fastest: records, seconds, millions of
//! records a second, and the peak of resident memory so far.
#![forbid(unsafe_code)]

use std::error::Error;
use std::io::Write;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let mut out = std::io::stdout().lock();
    for path in std::env::args().skip(1) {
        let (mut records, mut best, mut format) = (0, f64::INFINITY, String::new());
        for _ in 0..5 {
            let start = Instant::now();
            let mut source = traces::open(&path)?;
            while source.next_event()?.is_some() {}
            best = best.min(start.elapsed().as_secs_f64());
            records = source.census().records;
            format = source.format().name().to_owned();
        }
        let rate = records as f64 / best / 1e6;
        let peak = peak_mib().unwrap_or(0);
        writeln!(
            out,
            "{format:14} {records:>10} records {best:7.3} s {rate:6.2} M/s  peak {peak} MiB  {path}"
        )?;
    }
    Ok(())
}

/// `VmHWM` of this process.
fn peak_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? / 1024)
}
