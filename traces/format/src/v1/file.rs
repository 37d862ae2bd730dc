//! The fixed-size parts of a file: its header, the headers of chunks, the trailer.
//!
//! The layout is drawn in [the specification](super). Decoding checks magic, version, checksum
//! and limits, so a header that was decoded can be believed.

use crate::crc32c::crc32c;

/// First bytes of every trace file.
pub const MAGIC: [u8; 8] = *b"\x89ATRC\r\n\x1a";
/// Last bytes of every complete resolved file.
pub const END_MAGIC: [u8; 8] = *b"\x1a\n\rCRTA\x89";
/// First bytes of every chunk.
pub const CHUNK_MAGIC: [u8; 4] = *b"CHNK";
/// The version this module describes.
pub const VERSION: u32 = 1;
/// Feature bit: every event carries a time.
pub const TIMES: u32 = 1;
/// Feature bit: the file was left by a recorder and holds raw chunks.
pub const RAW: u32 = 2;
/// `thread` of a chunk with events of several threads.
pub const SEVERAL_THREADS: u32 = u32::MAX;
/// Most events in one chunk.
pub const MAX_EVENTS: u32 = 1 << 16;
/// Most payload bytes of a resolved chunk after decompression.
pub const MAX_PLAIN: u32 = 4 << 20;
/// Most payload bytes of a resolved chunk as stored.
pub const MAX_STORED: u32 = 8 << 20;

/// Why a header was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeaderError {
    /// The magic bytes are others.
    Magic,
    /// A version this reader does not know.
    Version(u32),
    /// Feature bits this reader does not know.
    Features(u32),
    /// The checksum does not match.
    Checksum,
    /// A field has a value the specification forbids.
    Field(&'static str),
}

impl core::fmt::Display for HeaderError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            HeaderError::Magic => f.write_str("the magic bytes are wrong"),
            HeaderError::Version(version) => write!(f, "version {version} is not known"),
            HeaderError::Features(bits) => write!(f, "feature bits {bits:#x} are not known"),
            HeaderError::Checksum => f.write_str("a header checksum does not match"),
            HeaderError::Field(name) => write!(f, "header field `{name}` is out of range"),
        }
    }
}

impl core::error::Error for HeaderError {}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut four = [0; 4];
    four.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(four)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(eight)
}

/// Magic, version and feature bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileHeader {
    /// [`TIMES`], [`RAW`].
    pub features: u32,
}

impl FileHeader {
    /// Size in the file.
    pub const LEN: usize = 16;

    /// The bytes that open a file.
    #[must_use]
    pub fn encode(self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        out[..8].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[12..].copy_from_slice(&self.features.to_le_bytes());
        out
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// Another magic, another version, an unknown feature.
    pub fn decode(bytes: &[u8; Self::LEN]) -> Result<Self, HeaderError> {
        if bytes[..8] != MAGIC {
            return Err(HeaderError::Magic);
        }
        let version = u32_at(bytes, 8);
        if version != VERSION {
            return Err(HeaderError::Version(version));
        }
        let features = u32_at(bytes, 12);
        match features & !(TIMES | RAW) {
            0 => Ok(FileHeader { features }),
            unknown => Err(HeaderError::Features(unknown)),
        }
    }

    /// Whether every event carries a time.
    #[must_use]
    pub fn has_times(self) -> bool {
        self.features & TIMES != 0
    }

    /// Whether a recorder left this file.
    #[must_use]
    pub fn is_raw(self) -> bool {
        self.features & RAW != 0
    }
}

/// What a chunk holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ChunkKind {
    /// Slots as a recorder writes them.
    Raw = 1,
    /// Records with object numbers.
    Resolved = 2,
    /// Index, strings, provenance.
    Footer = 3,
}

/// How a payload is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Compression {
    /// As it is.
    None = 0,
    /// One zstd frame.
    Zstd = 1,
}

/// What stands before every payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkHeader {
    /// What the payload is.
    pub kind: ChunkKind,
    /// How it is stored.
    pub compression: Compression,
    /// The one thread of its events, or [`SEVERAL_THREADS`].
    pub thread: u32,
    /// Number of events.
    pub count: u32,
    /// Events in all chunks before.
    pub first_sequence: u64,
    /// Number that the first object born in this chunk gets.
    pub first_object: u64,
    /// Time base in ns.
    pub base_time: u64,
    /// Payload bytes in the file.
    pub stored_len: u32,
    /// Payload bytes after decompression.
    pub plain_len: u32,
    /// CRC-32C of the payload as stored.
    pub checksum: u32,
}

impl ChunkHeader {
    /// Size in the file.
    pub const LEN: usize = 64;

