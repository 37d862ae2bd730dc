//! Logarithm and exponential from the four exactly rounded operations, the same to the last bit on
//! every machine, which those of a system's library are not.

const LN_2: f64 = std::f64::consts::LN_2;

/// Natural logarithm of a normal positive number, to about 1e-15.
pub(crate) fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    #[expect(clippy::cast_possible_wrap, reason = "an exponent of eleven bits")]
    let exponent = (bits >> 52) as i64 - 1023;
    // Mantissa in [1, 2): ln m = 2 artanh((m − 1) / (m + 1)), a series in thirds at most.
    let m = f64::from_bits((bits & ((1 << 52) - 1)) | (1023 << 52));
    let z = (m - 1.0) / (m + 1.0);
    let square = z * z;
    let mut term = z;
    let mut sum = 0.0;
    let mut n = 1.0;
    while n < 41.0 {
        sum += term / n;
        term *= square;
        n += 2.0;
    }
    exponent as f64 * LN_2 + 2.0 * sum
}

/// Exponential for results that are normal numbers, to about 1e-15.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within ±1023")]
pub(crate) fn exp(x: f64) -> f64 {
    let whole = (x / LN_2).floor().clamp(-1022.0, 1023.0);
    let rest = x - whole * LN_2;
    let mut term = 1.0;
    let mut sum = 1.0;
    let mut n = 1.0;
    while n < 24.0 {
        term = term * rest / n;
        sum += term;
        n += 1.0;
    }
    sum * f64::from_bits(((whole as i64 + 1023) as u64) << 52)
}

/// `x` to the power of `y`, `x` positive.
pub(crate) fn pow(x: f64, y: f64) -> f64 {
    exp(y * ln(x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_agree_with_the_library_to_twelve_digits() {
        for x in [0.001, 0.5, 1.0, 1.5, 2.0, 3.0, 1e6, 1e12] {
            assert!((ln(x) - x.ln()).abs() <= 1e-12 * x.ln().abs().max(1.0), "{x}");
        }
        for x in [-20.0, -1.0, 0.0, 0.3, 1.0, 10.0, 30.0] {
            assert!((exp(x) / x.exp() - 1.0).abs() < 1e-12, "{x}");
        }
        assert!((pow(2.0, 10.0) - 1024.0).abs() < 1e-9);
    }
}
