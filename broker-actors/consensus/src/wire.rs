//! What members of a group say to each other, as bytes.
//!
//! A message is a list of slices to be sent behind each other (entries are slices of the sender's
//! mapping) and is read from one contiguous buffer. Little endian, version and kind first. Each
//! entry carries a CRC32C of its payload, checked before anything of it is written.

#[cfg(test)]
use bytes::BytesMut;
use bytes::{BufMut, Bytes};
use grus_log::EntryKind;
use openraft::entry::RaftEntry as _;

use crate::codec::{CodecError, Reader, Writer, decode_membership, encode_membership};
use crate::payload::Command;
use crate::transfer::Chunk;
use crate::types::{
    LogId, Payload, RaftEntry, RaftVote, SnapshotMeta, StoredMembership, log_id, log_id_parts,
};

/// Most entries in one append that is taken.
pub(crate) const ENTRIES_MAX: usize = 4096;

/// The kind of a message that carries a chunk of a snapshot: its second byte.
pub(crate) const KIND_SNAPSHOT: u8 = 4;

/// A message between members.
#[derive(Debug)]
pub(crate) enum Request {
    Append {
        vote: RaftVote,
        prev: Option<LogId>,
        commit: Option<LogId>,
        entries: Vec<RaftEntry>,
    },
    Vote(VoteRequest),
    PreVote(VoteRequest),
    Snapshot {
        vote: RaftVote,
        meta: SnapshotMeta,
        chunk: Chunk,
    },
    Transfer {
        from: RaftVote,
        to: u64,
        last: Option<LogId>,
    },
    Rejoin {
        node: u64,
    },
    ReadIndex,
    Standing,
    Members,
    /// Whether the member could lead now.
    MayLead,
    /// Whether every entry of its log can be read.
    IsWhole,
    /// An operator has the member lead in this term: it does not give leadership back by itself.
    Stay {
        term: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct VoteRequest {
    pub(crate) vote: RaftVote,
    pub(crate) last: Option<LogId>,
    pub(crate) transfer: bool,
}

/// The answer to a [`Request`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Appended,
    PartlyAppended(Option<LogId>),
    Conflict,
    HigherVote(RaftVote),
    Vote {
        vote: RaftVote,
        granted: bool,
        last: Option<LogId>,
    },
    Installed {
        vote: RaftVote,
    },
    /// Of a snapshot that is coming in: the chunk that is wanted next.
    Wanted {
        number: u32,
    },
    Done,
    ReadIndex {
        index: u64,
    },
    Standing {
        standing: u8,
        durable: Option<u64>,
    },
    /// Who belongs to the group, by a leader that a majority has just confirmed; committed.
    Members {
        membership: StoredMembership,
    },
    /// To [`Request::MayLead`] and [`Request::IsWhole`]: not yet, but ask again in so many milliseconds.
    Soon {
        wait_ms: u32,
    },
    /// To [`Request::IsWhole`]: it is not. A build that does not know the question refuses.
    Damaged,
    /// Not now: votes are withheld, the log must rejoin first, no room, or not the leader.
    Refused,
}

impl Request {
    /// Encodes the request as slices to be sent behind each other.
    pub(crate) fn encode(&self) -> Vec<Bytes> {
        let mut w = Writer::versioned();
        match self {
            Request::Append { vote, prev, commit, entries } => {
                w.0.put_u8(1);
                w.vote(vote);
                w.log_id(prev.as_ref());
                w.log_id(commit.as_ref());
                return encode_entries(w, entries);
            }
            Request::Vote(request) => encode_vote(&mut w, 2, request),
            Request::PreVote(request) => encode_vote(&mut w, 3, request),
            Request::Snapshot { vote, meta, chunk } => {
                w.0.put_u8(KIND_SNAPSHOT);
                w.vote(vote);
                w.log_id(meta.last_log_id.as_ref());
                w.stored_membership(&meta.last_membership);
                chunk.encode(&mut w);
            }
            Request::Transfer { from, to, last } => {
                w.0.put_u8(5);
                w.vote(from);
                w.0.put_u64_le(*to);
                w.log_id(last.as_ref());
            }
            Request::Rejoin { node } => {
                w.0.put_u8(6);
                w.0.put_u64_le(*node);
            }
            Request::ReadIndex => w.0.put_u8(7),
            Request::Standing => w.0.put_u8(8),
            Request::Members => w.0.put_u8(9),
            Request::MayLead => w.0.put_u8(10),
            Request::IsWhole => w.0.put_u8(11),
            Request::Stay { term } => {
                w.0.put_u8(12);
                w.0.put_u64_le(*term);
            }
        }
        vec![w.finish()]
    }

