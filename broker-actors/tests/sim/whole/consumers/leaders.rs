//! What a member asks the leaders of its queues, and what they say, as frames.

use std::sync::Arc;

use grus_broker::commands::groups::{HandBack, Holding, ProgressKey, RetryTerms, Span};
use grus_broker::error::QueueError;
use grus_broker::shard::ShardHandle;
use grus_broker::topic_queue::{
    Account, Answered, AnswersTaken, At, ClaimTaken, Failed, GivenUp, GroupAsk, ListedOffset,
    QueueHandle, SubscriptionAsk, SubscriptionKey,
};
use grus_mailbox::Port;
use grus_mailbox::reply::port;
use grus_protocol::frame::{Frame, FrameHead};
use grus_protocol::ids::{Generation, GroupId, MemberId, QueueKey};
use grus_protocol::message::{
    AckMessages, AckMessagesReply, ClaimQueue, ClaimQueueReply, Credit, Nack, OffsetRange,
    SubscribeGroup, SubscribeGroupReply, Unsubscribe,
};
use grus_protocol::{ErrorCode, ErrorReply, Opcode};
use serde::Serialize;

use super::super::CONSUMED;
use super::super::lines::Back;
use super::sink::Sink;
use super::{Event, answer_of};
use crate::groups::facts::{Back as HandsBack, Fact, Holder, Scribe};

/// Back from the leader of a queue.
pub(super) struct Way {
    pub(super) token: (u64, u64),
    pub(super) back: Back<Event>,
    pub(super) scribe: Scribe,
    /// The connection, among all of all members.
    pub(super) from: u64,
}

impl Way {
    /// A port that answers a request; `look` sees the answer in the instant in which it is given.
    fn port<T: Send + 'static, R: Serialize>(
        &self,
        head: FrameHead,
        look: impl FnOnce(&Scribe, &Result<T, QueueError>) + Send + 'static,
        reply: impl FnOnce(T) -> R + Send + 'static,
    ) -> Port<Result<T, QueueError>> {
        let (token, back, scribe) = (self.token, self.back.clone(), self.scribe.clone());
        Port::call(move |answer: Result<Result<T, QueueError>, _>| {
            let event = answer.ok().map(|answer| {
                look(&scribe, &answer);
                let answer = answer.map(reply).map_err(|error| match error {
                    QueueError::UnknownGroup => {
                        ErrorReply::new(ErrorCode::Unavailable, "it is being made here")
                    }
                    error => error.to_reply(),
                });
                Event::Leader(token, answer_of(head, &answer))
            });
            let _ = back.send(event); // lost meanwhile
        })
    }
}

fn refused(scribe: &Scribe, by: Holder, error: &QueueError) {
    match error {
        QueueError::NotHeld { .. } => scribe.note(Fact::Refused { by, fenced: true }),
        QueueError::ProgressReset { .. } => scribe.note(Fact::Refused { by, fenced: false }),
        _ => {}
    }
}

fn holding_of(by: Holder, group: GroupId) -> Holding {
    Holding {
        place: ProgressKey { queue: by.queue, group },
        generation: Generation(by.generation),
        member: MemberId(by.member),
        round: by.round,
    }
}

pub(super) fn ask_leader(broker: &ShardHandle, frame: &Frame, way: &Way) {
    match frame.head.opcode {
        Opcode::ClaimQueue => claim(broker, frame, way),
        Opcode::SubscribeGroup => subscribe(broker, frame, way),
        Opcode::AckMessages => settle(broker, frame, way),
        other => panic!("a consumer asks the leader of a queue for {other:?}"),
    }
}

/// Where a queue is that is served here; else the request is answered.
fn queue_of(
    broker: &ShardHandle,
    key: QueueKey,
    frame: &Frame,
    way: &Way,
) -> Option<Arc<QueueHandle>> {
    let found = broker.queue(key);
    if found.is_none() {
        let not_here = QueueError::NotLeader { leader: None }.to_reply();
        let answer = answer_of::<()>(frame.head, &Err(not_here));
        let _ = way.back.send(Some(Event::Leader(way.token, answer))); // lost meanwhile
    }
    found
}

fn claim(broker: &ShardHandle, frame: &Frame, way: &Way) {
    let ask: ClaimQueue = frame.header().expect("a request");
    let queue = QueueKey { topic: ask.topic_id, queue: ask.queue };
    let Some(handle) = queue_of(broker, queue, frame, way) else { return };
    let by = Holder { queue, generation: ask.generation.0, member: ask.member.0, round: 0 };
    let asked_ns = way.scribe.now_ns();
    let look = move |scribe: &Scribe, taken: &Result<ClaimTaken, QueueError>| match taken {
        Ok(taken) => {
            let by = Holder { round: taken.claimed.round, ..by };
            scribe.note(Fact::Claimed { by, floor: taken.claimed.floor.0, asked_ns });
        }
        Err(error) => refused(scribe, by, error),
    };
    let reply = way.port(frame.head, look, |taken: ClaimTaken| ClaimQueueReply {
        floor: taken.claimed.floor,
        log_start: taken.log_start,
        end_offset: taken.end_offset,
        round: taken.claimed.round,
        retries: taken.claimed.retries,
    });
    let terms = RetryTerms {
        deliveries_max: ask.settings.max_deliveries,
        ladder_ms: ask.settings.ladder_ms,
    };
    let (holding, start) = (holding_of(by, ask.group_id), At::First);
    let _ = handle.group.try_put(GroupAsk::Claim { holding, start, terms, reply }); // refused: dropped
}

