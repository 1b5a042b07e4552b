//! Requests of members of groups, and about groups.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use grus_protocol::ids::{GroupId, MemberId};
use grus_protocol::message::{
    AssignQueues, AssignQueuesReply, DeleteGroup, DescribeGroup, GroupHeartbeat, JoinGroup,
    JoinGroupReply, LeaveGroup, LeaveGroupReply, ListGroups,
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::Dispatcher;
use crate::connection::replies::ReplyTo;
use crate::consumer_group::coordination::Joining;
use crate::consumer_group::error::CoordinatorError;
use crate::consumer_group::{CoordinatorAsk, GroupHandle};

/// Most members that are heard over one connection.
const MEMBERS_MAX: usize = 65_536;

/// A member whose group's coordinator knows it.
type Known = (Arc<GroupHandle>, MemberId);

/// The members that are heard over one connection: their groups are told when it ends. Who names a
/// member that there is none of is not noted.
#[derive(Debug)]
pub(super) struct ConnectionMembers {
    peer: SocketAddr,
    heard: BTreeMap<(GroupId, MemberId), Arc<GroupHandle>>,
    /// Members that coordinators have answered just now.
    known: Option<(UnboundedSender<Known>, UnboundedReceiver<Known>)>,
}

impl ConnectionMembers {
    /// Lives in a box: most connections have no members, and those that are idle are to cost little.
    pub(super) fn new(peer: SocketAddr) -> Self {
        Self { peer, heard: BTreeMap::new(), known: None }
    }

    /// The address of its box: the connection's number while it lives.
    fn number(&self) -> u64 {
        std::ptr::from_ref(self).addr() as u64
    }

    /// Where to say that a member is known, unless it is noted already.
    fn vouch(&mut self, handle: &GroupHandle, member: MemberId) -> Option<UnboundedSender<Known>> {
        self.note_known();
        let is_noted = self.heard.contains_key(&(handle.group, member));
        (!is_noted).then(|| self.voucher())
    }

    fn voucher(&mut self) -> UnboundedSender<Known> {
        self.note_known();
        self.known.get_or_insert_with(unbounded_channel).0.clone()
    }

    /// Notes those that are known since: no more than there were requests under way.
    fn note_known(&mut self) {
        let Some((_, known)) = &mut self.known else { return };
        while let Ok((handle, member)) = known.try_recv() {
            if self.heard.len() < MEMBERS_MAX {
                self.heard.insert((handle.group, member), handle);
            }
        }
    }

    fn left(&mut self, handle: &GroupHandle, member: MemberId) {
        self.note_known();
        self.heard.remove(&(handle.group, member));
    }
}

impl Drop for ConnectionMembers {
    fn drop(&mut self) {
        self.note_known();
        let connection = self.number();
        for ((_, member), handle) in std::mem::take(&mut self.heard) {
            // No room: the member's session ends by itself.
            let _ = handle.asks.try_put(CoordinatorAsk::Orphaned { member, connection });
        }
    }
}

impl Dispatcher {
    pub(super) fn join_group(&mut self, ask: JoinGroup, reply: ReplyTo) {
        let groups = self.service.groups.clone();
        let vouch = self.members.voucher();
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
            let known = Arc::clone(&handle);
            let port = reply.port(move |joined: Result<JoinGroupReply, CoordinatorError>| {
                if let Ok(joined) = &joined {
                    let _ = vouch.send((known, joined.member)); // nobody is told: it has ended
                }
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
        let vouch = self.members.vouch(&handle, ask.member);
        let known = (Arc::clone(&handle), ask.member);
        let now = self.service.clock.now();
        self.gate.facts().borrow_mut().member_heard(&ask.group, ask.member, now);
        let heartbeat = CoordinatorAsk::Heartbeat {
            member: ask.member,
            known: ask.known,
            holding: ask.holding.into_iter().map(Into::into).collect(),
            wait_ms: ask.wait_ms,
            connection: self.members.number(),
            reply: reply.port(move |told: Result<_, CoordinatorError>| {
                if let (Some(vouch), Ok(_)) = (vouch, &told) {
                    let _ = vouch.send(known); // nobody is told: the connection has ended
                }
                told.map_err(|error| error.to_reply())
            }),
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

#[cfg(test)]
mod tests {
    use grus_mailbox::outlet;
    use grus_protocol::names::GroupName;

    use super::*;

    #[test]
    fn only_members_that_their_coordinator_knows_are_noted() {
        let (asks, mut told) = outlet::<CoordinatorAsk>(4_096);
        let (name, group) = (GroupName::try_from("g").unwrap(), GroupId(9));
        let handle = Arc::new(GroupHandle { name, group, asks });
        let mut members = ConnectionMembers::new("127.0.0.1:1".parse().unwrap());
        for number in 1..=1_000 {
            assert!(members.vouch(&handle, MemberId(number)).is_some(), "its answer is an error");
        }
        assert!(members.heard.is_empty());
        let member = MemberId(7);
        let vouch = members.vouch(&handle, member).expect("not noted yet");
        vouch.send((Arc::clone(&handle), member)).unwrap();
        assert!(members.vouch(&handle, member).is_none(), "noted");
        drop(members);
        let (first, _) = told.try_take().expect("its coordinator is told");
        assert!(matches!(first, CoordinatorAsk::Orphaned { member: MemberId(7), .. }));
        assert!(told.try_take().is_none(), "one, and no other");
    }
}
