//! Consumer groups: who is a member, and who has which queue.

use std::fmt;

use super::ListAt;
use crate::ids::{Generation, GroupId, MemberId, QueueId, QueueKey, TimestampMs, TopicId};
use crate::names::{GroupName, InstanceName, TopicName, TopicPattern};
use crate::wire::{wire_enum, wire_message};

mod admin;
mod dead_letters;
mod dividing;
mod filter;
mod progress;

pub use admin::{
    DeleteGroup, DeleteGroupReply, DescribeGroup, DescribeGroupReply, GROUPS_PAGE_MAX, GroupMember,
    GroupProgress, GroupProgressReply, GroupQueue, GroupSummary, ListGroups, ListGroupsReply,
    PROGRESS_PAGE_DEFAULT, PROGRESS_PAGE_MAX, QueueProgress, ResetGroup, ResetGroupReply,
};
pub use dead_letters::{
    DEAD_LETTERS_PAGE_DEFAULT, DEAD_LETTERS_PAGE_MAX, DeadLetter, DeadLetterPlace, ListDeadLetters,
    ListDeadLettersReply, PurgeDeadLetters, PurgeDeadLettersReply, RedriveDeadLetters,
    RedriveDeadLettersReply, headers as dead_letter_headers,
};
pub use dividing::{
    AssignQueues, AssignQueuesReply, AssignTopic, DivideMember, DivideQueues, DivideTopic,
};
pub use filter::{FilterError, MessageFilter, TAGS_MAX};
pub use progress::{
    ACK_MARKS_MAX, ACK_RANGES_MAX, ACK_REASONS_BYTES_MAX, AckMessages, AckMessagesReply,
    ClaimQueue, ClaimQueueReply, DeadMark, GroupDeliver, Nack, OffsetRange, REASON_BYTES_MAX,
    Redelivered, SubscribeGroup, SubscribeGroupReply,
};

/// Session of a member for which nothing else was said, in milliseconds.
pub const GROUP_SESSION_MS_DEFAULT: u32 = 10_000;
/// The shortest session of members, in milliseconds.
pub const GROUP_SESSION_MS_MIN: u32 = 1_000;
/// The longest session of members, in milliseconds: an hour.
pub const GROUP_SESSION_MS_MAX: u32 = 3_600_000;
/// How often a message is delivered where nothing else was said.
pub const MAX_DELIVERIES_DEFAULT: u32 = 16;
/// How long a failed message waits before it is delivered again, in milliseconds: after the first
/// delivery, after the second, and so on.
pub const LADDER_MS_DEFAULT: [u64; 15] = [
    5_000, 10_000, 15_000, 20_000, 25_000, 30_000, 60_000, 120_000, 240_000, 480_000, 960_000,
    1_200_000, 3_000_000, 6_000_000, 12_000_000,
];
/// Most rungs of a ladder.
pub const LADDER_RUNGS_MAX: usize = 64;
/// The highest rung of a ladder, and the longest that a single nack may ask for, in milliseconds:
/// a year.
pub const RETRY_AFTER_MS_MAX: u64 = 366 * 24 * 3_600 * 1_000;
/// Most subscriptions of one member.
pub const GROUP_SUBSCRIPTIONS_MAX: usize = 256;

wire_enum! {
    /// How a group shares its messages.
    pub enum GroupModel {
        /// Each queue belongs to one member at a time.
        Cluster = 0,
        /// Each member has all messages.
        Broadcast = 1,
        /// Any number of members have a queue's messages, each message one of them.
        Shared = 2,
        /// As cluster, and the messages of a key one after the other.
        Ordered = 3,
    }
}

impl fmt::Display for GroupModel {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Cluster => "cluster",
            Self::Broadcast => "broadcast",
            Self::Shared => "shared",
            Self::Ordered => "ordered",
        })
    }
}

wire_enum! {
    /// How the queues are divided among the members.
    pub enum GroupStrategy {
        /// Evenly, and as few as possible change hands.
        Sticky = 0,
        /// Evenly, each member a run of neighbouring queues of each topic.
        Average = 1,
        /// One by one, in turn.
        RoundRobin = 2,
        /// By a hash ring of the members.
        ConsistentHash = 3,
        /// By a function of the program's own, which one of the members carries out.
        Own = 4,
    }
}

