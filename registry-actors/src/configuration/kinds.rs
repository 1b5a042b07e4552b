//! The kinds of values a key can have. Each says how it is written, read, and kept in range.
//!
//! Every kind has the same four items: `WRITTEN_AS`, `unit`, `show` and `read`; a key names its
//! kind in [`config_key!`](crate::config_key). Pure.

#![allow(clippy::trivially_copy_pass_by_ref, reason = "one signature for all kinds")]

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use grus_protocol::ids::Durability;

use super::layers::Shape;
use super::units::{format_bytes, format_duration, parse_bytes, parse_duration};

/// How a value is written in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WrittenAs {
    /// In quotes.
    Text,
    /// Digits.
    Number,
    /// In quotes with a unit, or digits.
    Measure,
    /// `true` or `false`.
    Flag,
    /// In square brackets.
    List,
}

impl WrittenAs {
    pub(super) fn allows(self, shape: Shape) -> bool {
        match self {
            _ if shape == Shape::Untyped => true,
            Self::Text => shape == Shape::Text,
            Self::Number => shape == Shape::Number,
            Self::Measure => matches!(shape, Shape::Text | Shape::Number),
            Self::Flag => shape == Shape::Flag,
            Self::List => shape == Shape::ListOfTexts,
        }
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string() // a JSON string is a TOML basic string
}

fn within<T: PartialOrd>(
    value: T,
    range: Option<RangeInclusive<T>>,
    show: impl Fn(&T) -> String,
) -> Result<T, String> {
    match range {
        Some(range) if !range.contains(&value) => {
            let (value, from, to) = (show(&value), show(range.start()), show(range.end()));
            Err(format!("{value} is not from {from} to {to}"))
        }
        _ => Ok(value),
    }
}

fn unit_of<T>(noun: &str, range: Option<RangeInclusive<T>>, show: impl Fn(&T) -> String) -> String {
    match range {
        None => noun.to_owned(),
        Some(range) => format!("{noun}, from {} to {}", show(range.start()), show(range.end())),
    }
}

macro_rules! unranged {
    ($written_as:ident, $unit:literal) => {
        /// How it is written in a file.
        pub const WRITTEN_AS: WrittenAs = WrittenAs::$written_as;

        /// What it is, for the operator.
        #[must_use]
        pub fn unit(_none: Option<()>) -> String {
            $unit.into()
        }
    };
}

/// A folder.
pub mod folder {
    use super::{Path, PathBuf, WrittenAs, quoted};
    unranged!(Text, "a folder");

    /// The value as TOML.
    #[must_use]
    pub fn show(value: &Path) -> String {
        quoted(&value.to_string_lossy())
    }

    /// The value of `text`.
    ///
    /// # Errors
    /// When there is none.
    pub fn read(text: &str, _none: Option<()>) -> Result<PathBuf, String> {
        if text.is_empty() { Err("a folder is needed".into()) } else { Ok(PathBuf::from(text)) }
    }
}

/// Any text.
pub mod text {
    use super::{WrittenAs, quoted};
    unranged!(Text, "text");

    /// The value as TOML.
    #[must_use]
    pub fn show(value: &str) -> String {
        quoted(value)
    }

    /// The value of `text`.
    ///
    /// # Errors
    /// Never.
    pub fn read(text: &str, _none: Option<()>) -> Result<String, String> {
        Ok(text.to_owned())
    }
}

/// `host:port`.
pub mod address {
    use super::{WrittenAs, quoted};
    unranged!(Text, "host:port");

    /// The value as TOML.
    #[must_use]
    pub fn show(value: &str) -> String {
        quoted(value)
    }

    /// The value of `text`.
    ///
    /// # Errors
    /// When it is not a host and a port.
    pub fn read(text: &str, _none: Option<()>) -> Result<String, String> {
        let wrong = || format!("`{text}` is not host:port, such as 127.0.0.1:6086 or [::1]:6086");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let bare_v6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
        if host.is_empty() || bare_v6 || port.parse::<u16>().is_err() {
            return Err(wrong());
        }
        Ok(text.to_owned())
    }
}

/// `host:port`, or `off` (an empty text is `off` too).
pub mod address_or_off {
    use super::{WrittenAs, address};
    pub use address::show;
    unranged!(Text, "host:port, or \"off\"");

    /// The value of `text`.
    ///
    /// # Errors
    /// When it is not a host and a port.
    pub fn read(text: &str, none: Option<()>) -> Result<String, String> {
        if matches!(text, "off" | "") { Ok("off".into()) } else { address::read(text, none) }
    }
}

/// `host:port`, or nothing.
pub mod address_or_none {
    use super::{WrittenAs, address};
    pub use address::show;
    unranged!(Text, "host:port, or empty");

    /// The value of `text`.
    ///
    /// # Errors
    /// When it is not a host and a port.
    pub fn read(text: &str, none: Option<()>) -> Result<String, String> {
        if text.is_empty() { Ok(String::new()) } else { address::read(text, none) }
    }
}

/// Texts.
pub mod list {
    use super::{WrittenAs, quoted};
    unranged!(List, "a list of texts (in the environment separated by commas)");

    /// The value as TOML.
    #[must_use]
    pub fn show(value: &[String]) -> String {
        let items: Vec<_> = value.iter().map(|item| quoted(item)).collect();
        format!("[{}]", items.join(", "))
    }