    /// Reads a request.
    pub(crate) fn decode(bytes: Bytes) -> Result<Self, CodecError> {
        let mut r = Reader::new(bytes, "request");
        r.version()?;
        let request = match r.u8()? {
            1 => Request::Append {
                vote: r.vote()?,
                prev: r.log_id()?,
                commit: r.log_id()?,
                entries: decode_entries(&mut r)?,
            },
            2 => Request::Vote(decode_vote(&mut r)?),
            3 => Request::PreVote(decode_vote(&mut r)?),
            KIND_SNAPSHOT => {
                let vote = r.vote()?;
                let last_log_id = r.log_id()?;
                let last_membership = r.stored_membership()?;
                let meta = SnapshotMeta { last_log_id, last_membership };
                Request::Snapshot { vote, meta, chunk: Chunk::decode(&mut r)? }
            }
            5 => Request::Transfer { from: r.vote()?, to: r.u64()?, last: r.log_id()? },
            6 => Request::Rejoin { node: r.u64()? },
            7 => Request::ReadIndex,
            8 => Request::Standing,
            9 => Request::Members,
            10 => Request::MayLead,
            11 => Request::IsWhole,
            12 => Request::Stay { term: r.u64()? },
            _ => return Err(r.invalid()),
        };
        r.end()?;
        Ok(request)
    }
}

fn encode_vote(w: &mut Writer, kind: u8, request: &VoteRequest) {
    w.0.put_u8(kind);
    w.vote(&request.vote);
    w.log_id(request.last.as_ref());
    w.0.put_u8(u8::from(request.transfer));
}

fn decode_vote(r: &mut Reader) -> Result<VoteRequest, CodecError> {
    Ok(VoteRequest { vote: r.vote()?, last: r.log_id()?, transfer: r.bool()? })
}

/// The log's view of an entry's payload.
pub(crate) enum Shape<'a> {
    Blank,
    Membership(Bytes),
    Command(&'a Command),
}

impl<'a> Shape<'a> {
    pub(crate) fn of(payload: &'a Payload) -> Self {
        match payload {
            Payload::Blank => Shape::Blank,
            Payload::Membership(membership) => Shape::Membership(encode_membership(membership)),
            Payload::Normal(command) => Shape::Command(command),
        }
    }

    pub(crate) fn slices(&self) -> &[Bytes] {
        match self {
            Shape::Blank => &[],
            Shape::Membership(bytes) => std::slice::from_ref(bytes),
            Shape::Command(command) => command.slices(),
        }
    }

    pub(crate) fn kind(&self) -> EntryKind {
        match self {
            Shape::Blank => EntryKind::Blank,
            Shape::Membership(_) => EntryKind::Membership,
            Shape::Command(command) if command.seal => EntryKind::Seal,
            Shape::Command(_) => EntryKind::Normal,
        }
    }

