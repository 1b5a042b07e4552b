//! What a shard is asked, and what it answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use grus_consensus::MemberLag;
use grus_log::{FindBy, FindOutcome};
use grus_mailbox::{Inbox, Port, Weigh};
use grus_protocol::ids::{
    BrokerId, Durability, GroupId, QueueKey, ShardId, Term, TimestampMs, TopicId,
};
use grus_protocol::message::GroupSummary;
use grus_protocol::names::{ProducerName, TopicName};

use super::{QueueTableWatch, StandingWatch};
use crate::commands::TopicConfig;
use crate::commands::recurring::{ScheduleKey, ScheduleTerms};
use crate::consumer_group::GroupHandle;
use crate::delay_wheel::messages::DelayAsk;
use crate::error::QueueError;
use crate::group_tallies::Tally;
use crate::group_ties::GroupTableWatch;
use crate::machine::InitializedProducer;
use crate::machine::groups::progress::Counts;
use crate::machine::schedules::Schedule;
use crate::registry_link::routes::Routes;
use crate::topic_queue::{ProgressStatus, QueueHandle};

/// The queues of a shard by their keys.
pub type QueueTable = Arc<BTreeMap<QueueKey, Arc<QueueHandle>>>;

/// Asks a shard for something.
#[derive(Debug)]
pub enum ShardRequest {
    /// Creates the queues of a topic, adds queues to it, or changes its settings. Asking for what
    /// is there already writes nothing.
    OpenTopic {
        /// What the topic is to this shard.
        config: TopicConfig,
        /// Gets the queues.
        reply: Port<Result<TopicOpened, QueueError>>,
    },
    /// Forgets a topic, its queues and their messages. One that is not there is no error.
    DropTopic {
        /// The incarnation.
        topic: TopicId,
        /// Gets the word that it is gone.
        reply: Port<Result<(), QueueError>>,
    },
    /// Gives a producer its id and epoch. Only a `persisted` shard does: an id whose entry a crash
    /// took back would be given again. A named producer must always ask the same shard.
    InitProducer {
        /// A named producer keeps its id and raises its epoch.
        name: Option<ProducerName>,
        /// Gets id and epoch.
        reply: Port<Result<InitializedProducer, QueueError>>,
    },
    /// Refuses earlier epochs of a producer whose name another shard keeps.
    Fence {
        /// The producer and its newest epoch.
        producer: InitializedProducer,
        /// Gets the word that it is done.
        reply: Port<Result<(), QueueError>>,
    },
    /// Looks for messages in the queues that the shard leads.
    Find {
        /// What to look for.
        by: FindBy,
        /// Most messages wanted: the newest.
        messages_max: usize,
        /// Gets them, each as a batch of its own.
        reply: Port<Result<FindOutcome, QueueError>>,
    },
    /// Something about schedules of recurring messages.
    Schedule(ScheduleAsk),
    /// Asks how far a group has come in the queues that the shard leads, by queue.
    GroupProgress {
        /// Which.
        group: GroupId,
        /// Behind this queue.
        after: Option<QueueKey>,
        /// Most of them.
        most: usize,
        /// Gets them.
        reply: Port<Result<GroupQueuesPage, QueueError>>,
    },
    /// Sums up what groups have done in the queues that the shard leads.
    GroupSums {
        /// From here on.
        from: SumsPlace,
        /// Of that group alone.
        is_one: bool,
        /// Gets a part of them, and where to go on.
        reply: Port<Result<GroupSumsPage, QueueError>>,
    },
    /// Lists the topics that the shard's own log knows.
    ListTopics {
        /// Gets them.
        reply: Port<Vec<TopicConfig>>,
    },
    /// Lists the groups that the shard coordinates, in short.
    ListGroups {
        /// Gets them, in no order.
        reply: Port<Vec<GroupSummary>>,
    },
    /// Asks how the shard is.
    Status {
        /// Gets it.
        reply: Port<ShardStatus>,
    },
}

impl Weigh for ShardRequest {}

