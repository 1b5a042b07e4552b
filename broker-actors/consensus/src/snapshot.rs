//! The state of a group at one log index, as parts: what a checkpoint holds and a snapshot sends.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes};
use grus_log::Part;

use crate::codec::{CodecError, Reader, Writer};

/// Most parts in one snapshot.
const PARTS_MAX: usize = 1 << 24;

/// A whole state: every part with its value, and the digest of the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SnapshotData {
    /// The parts by key; every value is there.
    pub parts: BTreeMap<Bytes, Bytes>,
    /// Digest of the state, compared by replicas.
    pub digest: u64,
}

impl SnapshotData {
    /// Lays `parts` over what is there: a value replaces, no value removes.
    pub fn overlay(&mut self, parts: &[Part]) {
        for part in parts {
            match &part.value {
                Some(value) => {
                    self.parts.insert(part.key.clone(), value.clone());
                }
                None => {
                    self.parts.remove(&part.key);
                }
            }
        }
    }

    /// The parts as a list, all with values.
    pub fn to_parts(&self) -> Vec<Part> {
        let part =
            |(key, value): (&Bytes, &Bytes)| Part { key: key.clone(), value: Some(value.clone()) };
        self.parts.iter().map(part).collect()
    }

    /// Encodes the state for a peer, with a CRC32C of all that follows it.
    pub(crate) fn encode(&self) -> Bytes {
        let mut w = Writer::default();
        w.0.put_u64_le(self.digest);
        w.count(self.parts.len());
        for (key, value) in &self.parts {
            w.bytes(key);
            w.bytes(value);
        }
        let body = w.finish();
        let mut all = Writer::versioned();
        all.0.put_u32_le(crc32c::crc32c(&body));
        all.0.extend_from_slice(&body);
        all.finish()
    }

    /// Reads a state that a peer sent.
    pub(crate) fn decode(bytes: Bytes) -> Result<Self, CodecError> {
        let mut r = Reader::new(bytes, "snapshot");
        r.version()?;
        let crc = r.u32()?;
        if crc32c::crc32c(r.rest()) != crc {
            return Err(r.invalid());
        }
        let digest = r.u64()?;
        let mut parts = BTreeMap::new();
        for _ in 0..r.count(PARTS_MAX)? {
            let key = r.bytes()?;
            parts.insert(key, r.bytes()?);
        }
        r.end()?;
        Ok(Self { parts, digest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(key: &'static str, value: Option<&'static str>) -> Part {
        Part { key: Bytes::from(key), value: value.map(Bytes::from) }
    }

    #[test]
    fn a_full_one_and_its_deltas_give_the_newest_value_of_each_part() {
        let mut state = SnapshotData::default();
        state.overlay(&[part("a", Some("1")), part("b", Some("1"))]);
        state.overlay(&[part("b", Some("2")), part("c", Some("2"))]);
        state.overlay(&[part("a", None)]);
        assert_eq!(state.to_parts(), [part("b", Some("2")), part("c", Some("2"))]);
    }

    #[test]
    fn a_snapshot_comes_back_and_a_flipped_byte_does_not() {
        let mut state = SnapshotData { digest: 77, ..Default::default() };
        state.overlay(&[part("a", Some("1")), part("b", Some("xyz"))]);
        let bytes = state.encode();
        assert_eq!(SnapshotData::decode(bytes.clone()).unwrap(), state);
        for at in 0..bytes.len() {
            let mut bad = bytes.to_vec();
            bad[at] ^= 0x10;
            assert!(SnapshotData::decode(bad.into()).is_err(), "byte {at} got through");
        }
    }
}
