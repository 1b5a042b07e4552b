//! One queue of a group: claiming it, having its messages, settling them.

use std::ops::Range;

use super::{GroupSettings, MessageFilter};
use crate::ids::{Generation, GroupId, MemberId, Offset, QueueId, SubscriptionId, TopicId};
use crate::message::FetchedBatch;
use crate::names::{GroupName, TopicName};
use crate::wire::wire_message;

/// Most ranges of offsets that one request settles.
pub const ACK_RANGES_MAX: usize = 4_096;
/// Most messages that one request names as failed or dead.
pub const ACK_MARKS_MAX: usize = 1_024;
/// The longest reason of a failure, in bytes; what is longer is cut.
pub const REASON_BYTES_MAX: usize = 1_024;
/// Bytes of all reasons of a request that fits its header with the most of all else it may hold.
pub const ACK_REASONS_BYTES_MAX: usize = 64 * 1_024;

wire_message! {
    /// Offsets of a queue: from `from` to before `to`.
    #[derive(Copy, PartialOrd, Ord, Hash)]
    pub struct OffsetRange {
        /// The first one.
        pub from: Offset,
        /// Behind the last one.
        pub to: Offset,
    }
}

impl OffsetRange {
    /// The one offset.
    pub const fn one(offset: Offset) -> Self {
        Self { from: offset, to: Offset(offset.0.saturating_add(1)) }
    }

    /// How many there are.
    pub const fn len(&self) -> u64 {
        self.to.0.saturating_sub(self.from.0)
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.from.0 >= self.to.0
    }

    /// Whether this is one of them.
    pub const fn contains(&self, offset: Offset) -> bool {
        self.from.0 <= offset.0 && offset.0 < self.to.0
    }

    /// The offsets as numbers.
    pub const fn numbers(&self) -> Range<u64> {
        self.from.0..self.to.0
    }
}

wire_message! {
    /// Makes a queue the member's at the broker that leads it: earlier members can settle nothing
    /// from then on. The greater generation wins.
    pub struct ClaimQueue {
        /// The group.
        pub group: GroupName,
        /// The incarnation that the member joined.
        pub group_id: GroupId,
        /// The topic.
        pub topic: TopicName,
        /// The incarnation that was assigned.
        pub topic_id: TopicId,
        /// The queue.
        pub queue: QueueId,
        /// The member.
        pub member: MemberId,
        /// The generation by which the queue is the member's.
        pub generation: Generation,
        /// How the group works, as the member was told last.
        pub settings: GroupSettings,
    }
}

wire_message! {
    /// The queue is the member's.
    pub struct ClaimQueueReply {
        /// All before it is settled, or waits to be delivered again.
        pub floor: Offset,
        /// First offset there is.
        pub log_start: Offset,
        /// Offset the next record will get.
        pub end_offset: Offset,
        /// How often the group's progress in the queue was reset.
        pub round: u32,
        /// Messages that wait to be delivered again.
        pub retries: u64,
    }
}

wire_message! {
    /// A message that was handled in vain.
    pub struct Nack {
        /// Its offset.
        pub offset: Offset,
        /// How long it waits before it is delivered again, in milliseconds; nil: as the ladder
        /// says.
        pub retry_after_ms: Option<u64> = None,
        /// Why; what becomes of it when this was the last delivery.
        pub reason: String = String::new(),
    }
}

wire_message! {
    /// A message that is to be a dead letter at once.
    pub struct DeadMark {
        /// Its offset.
        pub offset: Offset,
        /// Why.
        pub reason: String = String::new(),
    }
}

