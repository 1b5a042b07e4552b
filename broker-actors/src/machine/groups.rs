//! Consumer groups in the state: what they have settled in the queues of this shard, and, where
//! their coordinator lives, who is in them.
//!
//! * [`progress`]: a group in a queue: who holds it, what is settled, what waits for its retry.
//! * [`ranges`], [`attempts`], [`retries`]: what that is made of.
//! * [`members`]: what a coordinator has noted.
//! * `apply`: the items.
//!
//! A group is known in a shard while its dead-letter topic has a queue there: its id is that
//! topic's. A topic or group that goes takes its progress along.
//!
//! Memory: a progress is some 340 bytes, a range above its floor 40, and a retry 60 (90 where no
//! other is within 256 offsets of it).

pub mod attempts;
pub mod members;
pub mod progress;
pub mod ranges;
pub mod retries;

mod apply;
mod keep;
mod letters;
mod save;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use grus_protocol::ids::{GroupId, Offset, QueueId, QueueKey, TopicId};

use super::Machine;
use super::part::PartKey;
use crate::commands::coordination::CHANGE_ELEMENTS_MAX;
use crate::commands::groups::ProgressKey;
use members::GroupState;
use progress::HeldProgress;

/// Most pairs of a group and a queue in a shard.
pub const PROGRESS_MAX: usize = 200_000;
/// Most ranges of one group in one queue above the floor: so many gaps may be unanswered.
pub const RANGES_MAX: usize = 16_384;
/// Most messages of one group in one queue that wait for their retry.
pub const RETRIES_EACH_MAX: usize = 100_000;
/// Most messages in a shard that wait for their retry.
pub const RETRIES_MAX: usize = 2_000_000;
/// Most members of groups that a shard coordinates.
pub const MEMBERS_MAX: usize = 20_000;
/// Most bytes that coordinators keep of groups and members in a shard.
pub const BLOBS_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Most queues given to members of groups that a shard coordinates.
pub const GRANTS_MAX: usize = 200_000;
const _: () = {
    // Else a change that the state would take would be an entry that nobody can read.
    assert!(GRANTS_MAX <= CHANGE_ELEMENTS_MAX as usize);
    assert!(MEMBERS_MAX <= CHANGE_ELEMENTS_MAX as usize);
};
/// How the names of groups' topics of dead letters begin.
pub const DEAD_LETTER_PREFIX: &str = "%DLQ%";

/// A claim was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claimed {
    /// Where the group goes on.
    pub floor: Offset,
    /// The resets of its progress so far.
    pub round: u32,
    /// Messages that wait for their retry.
    pub retries: u64,
}

/// Answers were taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// All before it is passed.
    pub floor: Offset,
    /// Messages that wait for their retry.
    pub retries: u64,
    /// Answers that found no room: the limit of ranges or retries is reached. They may be sent again.
    pub left: u32,
    /// Dead letters stored.
    pub dead: u32,
}

/// The progress was set elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    /// Where the group goes on.
    pub floor: Offset,
    /// The resets so far.
    pub round: u32,
}

/// All groups of a shard.
#[derive(Debug, Default)]
pub(super) struct Groups {
    pub(super) progress: BTreeMap<ProgressKey, HeldProgress>,
    /// The keys of `progress` by group; derived.
    by_group: BTreeSet<(GroupId, QueueKey)>,
    /// Those whose coordinator is here.
    pub(super) coordinated: BTreeMap<GroupId, GroupState>,
    /// Retries of all; derived.
    retries: usize,
    /// Members of all; derived.
    members: usize,
    /// Grants of all; derived.
    grants: usize,
    /// Bytes of heads and members; derived.
    blob_bytes: usize,
}

impl Machine {
    /// What a group has done in a queue.
    pub fn progress(&self, place: ProgressKey) -> Option<&HeldProgress> {
        self.groups.progress.get(&place)
    }

