//! The words of a plan, at once from its mapping or in windows of bounded memory.
//!
//! A mapped plan becomes resident as it is read, and stays so. Where it is larger than it may be,
//! its sections are read piece by piece into a buffer instead, and the mapping is left alone.

use std::io;
use std::os::unix::fs::FileExt;

use super::error::PlanError;
use super::layout::Section;
use super::open::Plan;
use super::record;

impl Plan {
    /// Bytes of event data in all streams.
    #[must_use]
    pub fn event_bytes(&self) -> u64 {
        self.threads.iter().flat_map(|t| t.words).sum::<u64>() * 8
    }

    /// Hands the words of a section to `each`: at once, or as many at a time as `buffer` holds.
    ///
    /// `each` is told whether these are the last words and says how many it has taken, all but one
    /// at least unless it wants no more: what it leaves comes again. After 0 nothing comes.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(crate) fn windows(
        &self,
        thread: usize,
        section: Section,
        buffer: Option<&mut [u64]>,
        mut each: impl FnMut(&[u64], bool) -> usize,
    ) -> io::Result<()> {
        let Some(buffer) = buffer else {
            each(self.stream(thread, section), true);
            return Ok(());
        };
        let (mut at, mut left) = self.bounds(thread, section);
        while left > 0 {
            let length = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let window = &mut buffer[..length];
            self.file.read_exact_at(as_bytes(window), at * 8)?;
            let taken = each(window, length as u64 == left) as u64;
            if taken == 0 {
                break;
            }
            (at, left) = (at + taken, left - taken.min(left));
        }
        Ok(())
    }

    /// Looks at every word, which without a `buffer` also brings the file into memory: slots,
    /// threads and numbers are in range, and no operation lacks its second word.
    ///
    /// # Errors
    /// If one is not, or the file cannot be read.
    pub(crate) fn check(&self, mut buffer: Option<&mut [u64]>) -> Result<(), PlanError> {
        for thread in 0..self.threads().len() {
            for section in [Section::Prologue, Section::Body, Section::Epilogue] {
                let mut fault = None;
                self.windows(thread, section, buffer.as_deref_mut(), |words, last| {
                    self.check_words(thread, section, words, last).unwrap_or_else(|what| {
                        fault = Some(what);
                        0
                    })
                })
                .map_err(|source| PlanError::Io {
                    verb: "read",
                    path: self.path().to_path_buf(),
                    source,
                })?;
                if let Some(what) = fault {
                    let what = format!("in the stream of thread {thread}, {what}");
                    return Err(PlanError::NotAPlan { path: self.path().to_path_buf(), what });
                }
            }
        }
        Ok(())
    }

    /// How many words were looked at: all of them if they are the last.
    fn check_words(
        &self,
        thread: usize,
        section: Section,
        words: &[u64],
        last: bool,
    ) -> Result<usize, String> {
        let slots = self.header.slots;
        let threads = self.threads();
        let in_body = section == Section::Body;
        if threads[thread].in_body && !in_body && !words.is_empty() {
            return Err("something is done outside the body it is born in".to_owned());
        }
        let mut at = 0;
        while at < words.len() {
            let word = words[at];
            let code = record::code(word);
            if at + record::words(word) > words.len() {
                if last {
                    return Err("the last operation lacks its second word".to_owned());
                }
                break;
            }
            at += record::words(word);
            let slot = record::slot(word);
            match code {
                record::WAIT | record::WAIT_BODY
                    if record::wait_parts(word).0 as usize >= threads.len() =>
                {
                    return Err("a wait names a thread that does not exist".to_owned());
                }
                record::SPAWN
                    if threads.get(slot as usize).is_none_or(|t| t.in_body != in_body) =>
                {
                    return Err("a birth names no thread that can be born there".to_owned());
                }
                record::MOVE if record::size(word) >= slots => {
                    return Err("a move names a slot that does not exist".to_owned());
                }
                _ if record::has_slot(code) && u64::from(slot) >= slots => {
                    return Err("an operation names a slot that does not exist".to_owned());
                }
                _ => {}
            }
        }
        Ok(at)
    }
}

fn as_bytes(words: &mut [u64]) -> &mut [u8] {
    // SAFETY: words are bytes without padding, and every pattern of bytes is a word.
    unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), size_of_val(words)) }
}
