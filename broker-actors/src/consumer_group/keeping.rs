//! What the coordinator writes into the log, and reads back from its shard's state. Pure.

use bytes::Bytes;
use grus_protocol::ids::{GroupId, MemberId, QueueKey};

use super::book::{Book, Change, Grant};
use super::records::{MemberRecord, RecordError, decode, encode};
use crate::commands::coordination::{Grant as GrantItem, GroupChange};
use crate::machine::Machine;

/// What the state has of a group.
pub(super) fn read_book(machine: &Machine, group: GroupId) -> Result<Book, RecordError> {
    let Some(state) = machine.group(group) else { return Ok(Book::default()) };
    let read = |(member, bytes): (MemberId, &Bytes)| {
        decode(bytes).map(|record: MemberRecord| (member, record))
    };
    let members = state.members().map(read).collect::<Result<_, _>>()?;
    let grant = |(queue, grant): (QueueKey, GrantItem)| {
        (queue, Grant { member: grant.member, generation: grant.generation })
    };
    let grants = state.grants().map(grant).collect();
    let head = decode(&state.head().bytes)?;
    Ok(Book::restored(head, state.head().generation, members, grants))
}

/// A change as the log takes it.
pub(super) fn item(group: GroupId, change: &Change) -> GroupChange {
    let generation = change.generation;
    let grant = |(queue, member): &(QueueKey, Option<MemberId>)| {
        (*queue, GrantItem { member: member.unwrap_or(MemberId::NONE), generation })
    };
    GroupChange {
        group,
        generation,
        head: change.head.as_ref().map(encode),
        members_set: change.members_set.iter().map(|(id, record)| (*id, encode(record))).collect(),
        members_gone: change.members_gone.clone(),
        grants: change.grants.iter().map(grant).collect(),
    }
}
