//! The records of resolved chunks: calls with object numbers instead of addresses.
//!
//! Encoder and decoder are one state machine, [`Codec`]: thread, time and the next object number,
//! all of which a chunk header carries, so each chunk starts afresh.
//!
//! Cost: 3–6 bytes per event before compression; nothing is allocated.
//!
//! # Invariants
//! 1. `next_object` ascends by one with every birth, on both sides alike.
//! 2. A reference names a number from 1 to `next_object − 1`: an object born before.

use crate::varint;

/// Bytes of the longest record.
pub const MAX_RECORD: usize = 48;

const THREAD: u8 = 0x10;
const A: u8 = 0x20;
const B: u8 = 0x40;
const RESERVED: u8 = 0x80;
/// Logarithm field of the form byte when the alignment is spelled out.
const ALIGN_FOLLOWS: u8 = 31;

/// One event as it stands in a chunk. Object numbers count from 1; 0 stands for NULL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Thread of the call.
    pub thread: u32,
    /// Nanoseconds since the stream began; 0 in files without times.
    pub time_ns: u64,
    /// What was asked.
    pub call: Call,
}

/// What was asked. `object` is the object returned or released, 0 for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the arguments of the C functions")]
pub enum Call {
    /// `malloc(size)`
    Malloc { object: u64, size: u64 },
    /// `calloc(count, size)`
    Calloc { object: u64, count: u64, size: u64 },
    /// `realloc(old, size)`
    Realloc { old: u64, object: u64, size: u64 },
    /// Any call that states an alignment
    Aligned { object: u64, align: u64, size: u64, form: Form },
    /// `free(object)`
    Free { object: u64, stated_size: Option<u64> },
    /// `malloc_usable_size(object)`
    UsableSize { object: u64 },
    /// The program wrote `bytes` bytes of the object, `times` times over
    Access { object: u64, bytes: u64, times: u32 },
    /// A thread begins
    ThreadStart { parent: Option<u32> },
    /// A thread ends
    ThreadEnd,
    /// The process forked
    Fork { child: u32 },
    /// A marked point
    Marker { value: u64 },
}

/// Which of the aligned calls it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Form {
    /// `memalign`
    Memalign = 0,
    /// `aligned_alloc`
    AlignedAlloc = 1,
    /// `posix_memalign`
    PosixMemalign = 2,
    /// `valloc`
    Valloc = 3,
    /// `pvalloc`
    Pvalloc = 4,
    /// `operator new(size_t, align_val_t)`
    CxxNew = 5,
}

impl Form {
    fn from_bits(bits: u8) -> Option<Form> {
        [
            Form::Memalign,
            Form::AlignedAlloc,
            Form::PosixMemalign,
            Form::Valloc,
            Form::Pvalloc,
            Form::CxxNew,
        ]
        .get(usize::from(bits))
        .copied()
    }
}

/// Why a record cannot be written: the stream breaks its own rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncodeError {
    /// A birth whose number is not the next one.
    Birth {
        /// The number it has.
        object: u64,
        /// The number it should have.
        next: u64,
    },
    /// A reference to an object that was not born yet, or to none where one is due.
    Reference {
        /// The number referred to.
        object: u64,
        /// The number the next object gets.
        next: u64,
    },
}

impl core::fmt::Display for EncodeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            EncodeError::Birth { object, next } => {
                write!(f, "object {object} is born where object {next} is due")
            }
            EncodeError::Reference { object, next } => {
                write!(f, "object {object} is used before its birth (the next is {next})")
            }
        }
    }
}

impl core::error::Error for EncodeError {}

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes end inside a record.
    Truncated,
    /// The tag names no operation, or a reserved bit is set.
    Tag(u8),
    /// The first record of a chunk names no thread.
    NoThread,
    /// A number does not fit its field.
    Range(&'static str),
    /// A reference names an object that was not born yet.
    Reference,
}

impl core::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            DecodeError::Truncated => f.write_str("the chunk ends inside a record"),
            DecodeError::Tag(tag) => write!(f, "tag {tag:#04x} names no operation"),
            DecodeError::NoThread => f.write_str("the first record of a chunk names no thread"),
            DecodeError::Range(field) => write!(f, "the {field} of a record is out of range"),
            DecodeError::Reference => f.write_str("a record refers to an object not yet born"),
        }
    }
}

impl core::error::Error for DecodeError {}

