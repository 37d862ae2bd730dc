//! Specifications: a workload is data, and a claim.
//!
//! A TOML file names the question it answers, its seed and parameters, the counts that must come
//! out and the bias of its answer. Those in `workloads/specs` are part of the program; a user adds
//! one by writing a file and giving its path.
#![forbid(unsafe_code)]

mod builtin;
mod check;

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::engine::Touch;
use crate::generators::{self, GeneratorSource, Workload};
use crate::plan::{Counts, Order, PlanOptions};

/// What a workload is made by. `kind` in the file.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Generator {
    /// Replace a random one of many.
    Cells(generators::Cells),
    /// Allocate many, free many.
    Batches(generators::Batches),
    /// Producers allocate, consumers free.
    Handoff(generators::Handoff),
    /// Exchanges, and now and then a hand-over to the neighbour.
    Ring(generators::Ring),
    /// Rounds of threads over a shared table.
    Stress(generators::Stress),
    /// Rounds of short-lived threads.
    Pool(generators::Pool),
    /// Allocate one object, write to it many times, free it.
    Writes(generators::Writes),
    /// Sizes and lifetimes by distribution.
    Lifetimes(generators::Lifetimes),
    /// Growing buffers.
    Growth(generators::Growth),
    /// A heap like that of a production profile.
    Profile(generators::Profile),
    /// A single thread that leaves holes.
    Adversary(generators::Adversary),
    /// Phases, bursts, connections and hand-off.
    Server(generators::Server),
    /// Children forked from a heap in use.
    ForkServer(generators::ForkServer),
}

/// Counts that must come out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// Objects born.
    pub allocations: u64,
    /// Objects released.
    pub frees: u64,
}

/// Variants of a workload that differ in one parameter: `pair-64` is `pair` with `bytes` = 64.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Family {
    /// A parameter of the generator that is a distribution.
    pub parameter: String,
    /// Its values, each a fixed number.
    pub values: Vec<u64>,
}

/// A workload's specification.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Its name.
    pub name: String,
    /// The question it answers.
    pub question: String,
    /// What its answer cannot show.
    pub bias: String,
    /// Seed of every random choice.
    pub seed: u64,
    /// Threads that work.
    pub threads: u32,
    /// Whether another number of threads may be chosen.
    #[serde(default = "yes")]
    pub any_threads: bool,
    /// Executions of the body.
    pub rounds: u32,
    /// Share of `rounds` that makes a short run, of 0.2 s or less.
    pub short: f64,
    /// Share of `rounds` that makes a cell of a gate: about 0.1 s, so that starting the process is
    /// the smaller part, and one interruption is not the whole. Without it, `short`.
    #[serde(default)]
    pub gate: Option<f64>,
    /// How much of the stream's order is kept.
    #[serde(default = "deps")]
    pub order: Order,
    /// Which bytes of fresh objects are written.
    #[serde(default)]
    pub touch: Touch,
    /// Counts that must come out, with the parameters as they stand here.
    pub verify: Expected,
    /// Its variants, if it has any.
    #[serde(default)]
    pub family: Option<Family>,
    /// What it is made by.
    pub generator: Generator,
}

fn yes() -> bool {
    true
}

fn deps() -> Order {
    Order::Deps
}

/// Parameters that a user may set at the run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SourceOptions {
    /// Threads that work; `None` = as specified.
    pub threads: Option<u32>,
    /// Factor on the executions of the body.
    pub scale: f64,
    /// Seed; `None` = as specified.
    pub seed: Option<u64>,
    /// For a plan: the body comes once, with marks. Else flat, for a trace file.
    pub folded: bool,
}

impl Default for SourceOptions {
    fn default() -> Self {
        SourceOptions { threads: None, scale: 1.0, seed: None, folded: true }
    }
}

/// Why a specification cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// No workload has this name, and it is no file.
    #[error("no workload is called `{name}`, and it is no file")]
    Unknown {
        /// What was given.
        name: String,
        /// Names that come close.
        similar: Vec<String>,
    },
    /// The file system refused.
    #[error("cannot read `{path}`")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The text is no specification.
    #[error("`{origin}` is not a workload")]
    Syntax {
        /// Where it comes from.
        origin: String,
        /// Line, column and what is wrong there.
        source: Box<toml::de::Error>,
    },
    /// The text is a specification that makes no sense.
    #[error("workload `{name}`: {what}")]
    Nonsense {
        /// Which workload.
        name: String,
        /// What makes no sense, as a fragment.
        what: String,
    },
    /// Its profile cannot be read.
    #[error("workload `{name}`: its profile cannot be used")]
    Profile {
        /// Which workload.
        name: String,
        /// Why.
        source: generators::ProfileError,
    },
}

