//! A consumer's logic alone. No clock, no I/O.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use grus_protocol::message::{
    AckMessagesReply, AssignQueuesReply, ClaimQueueReply, GroupDeliver, GroupHeartbeatReply,
    GroupOptions, GroupSubscription, JoinGroupReply, LeaveGroupReply, OffsetRange,
    SubscribeGroupReply,
};
use grus_protocol::{ErrorReply, Frame, GroupName, Offset, Opcode, QueueId, TopicId, TopicName};

use crate::consumer::membership::MemberAsk;
use crate::consumer::requests::{Identity, member_frame, queue_frame};
use crate::consumer::state::{Change, ConsumerSettings, ConsumerState, QueueAsk, Telling};
use crate::consumer::{HandItem, Verdict};
use crate::error::Refusal;
use crate::read::READ_LIMITS;
use crate::reader::requests::{credit_frame, number_of, split, unsubscribe_frame};
use crate::route::{LinkId, Route};
use crate::router::reply_of;

/// Most messages of a queue on the way and in hand.
const QUEUE_MESSAGES_MAX: u32 = 30;
const BYTES_MAX: u32 = 4 << 20;
/// How long work on a queue that is to go may last.
const REVOKE_MS_MAX: u64 = 1_000;
/// One in its client: each has a client of its own.
const OWNER: u32 = 1;

/// What a consumer does next. Frames are those that go over a connection.
#[derive(Debug)]
pub enum ConsumerStep {
    /// It asks whoever coordinates its group.
    AskCoordinator {
        /// What the answer is known by.
        number: u64,
        /// The request.
        frame: BytesMut,
    },
    /// It asks who leads a queue.
    AskLeader {
        /// The connection, as the route names it.
        link: u32,
        /// What the answer is known by.
        token: (u64, u64),
        /// The request.
        frame: BytesMut,
    },
    /// It tells who leads a queue something that is not answered.
    Tell {
        /// The connection.
        link: u32,
        /// The word.
        frame: BytesMut,
    },
    /// It asks where the queues of a topic are.
    FindRoute(TopicName),
}

/// A message that the program is handed.
#[derive(Debug, Clone)]
pub struct GivenMessage {
    /// Of the topic's incarnation.
    pub queue: QueueId,
    /// Its place.
    pub offset: Offset,
    /// The topic.
    pub topic: TopicName,
    /// What was sent; none: it cannot be read.
    pub body: Option<Bytes>,
    /// How often it was delivered before.
    pub deliveries: u32,
    /// Which of its member's items it is of.
    item: (u64, u64),
}

impl GivenMessage {
    /// Which of the member's queues it is of, counted from its first one: one that it lost and has again counts anew.
    pub const fn slot(&self) -> u64 {
        self.item.0
    }
}

/// What the program says of a message.
#[derive(Debug, Clone)]
pub enum GivenVerdict {
    /// It is done.
    Ack,
    /// It failed.
    Nack(String),
    /// It is a dead letter.
    Dead(String),
}

/// What [`Consumer`](crate::Consumer) runs, as a member of a group that claims and acknowledges.
#[derive(Debug)]
pub struct SimulatedConsumer {
    identity: Identity,
    state: ConsumerState<()>,
    /// Taken, and not handed out yet.
    hands: VecDeque<(HandItem, Offset)>,
}

impl SimulatedConsumer {
    /// One that joins first.
    pub fn new(
        group: GroupName,
        (session, client_id): (u64, String),
        subscriptions: Vec<GroupSubscription>,
        options: GroupOptions,
        seed: u64,
    ) -> Self {
        let settings = ConsumerSettings {
            acks_before: false,
            queue_messages_max: QUEUE_MESSAGES_MAX,
            bytes_max: BYTES_MAX,
            revoke_ms_max: REVOKE_MS_MAX,
            join_ms_max: None,
        };
        let identity = Identity { group, session, client_id, options, instance: None };
        let state = ConsumerState::new(settings, subscriptions, seed);
        Self { identity, state, hands: VecDeque::new() }
    }

