//! What the coordinator of a group has noted: generation, members, and which queue is whose.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::{BufMut, Bytes, BytesMut};
use grus_protocol::ids::{Generation, GroupId, MemberId, QueueKey};

use super::{BLOBS_BYTES_MAX, GRANTS_MAX, MEMBERS_MAX};
use crate::codec::{CodecError, Decoder};
use crate::commands::coordination::{BLOB_BYTES_MAX, Grant, GroupChange};
use crate::machine::digest::Tracked;
use crate::machine::part::PartKey;
use crate::machine::{Machine, Refusal};

const VERSION: u8 = 1;

/// What is kept of a group as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupHead {
    /// The generation of its assignment.
    pub generation: Generation,
    /// Bytes that only the coordinator reads.
    pub bytes: Bytes,
}

impl GroupHead {
    pub(in crate::machine) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(9 + self.bytes.len());
        out.put_u8(VERSION);
        out.put_u64_le(self.generation.0);
        out.put_slice(&self.bytes);
        out.freeze()
    }

    pub(in crate::machine) fn decode(bytes: Bytes) -> Result<Self, CodecError> {
        let mut decoder = Decoder::new(bytes);
        decoder.version(VERSION)?;
        let generation = Generation(decoder.u64()?);
        Ok(Self { generation, bytes: blob(decoder)? })
    }
}

pub(in crate::machine) fn encode_member(member: &Bytes) -> Bytes {
    let mut out = BytesMut::with_capacity(1 + member.len());
    out.put_u8(VERSION);
    out.put_slice(member);
    out.freeze()
}

pub(in crate::machine) fn decode_member(bytes: Bytes) -> Result<Bytes, CodecError> {
    let mut decoder = Decoder::new(bytes);
    decoder.version(VERSION)?;
    blob(decoder)
}

fn blob(decoder: Decoder) -> Result<Bytes, CodecError> {
    let bytes = decoder.rest();
    if bytes.len() > BLOB_BYTES_MAX {
        return Err(CodecError::Value("bytes of a member"));
    }
    Ok(bytes)
}

pub(in crate::machine) fn encode_grant(grant: Grant) -> Bytes {
    let mut out = BytesMut::with_capacity(17);
    out.put_u8(VERSION);
    out.put_u64_le(grant.member.0);
    out.put_u64_le(grant.generation.0);
    out.freeze()
}

pub(in crate::machine) fn decode_grant(bytes: Bytes) -> Result<Grant, CodecError> {
    let mut decoder = Decoder::new(bytes);
    decoder.version(VERSION)?;
    let member = MemberId(decoder.u64()?);
    let generation = Generation(decoder.u64()?);
    decoder.finish()?;
    Ok(Grant { member, generation })
}

/// A group whose coordinator is here.
#[derive(Debug)]
pub struct GroupState {
    pub(in crate::machine) head: Tracked<GroupHead>,
    pub(in crate::machine) members: BTreeMap<MemberId, Tracked<Bytes>>,
    pub(in crate::machine) grants: BTreeMap<QueueKey, Tracked<Grant>>,
}

impl GroupState {
    pub(in crate::machine) const fn new(head: Tracked<GroupHead>) -> Self {
        Self { head, members: BTreeMap::new(), grants: BTreeMap::new() }
    }

    /// What is kept of it as a whole.
    #[must_use]
    pub fn head(&self) -> &GroupHead {
        self.head.get()
    }

    /// Its members, with the bytes that the coordinator keeps of each.
    pub fn members(&self) -> impl Iterator<Item = (MemberId, &Bytes)> {
        self.members.iter().map(|(member, bytes)| (*member, bytes.get()))
    }

    /// Which queue is whose.
    pub fn grants(&self) -> impl Iterator<Item = (QueueKey, Grant)> {
        self.grants.iter().map(|(queue, grant)| (*queue, *grant.get()))
    }

    fn blob_bytes(&self) -> usize {
        let members = self.members.values().map(|member| member.get().len());
        self.head.get().bytes.len() + members.sum::<usize>()
    }
}

impl Machine {
    /// A group whose coordinator is here.
    pub fn group(&self, group: GroupId) -> Option<&GroupState> {
        self.groups.coordinated.get(&group)
    }

    /// All groups whose coordinator is here, in order.
    pub fn groups(&self) -> impl Iterator<Item = (GroupId, &GroupState)> {
        self.groups.coordinated.iter().map(|(group, state)| (*group, state))
    }