    /// The bytes that stand before the payload.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        out[..4].copy_from_slice(&CHUNK_MAGIC);
        out[4] = self.kind as u8;
        out[5] = self.compression as u8;
        out[8..12].copy_from_slice(&self.thread.to_le_bytes());
        out[12..16].copy_from_slice(&self.count.to_le_bytes());
        out[16..24].copy_from_slice(&self.first_sequence.to_le_bytes());
        out[24..32].copy_from_slice(&self.first_object.to_le_bytes());
        out[32..40].copy_from_slice(&self.base_time.to_le_bytes());
        out[40..44].copy_from_slice(&self.stored_len.to_le_bytes());
        out[44..48].copy_from_slice(&self.plain_len.to_le_bytes());
        out[48..52].copy_from_slice(&self.checksum.to_le_bytes());
        let crc = crc32c(&out[..60]);
        out[60..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads what [`encode`](Self::encode) wrote and checks every limit.
    ///
    /// # Errors
    /// Another magic, a checksum that does not match, a field out of range.
    pub fn decode(bytes: &[u8; Self::LEN]) -> Result<Self, HeaderError> {
        if bytes[..4] != CHUNK_MAGIC {
            return Err(HeaderError::Magic);
        }
        if u32_at(bytes, 60) != crc32c(&bytes[..60]) {
            return Err(HeaderError::Checksum);
        }
        let header = ChunkHeader {
            kind: match bytes[4] {
                1 => ChunkKind::Raw,
                2 => ChunkKind::Resolved,
                3 => ChunkKind::Footer,
                _ => return Err(HeaderError::Field("kind")),
            },
            compression: match bytes[5] {
                0 => Compression::None,
                1 => Compression::Zstd,
                _ => return Err(HeaderError::Field("compression")),
            },
            thread: u32_at(bytes, 8),
            count: u32_at(bytes, 12),
            first_sequence: u64_at(bytes, 16),
            first_object: u64_at(bytes, 24),
            base_time: u64_at(bytes, 32),
            stored_len: u32_at(bytes, 40),
            plain_len: u32_at(bytes, 44),
            checksum: u32_at(bytes, 48),
        };
        header.check()?;
        Ok(header)
    }

    fn check(&self) -> Result<(), HeaderError> {
        if self.first_object == 0 || self.first_object > 1 << 62 {
            return Err(HeaderError::Field("first_object"));
        }
        if self.kind != ChunkKind::Resolved {
            return Ok(());
        }
        if self.count == 0 || self.count > MAX_EVENTS || self.count > self.plain_len {
            return Err(HeaderError::Field("count"));
        }
        if self.plain_len > MAX_PLAIN {
            return Err(HeaderError::Field("plain_len"));
        }
        if self.stored_len > MAX_STORED {
            return Err(HeaderError::Field("stored_len"));
        }
        if self.compression == Compression::None && self.stored_len != self.plain_len {
            return Err(HeaderError::Field("stored_len"));
        }
        Ok(())
    }
}

/// What ends a complete file: where the footer lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// File offset of the footer chunk's header.
    pub footer_offset: u64,
}

impl Trailer {
    /// Size in the file.
    pub const LEN: usize = 24;

    /// The last bytes of a file.
    #[must_use]
    pub fn encode(self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        out[..8].copy_from_slice(&self.footer_offset.to_le_bytes());
        let crc = crc32c(&out[..12]);
        out[12..16].copy_from_slice(&crc.to_le_bytes());
        out[16..].copy_from_slice(&END_MAGIC);
        out
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// Another magic (the file is not complete) or a checksum that does not match.
    pub fn decode(bytes: &[u8; Self::LEN]) -> Result<Self, HeaderError> {
        if bytes[16..] != END_MAGIC {
            return Err(HeaderError::Magic);
        }
        if u32_at(bytes, 12) != crc32c(&bytes[..12]) {
            return Err(HeaderError::Checksum);
        }
        Ok(Trailer { footer_offset: u64_at(bytes, 0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn chunk() -> ChunkHeader {
        ChunkHeader {
            kind: ChunkKind::Resolved,
            compression: Compression::Zstd,
            thread: 3,
            count: 10,
            first_sequence: 1 << 40,
            first_object: 77,
            base_time: 123,
            stored_len: 20,
            plain_len: 30,
            checksum: 0xdead_beef,
        }
    }

    #[test]
    fn headers_are_read_back() {
        for features in 0..4 {
            let header = FileHeader { features };
            assert_eq!(FileHeader::decode(&header.encode()), Ok(header));
        }
        assert_eq!(ChunkHeader::decode(&chunk().encode()), Ok(chunk()));
        let trailer = Trailer { footer_offset: 1 << 35 };
        assert_eq!(Trailer::decode(&trailer.encode()), Ok(trailer));
    }

    #[test]
    fn an_unknown_version_or_feature_is_named() {
        let mut bytes = FileHeader { features: TIMES }.encode();
        bytes[8] = 2;
        assert_eq!(FileHeader::decode(&bytes), Err(HeaderError::Version(2)));
        bytes[8] = 1;
        bytes[12] |= 8;
        assert_eq!(FileHeader::decode(&bytes), Err(HeaderError::Features(8)));
    }

    #[test]
    fn a_count_that_the_payload_cannot_hold_is_refused() {
        let lies = [
            ChunkHeader { count: 31, ..chunk() },
            ChunkHeader { count: 0, ..chunk() },
            ChunkHeader { plain_len: MAX_PLAIN + 1, ..chunk() },
            ChunkHeader { stored_len: MAX_STORED + 1, ..chunk() },
            ChunkHeader { first_object: 0, ..chunk() },
            ChunkHeader { compression: Compression::None, ..chunk() },
        ];
        for lie in lies {
            assert!(matches!(ChunkHeader::decode(&lie.encode()), Err(HeaderError::Field(_))));
        }
    }

    proptest! {
        #[test]
        fn any_flipped_bit_of_a_chunk_header_is_noticed(bit in 0usize..512) {
            let mut bytes = chunk().encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(ChunkHeader::decode(&bytes).is_err());
        }
    }
}
