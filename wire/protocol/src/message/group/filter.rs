//! Which messages a member of a group wants.

use std::fmt;

use serde::de::{Error as _, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::batch::may_contain;
use crate::limits::BatchLimits;

/// Most tags of one filter.
pub const TAGS_MAX: usize = 64;

/// Which messages are wanted. Travels as an array that begins with its number.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum MessageFilter {
    /// `[0]`: all of them.
    All,
    /// `[1, [tag]]`: those with one of these tags.
    Tags(Vec<String>),
    /// `[2, text]`: those for whose headers an expression of SQL92 is true. Not served yet.
    Sql(String),
}

/// What is wrong with a filter.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FilterError {
    /// No tag, or too many.
    #[error("a filter has 1 to {TAGS_MAX} tags")]
    Count,
    /// A tag that no message can have.
    #[error("a tag has 1 to {} bytes", BatchLimits::PRODUCE.tag_bytes_max)]
    Tag,
    /// Known to the protocol, but not served.
    #[error("filters by SQL are not served yet")]
    Unserved,
}

impl MessageFilter {
    /// Reads `a || b || c`; `*`, or nothing, is all messages.
    ///
    /// # Errors
    /// When a tag is empty or too long, or there are too many.
    pub fn parse_tags(text: &str) -> Result<Self, FilterError> {
        if matches!(text.trim(), "" | "*") {
            return Ok(Self::All);
        }
        let mut tags: Vec<_> = text.split("||").map(|tag| tag.trim().to_owned()).collect();
        tags.sort_unstable();
        tags.dedup();
        let filter = Self::Tags(tags);
        filter.check()?;
        Ok(filter)
    }

    /// Whether it is one that a broker serves.
    ///
    /// # Errors
    /// When it breaks a limit, or is of a sort that is not served yet.
    pub fn check(&self) -> Result<(), FilterError> {
        let tag_bytes_max = usize::try_from(BatchLimits::PRODUCE.tag_bytes_max).unwrap_or(0);
        match self {
            Self::Tags(tags) if !(1..=TAGS_MAX).contains(&tags.len()) => Err(FilterError::Count),
            Self::Tags(tags)
                if tags.iter().any(|tag| tag.is_empty() || tag.len() > tag_bytes_max) =>
            {
                Err(FilterError::Tag)
            }
            Self::All | Self::Tags(_) => Ok(()),
            Self::Sql(_) => Err(FilterError::Unserved),
        }
    }

    /// Whether a message with this tag is wanted.
    pub fn matches(&self, tag: Option<&str>) -> bool {
        match self {
            Self::All | Self::Sql(_) => true,
            Self::Tags(tags) => tag.is_some_and(|tag| tags.iter().any(|wanted| wanted == tag)),
        }
    }

    /// Whether a batch with this bloom of tags may hold a message that is wanted; if not, it
    /// holds none.
    pub fn may_match(&self, bloom: u64) -> bool {
        match self {
            Self::All | Self::Sql(_) => true,
            Self::Tags(tags) => tags.iter().any(|tag| may_contain(bloom, tag)),
        }
    }
}

impl fmt::Display for MessageFilter {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => out.write_str("*"),
            Self::Tags(tags) => out.write_str(&tags.join(" || ")),
            Self::Sql(text) => write!(out, "sql: {text}"),
        }
    }
}

impl Serialize for MessageFilter {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => (0_u8,).serialize(output),
            Self::Tags(tags) => (1_u8, tags).serialize(output),
            Self::Sql(text) => (2_u8, text).serialize(output),
        }
    }
}

impl<'de> Deserialize<'de> for MessageFilter {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Which;
        impl<'de> Visitor<'de> for Which {
            type Value = MessageFilter;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("the array of MessageFilter")
            }

            fn visit_seq<A: SeqAccess<'de>>(
                self,
                mut elements: A,
            ) -> Result<MessageFilter, A::Error> {
                let short = || A::Error::custom("MessageFilter is too short");
                let filter = match elements.next_element::<u8>()? {
                    Some(0) => MessageFilter::All,
                    Some(1) => MessageFilter::Tags(elements.next_element()?.ok_or_else(short)?),
                    Some(2) => MessageFilter::Sql(elements.next_element()?.ok_or_else(short)?),
                    _ => return Err(A::Error::custom("unknown MessageFilter")),
                };
                while elements.next_element::<IgnoredAny>()?.is_some() {}
                Ok(filter)
            }
        }
        input.deserialize_seq(Which)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::bloom_of;

    #[test]
    fn tags_are_read_as_people_write_them() {
        let tags = |tags: &[&str]| {
            Ok(MessageFilter::Tags(tags.iter().map(|&tag| tag.to_owned()).collect()))
        };
        assert_eq!(MessageFilter::parse_tags("a"), tags(&["a"]));
        assert_eq!(MessageFilter::parse_tags(" b||a ||  b"), tags(&["a", "b"]));
        for all in ["", "*", " * "] {
            assert_eq!(MessageFilter::parse_tags(all), Ok(MessageFilter::All));
        }
        assert_eq!(MessageFilter::parse_tags("a ||"), Err(FilterError::Tag));
        assert_eq!(MessageFilter::parse_tags(&"a".repeat(256)), Err(FilterError::Tag));
        let many: Vec<_> = (0..=TAGS_MAX).map(|number| number.to_string()).collect();
        assert_eq!(MessageFilter::parse_tags(&many.join("||")), Err(FilterError::Count));
        assert_eq!(MessageFilter::Tags(Vec::new()).check(), Err(FilterError::Count));
        assert_eq!(MessageFilter::Sql("a = 1".into()).check(), Err(FilterError::Unserved));
    }

    #[test]
    fn it_wants_its_tags_and_nothing_without_one() {
        let filter = MessageFilter::parse_tags("created || paid").unwrap();
        assert_eq!(filter.to_string(), "created || paid");
        assert!(filter.matches(Some("paid")) && filter.matches(Some("created")));
        assert!(!filter.matches(Some("pai")) && !filter.matches(None));
        assert!(filter.may_match(bloom_of(["paid"])) && filter.may_match(u64::MAX));
        assert!(!filter.may_match(bloom_of(["a"])) && !filter.may_match(0));
        assert!(MessageFilter::All.may_match(0) && MessageFilter::All.matches(None));
    }
}