/// The state that both sides keep while they go through one chunk.
#[derive(Clone, Debug)]
pub struct Codec {
    times: bool,
    thread: Option<u32>,
    time: u64,
    next_object: u64,
}

/// Where one record is put together.
struct Scratch {
    bytes: [u8; MAX_RECORD],
    len: usize,
}

impl Scratch {
    fn varint(&mut self, value: u64) {
        self.len += varint::write(value, &mut self.bytes[self.len..]);
    }

    fn byte(&mut self, value: u8) {
        self.bytes[self.len] = value;
        self.len += 1;
    }
}

impl Codec {
    /// The state at the start of a chunk whose header says `first_object` and `base_time`.
    #[must_use]
    pub fn new(times: bool, first_object: u64, base_time: u64) -> Self {
        Codec { times, thread: None, time: base_time, next_object: first_object }
    }

    /// The number the next object gets.
    #[must_use]
    pub fn next_object(&self) -> u64 {
        self.next_object
    }

    /// The time of the last record, or the time base.
    #[must_use]
    pub fn time_ns(&self) -> u64 {
        self.time
    }

    /// Hands the bytes of `record` to `sink`.
    ///
    /// # Errors
    /// The record breaks invariant 1 or 2; the state is as before.
    pub fn encode(&mut self, record: &Record, sink: impl FnOnce(&[u8])) -> Result<(), EncodeError> {
        let (operation, born) = self.check(&record.call)?;
        let mut out = Scratch { bytes: [0; MAX_RECORD], len: 0 };
        let switched = self.thread != Some(record.thread);
        out.byte(operation | if switched { THREAD } else { 0 });
        if switched {
            out.varint(u64::from(record.thread));
            self.thread = Some(record.thread);
        }
        if self.times {
            out.varint(varint::fold(record.time_ns.wrapping_sub(self.time) as i64));
            self.time = record.time_ns;
        }
        self.encode_fields(&record.call, &mut out);
        self.next_object += u64::from(born);
        sink(&out.bytes[..out.len]);
        Ok(())
    }

    /// The tag of a call without its thread bit, and whether an object is born.
    fn check(&self, call: &Call) -> Result<(u8, bool), EncodeError> {
        let flag = |bit: u8, set: bool| if set { bit } else { 0 };
        let (tag, born, used) = match *call {
            Call::Malloc { object, .. } => (1 | flag(A, object == 0), object, 0),
            Call::Calloc { object, .. } => (2 | flag(A, object == 0), object, 0),
            Call::Realloc { old, object, .. } => {
                (3 | flag(A, object == 0) | flag(B, old == 0), object, old)
            }
            Call::Aligned { object, .. } => (4 | flag(A, object == 0), object, 0),
            Call::Free { object, stated_size } => {
                (5 | flag(A, object == 0) | flag(B, stated_size.is_some()), 0, object)
            }
            Call::UsableSize { object } => (6 | flag(A, object == 0), 0, object),
            Call::ThreadStart { parent } => (7 | flag(A, parent.is_some()), 0, 0),
            Call::ThreadEnd => (8, 0, 0),
            Call::Fork { .. } => (9, 0, 0),
            Call::Marker { .. } => (10, 0, 0),
            Call::Access { object, .. } => (11, 0, object),
        };
        let next = self.next_object;
        if born != 0 && born != next {
            return Err(EncodeError::Birth { object: born, next });
        }
        let unnamed = used == 0 && matches!(call, Call::Access { .. });
        if used >= next || unnamed {
            return Err(EncodeError::Reference { object: used, next });
        }
        Ok((tag, born != 0))
    }

    fn encode_fields(&self, call: &Call, out: &mut Scratch) {
        let reference = |out: &mut Scratch, object: u64| {
            if object != 0 {
                out.varint(self.next_object - object);
            }
        };
        match *call {
            Call::Malloc { size, .. } => out.varint(size),
            Call::Calloc { count, size, .. } => {
                out.varint(count);
                out.varint(size);
            }
            Call::Realloc { old, size, .. } => {
                reference(out, old);
                out.varint(size);
            }
            Call::Aligned { align, size, form, .. } => {
                let log2 = match align.is_power_of_two() {
                    true => (align.trailing_zeros() as u8).min(ALIGN_FOLLOWS),
                    false => ALIGN_FOLLOWS,
                };
                out.byte(form as u8 | log2 << 3);
                if log2 == ALIGN_FOLLOWS {
                    out.varint(align);
                }
                out.varint(size);
            }
            Call::Free { object, stated_size } => {
                reference(out, object);
                if let Some(size) = stated_size {
                    out.varint(size);
                }
            }
            Call::UsableSize { object } => reference(out, object),
            Call::ThreadStart { parent: Some(parent) } => out.varint(u64::from(parent)),
            Call::ThreadStart { parent: None } | Call::ThreadEnd => {}
            Call::Fork { child } => out.varint(u64::from(child)),
            Call::Marker { value } => out.varint(value),
            Call::Access { object, bytes, times } => {
                reference(out, object);
                out.varint(bytes);
                out.varint(u64::from(times));
            }
        }
    }

