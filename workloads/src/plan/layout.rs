//! Header and thread table of a plan file.
//!
//! A plan is a file of 64-bit little-endian words: [`HEADER_WORDS`] of header, then one row of
//! [`ROW_WORDS`] per thread, then the streams, each from a multiple of 64 bytes on, then (if
//! asked for) for every stream the place of each of its operations in the total order.
//! Plans are working files of one version of this program; they are not kept.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

use super::order::Order;

/// First word of a plan.
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"ALLOPLAN");
/// Version of the layout.
pub(crate) const VERSION: u64 = 3;
/// Words of the header.
pub(crate) const HEADER_WORDS: usize = 128;
/// Words of one row of the thread table.
pub(crate) const ROW_WORDS: usize = 16;

/// Calls by kind, as the plan holds them or as an engine executed them.
///
/// `allocations` counts every object born and `frees` every object released, so that a `realloc`
/// is one of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Calls of the malloc family in all.
    pub operations: u64,
    /// Objects born.
    pub allocations: u64,
    /// Objects released.
    pub frees: u64,
    /// `malloc` calls.
    pub malloc: u64,
    /// `calloc` calls.
    pub calloc: u64,
    /// `realloc` calls.
    pub realloc: u64,
    /// Calls that state an alignment.
    pub aligned: u64,
    /// `free` calls with an object.
    pub free: u64,
    /// `free(NULL)` calls.
    pub free_null: u64,
    /// `malloc_usable_size` calls.
    pub usable_size: u64,
    /// Requests that failed in the trace and are asked again.
    pub retried: u64,
    /// Bytes requested by all allocating calls together.
    pub requested_bytes: u64,
}

impl Counts {
    pub(crate) const FIELDS: usize = 12;

    pub(crate) fn to_words(self) -> [u64; Self::FIELDS] {
        [
            self.operations,
            self.allocations,
            self.frees,
            self.malloc,
            self.calloc,
            self.realloc,
            self.aligned,
            self.free,
            self.free_null,
            self.usable_size,
            self.retried,
            self.requested_bytes,
        ]
    }

    pub(crate) fn from_words(w: &[u64]) -> Self {
        Counts {
            operations: w[0],
            allocations: w[1],
            frees: w[2],
            malloc: w[3],
            calloc: w[4],
            realloc: w[5],
            aligned: w[6],
            free: w[7],
            free_null: w[8],
            usable_size: w[9],
            retried: w[10],
            requested_bytes: w[11],
        }
    }

    /// `self + other × times`, field by field, saturating.
    #[must_use]
    pub fn plus(self, other: Counts, times: u64) -> Counts {
        let mut sum = self.to_words();
        for (a, b) in sum.iter_mut().zip(other.to_words()) {
            *a = a.saturating_add(b.saturating_mul(times));
        }
        Counts::from_words(&sum)
    }
}

/// The three parts of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// Executed once, first.
    Prologue = 0,
    /// Executed `repeat` times.
    Body = 1,
    /// Executed once, last.
    Epilogue = 2,
}

/// One thread of a plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThreadInfo {
    /// First word of the stream, counted from the start of the file.
    pub start: u64,
    /// Words of prologue, body and epilogue; they follow one another.
    pub words: [u64; 3],
    /// Operations (and other words that take a place) of each section.
    pub places: [u64; 3],
    /// Publications in each section.
    pub marks: [u64; 3],
    /// First word of the thread's index, 0 if the plan has none: one word per place.
    pub index: u64,
    /// Whether another thread's stream starts this one; the first thread is started by the engine.
    pub spawned: bool,
    /// Whether the trace says that the thread ended before the trace did.
    pub ended: bool,
    /// Whether the thread is born in the body, and ends in it, in every repetition anew.
    pub in_body: bool,
}

impl ThreadInfo {
    pub(crate) fn to_words(self) -> [u64; ROW_WORDS] {
        let mut row = [0; ROW_WORDS];
        row[0] = self.start;
        row[1..4].copy_from_slice(&self.words);
        row[4..7].copy_from_slice(&self.places);
        row[7..10].copy_from_slice(&self.marks);
        row[10] = self.index;
        row[11] = u64::from(self.spawned);
        row[12] = u64::from(self.ended);
        row[13] = u64::from(self.in_body);
        row
    }

    pub(crate) fn from_words(row: &[u64]) -> Self {
        ThreadInfo {
            start: row[0],
            words: [row[1], row[2], row[3]],
            places: [row[4], row[5], row[6]],
            marks: [row[7], row[8], row[9]],
            index: row[10],
            spawned: row[11] != 0,
            ended: row[12] != 0,
            in_body: row[13] != 0,
        }
    }
}

