//! Variable-length integers: seven bits per byte, least significant group first, the top bit set
//! on all bytes but the last (LEB128). Signed values are folded first: 0, -1, 1, -2 … become
//! 0, 1, 2, 3 ….

/// Bytes of the longest encoding of a `u64`.
pub const MAX_LEN: usize = 10;

/// Writes `value` to the start of `out` and returns how many bytes that took.
///
/// # Panics
/// If `out` is too short; [`MAX_LEN`] bytes always suffice.
pub fn write(mut value: u64, out: &mut [u8]) -> usize {
    let mut at = 0;
    while value >= 0x80 {
        out[at] = value as u8 | 0x80;
        value >>= 7;
        at += 1;
    }
    out[at] = value as u8;
    at + 1
}

/// Takes one integer from the front of `input`; `None` if it is cut off or exceeds 64 bits.
pub fn read(input: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for (at, &byte) in input.iter().enumerate().take(MAX_LEN) {
        if at == MAX_LEN - 1 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            *input = &input[at + 1..];
            return Some(value);
        }
    }
    None
}

/// Folds a signed difference so that small ones of either sign become small.
#[must_use]
pub fn fold(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// Undoes [`fold`].
#[must_use]
pub fn unfold(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(value: u64, shift in 0u32..64, tail: u8) {
            let value = value >> shift;
            let mut bytes = [tail; MAX_LEN + 1];
            let len = write(value, &mut bytes);
            let mut input = &bytes[..];
            prop_assert_eq!(read(&mut input), Some(value));
            prop_assert_eq!(input.len(), bytes.len() - len);
            prop_assert_eq!(read(&mut &bytes[..len - 1]), None);
        }

        #[test]
        fn folding_loses_nothing(value: i64) {
            prop_assert_eq!(unfold(fold(value)), value);
        }
    }

    #[test]
    fn more_than_64_bits_is_refused() {
        assert_eq!(read(&mut &[0xff; 9][..]), None);
        let mut eleven_bytes = [0x80u8; 11];
        eleven_bytes[10] = 1;
        assert_eq!(read(&mut &eleven_bytes[..]), None);
        let two_to_the_64 = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x02];
        assert_eq!(read(&mut &two_to_the_64[..]), None);
    }
}
