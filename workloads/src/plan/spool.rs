//! Streams under construction: words per thread, spilled to one file in bounded memory.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Words a thread gathers before they are spilled.
const PIECE: usize = 512;

/// Words of many streams, each appended to separately and read back in order.
#[derive(Debug)]
pub(crate) struct Spool {
    file: File,
    end: u64,
    streams: Vec<Stream>,
}

#[derive(Debug, Default)]
struct Stream {
    /// Offset in the file and number of words of every spilled piece.
    pieces: Vec<(u64, u32)>,
    gathered: Vec<u64>,
}

impl Spool {
    /// A spool over an empty file open for reading and writing.
    pub(crate) fn new(file: File) -> Self {
        Spool { file, end: 0, streams: Vec::new() }
    }

    /// Adds a stream; they are numbered from 0.
    pub(crate) fn birth(&mut self) {
        self.streams.push(Stream::default());
    }

    /// Appends words to a stream.
    pub(crate) fn push(&mut self, stream: u32, words: &[u64]) -> io::Result<()> {
        let stream = &mut self.streams[stream as usize];
        stream.gathered.extend_from_slice(words);
        if stream.gathered.len() >= PIECE {
            let bytes = to_bytes(&stream.gathered);
            self.file.write_all_at(&bytes, self.end)?;
            let words = u32::try_from(stream.gathered.len()).map_err(io::Error::other)?;
            stream.pieces.push((self.end, words));
            self.end += bytes.len() as u64;
            stream.gathered.clear();
        }
        Ok(())
    }

    /// Hands every word of a stream to `each`, in order.
    pub(crate) fn replay(
        &self,
        stream: u32,
        mut each: impl FnMut(u64) -> io::Result<()>,
    ) -> io::Result<()> {
        let stream = &self.streams[stream as usize];
        let mut bytes = Vec::new();
        for &(offset, words) in &stream.pieces {
            bytes.resize(words as usize * 8, 0);
            self.file.read_exact_at(&mut bytes, offset)?;
            for word in bytes.chunks_exact(8) {
                each(u64::from_le_bytes(word.try_into().expect("eight bytes")))?;
            }
        }
        stream.gathered.iter().try_for_each(|&word| each(word))
    }
}

/// Words as the bytes of a file.
pub(crate) fn to_bytes(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interleaved_streams_come_back_each_in_its_order() {
        let mut spool = Spool::new(tempfile::tempfile().unwrap());
        for _ in 0..3 {
            spool.birth();
        }
        for i in 0..5000_u64 {
            spool.push((i % 3) as u32, &[i, !i]).unwrap();
        }
        for stream in 0..3 {
            let mut seen = Vec::new();
            spool
                .replay(stream, |w| {
                    seen.push(w);
                    Ok(())
                })
                .unwrap();
            let expected: Vec<u64> =
                (0..5000).filter(|i| i % 3 == u64::from(stream)).flat_map(|i| [i, !i]).collect();
            assert_eq!(seen, expected);
        }
    }
}