    fn code(&self) -> u8 {
        match self {
            Shape::Blank => 0,
            Shape::Membership(_) => 1,
            Shape::Command(command) => 2 + u8::from(command.seal),
        }
    }
}

fn encode_entries(mut w: Writer, entries: &[RaftEntry]) -> Vec<Bytes> {
    assert!(entries.len() <= ENTRIES_MAX, "an append of more entries would be refused");
    w.count(entries.len());
    let mut slices = Vec::with_capacity(1 + entries.len() * 2);
    for entry in entries {
        let shape = Shape::of(&entry.payload);
        let (term, index) = log_id_parts(&entry.log_id());
        let length: usize = shape.slices().iter().map(Bytes::len).sum();
        let crc = shape.slices().iter().fold(0, |crc, part| crc32c::crc32c_append(crc, part));
        w.0.put_u8(shape.code());
        w.0.put_u64_le(term);
        w.0.put_u64_le(index);
        w.0.put_u32_le(crc);
        w.0.put_u32_le(u32::try_from(length).expect("entry fits u32"));
        slices.push(std::mem::take(&mut w).finish());
        slices.extend_from_slice(shape.slices());
    }
    if !w.0.is_empty() {
        slices.push(w.finish());
    }
    slices
}

fn decode_entries(r: &mut Reader) -> Result<Vec<RaftEntry>, CodecError> {
    let count = r.count(ENTRIES_MAX)?;
    let mut entries: Vec<RaftEntry> = Vec::with_capacity(count);
    for _ in 0..count {
        let code = r.u8()?;
        let (term, index, crc) = (r.u64()?, r.u64()?, r.u32()?);
        let follows =
            entries.last().is_none_or(|last| last.log_id.index.checked_add(1) == Some(index));
        if !follows {
            return Err(r.invalid());
        }
        let payload = r.bytes()?;
        if crc32c::crc32c(&payload) != crc {
            return Err(r.invalid());
        }
        let payload = match code {
            0 => Payload::Blank,
            1 => Payload::Membership(decode_membership(payload)?),
            2 => Payload::Normal(Command::stored(false, payload)),
            3 => Payload::Normal(Command::stored(true, payload)),
            _ => return Err(r.invalid()),
        };
        entries.push(RaftEntry::new(log_id(term, index), payload));
    }
    Ok(entries)
}

impl Reply {
    /// Encodes the reply.
    pub(crate) fn encode(&self) -> Bytes {
        let mut w = Writer::versioned();
        match self {
            Reply::Appended => w.0.put_u8(1),
            Reply::PartlyAppended(id) => {
                w.0.put_u8(2);
                w.log_id(id.as_ref());
            }
            Reply::Conflict => w.0.put_u8(3),
            Reply::HigherVote(vote) => {
                w.0.put_u8(4);
                w.vote(vote);
            }
            Reply::Vote { vote, granted, last } => {
                w.0.put_u8(5);
                w.vote(vote);
                w.0.put_u8(u8::from(*granted));
                w.log_id(last.as_ref());
            }
            Reply::Installed { vote } => {
                w.0.put_u8(6);
                w.vote(vote);
            }
            Reply::Done => w.0.put_u8(7),
            Reply::ReadIndex { index } => {
                w.0.put_u8(8);
                w.0.put_u64_le(*index);
            }
            Reply::Standing { standing, durable } => {
                w.0.put_u8(9);
                w.0.put_u8(*standing);
                w.log_id(durable.map(|index| log_id(0, index)).as_ref());
            }
            Reply::Refused => w.0.put_u8(10),
            Reply::Wanted { number } => {
                w.0.put_u8(11);
                w.0.put_u32_le(*number);
            }
            Reply::Members { membership } => {
                w.0.put_u8(12);
                w.stored_membership(membership);
            }
            Reply::Soon { wait_ms } => {
                w.0.put_u8(13);
                w.0.put_u32_le(*wait_ms);
            }
            Reply::Damaged => w.0.put_u8(14),
        }
        w.finish()
    }

    /// Reads a reply.
    pub(crate) fn decode(bytes: Bytes) -> Result<Self, CodecError> {
        let mut r = Reader::new(bytes, "reply");
        r.version()?;
        let reply = match r.u8()? {
            1 => Reply::Appended,
            2 => Reply::PartlyAppended(r.log_id()?),
            3 => Reply::Conflict,
            4 => Reply::HigherVote(r.vote()?),
            5 => Reply::Vote { vote: r.vote()?, granted: r.bool()?, last: r.log_id()? },
            6 => Reply::Installed { vote: r.vote()? },
            7 => Reply::Done,
            8 => Reply::ReadIndex { index: r.u64()? },
            9 => Reply::Standing {
                standing: r.u8()?,
                durable: r.log_id()?.map(|id| log_id_parts(&id).1),
            },
            10 => Reply::Refused,
            11 => Reply::Wanted { number: r.u32()? },
            12 => Reply::Members { membership: r.stored_membership()? },
            13 => Reply::Soon { wait_ms: r.u32()? },
            14 => Reply::Damaged,
            _ => return Err(r.invalid()),
        };
        r.end()?;
        Ok(reply)
    }
}

/// Puts the slices of a message into one buffer, as a receiver gets them.
#[cfg(test)]
pub(crate) fn gather(slices: &[Bytes]) -> Bytes {
    let mut all = BytesMut::with_capacity(slices.iter().map(Bytes::len).sum());
    for slice in slices {
        all.extend_from_slice(slice);
    }
    all.freeze()
}

#[cfg(test)]
mod tests {
    use grus_protocol::ids::TimestampMs;
    use proptest::prelude::*;

