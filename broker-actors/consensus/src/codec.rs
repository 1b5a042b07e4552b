//! Our own encoding of openraft's types, versioned: what stands on disk must not change because a
//! dependency renames a field.
//!
//! Little endian. Every value that is stored alone (vote, committed, membership) starts with a
//! version byte; a version that is not known is an error, never a guess.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use openraft::vote::RaftLeaderId;
use thiserror::Error;

use crate::types::{
    LeaderId, LogId, Member, Membership, NodeId, RaftVote, StoredMembership, log_id, log_id_parts,
};

/// Version of everything this file writes.
const VERSION: u8 = 1;
/// Most members a group can have, voters and learners.
const MEMBERS_MAX: usize = 64;
/// Longest address of a member in bytes.
const ADDRESS_BYTES_MAX: usize = 1024;
/// Most configurations in a membership (a joint one has two).
const CONFIGS_MAX: usize = 4;

/// Bytes that are not what this file writes.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum CodecError {
    /// The bytes end too early.
    #[error("{what} ends too early")]
    Short {
        /// What was being read.
        what: &'static str,
    },
    /// Written by a newer build.
    #[error("{what} has version {version}, this build knows {VERSION}")]
    Version {
        /// What was being read.
        what: &'static str,
        /// Version found.
        version: u8,
    },
    /// A value that cannot be.
    #[error("{what} holds an impossible value")]
    Invalid {
        /// What was being read.
        what: &'static str,
    },
}

/// Reads values off the front of a buffer; every getter names what it was reading.
pub(crate) struct Reader {
    bytes: Bytes,
    what: &'static str,
}

impl Reader {
    pub(crate) fn new(bytes: Bytes, what: &'static str) -> Self {
        Self { bytes, what }
    }

    fn need(&self, count: usize) -> Result<(), CodecError> {
        if self.bytes.len() < count { Err(CodecError::Short { what: self.what }) } else { Ok(()) }
    }

    pub(crate) fn invalid(&self) -> CodecError {
        CodecError::Invalid { what: self.what }
    }

    pub(crate) fn version(&mut self) -> Result<(), CodecError> {
        let version = self.u8()?;
        if version == VERSION {
            Ok(())
        } else {
            Err(CodecError::Version { what: self.what, version })
        }
    }

    pub(crate) fn u8(&mut self) -> Result<u8, CodecError> {
        self.need(1)?;
        Ok(self.bytes.get_u8())
    }

    pub(crate) fn bool(&mut self) -> Result<bool, CodecError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.invalid()),
        }
    }

    pub(crate) fn u16(&mut self) -> Result<u16, CodecError> {
        self.need(2)?;
        Ok(self.bytes.get_u16_le())
    }

    pub(crate) fn u32(&mut self) -> Result<u32, CodecError> {
        self.need(4)?;
        Ok(self.bytes.get_u32_le())
    }

    pub(crate) fn u64(&mut self) -> Result<u64, CodecError> {
        self.need(8)?;
        Ok(self.bytes.get_u64_le())
    }

    /// A length and that many bytes, as a slice of the input.
    pub(crate) fn bytes(&mut self) -> Result<Bytes, CodecError> {
        let length = self.u32()? as usize;
        self.need(length)?;
        Ok(self.bytes.split_to(length))
    }

    /// A count that cannot be more than the bytes left, so that nothing large is allocated for it.
    pub(crate) fn count(&mut self, most: usize) -> Result<usize, CodecError> {
        let count = self.u32()? as usize;
        if count > most || count > self.bytes.len() { Err(self.invalid()) } else { Ok(count) }
    }

    pub(crate) fn end(&self) -> Result<(), CodecError> {
        if self.bytes.is_empty() { Ok(()) } else { Err(self.invalid()) }
    }

    pub(crate) fn log_id(&mut self) -> Result<Option<LogId>, CodecError> {
        if self.bool()? { Ok(Some(log_id(self.u64()?, self.u64()?))) } else { Ok(None) }
    }

    pub(crate) fn vote(&mut self) -> Result<RaftVote, CodecError> {
        let leader_id = LeaderId { term: self.u64()?, voted_for: self.u64()? };
        Ok(RaftVote { leader_id, committed: self.bool()? })
    }

    pub(crate) fn membership(&mut self) -> Result<Membership, CodecError> {
        let mut configs: Vec<BTreeSet<NodeId>> = Vec::new();
        for _ in 0..self.count(CONFIGS_MAX)? {
            let mut config = BTreeSet::new();
            for _ in 0..self.count(MEMBERS_MAX)? {
                config.insert(self.u64()?);
            }
            configs.push(config);
        }
        let mut nodes = BTreeMap::new();
        for _ in 0..self.count(MEMBERS_MAX)? {
            let id = self.u64()?;
            let address = self.bytes()?;
            if address.len() > ADDRESS_BYTES_MAX {
                return Err(self.invalid());
            }
            let address = std::str::from_utf8(&address).map_err(|_| self.invalid())?;
            nodes.insert(id, Member::new(address));
        }
        if configs.is_empty() && nodes.is_empty() {
            return Ok(Membership::default());
        }
        Membership::new(configs, nodes).map_err(|_| self.invalid())
    }

    pub(crate) fn stored_membership(&mut self) -> Result<StoredMembership, CodecError> {
        let id = self.log_id()?;
        Ok(StoredMembership::new(id, self.membership()?))
    }
}

