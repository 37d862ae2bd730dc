//! A trace reduced to counts, from which one like it can be made: the generator's input.
//!
//! What it keeps: per phase, how many objects of which size lived how long, how each was born and
//! how it died, and which threads allocated; over the whole trace, who frees whose objects, when
//! threads begin and end, and for how many calls a thread stays busy. What it loses: which thread
//! uses which sizes, the pattern of calls within a phase, and by how much one object's realloc
//! changes its size.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

/// The version written; another one is not read.
pub const PROFILE_VERSION: u32 = 2;

/// Parts of a phase that are told apart as times of birth of large objects.
pub const TIMES_OF_BIRTH: u8 = 16;

/// How an object came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Birth {
    /// `malloc`
    #[serde(rename = "m")]
    Malloc,
    /// `calloc`
    #[serde(rename = "c")]
    Calloc,
    /// `realloc` of NULL
    #[serde(rename = "n")]
    ReallocOfNull,
    /// `realloc` of another object
    #[serde(rename = "r")]
    Realloc,
    /// A call that states an alignment.
    #[serde(rename = "a")]
    Aligned,
}

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Death {
    /// It was alive at the end.
    #[serde(rename = "-")]
    None,
    /// `free`
    #[serde(rename = "f")]
    Free,
    /// `realloc`
    #[serde(rename = "r")]
    Realloc,
}

/// Objects that are alike; in a file a list of the fields in this order.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "CellFields", into = "CellFields")]
pub struct Cell {
    /// How they came to be.
    pub birth: Birth,
    /// Their alignment; 0 where none was stated.
    pub align: u64,
    /// Bytes requested, the mean of a sixteenth of an octave; exact up to 1,024.
    pub size: u64,
    /// The shortest lifetime in calls.
    pub from: u64,
    /// The longest lifetime in calls.
    pub to: u64,
    /// How they went.
    pub death: Death,
    /// How many.
    pub count: u64,
    /// In which of the [`TIMES_OF_BIRTH`] parts of their phase they are born, counted from 1; 0
    /// anywhere in it.
    pub at: u8,
}

type CellFields = (Birth, u64, u64, u64, u64, Death, u64, u8);

impl From<CellFields> for Cell {
    fn from((birth, align, size, from, to, death, count, at): CellFields) -> Self {
        Cell { birth, align, size, from, to, death, count, at }
    }
}

impl From<Cell> for CellFields {
    fn from(cell: Cell) -> Self {
        let Cell { birth, align, size, from, to, death, count, at } = cell;
        (birth, align, size, from, to, death, count, at)
    }
}

/// A part of the trace, of about as many calls as every other.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// Nanoseconds it took, where the trace has times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ns: Option<u64>,
    /// `free(NULL)` calls.
    #[serde(default)]
    pub free_null: u64,
    /// `malloc_usable_size` calls.
    #[serde(default)]
    pub usable_size: u64,
    /// Thread and number of objects it allocated.
    pub allocations: Vec<(u32, u64)>,
    /// The objects allocated.
    pub cells: Vec<Cell>,
}

/// One thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadSpan {
    /// The phase in which it began.
    pub first: u32,
    /// The phase in which it ended, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<u32>,
}

/// A generator's input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// [`PROFILE_VERSION`]
    pub version: u32,
    /// In how many calls on average a thread is followed by itself, plus one.
    pub run_length: f64,
    /// The threads, in order of birth.
    pub threads: Vec<ThreadSpan>,
    /// Allocating thread, freeing thread, objects; pairs of the same thread included.
    pub frees: Vec<(u32, u32, u64)>,
    /// The parts, in order.
    pub phases: Vec<Phase>,
}

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// It is no JSON of the right form.
    #[error("the profile does not parse")]
    Json(#[from] serde_json::Error),
    /// It is of another version.
    #[error("the profile is of version {0}, and only version {PROFILE_VERSION} is known")]
    Version(u32),
    /// A line of a size profile does not parse.
    #[error("line {line}: {reason}")]
    Line {
        /// Line, counted from 1.
        line: u64,
        /// What was expected or found.
        reason: String,
    },
    /// Nothing can be made from it.
    #[error("the profile {0}")]
    Unusable(&'static str),
}

/// The most objects, calls or frees between threads that a profile may ask for, over all its
/// phases: 2^40 calls would take days.
const MOST: u64 = 1 << 40;

impl Profile {
    /// Reads a profile written by [`Profile::to_json`].
    ///
    /// # Errors
    /// It does not parse, is of another version, or contradicts itself.
    pub fn from_json(text: &str) -> Result<Self, ProfileError> {
        let profile: Profile = serde_json::from_str(text)?;
        if profile.version != PROFILE_VERSION {
            return Err(ProfileError::Version(profile.version));
        }
        profile.check()?;
        Ok(profile)
    }

    /// The profile as text.
    ///
    /// # Errors
    /// Never, but for lack of memory.
    pub fn to_json(&self) -> Result<String, ProfileError> {
        Ok(serde_json::to_string(self)?)
    }

    fn check(&self) -> Result<(), ProfileError> {
        let threads = self.threads.len() as u64;
        if threads == 0 || self.phases.is_empty() {
            return Err(ProfileError::Unusable("has no thread or no phase"));
        }
        let named = self.phases.iter().flat_map(|phase| &phase.allocations);
        let mut all = named.map(|&(thread, _)| thread);
        let mut pairs = self.frees.iter().flat_map(|&(from, to, _)| [from, to]);
        if all.any(|t| u64::from(t) >= threads) || pairs.any(|t| u64::from(t) >= threads) {
            return Err(ProfileError::Unusable("names a thread that it does not list"));
        }
        let mut objects = 0_u64;
        for cell in self.phases.iter().flat_map(|phase| &phase.cells) {
            objects = objects.saturating_add(cell.count);
            let fits = cell.from <= cell.to && cell.at <= TIMES_OF_BIRTH;
            if !fits || cell.size > 1 << 48 || cell.align > 1 << 48 {
                return Err(ProfileError::Unusable("holds a cell that no object can fill"));
            }
            if cell.align != 0 && !cell.align.is_power_of_two() {
                return Err(ProfileError::Unusable("holds an alignment that is no power of two"));
            }
        }
        if objects > MOST {
            return Err(ProfileError::Unusable("asks for more than 2^40 objects"));
        }
        let sum = |counts: &mut dyn Iterator<Item = u64>| counts.fold(0, u64::saturating_add);
        let phases = &self.phases;
        if sum(&mut phases.iter().map(|phase| phase.free_null)) > MOST {
            return Err(ProfileError::Unusable("asks for more than 2^40 calls of free(NULL)"));
        }
        if sum(&mut phases.iter().map(|phase| phase.usable_size)) > MOST {
            return Err(ProfileError::Unusable(
                "asks for more than 2^40 calls of malloc_usable_size",
            ));
        }
        let dealt = phases.iter().flat_map(|phase| &phase.allocations);
        if sum(&mut dealt.map(|&(_, count)| count)) > MOST
            || sum(&mut self.frees.iter().map(|&(.., count)| count)) > MOST
        {
            return Err(ProfileError::Unusable("gives its threads more than 2^40 objects"));
        }
        if !(self.run_length >= 1.0 && self.run_length.is_finite()) {
            return Err(ProfileError::Unusable("has a run length below one"));
        }
        Ok(())
    }

    /// Objects the profile makes at scale 1.
    #[must_use]
    pub fn objects(&self) -> u64 {
        self.phases.iter().flat_map(|phase| &phase.cells).map(|cell| cell.count).sum()
    }
}
