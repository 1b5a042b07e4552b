//! The requests of a consumer, as bytes. No clock, no I/O.

use bytes::BytesMut;
use grus_protocol::message::{
    AckMessages, AssignQueues, ClaimQueue, GroupHeartbeat, GroupOptions, GroupSettings,
    GroupSubscription, JoinGroup, LeaveGroup, Subscribe, SubscribeAt, SubscribeGroup,
};
use grus_protocol::{GroupName, InstanceName};

use super::membership::{Joined, MemberWord};
use super::queue::OwnedQueue;
use super::settling::Told;
use super::state::QueueWord;
use crate::link::encode;
use crate::reader::requests::subscription_id;

/// Who a consumer is.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) group: GroupName,
    pub(crate) session: u64,
    pub(crate) client_id: String,
    pub(crate) options: GroupOptions,
    pub(crate) instance: Option<InstanceName>,
}

/// The frame of a request to the coordinator.
pub(crate) fn member_frame(
    identity: &Identity,
    subscriptions: &[GroupSubscription],
    word: &MemberWord,
) -> BytesMut {
    let group = identity.group.clone();
    match word {
        MemberWord::Join => encode(
            &JoinGroup {
                group,
                session: identity.session,
                client_id: identity.client_id.clone(),
                subscriptions: subscriptions.to_vec(),
                options: identity.options.clone(),
                instance: identity.instance.clone(),
                lane: None,
            },
            0,
        ),
        MemberWord::Heartbeat { at, known, holding, wait_ms } => {
            let (known, holding, wait_ms) = (*known, holding.clone(), *wait_ms);
            let Joined { group_id, member } = *at;
            encode(&GroupHeartbeat { group, group_id, member, known, holding, wait_ms }, 0)
        }
        MemberWord::Assign { at: Joined { group_id, member }, question, topics } => {
            let (group_id, member, question, topics) =
                (*group_id, *member, *question, topics.clone());
            encode(&AssignQueues { group, group_id, member, question, topics }, 0)
        }
        MemberWord::Leave { at: Joined { group_id, member } } => {
            encode(&LeaveGroup { group, group_id: *group_id, member: *member }, 0)
        }
    }
}

/// The frame of a request about a queue. `owner` is one in its client.
pub(crate) fn queue_frame<P>(
    identity: &Identity,
    (joined, settings): (Joined, &GroupSettings),
    queue: &OwnedQueue<P>,
    (number, what): (u64, &QueueWord),
    owner: u32,
) -> BytesMut {
    let (topic, topic_id, place) = (queue.topic.clone(), queue.place.topic_id, queue.place.queue);
    let (group_id, member, generation) = (joined.group_id, joined.member, queue.generation);
    match what {
        QueueWord::Claim => encode(
            &ClaimQueue {
                group: identity.group.clone(),
                group_id,
                topic,
                topic_id,
                queue: place,
                member,
                generation,
                settings: settings.clone(),
            },
            0,
        ),
        QueueWord::Subscribe { credit: (credit_messages, credit_bytes) } => encode(
            &SubscribeGroup {
                subscription: subscription_id(owner, number),
                topic,
                topic_id,
                queue: place,
                group_id,
                member,
                generation,
                round: queue.round,
                filter: queue.filter.clone(),
                credit_messages: *credit_messages,
                credit_bytes: *credit_bytes,
            },
            0,
        ),
        QueueWord::Ack(told) => encode(&ack(joined, queue, told), 0),
    }
}

/// The frame by which a member of a broadcast group reads a queue, as any reader does.
pub(crate) fn reading_frame<P>(
    queue: &OwnedQueue<P>,
    (number, (credit_messages, credit_bytes)): (u64, (u32, u32)),
    at: SubscribeAt,
    owner: u32,
) -> BytesMut {
    let subscribe = Subscribe {
        subscription: subscription_id(owner, number),
        topic: queue.topic.clone(),
        topic_id: queue.place.topic_id,
        queue: queue.place.queue,
        at,
        credit_messages,
        credit_bytes,
    };
    encode(&subscribe, 0)
}

/// The word about messages of a queue.
pub(crate) fn ack<P>(joined: Joined, queue: &OwnedQueue<P>, told: &Told) -> AckMessages {
    AckMessages {
        topic: queue.topic.clone(),
        topic_id: queue.place.topic_id,
        queue: queue.place.queue,
        group_id: joined.group_id,
        member: joined.member,
        generation: queue.generation,
        round: queue.round,
        acks: told.acks.ranges().collect(),
        nacks: told.nacks.clone(),
        dead: told.dead.clone(),
        unseen_from: told.hands_back.as_ref().map(|back| back.unseen_from),
        in_work: told.hands_back.as_ref().map_or_else(Vec::new, |back| back.in_work.clone()),
    }
}