/// The header of a plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) file_words: u64,
    pub(crate) threads: u64,
    pub(crate) slots: u64,
    pub(crate) repeat: u64,
    pub(crate) order: Order,
    pub(crate) events: u64,
    pub(crate) has_times: bool,
    pub(crate) has_index: bool,
    pub(crate) sized_frees: bool,
    pub(crate) unsure_accesses: bool,
    pub(crate) folded: bool,
    pub(crate) stream_hash: u64,
    pub(crate) static_waits: u64,
    pub(crate) cross_thread_frees: u64,
    pub(crate) peak_live_bytes: u64,
    pub(crate) peak_live_objects: u64,
    pub(crate) final_live_bytes: u64,
    pub(crate) final_live_objects: u64,
    pub(crate) peak_threads: u64,
    pub(crate) largest_request: u64,
    pub(crate) counts: [Counts; 3],
}

impl Header {
    pub(crate) fn to_words(self) -> [u64; HEADER_WORDS] {
        let mut w = [0; HEADER_WORDS];
        let (order, n) = match self.order {
            Order::Deps => (0, 0),
            Order::Window(n) => (1, n),
            Order::Epoch(n) => (2, n),
            Order::Strict => (3, 0),
        };
        let flags = u64::from(self.has_times)
            | u64::from(self.has_index) << 1
            | u64::from(self.sized_frees) << 2
            | u64::from(self.folded) << 3
            | u64::from(self.unsure_accesses) << 4;
        let fields = [
            MAGIC,
            VERSION,
            self.file_words,
            self.threads,
            self.slots,
            self.repeat,
            order,
            n,
            self.events,
            flags,
            self.stream_hash,
            self.static_waits,
            self.cross_thread_frees,
            self.peak_live_bytes,
            self.peak_live_objects,
            self.final_live_bytes,
            self.final_live_objects,
            self.peak_threads,
            self.largest_request,
        ];
        w[..fields.len()].copy_from_slice(&fields);
        for (i, counts) in self.counts.iter().enumerate() {
            let at = 32 + i * 16;
            w[at..at + Counts::FIELDS].copy_from_slice(&counts.to_words());
        }
        w
    }

    /// Reads a header; the error is a fragment that fits "not a usable plan: …".
    pub(crate) fn from_words(w: &[u64]) -> Result<Header, String> {
        if w.len() < HEADER_WORDS || w[0] != MAGIC {
            return Err("it does not begin like one".to_owned());
        }
        if w[1] != VERSION {
            return Err(format!("its version is {}, not {VERSION}", w[1]));
        }
        if w[2] != w.len() as u64 {
            return Err(format!("it states {} words and has {}", w[2], w.len()));
        }
        let order = match w[6] {
            0 => Order::Deps,
            1 => Order::Window(w[7]),
            2 => Order::Epoch(w[7]),
            3 => Order::Strict,
            other => return Err(format!("its order has number {other}")),
        };
        let counts = |i: usize| Counts::from_words(&w[32 + i * 16..48 + i * 16]);
        Ok(Header {
            file_words: w[2],
            threads: w[3],
            slots: w[4],
            repeat: w[5],
            order,
            events: w[8],
            has_times: w[9] & 1 != 0,
            has_index: w[9] & 2 != 0,
            sized_frees: w[9] & 4 != 0,
            folded: w[9] & 8 != 0,
            unsure_accesses: w[9] & 16 != 0,
            stream_hash: w[10],
            static_waits: w[11],
            cross_thread_frees: w[12],
            peak_live_bytes: w[13],
            peak_live_objects: w[14],
            final_live_bytes: w[15],
            final_live_objects: w[16],
            peak_threads: w[17],
            largest_request: w[18],
            counts: [counts(0), counts(1), counts(2)],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_and_a_row_come_back_whole() {
        let header = Header {
            file_words: HEADER_WORDS as u64,
            threads: 3,
            order: Order::Epoch(9),
            has_index: true,
            folded: true,
            unsure_accesses: true,
            peak_live_bytes: 1 << 40,
            counts: [Counts { free: 1, ..Counts::default() }; 3],
            ..Header::default()
        };
        assert_eq!(Header::from_words(&header.to_words()), Ok(header));
        let row = ThreadInfo { start: 5, words: [1, 2, 3], in_body: true, ..ThreadInfo::default() };
        assert_eq!(ThreadInfo::from_words(&row.to_words()), row);
    }

    #[test]
    fn a_header_cut_short_or_of_another_version_is_refused() {
        let mut words = Header { file_words: 128, ..Header::default() }.to_words();
        assert!(Header::from_words(&words[..100]).is_err());
        words[1] += 1;
        assert!(Header::from_words(&words).unwrap_err().contains("version"));
    }
}
