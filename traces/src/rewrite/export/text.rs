//! The text formats; their grammars stand with their readers.
#![forbid(unsafe_code)]

use std::io::Write as _;

use super::{Encoder, Losses, address, tid};
use crate::event::{AlignedApi, Event, Op};
use crate::import::csv;

/// Appends a line. Writing to a `Vec` cannot fail.
macro_rules! line {
    ($out:expr, $($format:tt)*) => {{
        let _ = writeln!($out, $($format)*);
    }};
}

pub(super) struct Csv;

impl Encoder for Csv {
    fn begin(&mut self, out: &mut Vec<u8>) {
        line!(out, "{}", csv::HEADER);
    }

    fn event(&mut self, event: &Event, out: &mut Vec<u8>, _losses: &mut Losses) {
        if let Some(time) = event.time_ns {
            let _ = write!(out, "{time}");
        }
        let tid = tid(event.thread);
        let p = |object| Hex(address(object));
        match event.op {
            Op::Malloc { object, size } => line!(out, ",{tid},malloc,{},,{size},", p(object)),
            Op::Calloc { object, count, size } => {
                line!(out, ",{tid},calloc,{},,{size},{count}", p(object));
            }
            Op::Realloc { old, object, size } => {
                line!(out, ",{tid},realloc,{},{},{size},", p(object), p(old));
            }
            Op::Aligned { object, align, size, api } => {
                line!(out, ",{tid},{},{},,{size},{align}", csv::api_name(api), p(object));
            }
            Op::Free { object, stated_size: None } => line!(out, ",{tid},free,{},,,", p(object)),
            Op::Free { object, stated_size: Some(size) } => {
                line!(out, ",{tid},free,{},,{size},", p(object));
            }
            Op::UsableSize { object } => line!(out, ",{tid},usable_size,{},,,", p(object)),
            Op::Access { object, bytes, times } => {
                line!(out, ",{tid},access,{},,{bytes},{times}", p(Some(object)));
            }
            Op::ThreadStart { parent: None } => line!(out, ",{tid},thread_start,,,,"),
            Op::ThreadStart { parent: Some(parent) } => {
                line!(out, ",{tid},thread_start,,{},,", super::tid(parent));
            }
            Op::ThreadEnd => line!(out, ",{tid},thread_end,,,,"),
            Op::Fork { child } => line!(out, ",{tid},fork,,,{child},"),
            Op::Marker { value } => line!(out, ",{tid},marker,,,{value},"),
        }
    }
}

/// An address, or nothing for NULL.
struct Hex(u64);

impl std::fmt::Display for Hex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0 == 0 { Ok(()) } else { write!(f, "{:#x}", self.0) }
    }
}

pub(super) struct Android;

impl Encoder for Android {
    fn event(&mut self, event: &Event, out: &mut Vec<u8>, losses: &mut Losses) {
        let tid = tid(event.thread);
        match event.op {
            Op::Malloc { object, size } => {
                let _ = write!(out, "{tid}: malloc {:#x} {size}", address(object));
            }
            Op::Calloc { object, count, size } => {
                let _ = write!(out, "{tid}: calloc {:#x} {count} {size}", address(object));
            }
            Op::Realloc { old, object, size } => {
                let (new, old) = (address(object), address(old));
                let _ = write!(out, "{tid}: realloc {new:#x} {old:#x} {size}");
            }
            Op::Aligned { object, align, size, api } => {
                if api != AlignedApi::Memalign {
                    losses.note("which aligned call it was");
                }
                let _ = write!(out, "{tid}: memalign {:#x} {align} {size}", address(object));
            }
            Op::Free { object, stated_size } => {
                if stated_size.is_some() {
                    losses.note("sizes stated to free");
                }
                let _ = write!(out, "{tid}: free {:#x}", address(object));
            }
            Op::ThreadEnd => {
                let _ = write!(out, "{tid}: thread_done 0x0");
                if let Some(time) = event.time_ns {
                    let _ = write!(out, " {time}");
                }
                out.push(b'\n');
                return;
            }
            Op::ThreadStart { parent } => return note_parent(parent.is_some(), losses),
            other => return note_unknown(&other, losses),
        }
        if let Some(time) = event.time_ns {
            let _ = write!(out, " {time} {time}");
        }
        out.push(b'\n');
    }
}

fn note_parent(known: bool, losses: &mut Losses) {
    if known {
        losses.note("parents of threads");
    }
}

/// Counts an event that few formats know.
pub(super) fn note_unknown(op: &Op, losses: &mut Losses) {
    losses.note(match op {
        Op::UsableSize { .. } => "malloc_usable_size",
        Op::Access { .. } => "writes to objects",
        Op::Fork { .. } => "forks",
        Op::Marker { .. } => "markers",
        Op::ThreadEnd => "ends of threads",
        _ => "other events",
    });
}