    /// Keys of the parts of coordinated groups behind `after`, in order.
    pub(in crate::machine) fn coordination_parts(
        &self,
        after: Option<&PartKey>,
    ) -> impl Iterator<Item = PartKey> {
        let all = &self.groups.coordinated;
        let heads = match after {
            Some(PartKey::Group(group)) => Some(Bound::Excluded(*group)),
            Some(PartKey::Member(..) | PartKey::Grant(..)) => None,
            _ => Some(Bound::Unbounded),
        };
        let heads = heads.into_iter().flat_map(|from| all.range((from, Bound::Unbounded)));
        let heads = heads.map(|(group, _)| PartKey::Group(*group));
        let members = match after {
            Some(PartKey::Member(group, member)) => Some(Some((*group, *member))),
            Some(PartKey::Grant(..)) => None,
            _ => Some(None),
        };
        let members = members.into_iter().flat_map(move |after| {
            let from = after.map_or(Bound::Unbounded, |(group, _)| Bound::Included(group));
            all.range((from, Bound::Unbounded)).flat_map(move |(group, state)| {
                let from = match after {
                    Some((last, member)) if last == *group => Bound::Excluded(member),
                    _ => Bound::Unbounded,
                };
                let members = state.members.range((from, Bound::Unbounded));
                members.map(move |(member, _)| PartKey::Member(*group, *member))
            })
        });
        let last = match after {
            Some(PartKey::Grant(group, queue)) => Some((*group, *queue)),
            _ => None,
        };
        let from = last.map_or(Bound::Unbounded, |(group, _)| Bound::Included(group));
        let grants = all.range((from, Bound::Unbounded)).flat_map(move |(group, state)| {
            let from = match last {
                Some((last, queue)) if last == *group => Bound::Excluded(queue),
                _ => Bound::Unbounded,
            };
            let grants = state.grants.range((from, Bound::Unbounded));
            grants.map(move |(queue, _)| PartKey::Grant(*group, *queue))
        });
        heads.chain(members).chain(grants)
    }

    /// All of a change, or nothing. One that begins no newer generation is refused: its maker does
    /// not know all that was decided.
    pub(super) fn change_group(&mut self, change: &GroupChange) -> Result<(), Refusal> {
        if self.dead_letter_queue(change.group).is_none() {
            return Err(Refusal::UnknownGroup);
        }
        let known = self.groups.coordinated.get(&change.group);
        if let Some(known) = known.map(GroupState::head)
            && change.generation <= known.generation
        {
            return Err(Refusal::NotHeld { generation: known.generation });
        }
        let blobs = change.members_set.iter().map(|(_, bytes)| bytes);
        let blob_bytes: usize = blobs.chain(&change.head).map(Bytes::len).sum();
        // What is replaced is not looked at: near a limit, it is refused a little early.
        let is_new = |state: &GroupState, member| !state.members.contains_key(member);
        let members = change.members_set.iter();
        let members =
            members.filter(|(member, _)| known.is_none_or(|state| is_new(state, member))).count();
        let is_more = |state: &GroupState, queue| !state.grants.contains_key(queue);
        let given = change.grants.iter().filter(|(_, grant)| grant.member != MemberId::NONE);
        let given =
            given.filter(|(queue, _)| known.is_none_or(|state| is_more(state, queue))).count();
        let limits = [
            (self.groups.members + members, MEMBERS_MAX, "members of groups"),
            (self.groups.blob_bytes + blob_bytes, BLOBS_BYTES_MAX, "bytes of groups"),
            (self.groups.grants + given, GRANTS_MAX, "queues given to members"),
        ];
        if let Some((_, limit, what)) = limits.into_iter().find(|(count, limit, _)| count > limit) {
            return Err(Refusal::Limit { what, limit });
        }
        self.carry_out(change);
        Ok(())
    }

