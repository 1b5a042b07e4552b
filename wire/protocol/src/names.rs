//! Names a user may choose, checked once where they enter.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

mod pattern;

pub use pattern::TopicPattern;

/// Most bytes of a user's name.
pub const NAME_BYTES_MAX: usize = 200;
/// Most letters of the word in a system name's `%WORD%` prefix.
pub const SYSTEM_WORD_BYTES_MAX: usize = 20;
/// The word of the system names of dead-letter topics.
pub const DEAD_LETTER_WORD: &str = "DLQ";
/// Stands for no group that can be joined: where its first dead-letter queue is, the names of producers
/// are kept. So they have a home as groups have theirs, by which every registry knows its way already.
const PRODUCER_NAMES: &str = "grus.producer-names";
/// Starts the text of every [`NameError`], so that it is known again behind serde.
pub(crate) const NAME_ERROR_MARK: &str = "invalid name: ";

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameError {
    /// It has no characters.
    #[error("invalid name: it is empty")]
    Empty,
    /// It has too many bytes.
    #[error("invalid name: {bytes} bytes, at most {NAME_BYTES_MAX} are allowed")]
    TooLong {
        /// Bytes of the name, without a system prefix.
        bytes: usize,
    },
    /// It has a character that names do not have, or not at that place.
    #[error(
        "invalid name: character {character:?} at byte {at}; allowed are A-Z a-z 0-9, and _ . - \
         except at the start"
    )]
    Character {
        /// Which one.
        character: char,
        /// Where, in bytes.
        at: usize,
    },
    /// The word of a system prefix is not 1 to 20 letters A-Z, or the prefix has no end.
    #[error("invalid name: a system prefix is %WORD% with 1 to {SYSTEM_WORD_BYTES_MAX} of A-Z")]
    Prefix,
}

/// Checks a user's name: `[A-Za-z0-9][A-Za-z0-9_.-]{0,199}`.
fn check_user_name(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong { bytes: name.len() });
    }
    for (at, character) in name.char_indices() {
        let inside = at > 0 && matches!(character, '_' | '.' | '-');
        if !character.is_ascii_alphanumeric() && !inside {
            return Err(NameError::Character { character, at });
        }
    }
    Ok(())
}

fn check_system_word(word: &str) -> Result<(), NameError> {
    let fits = (1..=SYSTEM_WORD_BYTES_MAX).contains(&word.len());
    let letters = word.bytes().all(|byte| byte.is_ascii_uppercase());
    if fits && letters { Ok(()) } else { Err(NameError::Prefix) }
}

macro_rules! name_type {
    ($(#[$meta:meta])* $name:ident, $check:path) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name's text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<&str> for $name {
            type Error = NameError;

            fn try_from(name: &str) -> Result<Self, NameError> {
                check_user_name(name)?;
                Ok(Self(name.into()))
            }
        }

        impl std::str::FromStr for $name {
            type Err = NameError;

            fn from_str(name: &str) -> Result<Self, NameError> {
                Self::try_from(name)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, out)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
                output.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
                struct Text;
                impl serde::de::Visitor<'_> for Text {
                    type Value = $name;
                    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                        out.write_str("a name")
                    }
                    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<$name, E> {
                        $check(name).map_err(E::custom)?;
                        Ok($name(name.into()))
                    }
                }
                input.deserialize_str(Text)
            }
        }
    };
}

name_type! {
    /// A topic's name. `try_from` takes what a user may choose; a name read from the wire may
    /// also be a system name, which only [`TopicName::system`] makes.
    TopicName, check_any_topic_name
}

name_type! {
    /// The name under which an idempotent producer comes back after a restart. Same rule as the
    /// names of topics.
    ProducerName, check_user_name
}

name_type! {
    /// The name of a schedule, unique in its queue. Same rule as the names of topics.
    ScheduleName, check_user_name
}

name_type! {
    /// The name of a consumer group. Same rule as the names of topics.
    GroupName, check_user_name
}

name_type! {
    /// The stable name of a group's member, by which it comes back after a restart. Same rule as
    /// the names of topics.
    InstanceName, check_user_name
}

impl GroupName {
    /// The topic of the group's dead letters: `%DLQ%` and its name.
    pub fn dead_letters(&self) -> TopicName {
        TopicName(format!("%{DEAD_LETTER_WORD}%{self}").into())
    }

    /// The group whose dead-letter topic has this name, if it is one.
    pub fn of_dead_letters(topic: &TopicName) -> Option<Self> {
        let (word, name) = topic.as_str().strip_prefix('%')?.split_once('%')?;
        (word == DEAD_LETTER_WORD).then(|| Self(name.into()))
    }

    /// The name that stands for the names of producers.
    pub fn of_producer_names() -> Self {
        Self(PRODUCER_NAMES.into())
    }