/// Writes values behind each other; the counterpart of [`Reader`].
#[derive(Default)]
pub(crate) struct Writer(pub(crate) BytesMut);

impl Writer {
    /// A writer that has written the version.
    pub(crate) fn versioned() -> Self {
        let mut writer = Self::default();
        writer.0.put_u8(VERSION);
        writer
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.0.put_u32_le(u32::try_from(bytes.len()).expect("fits u32"));
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn count(&mut self, count: usize) {
        self.0.put_u32_le(u32::try_from(count).expect("fits u32"));
    }

    pub(crate) fn log_id(&mut self, id: Option<&LogId>) {
        self.0.put_u8(u8::from(id.is_some()));
        if let Some(id) = id {
            let (term, index) = log_id_parts(id);
            self.0.put_u64_le(term);
            self.0.put_u64_le(index);
        }
    }

    pub(crate) fn vote(&mut self, vote: &RaftVote) {
        self.0.put_u64_le(vote.leader_id.term());
        self.0.put_u64_le(*vote.leader_id.node_id());
        self.0.put_u8(u8::from(vote.committed));
    }

    pub(crate) fn membership(&mut self, membership: &Membership) {
        self.count(membership.get_joint_config().len());
        for config in membership.get_joint_config() {
            self.count(config.len());
            for id in config {
                self.0.put_u64_le(*id);
            }
        }
        self.count(membership.nodes().count());
        for (id, member) in membership.nodes() {
            self.0.put_u64_le(*id);
            self.bytes(member.addr.as_bytes());
        }
    }

    pub(crate) fn stored_membership(&mut self, membership: &StoredMembership) {
        self.log_id(membership.log_id().as_ref());
        self.membership(membership.membership());
    }

    pub(crate) fn finish(self) -> Bytes {
        self.0.freeze()
    }
}

/// Encodes a vote for the log's vote slots.
pub(crate) fn encode_vote(vote: &RaftVote) -> Bytes {
    let mut writer = Writer::versioned();
    writer.vote(vote);
    writer.finish()
}

/// Reads a vote back.
pub(crate) fn decode_vote(bytes: Bytes) -> Result<RaftVote, CodecError> {
    let mut reader = Reader::new(bytes, "vote");
    reader.version()?;
    let vote = reader.vote()?;
    reader.end()?;
    Ok(vote)
}

/// Encodes the payload of a membership entry.
pub(crate) fn encode_membership(membership: &Membership) -> Bytes {
    let mut writer = Writer::versioned();
    writer.membership(membership);
    writer.finish()
}

/// Reads the payload of a membership entry.
pub(crate) fn decode_membership(bytes: Bytes) -> Result<Membership, CodecError> {
    let mut reader = Reader::new(bytes, "membership");
    reader.version()?;
    let membership = reader.membership()?;
    reader.end()?;
    Ok(membership)
}

/// Encodes the membership that stands in a checkpoint.
pub(crate) fn encode_stored_membership(membership: &StoredMembership) -> Bytes {
    let mut writer = Writer::versioned();
    writer.stored_membership(membership);
    writer.finish()
}

/// Reads the membership of a checkpoint.
pub(crate) fn decode_stored_membership(bytes: Bytes) -> Result<StoredMembership, CodecError> {
    let mut reader = Reader::new(bytes, "stored membership");
    reader.version()?;
    let membership = reader.stored_membership()?;
    reader.end()?;
    Ok(membership)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn membership() -> Membership {
        let nodes = BTreeMap::from([
            (1, Member::new("a:1")),
            (2, Member::new("b:2")),
            (3, Member::new("c:3")),
        ]);
        Membership::new(vec![BTreeSet::from([1, 2]), BTreeSet::from([2])], nodes).unwrap()
    }

    #[test]
    fn a_vote_has_these_bytes() {
        let leader_id = LeaderId { term: 0x0102, voted_for: 3 };
        let vote = RaftVote { leader_id, committed: true };
        let golden = [1, 2, 1, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1];
        assert_eq!(encode_vote(&vote)[..], golden);
        assert_eq!(decode_vote(Bytes::copy_from_slice(&golden)).unwrap(), vote);
    }

    #[test]
    fn a_joint_membership_with_a_learner_comes_back() {
        let stored = StoredMembership::new(Some(log_id(4, 9)), membership());
        let bytes = encode_stored_membership(&stored);
        assert_eq!(decode_stored_membership(bytes).unwrap(), stored);
        let empty = StoredMembership::default();
        assert_eq!(decode_stored_membership(encode_stored_membership(&empty)).unwrap(), empty);
    }

    #[test]
    fn a_newer_version_is_named_and_not_guessed_at() {
        let mut bytes = encode_membership(&membership()).to_vec();
        bytes[0] = 9;
        let refused = decode_membership(bytes.into()).unwrap_err();
        assert_eq!(refused, CodecError::Version { what: "membership", version: 9 });
    }

    #[test]
    fn every_cut_is_refused() {
        let bytes = encode_membership(&membership());
        for cut in 0..bytes.len() {
            assert!(decode_membership(bytes.slice(..cut)).is_err(), "cut at {cut} accepted");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let bytes = Bytes::from(bytes);
            let _ = decode_vote(bytes.clone());
            let _ = decode_membership(bytes.clone());
            let _ = decode_stored_membership(bytes);
        }
    }
}