impl fmt::Display for GroupStrategy {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Sticky => "sticky",
            Self::Average => "average",
            Self::RoundRobin => "round_robin",
            Self::ConsistentHash => "consistent_hash",
            Self::Own => "own",
        })
    }
}

wire_message! {
    /// How a group works.
    pub struct GroupSettings {
        /// How it shares its messages.
        pub model: GroupModel = GroupModel::Cluster,
        /// How the queues are divided.
        pub strategy: GroupStrategy = GroupStrategy::Sticky,
        /// A member that is not heard of for so long is one no more, in milliseconds.
        pub session_ms: u32 = GROUP_SESSION_MS_DEFAULT,
        /// Where a queue begins that the group has no progress in.
        pub start: ListAt = ListAt::First,
        /// How long a failed message waits before each next delivery, in milliseconds; the last
        /// rung goes on for those behind it.
        pub ladder_ms: Vec<u64> = LADDER_MS_DEFAULT.to_vec(),
        /// How often a message is delivered before it is a dead letter; 0: without an end.
        pub max_deliveries: u32 = MAX_DELIVERIES_DEFAULT,
        /// Whether all members must subscribe to the same.
        pub is_uniform: bool = false,
    }
}

impl Default for GroupSettings {
    fn default() -> Self {
        Self {
            model: GroupModel::Cluster,
            strategy: GroupStrategy::Sticky,
            session_ms: GROUP_SESSION_MS_DEFAULT,
            start: ListAt::First,
            ladder_ms: LADDER_MS_DEFAULT.to_vec(),
            max_deliveries: MAX_DELIVERIES_DEFAULT,
            is_uniform: false,
        }
    }
}

impl GroupSettings {
    /// Whether all of them are within their bounds; else what is wrong.
    ///
    /// # Errors
    /// One line for a person.
    pub fn check(&self) -> Result<(), &'static str> {
        if !(GROUP_SESSION_MS_MIN..=GROUP_SESSION_MS_MAX).contains(&self.session_ms) {
            return Err("session_ms is 1000 to 3600000");
        }
        if !(1..=LADDER_RUNGS_MAX).contains(&self.ladder_ms.len()) {
            return Err("a ladder has 1 to 64 rungs");
        }
        if self.ladder_ms.iter().any(|rung_ms| *rung_ms > RETRY_AFTER_MS_MAX) {
            return Err("a rung of the ladder is longer than a year");
        }
        Ok(())
    }

    /// How long a message waits that was delivered so often, the last time in vain, in
    /// milliseconds.
    pub fn rung_ms(&self, deliveries: u32) -> u64 {
        let rung = usize::try_from(deliveries.saturating_sub(1)).unwrap_or(usize::MAX);
        self.ladder_ms.get(rung).or(self.ladder_ms.last()).copied().unwrap_or_default()
    }

    /// Whether a message that was delivered so often is not delivered again.
    pub const fn is_limit(&self, deliveries: u32) -> bool {
        self.max_deliveries != 0 && deliveries >= self.max_deliveries
    }
}

wire_message! {
    /// What a member asks of its group's settings; nil leaves one as it is.
    #[derive(Default)]
    pub struct GroupOptions {
        /// See [`GroupSettings::model`].
        pub model: Option<GroupModel> = None,
        /// See [`GroupSettings::strategy`].
        pub strategy: Option<GroupStrategy> = None,
        /// See [`GroupSettings::session_ms`].
        pub session_ms: Option<u32> = None,
        /// See [`GroupSettings::start`].
        pub start: Option<ListAt> = None,
        /// See [`GroupSettings::ladder_ms`].
        pub ladder_ms: Option<Vec<u64>> = None,
        /// See [`GroupSettings::max_deliveries`].
        pub max_deliveries: Option<u32> = None,
        /// See [`GroupSettings::is_uniform`].
        pub is_uniform: Option<bool> = None,
    }
}

