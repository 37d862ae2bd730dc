//! Quantities as people write them on the command line and in `thresholds.toml`:
//! `5%`, `256 KiB`, `4m`.

use std::time::Duration;

/// Reads a share: `5%`, `2.5 %`. The sign is not optional, because 5 and 0.05 are both plausible.
///
/// # Errors
/// A lower-case fragment that says what a share looks like.
pub fn share(text: &str) -> Result<f64, String> {
    let wrong = || format!("`{text}` is no share: write it with a percent sign, as in `5%`");
    let number = text.trim().strip_suffix('%').ok_or_else(wrong)?.trim();
    let percent: f64 = number.parse().map_err(|_| wrong())?;
    if !(percent.is_finite() && percent >= 0.0) {
        return Err(wrong());
    }
    Ok(percent / 100.0)
}

/// Reads a number of bytes: `4096`, `64 KiB`, `1MiB`.
///
/// # Errors
/// A lower-case fragment that says what a size looks like.
pub fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no size: write it as in `4096`, `64 KiB` or `1 MiB`");
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..end].parse().map_err(|_| wrong())?;
    let unit = match text[end..].trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(wrong()),
    };
    number.checked_mul(unit).ok_or_else(wrong)
}

/// Reads a time span: `90s`, `4m`, `1h30m`.
///
/// # Errors
/// A lower-case fragment that says what a time span looks like.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no time span: write it as in `90s`, `4m` or `1h30m`");
    let mut seconds = 0_u64;
    let mut digits = String::new();
    for c in text.trim().chars() {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        let unit = match c {
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return Err(wrong()),
        };
        let number: u64 = digits.parse().map_err(|_| wrong())?;
        let part = number.checked_mul(unit).ok_or_else(wrong)?;
        seconds = seconds.checked_add(part).ok_or_else(wrong)?;
        digits.clear();
    }
    if !digits.is_empty() || seconds == 0 {
        return Err(wrong());
    }
    Ok(Duration::from_secs(seconds))
}

/// A time span as people say it: `4 m 05 s`, `48 s`.
#[must_use]
pub fn spoken(span: Duration) -> String {
    let seconds = span.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} m {s:02} s"),
        (h, m, _) => format!("{h} h {m:02} m"),
    }
}

/// A number of bytes as people say it: `3.0 MiB`.
#[must_use]
pub fn spoken_bytes(bytes: u64) -> String {
    let value = bytes as f64;
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", value / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", value / 1_048_576.0),
        _ => format!("{:.1} GiB", value / 1_073_741_824.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_need_their_percent_sign() {
        assert_eq!(share("5%"), Ok(0.05));
        assert_eq!(share(" 2.5 % "), Ok(0.025));
        for bad in ["5", "0.05", "-1%", "five%", "nan%", "inf%", ""] {
            assert!(share(bad).unwrap_err().contains("percent sign"), "{bad}");
        }
    }

    #[test]
    fn sizes_take_binary_units_only() {
        assert_eq!(bytes("256 KiB"), Ok(256 << 10));
        assert_eq!(bytes("4096"), Ok(4096));
        for bad in ["256 KB", "-1", "1.5 MiB", "", "99999999999 GiB"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn time_spans_add_their_parts_and_need_a_unit() {
        assert_eq!(duration("4m"), Ok(Duration::from_secs(240)));
        assert_eq!(duration("1h30m5s"), Ok(Duration::from_secs(5405)));
        for bad in ["4", "4 minutes", "0s", "", "m", "99999999999999999999h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert_eq!(spoken(Duration::from_secs(245)), "4 m 05 s");
    }
}
