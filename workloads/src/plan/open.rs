//! A plan file, mapped.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use memmap2::{Mmap, MmapOptions};

use super::error::PlanError;
use super::layout::{Counts, HEADER_WORDS, Header, ROW_WORDS, Section, ThreadInfo};
use super::order::Order;

/// A prepared event stream, mapped from its file and ready to be executed.
#[derive(Debug)]
pub struct Plan {
    map: Mmap,
    pub(super) file: File,
    pub(super) header: Header,
    pub(super) threads: Vec<ThreadInfo>,
    path: PathBuf,
}

impl Plan {
    /// Maps the plan at `path`.
    ///
    /// # Errors
    /// If the file cannot be read, or is not a whole plan of this version.
    pub fn open(path: &Path) -> Result<Plan, PlanError> {
        let io = |source| PlanError::Io { verb: "open", path: path.to_path_buf(), source };
        let file = File::open(path).map_err(io)?;
        // SAFETY: plans are written under another name and renamed, and nobody writes to one
        // afterwards; the mapping is private.
        let map = unsafe { MmapOptions::new().map(&file) }.map_err(io)?;
        let bad = |what: String| PlanError::NotAPlan { path: path.to_path_buf(), what };
        if map.len() % 8 != 0 || map.len() < HEADER_WORDS * 8 {
            return Err(bad(format!("it has {} bytes", map.len())));
        }
        let words = as_words(&map);
        let header = Header::from_words(words).map_err(bad)?;
        let rows = HEADER_WORDS
            .checked_add(
                usize::try_from(header.threads).unwrap_or(usize::MAX).saturating_mul(ROW_WORDS),
            )
            .and_then(|end| words.get(HEADER_WORDS..end))
            .ok_or_else(|| bad(format!("it states {} threads", header.threads)))?;
        let threads: Vec<ThreadInfo> =
            rows.chunks_exact(ROW_WORDS).map(ThreadInfo::from_words).collect();
        for (t, row) in threads.iter().enumerate() {
            let end = row.words.iter().try_fold(row.start, |sum, &n| sum.checked_add(n));
            let places: u64 = row.places.iter().sum();
            let index_end = row.index.checked_add(if header.has_index { places } else { 0 });
            let inside = |end: Option<u64>| end.is_some_and(|end| end <= words.len() as u64);
            if !inside(end) || !inside(index_end) {
                return Err(bad(format!("the stream of thread {t} leaves the file")));
            }
        }
        Ok(Plan { map, file, header, threads, path: path.to_path_buf() })
    }

    /// The file this plan was opened from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its threads, in order of birth.
    #[must_use]
    pub fn threads(&self) -> &[ThreadInfo] {
        &self.threads
    }

    /// The most threads alive at once in the stream.
    #[must_use]
    pub fn peak_threads(&self) -> u64 {
        self.header.peak_threads
    }

    /// The order it keeps.
    #[must_use]
    pub fn order(&self) -> Order {
        self.header.order
    }

