//! `hist/*.hlog`: one HdrHistogram interval log per run, one tagged line per distribution.
//!
//! The text format of HdrHistogram's own log tools: `Tag=NAME,start,length,max,BASE64`, the
//! histogram itself in the compressed V2 encoding.
#![forbid(unsafe_code)]

use std::fmt::Write;
use std::path::Path;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};

use super::atomic;

/// A log under construction.
#[derive(Debug)]
pub struct HistogramLog {
    text: String,
    seconds: f64,
}

impl HistogramLog {
    /// An empty log of a run that began at `start` (seconds since 1970) and took `seconds`.
    #[must_use]
    pub fn new(start: u64, seconds: f64) -> Self {
        let text = format!(
            "#[Histogram log format version 1.3]\n#[StartTime: {start}.000 (seconds since epoch)]\n\
             \"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n"
        );
        HistogramLog { text, seconds }
    }

    /// Adds one distribution. `tag` may not hold commas or blanks; they become `_`.
    ///
    /// # Errors
    /// If the histogram cannot be encoded.
    pub fn add(&mut self, tag: &str, histogram: &Histogram<u64>) -> Result<(), String> {
        let tag = tag.replace([',', ' ', '\n'], "_");
        let max = histogram.max();
        let encoded = encode(histogram)?;
        writeln!(self.text, "Tag={tag},0.000,{:.3},{max},{encoded}", self.seconds)
            .map_err(|e| e.to_string())
    }

    /// Writes the log, whole or not at all.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        atomic::write(path, self.text.as_bytes())
    }
}

/// The distributions of one log, by tag.
///
/// # Errors
/// A fragment that says what is damaged.
pub fn read_log(text: &[u8]) -> Result<Vec<(String, Histogram<u64>)>, String> {
    let mut found = Vec::new();
    for entry in IntervalLogIterator::new(text) {
        let Ok(entry) = entry else { return Err("a line is no histogram".to_owned()) };
        if let LogEntry::Interval(interval) = entry {
            let tag = interval.tag().map_or("all", |tag| tag.as_str()).to_owned();
            found.push((tag, decode(interval.encoded_histogram())?));
        }
    }
    Ok(found)
}

/// A histogram as text: HdrHistogram's V2 encoding in base64.
///
/// # Errors
/// If the histogram cannot be encoded.
pub fn encode(histogram: &Histogram<u64>) -> Result<String, String> {
    let mut bytes = Vec::new();
    V2Serializer::new().serialize(histogram, &mut bytes).map_err(|e| e.to_string())?;
    Ok(base64(&bytes))
}

/// The histogram behind [`encode`]'s text.
///
/// # Errors
/// A fragment that says what is damaged.
pub fn decode(text: &str) -> Result<Histogram<u64>, String> {
    let bytes = from_base64(text).ok_or("a histogram is not in base64")?;
    Deserializer::new().deserialize(&mut &bytes[..]).map_err(|error| error.to_string())
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let word = byte(0) << 16 | byte(1) << 8 | byte(2);
        for position in 0..4 {
            let index = word >> (18 - 6 * position) & 63;
            text.push(if position <= chunk.len() {
                char::from(ALPHABET[index as usize])
            } else {
                '='
            });
        }
    }
    text
}

/// The bytes behind standard base64 with padding.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=');
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    let (mut word, mut bits) = (0_u32, 0);
    for byte in text.bytes() {
        let six = ALPHABET.iter().position(|letter| *letter == byte)?;
        word = word << 6 | u32::try_from(six).ok()?;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(word >> bits & 0xff).ok()?);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_standard() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(bytes.as_bytes()), text);
            assert_eq!(from_base64(text).unwrap(), bytes.as_bytes());
        }
    }

    #[test]
    fn a_log_is_read_back_by_the_librarys_own_reader() {
        let mut histogram = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 2).unwrap();
        histogram.record_n(17, 5).unwrap();
        let mut log = HistogramLog::new(1_700_000_000, 1.5);
        log.add("malloc, all", &histogram).unwrap();
        let read = read_log(log.text.as_bytes()).unwrap();
        assert_eq!(read.len(), 1);
        assert_eq!(read[0].0, "malloc__all");
        assert_eq!(read[0].1, histogram);
    }

    #[test]
    fn a_damaged_histogram_is_said_to_be_one() {
        let text = encode(&Histogram::<u64>::new(2).unwrap()).unwrap();
        assert!(decode(&text).is_ok());
        assert!(decode(&text[..text.len() / 2]).is_err());
        assert!(decode("no base64!").is_err());
        assert!(read_log(b"Tag=a,0.000,1.000,5,AAAA\n").is_err());
    }
}
