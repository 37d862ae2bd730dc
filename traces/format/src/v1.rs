//! Version 1 of the trace container, byte by byte.
//!
//! All integers are little-endian. *varint* and *folded* are defined in [`crate::varint`],
//! checksums in [`crate::crc32c`].
//!
//! # File
//! ```text
//! file header   16 bytes                     magic, version, feature bits and nothing else
//! chunk …       64-byte header + payload     back to back until the footer
//! footer chunk  64-byte header + payload     index, strings, provenance (kind 3)
//! trailer       24 bytes                     where the footer lies
//! ```
//! A file that ends before its trailer is sound up to its last whole chunk.
//!
//! # File header
//! ```text
//! offset size
//!  0     8    magic 89 41 54 52 43 0D 0A 1A  (\x89 "ATRC" CR LF SUB)
//!  8     4    version, 1
//! 12     4    feature bits; a reader refuses a file with a bit it does not know
//!               bit 0  TIMES   every event carries a time
//!               bit 1  RAW     a recorder's file: see "Raw files"
//! ```
//!
//! # Chunk header
//! ```text
//! offset size
//!  0     4    magic 43 48 4E 4B ("CHNK")
//!  4     1    kind: 1 raw, 2 resolved, 3 footer
//!  5     1    compression of the payload: 0 none, 1 one zstd frame
//!  6     2    zero
//!  8     4    thread of all events in the chunk, or FFFFFFFF if there are several
//! 12     4    number of events, at most 65,536 (0 in raw and footer chunks)
//! 16     8    sequence number of the first event: events of all chunks before
//! 24     8    number of the first object born in this chunk, counted from 1: births before + 1
//! 32     8    time base in ns: the delta of the first event is against it
//! 40     4    payload bytes as stored
//! 44     4    payload bytes after decompression
//! 48     4    CRC-32C of the payload as stored
//! 52     8    zero
//! 60     4    CRC-32C of header bytes 0..60
//! ```
//! `count ≤ plain length ≤ 4 MiB` and `stored length ≤ 8 MiB` hold for resolved chunks, so that a
//! reader can refuse a lie before it allocates. Because a header carries the decoder's whole
//! state, every chunk can be decoded alone.
//!
//! # Resolved payload
//! Records back to back, in the total order of the stream. A record is
//! ```text
//! tag      1 byte: bits 0–3 operation, bit 4 T, bit 5 A, bit 6 B, bit 7 zero
//! thread   varint, if T: the thread of this and the following events (the first event of a
//!          chunk always has T)
//! time     folded varint, if the file has TIMES: ns since the event before, modulo 2^64
//! …        fields of the operation
//! ```
//! | # | operation | fields | A | B |
//! |---|---|---|---|---|
//! | 1 | malloc | size | failed | – |
//! | 2 | calloc | count, size | failed | – |
//! | 3 | realloc | old unless B, size | no object returned | old is NULL |
//! | 4 | aligned | form byte, \[align\], size | failed | – |
//! | 5 | free | object unless A, stated size if B | NULL | size stated |
//! | 6 | usable size | object unless A | NULL | – |
//! | 7 | thread start | parent if A | parent known | – |
//! | 8 | thread end | – | – | – |
//! | 9 | fork | child process id | – | – |
//! | 10 | marker | value | – | – |
//! | 11 | access | object, bytes, times | – | – |
//!
//! An operation that returns an object gives it the next number: objects are numbered from 1 in
//! order of birth, so a birth states none. A *reference* (old, object) is the varint
//! `next number − number`, at least 1. The form byte holds in bits 0–2 which call it was
//! (0 memalign, 1 aligned_alloc, 2 posix_memalign, 3 valloc, 4 pvalloc, 5 C++ new) and in
//! bits 3–7 the binary logarithm of the alignment, or 31 if a varint *align* follows. An access
//! says that the program wrote the first *bytes* bytes of the object, *times* times over.
//!
//! # Footer payload
//! Sections, each `id u32, length u64, bytes`; a reader skips ids it does not know.
//! ```text
//! 1 totals      events u64, objects u64, threads u64
//! 2 index       one entry of 40 bytes per chunk: offset u64, sequence u64, object u64, time u64,
//!               thread u32, count u32
//! 3 strings     varint n, then n times: varint length, UTF-8 bytes
//! 4 provenance  varint n, then n times: varint key, varint value (numbers of strings, from 0)
//! ```
//!
//! # Trailer
//! ```text
//! offset size
//!  0     8    file offset of the footer chunk's header
//!  8     4    zero
//! 12     4    CRC-32C of bytes 0..12
//! 16     8    magic 1A 0A 0D 43 52 54 41 89 (the file's magic backwards)
//! ```
//!
//! # Raw files
//! What a recorder leaves, also after a crash: see [`raw`].

pub mod file;
pub mod raw;
pub mod resolved;

pub use file::{ChunkHeader, ChunkKind, Compression, FileHeader, HeaderError, Trailer};
pub use resolved::{Call, Codec, DecodeError, EncodeError, Form, Record};
