//! The state after an entry, as parts: a full checkpoint, or what changed since the one before.
//!
//! Body (in the container of `blob.rs`), little endian:
//!
//! ```text
//! 0 index u64 | 8 term u64 | 16 digest u64 | 24 previous index u64 | 32 flags u8 (1 full), 0 u8, 0 u16 | 36 membership bytes u32
//! 40 parts u64 | membership | parts x: key bytes u32, value bytes u32 (u32::MAX: the part is gone), key, value
//! ```

use bytes::Bytes;

use crate::blob::Encode;
use crate::entry::{EntryId, u32_at, u64_at};

const FIXED_BYTES: usize = 48;
const GONE: u32 = u32::MAX;

/// One part of the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Which part.
    pub key: Bytes,
    /// Its state; `None` when it is no more (in a delta).
    pub value: Option<Bytes>,
}

/// The state after entry `index` was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointData {
    /// Index of the last applied entry.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// The membership then, in the encoding of consensus.
    pub membership: Bytes,
    /// All parts, or only those that changed since the checkpoint before.
    pub full: bool,
    /// The parts.
    pub parts: Vec<Part>,
    /// Digest of the whole state.
    pub digest: u64,
}

impl CheckpointData {
    /// The last applied entry.
    pub fn id(&self) -> EntryId {
        EntryId { term: self.term, index: self.index }
    }
}

/// A checkpoint and the one it is a delta to.
#[derive(Debug)]
pub(crate) struct CheckpointFile {
    pub data: CheckpointData,
    /// Index of the checkpoint before; meaningless in a full one.
    pub previous: u64,
}

/// What stands before the parts, then each part.
impl Encode for CheckpointFile {
    fn length(&self) -> usize {
        let value = |part: &Part| part.value.as_ref().map_or(0, Bytes::len);
        let parts = self.data.parts.iter().map(|part| 8 + part.key.len() + value(part));
        FIXED_BYTES + self.data.membership.len() + parts.sum::<usize>()
    }

    fn pieces(&self) -> usize {
        1 + self.data.parts.len()
    }

    fn encode_piece(&self, nth: usize, into: &mut Vec<u8>) {
        let data = &self.data;
        let Some(nth) = nth.checked_sub(1) else {
            for field in [data.index, data.term, data.digest, self.previous] {
                into.extend_from_slice(&field.to_le_bytes());
            }
            into.extend_from_slice(&u32::from(data.full).to_le_bytes());
            into.extend_from_slice(&length(&data.membership).to_le_bytes());
            into.extend_from_slice(&(data.parts.len() as u64).to_le_bytes());
            return into.extend_from_slice(&data.membership);
        };
        let part = &data.parts[nth];
        into.extend_from_slice(&length(&part.key).to_le_bytes());
        into.extend_from_slice(&part.value.as_ref().map_or(GONE, length).to_le_bytes());
        into.extend_from_slice(&part.key);
        into.extend_from_slice(part.value.as_deref().unwrap_or_default());
    }
}

fn length(bytes: &Bytes) -> u32 {
    u32::try_from(bytes.len()).ok().filter(|length| *length != GONE).expect("a part is below 4 GiB")
}

impl CheckpointFile {
    /// Reads a body. `None` when its parts do not fit together.
    pub(crate) fn decode(body: &Bytes) -> Option<Self> {
        let fixed = body.get(..FIXED_BYTES)?;
        let mut rest = body.slice(FIXED_BYTES..);
        let membership = take(&mut rest, u32_at(fixed, 36))?;
        let count = u64_at(fixed, 40);
        let mut parts = Vec::new();
        for _ in 0..count {
            let lengths = take(&mut rest, 8)?;
            let key = take(&mut rest, u32_at(&lengths, 0))?;
            let value = match u32_at(&lengths, 4) {
                GONE => None,
                length => Some(take(&mut rest, length)?),
            };
            parts.push(Part { key, value });
        }
        let data = CheckpointData {
            index: u64_at(fixed, 0),
            term: u64_at(fixed, 8),
            membership,
            full: fixed[32] & 1 != 0,
            parts,
            digest: u64_at(fixed, 16),
        };
        Some(Self { data, previous: u64_at(fixed, 24) })
    }
}

fn take(rest: &mut Bytes, length: u32) -> Option<Bytes> {
    let length = length as usize;
    (length <= rest.len()).then(|| rest.split_to(length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob::encoded;

    #[test]
    fn a_checkpoint_comes_back_and_cut_ones_do_not() {
        let part = |key: &'static str, value: Option<&'static str>| Part {
            key: key.into(),
            value: value.map(Into::into),
        };
        let data = CheckpointData {
            index: 900,
            term: 3,
            membership: "members".into(),
            full: false,
            parts: vec![part("a", Some("1")), part("b", None), part("", Some(""))],
            digest: 77,
        };
        let body = Bytes::from(encoded(&CheckpointFile { data: data.clone(), previous: 800 }));
        let read = CheckpointFile::decode(&body).unwrap();
        assert_eq!((read.data, read.previous), (data, 800));
        for length in 0..body.len() {
            assert!(CheckpointFile::decode(&body.slice(..length)).is_none(), "{length}");
        }
    }
}
