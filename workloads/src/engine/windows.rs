//! Buffers for event data that is not to be in memory all at once: one per thread alive.
//!
//! They are mapped and faulted in before the run, as many as the stream has threads alive at once.
//! A thread beyond these maps one of its own, and counts for it.

use std::io;
use std::sync::Mutex;

use super::memory::Region;
use super::options::EngineOptions;
use crate::plan::Plan;

/// Least and most bytes of a window: a page, and what is read at disk speed.
const BYTES: std::ops::RangeInclusive<u64> = 4096..=1 << 20;

/// The buffers of a run.
#[derive(Debug)]
pub(crate) struct Windows {
    region: Region,
    /// Words of one buffer.
    words: usize,
    /// Buffers that nobody has.
    free: Mutex<Vec<usize>>,
}

/// One thread's buffer.
#[derive(Debug)]
pub(crate) enum Window<'w> {
    /// One of the run's, to be given back.
    Lent(&'w Windows, usize),
    /// The thread's own.
    Own(Region, usize),
}

impl Windows {
    /// Buffers for `plan` within the memory that `options` allow; `None` if all of it may stay in
    /// memory.
    pub(crate) fn new(plan: &Plan, options: &EngineOptions) -> io::Result<Option<Windows>> {
        if plan.event_bytes() <= options.event_memory {
            return Ok(None);
        }
        let alive = plan.peak_threads().max(1) * u64::from(options.copies.max(1));
        let bytes = (options.event_memory / alive).clamp(*BYTES.start(), *BYTES.end());
        let (words, count) = match (usize::try_from(bytes / 8), usize::try_from(alive)) {
            (Ok(words), Ok(count)) => (words, count),
            _ => return Err(io::Error::from_raw_os_error(libc::ENOMEM)),
        };
        let region = Region::array::<u64>(words.saturating_mul(count), true)?;
        Ok(Some(Windows { region, words, free: Mutex::new((0..count).collect()) }))
    }

    /// A buffer for the calling thread until it is dropped.
    pub(crate) fn lend(&self) -> io::Result<Window<'_>> {
        let free = self.free.lock().ok().and_then(|mut free| free.pop());
        match free {
            Some(n) => Ok(Window::Lent(self, n)),
            None => Ok(Window::Own(Region::array::<u64>(self.words, true)?, self.words)),
        }
    }
}

impl Window<'_> {
    /// The buffer.
    pub(crate) fn words(&mut self) -> &mut [u64] {
        let (start, words) = match self {
            Window::Lent(all, n) => {
                (all.region.start::<u64>().wrapping_add(*n * all.words), all.words)
            }
            Window::Own(region, words) => (region.start::<u64>(), *words),
        };
        // SAFETY: `words` words from there on lie in a region of zeroed or written words, and a
        // number is out of the list of free ones as long as somebody holds it.
        unsafe { std::slice::from_raw_parts_mut(start, words) }
    }
}

impl Drop for Window<'_> {
    fn drop(&mut self) {
        if let Window::Lent(all, n) = self
            && let Ok(mut free) = all.free.lock()
        {
            free.push(*n);
        }
    }
}
