//! How a function's caller is found on x86_64: the rows of `.eh_frame` for one address of code.
//!
//! An object's `.eh_frame_hdr` lists its functions by address. Each has a program of few instructions
//! that says, step by step through its code, where the frame began and where registers were saved. Of
//! those only rbp and the return address are followed. What is not understood (a frame whose place has to
//! be computed, as in signal trampolines) is [`Found::Nothing`].
//!
//! The tables are the loaded object's own and as right as its code is; every read is bounded by the
//! length that the table gives for itself.
//!
//! Source: Linux Standard Base 5.0, chapter 10 (`.eh_frame`, `.eh_frame_hdr`); DWARF 5, section 6.4;
//! System V ABI for x86-64, section 3.7 (numbers of registers).

const RBP: u64 = 6;
const RSP: u64 = 7;
const RETURN: u64 = 16;
/// 32 bits, signed, from where they stand.
const HERE_PLUS_I32: u8 = 0x1b;
/// 32 bits, signed, from where the index begins.
const INDEX_PLUS_I32: u8 = 0x3b;
/// 32 bits, unsigned.
const U32: u8 = 0x03;
/// States that a program may set aside at once.
const SET_ASIDE: usize = 4;

/// Where things lie while the code at one address is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    /// From rbp (else rsp) to the top of the frame, which is the caller's stack pointer.
    pub(super) by_base: bool,
    pub(super) top: isize,
    /// From the top of the frame to the return address.
    pub(super) code: isize,
    /// From the top to the caller's rbp, if that was saved.
    pub(super) base: Option<isize>,
}

/// What the tables say about an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// How to find the caller.
    Rules(Rules),
    /// There is no caller.
    End,
    /// Nothing that we understand.
    Nothing,
}

/// Bytes that are read from front to back.
#[derive(Clone, Copy, Debug)]
struct Bytes {
    at: *const u8,
    left: usize,
}

impl Bytes {
    fn skip(&mut self, count: usize) -> Option<()> {
        self.left = self.left.checked_sub(count)?;
        self.at = self.at.wrapping_add(count);
        Some(())
    }

    fn take<T: Copy>(&mut self) -> Option<T> {
        let from = self.at.cast::<T>();
        self.skip(size_of::<T>())?;
        // SAFETY: `left` counted these bytes, and they are of a mapped table; only integers are read.
        Some(unsafe { from.read_unaligned() })
    }

    /// An unsigned number of seven bits a byte.
    fn number(&mut self) -> Option<u64> {
        let (mut value, mut shift) = (0u64, 0u32);
        loop {
            let byte = self.take::<u8>()?;
            value |= u64::from(byte & 127).checked_shl(shift)?;
            shift += 7;
            if byte & 128 == 0 {
                return Some(value);
            }
        }
    }

    /// A signed one.
    fn signed(&mut self) -> Option<i64> {
        let before = self.left;
        let value = self.number()?;
        let bits = 7 * (before - self.left) as u32;
        let unused = 64u32.saturating_sub(bits);
        Some(((value << unused) as i64) >> unused)
    }

    /// A part of so many bytes, which is passed over.
    fn part(&mut self, length: usize) -> Option<Bytes> {
        let part = Bytes { at: self.at, left: length };
        self.skip(length)?;
        Some(part)
    }
}

/// What an index's entry or a table's field of four bytes leads to.
fn offset(from: *const u8, distance: i32) -> *const u8 {
    from.wrapping_offset(distance as isize)
}

/// How the caller of the function that runs at `code` is found, by the index of its object.
pub(super) fn rules_at(index: *const u8, code: usize) -> Found {
    let program = || {
        let entry = entry_for(index, code)?;
        Program::read(entry, code)
    };
    match program() {
        Some(program) => program.run(code),
        None => Found::Nothing,
    }
}

/// The description of the last function that begins at or before `code`.
fn entry_for(index: *const u8, code: usize) -> Option<*const u8> {
    if index.is_null() {
        return None;
    }
    let mut head = Bytes { at: index, left: 12 };
    if head.take::<[u8; 4]>()? != [1, HERE_PLUS_I32, U32, INDEX_PLUS_I32] {
        return None;
    }
    head.skip(4)?;
    let count = head.take::<u32>()? as usize;
    let pair = |number: usize| {
        let mut bytes = Bytes { at: index.wrapping_add(12 + 8 * number), left: 8 };
        Some((offset(index, bytes.take::<i32>()?), offset(index, bytes.take::<i32>()?)))
    };
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        if pair(middle)?.0.addr() <= code { low = middle + 1 } else { high = middle }
    }
    Some(pair(low.checked_sub(1)?)?.1)
}

/// A function's program, with what all functions of its kind share.
#[derive(Clone, Copy, Debug)]
struct Program {
    /// Where the function begins.
    start: usize,
    /// Bytes of code, and of stack, that one unit of an operand counts.
    code_unit: u64,
    stack_unit: i64,
    shared: Bytes,
    own: Bytes,
}

