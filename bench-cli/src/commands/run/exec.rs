//! `bench-cli run --exec`: a user's own program under each allocator.
#![forbid(unsafe_code)]

use super::args::{DEFAULT_RUNS, RunArgs};
use super::{chosen_allocators, manifest, report, slug};
use crate::allocators::Allocator;
use crate::cli::Global;
use crate::error::{CliError, Exit};
use crate::exec::{self, CommandLine, ExecError, ExecOutcome, ExecSpec, Status};
use crate::results::{Noted, RunDirectory, RunRow, Subject, utc};
use crate::session::{self, Cells, Slot};

/// Runs the program `text` under each allocator.
///
/// # Errors
/// A program that cannot be started, an allocator that does not get into it, and whatever
/// `bench-cli run` itself can fail with.
pub(super) fn run(text: &str, args: &RunArgs, global: &Global) -> Result<Exit, CliError> {
    let command = CommandLine::parse(text).map_err(|error| {
        CliError::new(Exit::Usage, format!("`{text}` is no command"))
            .because(error)
            .help("give program and arguments in one quoted argument: --exec 'PROGRAM ARGS'")
    })?;
    let allocators = chosen_allocators(args)?;
    let subject =
        Subject { name: command.text.clone(), kind: "command".to_owned(), ..Subject::default() };
    let settings = format!("exec {:?}", args.cpus);
    let manifest = manifest(vec![subject], &allocators, args, global, &settings);
    let mut directory = RunDirectory::open(global.out.as_deref(), args.resume, manifest)?;
    let slots =
        session::schedule(1, &[args.runs.unwrap_or(DEFAULT_RUNS)], allocators.len(), global.seed);
    let cpus = args.cpus.clone().unwrap_or_default().0;
    let mut cells = Program { command, allocators, cpus, seed: global.seed };
    session::run_all(&slots, &mut cells, &mut directory, args.budget, global.quiet)?;
    let names: Vec<String> = cells.allocators.iter().map(|a| a.name.clone()).collect();
    report::print(&directory, &names, global)?;
    report::page(&directory, global)?;
    Ok(judge(directory.runs(), session::reference(&names)))
}

/// A run is an allocator's fault if the program ended otherwise than under the reference, or wrote
/// something else. A program that fails everywhere, or never writes the same twice, proves nothing.
fn judge(runs: &[RunRow], reference: &str) -> Exit {
    let own = || runs.iter().filter(move |r| r.allocator == reference);
    let Some(first) = own().next() else { return Exit::Success };
    let stable_end = own().all(|r| r.exit_status == first.exit_status);
    let stable_output = own().all(|r| r.output_hash == first.output_hash);
    let faulty = runs.iter().any(|r| {
        (stable_end && r.exit_status != first.exit_status)
            || (stable_output && r.output_hash != first.output_hash)
    });
    if faulty { Exit::AllocatorFault } else { Exit::Success }
}

struct Program {
    command: CommandLine,
    allocators: Vec<Allocator>,
    cpus: Vec<usize>,
    seed: u64,
}

impl Cells for Program {
    fn id(&self, slot: &Slot) -> String {
        let (place, allocator) = (slot.allocator, &self.allocators[slot.allocator].name);
        format!("{}--{place}-{}--{}", slug(&self.command.text), slug(allocator), slot.round)
    }

    fn run(&mut self, slot: &Slot, id: &str) -> Result<Option<Noted>, CliError> {
        let allocator = &self.allocators[slot.allocator];
        let started = utc::rfc3339(utc::now());
        let spec = ExecSpec {
            command: self.command.clone(),
            allocator: allocator.clone(),
            cpus: self.cpus.clone(),
        };
        let outcome = exec::run_once(&spec).map_err(|error| self.explain(&error))?;
        self.check_preload(allocator, &outcome)?;
        let run = RunRow {
            run_id: id.to_owned(),
            workload: self.command.text.clone(),
            allocator: allocator.name.clone(),
            library: outcome
                .library
                .as_ref()
                .map_or_else(String::new, |path| path.display().to_string()),
            pass: "throughput".to_owned(),
            round: slot.round,
            end: end(outcome.status),
            exit_status: Some(outcome.status.code()),
            elapsed_ns: Some(outcome.elapsed_ns),
            cpu_ns: Some(outcome.user_ns + outcome.system_ns),
            peak_rss_bytes: Some(outcome.peak_rss_bytes),
            minor_faults: Some(outcome.minor_faults),
            major_faults: Some(outcome.major_faults),
            involuntary_switches: Some(outcome.involuntary_switches),
            output_bytes: Some(outcome.output.bytes),
            output_hash: format!("{:016x}", outcome.output.hash),
            seed: self.seed,
            started_utc: started,
            ..RunRow::default()
        };
        Ok(Some(Noted { run, ..Noted::default() }))
    }
}