/// Counts what every format without threads and times loses.
pub(super) fn note_bare(event: &Event, losses: &mut Losses) {
    if event.thread.0 != 0 {
        losses.note("threads of calls");
    }
    note_time(event, losses);
}

pub(super) fn note_time(event: &Event, losses: &mut Losses) {
    if event.time_ns.is_some() {
        losses.note("times");
    }
}

pub(super) struct Logalloc;

impl Encoder for Logalloc {
    fn event(&mut self, event: &Event, out: &mut Vec<u8>, losses: &mut Losses) {
        note_time(event, losses);
        let tid = tid(event.thread);
        match event.op {
            Op::Malloc { object, size } => {
                line!(out, "1 {tid} malloc({size})={:#x}", address(object))
            }
            Op::Calloc { object, count, size } => {
                line!(out, "1 {tid} calloc({count},{size})={:#x}", address(object));
            }
            Op::Realloc { old, object, size } => {
                let (new, old) = (address(object), address(old));
                line!(out, "1 {tid} realloc({old:#x},{size})={new:#x}");
            }
            Op::Aligned { object, size, api: AlignedApi::Valloc, .. } => {
                line!(out, "1 {tid} valloc({size})={:#x}", address(object));
            }
            Op::Aligned { object, align, size, api } => {
                let name = match api {
                    AlignedApi::PosixMemalign => "posix_memalign",
                    AlignedApi::AlignedAlloc => "aligned_alloc",
                    AlignedApi::Memalign => "memalign",
                    _ => {
                        losses.note("which aligned call it was");
                        "memalign"
                    }
                };
                line!(out, "1 {tid} {name}({align},{size})={:#x}", address(object));
            }
            Op::Free { object, stated_size } => {
                if stated_size.is_some() {
                    losses.note("sizes stated to free");
                }
                line!(out, "1 {tid} free({:#x})", address(object));
            }
            Op::Marker { value } => {
                if value != 0 {
                    losses.note("values of markers");
                }
                line!(out, "1 {tid} jemalloc_stats()");
            }
            Op::ThreadStart { parent } => note_parent(parent.is_some(), losses),
            other => note_unknown(&other, losses),
        }
    }
}

pub(super) struct Mtrace;

impl Encoder for Mtrace {
    fn begin(&mut self, out: &mut Vec<u8>) {
        line!(out, "= Start");
    }

    fn event(&mut self, event: &Event, out: &mut Vec<u8>, losses: &mut Losses) {
        note_bare(event, losses);
        match event.op {
            Op::Malloc { object, size } => allocated(out, address(object), size),
            Op::Calloc { object, .. } => {
                losses.note("zeroing");
                allocated(out, address(object), event.op.requested().unwrap_or(0));
            }
            Op::Aligned { object, size, .. } => {
                losses.note("alignments");
                allocated(out, address(object), size);
            }
            Op::Realloc { old: None, object, size } => allocated(out, address(object), size),
            Op::Realloc { old, object: Some(object), size } => {
                line!(out, "@ < {:#x}", address(old));
                line!(out, "@ > {:#x} {size:#x}", address(Some(object)));
            }
            Op::Realloc { old, object: None, size: 0 } => line!(out, "@ - {:#x}", address(old)),
            Op::Realloc { old, object: None, size } => {
                line!(out, "@ ! {:#x} {size:#x}", address(old));
            }
            Op::Free { object: None, .. } => losses.note("free(NULL)"),
            Op::Free { object, .. } => line!(out, "@ - {:#x}", address(object)),
            Op::ThreadStart { .. } => {}
            other => note_unknown(&other, losses),
        }
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        line!(out, "= End");
    }
}

fn allocated(out: &mut Vec<u8>, ptr: u64, size: u64) {
    if ptr == 0 {
        line!(out, "@ + (nil) {size:#x}");
    } else {
        line!(out, "@ + {ptr:#x} {size:#x}");
    }
}

pub(super) struct Valgrind;

impl Encoder for Valgrind {
    fn event(&mut self, event: &Event, out: &mut Vec<u8>, losses: &mut Losses) {
        note_bare(event, losses);
        match event.op {
            Op::Malloc { object, size } => {
                line!(out, "--1-- malloc({size}) = {:#x}", address(object))
            }
            Op::Calloc { object, count, size } => {
                line!(out, "--1-- calloc({count},{size}) = {:#x}", address(object));
            }
            Op::Realloc { old: None, object, size } => {
                line!(out, "--1-- realloc(0x0,{size})malloc({size}) = {:#x}", address(object));
            }
            Op::Realloc { old, object: None, size: 0 } => {
                let old = address(old);
                line!(out, "--1-- realloc({old:#x},0)free({old:#x})");
                line!(out, "--1--  = 0");
            }
            Op::Realloc { old, object, size } => {
                let (new, old) = (address(object), address(old));
                line!(out, "--1-- realloc({old:#x},{size}) = {new:#x}");
            }
            Op::Aligned { object, align, size, api } => {
                let name = match api {
                    AlignedApi::CxxNew => "_ZnwmSt11align_val_t",
                    AlignedApi::AlignedAlloc => "aligned_alloc",
                    AlignedApi::PosixMemalign => "posix_memalign",
                    _ => "memalign",
                };
                if matches!(api, AlignedApi::Pvalloc | AlignedApi::Valloc) {
                    losses.note("which aligned call it was");
                }
                line!(out, "--1-- {name}(al {align}, size {size}) = {:#x}", address(object));
            }
            Op::Free { object, stated_size } => {
                if stated_size.is_some() {
                    losses.note("sizes stated to free");
                }
                line!(out, "--1-- free({:#x})", address(object));
            }
            Op::UsableSize { object } => {
                line!(out, "--1-- malloc_usable_size({:#x}) = 0", address(object));
            }
            Op::ThreadStart { .. } => {}
            other => note_unknown(&other, losses),
        }
    }
}