/// One record of `.eh_frame`: what follows its length.
fn record(at: *const u8) -> Option<Bytes> {
    let mut head = Bytes { at, left: 4 };
    match head.take::<u32>()? {
        0 | u32::MAX => None,
        length => Some(Bytes { at: head.at, left: length as usize }),
    }
}

impl Program {
    /// `None` if `code` lies behind the function's end, or in a form that compilers for x86_64 Linux do
    /// not use.
    fn read(entry: *const u8, code: usize) -> Option<Self> {
        let mut own = record(entry)?;
        let here = own.at;
        let back = own.take::<u32>()? as usize;
        let mut shared = record(here.wrapping_sub(back))?;
        let begin = own.at;
        let start = offset(begin, own.take::<i32>()?).addr();
        let length = own.take::<u32>()? as usize;
        if code.wrapping_sub(start) >= length {
            return None;
        }
        if shared.take::<u32>()? != 0 || shared.take::<u8>()? != 1 {
            return None;
        }
        let mut letters = shared;
        while shared.take::<u8>()? != 0 {}
        let (code_unit, stack_unit) = (shared.number()?, shared.signed()?);
        if u64::from(shared.take::<u8>()?) != RETURN || letters.take::<u8>()? != b'z' {
            return None;
        }
        let length = shared.number()? as usize;
        let mut extra = shared.part(length)?;
        loop {
            match letters.take::<u8>()? {
                0 => break,
                b'R' if extra.take::<u8>()? != HERE_PLUS_I32 => return None,
                b'R' => {}
                b'L' => extra.skip(1)?,
                b'P' => {
                    let bytes = match extra.take::<u8>()? & 15 {
                        0 | 4 | 12 => 8,
                        3 | 11 => 4,
                        _ => return None,
                    };
                    extra.skip(bytes)?;
                }
                _ => return None,
            }
        }
        let length = own.number()? as usize;
        own.skip(length)?;
        Some(Program { start, code_unit, stack_unit, shared, own })
    }

    fn run(&self, code: usize) -> Found {
        let mut first = Row { by_base: false, top: 0, code: Saved::Not, base: Saved::Not };
        let mut nothing = first;
        let mut at = self.start;
        if self.steps(self.shared, &mut first, &mut nothing, &mut at, code).is_none() {
            return Found::Nothing;
        }
        let mut row = first;
        if self.steps(self.own, &mut row, &mut first, &mut at, code).is_none() {
            return Found::Nothing;
        }
        row.rules()
    }

    /// Runs instructions until one begins behind `code`. `None` at one that we do not follow.
    fn steps(
        &self,
        mut bytes: Bytes,
        row: &mut Row,
        first: &mut Row,
        at: &mut usize,
        code: usize,
    ) -> Option<()> {
        let mut aside = [*row; SET_ASIDE];
        let mut kept = 0usize;
        while bytes.left > 0 {
            let byte = bytes.take::<u8>()?;
            let operand = u64::from(byte & 63);
            let mut advance = 0;
            match (byte >> 6, byte & 63) {
                (1, _) => advance = operand,
                (2, _) => {
                    let place = self.place(bytes.number()? as i64);
                    row.save(operand, place);
                }
                (3, _) => row.restore(operand, first),
                (_, 0x00) => {}
                (_, 0x02) => advance = u64::from(bytes.take::<u8>()?),
                (_, 0x03) => advance = u64::from(bytes.take::<u16>()?),
                (_, 0x04) => advance = u64::from(bytes.take::<u32>()?),
                (_, 0x05) => {
                    let register = bytes.number()?;
                    row.save(register, self.place(bytes.number()? as i64));
                }
                (_, 0x06) => row.restore(bytes.number()?, first),
                (_, 0x07) => row.save(bytes.number()?, Saved::Nowhere),
                (_, 0x08) => row.save(bytes.number()?, Saved::Not),
                (_, 0x0a) => {
                    *aside.get_mut(kept)? = *row;
                    kept += 1;
                }
                (_, 0x0b) => {
                    kept = kept.checked_sub(1)?;
                    *row = *aside.get(kept)?;
                }
                (_, 0x0c) => {
                    row.by_base = is_base(bytes.number()?)?;
                    row.top = bytes.number()? as isize;
                }
                (_, 0x0d) => row.by_base = is_base(bytes.number()?)?,
                (_, 0x0e) => row.top = bytes.number()? as isize,
                // The size of arguments on the stack, which the others include.
                (_, 0x2e) => drop(bytes.number()?),
                // A register whose place is computed.
                (_, 0x10 | 0x16) => {
                    row.save(bytes.number()?, Saved::Computed);
                    let length = bytes.number()? as usize;
                    bytes.skip(length)?;
                }
                _ => return None,
            }
            *at = at.wrapping_add(advance.wrapping_mul(self.code_unit) as usize);
            if *at > code {
                break;
            }
        }
        Some(())
    }

