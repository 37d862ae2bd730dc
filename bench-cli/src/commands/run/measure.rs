//! `bench-cli run WORKLOAD|TRACE`: each under each allocator, pass by pass, round by round.
#![forbid(unsafe_code)]

use tempfile::TempDir;

use super::args::{DEFAULT_RUNS, RunArgs};
use super::rows::{self, Context};
use super::{chosen_allocators, manifest, report, slug};
use crate::allocators::Allocator;
use crate::cli::Global;
use crate::error::{CliError, Exit};
use crate::results::{RunDirectory, utc};
use crate::session::{self, Cells, Noted, Slot, Stop};
use crate::subjects::{self, Prepared, Settings};
use crate::worker::{self, CellSpec, Pace, Pass};

/// Measures what `args` names, or the standard short suite.
///
/// # Errors
/// Bad names and traces, an output folder that cannot be written, Ctrl-C, and an allocator that
/// failed ([`Exit::AllocatorFault`], after everything else was measured).
pub(super) fn run(args: &RunArgs, global: &Global) -> Result<Exit, CliError> {
    let subjects = match args.what.is_empty() {
        true => subjects::standard_suite(),
        false => args.what.iter().map(|text| subjects::resolve(text)).collect::<Result<_, _>>()?,
    };
    let allocators = chosen_allocators(args)?;
    let passes = chosen_passes(args);
    let plans = tempfile::Builder::new().prefix("bench-cli-plans-").tempdir().map_err(|error| {
        CliError::new(Exit::Usage, "cannot make a temporary folder")
            .because(error)
            .help("set TMPDIR to a folder that can be written")
    })?;
    let settings = Settings {
        order: args.order,
        threads: args.threads,
        times: matches!(args.pace, Some(Pace::Paced(_))),
        seed: global.seed,
    };
    let prepared: Vec<Prepared> = subjects
        .iter()
        .map(|subject| subject.prepare(&settings, plans.path()))
        .collect::<Result<_, _>>()?;
    let notes = prepared.iter().map(|prepared| prepared.note.clone()).collect();
    let same = format!(
        "{passes:?} {settings:?} {:?} {:?} {:?} {:?}",
        args.pace, args.touch, args.scale, args.cpus
    );
    let manifest = manifest(notes, &allocators, global, &same);
    let mut directory = RunDirectory::open(global.out.as_deref(), args.resume, manifest)?;
    let rounds: Vec<u32> = passes.iter().map(|pass| rounds_of(*pass, args.runs)).collect();
    let slots = session::schedule(prepared.len(), &rounds, allocators.len(), global.seed);
    let mut cells = Measured {
        prepared,
        passes,
        allocators,
        args,
        histograms: directory.histograms(),
        seed: global.seed,
        _plans: plans,
    };
    let stop = session::run_all(&slots, &mut cells, &mut directory, args.budget, global.quiet)?;
    let names: Vec<String> = cells.allocators.iter().map(|a| a.name.clone()).collect();
    report::print(&directory, &names, global)?;
    if stop == Stop::OutOfBudget && !global.quiet {
        crate::output::note("the budget ended before the last round: intervals are wider");
    }
    report::fidelity(&directory, &cells.prepared, global)?;
    report::faults(&directory)
}

fn chosen_passes(args: &RunArgs) -> Vec<Pass> {
    let mut passes = args.passes.clone();
    if passes.is_empty() {
        passes = vec![Pass::Throughput, Pass::Latency, Pass::Footprint];
    }
    if args.verify && !passes.contains(&Pass::Verify) {
        passes.push(Pass::Verify);
    }
    let mut seen = Vec::new();
    passes.retain(|pass| {
        !seen.contains(pass) && {
            seen.push(*pass);
            true
        }
    });
    passes
}

/// Times vary from process to process, so they need the rounds; the rest varies little.
fn rounds_of(pass: Pass, runs: Option<u32>) -> u32 {
    let runs = runs.unwrap_or(DEFAULT_RUNS);
    match pass {
        Pass::Throughput => runs,
        Pass::Latency => runs.div_ceil(3),
        Pass::Footprint | Pass::Verify | Pass::Instructions => 1,
    }
}

struct Measured<'a> {
    prepared: Vec<Prepared>,
    passes: Vec<Pass>,
    allocators: Vec<Allocator>,
    args: &'a RunArgs,
    histograms: std::path::PathBuf,
    seed: u64,
    /// Removed with everything in it at the end.
    _plans: TempDir,
}

impl Cells for Measured<'_> {
    fn id(&self, slot: &Slot) -> String {
        let subject = &self.prepared[slot.subject];
        let allocator = &self.allocators[slot.allocator].name;
        let pass = self.passes[slot.pass].name();
        // Two allocators may differ only where a slug ends; their place tells them apart.
        let place = slot.allocator;
        let (name, threads) = (slug(&subject.name), subject.threads);
        format!("{name}-{threads}t--{place}-{}--{pass}--{}", slug(allocator), slot.round)
    }

    fn run(&mut self, slot: &Slot, id: &str) -> Result<Noted, CliError> {
        let subject = &self.prepared[slot.subject];
        let allocator = &self.allocators[slot.allocator];
        let pass = self.passes[slot.pass];
        let started = utc::now();
        let mut spec = CellSpec::new(subject.plan.clone(), allocator.clone(), pass);
        spec.touch = self.args.touch.unwrap_or_default();
        spec.pace = self.args.pace.unwrap_or_default();
        spec.copies = self.args.scale.unwrap_or(1);
        spec.cpus = self.args.cpus.clone().unwrap_or_default().0;
        // Every process differs in what chance decides, and two sessions of one seed do not.
        spec.seed = self.seed.wrapping_add(u64::from(slot.round) << 32 | slot.subject as u64);
        if let Some(timeout) = self.args.timeout {
            spec.timeout_s = timeout.as_secs();
        }
        let outcome = worker::run_once(&spec)?;
        let context = Context {
            id,
            subject,
            allocator,
            spec: &spec,
            round: slot.round,
            seed: self.seed,
            started,
            histograms: &self.histograms,
        };
        rows::noted(&context, &outcome)
    }
}
