//! Streams, waits and publications merged into the plan file.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::build::{Builder, Thread};
use super::error::PlanError;
use super::layout::{HEADER_WORDS, Header, ROW_WORDS, ThreadInfo};
use super::prepare::beside;
use super::record;
use super::spool::{Spool, to_bytes};

/// Words per cache line: every stream begins on one.
const LINE_WORDS: u64 = 8;

/// Writes what `builder` holds to `path`, whole or not at all.
pub(crate) fn write(mut builder: Builder, path: &Path) -> Result<(), PlanError> {
    if builder.section == 1 {
        return builder.impossible("the stream ends within a repeated body".to_owned());
    }
    if builder.section == 0 {
        for thread in &mut builder.threads {
            thread.sections = [thread.place; 2];
        }
    }
    let mut marks = Vec::with_capacity(builder.threads.len());
    for thread in &mut builder.threads {
        let mut list = std::mem::take(&mut thread.marks);
        list.sort_unstable();
        list.dedup();
        if list.len() as u64
            * u64::from(builder.options.repeat.unwrap_or(builder.body.repeat).max(1))
            > u64::from(u32::MAX / 2)
        {
            return Err(PlanError::TooLarge { what: "more than 2^31 publications of one thread" });
        }
        marks.push(list);
    }
    let (temporary, file) = beside(path, "part")?;
    let io = |source| PlanError::Io { verb: "write", path: path.to_path_buf(), source };
    let rows = write_streams(&builder, &marks, &file).map_err(io)?;
    let header = header(&builder, rows.1);
    let mut head = header.to_words().to_vec();
    rows.0.iter().for_each(|row| head.extend(row.to_words()));
    file.write_all_at(&to_bytes(&head), 0).map_err(io)?;
    drop(file);
    std::fs::rename(&temporary.path, path).map_err(io)
}

fn header(builder: &Builder, file_words: u64) -> Header {
    Header {
        file_words,
        threads: builder.threads.len() as u64,
        slots: u64::from(builder.slots.len()),
        repeat: u64::from(builder.options.repeat.unwrap_or(builder.body.repeat).max(1)),
        order: builder.options.order,
        events: builder.events,
        has_times: builder.has_times,
        has_index: builder.index.is_some(),
        sized_frees: builder.sized_frees,
        unsure_accesses: builder.unsure_accesses,
        folded: builder.section == 2,
        stream_hash: builder.hash.value(),
        static_waits: builder.threads.iter().map(|t| t.waits.len() as u64).sum(),
        cross_thread_frees: builder.cross_thread_frees,
        peak_live_bytes: builder.peak_live_bytes,
        peak_live_objects: builder.peak_live_objects,
        final_live_bytes: builder.live_bytes,
        final_live_objects: builder.objects.len() as u64,
        peak_threads: builder.peak_threads,
        largest_request: builder.largest_request,
        counts: builder.counts,
    }
}

/// Writes all streams and indexes; returns the thread table and the length of the file in words.
fn write_streams(
    builder: &Builder,
    marks: &[Vec<u64>],
    file: &File,
) -> io::Result<(Vec<ThreadInfo>, u64)> {
    let table = HEADER_WORDS + builder.threads.len() * ROW_WORDS;
    let mut out = Out { file: BufWriter::with_capacity(1 << 18, file), words: 0 };
    (0..table).try_for_each(|_| out.word(0))?;
    let mut rows = Vec::with_capacity(builder.threads.len());
    for (t, thread) in builder.threads.iter().enumerate() {
        out.align()?;
        let stream = u32::try_from(t).map_err(io::Error::other)?;
        let mut merge = Merge::new(builder, marks, thread, &marks[t], out.words);
        builder.spool.replay(stream, |word| merge.word(word, &mut out))?;
        merge.row.places = [
            thread.sections[0],
            thread.sections[1] - thread.sections[0],
            thread.place - thread.sections[1],
        ];
        rows.push(merge.finish(&mut out)?);
    }
    if let Some(index) = &builder.index {
        write_index(index, &mut rows, &mut out)?;
    }
    out.align()?;
    out.file.flush()?;
    Ok((rows, out.words))
}