pub(super) struct Ltrace;

impl Encoder for Ltrace {
    fn event(&mut self, event: &Event, out: &mut Vec<u8>, losses: &mut Losses) {
        let start = out.len();
        let _ = write!(out, "[pid {}] ", tid(event.thread));
        if let Some(time) = event.time_ns {
            let _ = write!(out, "{}.{:09} ", time / 1_000_000_000, time % 1_000_000_000);
        }
        let p = |object| Argument(address(object));
        match event.op {
            Op::Malloc { object, size } => line!(out, "malloc({size}) = {}", p(object)),
            Op::Calloc { object, count, size } => {
                line!(out, "calloc({count}, {size}) = {}", p(object));
            }
            Op::Realloc { old, object, size } => {
                line!(out, "realloc({}, {size}) = {}", p(old), p(object));
            }
            Op::Aligned { object, align, size, api } => match api {
                AlignedApi::Valloc => line!(out, "valloc({size}) = {}", p(object)),
                AlignedApi::Pvalloc => line!(out, "pvalloc({size}) = {}", p(object)),
                AlignedApi::AlignedAlloc => {
                    line!(out, "aligned_alloc({align}, {size}) = {}", p(object));
                }
                _ => {
                    if api != AlignedApi::Memalign {
                        losses.note("which aligned call it was");
                    }
                    line!(out, "memalign({align}, {size}) = {}", p(object));
                }
            },
            Op::Free { object, stated_size } => {
                if stated_size.is_some() {
                    losses.note("sizes stated to free");
                }
                line!(out, "free({}) = <void>", p(object));
            }
            Op::UsableSize { object } => line!(out, "malloc_usable_size({}) = 0", p(object)),
            Op::ThreadEnd => line!(out, "+++ exited (status 0) +++"),
            other => {
                out.truncate(start);
                match other {
                    Op::ThreadStart { parent } => note_parent(parent.is_some(), losses),
                    _ => note_unknown(&other, losses),
                }
            }
        }
    }
}

/// An address as ltrace prints it: NULL is a plain 0.
struct Argument(u64);

impl std::fmt::Display for Argument {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0 == 0 { f.write_str("0") } else { write!(f, "{:#x}", self.0) }
    }
}

/// One trace (call stack) for all allocations; `realloc` becomes a release and an allocation.
#[derive(Default)]
pub(super) struct HeaptrackRaw {
    milliseconds: u64,
}

impl Encoder for HeaptrackRaw {
    fn begin(&mut self, out: &mut Vec<u8>) {
        line!(out, "v 10400 3\nX unknown\nI 1000 0\nm 1 -\nt 1 0");
    }

    fn event(&mut self, event: &Event, out: &mut Vec<u8>, losses: &mut Losses) {
        if event.thread.0 != 0 {
            losses.note("threads of calls");
        }
        if let Some(time) = event.time_ns {
            let now = time / 1_000_000;
            if now * 1_000_000 != time {
                losses.note("times finer than a millisecond");
            }
            if now > self.milliseconds {
                self.milliseconds = now;
                line!(out, "c {now:x}");
            }
        }
        match event.op {
            Op::Realloc { old, object, .. } if old.is_some() && object.is_some() => {
                losses.note("realloc as one call");
            }
            Op::Calloc { .. } => losses.note("zeroing"),
            Op::Aligned { .. } => losses.note("alignments"),
            Op::Free { object: None, .. } => losses.note("free(NULL)"),
            Op::Malloc { object: None, .. } => losses.note("failed allocations"),
            Op::ThreadStart { .. } | Op::Malloc { .. } | Op::Free { .. } | Op::Realloc { .. } => {}
            other => note_unknown(&other, losses),
        }
        if let Some(old) = event.op.released() {
            line!(out, "- {:x}", address(Some(old)));
        }
        if let Some(object) = event.op.born() {
            let size = event.op.requested().unwrap_or(0);
            line!(out, "+ {size:x} 1 {:x}", address(Some(object)));
        }
    }
}