fn settle(broker: &ShardHandle, frame: &Frame, way: &Way) {
    let ask: AckMessages = frame.header().expect("a request");
    let queue = QueueKey { topic: ask.topic_id, queue: ask.queue };
    let Some(handle) = queue_of(broker, queue, frame, way) else { return };
    let (generation, member, round) = (ask.generation.0, ask.member.0, ask.round);
    let by = Holder { queue, generation, member, round };
    let span = |range: &OffsetRange| Span { from: range.from, to: range.to };
    let numbers = |ranges: &[OffsetRange]| -> Vec<u64> {
        ranges.iter().flat_map(OffsetRange::numbers).collect()
    };
    let back = ask.unseen_from.map(|unseen_from| HandsBack {
        unseen_from: unseen_from.0,
        in_work: numbers(&ask.in_work),
    });
    let mut over = numbers(&ask.acks);
    over.extend(ask.dead.iter().map(|mark| mark.offset.0));
    let failed: Vec<u64> = ask.nacks.iter().map(|nack| nack.offset.0).collect();
    let holding = holding_of(by, ask.group_id);
    let answered = Answered {
        holding,
        acks: ask.acks.iter().filter(|range| !range.is_empty()).map(span).collect(),
        failed: ask.nacks.into_iter().map(failed_of).collect(),
        given_up: ask
            .dead
            .into_iter()
            .map(|dead| GivenUp { offset: dead.offset, reason: dead.reason })
            .collect(),
        hands_back: ask.unseen_from.map(|unseen_from| HandBack {
            holding,
            unseen_from,
            in_work: ask.in_work.iter().map(span).collect(),
        }),
    };
    let answering = Fact::Answering { by, failed: failed.clone(), back: back.clone() };
    way.scribe.note(answering);
    let asked_ns = way.scribe.now_ns();
    let look = move |scribe: &Scribe, settled: &Result<AnswersTaken, QueueError>| match settled {
        Ok(AnswersTaken { left, .. }) => {
            let is_left =
                |offset: &u64| left.iter().any(|span| (span.from.0..span.to.0).contains(offset));
            let taken = |all: Vec<u64>| all.into_iter().filter(|it| !is_left(it)).collect();
            let (over, failed) = (taken(over), taken(failed));
            scribe.note(Fact::Settled { by, over, failed, back, asked_ns });
        }
        Err(error) => refused(scribe, by, error),
    };
    let reply = way.port(frame.head, look, |taken: AnswersTaken| AckMessagesReply {
        floor: taken.settled.floor,
        retries: taken.settled.retries,
        left: taken.left.into_iter().map(|Span { from, to }| OffsetRange { from, to }).collect(),
    });
    let _ = handle.group.try_put(GroupAsk::Settle { answered, reply }); // refused: dropped
}

fn failed_of(nack: Nack) -> Failed {
    Failed { offset: nack.offset, retry_after_ms: nack.retry_after_ms, reason: nack.reason }
}

fn subscribe(broker: &ShardHandle, frame: &Frame, way: &Way) {
    let ask: SubscribeGroup = frame.header().expect("a request");
    let queue = QueueKey { topic: ask.topic_id, queue: ask.queue };
    let Some(handle) = queue_of(broker, queue, frame, way) else { return };
    let (generation, member, round) = (ask.generation.0, ask.member.0, ask.round);
    let by = Holder { queue, generation, member, round };
    let key = SubscriptionKey { connection: way.from, id: ask.subscription };
    let look = move |scribe: &Scribe, listed: &Result<ListedOffset, QueueError>| {
        if let Err(error) = listed {
            refused(scribe, by, error);
        }
    };
    let reply = way.port(frame.head, look, |listed: ListedOffset| SubscribeGroupReply {
        offset: listed.offset,
        log_start: listed.log_start,
        end_offset: listed.end_offset,
    });
    let head = FrameHead::push(Opcode::GroupDeliver, ask.subscription.0);
    let (scribe, back) = (way.scribe.clone(), Some(way.back.clone()));
    let subscriber = Box::new(Sink { by, head, queue: ask.queue, scribe, back });
    let account = Account::new(ask.credit_messages, ask.credit_bytes);
    let (holding, filter) = (holding_of(by, ask.group_id), ask.filter);
    let ask = GroupAsk::Subscribe { key, holding, filter, account, subscriber, reply };
    let _ = handle.group.try_put(ask); // refused: its port is dropped
}

/// Credit, or the end of a subscription: nobody waits for an answer. Which queue it is of, the broker's connection
/// knows; here all queues of the group hear it, and those that have no such subscription pass it over.
pub(super) fn tell_leader(broker: &ShardHandle, frame: &Frame, connection: u64) {
    let queues = CONSUMED.iter().filter_map(|key| broker.queue(*key));
    for queue in queues.collect::<Vec<Arc<QueueHandle>>>() {
        let (reply, _) = port();
        let ask = match frame.head.opcode {
            Opcode::Credit => {
                let Credit { subscription: id, messages, bytes } =
                    frame.header().expect("a request");
                let key = SubscriptionKey { connection, id };
                SubscriptionAsk::Credit { key, more: Account::new(messages, bytes), reply }
            }
            Opcode::Unsubscribe => {
                let Unsubscribe { subscription: id } = frame.header().expect("a request");
                SubscriptionAsk::Unsubscribe { key: SubscriptionKey { connection, id }, reply }
            }
            other => panic!("a consumer tells the leader of a queue {other:?}"),
        };
        let _ = queue.subscribe.try_put(ask); // refused: the next credit says as much
    }
}