fn write_index(index: &Spool, rows: &mut [ThreadInfo], out: &mut Out<'_>) -> io::Result<()> {
    for (t, row) in rows.iter_mut().enumerate() {
        row.index = out.words;
        let stream = u32::try_from(t).map_err(io::Error::other)?;
        index.replay(stream, |word| out.word(word))?;
    }
    Ok(())
}

struct Out<'a> {
    file: BufWriter<&'a File>,
    words: u64,
}

impl Out<'_> {
    fn word(&mut self, word: u64) -> io::Result<()> {
        self.words += 1;
        self.file.write_all(&word.to_le_bytes())
    }

    fn align(&mut self) -> io::Result<()> {
        while !self.words.is_multiple_of(LINE_WORDS) {
            self.word(0)?;
        }
        Ok(())
    }
}

/// One thread's words, waits and marks, merged by place.
struct Merge<'a> {
    builder: &'a Builder,
    marks: &'a [Vec<u64>],
    thread: &'a Thread,
    own: &'a [u64],
    row: ThreadInfo,
    place: u64,
    section: usize,
    next_wait: usize,
    next_mark: usize,
    /// The present operation has a second word to come.
    half: bool,
    section_start: u64,
}

impl<'a> Merge<'a> {
    fn new(
        builder: &'a Builder,
        marks: &'a [Vec<u64>],
        thread: &'a Thread,
        own: &'a [u64],
        start: u64,
    ) -> Self {
        let row = ThreadInfo {
            start,
            spawned: thread.spawned,
            ended: thread.ended,
            in_body: thread.in_body,
            ..ThreadInfo::default()
        };
        Merge {
            builder,
            marks,
            thread,
            own,
            row,
            place: 0,
            section: 0,
            next_wait: 0,
            next_mark: 0,
            half: false,
            section_start: start,
        }
    }

    /// Enters the section that the present place lies in.
    fn enter(&mut self, out: &Out<'_>) {
        while self.section < 2 && self.place >= self.thread.sections[self.section] {
            self.row.words[self.section] = out.words - self.section_start;
            self.section_start = out.words;
            self.section += 1;
        }
    }

    fn word(&mut self, word: u64, out: &mut Out<'_>) -> io::Result<()> {
        if !self.half {
            self.enter(out);
            if record::code(word) == record::AT {
                return out.word(word);
            }
            while let Some(wait) = self.thread.waits.get(self.next_wait)
                && wait.before == self.place
            {
                out.word(self.wait_word(wait.other, wait.places - 1)?)?;
                self.next_wait += 1;
            }
            out.word(word)?;
            if record::words(word) == 2 {
                self.half = true;
                return Ok(());
            }
        } else {
            self.half = false;
            out.word(word)?;
        }
        if self.own.get(self.next_mark) == Some(&self.place) {
            out.word(record::word(record::PUBLISH, 0, 0))?;
            self.next_mark += 1;
            self.row.marks[self.section] += 1;
        }
        self.place += 1;
        Ok(())
    }

    fn wait_word(&self, other: u32, place: u64) -> io::Result<u64> {
        let before = self.marks[other as usize].partition_point(|&mark| mark < place);
        let ordinal = u32::try_from(before + 1).map_err(io::Error::other)?;
        let in_prologue = place < self.builder.threads[other as usize].sections[0];
        let code = if in_prologue { record::WAIT } else { record::WAIT_BODY };
        Ok(record::wait(code, other, ordinal))
    }

    fn finish(mut self, out: &mut Out<'_>) -> io::Result<ThreadInfo> {
        self.place = u64::MAX;
        self.enter(out);
        self.row.words[2] = out.words - self.section_start;
        Ok(self.row)
    }
}
