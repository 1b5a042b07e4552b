//! Sizes and durations as people write them: `256 MiB`, `7d`. Pure.

use std::time::Duration;

const SIZE_UNITS: [(&str, u64); 8] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

const DURATION_UNITS_MS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Parses a size into bytes: a plain number, or one followed by `B`, `KiB`..`TiB` (powers of
/// 1024) or `KB`..`TB` (powers of 1000); case and a space before the unit do not matter.
///
/// # Errors
/// One line that says what was wrong.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = split_number(text)?;
    let scale = if unit.is_empty() || unit.eq_ignore_ascii_case("b") {
        1
    } else {
        SIZE_UNITS
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(unit))
            .map(|(_, scale)| *scale)
            .ok_or_else(|| {
                format!("`{text}`: `{unit}` is not a size unit (B, KiB, MiB, GiB, TiB, KB..)")
            })?
    };
    number.checked_mul(scale).ok_or_else(|| format!("`{text}` is too large"))
}

/// Writes bytes so that [`parse_bytes`] reads the same number back.
#[must_use]
pub fn format_bytes(bytes: u64) -> String {
    if bytes == 0 {
        return "0".into();
    }
    for (unit, scale) in SIZE_UNITS[..4].iter().rev() {
        if bytes.is_multiple_of(*scale) {
            return format!("{} {unit}", bytes / scale);
        }
    }
    format!("{bytes} B")
}

/// Parses a duration: terms such as `7d`, `1h 30m`, `250ms`, also with long unit names
/// (`2 minutes`). A plain `0` is allowed; any other number needs a unit.
///
/// # Errors
/// One line that says what was wrong.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    if text.trim() == "0" {
        return Ok(Duration::ZERO);
    }
    let parsed = humantime::parse_duration(text.trim())
        .map_err(|error| format!("`{text}` is not a duration such as 120s or 7d: {error}"))?;
    if u64::try_from(parsed.as_millis()).is_err() {
        return Err(format!("`{text}` is too long"));
    }
    Ok(parsed)
}

/// Writes a duration in its largest exact unit, readable by [`parse_duration`]. Resolution 1 ms.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if ms == 0 {
        return "0".into();
    }
    for (unit, scale) in DURATION_UNITS_MS {
        if ms.is_multiple_of(scale) {
            return format!("{}{unit}", ms / scale);
        }
    }
    unreachable!("every number of ms divides by 1")
}

fn split_number(text: &str) -> Result<(u64, &str), String> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number =
        number.parse().map_err(|_| format!("`{text}` is not a size such as 4 MiB or 65536"))?;
    Ok((number, unit.trim_start()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_read_with_any_unit() {
        for (text, bytes) in [
            ("0", 0),
            ("65536", 65_536),
            ("16MiB", 16 << 20),
            ("16 mib", 16 << 20),
            (" 2 GB ", 2_000_000_000),
            ("7 B", 7),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn wrong_sizes_are_refused_with_the_text_in_the_message() {
        for text in ["", "MiB", "-1", "1.5 MiB", "4 MiBs", "18446744073709551615 TiB"] {
            let message = parse_bytes(text).unwrap_err();
            assert!(message.contains(text), "{message}");
        }
    }

    #[test]
    fn durations_are_read_with_any_unit() {
        for (text, ms) in [
            ("0", 0),
            ("250ms", 250),
            ("120s", 120_000),
            ("1h 30m", 5_400_000),
            ("7d", 604_800_000),
            ("2 minutes", 120_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "12", "x", "-3s", "99999999999999999d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(bytes in any::<u64>(), ms in 0..u64::MAX / 2_000_000) {
            prop_assert_eq!(parse_bytes(&format_bytes(bytes)), Ok(bytes));
            let duration = Duration::from_millis(ms);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }
    }
}
