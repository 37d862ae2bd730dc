//! `bench-cli run WORKLOAD|TRACE`: each under each allocator, pass by pass, round by round.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;
use workloads::engine::Attributed;

use super::args::{DEFAULT_RUNS, DRAINS, DurationFor, RunArgs};
use super::details;
use super::duration;
use super::limiter::{self, Limited, Limiter};
use super::rows::{self, Context};
use super::work::{self, Work};
use super::{chosen_allocators, manifest, report, slug};
use crate::allocators::Allocator;
use crate::cli::{Format, Global};
use crate::error::{CliError, Exit};
use crate::pressure::{self, Means};
use crate::results::{Noted, RunDirectory, utc};
use crate::session::{self, Cells, Slot, Stop};
use crate::subjects::{self, Amount, Prepared, Settings};
use crate::worker::{self, CallSet, CellOutcome, CellSpec, Pace, Pass, Touch};

/// Measures what `args` names, or the standard short suite.
///
/// # Errors
/// Bad names and traces, an output folder that cannot be written, Ctrl-C, and an allocator that
/// failed ([`Exit::AllocatorFault`], after everything else was measured).
pub(super) fn run(args: &RunArgs, global: &Global) -> Result<Exit, CliError> {
    report::faults(&session(args, global, true)?)
}

/// Measures and, if `show`, prints the summary; the directory says the rest.
///
/// # Errors
/// As [`run`], but a failing allocator is left to the caller.
pub(super) fn session(
    args: &RunArgs,
    global: &Global,
    show: bool,
) -> Result<RunDirectory, CliError> {
    let mut what: Vec<String> = Vec::new();
    for text in &args.what {
        if !what.contains(text) {
            what.push(text.clone());
        }
    }
    let subjects = match what.is_empty() {
        true => subjects::standard_suite()?,
        false => what.iter().map(|text| subjects::resolve(text)).collect::<Result<_, _>>()?,
    };
    let allocators = chosen_allocators(args)?;
    let passes = chosen_passes(args)?;
    let each = args.duration_for.unwrap_or_default() == DurationFor::Each;
    if each {
        limiter::refuse_shares_of_other_work(&args.pressure)?;
    }
    let limiter = Limiter::new(&args.pressure, &allocators)?;
    let plans = tempfile::Builder::new().prefix("bench-cli-plans-").tempdir().map_err(|error| {
        CliError::new(Exit::Usage, "cannot make a temporary folder")
            .because(error)
            .help("set TMPDIR to a folder that can be written")
    })?;
    let settings = settings(args, global);
    let mut work: Vec<Work> = match args.duration {
        Some(target) => {
            let allocators = if each { &allocators } else { &allocators[..1] };
            let (settings, folder) = (&settings, plans.path());
            let trial = duration::Trial { target, args, global, allocators, settings, folder };
            duration::prepare(&subjects, &trial)?
        }
        None => subjects
            .iter()
            .map(|subject| subject.prepare(&settings, plans.path()).map(Work::of_all))
            .collect::<Result<_, _>>()?,
    };
    work::tell_apart(&mut work, &what);
    let notes = work.iter().map(|work| work.note(&allocators)).collect();
    let same = format!(
        "{passes:?} {settings:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
        args.pace,
        args.touch,
        args.copies,
        args.cpus,
        args.pressure,
        args.drain,
        args.event_memory,
        args.timeout
    );
    let manifest = manifest(notes, &allocators, args, global, &same);
    let mut directory = RunDirectory::open(global.out.as_deref(), args.resume, manifest)?;
    let rounds: Vec<u32> = passes.iter().map(|pass| rounds_of(*pass, args)).collect();
    let variants = work.len() * limiter.variants();
    let slots = session::schedule(variants, &rounds, allocators.len(), global.seed);
    let histograms = directory.histograms();
    let mut cells = Measured {
        work,
        passes,
        allocators,
        limiter,
        args,
        histograms,
        floors: BTreeMap::new(),
        left_out: BTreeSet::new(),
        seed: global.seed,
        _plans: plans,
    };
    cells.limiter.learn(directory.runs());
    let stop = session::run_all(&slots, &mut cells, &mut directory, args.budget, global.quiet)?;
    let names: Vec<String> = cells.allocators.iter().map(|a| a.name.clone()).collect();
    if show {
        report::print(&directory, &names, global)?;
        let any: Vec<&Prepared> = cells.work.iter().map(Work::any).collect();
        report::fidelity(&directory, &any, global)?;
        // The standard suite is one table; who asks for a workload wants to know more of it.
        if !args.what.is_empty() && global.format == Format::Human {
            crate::output::print(&details::render(&directory))?;
        }
    }
    report::page(&directory, global)?;
    for why in cells.left_out.iter().filter(|_| !global.quiet) {
        crate::output::note(&format!("left out: {why}"));
    }
    if stop == Stop::OutOfBudget && !global.quiet {
        crate::output::note("the budget ended before the last round: intervals are wider");
    }
    Ok(directory)
}

