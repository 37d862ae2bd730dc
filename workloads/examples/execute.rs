//! Executes a workload or a trace in this process, under whatever allocator serves it.
//!
//! `LD_PRELOAD=… cargo run --release -p workloads --example execute -- NAME|TRACE [key=value]…`
//! with the keys order, pass, touch, threads, scale, repeat, copies, sample, calls=null.
//! For real measurements use `bench-cli run`: there each run has a process of its own.
#![expect(clippy::print_stdout, reason = "an example that prints what it found")]

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use workloads::engine::{self, CallSet, EngineOptions, Outcome};
use workloads::plan::{Plan, PlanOptions};
use workloads::spec::{SourceOptions, Spec};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().ok_or("a workload or a trace, please")?;
    let mut source_options = SourceOptions::default();
    let mut plan_options = PlanOptions::default();
    let mut engine_options = EngineOptions::default();
    let is_trace =
        Path::new(&name).is_file() && !name.ends_with(".toml") && !name.ends_with(".csv");
    let spec = if is_trace { None } else { Some(Spec::load(&name)?) };
    if let Some(spec) = &spec {
        plan_options = spec.plan_options();
        engine_options.touch = spec.touch;
    }
    for argument in arguments {
        match argument.split_once('=').ok_or("keys read key=value")? {
            ("order", order) => plan_options.order = order.parse()?,
            ("pass", pass) => engine_options.pass = pass.parse()?,
            ("touch", touch) => engine_options.touch = touch.parse()?,
            ("pace", pace) => {
                engine_options.pace = pace.parse()?;
                plan_options.times = true;
            }
            ("flat", _) => source_options.folded = false,
            ("index", on) => plan_options.index = on == "1",
            ("threads", n) => source_options.threads = Some(n.parse()?),
            ("scale", x) => source_options.scale = x.parse()?,
            ("repeat", n) => engine_options.repeat = Some(n.parse()?),
            ("copies", n) => engine_options.copies = n.parse()?,
            ("sample", n) => engine_options.sample_every = n.parse()?,
            ("slowest", n) => engine_options.slowest = n.parse()?,
            ("calls", "null") => engine_options.calls = CallSet::Null,
            (key, _) => return Err(format!("no key is called {key}").into()),
        }
    }
    let path = std::env::temp_dir().join(format!("execute-{}.plan", std::process::id()));
    let before = Instant::now();
    let plan = match &spec {
        Some(spec) => Plan::prepare(&mut spec.source(&source_options)?, &plan_options, &path)?,
        None => {
            let mut source = traces::open(Path::new(&name))?;
            Plan::prepare(&mut *source, &plan_options, &path)?
        }
    };
    println!(
        "prepared in {:?}: {} events, {} threads",
        before.elapsed(),
        plan.events(),
        plan.threads().len()
    );
    println!(
        "stream {:016x}, {:.2} bytes per operation, {} slots, {} waits, peak live {} bytes / {} objects",
        plan.stream_hash(),
        plan.bytes_per_operation(),
        plan.slots(),
        plan.static_waits(),
        plan.peak_live_bytes(),
        plan.peak_live_objects()
    );
    let outcome = engine::run(&plan, &engine_options)?;
    std::fs::remove_file(&path)?;
    if let Some(spec) = &spec {
        let planned = plan.counts(outcome.repeat);
        spec.verify(spec.expected(&source_options, &planned), &outcome.counts)?;
    }
    report(&outcome);
    Ok(())
}

fn report(outcome: &Outcome) {
    let operations = outcome.counts.operations.max(1) as f64;
    println!("{:?}", outcome.counts);
    println!(
        "{:.3} s, {:.1} ns per operation, cpu {:.3} s, failed {}",
        outcome.elapsed_ns as f64 / 1e9,
        outcome.elapsed_ns as f64 / operations,
        outcome.cpu_ns as f64 / 1e9,
        outcome.failed_allocations
    );
    println!("{:?}\n{:?}\n{:?}", outcome.memory, outcome.timer, outcome.fidelity);
    println!(
        "stalls: {} of {} waits, {:.3} s, {:?}",
        outcome.stalls.stalled,
        outcome.stalls.waits,
        outcome.stalls.total_ns as f64 / 1e9,
        outcome.stalls.histogram.distribution()
    );
    if let Some(verification) = &outcome.verification {
        println!("{verification:?}");
    }
    if let Some(footprint) = &outcome.footprint {
        println!(
            "{} samples, peak live {}\nby RSS {:?}\nby private dirty {:?}",
            footprint.samples.len(),
            footprint.peak_live_bytes,
            footprint.by_rss,
            footprint.by_private_dirty
        );
    }
    if let Some(latency) = &outcome.latency {
        for row in latency.rows.iter().filter(|row| row.thread.is_none()) {
            let limit = row.class.map_or(0, |class| class.limit_bytes());
            println!("{} ≤ {limit}: {:?}", row.op.name(), row.histogram.distribution());
        }
        latency.slowest.iter().take(10).for_each(|call| println!("{call:?}"));
    }
}
