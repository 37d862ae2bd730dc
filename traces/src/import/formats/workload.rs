//! glibc trace workload (`.wl`): one program of opcodes per thread, and the edges between them.
//!
//! ```text
//! header:  8 pointers n · 9 syncs n · 10 threads n · 11 offset (once per thread) · 1 done
//! thread:  2 malloc id size · 3 calloc id size · 4 realloc new old size · 5 free id
//!          6 sync_w k · 7 sync_r k · 12 memalign id align size · 13 valloc id size
//!          14 pvalloc id size · 1 done
//! ```
//! Numbers are groups of seven bits, the most significant first; id 0 is NULL. A `sync_r k` waits
//! for `sync_w k`. The total order made here runs the threads in turn, one call each, and honours
//! every wait; it is one of those the file allows.
#![forbid(unsafe_code)]

use std::collections::{HashSet, VecDeque};

use super::super::address_map::{IntMap, IntState};
use super::super::input::Input;
use super::super::raw::{MAX_NUMBER, Raw, RawOp, RawSource};
use super::super::{Census, Format};
use crate::error::TraceError;
use crate::event::AlignedApi;

/// The threads of a file lie one behind the other, so all of it is held; more than this is refused.
const MOST_BYTES: usize = 1 << 30;

const PAGE: u64 = 4096;

/// The largest id, and the largest number in the header.
const ID: u64 = MAX_NUMBER;
/// The largest size or alignment: of a call that failed it may be any.
const ANY: u64 = u64::MAX;

#[derive(Clone, Copy)]
struct Thread {
    number: u64,
    at: usize,
}

pub(crate) struct Workload {
    path: std::path::PathBuf,
    bytes: Vec<u8>,
    /// Threads that can go on, and where their next opcodes lie.
    ready: VecDeque<Thread>,
    /// Threads that wait, by what for.
    waiting: IntMap<u64, Vec<Thread>>,
    written: HashSet<u64, IntState>,
    /// Bytes executed: no more than there are, unless threads overlap.
    executed: usize,
    events: u64,
}

impl Workload {
    pub(crate) fn new(mut input: Input) -> Result<Self, TraceError> {
        let mut bytes = Vec::new();
        loop {
            let part = input.peek(1 << 16)?;
            if part.is_empty() {
                break;
            }
            bytes.extend_from_slice(part);
            let length = part.len();
            input.skip(length);
            if bytes.len() > MOST_BYTES {
                return Err(TraceError::Bomb {
                    path: input.path().to_owned(),
                    layer: "workload",
                    compressed: bytes.len() as u64,
                    limit: MOST_BYTES as u64,
                });
            }
        }
        let mut workload = Workload {
            path: input.path().to_owned(),
            bytes,
            ready: VecDeque::new(),
            waiting: IntMap::default(),
            written: HashSet::default(),
            executed: 0,
            events: 0,
        };
        let starts =
            header(&workload.bytes).map_err(|(at, reason)| workload.damaged(at, reason))?;
        workload.ready =
            starts.into_iter().zip(0..).map(|(at, number)| Thread { number, at }).collect();
        Ok(workload)
    }

    fn damaged(&self, byte: usize, reason: &str) -> TraceError {
        TraceError::Damaged {
            path: self.path.clone(),
            format: Format::Workload,
            event: self.events,
            byte: byte as u64,
            reason: reason.to_owned(),
        }
    }

    /// One opcode of one thread; `None` if it made no call.
    fn step(&mut self, mut thread: Thread) -> Result<Option<RawOp>, TraceError> {
        let start = thread.at;
        let parsed = instruction(&self.bytes, &mut thread.at);
        let step = parsed.map_err(|(at, reason)| self.damaged(at, reason))?;
        if let Step::Wait(sync) = step
            && !self.written.contains(&sync)
        {
            thread.at = start;
            self.waiting.entry(sync).or_default().push(thread);
            return Ok(None);
        }
        self.executed += thread.at - start;
        if self.executed > self.bytes.len() {
            return Err(self.damaged(start, "threads overlap"));
        }
        if let Step::Write(sync) = step {
            self.written.insert(sync);
            self.ready.extend(self.waiting.remove(&sync).unwrap_or_default());
        }
        if let Step::Done = step {
            return Ok(Some(RawOp::ThreadEnd));
        }
        self.ready.push_back(thread);
        Ok(if let Step::Call(op) = step { Some(op) } else { None })
    }
}

