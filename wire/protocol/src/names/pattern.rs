//! Patterns of topic names: what a subscription of a group is made of.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{NAME_BYTES_MAX, NameError, TopicName, check_any_topic_name};

/// A topic's name, or a pattern: a name in which `*` stands for any characters, also none. A
/// pattern matches no system topic; the name of one matches itself.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPattern(Arc<str>);

fn check_pattern(text: &str) -> Result<(), NameError> {
    if !text.contains('*') {
        return check_any_topic_name(text);
    }
    if text.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong { bytes: text.len() });
    }
    for (at, character) in text.char_indices() {
        let inside = at > 0 && matches!(character, '_' | '.' | '-');
        if !character.is_ascii_alphanumeric() && character != '*' && !inside {
            return Err(NameError::Character { character, at });
        }
    }
    Ok(())
}

impl TopicPattern {
    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The topic, when it is the name of one.
    pub fn topic(&self) -> Option<TopicName> {
        TopicName::parse_any(&self.0).ok()
    }

    /// Whether it is the name of one topic.
    pub fn is_name(&self) -> bool {
        !self.0.contains('*')
    }

    /// Whether it is the topic's name, or a pattern that the name fits.
    pub fn matches(&self, topic: &TopicName) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let name = topic.as_str();
        let Some(last) = parts.next_back() else { return name == first };
        if topic.is_system() {
            return false;
        }
        let Some(mut rest) = name.strip_prefix(first) else { return false };
        // The leftmost place of each part leaves the most for those behind it.
        for part in parts {
            let Some(at) = rest.find(part) else { return false };
            rest = &rest[at + part.len()..];
        }
        rest.ends_with(last)
    }
}

impl From<&TopicName> for TopicPattern {
    fn from(topic: &TopicName) -> Self {
        Self(topic.as_str().into())
    }
}

impl FromStr for TopicPattern {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        check_pattern(text)?;
        Ok(Self(text.into()))
    }
}

impl TryFrom<&str> for TopicPattern {
    type Error = NameError;

    fn try_from(text: &str) -> Result<Self, NameError> {
        text.parse()
    }
}

impl fmt::Display for TopicPattern {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl fmt::Debug for TopicPattern {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, out)
    }
}

impl Serialize for TopicPattern {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        output.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for TopicPattern {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Text;
        impl serde::de::Visitor<'_> for Text {
            type Value = TopicPattern;
            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a name or pattern of topics")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<TopicPattern, E> {
                text.parse().map_err(E::custom)
            }
        }
        input.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> TopicPattern {
        text.parse().unwrap()
    }

    fn topic(name: &str) -> TopicName {
        TopicName::parse_any(name).unwrap()
    }

    #[test]
    fn names_match_themselves_and_patterns_what_fits() {
        let cases = [
            ("orders", "orders", true),
            ("orders", "orders2", false),
            ("orders.*", "orders.eu", true),
            ("orders.*", "orders.eu.west", true),
            ("orders.*", "orders.", true),
            ("orders.*", "orders", false),
            ("*", "anything", true),
            ("*", "%DLQ%g", false),
            ("%DLQ%g", "%DLQ%g", true),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("a*b*a", "abba", true),
            ("*.eu.*", "orders.eu.west", true),
            ("*eu*west", "orders.eu", false),
            ("a**b", "ab", true),
        ];
        for (text, name, expected) in cases {
            assert_eq!(pattern(text).matches(&topic(name)), expected, "{text} {name}");
        }
        assert_eq!(pattern("orders").topic(), Some(topic("orders")));
        assert!(pattern("orders").is_name() && !pattern("*").is_name());
        assert_eq!(pattern("orders.*").topic(), None);
    }

    #[test]
    fn what_no_name_could_be_made_of_is_no_pattern() {
        let long = format!("{}*", "a".repeat(NAME_BYTES_MAX));
        for bad in ["", "../*", "a b*", "%DLQ%*", ".*", "a/*", "ä*", &long] {
            assert!(bad.parse::<TopicPattern>().is_err(), "{bad}");
        }
        let wire = |text: &str| rmp_serde::to_vec(text).unwrap();
        assert_eq!(
            rmp_serde::from_slice::<TopicPattern>(&wire("orders.*")).unwrap(),
            pattern("orders.*")
        );
        assert!(rmp_serde::from_slice::<TopicPattern>(&wire("%DLQ%*")).is_err());
    }

    /// By the definition: a star is any number of characters.
    fn fits(text: &[u8], name: &[u8]) -> bool {
        match text.split_first() {
            None => name.is_empty(),
            Some((b'*', rest)) => (0..=name.len()).any(|skip| fits(rest, &name[skip..])),
            Some((one, rest)) => name.first() == Some(one) && fits(rest, &name[1..]),
        }
    }

    proptest! {
        #[test]
        fn matching_is_that_of_the_definition(text in "[ab*][ab.*]{0,8}", name in "[ab][ab.]{0,9}") {
            let expected = fits(text.as_bytes(), name.as_bytes());
            prop_assert_eq!(pattern(&text).matches(&topic(&name)), expected);
        }
    }
}