    /// Events read to make it.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.header.events
    }

    /// Executions of the body; 1 if the stream has none.
    #[must_use]
    pub fn repeat(&self) -> u32 {
        u32::try_from(self.header.repeat).unwrap_or(u32::MAX)
    }

    /// Whether the stream has a body that can be repeated.
    #[must_use]
    pub fn is_folded(&self) -> bool {
        self.header.folded
    }

    /// Calls that one execution makes, with the body executed `repeat` times.
    #[must_use]
    pub fn counts(&self, repeat: u32) -> Counts {
        let [prologue, body, epilogue] = self.header.counts;
        prologue.plus(body, u64::from(repeat)).plus(epilogue, 1)
    }

    /// The golden hash of the event stream.
    #[must_use]
    pub fn stream_hash(&self) -> u64 {
        self.header.stream_hash
    }

    /// Most bytes requested by live objects at once, in the stream's own order.
    #[must_use]
    pub fn peak_live_bytes(&self) -> u64 {
        self.header.peak_live_bytes
    }

    /// Most live objects at once, in the stream's own order.
    #[must_use]
    pub fn peak_live_objects(&self) -> u64 {
        self.header.peak_live_objects
    }

    /// Bytes requested by the objects alive at the end.
    #[must_use]
    pub fn final_live_bytes(&self) -> u64 {
        self.header.final_live_bytes
    }

    /// Objects alive at the end.
    #[must_use]
    pub fn final_live_objects(&self) -> u64 {
        self.header.final_live_objects
    }

    /// Releases by a thread that did not give birth to the object (body counted once).
    #[must_use]
    pub fn cross_thread_frees(&self) -> u64 {
        self.header.cross_thread_frees
    }

    /// Waits in all streams (body counted once).
    #[must_use]
    pub fn static_waits(&self) -> u64 {
        self.header.static_waits
    }

    /// The largest single request in bytes.
    #[must_use]
    pub fn largest_request(&self) -> u64 {
        self.header.largest_request
    }

    /// Places where objects' addresses are kept, 8 bytes each.
    #[must_use]
    pub fn slots(&self) -> u64 {
        self.header.slots
    }

    /// Whether every operation carries the time the stream gives it.
    #[must_use]
    pub fn has_times(&self) -> bool {
        self.header.has_times
    }

    /// Whether some releases state a size.
    #[must_use]
    pub fn has_sized_frees(&self) -> bool {
        self.header.sized_frees
    }

    /// Whether some accesses are to more bytes than their object has in every run: it may be that
    /// a realloc is refused, or that a repeated body leaves a smaller object in its place.
    #[must_use]
    pub fn has_unsure_accesses(&self) -> bool {
        self.header.unsure_accesses
    }

    /// Bytes of event data per event that is executed, waits and times included.
    #[must_use]
    pub fn bytes_per_operation(&self) -> f64 {
        let words: u64 = self.threads.iter().flat_map(|t| t.words).sum();
        let places: u64 = self.threads.iter().flat_map(|t| t.places).sum();
        words as f64 * 8.0 / places.max(1) as f64
    }

    /// Whether it can be said which event stands at a place: the plan has an index and no repeated
    /// body.
    #[must_use]
    pub fn has_events(&self) -> bool {
        self.header.has_index && !self.is_folded()
    }

    /// Which event of the stream stands at a place of a thread, where that can be said. Read from
    /// the file, not from the mapping: asking makes nothing of the plan resident.
    #[must_use]
    pub fn event_at(&self, thread: u32, place: u64) -> Option<u64> {
        let row = self.threads.get(thread as usize).filter(|_| self.has_events())?;
        if place >= row.places.iter().sum() {
            return None;
        }
        let mut word = [0; 8];
        self.file.read_exact_at(&mut word, (row.index + place) * 8).ok()?;
        Some(u64::from_le_bytes(word))
    }

    /// The words of one section of a thread's stream.
    pub(crate) fn stream(&self, thread: usize, section: Section) -> &[u64] {
        let (start, words) = self.bounds(thread, section);
        let start = to_usize(start);
        &as_words(&self.map)[start..start + to_usize(words)]
    }

    /// First word and length of one section of a thread's stream.
    pub(super) fn bounds(&self, thread: usize, section: Section) -> (u64, u64) {
        let row = &self.threads[thread];
        let skip: u64 = row.words[..section as usize].iter().sum();
        (row.start + skip, row.words[section as usize])
    }
}

/// `Plan::open` has checked that every stated range lies within the mapped file.
fn to_usize(words: u64) -> usize {
    usize::try_from(words).expect("within a mapped file")
}

fn as_words(bytes: &[u8]) -> &[u64] {
    // SAFETY: every bit pattern is a u64; `align_to` yields only whole, aligned ones, and a
    // mapping begins on a page.
    let (before, words, _) = unsafe { bytes.align_to::<u64>() };
    debug_assert!(before.is_empty());
    words
}
