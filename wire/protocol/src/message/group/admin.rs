//! Looking after groups: listing, describing, moving, removing them.

use super::{GroupSettings, GroupSubscription, QueuePlace};
use crate::ids::{Generation, GroupId, MemberId, Offset, QueueId, TimestampMs, TopicId};
use crate::message::SubscribeAt;
use crate::names::{GroupName, InstanceName, TopicName};
use crate::wire::wire_message;

/// Most groups on one page.
pub const GROUPS_PAGE_MAX: u32 = 1_000;
/// Most queues on one page of progress, whatever is asked for.
pub const PROGRESS_PAGE_MAX: u32 = 10_000;
/// Queues on a page of progress when it is not said how many are wanted.
pub const PROGRESS_PAGE_DEFAULT: u32 = 1_000;

wire_message! {
    /// Lists the groups that the broker coordinates, in order of their names.
    pub struct ListGroups {
        /// Only those after this name; nil: from the start.
        pub after: Option<GroupName> = None,
        /// Most groups to list; 0: [`GROUPS_PAGE_MAX`], which is also the most that is given.
        pub groups_max: u32 = 0,
    }
}

wire_message! {
    /// A page of groups.
    pub struct ListGroupsReply {
        /// In order of their names.
        pub groups: Vec<GroupSummary>,
        /// Whether there are more after the last one.
        pub more: bool = false,
    }
}

wire_message! {
    /// A group, in short.
    pub struct GroupSummary {
        /// Its name.
        pub group: GroupName,
        /// Its incarnation.
        pub group_id: GroupId,
        /// How it works.
        pub settings: GroupSettings,
        /// The generation of its assignment.
        pub generation: Generation,
        /// Its members.
        pub members: u32,
        /// The queues that its members subscribe to.
        pub queues: u32,
    }
}

wire_message! {
    /// Asks for the members of a group and their queues.
    pub struct DescribeGroup {
        /// The group.
        pub group: GroupName,
    }
}

wire_message! {
    /// What the coordinator knows of a group.
    pub struct DescribeGroupReply {
        /// Its name.
        pub group: GroupName,
        /// Its incarnation.
        pub group_id: GroupId,
        /// How it works.
        pub settings: GroupSettings,
        /// The generation of its assignment.
        pub generation: Generation,
        /// Its members, by id.
        pub members: Vec<GroupMember>,
        /// The queues that are assigned or could be, by topic and number.
        pub queues: Vec<GroupQueue>,
    }
}

wire_message! {
    /// A member of a group.
    pub struct GroupMember {
        /// Its id.
        pub member: MemberId,
        /// Its name for itself.
        pub client_id: String,
        /// The address and port that it joined from.
        pub address: String,
        /// Its stable name, if it has one.
        pub instance: Option<InstanceName>,
        /// What it wants.
        pub subscriptions: Vec<GroupSubscription>,
        /// When it joined.
        pub joined: TimestampMs,
        /// When it was heard of last; 0: not since the coordinator started.
        pub last_seen: TimestampMs,
        /// The generation of the assignment that it follows.
        pub known: Generation,
    }
}

wire_message! {
    /// A queue of a group, and whose it is.
    pub struct GroupQueue {
        /// The topic.
        pub topic: TopicName,
        /// Its incarnation.
        pub topic_id: TopicId,
        /// The queue.
        pub queue: QueueId,
        /// Whose it is; nil: nobody's.
        pub member: Option<MemberId>,
        /// Since which generation.
        pub generation: Generation,
        /// Whose it will be once the one that has it has let go of it; nil: it stays.
        pub next: Option<MemberId> = None,
    }
}

wire_message! {
    /// Moves a group's progress in one queue. What was delivered before and is settled after it
    /// counts for nothing.
    pub struct ResetGroup {
        /// The group.
        pub group: GroupName,
        /// The incarnation that the client knows; 0: whichever is there.
        pub group_id: GroupId,
        /// The topic.
        pub topic: TopicName,
        /// The incarnation that the client knows; 0: whichever is there.
        pub topic_id: TopicId,
        /// The queue.
        pub queue: QueueId,
        /// Where the group goes on. The term of an offset is not looked at.
        pub at: SubscribeAt,
    }
}

wire_message! {
    /// It is moved.
    pub struct ResetGroupReply {
        /// The first offset that is not settled now.
        pub floor: Offset,
        /// How often the progress was reset.
        pub round: u32,
    }
}

wire_message! {
    /// Removes a group that has no members: its dead letters and its progress.
    pub struct DeleteGroup {
        /// The group.
        pub group: GroupName,
        /// The incarnation that the client knows; 0: whichever is there.
        pub group_id: GroupId = GroupId::UNKNOWN,
    }
}

wire_message! {
    /// The group is gone.
    pub struct DeleteGroupReply {
        /// The incarnation that was removed.
        pub group_id: GroupId,
    }
}

wire_message! {
    /// Asks how far a group has come in the queues that the broker leads.
    pub struct GroupProgress {
        /// The group.
        pub group: GroupName,
        /// The incarnation that the client knows; 0: whichever is there.
        pub group_id: GroupId,
        /// Only queues behind this one; nil: from the first on.
        pub after: Option<QueuePlace> = None,
        /// Most queues on a page; 0: [`PROGRESS_PAGE_DEFAULT`], at most [`PROGRESS_PAGE_MAX`].
        pub queues_max: u32 = 0,
    }
}

wire_message! {
    /// A page of a group's progress.
    pub struct GroupProgressReply {
        /// Queues that the group has claimed once, by topic id and number.
        pub queues: Vec<QueueProgress>,
        /// Behind which queue the next page begins; nil: this was the last one.
        pub next: Option<QueuePlace> = None,
    }
}

wire_message! {
    /// How far a group has come in a queue.
    pub struct QueueProgress {
        /// The topic.
        pub topic: TopicName,
        /// Its incarnation.
        pub topic_id: TopicId,
        /// The queue.
        pub queue: QueueId,
        /// All before it is settled, or waits to be delivered again.
        pub floor: Offset,
        /// First offset there is.
        pub log_start: Offset,
        /// Offset the next record will get.
        pub end_offset: Offset,
        /// Behind the last message that was delivered.
        pub delivered_to: Offset,
        /// Messages that are not settled, those that wait to be delivered again among them.
        pub lag: u64,
        /// Messages that wait to be delivered again.
        pub retries: u64,
        /// When the first of them is due; nil: there are none.
        pub next_retry: Option<TimestampMs>,
        /// When the oldest message that is not settled was stored; nil: there is none.
        pub oldest: Option<TimestampMs>,
        /// The member of the newest claim.
        pub member: MemberId,
        /// Its generation.
        pub generation: Generation,
        /// How often the progress was reset.
        pub round: u32,
        /// Messages that were settled by their members.
        pub settled: u64,
        /// Messages that became dead letters.
        pub dead: u64,
        /// Messages that retention removed before they were settled.
        pub lost: u64,
    }
}