    /// What to do now; none: nothing before something happens, or time has passed.
    pub fn poll(&mut self, now_ms: u64) -> Option<ConsumerStep> {
        if let Some(MemberAsk { number, what, .. }) = self.state.poll_member(now_ms) {
            let frame = member_frame(&self.identity, self.state.subscriptions(), &what);
            return Some(ConsumerStep::AskCoordinator { number, frame });
        }
        if let Some(topic) = self.state.poll_route(now_ms) {
            return Some(ConsumerStep::FindRoute(topic));
        }
        if let Some(ask) = self.state.poll_ask(now_ms) {
            let QueueAsk { link, slot, number, ref what } = ask;
            if let Some((queue, joined)) = self.state.queue(slot).zip(self.state.member()) {
                let frame = queue_frame(&self.identity, joined, queue, (number, what), OWNER);
                let (link, token) = (link.0, (slot, number));
                return Some(ConsumerStep::AskLeader { link, token, frame });
            }
            self.state.not_asked(&ask, now_ms);
        }
        let (link, frame) = match self.state.poll_tell()? {
            Telling::Credit { link, number, credit, .. } => {
                (link, credit_frame(OWNER, number, credit))
            }
            Telling::Leave { link, number } => (link, unsubscribe_frame(OWNER, number)),
        };
        Some(ConsumerStep::Tell { link: link.0, frame })
    }

    /// Queues that it was told to let go of since it was asked last; none that it lost.
    pub fn poll_revoked(&mut self) -> Vec<(TopicId, QueueId)> {
        let mut revoked = Vec::new();
        while let Some((change, queues)) = self.state.poll_change() {
            let places = queues.into_iter().map(|(_, place)| (place.topic_id, place.queue));
            revoked.extend(places.filter(|_| change == Change::Revoked));
        }
        revoked
    }

    /// The next message that the program may work on now.
    pub fn give(&mut self, now_ms: u64) -> Option<GivenMessage> {
        for item in self.state.take(now_ms) {
            let offsets: Vec<_> = item.wanted.iter().flat_map(OffsetRange::numbers).collect();
            let each = offsets.into_iter().map(|offset| (item.clone(), Offset(offset)));
            self.hands.extend(each);
        }
        while let Some((item, offset)) = self.hands.pop_front() {
            let at = (item.slot, item.number);
            if item.claim.is_over() {
                self.state.settle(at.0, (at.1, offset), Verdict::Unhandled, None, now_ms);
                continue;
            }
            if now_ms >= self.state.safe_until_ms() {
                self.hands.push_front((item, offset));
                return None;
            }
            let (body, deliveries) = (body_at(&item, offset), item.deliveries(offset));
            let HandItem { queue, topic, .. } = item;
            return Some(GivenMessage { queue, offset, topic, body, deliveries, item: at });
        }
        None
    }

    /// Gives back what the program has not taken yet.
    pub fn give_back(&mut self, now_ms: u64) {
        while let Some((item, offset)) = self.hands.pop_front() {
            let at = (item.number, offset);
            self.state.settle(item.slot, at, Verdict::Unhandled, None, now_ms);
        }
    }

    /// The program has answered for a message.
    pub fn settle(&mut self, message: &GivenMessage, verdict: GivenVerdict, now_ms: u64) {
        let (slot, item) = message.item;
        let verdict = match verdict {
            GivenVerdict::Ack => Verdict::Ack,
            GivenVerdict::Nack(reason) => Verdict::Nack { retry_after_ms: None, reason },
            GivenVerdict::Dead(reason) => Verdict::Dead { reason },
        };
        self.state.settle(slot, (item, message.offset), verdict, None, now_ms);
    }