/// The routes are these now. At most one waits.
#[derive(Debug, Clone)]
pub(crate) struct RoutesAre {
    pub(crate) routes: Arc<Routes>,
}

impl Weigh for RoutesAre {}

/// Asks a shard something about schedules of recurring messages.
#[derive(Debug)]
pub enum ScheduleAsk {
    /// Makes a schedule.
    Create {
        /// Its name.
        key: ScheduleKey,
        /// What it is; its cadence can be read.
        terms: ScheduleTerms,
        /// Gets the time of its first run.
        reply: Port<Result<Option<TimestampMs>, QueueError>>,
    },
    /// Has one rest, or go on.
    Pause {
        /// Which.
        key: ScheduleKey,
        /// Whether it rests.
        is_paused: bool,
        /// Gets the time of its next run; none if it rests.
        reply: Port<Result<Option<TimestampMs>, QueueError>>,
    },
    /// Removes one.
    Delete {
        /// Which.
        key: ScheduleKey,
        /// Gets the word that it is gone.
        reply: Port<Result<Option<TimestampMs>, QueueError>>,
    },
    /// Lists schedules of the queues that the shard leads, in order.
    List {
        /// Of this topic; none: of all.
        topic: Option<TopicId>,
        /// Behind this one.
        after: Option<ScheduleKey>,
        /// Most of them.
        most: usize,
        /// Gets them.
        reply: Port<Result<Vec<(ScheduleKey, Schedule)>, QueueError>>,
    },
}

/// Queues in which a group has come somewhere, with the names of their topics.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupQueuesPage {
    /// In order.
    pub queues: Vec<(TopicName, ProgressStatus)>,
    /// Whether there are more behind them.
    pub has_more: bool,
}

/// Where a sum over groups goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SumsPlace {
    /// At this group.
    pub group: GroupId,
    /// Behind this queue of it; none: at its first one.
    pub behind: Option<QueueKey>,
}

/// What a group has done in some queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GroupSums {
    /// Queues that it has claimed once.
    pub queues: u64,
    /// Messages that are not settled.
    pub lag: u64,
    /// Those of them that wait for their retry, or are in hands again.
    pub retries: u64,
    /// When the oldest of them was stored.
    pub oldest: Option<TimestampMs>,
    /// Its dead letters, neither sent back nor removed.
    pub dead_letters: u64,
    /// What has become of messages.
    pub counts: Counts,
    /// What was done for it since the process started.
    pub tally: Tally,
}

impl GroupSums {
    /// Adds a queue.
    pub fn add_queue(&mut self, status: &ProgressStatus) {
        self.queues += 1;
        self.lag += status.lag;
        self.retries += status.retries;
        self.oldest = self.oldest.into_iter().chain(status.oldest).min();
        self.counts.add(status.counts);
    }

    /// Adds what was summed elsewhere.
    pub fn add(&mut self, other: &Self) {
        self.queues += other.queues;
        self.lag += other.lag;
        self.retries += other.retries;
        self.oldest = self.oldest.into_iter().chain(other.oldest).min();
        self.dead_letters += other.dead_letters;
        self.counts.add(other.counts);
        self.tally.add(other.tally);
    }
}

/// A part of the sums over groups: a group whose queues are not all in it comes again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupSumsPage {
    /// By group.
    pub sums: Vec<(GroupId, GroupSums)>,
    /// Where to go on; none: these were the last.
    pub next: Option<SumsPlace>,
}

/// The queues of a topic are there.
#[derive(Debug, Clone)]
pub struct TopicOpened {
    /// Those that this shard hosts.
    pub queues: Vec<Arc<QueueHandle>>,
}