fn settings(args: &RunArgs, global: &Global) -> Settings {
    let amount = match (args.scale, args.what.is_empty()) {
        (Some(factor), _) => Amount::Times(factor),
        (None, true) => Amount::Short,
        (None, false) => Amount::Whole,
    };
    Settings {
        order: args.order,
        threads: args.threads,
        amount,
        times: matches!(args.pace, Some(Pace::Paced(_))),
        // The default seed leaves every workload its own.
        seed: if global.seed == 1 { 0 } else { global.seed },
    }
}

fn chosen_passes(args: &RunArgs) -> Result<Vec<Pass>, CliError> {
    let mut passes = args.passes.clone();
    if passes.is_empty() {
        passes = vec![Pass::Throughput, Pass::Latency, Pass::Footprint];
    }
    if args.verify && !passes.contains(&Pass::Verify) {
        passes.push(Pass::Verify);
    }
    if passes.contains(&Pass::Instructions) {
        worker::need_valgrind("leave `instructions` out of --pass")?;
    }
    if passes.contains(&Pass::Syscalls) {
        pressure::probe_traps().map_err(|(why, help)| {
            CliError::new(Exit::Unfit, "system calls cannot be counted on this machine")
                .because(why)
                .help(help)
        })?;
    }
    let fails = |p: &pressure::Pressure| matches!(p.means, Means::FailCall | Means::FailFrom);
    if passes.contains(&Pass::Instructions) && args.pressure.iter().any(fails) {
        return Err(CliError::new(Exit::Usage, "`fail:` cannot be had in an instructions pass")
            .because("under valgrind it is valgrind that calls the kernel")
            .help("leave `instructions` out of --pass"));
    }
    let mut seen = Vec::new();
    passes.retain(|pass| {
        !seen.contains(pass) && {
            seen.push(*pass);
            true
        }
    });
    Ok(passes)
}

/// Times vary from process to process, so they need the rounds; the rest varies little.
fn rounds_of(pass: Pass, args: &RunArgs) -> u32 {
    let runs = args.runs.unwrap_or(DEFAULT_RUNS);
    match pass {
        _ if args.every_pass_in_every_round => runs,
        Pass::Throughput => runs,
        Pass::Latency => runs.div_ceil(3),
        _ => 1,
    }
}

/// A run of `prepared` as the command line wants every one of this pass.
pub(super) fn cell(
    args: &RunArgs,
    prepared: &Prepared,
    allocator: &Allocator,
    pass: Pass,
) -> CellSpec {
    let mut spec = CellSpec::new(prepared.plan.clone(), allocator.clone(), pass);
    spec.touch = args.touch.unwrap_or(prepared.touch);
    spec.pace = args.pace.unwrap_or_default();
    spec.copies = args.copies.unwrap_or(1);
    spec.cpus = args.cpus.clone().unwrap_or_default().0;
    if let Some(bytes) = args.event_memory {
        spec.event_memory = bytes;
    }
    if let Some(timeout) = args.timeout {
        spec.timeout_s = timeout.as_secs();
    }
    spec
}

struct Measured<'a> {
    work: Vec<Work>,
    passes: Vec<Pass>,
    allocators: Vec<Allocator>,
    limiter: Limiter,
    args: &'a RunArgs,
    histograms: PathBuf,
    /// Nanoseconds that the harness alone takes for a plan.
    floors: BTreeMap<PathBuf, u64>,
    /// What could not be run, and why.
    left_out: BTreeSet<String>,
    seed: u64,
    /// Removed with everything in it at the end.
    _plans: TempDir,
}

impl Cells for Measured<'_> {
    fn id(&self, slot: &Slot) -> String {
        let (subject, variant) = self.split(slot);
        let allocator = &self.allocators[slot.allocator].name;
        let pass = self.passes[slot.pass].name();
        // Two allocators may differ only where a slug ends; their place tells them apart.
        let place = slot.allocator;
        let (name, threads) = (work::label(&self.work, self.place(slot)), subject.threads);
        let pressure = match self.limiter.name(variant) {
            name if name.is_empty() => String::new(),
            name => format!("-{}", slug(&name.replace('%', "pc"))),
        };
        let allocator = slug(allocator);
        format!("{name}-{threads}t{pressure}--{place}-{allocator}--{pass}--{}", slot.round)
    }

    fn run(&mut self, slot: &Slot, id: &str) -> Result<Option<Noted>, CliError> {
        let (subject, variant) = self.split(slot);
        let subject = &subject.clone();
        let allocator = &self.allocators[slot.allocator];
        let pass = self.passes[slot.pass];
        let unknown = self.limiter.why_unknown(variant, &subject.name, &allocator.name, pass);
        if let Some(why) = unknown {
            self.left_out.insert(why);
            return Ok(None);
        }
        let started = utc::now();
        let mut spec = cell(self.args, subject, allocator, pass);
        // Every process differs in what chance decides, and two sessions of one seed do not.
        spec.seed = self.seed.wrapping_add(u64::from(slot.round) << 32 | slot.subject as u64);
        let limit = self.limiter.limit(variant, subject, &allocator.name, pass)?;
        spec.limit = limit.as_ref().map(|(limit, _)| limit.clone());
        if pass == Pass::Latency && slot.round == 0 {
            spec.slowest = slowest(subject.counts.operations);
        }
        if pass == Pass::Footprint {
            let most = self.args.drain.unwrap_or(Duration::from_millis(DRAINS[0])).as_millis();
            spec.drain_ms = DRAINS.into_iter().filter(|ms| u128::from(*ms) <= most).collect();
        }
        let floor_ns = self.floor(&spec)?;
        let allocator = &self.allocators[slot.allocator];
        let outcome = worker::run_once(&spec)?;
        check_counts(subject, &spec, &outcome)?;
        let limit_hits = limit.and_then(|(_, group)| group).and_then(|group| group.limit_hits());
        let again = || self.limiter.limit(variant, subject, &allocator.name, pass);
        let attributed = attribute(&spec, &outcome, again)?;
        let context = Context {
            id,
            subject,
            allocator,
            spec: &spec,
            round: slot.round,
            seed: self.seed,
            started,
            histograms: &self.histograms,
            pressure: self.limiter.name(variant),
            floor_ns,
            attributed,
        };
        let mut noted = rows::noted(&context, &outcome)?;
        noted.run.limit_hits = limit_hits;
        self.limiter.learn(std::slice::from_ref(&noted.run));
        Ok(Some(noted))
    }
}

