//! A snapshot on its way to another member: in chunks, each small enough to be encoded and taken in
//! between two heartbeats.
//!
//! A chunk holds whole parts, in the order of their keys, behind their CRC32C:
//!
//! ```text
//! number u32 | is last u8 | digest u64 | crc u32 | body: count u32, count x: key (length u32, bytes), value (the same)
//! ```
//! The receiver takes chunks in order and says which one it wants next, so that a chunk may be sent
//! again when its answer was lost, and a receiver that was restarted gets all of them again.

use std::ops::Bound;

use bytes::{BufMut, Bytes};

use crate::codec::{CodecError, Reader, Writer};
use crate::snapshot::SnapshotData;
use crate::types::{RaftVote, SnapshotMeta};

/// Bytes of parts in a chunk, unless one part alone has more.
pub const SNAPSHOT_CHUNK_BYTES: usize = 64 * 1024;
/// Most parts in a snapshot that is taken.
const SNAPSHOT_PARTS_MAX: usize = 1 << 24;
/// Most bytes of parts in a snapshot that is taken.
const SNAPSHOT_BYTES_MAX: usize = 4 << 30;
/// Most parts in a chunk that is taken.
const CHUNK_PARTS_MAX: usize = 1 << 20;

/// Some parts of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// From 0 on.
    pub(crate) number: u32,
    /// No more parts follow.
    pub(crate) is_last: bool,
    /// Digest of the whole state.
    pub(crate) digest: u64,
    /// The parts, encoded.
    pub(crate) body: Bytes,
}

impl Chunk {
    pub(crate) fn encode(&self, w: &mut Writer) {
        w.0.put_u32_le(self.number);
        w.0.put_u8(u8::from(self.is_last));
        w.0.put_u64_le(self.digest);
        w.0.put_u32_le(crc32c::crc32c(&self.body));
        w.bytes(&self.body);
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, CodecError> {
        let (number, is_last, digest, crc) = (r.u32()?, r.bool()?, r.u64()?, r.u32()?);
        let body = r.bytes()?;
        if crc32c::crc32c(&body) != crc {
            return Err(r.invalid());
        }
        Ok(Self { number, is_last, digest, body })
    }
}

/// Cuts a snapshot into chunks.
#[derive(Debug)]
pub(crate) struct Chunks {
    data: SnapshotData,
    chunk_bytes: usize,
    /// The last key of the chunk before.
    behind: Option<Bytes>,
    number: u32,
}

impl Chunks {
    /// `chunk_bytes`: where a chunk ends.
    pub(crate) fn new(data: SnapshotData, chunk_bytes: usize) -> Self {
        Self { data, chunk_bytes, behind: None, number: 0 }
    }

    /// The chunk that is due.
    pub(crate) fn next(&mut self) -> Chunk {
        let from = self.behind.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut parts = self.data.parts.range::<Bytes, _>((from, Bound::Unbounded)).peekable();
        let (mut w, mut count, mut last) = (Writer::default(), 0, None);
        while let Some((key, value)) = parts.peek() {
            let bytes = w.0.len() + key.len() + value.len();
            if count > 0 && (bytes > self.chunk_bytes || count == CHUNK_PARTS_MAX) {
                break;
            }
            w.bytes(key);
            w.bytes(value);
            count += 1;
            last = Some((*key).clone());
            parts.next();
        }
        let is_last = parts.next().is_none();
        let mut body = Writer::default();
        body.count(count);
        body.0.extend_from_slice(&w.finish());
        let number = self.number;
        self.number += 1;
        self.behind = last.or(self.behind.take());
        Chunk { number, is_last, digest: self.data.digest, body: body.finish() }
    }

    /// Begins again: the receiver has forgotten what it had.
    pub(crate) fn rewind(&mut self) {
        self.behind = None;
        self.number = 0;
    }
}

/// A snapshot that is coming in.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) vote: RaftVote,
    meta: SnapshotMeta,
    next: u32,
    bytes: usize,
    data: SnapshotData,
}

/// What taking in a chunk came to.
#[derive(Debug)]
pub(crate) enum Taken {
    /// The chunk wanted next.
    Next(u32),
    /// All of it is there.
    Whole(SnapshotMeta, SnapshotData),
    /// It is of a leader that is not the newest, or too large.
    Refused,
}