    use super::*;
    use crate::machine::NewItem;
    use crate::payload;
    use crate::types::{LeaderId, Member, Membership};

    fn append() -> Request {
        let vote = RaftVote { leader_id: LeaderId { term: 3, voted_for: 2 }, committed: true };
        let item = NewItem::new(64, Bytes::from_static(b"body"));
        let command = payload::encode(TimestampMs(5), &[item], true);
        let members = Membership::new(
            vec![[1, 2].into()],
            std::collections::BTreeMap::from([(1, Member::new("a")), (2, Member::new("b"))]),
        )
        .unwrap();
        let entries = vec![
            RaftEntry::new(log_id(3, 7), Payload::Blank),
            RaftEntry::new(log_id(3, 8), Payload::Membership(members)),
            RaftEntry::new(log_id(3, 9), Payload::Normal(command)),
        ];
        Request::Append { vote, prev: Some(log_id(2, 6)), commit: None, entries }
    }

    #[test]
    fn an_append_comes_back_entry_by_entry() {
        let bytes = gather(&append().encode());
        let Request::Append { vote, prev, commit, entries } = Request::decode(bytes).unwrap()
        else {
            panic!("not an append");
        };
        assert!(vote.committed && prev == Some(log_id(2, 6)) && commit.is_none());
        let Request::Append { entries: sent, .. } = append() else { unreachable!() };
        assert_eq!(entries.len(), 3);
        for (got, want) in entries.iter().zip(&sent) {
            assert_eq!(got.log_id(), want.log_id());
            let (got, want) = (Shape::of(&got.payload), Shape::of(&want.payload));
            assert_eq!(got.code(), want.code());
            assert_eq!(gather(got.slices()), gather(want.slices()));
        }
    }

    #[test]
    fn no_flipped_bit_in_an_entry_gets_through() {
        let bytes = gather(&append().encode()).to_vec();
        let body = bytes.windows(4).position(|window| window == b"body").unwrap();
        for bit in 0..32 {
            let mut flipped = bytes.clone();
            flipped[body + bit / 8] ^= 1 << (bit % 8);
            assert!(Request::decode(flipped.into()).is_err(), "bit {bit} got through");
        }
    }

    #[test]
    fn entries_with_a_gap_between_them_are_refused() {
        let Request::Append { vote, prev, commit, mut entries } = append() else { unreachable!() };
        entries.remove(1);
        let request = Request::Append { vote, prev, commit, entries };
        assert!(Request::decode(gather(&request.encode())).is_err());
    }

    #[test]
    fn replies_come_back() {
        let vote = RaftVote { leader_id: LeaderId { term: 3, voted_for: 2 }, committed: false };
        for reply in [
            Reply::Appended,
            Reply::PartlyAppended(Some(log_id(1, 2))),
            Reply::Conflict,
            Reply::HigherVote(vote),
            Reply::Vote { vote, granted: true, last: None },
            Reply::Installed { vote },
            Reply::Done,
            Reply::ReadIndex { index: 9 },
            Reply::Standing { standing: 1, durable: Some(4) },
            Reply::Refused,
            Reply::Wanted { number: 7 },
            Reply::Members { membership: StoredMembership::default() },
            Reply::Soon { wait_ms: 8 },
            Reply::Damaged,
        ] {
            assert_eq!(Reply::decode(reply.encode()).unwrap(), reply);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn random_bytes_never_panic(kind in 0u8..16, bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let mut all = vec![1, kind];
            all.extend(bytes);
            let _ = Request::decode(Bytes::from(all.clone()));
            let _ = Reply::decode(Bytes::from(all));
        }
    }
}
