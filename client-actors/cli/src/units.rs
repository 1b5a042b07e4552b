//! Times and sizes as people write them.

use std::time::{Duration, SystemTime};

const SIZES: [(&str, u64); 9] = [
    ("b", 1),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
];

/// A duration such as `2s`, `1h 30m`, `7d`.
///
/// # Errors
/// One line that says what was expected.
pub fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| format!("`{text}` is not a duration such as 500ms, 2s, 7d"))
}

/// A duration in which something must be able to happen: more than nothing.
///
/// # Errors
/// As [`duration`].
pub fn limit(text: &str) -> Result<Duration, String> {
    let limit = duration(text)?;
    if limit.is_zero() { Err(format!("`{text}` is no time at all")) } else { Ok(limit) }
}

/// A number of bytes such as `4096`, `16MiB`, `10 GB` (binary and decimal units differ).
///
/// # Errors
/// One line that says what was expected.
pub fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a size such as 4096, 16MiB, 10GB");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    let unit = text[digits..].trim().to_ascii_lowercase();
    if unit.is_empty() {
        return Ok(number);
    }
    let known = SIZES.iter().find(|(name, _)| *name == unit);
    known.and_then(|(_, size)| number.checked_mul(*size)).ok_or_else(wrong)
}

/// A point in time in milliseconds since 1970, from RFC 3339 (`2026-11-21T19:40:00Z`).
///
/// # Errors
/// One line that says what was expected.
pub fn time_ms(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not an RFC3339 time such as 2026-11-21T19:40:00Z");
    let time = humantime::parse_rfc3339(text).map_err(|_| wrong())?;
    let since = time.duration_since(SystemTime::UNIX_EPOCH).map_err(|_| wrong())?;
    u64::try_from(since.as_millis()).map_err(|_| wrong())
}

/// Milliseconds since 1970 as RFC 3339 with milliseconds, in UTC.
pub fn rfc3339(ms: u64) -> String {
    // humantime ends with the year 9999.
    const LAST_MS: u64 = 253_402_300_799_999;
    let time = SystemTime::UNIX_EPOCH + Duration::from_millis(ms.min(LAST_MS));
    humantime::format_rfc3339_millis(time).to_string()
}

/// Bytes as a person reads them, with one decimal.
pub fn readable(bytes: u64) -> String {
    const STEPS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    for (name, size) in STEPS {
        if bytes >= size {
            let tenths = u128::from(bytes) * 10 / u128::from(size);
            return format!("{}.{} {name}", tenths / 10, tenths % 10);
        }
    }
    format!("{bytes} B")
}

/// `number` with its thousands set apart.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(bytes("0"), Ok(0));
        assert_eq!(bytes("16MiB"), Ok(16 << 20));
        assert_eq!(bytes("10 GB"), Ok(10_000_000_000));
        assert_eq!(bytes("7kb"), Ok(7_000));
        for wrong in ["", "MiB", "1.5GB", "-1", "1XB", "99999999999999999999", "99999999TiB"] {
            assert!(bytes(wrong).unwrap_err().contains(wrong), "{wrong}");
        }
    }

    #[test]
    fn times_there_and_back() {
        assert_eq!(time_ms("2026-11-21T19:40:00.250Z"), Ok(1_795_290_000_250));
        assert_eq!(rfc3339(1_795_290_000_250), "2026-11-21T19:40:00.250Z");
        assert_eq!(rfc3339(u64::MAX), "9999-12-31T23:59:59.999Z");
        assert!(time_ms("1969-12-31T23:59:59Z").is_err());
        assert!(duration("2s").is_ok() && duration("two").is_err());
        assert!(limit("1ms").is_ok() && limit("two").is_err() && limit("0s").is_err());
    }

    #[test]
    fn people_read_them() {
        assert_eq!(readable(1023), "1023 B");
        assert_eq!(readable(1536), "1.5 KiB");
        assert_eq!(readable(3 << 30), "3.0 GiB");
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1,234,567");
    }
}
