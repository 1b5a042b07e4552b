//! The registry's commands, as they stand in its log.
//!
//! One item of an entry each: the item's kind says which command, its bytes are a version byte
//! and a MessagePack map. The form of a kind never changes: a new form is a new kind, which an older
//! build knows that it does not know.

use bytes::Bytes;
use grus_protocol::ids::{BrokerAddress, BrokerId, Durability, ShardId, TopicId};
use grus_protocol::message::{DEDUP_WINDOW_MS_DEFAULT, TopicKind, TopicSettings};
use grus_protocol::names::TopicName;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Version of all commands and parts written by this build.
pub const FORMAT_VERSION: u8 = 1;
/// Kind of a [`CreateTopic`].
pub const KIND_CREATE_TOPIC: u16 = 64;
/// Kind of an [`AlterTopic`].
pub const KIND_ALTER_TOPIC: u16 = 65;
/// Kind of a [`DeleteTopic`].
pub const KIND_DELETE_TOPIC: u16 = 66;
/// Kind of a [`RegisterBroker`].
pub const KIND_REGISTER_BROKER: u16 = 67;

/// A change of the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Makes a topic.
    CreateTopic(CreateTopic),
    /// Changes a topic.
    AlterTopic(AlterTopic),
    /// Removes a topic.
    DeleteTopic(DeleteTopic),
    /// Names a broker, where it is and which shards it leads.
    RegisterBroker(RegisterBroker),
}

/// Makes a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateTopic {
    /// Its name.
    pub name: TopicName,
    /// Its incarnation, drawn at random by the proposer so that apply draws nothing. Never 0.
    pub id: TopicId,
    /// How it is kept.
    pub settings: StoredSettings,
}

/// Changes a topic; `None` leaves a setting as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlterTopic {
    /// Its name.
    pub name: TopicName,
    /// The incarnation meant; 0: whichever is there.
    pub id: TopicId,
    /// Number of queues.
    pub queues: Option<u32>,
    /// Retention by age in milliseconds; 0: no limit.
    pub retention_ms: Option<u64>,
    /// Retention by bytes of each queue; 0: no limit.
    pub retention_bytes: Option<u64>,
    /// How long dedup keys are remembered, in milliseconds; 0: none are taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedup_window_ms: Option<u64>,
}

/// Removes a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeleteTopic {
    /// Its name.
    pub name: TopicName,
    /// The incarnation meant; 0: whichever is there.
    pub id: TopicId,
}

/// Names a broker, where it is and which shards it leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegisterBroker {
    /// The broker.
    pub broker: BrokerId,
    /// Host name or IP address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The shards on which it takes queues. Those it had and does not name stay its own, but get
    /// no new queues.
    pub shards: Vec<(ShardId, Durability)>,
}

impl RegisterBroker {
    /// Where it can be reached.
    pub fn address(&self) -> BrokerAddress {
        BrokerAddress { id: self.broker, host: self.host.clone(), port: self.port }
    }
}

/// [`TopicSettings`] as they are stored: named, so that they can grow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredSettings {
    queues: u32,
    durability: Durability,
    retention_ms: u64,
    retention_bytes: u64,
    kind: TopicKind,
    /// Left out where it is the default, as in topics that were made before there was one.
    #[serde(default = "dedup_window_ms_default", skip_serializing_if = "is_default_window")]
    dedup_window_ms: u64,
}