    fn place(&self, units: i64) -> Saved {
        Saved::At(units.wrapping_mul(self.stack_unit) as isize)
    }
}

/// Whether a frame is counted from rbp; `None` for any other register but rsp.
fn is_base(register: u64) -> Option<bool> {
    match register {
        RBP => Some(true),
        RSP => Some(false),
        _ => None,
    }
}

/// Where a caller's register is.
#[derive(Clone, Copy, Debug)]
enum Saved {
    /// In the register still.
    Not,
    /// So far from the top of the frame.
    At(isize),
    /// Nowhere: there is no caller, if it is the return address.
    Nowhere,
    /// Where we do not follow.
    Computed,
}

/// What the program says about one address.
#[derive(Clone, Copy, Debug)]
struct Row {
    by_base: bool,
    top: isize,
    code: Saved,
    base: Saved,
}

impl Row {
    fn save(&mut self, register: u64, place: Saved) {
        match register {
            RBP => self.base = place,
            RETURN => self.code = place,
            _ => {}
        }
    }

    fn restore(&mut self, register: u64, first: &Row) {
        match register {
            RBP => self.base = first.base,
            RETURN => self.code = first.code,
            _ => {}
        }
    }

    fn rules(self) -> Found {
        let base = match self.base {
            Saved::At(place) => Some(place),
            Saved::Not | Saved::Nowhere => None,
            Saved::Computed => return Found::Nothing,
        };
        match self.code {
            Saved::At(code) => {
                Found::Rules(Rules { by_base: self.by_base, top: self.top, code, base })
            }
            Saved::Nowhere => Found::End,
            Saved::Not | Saved::Computed => Found::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(of: &[u8]) -> Bytes {
        Bytes { at: of.as_ptr(), left: of.len() }
    }

    /// What a program says about the address `code`, of a function at 1000.
    fn said(shared: &[u8], own: &[u8], code: usize) -> Found {
        let (shared, own) = (bytes(shared), bytes(own));
        Program { start: 1000, code_unit: 1, stack_unit: -8, shared, own }.run(code)
    }

    /// What every function begins with: the frame's top is rsp + 8, the return address 8 below it.
    const ENTRY: [u8; 5] = [0x0c, 7, 8, 0x90, 1];

    #[test]
    fn numbers_of_seven_bits_a_byte_are_read() {
        assert_eq!(bytes(&[0xe5, 0x8e, 0x26]).number(), Some(624_485));
        assert_eq!(bytes(&[0x78]).signed(), Some(-8));
        assert_eq!(bytes(&[0x80, 0x7f]).signed(), Some(-128));
        assert_eq!(bytes(&[0x3f]).signed(), Some(63));
        assert_eq!(bytes(&[0x80]).number(), None, "the end is missing");
        assert_eq!(bytes(&[0xff; 12]).number(), None, "more than 64 bits");
    }

    #[test]
    fn a_frame_is_followed_through_prologue_body_and_epilogue() {
        // push rbp; mov rbp, rsp; …; pop rbp; ret
        let own = [0x41, 0x0e, 16, 0x86, 2, 0x43, 0x0d, 6, 0x02, 50, 0x0c, 7, 8, 0xc6];
        let rules = |by_base, top, base| Found::Rules(Rules { by_base, top, code: -8, base });
        assert_eq!(said(&ENTRY, &own, 1000), rules(false, 8, None));
        assert_eq!(said(&ENTRY, &own, 1001), rules(false, 16, Some(-16)));
        assert_eq!(said(&ENTRY, &own, 1004), rules(true, 16, Some(-16)));
        assert_eq!(said(&ENTRY, &own, 1053), rules(true, 16, Some(-16)));
        assert_eq!(said(&ENTRY, &own, 1054), rules(false, 8, None));
    }

    #[test]
    fn states_set_aside_come_back_and_the_outermost_function_has_no_caller() {
        let own = [0x0a, 0x0e, 32, 0x41, 0x0b, 0x41, 0x07, 16];
        let rules = |top| Found::Rules(Rules { by_base: false, top, code: -8, base: None });
        assert_eq!(said(&ENTRY, &own, 1000), rules(32));
        assert_eq!(said(&ENTRY, &own, 1001), rules(8));
        assert_eq!(said(&ENTRY, &own, 1002), Found::End);
    }

    #[test]
    fn what_is_not_understood_or_cut_short_is_nothing() {
        for own in [&[0x0f, 1, 0][..], &[0x0c, 3, 8], &[0x0b], &[0x0e], &[0x3f], &[0x10, 6, 1, 0]] {
            assert_eq!(said(&ENTRY, own, 1000), Found::Nothing, "{own:x?}");
        }
        assert_eq!(rules_at(core::ptr::null(), 1000), Found::Nothing);
        assert_eq!(rules_at([2u8; 16].as_ptr(), 1000), Found::Nothing);
    }
}