impl GroupOptions {
    /// The settings with what is asked for.
    #[must_use]
    pub fn applied_to(&self, settings: &GroupSettings) -> GroupSettings {
        GroupSettings {
            model: self.model.unwrap_or(settings.model),
            strategy: self.strategy.unwrap_or(settings.strategy),
            session_ms: self.session_ms.unwrap_or(settings.session_ms),
            start: self.start.unwrap_or(settings.start),
            ladder_ms: self.ladder_ms.as_ref().unwrap_or(&settings.ladder_ms).clone(),
            max_deliveries: self.max_deliveries.unwrap_or(settings.max_deliveries),
            is_uniform: self.is_uniform.unwrap_or(settings.is_uniform),
        }
    }
}

wire_message! {
    /// What a member wants of some topics.
    #[derive(Hash)]
    pub struct GroupSubscription {
        /// The topic, or a pattern of topics.
        pub topics: TopicPattern,
        /// Which of their messages.
        pub filter: MessageFilter = MessageFilter::All,
    }
}

/// The one of a member's subscriptions that counts for a topic: the first that names it, else the
/// first pattern that it fits.
pub fn subscription_of<'a>(
    subscriptions: &'a [GroupSubscription],
    topic: &TopicName,
) -> Option<&'a GroupSubscription> {
    let mut fitting = subscriptions.iter().filter(|one| one.topics.matches(topic));
    let first = fitting.next()?;
    if first.topics.is_name() {
        return Some(first);
    }
    Some(fitting.find(|one| one.topics.is_name()).unwrap_or(first))
}

wire_message! {
    /// Makes a member of a group, and the group where there is none. The same session again is
    /// the same member: its subscriptions and options are then those of the newest request.
    pub struct JoinGroup {
        /// The group.
        pub group: GroupName,
        /// Drawn by the member when it started, not 0.
        pub session: u64,
        /// Its name for itself, for listings.
        pub client_id: String,
        /// What it wants.
        pub subscriptions: Vec<GroupSubscription>,
        /// What it asks of the group's settings.
        pub options: GroupOptions = GroupOptions::default(),
        /// Its stable name, by which it takes the place of its earlier life at once; nil: none.
        pub instance: Option<InstanceName> = None,
        /// Its lane; nil: none.
        pub lane: Option<String> = None,
    }
}

wire_message! {
    /// It is a member.
    pub struct JoinGroupReply {
        /// The group's incarnation.
        pub group_id: GroupId,
        /// The member's id.
        pub member: MemberId,
        /// The generation of the assignment.
        pub generation: Generation,
        /// It is one no more when it is not heard of for so long, in milliseconds.
        pub session_ms: u32,
        /// It sends a heartbeat at least so often, in milliseconds.
        pub heartbeat_ms: u32,
        /// How the group works.
        pub settings: GroupSettings,
        /// The coordinator's clock when it answered; 0: not told.
        pub time: TimestampMs = TimestampMs(0),
    }
}

wire_message! {
    /// A queue of one incarnation of a topic.
    #[derive(Copy, PartialOrd, Ord, Hash)]
    pub struct QueuePlace {
        /// The topic's incarnation.
        pub topic_id: TopicId,
        /// The queue.
        pub queue: QueueId,
    }
}

impl From<QueueKey> for QueuePlace {
    fn from(key: QueueKey) -> Self {
        Self { topic_id: key.topic, queue: key.queue }
    }
}

impl From<QueuePlace> for QueueKey {
    fn from(place: QueuePlace) -> Self {
        Self { topic: place.topic_id, queue: place.queue }
    }
}

wire_message! {
    /// A member is there, and says which assignment it follows. A long poll: answered when there
    /// is another one.
    pub struct GroupHeartbeat {
        /// The group.
        pub group: GroupName,
        /// The incarnation that the member joined.
        pub group_id: GroupId,
        /// The member.
        pub member: MemberId,
        /// The generation of the assignment that it was told last and follows; 0: none yet.
        pub known: Generation,
        /// The queues that are not its own by that one, which it has not let go of yet.
        pub holding: Vec<QueuePlace>,
        /// How long to wait when there is no other assignment, in milliseconds; 0: not at all.
        /// The broker has a maximum of its own.
        pub wait_ms: u32 = 0,
    }
}

