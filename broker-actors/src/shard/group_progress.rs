//! How far groups have come in the queues of a shard.

use grus_log::Disk;
use grus_protocol::ids::{Generation, GroupId, QueueKey};

use super::{GroupQueuesPage, ShardActor};
use crate::commands::groups::ProgressKey;
use crate::error::QueueError;
use crate::topic_queue::reading::QueueReading;

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
        let after = after.map(|queue| ProgressKey { queue, group: GroupId(u64::MAX) });
        let all = machine.state.progress_behind(after).filter(|(place, held)| {
            place.group == group && held.numbers().generation != Generation::NONE
        });
        let mut page = GroupQueuesPage::default();
        for (place, _) in all {
            if page.queues.len() >= most {
                page.has_more = true;
                break;
            }
            let topic = machine.state.topic(place.queue.topic);
            let reading = QueueReading::new(&self.ground, place.queue);
            let status = reading.and_then(|reading| reading.progress(group));
            if let Some((topic, status)) = topic.zip(status) {
                page.queues.push((topic.name.clone(), status));
            }
        }
        Ok(page)
    }
}