/// Runs with functions that do nothing, of which the fastest is the floor: whatever interrupts one
/// of them is not the harness.
const FLOOR_RUNS: usize = 3;

/// Calls worth a line in `tail.csv`: the slowest 0.1 %, and at most a thousand.
fn slowest(operations: u64) -> u32 {
    u32::try_from((operations / 1000).clamp(1, 1000)).unwrap_or(1000)
}

/// Looks around the slowest calls of a latency run in a second run of the same plan, under what
/// `limit` makes for it: the first run lifted its own.
fn attribute(
    spec: &CellSpec,
    outcome: &CellOutcome,
    limit: impl FnOnce() -> Result<Option<Limited>, CliError>,
) -> Result<Vec<Attributed>, CliError> {
    let latency = outcome.report.as_ref().and_then(|report| report.outcome.latency.as_ref());
    let Some(latency) = latency.filter(|latency| !latency.slowest.is_empty()) else {
        return Ok(Vec::new());
    };
    let mut again = spec.clone();
    (again.pass, again.slowest) = (Pass::Attribution, 0);
    again.attribute.clone_from(&latency.slowest);
    // Its group is there until it has ended.
    let limited = limit()?;
    again.limit = limited.as_ref().map(|(limit, _)| limit.clone());
    let report = worker::run_once(&again)?.report;
    Ok(report.and_then(|report| report.outcome.attribution).unwrap_or_default())
}

impl Measured<'_> {
    /// What the harness alone takes for the plan of `spec`: the least of a few runs with functions
    /// that do nothing. A paced run takes as long as its trace says, and has no floor.
    fn floor(&mut self, spec: &CellSpec) -> Result<Option<u64>, CliError> {
        if spec.pass != Pass::Throughput || spec.pace != Pace::Asap {
            return Ok(None);
        }
        if let Some(floor) = self.floors.get(&spec.plan) {
            return Ok(Some(*floor));
        }
        let mut null = CellSpec::new(spec.plan.clone(), Allocator::system(), Pass::Throughput);
        (null.calls, null.touch) = (CallSet::Null, Touch::None);
        (null.copies, null.timeout_s) = (spec.copies, spec.timeout_s);
        null.cpus.clone_from(&spec.cpus);
        null.event_memory = spec.event_memory;
        let mut floor: Option<u64> = None;
        for _ in 0..FLOOR_RUNS {
            let elapsed = worker::run_once(&null)?.report.map(|report| report.elapsed_ns);
            floor = floor.into_iter().chain(elapsed).min();
        }
        self.floors.extend(floor.map(|floor| (spec.plan.clone(), floor)));
        Ok(floor)
    }

    /// What is run at a slot, and under which of the pressures (0: none).
    fn split(&self, slot: &Slot) -> (&Prepared, usize) {
        let variant = slot.subject % self.limiter.variants();
        (self.work[self.place(slot)].of(slot.allocator), variant)
    }

    fn place(&self, slot: &Slot) -> usize {
        slot.subject / self.limiter.variants()
    }
}

/// Other counts than the plan's mean other work: no number of such a run is worth anything.
fn check_counts(
    subject: &Prepared,
    spec: &CellSpec,
    outcome: &CellOutcome,
) -> Result<(), CliError> {
    let Some(report) = &outcome.report else { return Ok(()) };
    let expected = subject.counts.operations * u64::from(spec.copies);
    if report.operations == expected || report.failed_allocations > 0 {
        return Ok(());
    }
    Err(CliError::new(Exit::Internal, format!("{} did other work than planned", subject.name))
        .because(format!("{} operations instead of {expected}", report.operations)))
}