    /// The values in `text`, which are separated by commas.
    ///
    /// # Errors
    /// Never.
    pub fn read(text: &str, _none: Option<()>) -> Result<Vec<String>, String> {
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        Ok(items.map(str::to_owned).collect())
    }
}

/// A number.
pub mod count {
    use super::{RangeInclusive, WrittenAs, unit_of, within};

    /// How it is written in a file.
    pub const WRITTEN_AS: WrittenAs = WrittenAs::Number;

    /// What it is, for the operator.
    #[must_use]
    pub fn unit(range: Option<RangeInclusive<u32>>) -> String {
        unit_of("a number", range, show)
    }

    /// The value as TOML.
    #[must_use]
    pub fn show(value: &u32) -> String {
        value.to_string()
    }

    /// The value of `text`.
    ///
    /// # Errors
    /// When it is no number, or out of range.
    pub fn read(text: &str, range: Option<RangeInclusive<u32>>) -> Result<u32, String> {
        let range = range.or(Some(0..=u32::MAX));
        let (from, to) = range.clone().map(RangeInclusive::into_inner).unwrap_or_default();
        let value = text
            .trim()
            .parse()
            .map_err(|_| format!("`{text}` is not a number from {from} to {to}"))?;
        within(value, range, show)
    }
}

/// `true` or `false`.
pub mod flag {
    use super::WrittenAs;
    unranged!(Flag, "true or false");

    /// The value as TOML.
    #[must_use]
    pub fn show(value: &bool) -> String {
        value.to_string()
    }

    /// The value of `text`.
    ///
    /// # Errors
    /// When it is neither.
    pub fn read(text: &str, _none: Option<()>) -> Result<bool, String> {
        text.trim().parse().map_err(|_| format!("`{text}` is neither true nor false"))
    }
}

/// A length of time.
pub mod duration {
    use super::{
        Duration, RangeInclusive, WrittenAs, format_duration, parse_duration, quoted, unit_of,
        within,
    };

    /// How it is written in a file.
    pub const WRITTEN_AS: WrittenAs = WrittenAs::Measure;

    /// What it is, for the operator.
    #[must_use]
    pub fn unit(range: Option<RangeInclusive<Duration>>) -> String {
        unit_of("a duration such as 500ms, 10s, 7d", range, |value| format_duration(*value))
    }

    /// The value as TOML.
    #[must_use]
    pub fn show(value: &Duration) -> String {
        quoted(&format_duration(*value))
    }

    /// The value of `text`.
    ///
    /// # Errors
    /// When it is no duration, or out of range.
    pub fn read(text: &str, range: Option<RangeInclusive<Duration>>) -> Result<Duration, String> {
        within(parse_duration(text)?, range, |value| format_duration(*value))
    }
}

/// A number of bytes.
pub mod bytes_u64 {
    use super::{RangeInclusive, WrittenAs, format_bytes, parse_bytes, quoted, unit_of, within};

    /// How it is written in a file.
    pub const WRITTEN_AS: WrittenAs = WrittenAs::Measure;

    /// What it is, for the operator.
    #[must_use]
    pub fn unit(range: Option<RangeInclusive<u64>>) -> String {
        unit_of("a size such as 65536, 64 KiB, 4 MiB", range, |value| format_bytes(*value))
    }

    /// The value as TOML.
    #[must_use]
    pub fn show(value: &u64) -> String {
        quoted(&format_bytes(*value))
    }

    /// The value of `text`.
    ///
    /// # Errors
    /// When it is no size, or out of range.
    pub fn read(text: &str, range: Option<RangeInclusive<u64>>) -> Result<u64, String> {
        within(parse_bytes(text)?, range, |value| format_bytes(*value))
    }
}

/// A number of bytes below 4 GiB.
pub mod bytes_u32 {
    use super::bytes_u64;
    use super::{RangeInclusive, WrittenAs};

    /// How it is written in a file.
    pub const WRITTEN_AS: WrittenAs = WrittenAs::Measure;

    fn wide(range: Option<RangeInclusive<u32>>) -> RangeInclusive<u64> {
        let (from, to) = range.map_or((0, u32::MAX), RangeInclusive::into_inner);
        u64::from(from)..=u64::from(to)
    }

    /// What it is, for the operator.
    #[must_use]
    pub fn unit(range: Option<RangeInclusive<u32>>) -> String {
        bytes_u64::unit(range.map(|range| wide(Some(range))))
    }

    /// The value as TOML.
    #[must_use]
    pub fn show(value: &u32) -> String {
        bytes_u64::show(&u64::from(*value))
    }

    /// The value of `text`.
    ///
    /// # Errors
    /// When it is no size, or out of range.
    pub fn read(text: &str, range: Option<RangeInclusive<u32>>) -> Result<u32, String> {
        let value = bytes_u64::read(text, Some(wide(range)))?;
        u32::try_from(value).map_err(|_| format!("`{text}` is 4 GiB or more"))
    }
}

/// What an acknowledgement promises.
pub mod durability {
    use super::{Durability, WrittenAs, quoted};
    unranged!(Text, "\"persisted\" or \"replicated\"");

    /// The value as TOML.
    #[must_use]
    pub fn show(value: &Durability) -> String {
        quoted(&value.to_string())
    }

    /// The value of `text`.
    ///
    /// # Errors
    /// When it is neither.
    pub fn read(text: &str, _none: Option<()>) -> Result<Durability, String> {
        [Durability::Persisted, Durability::Replicated]
            .into_iter()
            .find(|level| level.to_string() == text.trim())
            .ok_or_else(|| format!("`{text}` is neither \"persisted\" nor \"replicated\""))
    }
}
