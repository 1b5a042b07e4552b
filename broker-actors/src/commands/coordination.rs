//! The item by which the coordinator of a consumer group notes what it has decided, as bytes.
//! Little endian; reserved bytes are 0.
//!
//! | kind | item | layout |
//! |---|---|---|
//! | 95 | change | version u8, with a head u8 (0 or 1), 2 reserved bytes, head length u32, group u64, generation u64, members set u32, members gone u32, grants u32, 4 reserved bytes, the head; per member set: id u64, length u32, its bytes; per member gone: id u64; per grant: topic u64, queue u32, member u64 (0: nobody), generation u64 |
//!
//! Head and members are bytes that only the coordinator reads, at most [`BLOB_BYTES_MAX`] each.

use bytes::{BufMut, Bytes, BytesMut};
use grus_protocol::ids::{Generation, GroupId, MemberId, QueueId, QueueKey, TopicId};

use super::group_parts::list;
use crate::codec::{CodecError, Decoder};

/// Most bytes of a head, and of a member.
pub const BLOB_BYTES_MAX: usize = 64 * 1024;
/// Most members set, members gone or grants of a change, of each: a rebalance may give all queues
/// that there can be.
pub const CHANGE_ELEMENTS_MAX: u32 = 262_144;

/// A queue is given to a member, or taken from all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// To whom; 0: to nobody.
    pub member: MemberId,
    /// By which generation.
    pub generation: Generation,
}

/// What the coordinator of a group has decided, all of it or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupChange {
    /// The group.
    pub group: GroupId,
    /// Its generation from here on.
    pub generation: Generation,
    /// What the coordinator keeps of the group as a whole; none: as it was.
    pub head: Option<Bytes>,
    /// Members that came or changed, with what the coordinator keeps of each.
    pub members_set: Vec<(MemberId, Bytes)>,
    /// Members that went.
    pub members_gone: Vec<MemberId>,
    /// Queues that were given or taken.
    pub grants: Vec<(QueueKey, Grant)>,
}

impl GroupChange {
    /// Writes what follows the version and 3 reserved bytes.
    pub(super) fn encode(&self, out: &mut BytesMut) {
        out[1] = u8::from(self.head.is_some());
        let head = self.head.as_deref().unwrap_or_default();
        out.put_u32_le(length(head));
        out.put_u64_le(self.group.0);
        out.put_u64_le(self.generation.0);
        for count in [self.members_set.len(), self.members_gone.len(), self.grants.len()] {
            out.put_u32_le(u32::try_from(count).expect("items are bounded"));
        }
        out.put_bytes(0, 4);
        out.put_slice(head);
        for (member, bytes) in &self.members_set {
            out.put_u64_le(member.0);
            out.put_u32_le(length(bytes));
            out.put_slice(bytes);
        }
        self.members_gone.iter().for_each(|member| out.put_u64_le(member.0));
        for (queue, grant) in &self.grants {
            out.put_u64_le(queue.topic.0);
            out.put_u32_le(queue.queue.0);
            out.put_u64_le(grant.member.0);
            out.put_u64_le(grant.generation.0);
        }
    }

    /// Reads what follows the version and 3 bytes, the first of which is `has_head`.
    pub(super) fn decode(has_head: u8, mut decoder: Decoder) -> Result<Self, CodecError> {
        let head_bytes = decoder.u32()?;
        let group = GroupId(decoder.u64()?);
        let generation = Generation(decoder.u64()?);
        let (set, gone, grants) = (decoder.u32()?, decoder.u32()?, decoder.u32()?);
        if set.max(gone).max(grants) > CHANGE_ELEMENTS_MAX {
            return Err(CodecError::Value("count of a change"));
        }
        decoder.take(4)?;
        let head = blob(head_bytes, &mut decoder)?;
        let head = match has_head {
            0 if head.is_empty() => None,
            1 => Some(head),
            _ => return Err(CodecError::Value("head of a group")),
        };
        let members_set = list(set, || {
            let member = MemberId(decoder.u64()?);
            let length = decoder.u32()?;
            Ok((member, blob(length, &mut decoder)?))
        })?;
        let members_gone = list(gone, || decoder.u64().map(MemberId))?;
        let grants = list(grants, || {
            let topic = TopicId(decoder.u64()?);
            let queue = QueueKey { topic, queue: QueueId(decoder.u32()?) };
            let member = MemberId(decoder.u64()?);
            Ok((queue, Grant { member, generation: Generation(decoder.u64()?) }))
        })?;
        decoder.finish()?;
        Ok(Self { group, generation, head, members_set, members_gone, grants })
    }
}

fn length(blob: &[u8]) -> u32 {
    u32::try_from(blob.len()).expect("bounded by its maker")
}

fn blob(length: u32, decoder: &mut Decoder) -> Result<Bytes, CodecError> {
    if length as usize > BLOB_BYTES_MAX {
        return Err(CodecError::Value("bytes of a member"));
    }
    decoder.take(length as usize)
}
