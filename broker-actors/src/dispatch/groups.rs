//! Requests of members of groups, and about groups.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use grus_protocol::ids::{GroupId, MemberId};
use grus_protocol::message::{
    AssignQueues, AssignQueuesReply, DeleteGroup, DescribeGroup, GroupHeartbeat, JoinGroup,
    LeaveGroup, LeaveGroupReply, ListGroups,
};

use super::Dispatcher;
use crate::connection::replies::ReplyTo;
use crate::consumer_group::coordination::Joining;
use crate::consumer_group::error::CoordinatorError;
use crate::consumer_group::{CoordinatorAsk, GroupHandle};

/// Most members that are heard over one connection.
const MEMBERS_MAX: usize = 65_536;

/// The members that are heard over one connection: their groups are told when it ends.
#[derive(Debug)]
pub(super) struct ConnectionMembers {
    peer: SocketAddr,
    heard: BTreeMap<(GroupId, MemberId), Arc<GroupHandle>>,
}

impl ConnectionMembers {
    /// Lives in a box: most connections have no members, and those that are idle are to cost little.
    pub(super) fn new(peer: SocketAddr) -> Self {
        Self { peer, heard: BTreeMap::new() }
    }

    /// The address of its box: the connection's number while it lives.
    fn number(&self) -> u64 {
        std::ptr::from_ref(self).addr() as u64
    }

    fn heard(&mut self, handle: &Arc<GroupHandle>, member: MemberId) {
        if self.heard.len() < MEMBERS_MAX {
            self.heard.insert((handle.group, member), Arc::clone(handle));
        }
    }

    fn left(&mut self, handle: &GroupHandle, member: MemberId) {
        self.heard.remove(&(handle.group, member));
    }
}

impl Drop for ConnectionMembers {
    fn drop(&mut self) {
        let connection = self.number();
        for ((_, member), handle) in std::mem::take(&mut self.heard) {
            // No room: the member's session ends by itself.
            let _ = handle.asks.try_put(CoordinatorAsk::Orphaned { member, connection });
        }
    }
}

impl Dispatcher {
    pub(super) fn join_group(&self, ask: JoinGroup, reply: ReplyTo) {
        let groups = self.service.groups.clone();
        let joining = Joining {
            session: ask.session,
            client_id: ask.client_id,
            address: self.members.peer.to_string(),
            instance: ask.instance,
            lane: ask.lane,
            subscriptions: ask.subscriptions,
            options: ask.options,
            connection: self.members.number(),
        };
        // Ends with its answer, which comes or is dropped; counted in the budget until then.
        tokio::task::spawn_local(async move {
            let handle = match groups.opened(&ask.group).await {
                Ok(handle) => handle,
                Err(error) => return reply.error(error),
            };
            let port = reply.port(|joined: Result<_, CoordinatorError>| {
                joined.map_err(|error| error.to_reply())
            });
            let _ = handle.asks.try_put(CoordinatorAsk::Join { joining, reply: port }); // refused: dropped
        });
    }

    pub(super) fn group_heartbeat(&mut self, ask: GroupHeartbeat, reply: ReplyTo) {
        let handle = match self.service.groups.coordinator(&ask.group, ask.group_id) {
            Ok(handle) => handle,
            Err(error) => return reply.error(error),
        };
        self.members.heard(&handle, ask.member);
        let now = self.service.clock.now();
        self.gate.facts().borrow_mut().member_heard(&ask.group, ask.member, now);
        let heartbeat = CoordinatorAsk::Heartbeat {
            member: ask.member,
            known: ask.known,
            holding: ask.holding.into_iter().map(Into::into).collect(),
            wait_ms: ask.wait_ms,
            connection: self.members.number(),
            reply: reply
                .port(|told: Result<_, CoordinatorError>| told.map_err(|error| error.to_reply())),
        };
        let _ = handle.asks.try_put(heartbeat); // refused: its port is dropped
    }

    pub(super) fn assign_queues(&self, ask: AssignQueues, reply: ReplyTo) {
        let handle = match self.service.groups.coordinator(&ask.group, ask.group_id) {
            Ok(handle) => handle,
            Err(error) => return reply.error(error),
        };
        let reply = reply.port(|taken: Result<(), CoordinatorError>| {
            taken.map(|()| AssignQueuesReply {}).map_err(|error| error.to_reply())
        });
        let AssignQueues { member, question, topics, .. } = ask;
        let _ = handle.asks.try_put(CoordinatorAsk::Assign { member, question, topics, reply }); // as above
    }

    pub(super) fn leave_group(&mut self, ask: &LeaveGroup, reply: ReplyTo) {
        let handle = match self.service.groups.coordinator(&ask.group, ask.group_id) {
            Ok(handle) => handle,
            Err(error) => return reply.error(error),
        };
        self.members.left(&handle, ask.member);
        self.gate.facts().borrow_mut().member_left(&ask.group, ask.member);
        let reply = reply.port(|left: Result<(), CoordinatorError>| {
            left.map(|()| LeaveGroupReply {}).map_err(|error| error.to_reply())
        });
        let _ = handle.asks.try_put(CoordinatorAsk::Leave { member: ask.member, reply }); // as above
    }

    pub(super) fn list_groups(&self, ask: ListGroups, reply: ReplyTo) {
        let groups = self.service.groups.clone();
        tokio::task::spawn_local(async move { reply.result(groups.list(ask).await) });
    }

    pub(super) fn describe_group(&self, ask: DescribeGroup, reply: ReplyTo) {
        let groups = self.service.groups.clone();
        tokio::task::spawn_local(async move { reply.result(groups.describe(ask).await) });
    }

    pub(super) fn delete_group(&self, ask: DeleteGroup, reply: ReplyTo) {
        let groups = self.service.groups.clone();
        tokio::task::spawn_local(async move { reply.result(groups.delete(ask).await) });
    }
}
