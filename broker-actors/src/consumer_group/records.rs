//! What the log keeps of a group besides its numbers: the bytes of its head and of its members. Pure.
//!
//! Each begins with a version byte; what follows is a MessagePack array of the fields in order. The
//! state machine stores them as they are and never looks inside.

use bytes::Bytes;
use grus_protocol::ids::{MemberId, TimestampMs};
use grus_protocol::message::{GroupSettings, GroupSubscription};
use grus_protocol::names::InstanceName;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Version of what this build writes.
const FORMAT_VERSION: u8 = 1;
/// Most bytes of a head or of a member.
pub const RECORD_BYTES_MAX: usize = 64 * 1024;

/// What the group as a whole remembers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// How it works.
    pub settings: GroupSettings,
    /// The id of the next member.
    pub next_member: MemberId,
}

impl Default for Head {
    fn default() -> Self {
        Self { settings: GroupSettings::default(), next_member: MemberId(1) }
    }
}

/// A member, as it joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    /// Drawn by the member when it started.
    pub session: u64,
    /// Its name for itself.
    pub client_id: String,
    /// The address and port that it joined from.
    pub address: String,
    /// Its stable name.
    pub instance: Option<InstanceName>,
    /// Its lane.
    pub lane: Option<String>,
    /// What it wants.
    pub subscriptions: Vec<GroupSubscription>,
    /// When it joined.
    pub joined: TimestampMs,
}

/// Bytes that are no record of this build.
#[derive(Debug, Error)]
pub enum RecordError {
    /// Another version, or none at all.
    #[error("its version is {0:?}, this build knows {FORMAT_VERSION}")]
    Version(Option<u8>),
    /// Not what its version says.
    #[error("{0}")]
    Malformed(#[from] rmp_serde::decode::Error),
    /// Bytes are left behind it.
    #[error("{0} bytes are left behind it")]
    Trailing(usize),
}

/// The record as it is stored.
pub fn encode<T: Serialize>(record: &T) -> Bytes {
    let mut bytes = vec![FORMAT_VERSION];
    rmp_serde::encode::write(&mut bytes, record).expect("plain values have a form");
    bytes.into()
}

/// Reads what [`encode`] wrote, and nothing more.
///
/// # Errors
/// See [`RecordError`].
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RecordError> {
    let Some((&FORMAT_VERSION, mut rest)) = bytes.split_first() else {
        return Err(RecordError::Version(bytes.first().copied()));
    };
    let record = rmp_serde::from_read(&mut rest)?;
    if rest.is_empty() { Ok(record) } else { Err(RecordError::Trailing(rest.len())) }
}

#[cfg(test)]
mod tests {
    use grus_protocol::message::MessageFilter;

    use super::*;

    fn member() -> MemberRecord {
        let topics = "orders.*".parse().unwrap();
        let filter = MessageFilter::parse_tags("a || b").unwrap();
        MemberRecord {
            session: 7,
            client_id: "c".into(),
            address: "127.0.0.1:5".into(),
            instance: Some(InstanceName::try_from("i").unwrap()),
            lane: None,
            subscriptions: vec![GroupSubscription { topics, filter }],
            joined: TimestampMs(9),
        }
    }

    #[test]
    fn records_read_back_and_nothing_else_does() {
        let bytes = encode(&member());
        assert_eq!(decode::<MemberRecord>(&bytes).unwrap(), member());
        let head = Head { next_member: MemberId(5), ..Head::default() };
        assert_eq!(decode::<Head>(&encode(&head)).unwrap(), head);
        for length in 0..bytes.len() {
            assert!(decode::<MemberRecord>(&bytes[..length]).is_err(), "{length}");
        }
        let mut longer = bytes.to_vec();
        longer.push(0);
        assert!(matches!(decode::<MemberRecord>(&longer), Err(RecordError::Trailing(1))));
        longer[0] = 2;
        assert!(matches!(decode::<MemberRecord>(&longer), Err(RecordError::Version(Some(2)))));
    }

    #[test]
    fn the_form_of_records_stays() {
        let head = Head {
            settings: GroupSettings { ladder_ms: vec![5], ..GroupSettings::default() },
            next_member: MemberId(2),
        };
        assert_eq!(
            encode(&head).escape_ascii().to_string(),
            "\\x01\\x92\\x97\\x00\\x00\\xcd\\'\\x10\\x91\\x00\\x91\\x05\\x10\\xc2\\x02"
        );
        assert_eq!(
            encode(&member()).escape_ascii().to_string(),
            "\\x01\\x97\\x07\\xa1c\\xab127.0.0.1:5\\xa1i\\xc0\\x91\\x92\\xa8orders.*\\x92\\x01\
             \\x92\\xa1a\\xa1b\\t"
        );
    }
}