wire_message! {
    /// Says what became of messages. What is settled already is left as it is.
    pub struct AckMessages {
        /// The topic.
        pub topic: TopicName,
        /// Its incarnation.
        pub topic_id: TopicId,
        /// The queue.
        pub queue: QueueId,
        /// The group's incarnation.
        pub group_id: GroupId,
        /// The member.
        pub member: MemberId,
        /// The generation by which it claimed the queue.
        pub generation: Generation,
        /// The round that the claim told.
        pub round: u32,
        /// Those that are done, at most [`ACK_RANGES_MAX`] ranges.
        pub acks: Vec<OffsetRange>,
        /// Those that failed; with `dead`, at most [`ACK_MARKS_MAX`].
        pub nacks: Vec<Nack> = Vec::new(),
        /// Those that are dead letters from now on.
        pub dead: Vec<DeadMark> = Vec::new(),
        /// The member lets go of the queue: from here on, nothing that was sent to it for the first
        /// time was handed to anybody and is not answered for. It does not count as delivered. Its
        /// subscription ends.
        pub unseen_from: Option<Offset> = None,
        /// With `unseen_from`: what was handed out and is not answered for. Other messages that were
        /// sent again and are not answered for do not count as delivered once more.
        pub in_work: Vec<OffsetRange> = Vec::new(),
    }
}

wire_message! {
    /// It is in the log, but for what found no room.
    pub struct AckMessagesReply {
        /// All before it is settled, or waits to be delivered again.
        pub floor: Offset,
        /// Messages that wait to be delivered again.
        pub retries: u64,
        /// What of the request found no room, and is to be said again later: ranges of `acks` of
        /// which not all is settled now, and messages of `nacks` and `dead`. In order.
        pub left: Vec<OffsetRange> = Vec::new(),
    }
}

wire_message! {
    /// Has the messages of a claimed queue sent as they come, as long as there is credit of both
    /// kinds: what is not settled from the floor on, and what is due again.
    pub struct SubscribeGroup {
        /// The client's choice; not that of another subscription of this connection.
        pub subscription: SubscriptionId,
        /// The topic.
        pub topic: TopicName,
        /// Its incarnation.
        pub topic_id: TopicId,
        /// The queue.
        pub queue: QueueId,
        /// The group's incarnation.
        pub group_id: GroupId,
        /// The member.
        pub member: MemberId,
        /// The generation by which it claimed the queue.
        pub generation: Generation,
        /// The round that the claim told.
        pub round: u32,
        /// Which messages are wanted; the others are settled by the broker.
        pub filter: MessageFilter,
        /// Messages that may be sent before more credit is given.
        pub credit_messages: u32,
        /// Bytes of batches that may be sent before more credit is given.
        pub credit_bytes: u32,
    }
}

wire_message! {
    /// The subscription stands: what is sent for it follows this reply.
    pub struct SubscribeGroupReply {
        /// The first offset that may be sent.
        pub offset: Offset,
        /// First offset there is.
        pub log_start: Offset,
        /// Offset the next record will get.
        pub end_offset: Offset,
    }
}

wire_message! {
    /// Messages of some offsets that were delivered before.
    #[derive(Copy)]
    pub struct Redelivered {
        /// The first offset.
        pub from: Offset,
        /// Behind the last one.
        pub to: Offset,
        /// How often each of them was delivered before this.
        pub deliveries: u32,
    }
}

wire_message! {
    /// A push: batches for the subscription of a group, whose id is the frame's correlation. Their
    /// bytes are the frame's body.
    pub struct GroupDeliver {
        /// The queue.
        pub queue: QueueId,
        /// First offset there is.
        pub log_start: Offset,
        /// Offset the next record will get.
        pub end_offset: Offset,
        /// One for each batch of the body, in order.
        pub batches: Vec<FetchedBatch>,
        /// Offsets within the batches that are not for the member: settled, not due, not wanted.
        /// In order.
        pub skipped: Vec<OffsetRange> = Vec::new(),
        /// Those of the others that were delivered before. In order.
        pub redelivered: Vec<Redelivered> = Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_ends_before_its_end() {
        let range = OffsetRange { from: Offset(3), to: Offset(5) };
        assert_eq!((range.len(), range.is_empty(), range.numbers()), (2, false, 3..5));
        let inside = [2, 3, 4, 5].map(|offset| range.contains(Offset(offset)));
        assert_eq!(inside, [false, true, true, false]);
        assert_eq!(OffsetRange::one(Offset(3)), OffsetRange { from: Offset(3), to: Offset(4) });
        let backwards = OffsetRange { from: Offset(5), to: Offset(3) };
        assert_eq!((backwards.len(), backwards.is_empty()), (0, true));
    }
}
