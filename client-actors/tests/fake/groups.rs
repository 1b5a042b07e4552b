//! A group's coordinator and leaders, as far as one consumer needs them: one group, whose queues are
//! all given to the member that joined last.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::BytesMut;
use grus_client::protocol::frame::{self, FrameFlags, FrameHead};
use grus_client::protocol::message::{
    AckMessages, AckMessagesReply, AssignedQueue, ClaimQueue, ClaimQueueReply, Credit,
    FetchedBatch, GroupDeliver, GroupHeartbeat, GroupHeartbeatReply, GroupSettings, JoinGroup,
    JoinGroupReply, LeaveGroupReply, OffsetRange, Redelivered, SubscribeGroup, SubscribeGroupReply,
    Unsubscribe,
};
use grus_client::protocol::{
    ErrorCode, ErrorReply, Frame, Generation, GroupId, MemberId, Offset, Opcode, QueueId, TopicId,
    TopicName,
};

use super::connection::Replies;
use super::{Shared, State};

/// One queue of the group.
#[derive(Default)]
pub struct GroupQueue {
    pub settled: BTreeSet<u64>,
    /// How often each message was nacked.
    pub failed: BTreeMap<u64, u32>,
    pub dead: BTreeMap<u64, String>,
    pub reasons: Vec<String>,
    /// From here on nobody saw what was sent, as the member has said.
    pub unseen_from: Option<u64>,
    subscription: Option<(u64, Replies)>,
    sent: BTreeSet<u64>,
    credit: i64,
    round: u32,
}

/// The group.
#[derive(Default)]
pub struct Group {
    pub generation: u64,
    pub member: u64,
    session: u64,
    pub has_left: bool,
    /// Joins are answered so.
    pub refuses_joins: Option<ErrorCode>,
    pub refused_joins: u32,
    /// Heartbeats are answered so.
    pub refuses: Option<ErrorCode>,
    /// The queues that are the member's.
    pub assigned: Vec<u32>,
    pub holding: Vec<u32>,
    pub queues: BTreeMap<u32, GroupQueue>,
    pub ack_requests: u64,
    parked: Option<(Frame, Replies)>,
}

const TOPIC: &str = "orders";

impl State {
    /// Gives the member these queues from now on.
    pub fn assign(&mut self, queues: &[u32]) {
        self.group.generation += 1;
        self.group.assigned = queues.to_vec();
        self.wake();
    }

    /// Resets the progress of a queue to its first message.
    pub fn reset(&mut self, queue: u32) {
        let queue = self.group.queues.entry(queue).or_default();
        queue.round += 1;
        queue.settled.clear();
        if let Some((number, replies)) = queue.subscription.take() {
            let head = FrameHead::push(Opcode::GroupDeliver, number);
            let head = FrameHead { flags: FrameFlags::ERROR, ..head };
            replies.push(head, &ErrorReply::new(ErrorCode::ProgressReset, "reset"), &[]);
        }
    }

    fn wake(&mut self) {
        if let Some((request, replies)) = self.group.parked.take() {
            self.heartbeat(&request, &replies);
        }
    }

    fn heartbeat(&mut self, request: &Frame, replies: &Replies) {
        let asked: GroupHeartbeat = request.header().unwrap();
        if let Some(code) = self.group.refuses.take() {
            return replies.refuse(&request.head, &ErrorReply::new(code, "x"));
        }
        let topic_id = self.topics[TOPIC].id;
        self.group.holding = asked.holding.iter().map(|place| place.queue.0).collect();
        if asked.known.0 >= self.group.generation {
            if let Some((older, to)) = self.group.parked.replace((request.clone(), replies.clone()))
            {
                to.send(&older.head, &self.answer(None), &[]);
            }
            return;
        }
        let assigned = self.group.assigned.iter().map(|queue| AssignedQueue {
            topic: TopicName::try_from(TOPIC).unwrap(),
            topic_id,
            queue: QueueId(*queue),
            generation: Generation(1),
        });
        let answer = self.answer(Some(assigned.collect()));
        replies.send(&request.head, &answer, &[]);
    }

    fn answer(&self, assigned: Option<Vec<AssignedQueue>>) -> GroupHeartbeatReply {
        GroupHeartbeatReply {
            generation: Generation(self.group.generation),
            assigned,
            settings: None,
            divide: None,
        }
    }

    /// Sends what there is, as far as there is credit.
    pub fn push_groups(&mut self) {
        let Some(topic) = self.topics.get(TOPIC) else { return };
        for (number, queue) in &mut self.group.queues {
            let Some((subscription, replies)) = &queue.subscription else { continue };
            for kept in &topic.queues[*number as usize].batches {
                let (base, count) = (kept.base_offset.0, u64::from(kept.batch.count()));
                let wanted = |at: &u64| !queue.settled.contains(at) && !queue.sent.contains(at);
                let open: Vec<_> = (base..base + count).filter(wanted).collect();
                if open.is_empty() || queue.credit <= 0 {
                    continue;
                }
                queue.credit -= i64::try_from(count).unwrap();
                queue.sent.extend(&open);
                let skipped = (base..base + count).filter(|at| !open.contains(at));
                let again = open.iter().filter_map(|at| Some((*at, *queue.failed.get(at)?)));
                let push = GroupDeliver {
                    queue: QueueId(*number),
                    log_start: Offset(0),
                    end_offset: Offset(base + count),
                    batches: vec![FetchedBatch {
                        base_offset: kept.base_offset,
                        term: kept.term,
                        stored: kept.stored,
                        length: kept.batch.len_bytes(),
                        expired: 0,
                    }],
                    skipped: skipped.map(|at| OffsetRange::one(Offset(at))).collect(),
                    redelivered: again
                        .map(|(at, deliveries)| {
                            let (from, to) = (Offset(at), Offset(at + 1));
                            Redelivered { from, to, deliveries }
                        })
                        .collect(),
                };
                let head = FrameHead::push(Opcode::GroupDeliver, *subscription);
                replies.push(head, &push, kept.batch.bytes());
            }
        }
    }
}

