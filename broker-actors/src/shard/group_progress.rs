//! How far groups have come in the queues of a shard: one by one, and summed by group.
//!
//! Each question is answered by a bounded look: who asks goes on from where the answer ends.

use grus_log::Disk;
use grus_protocol::ids::{Generation, GroupId, QueueKey, TopicId};

use super::{GroupQueuesPage, GroupSums, GroupSumsPage, ShardActor, SumsPlace};
use crate::commands::groups::ProgressKey;
use crate::error::QueueError;
use crate::machine::groups::DEAD_LETTER_PREFIX;
use crate::topic_queue::ProgressStatus;
use crate::topic_queue::reading::QueueReading;

/// Most queues of groups that are summed for one answer.
const SUMMED_MAX: usize = 256;
/// Most topics that are looked at for one answer: those of dead letters are the groups.
const TOPICS_MAX: usize = 4_096;

impl<D: Disk> ShardActor<D> {
    /// The queues behind `after` that a group has claimed once, in order; only a leader that is
    /// ready tells.
    pub(super) fn group_progress(
        &self,
        group: GroupId,
        after: Option<QueueKey>,
        most: usize,
    ) -> Result<GroupQueuesPage, QueueError> {
        if !self.group.status().ready {
            return Err(QueueError::Unavailable);
        }
        let machine = self.ground.machine.borrow();
        let claimed = machine.state.progress_in(group, after);
        let claimed = claimed.filter(|(_, held)| held.numbers().generation != Generation::NONE);
        let mut page = GroupQueuesPage::default();
        for (queue, _) in claimed {
            if page.queues.len() >= most {
                page.has_more = true;
                break;
            }
            let topic = machine.state.topic(queue.topic);
            if let Some((topic, status)) = topic.zip(self.progress_of(group, queue)) {
                page.queues.push((topic.name.clone(), status));
            }
        }
        Ok(page)
    }

    fn progress_of(&self, group: GroupId, queue: QueueKey) -> Option<ProgressStatus> {
        QueueReading::new(&self.ground, queue)?.progress(group)
    }

    /// What groups have done here, from a place on; of that one group alone when `is_one`. Only a
    /// leader that is ready tells.
    pub(super) fn group_sums(
        &self,
        from: SumsPlace,
        is_one: bool,
    ) -> Result<GroupSumsPage, QueueError> {
        if !self.group.status().ready {
            return Err(QueueError::Unavailable);
        }
        let machine = self.ground.machine.borrow();
        let mut page = GroupSumsPage::default();
        let (mut place, mut left) = (from, SUMMED_MAX);
        let topics = machine.state.topics_from(TopicId(from.group.0));
        // A group begins with what is counted once, and at least one queue: so it goes on behind that.
        for (looked_at, config) in topics.enumerate() {
            let group = GroupId::of(config.topic);
            if group != from.group {
                place = SumsPlace { group, behind: None };
            }
            if is_one && group != from.group {
                return Ok(page);
            }
            if looked_at >= TOPICS_MAX || left < 2 {
                page.next = Some(place);
                return Ok(page);
            }
            if !config.name.as_str().starts_with(DEAD_LETTER_PREFIX) {
                continue;
            }
            let mut sums = GroupSums::default();
            if place.behind.is_none() {
                left -= 1;
                sums.dead_letters = self.dead_letters_of(group);
                sums.tally = self.ground.tallies.borrow().get(group);
            }
            let mut is_cut = false;
            for (queue, held) in machine.state.progress_in(group, place.behind) {
                if left == 0 {
                    is_cut = true;
                    break;
                }
                left -= 1;
                place.behind = Some(queue);
                let is_claimed = held.numbers().generation != Generation::NONE;
                let of_letters = queue.topic == group.dead_letters();
                if let Some(status) =
                    self.progress_of(group, queue).filter(|_| is_claimed && !of_letters)
                {
                    sums.add_queue(&status);
                }
            }
            page.sums.push((group, sums));
            if is_cut {
                page.next = Some(place);
                return Ok(page);
            }
        }
        Ok(page)
    }

    /// Dead letters of a group that lie here: neither sent back nor removed.
    fn dead_letters_of(&self, group: GroupId) -> u64 {
        let machine = self.ground.machine.borrow();
        let topic = group.dead_letters();
        let queues = machine.state.topic(topic).map(|config| config.queues.as_slice());
        let queues = queues.unwrap_or_default().iter();
        let left = queues.filter_map(|number| {
            let queue = QueueKey { topic, queue: *number };
            let numbers = machine.state.queue(queue)?;
            let all = numbers.next_offset.0.saturating_sub(numbers.visible_start.0);
            let held = machine.state.progress(ProgressKey { queue, group });
            Some(held.map_or(all, |held| held.lag(numbers.visible_start, numbers.next_offset)))
        });
        left.sum()
    }
}
