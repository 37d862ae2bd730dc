//! CRC-32C (Castagnoli), the checksum of chunks: reflected polynomial `0x82F63B78`, initial value
//! and final inversion of all ones. The nine bytes `123456789` give `0xE3069283`.
//!
//! Cost: eight table look-ups per eight bytes; the tables take 8 KiB.

const POLYNOMIAL: u32 = 0x82F6_3B78;

/// `TABLES[k][b]`: what byte `b`, followed by `k` zero bytes, contributes to the remainder.
static TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0u32; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ (POLYNOMIAL & (crc & 1).wrapping_neg());
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut k = 1;
    while k < 8 {
        let mut byte = 0;
        while byte < 256 {
            let shorter = tables[k - 1][byte];
            tables[k][byte] = (shorter >> 8) ^ tables[0][(shorter & 0xff) as usize];
            byte += 1;
        }
        k += 1;
    }
    tables
}

/// The CRC-32C of `bytes`.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    let byte_of = |word: u32, shift: u32| ((word >> shift) & 0xff) as usize;
    let mut crc = !0u32;
    let mut eights = bytes.chunks_exact(8);
    for eight in &mut eights {
        let low = crc ^ u32::from_le_bytes([eight[0], eight[1], eight[2], eight[3]]);
        let high = u32::from_le_bytes([eight[4], eight[5], eight[6], eight[7]]);
        crc = TABLES[7][byte_of(low, 0)]
            ^ TABLES[6][byte_of(low, 8)]
            ^ TABLES[5][byte_of(low, 16)]
            ^ TABLES[4][byte_of(low, 24)]
            ^ TABLES[3][byte_of(high, 0)]
            ^ TABLES[2][byte_of(high, 8)]
            ^ TABLES[1][byte_of(high, 16)]
            ^ TABLES[0][byte_of(high, 24)];
    }
    for &byte in eights.remainder() {
        crc = (crc >> 8) ^ TABLES[0][byte_of(crc ^ u32::from(byte), 0)];
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bit_by_bit(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0u32, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| {
                (crc >> 1) ^ (POLYNOMIAL & (crc & 1).wrapping_neg())
            })
        })
    }

    #[test]
    fn the_check_value_of_the_catalogue_is_met() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(crc32c(b""), 0);
    }

    proptest! {
        #[test]
        fn tables_and_long_division_agree(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(crc32c(&bytes), bit_by_bit(&bytes));
        }
    }
}