/// Answers what is about groups.
pub fn answer(request: &Frame, shared: &Arc<Shared>, replies: &Replies) {
    let state = &mut *shared.lock();
    let head = &request.head;
    match head.opcode {
        Opcode::JoinGroup => join(state, request, replies),
        Opcode::GroupHeartbeat => state.heartbeat(request, replies),
        Opcode::LeaveGroup => {
            state.group.has_left = true;
            replies.send(head, &LeaveGroupReply {}, &[]);
        }
        Opcode::ClaimQueue => {
            let asked: ClaimQueue = request.header().unwrap();
            let round = state.group.queues.entry(asked.queue.0).or_default().round;
            let (floor, log_start, end_offset) = (Offset(0), Offset(0), Offset(0));
            let reply = ClaimQueueReply { floor, log_start, end_offset, round, retries: 0 };
            replies.send(head, &reply, &[]);
        }
        Opcode::SubscribeGroup => {
            let asked: SubscribeGroup = request.header().unwrap();
            let queue = state.group.queues.entry(asked.queue.0).or_default();
            queue.subscription = Some((asked.subscription.0, replies.clone()));
            queue.credit = i64::from(asked.credit_messages);
            queue.sent.clear();
            let (offset, log_start, end_offset) = (Offset(0), Offset(0), Offset(0));
            replies.send(head, &SubscribeGroupReply { offset, log_start, end_offset }, &[]);
        }
        Opcode::Credit => {
            let asked: Credit = request.header().unwrap();
            for queue in state.group.queues.values_mut() {
                let is_its = |one: &(u64, Replies)| one.0 == asked.subscription.0;
                if queue.subscription.as_ref().is_some_and(is_its) {
                    queue.credit += i64::from(asked.messages);
                }
            }
        }
        Opcode::Unsubscribe => {
            let asked: Unsubscribe = request.header().unwrap();
            for queue in state.group.queues.values_mut() {
                queue.subscription.take_if(|one| one.0 == asked.subscription.0);
            }
        }
        Opcode::AckMessages => settle(state, request, replies),
        other => unreachable!("{other} is answered elsewhere"),
    }
    state.push_groups();
}

fn join(state: &mut State, request: &Frame, replies: &Replies) {
    let asked: JoinGroup = request.header().unwrap();
    let group = &mut state.group;
    if let Some(code) = group.refuses_joins {
        group.refused_joins += 1;
        return replies.refuse(&request.head, &ErrorReply::new(code, "no"));
    }
    if group.session != asked.session || group.member == 0 {
        group.session = asked.session;
        group.member += 1;
        group.generation += 1;
    }
    let reply = JoinGroupReply {
        group_id: GroupId(77),
        member: MemberId(group.member),
        generation: Generation(group.generation),
        session_ms: 10_000,
        heartbeat_ms: 3_000,
        settings: GroupSettings::default(),
        time: grus_protocol::TimestampMs(0),
    };
    replies.send(&request.head, &reply, &[]);
}

fn settle(state: &mut State, request: &Frame, replies: &Replies) {
    let asked: AckMessages = request.header().unwrap();
    assert_eq!((asked.group_id, asked.topic_id), (GroupId(77), TopicId(1)));
    state.group.ack_requests += 1;
    let queue = state.group.queues.entry(asked.queue.0).or_default();
    if asked.round != queue.round {
        let error = ErrorReply::new(ErrorCode::ProgressReset, "reset");
        return replies.refuse(&request.head, &error);
    }
    queue.settled.extend(asked.acks.iter().flat_map(OffsetRange::numbers));
    for nack in asked.nacks {
        *queue.failed.entry(nack.offset.0).or_default() += 1;
        queue.reasons.push(nack.reason);
        queue.sent.remove(&nack.offset.0); // due again at once
    }
    for mark in asked.dead {
        queue.settled.insert(mark.offset.0);
        queue.dead.insert(mark.offset.0, mark.reason);
    }
    if let Some(unseen_from) = asked.unseen_from {
        queue.unseen_from = Some(unseen_from.0);
        queue.subscription = None;
    }
    replies.send(
        &request.head,
        &AckMessagesReply { floor: Offset(0), retries: 0, left: Vec::new() },
        &[],
    );
}

impl Replies {
    /// Sends a push.
    pub fn push<H: serde::Serialize>(&self, head: FrameHead, header: &H, body: &[u8]) {
        let mut out = BytesMut::new();
        frame::encode(head, header, body.len(), &mut out).unwrap();
        out.extend_from_slice(body);
        self.put(out.freeze());
    }
}
