//! What a group has done in the queues that this broker leads, and its dead letters: asked for, moved
//! on, sent back, removed.

use std::sync::Arc;

use futures_util::future::join_all;
use grus_mailbox::reply;
use grus_protocol::error::ErrorReply;
use grus_protocol::ids::{GroupId, Offset, QueueId, QueueKey, TopicId};
use grus_protocol::message::{
    DEAD_LETTERS_PAGE_DEFAULT, DEAD_LETTERS_PAGE_MAX, DeadLetterPlace, GroupProgressReply,
    QueueProgress,
};
use grus_protocol::names::{GroupName, TopicName};

use super::{Groups, check_name, unavailable, unknown_group};
use crate::dead_letters::{DeadLetters, LettersPage};
use crate::error::QueueError;
use crate::machine::groups::Moved;
use crate::registry_link::routes::{Leader, TopicRoute};
use crate::shard::{GroupQueuesPage, ShardRequest};
use crate::topic_queue::{GroupAsk, ProgressStatus, ResetTo};

impl Groups {
    /// A group's topic of dead letters; the group's id is that one's.
    ///
    /// # Errors
    /// `UnknownGroup`; `InvalidName` for what is no group's.
    pub fn letters_topic(&self, group: &GroupName) -> Result<Arc<TopicRoute>, ErrorReply> {
        check_name(group)?;
        self.dead_letters(group).ok_or_else(|| unknown_group(group))
    }

    /// How far a group has come in the queues that this broker leads, in order, behind `after`.
    ///
    /// # Errors
    /// What to answer.
    pub async fn progress(
        &self,
        group: GroupId,
        after: Option<QueueKey>,
        most: usize,
    ) -> Result<GroupProgressReply, ErrorReply> {
        let shards = self.shards.led();
        let pages = shards.iter().map(|shard| async move {
            let (port, answer) = reply::port();
            let ask = ShardRequest::GroupProgress { group, after, most, reply: port };
            let _ = shard.inbox.try_put(ask); // refused: its port is dropped
            let unavailable = |_dropped| Err(QueueError::Unavailable);
            answer.await.unwrap_or_else(unavailable).map_err(|error| error.to_reply())
        });
        let pages = join_all(pages).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(merged(pages, most))
    }

    /// Has a group go on elsewhere in a queue that this broker leads.
    ///
    /// # Errors
    /// What to answer.
    pub async fn reset(
        &self,
        group: GroupId,
        (topic, queue): (&TopicName, QueueId),
        to: ResetTo,
    ) -> Result<Moved, ErrorReply> {
        let route = self.routes.borrow().found(topic)?;
        let handle = route.queue(TopicId::UNKNOWN, queue)?;
        let (port, answer) = reply::port();
        let _ = handle.group.try_put(GroupAsk::Reset { group, to, reply: port }); // as above
        answer.await.map_err(|_dropped| unavailable())?.map_err(|error| error.to_reply())
    }

    /// The queues of a topic that this broker leads, and how many it does not.
    ///
    /// # Errors
    /// `UnknownTopic`.
    pub fn led_here(&self, topic: &TopicName) -> Result<(Vec<QueueId>, usize), ErrorReply> {
        let route = self.routes.borrow().found(topic)?;
        let here = (0..).map(QueueId).zip(&route.queues);
        let here = here.filter(|(_, place)| place.leader == Leader::Here).map(|(queue, _)| queue);
        let here: Vec<_> = here.collect();
        let elsewhere = route.queues.len() - here.len();
        Ok((here, elsewhere))
    }

    /// The dead letters of a group in one queue that this broker leads.
    ///
    /// # Errors
    /// What to answer.
    pub fn letters_of(&self, group: &GroupName, queue: QueueId) -> Result<DeadLetters, ErrorReply> {
        let topic = self.letters_topic(group)?;
        let queue = Arc::clone(topic.queue(topic.id, queue)?);
        Ok(DeadLetters { group: GroupId::of(topic.id), queue })
    }
}

/// The dead letters of a group in the queues that are led here, from a queue of its topic on. Those
/// that other brokers lead are theirs to tell of.
#[must_use]
pub fn letters_here(topic: &TopicRoute, from: QueueId) -> Vec<DeadLetters> {
    let group = GroupId::of(topic.id);
    let last = u32::try_from(topic.queues.len()).unwrap_or(u32::MAX);
    let queues = (from.0..last).filter_map(|number| {
        let queue = topic.queue(topic.id, QueueId(number)).ok()?;
        Some(DeadLetters { group, queue: Arc::clone(queue) })
    });
    queues.collect()
}

/// A page of the letters of some queues, in order, behind a place; and where the next one begins.
///
/// # Errors
/// What to answer.
pub async fn letters_page(
    queues: &[DeadLetters],
    after: Option<DeadLetterPlace>,
    messages_max: u32,
    body_bytes_max: Option<usize>,
) -> Result<(LettersPage, Option<DeadLetterPlace>), ErrorReply> {
    let most = match messages_max {
        0 => DEAD_LETTERS_PAGE_DEFAULT,
        some => some.min(DEAD_LETTERS_PAGE_MAX),
    };
    let most = most as usize;
    let mut page = LettersPage::default();
    for letters in queues {
        let queue = letters.queue.key.queue;
        let after = after.filter(|after| after.queue == queue);
        let after: Option<Offset> = after.map(|after| after.offset);
        letters.list(after, most, body_bytes_max, &mut page).await?;
        if page.letters.len() >= most {
            break;
        }
    }
    let last = page.letters.last().filter(|_| page.letters.len() >= most);
    let next = last.map(|last| DeadLetterPlace { queue: last.queue, offset: last.offset });
    Ok((page, next))
}

/// Puts the pages of shards together: as far as all of them have told.
fn merged(pages: Vec<GroupQueuesPage>, most: usize) -> GroupProgressReply {
    let has_more = pages.iter().any(|page| page.has_more);
    // A page that was cut short tells nothing of what is behind its last queue.
    let cut = pages.iter().filter(|page| page.has_more).filter_map(|page| page.queues.last());
    let cut = cut.map(|(_, status)| status.queue).min();
    let mut queues: Vec<(TopicName, ProgressStatus)> =
        pages.into_iter().flat_map(|page| page.queues).collect();
    queues.sort_unstable_by_key(|(_, status)| status.queue);
    queues.retain(|(_, status)| cut.is_none_or(|last| status.queue <= last));
    let has_more = has_more || queues.len() > most;
    queues.truncate(most);
    let next = queues.last().filter(|_| has_more).map(|(_, status)| status.queue.into());
    let queues = queues.into_iter().map(|(topic, status)| told(topic, &status)).collect();
    GroupProgressReply { queues, next }
}

fn told(topic: TopicName, status: &ProgressStatus) -> QueueProgress {
    QueueProgress {
        topic,
        topic_id: status.queue.topic,
        queue: status.queue.queue,
        floor: status.floor,
        log_start: status.log_start,
        end_offset: status.end_offset,
        delivered_to: status.delivered_to,
        lag: status.lag,
        retries: status.retries,
        next_retry: status.next_retry,
        oldest: status.oldest,
        member: status.member,
        generation: status.generation,
        round: status.round,
        settled: status.counts.settled,
        dead: status.counts.dead,
        lost: status.counts.lost,
    }
}