/// Other work than claimed was done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "workload `{name}` claims {} allocations and {} frees and made {} and {}",
    expected.allocations, expected.frees, found.allocations, found.frees
)]
pub struct Mismatch {
    /// Which workload.
    pub name: String,
    /// What it claims.
    pub expected: Expected,
    /// What was counted.
    pub found: Expected,
}

impl Spec {
    /// Reads a specification from its text; `origin` says where it comes from.
    ///
    /// # Errors
    /// If it is not one, or makes no sense.
    pub fn parse(text: &str, origin: &str) -> Result<Spec, SpecError> {
        let spec: Spec = toml::from_str(text).map_err(|source| SpecError::Syntax {
            origin: origin.to_owned(),
            source: Box::new(source),
        })?;
        let nonsense = |what: &str| {
            Err(SpecError::Nonsense { name: spec.name.clone(), what: what.to_owned() })
        };
        if spec.name.is_empty() || spec.question.is_empty() || spec.bias.is_empty() {
            return nonsense("it needs a name, a question and a bias");
        }
        if spec.rounds == 0 || spec.threads == 0 {
            return nonsense("rounds and threads must be at least 1");
        }
        if !(spec.short > 0.0 && spec.short <= 1.0) {
            return nonsense("`short` must be a share of the rounds, above 0 and at most 1");
        }
        if spec.gate.is_some_and(|gate| !(gate > 0.0 && gate <= 1.0)) {
            return nonsense("`gate` must be a share of the rounds, above 0 and at most 1");
        }
        if let Err(what) = check::check(&spec.generator) {
            return nonsense(&what);
        }
        Ok(spec)
    }