impl RawSource for Workload {
    fn next_raw(&mut self, census: &mut Census) -> Result<Option<Raw>, TraceError> {
        while let Some(thread) = self.ready.pop_front() {
            if let Some(op) = self.step(thread)? {
                self.events += 1;
                census.records += 1;
                return Ok(Some(Raw { thread: thread.number, time: None, op }));
            }
        }
        match self.waiting.values().flatten().map(|thread| thread.at).min() {
            Some(at) => Err(self.damaged(at, "all threads left wait for one another")),
            None => Ok(None),
        }
    }

    fn threaded(&self) -> bool {
        true
    }
}

enum Step {
    Nothing,
    Done,
    Call(RawOp),
    Write(u64),
    Wait(u64),
}

type At<T> = Result<T, (usize, &'static str)>;

fn instruction(bytes: &[u8], at: &mut usize) -> At<Step> {
    let start = *at;
    let opcode = byte(bytes, at)?;
    let mut number = |most| varint(bytes, at, most);
    let step = match opcode {
        0 => Step::Nothing,
        1 => Step::Done,
        2 => Step::Call(RawOp::Malloc { ptr: number(ID)?, size: number(ANY)? }),
        3 => Step::Call(RawOp::Calloc { ptr: number(ID)?, count: 1, size: number(ANY)? }),
        4 => Step::Call(RawOp::Realloc { ptr: number(ID)?, old: number(ID)?, size: number(ANY)? }),
        5 => Step::Call(RawOp::Free { ptr: number(ID)?, stated_size: None }),
        6 => Step::Write(number(ID)?),
        7 => Step::Wait(number(ID)?),
        12 => Step::Call(RawOp::Aligned {
            ptr: number(ID)?,
            align: number(ANY)?,
            size: number(ANY)?,
            api: AlignedApi::Memalign,
        }),
        13 | 14 => {
            let api = if opcode == 13 { AlignedApi::Valloc } else { AlignedApi::Pvalloc };
            Step::Call(RawOp::Aligned { ptr: number(ID)?, align: PAGE, size: number(ANY)?, api })
        }
        _ => return Err((start, "the opcode is unknown")),
    };
    match step {
        Step::Call(op) if op.is_beyond() => Err((start, "a number is beyond 2^48")),
        step => Ok(step),
    }
}

/// Where the threads start.
fn header(bytes: &[u8]) -> At<Vec<usize>> {
    let (mut at, mut starts, mut threads) = (0, Vec::new(), None);
    loop {
        let start = at;
        match byte(bytes, &mut at)? {
            1 => break,
            8 | 9 => {
                varint(bytes, &mut at, ID)?;
            }
            10 => threads = Some(varint(bytes, &mut at, ID)?),
            11 => {
                let offset = varint(bytes, &mut at, ID)?;
                match usize::try_from(offset) {
                    Ok(offset) if offset < bytes.len() => starts.push(offset),
                    _ => return Err((start, "a thread starts beyond the end of the file")),
                }
            }
            _ => return Err((start, "the opcode does not belong in the header")),
        }
    }
    if starts.is_empty() {
        return Err((at, "there is no thread"));
    }
    if threads.is_some_and(|threads| threads != starts.len() as u64) {
        return Err((at, "the number of threads is not the number of starts"));
    }
    Ok(starts)
}

fn byte(bytes: &[u8], at: &mut usize) -> At<u8> {
    let byte = bytes.get(*at).copied().ok_or((*at, "the file ends within a thread"))?;
    *at += 1;
    Ok(byte)
}

fn varint(bytes: &[u8], at: &mut usize, most: u64) -> At<u64> {
    let start = *at;
    let mut value = 0_u64;
    loop {
        let byte = byte(bytes, at)?;
        if value > u64::MAX >> 7 {
            return Err((start, "a number does not fit in 64 bits"));
        }
        value = value << 7 | u64::from(byte & 0x7f);
        if value > most {
            return Err((start, "a number is beyond 2^48"));
        }
        if byte < 0x80 {
            return Ok(value);
        }
    }
}

/// Whether `head` begins a file of this format.
pub(crate) fn recognises(head: &[u8]) -> bool {
    let mut at = 0;
    for expected in [8, 9, 10, 11] {
        let read = byte(head, &mut at).and_then(|opcode| {
            varint(head, &mut at, ID)?;
            Ok(opcode)
        });
        if read != Ok(expected) {
            return false;
        }
    }
    true
}