/// Takes a chunk into what is coming in, which the first chunk of another snapshot replaces.
pub(crate) fn take(
    incoming: &mut Option<Incoming>,
    vote: RaftVote,
    meta: SnapshotMeta,
    chunk: Chunk,
) -> Result<Taken, CodecError> {
    if incoming.as_ref().is_some_and(|known| vote.leader_id.term < known.vote.leader_id.term) {
        return Ok(Taken::Refused);
    }
    let continues = incoming.as_ref().is_some_and(|known| known.vote == vote && known.meta == meta);
    if chunk.number == 0 {
        let data = SnapshotData::default();
        *incoming = Some(Incoming { vote, meta, next: 0, bytes: 0, data });
    } else if !continues {
        return Ok(Taken::Next(0));
    }
    let Some(known) = incoming.as_mut() else { return Ok(Taken::Next(0)) };
    if chunk.number != known.next {
        return Ok(Taken::Next(known.next));
    }
    let mut r = Reader::new(chunk.body, "snapshot chunk");
    for _ in 0..r.count(CHUNK_PARTS_MAX)? {
        let (key, value) = (r.bytes()?, r.bytes()?);
        // Of their own: a slice would hold the whole message for one small part.
        let (key, value) = (Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&value));
        known.bytes += key.len() + value.len();
        known.data.parts.insert(key, value);
    }
    r.end()?;
    known.next += 1;
    if known.bytes > SNAPSHOT_BYTES_MAX || known.data.parts.len() > SNAPSHOT_PARTS_MAX {
        *incoming = None;
        return Ok(Taken::Refused);
    }
    if !chunk.is_last {
        return Ok(Taken::Next(known.next));
    }
    let whole = incoming.take().map(|known| (known.meta, known.data));
    Ok(whole.map_or(Taken::Next(0), |(meta, data)| {
        Taken::Whole(meta, SnapshotData { digest: chunk.digest, ..data })
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{LeaderId, log_id};

    fn state(parts: u32) -> SnapshotData {
        let part = |nth: u32| {
            (Bytes::from(format!("key {nth:05}")), Bytes::from(vec![7; (nth % 50) as usize]))
        };
        SnapshotData { parts: (0..parts).map(part).collect(), digest: 77 }
    }

    fn vote(term: u64) -> RaftVote {
        RaftVote { leader_id: LeaderId { term, voted_for: 1 }, committed: true }
    }

    fn meta() -> SnapshotMeta {
        SnapshotMeta { last_log_id: Some(log_id(1, 9)), ..SnapshotMeta::default() }
    }

    fn all(data: &SnapshotData, bytes: usize) -> Vec<Chunk> {
        let mut chunks = Chunks::new(data.clone(), bytes);
        let mut all = Vec::new();
        while all.last().is_none_or(|chunk: &Chunk| !chunk.is_last) {
            all.push(chunks.next());
        }
        all
    }

    fn through(chunk: &Chunk) -> Result<Chunk, CodecError> {
        let mut w = Writer::default();
        chunk.encode(&mut w);
        Chunk::decode(&mut Reader::new(w.finish(), "chunk"))
    }

    #[test]
    fn a_state_arrives_whole_whatever_the_size_of_its_chunks() {
        for (parts, bytes) in [(0, 10), (1, 10), (300, 1), (300, 100), (300, 1 << 20)] {
            let data = state(parts);
            let chunks = all(&data, bytes);
            let most = chunks.iter().map(|chunk| chunk.body.len()).max().unwrap();
            assert!(most <= bytes + 4 + 8 + 60, "{most} bytes in a chunk of {bytes}");
            let mut incoming = None;
            for (nth, chunk) in chunks.iter().enumerate() {
                let taken = take(&mut incoming, vote(1), meta(), through(chunk).unwrap()).unwrap();
                match taken {
                    Taken::Next(next) => assert_eq!(next as usize, nth + 1),
                    Taken::Whole(_, got) => {
                        assert_eq!((nth + 1, &got), (chunks.len(), &data));
                    }
                    Taken::Refused => panic!("refused"),
                }
            }
            assert!(incoming.is_none());
        }
    }

    #[test]
    fn a_chunk_sent_twice_or_out_of_turn_is_answered_by_the_one_that_is_wanted() {
        let chunks = all(&state(300), 200);
        let mut incoming = None;
        let mut give = |nth: usize, vote: RaftVote| {
            take(&mut incoming, vote, meta(), chunks[nth].clone()).unwrap()
        };
        assert!(matches!(give(3, vote(2)), Taken::Next(0)), "nothing has begun");
        assert!(matches!(give(0, vote(2)), Taken::Next(1)));
        assert!(matches!(give(1, vote(2)), Taken::Next(2)));
        assert!(matches!(give(1, vote(2)), Taken::Next(2)), "its answer was lost");
        assert!(matches!(give(5, vote(2)), Taken::Next(2)));
        assert!(matches!(give(0, vote(1)), Taken::Refused), "an older leader");
        assert!(matches!(give(2, vote(3)), Taken::Next(0)), "a newer one begins anew");
        assert!(matches!(give(2, vote(2)), Taken::Next(3)), "until then this one goes on");
        assert!(matches!(give(0, vote(3)), Taken::Next(1)));
    }

    #[test]
    fn no_flipped_bit_gets_through_and_a_rewound_sender_sends_the_same() {
        let data = state(20);
        let mut chunks = Chunks::new(data, 100);
        let first = chunks.next();
        chunks.next();
        chunks.rewind();
        assert_eq!(chunks.next(), first);
        let mut w = Writer::default();
        first.encode(&mut w);
        let bytes = w.finish();
        let body = bytes.len() - first.body.len();
        for at in body..bytes.len() {
            let mut bad = bytes.to_vec();
            bad[at] ^= 0x10;
            let read = Chunk::decode(&mut Reader::new(bad.into(), "chunk"));
            assert!(read.is_err(), "byte {at} got through");
        }
    }
}