    /// Names of the workloads that are part of the program; variants are named in their families.
    #[must_use]
    pub fn names() -> Vec<&'static str> {
        builtin::SPECS.iter().map(|(name, _)| *name).collect()
    }

    /// All workloads that are part of the program.
    ///
    /// # Panics
    /// Never: a test reads every one of them.
    #[must_use]
    pub fn all() -> Vec<Spec> {
        builtin::SPECS
            .iter()
            .map(|(name, text)| Spec::parse(text, name).expect("tested: every one is sound"))
            .collect()
    }

    /// The workload of the program that has this name: `larson`, or a variant like `pair-64`.
    ///
    /// # Errors
    /// If the variant makes no sense.
    pub fn named(name: &str) -> Result<Option<Spec>, SpecError> {
        match builtin::SPECS.iter().find(|(known, _)| *known == name) {
            Some((name, text)) => Spec::parse(text, name).map(Some),
            None => Spec::variant(name),
        }
    }

    /// The workload of this name, that of a `.toml` file, or that of a `.csv` file with a
    /// production profile.
    ///
    /// # Errors
    /// If there is none, or it cannot be used.
    pub fn load(name: &str) -> Result<Spec, SpecError> {
        if let Some(spec) = Spec::named(name)? {
            return Ok(spec);
        }
        let path = Path::new(name);
        if !path.is_file() {
            let similar = Spec::similar(name);
            return Err(SpecError::Unknown { name: name.to_owned(), similar });
        }
        if path.extension().is_some_and(|extension| extension == "csv") {
            return Spec::from_profile(path);
        }
        let text = std::fs::read_to_string(path)
            .map_err(|source| SpecError::Io { path: path.to_owned(), source })?;
        Spec::parse(&text, name)
    }

    /// A workload over a table of `size, allocation rate, number live`.
    ///
    /// # Errors
    /// If the table cannot be read.
    pub fn from_profile(path: &Path) -> Result<Spec, SpecError> {
        let mut spec = Spec::load("profile")?;
        spec.name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if let Generator::Profile(profile) = &mut spec.generator {
            profile.table = path.to_string_lossy().into_owned();
        }
        // The claim is about the table that the program brings along.
        spec.verify = Expected { allocations: 0, frees: 0 };
        spec.generate(spec.seed, spec.threads)?;
        Ok(spec)
    }

    fn variant(name: &str) -> Result<Option<Spec>, SpecError> {
        let Some((base, value)) = name.rsplit_once('-') else { return Ok(None) };
        let known = builtin::SPECS.iter().find(|(known, _)| *known == base);
        let (Some((_, text)), Ok(value)) = (known, value.parse::<u64>()) else { return Ok(None) };
        let spec = Spec::parse(text, base)?;
        let Some(family) = &spec.family else { return Ok(None) };
        if value == 0 || value >= 1 << 40 {
            let what = format!("{} must be from 1 to 2^40", family.parameter);
            return Err(SpecError::Nonsense { name: name.to_owned(), what });
        }
        let syntax =
            |source| SpecError::Syntax { origin: name.to_owned(), source: Box::new(source) };
        let mut table: toml::Table = toml::from_str(text).map_err(syntax)?;
        if let Some(generator) = table.get_mut("generator").and_then(toml::Value::as_table_mut) {
            generator.insert(family.parameter.clone(), format!("fixed {value}").into());
        }
        let mut variant: Spec = table.try_into().map_err(syntax)?;
        name.clone_into(&mut variant.name);
        variant.verify = Expected { allocations: 0, frees: 0 };
        variant.family = None;
        Ok(Some(variant))
    }

    /// Known names that share a beginning or a part with `name`.
    fn similar(name: &str) -> Vec<String> {
        let parts: Vec<&str> = name.split('-').filter(|part| part.len() > 2).collect();
        Spec::names()
            .into_iter()
            .filter(|known| {
                parts.iter().any(|part| known.contains(part))
                    || known.split('-').any(|part| part.len() > 2 && name.contains(part))
                    || known
                        .as_bytes()
                        .iter()
                        .zip(name.as_bytes())
                        .take_while(|(a, b)| a == b)
                        .count()
                        > 2
            })
            .map(str::to_owned)
            .collect()
    }

    /// Names of its variants; empty if it has none.
    #[must_use]
    pub fn variants(&self) -> Vec<String> {
        let values = self.family.iter().flat_map(|family| &family.values);
        values.map(|value| format!("{}-{value}", self.name)).collect()
    }

    /// How its plan is made.
    #[must_use]
    pub fn plan_options(&self) -> PlanOptions {
        PlanOptions { order: self.order, ..PlanOptions::default() }
    }

    /// Executions of the body at a scale; at least one.
    #[must_use]
    pub fn rounds(&self, scale: f64) -> u32 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
        let rounds =
            (f64::from(self.rounds) * scale).round().clamp(1.0, f64::from(u32::MAX)) as u32;
        rounds
    }

    /// Its events.
    ///
    /// # Errors
    /// If the number of threads cannot be chosen, or its profile cannot be read.
    pub fn source(&self, options: &SourceOptions) -> Result<GeneratorSource, SpecError> {
        let threads = options.threads.unwrap_or(self.threads).max(1);
        if threads != self.threads && !self.any_threads {
            let what = format!("it has {} thread(s), whatever is asked for", self.threads);
            return Err(SpecError::Nonsense { name: self.name.clone(), what });
        }
        let workload = self.generate(options.seed.unwrap_or(self.seed), threads)?;
        Ok(GeneratorSource::new(workload, self.rounds(options.scale), options.folded))
    }

    fn generate(&self, seed: u64, threads: u32) -> Result<Box<dyn Workload>, SpecError> {
        use generators as g;
        Ok(match self.generator.clone() {
            Generator::Cells(spec) => Box::new(g::CellsWorkload::new(spec, seed, threads)),
            Generator::Batches(spec) => Box::new(g::BatchesWorkload::new(spec, seed, threads)),
            Generator::Handoff(spec) => Box::new(g::HandoffWorkload::new(spec, seed, threads)),
            Generator::Ring(spec) => Box::new(g::RingWorkload::new(spec, seed, threads)),
            Generator::Stress(spec) => Box::new(g::StressWorkload::new(spec, seed, threads)),
            Generator::Pool(spec) => Box::new(g::PoolWorkload::new(spec, seed, threads)),
            Generator::Writes(spec) => Box::new(g::WritesWorkload::new(spec, seed, threads)),
            Generator::Lifetimes(spec) => Box::new(g::LifetimesWorkload::new(spec, seed, threads)),
            Generator::Growth(spec) => Box::new(g::GrowthWorkload::new(spec, seed, threads)),
            Generator::Adversary(spec) => Box::new(g::AdversaryWorkload::new(spec, seed)),
            Generator::Server(spec) => Box::new(g::ServerWorkload::new(spec, seed, threads)),
            Generator::ForkServer(spec) => Box::new(g::ForkServerWorkload::new(spec, seed)),
            Generator::Profile(spec) => Box::new(
                g::ProfileWorkload::new(spec, seed, threads)
                    .map_err(|source| SpecError::Profile { name: self.name.clone(), source })?,
            ),
        })
    }

    /// What it claims to do with these options: its own claim if they leave everything as
    /// specified, else what its plan counted, since another scale or seed is other work.
    #[must_use]
    pub fn expected(&self, options: &SourceOptions, planned: &Counts) -> Expected {
        let as_specified = options.threads.is_none_or(|t| t == self.threads)
            && options.scale == 1.0
            && options.seed.is_none_or(|seed| seed == self.seed);
        if as_specified && self.verify != (Expected { allocations: 0, frees: 0 }) {
            return self.verify;
        }
        Expected { allocations: planned.allocations, frees: planned.frees }
    }

    /// Compares what was done with what is claimed.
    ///
    /// # Errors
    /// If they differ: other counts mean other work.
    pub fn verify(&self, expected: Expected, done: &Counts) -> Result<(), Mismatch> {
        let found = Expected { allocations: done.allocations, frees: done.frees };
        if found == expected {
            return Ok(());
        }
        Err(Mismatch { name: self.name.clone(), expected, found })
    }
}
