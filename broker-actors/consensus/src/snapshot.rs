//! The state of a group at one log index, as parts: what a checkpoint holds and a snapshot sends.

use std::collections::BTreeMap;

use bytes::Bytes;
use grus_log::Part;

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
}
