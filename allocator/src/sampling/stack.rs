//! Who called: return addresses from the calling function outwards.
//!
//! On x86_64 by the unwinding tables that compilers write for exceptions and debuggers, also for C and
//! also without frame pointers ([`tables`](super::tables)); libc says without a lock which object's
//! tables these are (glibc 2.35 and later). Where there are none, and on aarch64, by frame pointers: a
//! function compiled without them is passed over there, or ends the stack.
//!
//! Nothing is allocated, no lock is taken, no code of anybody else's is run. Before the first word of a
//! page of the stack is read, the kernel is asked whether that can be: so a wrong frame pointer, a
//! stack of the program's own making (fibers, signal stacks) and the end of a stack are no danger.
//!
//! # Cost
//! A few microseconds for 20 frames, once per sample.

#[cfg(target_arch = "x86_64")]
use super::tables::{Found, Rules, rules_at};
use crate::os::{self, Object};

/// Most return addresses kept, innermost first.
pub const DEPTH: usize = 64;
/// A frame larger than this is taken for an error.
const LARGEST_FRAME: usize = 64 << 20;
/// Frames walked at most, ours included.
const STEPS: usize = 2 * DEPTH;

/// What is known of a function that is being run.
#[derive(Clone, Copy, Debug)]
struct Frame {
    /// Where it goes on.
    code: usize,
    /// Stack pointer.
    stack: usize,
    /// Frame pointer: x29, or rbp whatever it holds.
    base: usize,
}

/// The stack's memory, as far as it can be read.
#[derive(Debug, Default)]
struct Memory {
    /// The page that was asked about last and can be read.
    known: usize,
}

impl Memory {
    /// The word at `address`; `None` if there is none.
    fn word(&mut self, address: usize) -> Option<usize> {
        if !address.is_multiple_of(size_of::<usize>()) {
            return None;
        }
        let page = address & !(crate::units::PAGE - 1);
        if page != self.known {
            if !os::is_readable(address) {
                return None;
            }
            self.known = page;
        }
        let place = core::ptr::with_exposed_provenance::<usize>(address);
        // SAFETY: aligned, and the kernel could read a word of the same page; this thread's stack, whose
        // frames stay as they are while we are called from them.
        Some(unsafe { place.read_volatile() })
    }
}

/// Fills `stack` with the return addresses of the calling function's callers; how many there are.
/// Those inside this library are left out, where it is a library of its own.
#[inline(never)]
pub(super) fn callers(stack: &mut [usize; DEPTH]) -> usize {
    let mut frame = here();
    let mut memory = Memory::default();
    let own = os::object_at(frame.code).filter(|object| !object.is_program);
    let (mut count, mut inside) = (0, own.is_some());
    for step in 0..STEPS {
        let Some(next) = outward(frame, step > 0, &mut memory) else { break };
        // Stacks grow downwards, so callers lie above; a frame that does not is none.
        if next.stack <= frame.stack || next.stack - frame.stack > LARGEST_FRAME {
            break;
        }
        frame = next;
        inside &= os::object_at(frame.code - 1).map(start) == own.map(start);
        if inside {
            continue;
        }
        let Some(slot) = stack.get_mut(count) else { break };
        *slot = frame.code;
        count += 1;
    }
    count
}

fn start(object: Object) -> usize {
    object.start
}

/// The function that this is compiled into.
#[inline(always)]
fn here() -> Frame {
    let (code, stack, base);
    // SAFETY: reads registers.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        core::arch::asm!("lea {0}, [rip]", "mov {1}, rsp", "mov {2}, rbp",
            out(reg) code, out(reg) stack, out(reg) base, options(nomem, nostack, preserves_flags));
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        core::arch::asm!("adr {0}, .", "mov {1}, sp", "mov {2}, x29",
            out(reg) code, out(reg) stack, out(reg) base, options(nomem, nostack, preserves_flags));
    }
    Frame { code, stack, base }
}

/// The caller of a function; `None` at the end of the stack. `called` if the function waits for
/// another one to return: then the address where it goes on may be another function's.
#[cfg(target_arch = "x86_64")]
fn outward(frame: Frame, called: bool, memory: &mut Memory) -> Option<Frame> {
    let code = frame.code - usize::from(called);
    match os::object_at(code).map(|object| rules_at(object.tables, code)) {
        Some(Found::Rules(rules)) => by_rules(frame, rules, memory),
        Some(Found::End) => None,
        Some(Found::Nothing) | None => by_frame_pointer(frame, memory),
    }
}

/// As on x86_64.
#[cfg(target_arch = "aarch64")]
fn outward(frame: Frame, _called: bool, memory: &mut Memory) -> Option<Frame> {
    by_frame_pointer(frame, memory)
}

#[cfg(target_arch = "x86_64")]
fn by_rules(frame: Frame, rules: Rules, memory: &mut Memory) -> Option<Frame> {
    let from = if rules.by_base { frame.base } else { frame.stack };
    let top = from.wrapping_add_signed(rules.top);
    let code = memory.word(top.wrapping_add_signed(rules.code))?;
    let base = match rules.base {
        Some(place) => memory.word(top.wrapping_add_signed(place))?,
        None => frame.base,
    };
    (code != 0).then_some(Frame { code, stack: top, base })
}

/// A frame pointer leads to the caller's, and behind that lies the return address.
fn by_frame_pointer(frame: Frame, memory: &mut Memory) -> Option<Frame> {
    if frame.base < frame.stack {
        return None;
    }
    let base = memory.word(frame.base)?;
    let code = memory.word(frame.base.checked_add(size_of::<usize>())?)?;
    let stack = frame.base.checked_add(2 * size_of::<usize>())?;
    (code > crate::units::PAGE).then_some(Frame { code, stack, base })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The stack below so many frames of this function's own.
    #[inline(never)]
    fn nested(levels: usize, stack: &mut [usize; DEPTH]) -> usize {
        if levels == 0 {
            return callers(stack);
        }
        let count = nested(levels - 1, stack);
        // Work after the call, so that it is no jump.
        core::hint::black_box(count)
    }

    #[test]
    fn every_level_of_a_recursion_is_a_frame() {
        let mut stack = [0; DEPTH];
        let nine = nested(9, &mut stack);
        // Return addresses in `nested`: one level more, one return more at the same address.
        let again = stack[..nine].iter().filter(|&&address| address == stack[1]).count();
        assert_eq!(again, 9, "{:x?}", &stack[..nine]);
        assert!(nine > 10, "and what called the test: {nine}");
        assert_eq!(nested(2 * DEPTH, &mut stack), DEPTH, "no more than there is room for");
    }

    #[test]
    fn a_frame_pointer_that_leads_nowhere_ends_the_stack() {
        let here = here();
        let mut memory = Memory::default();
        for base in [0, 8, 1 << 46, usize::MAX, usize::MAX - 7, here.stack + 1] {
            assert!(by_frame_pointer(Frame { base, ..here }, &mut memory).is_none(), "{base:x}");
        }
    }
}