    /// Takes one record from the front of `input`.
    ///
    /// # Errors
    /// The bytes are no record; `input` and the state are then of no further use.
    pub fn decode(&mut self, input: &mut &[u8]) -> Result<Record, DecodeError> {
        let (&tag, rest) = input.split_first().ok_or(DecodeError::Truncated)?;
        *input = rest;
        if tag & RESERVED != 0 {
            return Err(DecodeError::Tag(tag));
        }
        if tag & THREAD != 0 {
            self.thread = Some(small(input, "thread")?);
        }
        let thread = self.thread.ok_or(DecodeError::NoThread)?;
        if self.times {
            let delta = varint::unfold(number(input)?);
            self.time = self.time.wrapping_add_signed(delta);
        }
        let call = self.decode_fields(tag, input)?;
        Ok(Record { thread, time_ns: self.time, call })
    }

    fn decode_fields(&mut self, tag: u8, input: &mut &[u8]) -> Result<Call, DecodeError> {
        let (a, b) = (tag & A != 0, tag & B != 0);
        let operation = tag & 0x0f;
        let allowed = match operation {
            3 | 5 => A | B,
            1 | 2 | 4 | 6 | 7 => A,
            8..=11 => 0,
            _ => return Err(DecodeError::Tag(tag)),
        };
        if tag & (A | B) & !allowed != 0 {
            return Err(DecodeError::Tag(tag));
        }
        Ok(match operation {
            1 => {
                let size = number(input)?;
                Call::Malloc { object: self.birth(!a), size }
            }
            2 => {
                let (count, size) = (number(input)?, number(input)?);
                Call::Calloc { object: self.birth(!a), count, size }
            }
            3 => {
                let old = self.reference(!b, input)?;
                let size = number(input)?;
                Call::Realloc { old, object: self.birth(!a), size }
            }
            4 => {
                let (&byte, rest) = input.split_first().ok_or(DecodeError::Truncated)?;
                *input = rest;
                let form = Form::from_bits(byte & 7).ok_or(DecodeError::Range("form"))?;
                let align =
                    if byte >> 3 == ALIGN_FOLLOWS { number(input)? } else { 1 << (byte >> 3) };
                let size = number(input)?;
                Call::Aligned { object: self.birth(!a), align, size, form }
            }
            5 => {
                let object = self.reference(!a, input)?;
                let stated_size = if b { Some(number(input)?) } else { None };
                Call::Free { object, stated_size }
            }
            6 => Call::UsableSize { object: self.reference(!a, input)? },
            7 => Call::ThreadStart { parent: if a { Some(small(input, "parent")?) } else { None } },
            8 => Call::ThreadEnd,
            9 => Call::Fork { child: small(input, "child")? },
            10 => Call::Marker { value: number(input)? },
            _ => {
                let object = self.reference(true, input)?;
                Call::Access { object, bytes: number(input)?, times: small(input, "times")? }
            }
        })
    }

    fn birth(&mut self, born: bool) -> u64 {
        if !born {
            return 0;
        }
        let object = self.next_object;
        self.next_object += 1;
        object
    }

    fn reference(&self, given: bool, input: &mut &[u8]) -> Result<u64, DecodeError> {
        if !given {
            return Ok(0);
        }
        match self.next_object.checked_sub(number(input)?) {
            Some(object) if object != 0 && object < self.next_object => Ok(object),
            _ => Err(DecodeError::Reference),
        }
    }
}

fn number(input: &mut &[u8]) -> Result<u64, DecodeError> {
    varint::read(input).ok_or(if input.len() < varint::MAX_LEN {
        DecodeError::Truncated
    } else {
        DecodeError::Range("number")
    })
}

fn small(input: &mut &[u8], field: &'static str) -> Result<u32, DecodeError> {
    u32::try_from(number(input)?).map_err(|_| DecodeError::Range(field))
}
