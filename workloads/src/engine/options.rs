//! What a run is to do.
#![forbid(unsafe_code)]

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::calls::CallSet;
use super::observe::latency::SlowCall;

/// What is noted beside each call. One pass per run: none disturbs another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pass {
    /// Nothing: how long does it all take?
    #[default]
    Throughput,
    /// The time of single calls.
    Latency,
    /// Live bytes, and what the kernel says of the process, over time.
    Footprint,
    /// Whether the allocator keeps its promises.
    Verify,
    /// Page faults and context switches around the calls named in
    /// [`attribute`](EngineOptions::attribute) alone: the second of two passes over the tail.
    Attribution,
}

/// Which bytes of a fresh object the program writes to, apart from writes that are events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Touch {
    /// None.
    None,
    /// The first byte of each page: what makes memory resident.
    #[default]
    Pages,
    /// The first 8 bytes.
    Header,
    /// All.
    All,
    /// What the stream itself says by its access events, and nothing else.
    Recorded,
}

/// When operations begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pace {
    /// As soon as the one before is done: a closed loop.
    #[default]
    Asap,
    /// At the stream's own times, this many times as fast. Needs a plan with times.
    Paced(f64),
}

/// Bytes of event data that are kept in memory unless told otherwise.
pub const DEFAULT_EVENT_MEMORY: u64 = 256 << 20;

/// How a plan is executed and watched.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct EngineOptions {
    /// What is noted.
    pub pass: Pass,
    /// Which bytes of fresh objects are written.
    pub touch: Touch,
    /// When operations begin.
    pub pace: Pace,
    /// Executions of the body in place of the plan's own number.
    pub repeat: Option<u32>,
    /// Copies of the whole plan, executed at the same time on threads of their own.
    pub copies: u32,
    /// Latency: one call in so many is timed, drawn at random; 1 times all.
    pub sample_every: u32,
    /// Latency: single calls to be listed, the slowest first; 0 lists none.
    pub slowest: u32,
    /// Attribution: the slowest calls of a latency pass over the same plan.
    pub attribute: Vec<SlowCall>,
    /// Seed of the random draw.
    pub seed: u64,
    /// Footprint: nanoseconds from one sample to the next.
    pub sample_interval_ns: u64,
    /// Footprint: when to look again after the last operation, in milliseconds.
    pub drain_ms: Vec<u64>,
    /// Footprint: called beside the run whenever live bytes are a twentieth above what they were at
    /// the last call. It must not allocate.
    #[serde(skip)]
    pub at_peak: Option<fn()>,
    /// Whose functions are called.
    pub calls: CallSet,
    /// Most bytes of event data in memory. A plan with more is read in windows as it is executed.
    pub event_memory: u64,
    /// Whether threads run on stacks of the harness's own, so that the C library calls the kernel
    /// for none: needed where its calls are caught by a signal, which it blocks as a thread ends.
    pub own_stacks: bool,
    /// Whether the timer is calibrated before the run, for about 10 ms: how many instructions that takes
    /// is never twice the same.
    pub calibrate: bool,
}

impl Default for EngineOptions {
    fn default() -> Self {
        EngineOptions {
            pass: Pass::default(),
            touch: Touch::default(),
            pace: Pace::default(),
            repeat: None,
            copies: 1,
            sample_every: 1,
            slowest: 0,
            attribute: Vec::new(),
            seed: 1,
            sample_interval_ns: 5_000_000,
            drain_ms: Vec::new(),
            at_peak: None,
            calls: CallSet::default(),
            event_memory: DEFAULT_EVENT_MEMORY,
            own_stacks: false,
            calibrate: true,
        }
    }
}

/// A word that is none of the known ones.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not one of {known}")]
pub struct UnknownWord {
    /// What was given.
    pub given: String,
    /// What would have been understood.
    pub known: &'static str,
}

impl FromStr for Pass {
    type Err = UnknownWord;

    fn from_str(given: &str) -> Result<Self, UnknownWord> {
        match given {
            "throughput" => Ok(Pass::Throughput),
            "latency" => Ok(Pass::Latency),
            "footprint" => Ok(Pass::Footprint),
            "verify" => Ok(Pass::Verify),
            "attribution" => Ok(Pass::Attribution),
            _ => Err(UnknownWord {
                given: given.to_owned(),
                known: "throughput, latency, footprint, verify, attribution",
            }),
        }
    }
}

impl fmt::Display for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Pass::Throughput => "throughput",
            Pass::Latency => "latency",
            Pass::Footprint => "footprint",
            Pass::Verify => "verify",
            Pass::Attribution => "attribution",
        })
    }
}

impl FromStr for Touch {
    type Err = UnknownWord;

    fn from_str(given: &str) -> Result<Self, UnknownWord> {
        match given {
            "none" => Ok(Touch::None),
            "pages" => Ok(Touch::Pages),
            "header" => Ok(Touch::Header),
            "all" => Ok(Touch::All),
            "recorded" => Ok(Touch::Recorded),
            _ => Err(UnknownWord {
                given: given.to_owned(),
                known: "none, pages, header, all, recorded",
            }),
        }
    }
}

impl fmt::Display for Touch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Touch::None => "none",
            Touch::Pages => "pages",
            Touch::Header => "header",
            Touch::All => "all",
            Touch::Recorded => "recorded",
        })
    }
}

impl FromStr for Pace {
    type Err = UnknownWord;

    fn from_str(given: &str) -> Result<Self, UnknownWord> {
        let unknown = || UnknownWord { given: given.to_owned(), known: "asap, paced, paced:K" };
        match given.split_once(':') {
            None if given == "asap" => Ok(Pace::Asap),
            None if given == "paced" => Ok(Pace::Paced(1.0)),
            Some(("paced", k)) => match k.parse::<f64>() {
                Ok(k) if k.is_finite() && k > 0.0 => Ok(Pace::Paced(k)),
                _ => Err(unknown()),
            },
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pace::Asap => f.write_str("asap"),
            Pace::Paced(k) => write!(f, "paced:{k}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_back_from_their_own_names() {
        for pass in
            [Pass::Throughput, Pass::Latency, Pass::Footprint, Pass::Verify, Pass::Attribution]
        {
            assert_eq!(pass.to_string().parse(), Ok(pass));
        }
        for touch in [Touch::None, Touch::Pages, Touch::Header, Touch::All, Touch::Recorded] {
            assert_eq!(touch.to_string().parse(), Ok(touch));
        }
        for pace in [Pace::Asap, Pace::Paced(2.5)] {
            assert_eq!(pace.to_string().parse(), Ok(pace));
        }
    }

    #[test]
    fn a_pace_that_never_ends_is_refused() {
        for wrong in ["paced:0", "paced:-1", "paced:inf", "paced:NaN", "pace"] {
            assert!(wrong.parse::<Pace>().is_err(), "{wrong}");
        }
    }
}