    /// Whether it stands for something else than a group: nobody joins it.
    pub fn is_reserved(&self) -> bool {
        self.as_str() == PRODUCER_NAMES
    }
}

fn check_any_topic_name(name: &str) -> Result<(), NameError> {
    let Some(rest) = name.strip_prefix('%') else { return check_user_name(name) };
    let (word, user_name) = rest.split_once('%').ok_or(NameError::Prefix)?;
    check_system_word(word)?;
    check_user_name(user_name)
}

impl TopicName {
    /// The system name `%WORD%name`, e.g. the retry topic of a group.
    ///
    /// # Errors
    /// When `word` is not 1 to 20 letters A-Z, or `name` is not a valid user name.
    pub fn system(word: &str, name: &str) -> Result<Self, NameError> {
        check_system_word(word)?;
        check_user_name(name)?;
        Ok(Self(format!("%{word}%{name}").into()))
    }

    /// Reads a name of either sort: a user's, or a system name with one prefix.
    ///
    /// # Errors
    /// When it is neither.
    pub fn parse_any(name: &str) -> Result<Self, NameError> {
        check_any_topic_name(name)?;
        Ok(Self(name.into()))
    }

    /// Judges a name of either sort without making one.
    pub(crate) fn check_any(name: &str) -> Result<(), NameError> {
        check_any_topic_name(name)
    }

    /// Whether it has a `%WORD%` prefix.
    pub fn is_system(&self) -> bool {
        self.0.starts_with('%')
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_names_of_the_rule_pass_and_no_others() {
        let longest = "a".repeat(200);
        for good in ["a", "Z9", "0", "orders.eu-west_1", "a..b", longest.as_str()] {
            assert_eq!(TopicName::try_from(good).unwrap().as_str(), good);
        }
        assert_eq!(TopicName::try_from(""), Err(NameError::Empty));
        let too_long = "a".repeat(256);
        assert_eq!(TopicName::try_from(&*too_long), Err(NameError::TooLong { bytes: 256 }));
        for bad in ["../x", ".", "-a", "_a", "a b", "a/b", "a\0", "ä", "%DLQ%g", "a\n", "a%"] {
            assert!(matches!(TopicName::try_from(bad), Err(NameError::Character { .. })), "{bad}");
        }
    }

    #[test]
    fn a_system_name_has_exactly_one_prefix() {
        let name = TopicName::system("DLQ", "group-1").unwrap();
        assert_eq!(name.as_str(), "%DLQ%group-1");
        assert!(name.is_system());
        assert_eq!(TopicName::parse_any("%DLQ%group-1"), Ok(name));
        for bad in ["%DLQ%%RETRY%g", "%dlq%g", "%%g", "%DLQ", "%DLQ%", "%AAAAAAAAAAAAAAAAAAAAA%g"] {
            assert!(TopicName::parse_any(bad).is_err(), "{bad}");
        }
        assert!(TopicName::system("DLQ", "%RETRY%g").is_err());
        assert!(TopicName::system("", "g").is_err());
    }

    #[test]
    fn the_wire_takes_system_topics_but_no_bad_names() {
        let wire = |name: &str| rmp_serde::to_vec(name).unwrap();
        assert!(rmp_serde::from_slice::<TopicName>(&wire("%DLQ%g")).is_ok());
        assert!(rmp_serde::from_slice::<ProducerName>(&wire("%DLQ%g")).is_err());
        let error = rmp_serde::from_slice::<TopicName>(&wire("../x")).unwrap_err();
        assert!(error.to_string().starts_with(NAME_ERROR_MARK), "{error}");
    }

    #[test]
    fn a_group_and_its_dead_letter_topic_name_each_other() {
        let group = GroupName::try_from("billing.eu").unwrap();
        let topic = group.dead_letters();
        assert_eq!(topic, TopicName::parse_any("%DLQ%billing.eu").unwrap());
        assert_eq!(GroupName::of_dead_letters(&topic), Some(group));
        assert!(!GroupName::of_dead_letters(&topic).unwrap().is_reserved());
        let reserved = GroupName::try_from(GroupName::of_producer_names().as_str()).unwrap();
        assert!(reserved.is_reserved());
        for other in ["billing.eu", "%RETRY%billing.eu"] {
            let other = TopicName::parse_any(other).unwrap();
            assert_eq!(GroupName::of_dead_letters(&other), None);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_reads_back_equal(text in "\\PC{0,220}") {
            if let Ok(name) = TopicName::parse_any(&text) {
                prop_assert_eq!(name.as_str(), &text);
                let bytes = rmp_serde::to_vec(&name).unwrap();
                prop_assert_eq!(rmp_serde::from_slice::<TopicName>(&bytes).unwrap(), name);
            }
        }

        #[test]
        fn every_name_of_the_pattern_passes(text in "[A-Za-z0-9][A-Za-z0-9_.-]{0,199}") {
            prop_assert!(TopicName::try_from(&*text).is_ok());
        }
    }
}