    /// What all groups have done in a queue.
    pub fn progress_of(&self, queue: QueueKey) -> impl Iterator<Item = (GroupId, &HeldProgress)> {
        let first = ProgressKey { queue, group: GroupId(0) };
        let last = ProgressKey { queue, group: GroupId(u64::MAX) };
        let all = self.groups.progress.range(first..=last);
        all.map(|(place, held)| (place.group, held))
    }

    /// What a group has done in the queues behind `after`, in order.
    pub fn progress_in(
        &self,
        group: GroupId,
        after: Option<QueueKey>,
    ) -> impl Iterator<Item = (QueueKey, &HeldProgress)> {
        const LAST: QueueKey = QueueKey { topic: TopicId(u64::MAX), queue: QueueId(u32::MAX) };
        let first = after.map_or(Bound::Included((group, QueueKey::default())), |after| {
            Bound::Excluded((group, after))
        });
        // A place that says "behind the last" has nothing behind it.
        let is_last = after == Some(LAST);
        let range =
            (!is_last).then(|| self.groups.by_group.range((first, Bound::Included((group, LAST)))));
        let queues = range.into_iter().flatten().map(|(_, queue)| *queue);
        queues.filter_map(move |queue| {
            let held = self.groups.progress.get(&ProgressKey { queue, group })?;
            Some((queue, held))
        })
    }

    /// How many pairs of a group and a queue there are.
    ///
    /// # Panics
    /// When the index by group tells of others: that cannot be.
    pub fn progress_count(&self) -> usize {
        assert_eq!(self.groups.progress.len(), self.groups.by_group.len(), "one each");
        self.groups.progress.len()
    }

    /// A group's queue of dead letters in this shard; none if the group is not known here.
    pub fn dead_letter_queue(&self, group: GroupId) -> Option<QueueKey> {
        let topic = TopicId(group.0);
        let config = self.topic(topic)?;
        if !config.name.as_str().starts_with(DEAD_LETTER_PREFIX) {
            return None;
        }
        let queue: QueueId = *config.queues.first()?;
        Some(QueueKey { topic, queue })
    }

    /// Messages of all groups that wait for their retry.
    pub fn retries_waiting(&self) -> usize {
        self.groups.retries
    }

    /// Keys of the parts of groups behind `after`, in order.
    pub(super) fn group_parts(&self, after: Option<&PartKey>) -> impl Iterator<Item = PartKey> {
        let progress = match after {
            Some(PartKey::Progress(place)) => Some(Bound::Excluded(*place)),
            Some(
                PartKey::Retries(..) | PartKey::Group(_) | PartKey::Member(..) | PartKey::Grant(..),
            ) => None,
            _ => Some(Bound::Unbounded),
        };
        let progress = progress.map(|from| self.groups.progress.range((from, Bound::Unbounded)));
        let progress = progress.into_iter().flatten().map(|(place, _)| PartKey::Progress(*place));
        let retries = match after {
            Some(PartKey::Retries(place, number)) => Some(Some((*place, *number))),
            Some(PartKey::Group(_) | PartKey::Member(..) | PartKey::Grant(..)) => None,
            _ => Some(None),
        };
        let retries = retries.into_iter().flat_map(|after| self.buckets_behind(after));
        progress.chain(retries).chain(self.coordination_parts(after))
    }

    fn buckets_behind(&self, after: Option<(ProgressKey, u64)>) -> impl Iterator<Item = PartKey> {
        let from = after.map_or(Bound::Unbounded, |(place, _)| Bound::Included(place));
        self.groups.progress.range((from, Bound::Unbounded)).flat_map(move |(place, held)| {
            let from = match after {
                Some((last, number)) if last == *place => Bound::Excluded(number),
                _ => Bound::Unbounded,
            };
            let buckets = held.buckets.range((from, Bound::Unbounded));
            buckets.map(move |(number, _)| PartKey::Retries(*place, *number))
        })
    }
}
