//! The footer: totals, an index of the chunks, and where the trace came from.

use trace_format::varint;

/// What a whole trace holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Number of events.
    pub events: u64,
    /// Number of objects born.
    pub objects: u64,
    /// Number of threads.
    pub threads: u64,
}

/// Where one chunk lies and what it begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkIndex {
    /// File offset of its header.
    pub offset: u64,
    /// Sequence number of its first event.
    pub first_sequence: u64,
    /// Number of the first object born in it.
    pub first_object: u64,
    /// Its time base in ns.
    pub base_time: u64,
    /// The one thread of its events, or `u32::MAX`.
    pub thread: u32,
    /// Number of events.
    pub count: u32,
}

/// What stands at the end of a complete file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Footer {
    /// Sums over the whole file.
    pub totals: Totals,
    /// All chunks in order.
    pub index: Vec<ChunkIndex>,
    /// Where the trace came from: command, process, census …, as key and value.
    pub provenance: Vec<(String, String)>,
}

const TOTALS: u32 = 1;
const INDEX: u32 = 2;
const STRINGS: u32 = 3;
const PROVENANCE: u32 = 4;
const INDEX_ENTRY: usize = 40;
/// An empty string takes one byte of the file and 24 in memory: their number is bounded.
const MOST_STRINGS: u64 = 1 << 16;

impl Footer {
    /// The value of a provenance key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.provenance.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let Totals { events, objects, threads } = self.totals;
        section(&mut out, TOTALS, &words(&[events, objects, threads]));
        let mut index = Vec::with_capacity(self.index.len() * INDEX_ENTRY);
        for chunk in &self.index {
            let ChunkIndex { offset, first_sequence, first_object, base_time, thread, count } =
                *chunk;
            index.extend(words(&[offset, first_sequence, first_object, base_time]));
            index.extend(thread.to_le_bytes());
            index.extend(count.to_le_bytes());
        }
        section(&mut out, INDEX, &index);
        let mut strings = Vec::new();
        put(&mut strings, 2 * self.provenance.len() as u64);
        let mut pairs = Vec::new();
        put(&mut pairs, self.provenance.len() as u64);
        for (i, (key, value)) in self.provenance.iter().enumerate() {
            for text in [key, value] {
                put(&mut strings, text.len() as u64);
                strings.extend(text.as_bytes());
            }
            put(&mut pairs, 2 * i as u64);
            put(&mut pairs, 2 * i as u64 + 1);
        }
        section(&mut out, STRINGS, &strings);
        section(&mut out, PROVENANCE, &pairs);
        out
    }

    /// Reads a footer; `None` if it breaks the specification.
    pub(super) fn decode(mut bytes: &[u8]) -> Option<Footer> {
        let mut footer = Footer::default();
        let mut strings = Vec::new();
        while !bytes.is_empty() {
            let id = u32::from_le_bytes(*bytes.first_chunk()?);
            let len = u64::from_le_bytes(*bytes.get(4..)?.first_chunk()?);
            bytes = &bytes[12..];
            let body = bytes.get(..usize::try_from(len).ok()?)?;
            bytes = &bytes[body.len()..];
            match id {
                TOTALS => {
                    footer.totals = Totals {
                        events: u64_at(body, 0)?,
                        objects: u64_at(body, 1)?,
                        threads: u64_at(body, 2)?,
                    };
                }
                INDEX => footer.index = decode_index(body)?,
                STRINGS => strings = decode_strings(body)?,
                PROVENANCE => footer.provenance = decode_pairs(body, &strings)?,
                _ => {}
            }
        }
        Some(footer)
    }
}

fn decode_index(body: &[u8]) -> Option<Vec<ChunkIndex>> {
    let entries = body.chunks_exact(INDEX_ENTRY);
    if !entries.remainder().is_empty() {
        return None;
    }
    entries
        .map(|entry| {
            let last = u64_at(entry, 4)?;
            Some(ChunkIndex {
                offset: u64_at(entry, 0)?,
                first_sequence: u64_at(entry, 1)?,
                first_object: u64_at(entry, 2)?,
                base_time: u64_at(entry, 3)?,
                thread: (last & 0xffff_ffff) as u32,
                count: (last >> 32) as u32,
            })
        })
        .collect()
}

fn decode_strings(mut body: &[u8]) -> Option<Vec<String>> {
    let count = varint::read(&mut body).filter(|&count| count <= MOST_STRINGS)?;
    // Grown as strings are found, never by the count that the file states.
    let mut strings = Vec::new();
    for _ in 0..count {
        let len = usize::try_from(varint::read(&mut body)?).ok()?;
        let text = body.get(..len)?;
        body = &body[len..];
        strings.push(String::from_utf8(text.to_vec()).ok()?);
    }
    Some(strings)
}

fn decode_pairs(mut body: &[u8], strings: &[String]) -> Option<Vec<(String, String)>> {
    let count = varint::read(&mut body).filter(|&count| count <= MOST_STRINGS)?;
    let mut pairs = Vec::new();
    let mut budget = 1 << 24;
    let mut text = |body: &mut &[u8]| {
        let text = strings.get(usize::try_from(varint::read(body)?).ok()?)?;
        // Many pairs could name one long string: what they take together is bounded too.
        budget = usize::checked_sub(budget, text.len())?;
        Some(text.clone())
    };
    for _ in 0..count {
        pairs.push((text(&mut body)?, text(&mut body)?));
    }
    Some(pairs)
}

fn u64_at(bytes: &[u8], index: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(8 * index..)?.first_chunk()?))
}

fn words(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn put(out: &mut Vec<u8>, value: u64) {
    let mut bytes = [0; varint::MAX_LEN];
    let len = varint::write(value, &mut bytes);
    out.extend_from_slice(&bytes[..len]);
}

fn section(out: &mut Vec<u8>, id: u32, body: &[u8]) {
    out.extend(id.to_le_bytes());
    out.extend((body.len() as u64).to_le_bytes());
    out.extend_from_slice(body);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn example() -> Footer {
        let chunk = ChunkIndex {
            offset: 16,
            first_sequence: 0,
            first_object: 1,
            base_time: 5,
            thread: u32::MAX,
            count: 3,
        };
        Footer {
            totals: Totals { events: 3, objects: 2, threads: 1 },
            index: vec![chunk, ChunkIndex { offset: 99, ..chunk }],
            provenance: vec![("command".into(), "ls -l".into()), ("leer".into(), String::new())],
        }
    }

    #[test]
    fn a_footer_is_read_back_and_unknown_sections_are_skipped() {
        let mut bytes = example().encode();
        section(&mut bytes, 99, b"from a later version");
        assert_eq!(Footer::decode(&bytes), Some(example()));
        assert_eq!(example().get("command"), Some("ls -l"));
    }

    proptest! {
        #[test]
        fn a_damaged_footer_is_an_error_or_another_footer(at: prop::sample::Index, bit in 0..8) {
            let mut bytes = example().encode();
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            let _ = Footer::decode(&bytes);
            prop_assert!(Footer::decode(&bytes[..at]).is_none_or(|footer| footer != example()));
        }
    }
}
