//! Built-in trials: a replay in a worker process under one allocator, as `run` makes it.
#![forbid(unsafe_code)]

use std::mem::discriminant;

use tempfile::TempDir;
use traces::event::Event;
use traces::rewrite::Stream;
use workloads::engine::Touch;
use workloads::plan::{Order, Plan, PlanOptions};

use super::{Seen, ShrinkArgs, Trial};
use crate::allocators::{self, Allocator};
use crate::error::{CliError, Exit};
use crate::gate::quantity;
use crate::worker::{self, CellOutcome, CellSpec, End, Pass, WorkerError};

/// What a replay has to show.
enum Wanted {
    /// An end like this one, once the whole trace has shown which.
    Crash(Option<End>),
    /// A peak of resident memory above so many bytes, what the harness has at the start left out.
    Resident(u64),
    /// A call above so many nanoseconds, in each of so many replays.
    Latency { above_ns: u64, attempts: u32 },
}

/// Replays candidates.
pub(super) struct Replay {
    wanted: Wanted,
    allocator: Allocator,
    order: Order,
    timeout_s: u64,
    /// Where plans lie while they are replayed.
    folder: TempDir,
}

impl Replay {
    /// The built-in trial that `args` ask for.
    pub(super) fn new(args: &ShrinkArgs) -> Result<Self, CliError> {
        let wanted = match (args.rss_above, args.latency_above) {
            (Some(bytes), _) => Wanted::Resident(bytes),
            (None, Some(above_ns)) => Wanted::Latency { above_ns, attempts: args.attempts },
            (None, None) => Wanted::Crash(None),
        };
        let folder = tempfile::Builder::new().prefix("bench-cli-shrink-").tempdir();
        Ok(Replay {
            wanted,
            allocator: allocators::resolve(&args.allocator)?,
            order: args.order.unwrap_or_default(),
            timeout_s: args.timeout.as_secs(),
            folder: folder.map_err(|error| {
                CliError::new(Exit::Usage, "cannot make a temporary folder")
                    .because(error)
                    .help("set TMPDIR to a folder that can be written")
            })?,
        })
    }

    /// Makes the plan of `events` and the run that looks at it.
    fn spec(&self, events: Vec<Event>) -> Result<CellSpec, CliError> {
        let path = self.folder.path().join("trial.plan");
        let options = PlanOptions { order: self.order, ..PlanOptions::default() };
        Plan::prepare(&mut Stream::new(events), &options, &path).map_err(|error| {
            let mut shown = CliError::new(Exit::Trace, "a part of the trace cannot be replayed");
            let mut cause: Option<&dyn std::error::Error> = Some(&error);
            while let Some(error) = cause {
                shown = shown.because(error);
                cause = error.source();
            }
            shown.help("`bench-cli trace verify` lists the faults of a trace")
        })?;
        let pass = match self.wanted {
            Wanted::Crash(_) => Pass::Verify,
            Wanted::Resident(_) => Pass::Throughput,
            Wanted::Latency { .. } => Pass::Latency,
        };
        let mut spec = CellSpec::new(path, self.allocator.clone(), pass);
        spec.timeout_s = self.timeout_s;
        spec.touch = Touch::default();
        spec.slowest = u32::from(pass == Pass::Latency);
        Ok(spec)
    }
}

impl Trial for Replay {
    fn look(&mut self, events: Vec<Event>) -> Result<Seen, CliError> {
        let spec = self.spec(events)?;
        let attempts = match self.wanted {
            Wanted::Latency { attempts, .. } => attempts,
            _ => 1,
        };
        let mut seen = None;
        for _ in 0..attempts {
            let outcome = match worker::run_once(&spec) {
                // Whoever asked for the trial looks at the flag.
                Err(WorkerError::Interrupted) => return Ok(Seen::nothing("it was interrupted")),
                other => other?,
            };
            let now = self.wanted.judge(&outcome);
            let shows = now.shows;
            seen = Some(now);
            if !shows {
                break;
            }
        }
        Ok(seen.unwrap_or_else(|| Seen::nothing("nothing was tried")))
    }

    fn wanted(&self) -> String {
        let name = &self.allocator.name;
        match self.wanted {
            Wanted::Crash(_) => format!("a crash of {name}"),
            Wanted::Resident(bytes) => {
                format!("a resident peak above {} under {name}", quantity::spoken_bytes(bytes))
            }
            Wanted::Latency { above_ns, attempts } => {
                format!(
                    "a call above {above_ns} ns under {name} in {attempts} of {attempts} replays"
                )
            }
        }
    }

    fn by_hand(&self, file: &str) -> String {
        let pass = match self.wanted {
            Wanted::Crash(_) => "verify",
            Wanted::Resident(_) => "throughput",
            Wanted::Latency { .. } => "latency",
        };
        format!("bench-cli run {file} -a {} --pass {pass}", self.allocator.name)
    }
}

impl Wanted {
    /// Whether `outcome` shows it. The first crash says what later ones have to be like.
    fn judge(&mut self, outcome: &CellOutcome) -> Seen {
        let end = &outcome.end;
        let what = format!("the replay {}", end.name());
        match (self, &outcome.report) {
            (Wanted::Crash(_), _) if *end == End::Completed => Seen { shows: false, what },
            (Wanted::Crash(first), _) => {
                let first = first.get_or_insert_with(|| end.clone());
                Seen { shows: alike(first, end), what }
            }
            (Wanted::Resident(limit), Some(report)) => {
                let peak = report.peak_rss_bytes;
                let what = format!("the resident peak is {}", quantity::spoken_bytes(peak));
                Seen { shows: peak > *limit, what }
            }
            (Wanted::Latency { above_ns, .. }, Some(report)) => {
                let latency = report.outcome.latency.as_ref();
                match latency.and_then(|latency| latency.slowest.first()) {
                    Some(call) => Seen {
                        shows: call.ns > *above_ns,
                        what: format!(
                            "the slowest call is a {} of {} bytes with {} ns",
                            call.op.name(),
                            call.size,
                            call.ns
                        ),
                    },
                    None => Seen::nothing("no call was timed"),
                }
            }
            // It ended before it could say anything.
            (_, None) => Seen { shows: false, what },
        }
    }
}

impl Seen {
    fn nothing(what: &str) -> Self {
        Seen { shows: false, what: what.to_owned() }
    }
}

/// Whether two ends are of one kind: another signal is another crash, another place is not.
fn alike(one: &End, other: &End) -> bool {
    match (one, other) {
        (End::Crashed { signal: a }, End::Crashed { signal: b }) => a == b,
        (End::Exited { status: a }, End::Exited { status: b }) => a == b,
        _ => discriminant(one) == discriminant(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_signal_is_another_crash_and_another_place_is_not() {
        let crash = |signal| End::Crashed { signal };
        let broke = |what: &str| End::BrokePromise { what: what.to_owned() };
        assert!(alike(&crash(11), &crash(11)) && !alike(&crash(11), &crash(6)));
        assert!(alike(&broke("overlap at 7"), &broke("overlap at 3")));
        assert!(!alike(&crash(11), &End::Hung));
    }
}