wire_message! {
    /// The assignment of the member.
    pub struct GroupHeartbeatReply {
        /// Its generation.
        pub generation: Generation,
        /// All queues that are the member's; nil: they are what they were by the generation that
        /// it knows.
        pub assigned: Option<Vec<AssignedQueue>>,
        /// How the group works, where that may be news; nil: as before.
        pub settings: Option<GroupSettings> = None,
        /// What the member is to divide by a function of its program; nil: nothing.
        pub divide: Option<DivideQueues> = None,
    }
}

wire_message! {
    /// A queue that is a member's.
    pub struct AssignedQueue {
        /// The topic.
        pub topic: TopicName,
        /// Its incarnation.
        pub topic_id: TopicId,
        /// The queue.
        pub queue: QueueId,
        /// Since which generation it is this member's: by it the queue is claimed.
        pub generation: Generation,
    }
}

wire_message! {
    /// A member goes. Its queues are free at once.
    pub struct LeaveGroup {
        /// The group.
        pub group: GroupName,
        /// The incarnation that it joined.
        pub group_id: GroupId,
        /// The member.
        pub member: MemberId,
    }
}

wire_message! {
    /// It is gone.
    pub struct LeaveGroupReply {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscription(topics: &str) -> GroupSubscription {
        GroupSubscription { topics: topics.parse().unwrap(), filter: MessageFilter::All }
    }

    #[test]
    fn a_name_goes_before_a_pattern_and_the_first_before_the_others() {
        let all = [subscription("or*"), subscription("orders"), subscription("*")];
        let of = |name: &str| {
            let topic = TopicName::try_from(name).unwrap();
            subscription_of(&all, &topic).map(|one| one.topics.as_str())
        };
        assert_eq!(of("orders"), Some("orders"));
        assert_eq!(of("orders2"), Some("or*"));
        assert_eq!(of("bills"), Some("*"));
        assert_eq!(subscription_of(&all[..2], &TopicName::try_from("x").unwrap()), None);
    }

    #[test]
    fn a_ladder_goes_on_with_its_last_rung_and_ends_at_the_limit() {
        let settings = GroupSettings { ladder_ms: vec![10, 20], ..GroupSettings::default() };
        let rungs = [1, 2, 3, 900].map(|deliveries| settings.rung_ms(deliveries));
        assert_eq!(rungs, [10, 20, 20, 20]);
        assert!(!settings.is_limit(15) && settings.is_limit(16));
        let endless = GroupSettings { max_deliveries: 0, ..settings };
        assert!(!endless.is_limit(u32::MAX));
        let default = GroupSettings::default();
        assert_eq!((default.rung_ms(1), default.rung_ms(15)), (5_000, 12_000_000));
        assert_eq!(default.check(), Ok(()));
    }

    #[test]
    fn settings_out_of_bounds_are_named() {
        let default = GroupSettings::default();
        let bad = [
            GroupSettings { session_ms: 999, ..default.clone() },
            GroupSettings { session_ms: 3_600_001, ..default.clone() },
            GroupSettings { ladder_ms: Vec::new(), ..default.clone() },
            GroupSettings { ladder_ms: vec![1; 65], ..default.clone() },
            GroupSettings { ladder_ms: vec![RETRY_AFTER_MS_MAX + 1], ..default },
        ];
        for settings in bad {
            assert!(settings.check().is_err(), "{settings:?}");
        }
    }

    #[test]
    fn options_change_what_they_name_and_nothing_else() {
        let before = GroupSettings { session_ms: 2_000, ..GroupSettings::default() };
        assert_eq!(GroupOptions::default().applied_to(&before), before);
        let all = GroupOptions {
            model: Some(GroupModel::Broadcast),
            strategy: Some(GroupStrategy::Average),
            session_ms: Some(3_000),
            start: Some(ListAt::Last),
            ladder_ms: Some(vec![1]),
            max_deliveries: Some(0),
            is_uniform: Some(true),
        };
        let after = GroupSettings {
            model: GroupModel::Broadcast,
            strategy: GroupStrategy::Average,
            session_ms: 3_000,
            start: ListAt::Last,
            ladder_ms: vec![1],
            max_deliveries: 0,
            is_uniform: true,
        };
        assert_eq!(all.applied_to(&before), after);
    }
}