const fn dedup_window_ms_default() -> u64 {
    DEDUP_WINDOW_MS_DEFAULT
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_default_window(dedup_window_ms: &u64) -> bool {
    *dedup_window_ms == DEDUP_WINDOW_MS_DEFAULT
}

impl From<&TopicSettings> for StoredSettings {
    fn from(settings: &TopicSettings) -> Self {
        let TopicSettings {
            queues,
            durability,
            retention_ms,
            retention_bytes,
            kind,
            dedup_window_ms,
        } = *settings;
        Self { queues, durability, retention_ms, retention_bytes, kind, dedup_window_ms }
    }
}

impl From<&StoredSettings> for TopicSettings {
    fn from(stored: &StoredSettings) -> Self {
        let StoredSettings {
            queues,
            durability,
            retention_ms,
            retention_bytes,
            kind,
            dedup_window_ms,
        } = *stored;
        Self { queues, durability, retention_ms, retention_bytes, kind, dedup_window_ms }
    }
}

/// Bytes that are no command or part of this build.
#[derive(Debug, Error)]
pub enum FormatError {
    /// There is not even a version.
    #[error("it is empty")]
    Empty,
    /// Another version.
    #[error("its version is {0}, this build knows {FORMAT_VERSION}")]
    Version(u8),
    /// Another kind.
    #[error("its kind is {0}")]
    Kind(u16),
    /// Not what its version says.
    #[error("{0}")]
    Malformed(#[from] rmp_serde::decode::Error),
    /// Bytes are left behind it.
    #[error("{0} bytes are left behind it")]
    Trailing(usize),
}

impl Command {
    /// Whether this build knows items of `kind`.
    pub fn knows(kind: u16) -> bool {
        (KIND_CREATE_TOPIC..=KIND_REGISTER_BROKER).contains(&kind)
    }

    /// The command as an item of an entry: its kind and its bytes.
    pub fn encode(&self) -> (u16, Bytes) {
        match self {
            Self::CreateTopic(command) => (KIND_CREATE_TOPIC, encode(command)),
            Self::AlterTopic(command) => (KIND_ALTER_TOPIC, encode(command)),
            Self::DeleteTopic(command) => (KIND_DELETE_TOPIC, encode(command)),
            Self::RegisterBroker(command) => (KIND_REGISTER_BROKER, encode(command)),
        }
    }

    /// Reads an item of an entry.
    ///
    /// # Errors
    /// When this build cannot read it.
    pub fn decode(kind: u16, bytes: &[u8]) -> Result<Self, FormatError> {
        match kind {
            KIND_CREATE_TOPIC => decode(bytes).map(Self::CreateTopic),
            KIND_ALTER_TOPIC => decode(bytes).map(Self::AlterTopic),
            KIND_DELETE_TOPIC => decode(bytes).map(Self::DeleteTopic),
            KIND_REGISTER_BROKER => decode(bytes).map(Self::RegisterBroker),
            other => Err(FormatError::Kind(other)),
        }
    }
}

/// A value as it is stored: a version byte and a MessagePack map.
pub(crate) fn encode<T: Serialize>(value: &T) -> Bytes {
    let mut bytes = vec![FORMAT_VERSION];
    rmp_serde::encode::write_named(&mut bytes, value).expect("plain values have a form");
    bytes.into()
}

/// Reads what [`encode`] wrote, and nothing more.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, FormatError> {
    let (version, mut rest) = bytes.split_first().ok_or(FormatError::Empty)?;
    if *version != FORMAT_VERSION {
        return Err(FormatError::Version(*version));
    }
    let value = rmp_serde::from_read(&mut rest)?;
    if rest.is_empty() { Ok(value) } else { Err(FormatError::Trailing(rest.len())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Command> {
        let name = TopicName::try_from("orders").unwrap();
        let settings = StoredSettings::from(&TopicSettings::default());
        vec![
            Command::CreateTopic(CreateTopic { name: name.clone(), id: TopicId(7), settings }),
            Command::AlterTopic(AlterTopic {
                name: name.clone(),
                id: TopicId(0),
                queues: Some(8),
                retention_ms: None,
                retention_bytes: Some(1 << 30),
                dedup_window_ms: None,
            }),
            Command::DeleteTopic(DeleteTopic { name, id: TopicId(u64::MAX) }),
            Command::RegisterBroker(RegisterBroker {
                broker: BrokerId(1),
                host: "127.0.0.1".into(),
                port: 6086,
                shards: vec![(ShardId(0), Durability::Persisted)],
            }),
        ]
    }

    #[test]
    fn commands_read_back_and_every_cut_is_refused() {
        for command in samples() {
            let (kind, bytes) = command.encode();
            assert!(Command::knows(kind));
            assert_eq!(Command::decode(kind, &bytes).unwrap(), command);
            for cut in 0..bytes.len() {
                assert!(Command::decode(kind, &bytes[..cut]).is_err(), "cut at {cut}");
            }
            let longer = [&bytes[..], &[0]].concat();
            assert!(matches!(Command::decode(kind, &longer), Err(FormatError::Trailing(1))));
            let newer = [&[2], &bytes[1..]].concat();
            assert!(matches!(Command::decode(kind, &newer), Err(FormatError::Version(2))));
        }
        assert!(matches!(Command::decode(63, &[1]), Err(FormatError::Kind(63))));
        assert!(!Command::knows(63) && !Command::knows(68));
    }

    #[test]
    fn the_format_does_not_change() {
        let golden: Vec<_> =
            samples().iter().map(|command| command.encode().1.escape_ascii().to_string()).collect();
        assert_eq!(
            golden,
            [
                "\\x01\\x83\\xa4name\\xa6orders\\xa2id\\x07\\xa8settings\\x85\\xa6queues\\x04\
                 \\xaadurability\\x00\\xacretention_ms\\xce$\\x0c\\x84\\x00\
                 \\xafretention_bytes\\x00\\xa4kind\\x00",
                "\\x01\\x85\\xa4name\\xa6orders\\xa2id\\x00\\xa6queues\\x08\
                 \\xacretention_ms\\xc0\\xafretention_bytes\\xce@\\x00\\x00\\x00",
                "\\x01\\x82\\xa4name\\xa6orders\\xa2id\\xcf\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff",
                "\\x01\\x84\\xa6broker\\x01\\xa4host\\xa9127.0.0.1\\xa4port\\xcd\\x17\\xc6\
                 \\xa6shards\\x91\\x92\\x00\\x00",
            ]
        );
    }

    #[test]
    fn a_bad_name_in_the_log_is_unreadable_and_no_panic() {
        let (kind, bytes) = samples()[2].encode();
        let at = bytes.windows(6).position(|window| window == b"orders").unwrap();
        let mut bad = bytes.to_vec();
        bad[at] = b'/';
        assert!(matches!(Command::decode(kind, &bad), Err(FormatError::Malformed(_))));
    }
}