/// How a shard is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a field that is told")]
pub struct ShardStatus {
    /// The shard.
    pub shard: ShardId,
    /// What its receipts promise.
    pub durability: Durability,
    /// Whether this broker leads it and has applied all that was acknowledged before.
    pub is_ready: bool,
    /// Whether this broker is one of several members.
    pub is_replicated: bool,
    /// The broker that leads it, as far as is known here.
    pub leader: Option<u64>,
    /// The term of the last vote.
    pub term: Term,
    /// Whether its queues are served here: it leads, and its lease holds.
    pub leads: bool,
    /// Whether this member has lost what it promised, and does not vote before it has caught up.
    pub is_amnesiac: bool,
    /// How far the other members are, where this one leads; else nothing.
    pub lags: Vec<MemberLag>,
    /// Log index of the last entry.
    pub last_index: Option<u64>,
    /// Log index of the last entry applied.
    pub applied_index: Option<u64>,
    /// Log index up to which entries are on disk here.
    pub synced_index: Option<u64>,
    /// Log index up to which the log was dropped.
    pub purged_index: Option<u64>,
    /// Whether the disk had no room for the log when it last asked.
    pub disk_full: bool,
    /// Queues that live here.
    pub queues: usize,
    /// Bytes that wait to be proposed.
    pub waiting_bytes: usize,
    /// Bytes of memory that its temporary queues hold, what is spent on each batch included.
    pub temporary_bytes: u64,
    /// Segments of the log.
    pub segments: u64,
    /// Bytes of the log on disk.
    pub log_bytes: u64,
    /// Entries of the log that are known to be damaged.
    pub damaged_entries: u64,
    /// Segments of earlier lives whose entries were not all checked yet.
    pub unchecked_segments: u64,
}

/// A member that lacks more entries than that is behind.
const LAG_ENTRIES_MAX: u64 = 1_000;
/// A member that has not answered for so long is behind.
const SILENCE_MAX: Duration = Duration::from_secs(3);

impl ShardStatus {
    /// How many entries each of the other members lacks, of those there are; nothing where this broker does
    /// not lead.
    pub fn lag_of_each(&self) -> impl Iterator<Item = (BrokerId, u64)> + '_ {
        self.lags.iter().map(|lag| (BrokerId(lag.node), behind(self.last_index, lag.matched)))
    }

    /// How many entries the member lacks that is farthest behind, of those there are; 0 where this broker
    /// does not lead.
    #[must_use]
    pub fn lag_entries(&self) -> u64 {
        self.lag_of_each().map(|(_, lacks)| lacks).max().unwrap_or(0)
    }

    /// Members that have not answered for 3 s, lack more than 1,000 entries, or come or go, where this
    /// broker leads.
    #[must_use]
    pub fn members_behind(&self) -> usize {
        let is_behind = |lag: &&MemberLag| {
            !lag.votes
                || lag.heard.is_none_or(|heard| heard > SILENCE_MAX)
                || behind(self.last_index, lag.matched) > LAG_ENTRIES_MAX
        };
        self.lags.iter().filter(is_behind).count()
    }
}

/// Entries between two indexes of which the first counts from 0.
fn behind(last: Option<u64>, matched: Option<u64>) -> u64 {
    let count = |index: Option<u64>| index.map_or(0, |index| index + 1);
    count(last).saturating_sub(count(matched))
}

/// A shard as the rest of the broker sees it.
#[derive(Debug, Clone)]
pub struct ShardHandle {
    /// The shard.
    pub shard: ShardId,
    /// What its receipts promise.
    pub durability: Durability,
    /// Takes requests.
    pub inbox: Inbox<ShardRequest>,
    /// The queues that live here.
    pub queues: QueueTableWatch,
    /// Takes questions about scheduled messages.
    pub delays: Inbox<DelayAsk>,
    /// The groups that it coordinates.
    pub groups: GroupTableWatch,
    /// Whether its queues are served here.
    pub standing: StandingWatch,
}

impl ShardHandle {
    /// A queue, if it lives here.
    pub fn queue(&self, key: QueueKey) -> Option<Arc<QueueHandle>> {
        self.queues.borrow().get(&key).cloned()
    }

    /// A group, if it is coordinated here.
    pub fn group(&self, group: GroupId) -> Option<Arc<GroupHandle>> {
        self.groups.borrow().get(&group).cloned()
    }
}