    fn carry_out(&mut self, change: &GroupChange) {
        let group = change.group;
        self.touch(&PartKey::Group(group));
        let members = change.members_set.iter().map(|(member, _)| member);
        for member in members.chain(&change.members_gone) {
            self.touch(&PartKey::Member(group, *member));
        }
        for (queue, _) in &change.grants {
            self.touch(&PartKey::Grant(group, *queue));
        }
        let (digest, dirty) = (&mut self.clean_digest, &mut self.dirty);
        let state = self.groups.coordinated.entry(group).or_insert_with(|| {
            dirty.insert(PartKey::Group(group));
            GroupState::new(Tracked::unsaved(GroupHead::default()))
        });
        let before = (state.members.len(), state.grants.len(), state.blob_bytes());
        let head = state.head.change(|hash| {
            *digest ^= hash;
            dirty.insert(PartKey::Group(group));
        });
        head.generation = change.generation;
        if let Some(bytes) = &change.head {
            // Copied: a slice would keep the whole entry in memory.
            head.bytes = Bytes::copy_from_slice(bytes);
        }
        for (member, bytes) in &change.members_set {
            let bytes = Bytes::copy_from_slice(bytes);
            dirty.insert(PartKey::Member(group, *member));
            if let Some(old) = state.members.insert(*member, Tracked::unsaved(bytes)) {
                *digest ^= old.clean_hash();
            }
        }
        for member in &change.members_gone {
            if let Some(old) = state.members.remove(member) {
                *digest ^= old.clean_hash();
                dirty.insert(PartKey::Member(group, *member));
            }
        }
        for (queue, grant) in &change.grants {
            let old = match grant.member {
                MemberId::NONE => state.grants.remove(queue),
                _ => state.grants.insert(*queue, Tracked::unsaved(*grant)),
            };
            if old.is_some() || grant.member != MemberId::NONE {
                dirty.insert(PartKey::Grant(group, *queue));
            }
            *digest ^= old.map_or(0, |old| old.clean_hash());
        }
        let after = (state.members.len(), state.grants.len(), state.blob_bytes());
        let groups = &mut self.groups;
        groups.members = groups.members + after.0 - before.0;
        groups.grants = groups.grants + after.1 - before.1;
        groups.blob_bytes = groups.blob_bytes + after.2 - before.2;
    }

    /// The coordinator's notes of a group go.
    pub(super) fn forget_group(&mut self, group: GroupId) -> bool {
        let Some(state) = self.groups.coordinated.get(&group) else { return false };
        let members = state.members.keys().map(|member| PartKey::Member(group, *member));
        let grants = state.grants.keys().map(|queue| PartKey::Grant(group, *queue));
        let head = std::iter::once(PartKey::Group(group));
        let parts: Vec<PartKey> = head.chain(members).chain(grants).collect();
        for part in &parts {
            self.touch(part);
        }
        let Some(state) = self.groups.coordinated.remove(&group) else { return false };
        self.groups.members -= state.members.len();
        self.groups.grants -= state.grants.len();
        self.groups.blob_bytes -= state.blob_bytes();
        let members = state.members.values().map(Tracked::clean_hash);
        let grants = state.grants.values().map(Tracked::clean_hash);
        let hashes = std::iter::once(state.head.clean_hash()).chain(members).chain(grants);
        for (part, hash) in parts.into_iter().zip(hashes) {
            self.forget_part(part, hash);
        }
        true
    }

    /// Takes a part of a coordinated group out of a checkpoint. None if it belongs to nothing.
    pub(in crate::machine) fn restore_coordination(
        &mut self,
        part: &PartKey,
        value: Bytes,
        hash: u64,
    ) -> Option<Result<(), CodecError>> {
        let groups = &mut self.groups;
        let restored = match part {
            PartKey::Group(group) => {
                let is_known = self.topics.contains_key(&grus_protocol::ids::TopicId(group.0));
                is_known.then(|| {
                    GroupHead::decode(value).map(|head| {
                        groups.blob_bytes += head.bytes.len();
                        let state = GroupState::new(Tracked::saved(head, hash));
                        groups.coordinated.insert(*group, state);
                    })
                })?
            }
            PartKey::Member(group, member) => {
                let state = groups.coordinated.get_mut(group)?;
                decode_member(value).map(|bytes| {
                    groups.members += 1;
                    groups.blob_bytes += bytes.len();
                    state.members.insert(*member, Tracked::saved(bytes, hash));
                })
            }
            PartKey::Grant(group, queue) => {
                let state = groups.coordinated.get_mut(group)?;
                decode_grant(value).map(|grant| {
                    groups.grants += 1;
                    state.grants.insert(*queue, Tracked::saved(grant, hash));
                })
            }
            _ => return None,
        };
        Some(restored)
    }
}
