//! What an importer found that the event stream no longer shows: repairs, omissions, losses.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

/// Counters of one import, complete once its stream has ended.
///
/// Some describe the program (`leaked`), the others an imperfection of its trace, which a strict
/// import refuses ([`Census::anomalies`]).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Census {
    /// Records of the source: lines of a text format, records of a binary one.
    pub records: u64,
    /// `free(NULL)` calls.
    pub free_null: u64,
    /// Calls that asked for memory and got none.
    pub failed_allocations: u64,
    /// Objects alive when the stream ended.
    pub leaked: u64,
    /// Thread ids seen again after their thread ended; each became a new thread.
    pub reused_thread_ids: u64,
    /// Releases of an address that was not live; dropped.
    pub unknown_free: u64,
    /// `realloc` of an address that was not live; treated as `malloc`.
    pub unknown_realloc: u64,
    /// Releases, in a forked child, of objects that its parent allocated; dropped.
    pub inherited_free: u64,
    /// Questions about an address that was not live, and writes to one; dropped.
    pub unknown_use: u64,
    /// Allocations that returned a live address.
    pub inversions: u64,
    /// Inversions that no release resolved in time; a free was put before each.
    pub missing_free: u64,
    /// Records of other processes in the same file; skipped.
    pub other_process: u64,
    /// Lines that belong to the tool that wrote the file and not to the trace; skipped.
    pub foreign_lines: u64,
    /// Calls made inside another recorded call; skipped.
    pub nested_calls: u64,
    /// Releases appended by the tool that wrote the file, not made by the program; skipped.
    pub stripped_tail: u64,
    /// Releases whose object had to be guessed, because the format does not name it.
    pub guessed_objects: u64,
    /// Time stamps that were missing, unwanted, or ran backwards within a thread.
    pub repaired_times: u64,
    /// Events that were lost by whoever recorded the trace, by its own account.
    pub dropped_by_recorder: u64,
    /// Bytes at the end that hold no whole record.
    pub truncated_bytes: u64,
    /// Slots and chunks of a raw recording that make no sense; skipped.
    pub damaged_parts: u64,
}

impl Census {
    /// The counters of both.
    #[must_use]
    pub fn plus(&self, other: &Census) -> Census {
        Census {
            records: self.records + other.records,
            free_null: self.free_null + other.free_null,
            failed_allocations: self.failed_allocations + other.failed_allocations,
            leaked: self.leaked + other.leaked,
            reused_thread_ids: self.reused_thread_ids + other.reused_thread_ids,
            unknown_free: self.unknown_free + other.unknown_free,
            unknown_realloc: self.unknown_realloc + other.unknown_realloc,
            inherited_free: self.inherited_free + other.inherited_free,
            unknown_use: self.unknown_use + other.unknown_use,
            inversions: self.inversions + other.inversions,
            missing_free: self.missing_free + other.missing_free,
            other_process: self.other_process + other.other_process,
            foreign_lines: self.foreign_lines + other.foreign_lines,
            nested_calls: self.nested_calls + other.nested_calls,
            stripped_tail: self.stripped_tail + other.stripped_tail,
            guessed_objects: self.guessed_objects + other.guessed_objects,
            repaired_times: self.repaired_times + other.repaired_times,
            dropped_by_recorder: self.dropped_by_recorder + other.dropped_by_recorder,
            truncated_bytes: self.truncated_bytes + other.truncated_bytes,
            damaged_parts: self.damaged_parts + other.damaged_parts,
        }
    }

    /// The counters above zero that a strict import refuses, by name.
    #[must_use]
    pub fn anomalies(&self) -> Vec<(&'static str, u64)> {
        [
            ("unknown_free", self.unknown_free),
            ("unknown_realloc", self.unknown_realloc),
            ("unknown_use", self.unknown_use),
            ("inversions", self.inversions),
            ("missing_free", self.missing_free),
            ("other_process", self.other_process),
            ("nested_calls", self.nested_calls),
            ("stripped_tail", self.stripped_tail),
            ("guessed_objects", self.guessed_objects),
            ("repaired_times", self.repaired_times),
            ("dropped_by_recorder", self.dropped_by_recorder),
            ("truncated_bytes", self.truncated_bytes),
            ("damaged_parts", self.damaged_parts),
        ]
        .into_iter()
        .filter(|&(_, count)| count > 0)
        .collect()
    }
}