    /// The answer to [`ConsumerStep::AskCoordinator`]; none: it was lost.
    pub fn coordinator_answered(&mut self, number: u64, answer: Option<&Frame>, now_ms: u64) {
        let Some(frame) = answer else { return self.state.member_unanswered(number, now_ms) };
        let refused = match frame.head.opcode {
            Opcode::JoinGroup => match reply_of::<JoinGroupReply>(frame) {
                Ok(reply) => return self.state.joined(number, reply, now_ms),
                Err(refusal) => refusal,
            },
            Opcode::GroupHeartbeat => match reply_of::<GroupHeartbeatReply>(frame) {
                Ok(reply) => return self.state.heard(number, reply, now_ms),
                Err(refusal) => refusal,
            },
            Opcode::AssignQueues => match reply_of::<AssignQueuesReply>(frame) {
                Ok(AssignQueuesReply {}) => return self.state.division_taken(number),
                Err(refusal) => refusal,
            },
            _ => match reply_of::<LeaveGroupReply>(frame) {
                Ok(LeaveGroupReply {}) => return self.state.left(number, now_ms),
                Err(refusal) => refusal,
            },
        };
        self.state.member_refused(number, refused, now_ms);
    }

    /// The answer to [`ConsumerStep::AskLeader`].
    pub fn leader_answered(&mut self, token: (u64, u64), frame: &Frame, now_ms: u64) {
        let refused = match frame.head.opcode {
            Opcode::ClaimQueue => match reply_of::<ClaimQueueReply>(frame) {
                Ok(reply) => return self.state.claimed(token, &reply),
                Err(refusal) => refusal,
            },
            Opcode::SubscribeGroup => match reply_of::<SubscribeGroupReply>(frame) {
                Ok(reply) => return self.state.subscribed(token, reply.offset),
                Err(refusal) => refusal,
            },
            _ => match reply_of::<AckMessagesReply>(frame) {
                Ok(reply) => return drop(self.state.acked(token, &reply.left, now_ms)),
                Err(refusal) => refusal,
            },
        };
        self.state.refused(token, &refused, now_ms);
    }

    /// Messages, or the end of a subscription.
    pub fn pushed(&mut self, frame: &Frame, now_ms: u64) {
        let number = number_of(frame);
        match reply_of::<GroupDeliver>(frame) {
            Ok(push) => match split(&push.batches, frame) {
                Ok(batches) => self.state.delivered(number, &push, batches, now_ms),
                Err(damage) => self.state.pushed_wrongly(number, &damage, now_ms),
            },
            Err(refusal) if frame.head.is_error() => self.state.ended(number, &refusal, now_ms),
            Err(nonsense) => self.state.pushed_wrongly(number, &nonsense.message, now_ms),
        }
    }

    /// The answer to [`ConsumerStep::FindRoute`]: the connection that leads to each queue, by the queue's number.
    pub fn route(
        &mut self,
        topic: &TopicName,
        route: Result<(TopicId, Vec<Option<u32>>), ErrorReply>,
        now_ms: u64,
    ) {
        let route = route.map(|(topic_id, links)| {
            let links: Arc<[_]> = links.into_iter().map(|link| link.map(LinkId)).collect();
            Route { topic_id, links }
        });
        self.state.route(topic, route.map_err(Refusal::from), now_ms);
    }

    /// A connection was opened.
    pub fn link_up(&mut self, link: u32) {
        self.state.link_up(LinkId(link));
    }

    /// A connection was lost, and with it the answers to all that went over it.
    pub fn link_down(&mut self, link: u32) {
        self.state.link_down(LinkId(link));
    }

    /// It hands out nothing more, answers for what is in work, and leaves.
    pub fn leave(&mut self, wait_ms_max: u64, now_ms: u64) {
        self.state.stop(wait_ms_max, now_ms);
    }

    /// Whether it has left.
    pub fn is_over(&mut self, now_ms: u64) -> bool {
        self.state.is_over(now_ms)
    }

    /// Time has passed: every 25 ms.
    pub fn tick(&mut self, now_ms: u64) {
        self.state.tick(now_ms);
    }
}

/// What was sent at an offset of a batch.
fn body_at(item: &HandItem, offset: Offset) -> Option<Bytes> {
    let place = usize::try_from(offset.0.checked_sub(item.base_offset.0)?).ok()?;
    let plain = item.batch.clone().decompressed(&READ_LIMITS).ok()?;
    let record = plain.records().nth(place)?.ok()?;
    Some(record.body_bytes())
}