/// A status is the program's own affair: it did complete. A signal is not.
fn end(status: Status) -> String {
    match status {
        Status::Exited(_) => "completed".to_owned(),
        Status::Signalled(libc::SIGKILL) => "killed for memory".to_owned(),
        Status::Signalled(signal) => crate::worker::End::Crashed { signal }.name(),
    }
}

impl Program {
    fn explain(&self, error: &ExecError) -> CliError {
        match error {
            ExecError::Interrupted => CliError::new(Exit::Interrupted, "interrupted"),
            ExecError::Start { .. } => CliError::new(Exit::Usage, error.to_string())
                .help("check the path of the program given with --exec"),
            ExecError::System { .. } => {
                CliError::new(Exit::Internal, "the program cannot be watched").because(error)
            }
        }
    }

    /// Numbers of a program that the library never got into would be of the wrong allocator.
    fn check_preload(&self, allocator: &Allocator, outcome: &ExecOutcome) -> Result<(), CliError> {
        // The dynamic linker's own way to say that a library, or one it needs, cannot be loaded.
        if allocator.preload.is_some()
            && outcome.status == Status::Exited(127)
            && outcome.stderr.contains("shared librar")
        {
            let what = format!("{} cannot be measured by preload", allocator.name);
            return Err(CliError::new(Exit::Usage, what).because(&outcome.stderr));
        }
        if allocator.preload.is_none() || outcome.preloaded == Some(true) {
            return Ok(());
        }
        // A program that failed before it could be asked is a result.
        if outcome.status != Status::Exited(0) && outcome.preloaded.is_none() {
            return Ok(());
        }
        let why = match outcome.preloaded {
            Some(_) => "a process of it does not have the library in its memory",
            None => "nobody could look into its memory before it ended",
        };
        let program = self.command.program();
        Err(CliError::new(Exit::Unfit, format!("{} did not get into `{program}`", allocator.name))
            .because(why)
            .help("a static or setuid program cannot be preloaded; `file PROGRAM` tells"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(allocator: &str, status: i32, output: &str) -> RunRow {
        RunRow {
            allocator: allocator.to_owned(),
            exit_status: Some(status),
            output_hash: output.to_owned(),
            ..RunRow::default()
        }
    }

    #[test]
    fn only_a_difference_to_the_reference_is_an_allocators_fault() {
        let judge = |rows: &[RunRow]| judge(rows, "system");
        assert_eq!(judge(&[row("system", 3, "a"), row("ours", 3, "a")]), Exit::Success);
        assert_eq!(judge(&[row("system", 0, "a"), row("ours", 139, "a")]), Exit::AllocatorFault);
        assert_eq!(judge(&[row("system", 0, "a"), row("ours", 0, "b")]), Exit::AllocatorFault);
        let moody = [row("system", 0, "a"), row("system", 0, "b"), row("ours", 0, "c")];
        assert_eq!(judge(&moody), Exit::Success);
    }

    #[test]
    fn whoever_the_shuffle_put_first_is_not_the_reference_for_it() {
        let mut rows = [row("ours", 0, "a"), row("other", 0, "b"), row("other", 0, "c")];
        assert_eq!(judge(&rows, "ours"), Exit::AllocatorFault);
        rows.reverse();
        assert_eq!(judge(&rows, "ours"), Exit::AllocatorFault);
    }
}
