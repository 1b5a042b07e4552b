//! Members of groups and the queues that are theirs: claims, answers, subscriptions, progress.

use std::time::Duration;

use grus_mailbox::Inbox;
use grus_protocol::error::{ErrorCode, ErrorReply};
use grus_protocol::ids::{GroupId, QueueKey, TimestampMs};
use grus_protocol::message::{
    ACK_MARKS_MAX, ACK_RANGES_MAX, AckMessages, AckMessagesReply, ClaimQueue, ClaimQueueReply,
    FilterError, GroupProgress, ListAt, OffsetRange, PROGRESS_PAGE_DEFAULT, PROGRESS_PAGE_MAX,
    RETRY_AFTER_MS_MAX, ResetGroup, ResetGroupReply, SubscribeAt, SubscribeGroup,
};
use grus_protocol::names::{GroupName, TopicName};

use super::Dispatcher;
use crate::commands::groups::{HandBack, Holding, ProgressKey, RetryTerms, Span};
use crate::connection::replies::ReplyTo;
use crate::connection::requests::GroupQueueRequest;
use crate::error::QueueError;
use crate::groups::check_name;
use crate::machine::groups::Moved;
use crate::topic_queue::{
    Answered, AnswersTaken, At, ClaimTaken, Failed, GivenUp, GroupAsk, ResetTo,
};

/// The longest a request of a group waits for room in its queue.
const PUT_WAIT: Duration = Duration::from_secs(30);
/// How long a member waits before it claims again a queue whose shard does not know its group yet.
const UNKNOWN_RETRY_MS: u32 = 100;

impl Dispatcher {
    /// Hands a request about a queue of a group on.
    pub(super) async fn group_queue(&mut self, ask: GroupQueueRequest, reply: ReplyTo) {
        match ask {
            GroupQueueRequest::Claim(ask) => self.claim_queue(ask, reply).await,
            GroupQueueRequest::Ack(ask) => self.ack_messages(ask, reply).await,
            GroupQueueRequest::Subscribe(ask) => self.subscribe_group(ask, reply).await,
            GroupQueueRequest::Progress(ask) => self.group_progress(&ask, reply),
            GroupQueueRequest::Reset(ask) => self.reset_group(ask, reply).await,
            GroupQueueRequest::Redrive(ask) => self.redrive_letters(ask, reply),
            GroupQueueRequest::Purge(ask) => self.purge_letters(ask, reply),
            GroupQueueRequest::List(ask) => self.list_letters(&ask, reply),
        }
    }

    /// Whether this broker knows of the group: then its shards soon will.
    fn knows_group(&mut self, name: &GroupName, group: GroupId) -> bool {
        self.known(&name.dead_letters()).is_some_and(|topic| topic.id == group.dead_letters())
    }

    /// The group that is meant; 0: whichever is there.
    pub(super) fn group_id(
        &mut self,
        name: &GroupName,
        id: GroupId,
    ) -> Result<GroupId, ErrorReply> {
        check_name(name)?;
        let topic = self.known(&name.dead_letters());
        let there = topic.map(|topic| GroupId::of(topic.id));
        let meant = there.filter(|there| id == GroupId::UNKNOWN || id == *there);
        meant.ok_or_else(|| QueueError::UnknownGroup.to_reply())
    }

    async fn reset_group(&mut self, ask: ResetGroup, reply: ReplyTo) {
        if let Err(error) = users_topic(&ask.topic) {
            return reply.error(error);
        }
        let group = self.group_id(&ask.group, ask.group_id);
        let handle = self.queue(&ask.topic, ask.topic_id, ask.queue);
        let (group, handle) = match group.and_then(|group| Ok((group, handle?))) {
            Ok(found) => found,
            Err(error) => return reply.error(error),
        };
        let to = match ask.at {
            SubscribeAt::Offset(offset, _) => ResetTo::Offset(offset),
            SubscribeAt::First => ResetTo::At(At::First),
            SubscribeAt::Last => ResetTo::At(At::Last),
            SubscribeAt::Time(time) => ResetTo::At(At::Time(time)),
        };
        let port = reply.port(|moved: Result<Moved, QueueError>| {
            let Moved { floor, round } = moved.map_err(|error| error.to_reply())?;
            Ok(ResetGroupReply { floor, round })
        });
        put(&handle.group, GroupAsk::Reset { group, to, reply: port }).await;
    }

    async fn claim_queue(&mut self, ask: ClaimQueue, reply: ReplyTo) {
        if let Err(text) = ask.settings.check() {
            return reply.error(ErrorReply::new(ErrorCode::InvalidSettings, text));
        }
        if let Err(error) = check_name(&ask.group).and_then(|()| users_topic(&ask.topic)) {
            return reply.error(error);
        }
        let handle = match self.queue(&ask.topic, ask.topic_id, ask.queue) {
            Ok(handle) => handle,
            Err(error) => return reply.error(error),
        };
        let may_come = self.knows_group(&ask.group, ask.group_id);
        let port = reply.port(move |taken: Result<ClaimTaken, QueueError>| match taken {
            Ok(ClaimTaken { claimed, log_start, end_offset }) => Ok(ClaimQueueReply {
                floor: claimed.floor,
                log_start,
                end_offset,
                round: claimed.round,
                retries: claimed.retries,
            }),
            Err(QueueError::UnknownGroup) if may_come => {
                let text = "the group's queue of dead letters is being made here";
                let error = ErrorReply::new(ErrorCode::Unavailable, text);
                Err(error.with_retry_after_ms(UNKNOWN_RETRY_MS))
            }
            Err(error) => Err(error.to_reply()),
        });
        let holding = Holding {
            place: ProgressKey { queue: handle.key, group: ask.group_id },
            generation: ask.generation,
            member: ask.member,
            round: 0,
        };
        let made = |name: &TopicName| self.routes.get(name).map(|topic| topic.created);
        let start =
            begins_at(ask.settings.start, made(&ask.topic), made(&ask.group.dead_letters()));
        let terms = RetryTerms {
            deliveries_max: ask.settings.max_deliveries,
            ladder_ms: ask.settings.ladder_ms,
        };
        put(&handle.group, GroupAsk::Claim { holding, start, terms, reply: port }).await;
    }

    async fn ack_messages(&mut self, ask: AckMessages, reply: ReplyTo) {
        let ranges = ask.acks.len().max(ask.in_work.len());
        if ranges > ACK_RANGES_MAX || ask.nacks.len() + ask.dead.len() > ACK_MARKS_MAX {
            let text = format!(
                "at most {ACK_RANGES_MAX} ranges and {ACK_MARKS_MAX} messages are answered at once"
            );
            return reply.error(ErrorReply::new(ErrorCode::InvalidRequest, text));
        }
        let handle = match self.queue(&ask.topic, ask.topic_id, ask.queue) {
            Ok(handle) => handle,
            Err(error) => return reply.error(error),
        };
        let port = reply.port(|taken: Result<AnswersTaken, QueueError>| {
            let AnswersTaken { settled, left } = taken.map_err(|error| error.to_reply())?;
            let left = left.into_iter().map(|Span { from, to }| OffsetRange { from, to });
            let left = left.collect();
            Ok(AckMessagesReply { floor: settled.floor, retries: settled.retries, left })
        });
        let holding = Holding {
            place: ProgressKey { queue: handle.key, group: ask.group_id },
            generation: ask.generation,
            member: ask.member,
            round: ask.round,
        };
        let span = |range: &OffsetRange| Span { from: range.from, to: range.to };
        let acks = ask.acks.iter().filter(|range| !range.is_empty());
        let hands_back = ask.unseen_from.map(|unseen_from| HandBack {
            holding,
            unseen_from,
            in_work: ask.in_work.iter().map(span).collect(),
        });
        let failed = ask.nacks.into_iter().map(|nack| Failed {
            offset: nack.offset,
            retry_after_ms: nack.retry_after_ms.map(|wait_ms| wait_ms.min(RETRY_AFTER_MS_MAX)),
            reason: nack.reason,
        });
        let given_up =
            ask.dead.into_iter().map(|dead| GivenUp { offset: dead.offset, reason: dead.reason });
        let answered = Answered {
            holding,
            acks: acks.map(span).collect(),
            failed: failed.collect(),
            given_up: given_up.collect(),
            hands_back,
        };
        put(&handle.group, GroupAsk::Settle { answered, reply: port }).await;
    }

    async fn subscribe_group(&mut self, ask: SubscribeGroup, reply: ReplyTo) {
        if let Err(error) = ask.filter.check() {
            let code = match error {
                FilterError::Unserved => ErrorCode::UnsupportedFeature,
                FilterError::Count | FilterError::Tag => ErrorCode::InvalidRequest,
            };
            return reply.error(ErrorReply::new(code, error.to_string()));
        }
        let handle = match self.queue(&ask.topic, ask.topic_id, ask.queue) {
            Ok(handle) => handle,
            Err(error) => return reply.error(error),
        };
        let now = self.service.clock.now();
        let facts = self.gate.facts();
        facts.borrow_mut().subscribed(ask.subscription, &ask.topic, ask.queue, now);
        self.subscriptions.subscribe_group(ask, &handle, reply).await;
    }

    fn group_progress(&mut self, ask: &GroupProgress, reply: ReplyTo) {
        let group = match self.group_id(&ask.group, ask.group_id) {
            Ok(group) => group,
            Err(error) => return reply.error(error),
        };
        let groups = self.service.groups.clone();
        let most = match ask.queues_max {
            0 => PROGRESS_PAGE_DEFAULT,
            some => some.min(PROGRESS_PAGE_MAX),
        };
        let after = ask.after.map(QueueKey::from);
        tokio::task::spawn_local(async move {
            reply.result(groups.progress(group, after, most as usize).await);
        });
    }
}

/// What a group has done in its own dead letters says which of them are there still: no member may.
fn users_topic(topic: &TopicName) -> Result<(), ErrorReply> {
    if topic.is_system() {
        let text = format!("{topic}: groups read users' topics");
        return Err(ErrorReply::new(ErrorCode::InvalidRequest, text));
    }
    Ok(())
}

/// Waits for room, so that what a member says goes in the order it said it. Too late, or the queue
/// has stopped: the port is dropped, which answers.
async fn put(asks: &Inbox<GroupAsk>, ask: GroupAsk) {
    let _ = tokio::time::timeout(PUT_WAIT, asks.put(ask)).await;
}

/// Where a group begins in a queue that it has no progress in. All of a topic that was made after the group
/// came when that was there already, and so did all of a queue whose first message is younger than the
/// group, as of one that was added to its topic: nothing of it is passed over.
fn begins_at(start: ListAt, topic: Option<TimestampMs>, group: Option<TimestampMs>) -> At {
    let group = group.filter(|made| *made != TimestampMs(0)); // it is not known when it was made
    match start {
        ListAt::First => At::First,
        ListAt::Last if topic.zip(group).is_some_and(|(topic, group)| topic > group) => At::First,
        ListAt::Last => group.map_or(At::Last, At::New),
        ListAt::Time(time) => At::Time(time),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_that_begins_at_the_end_misses_nothing_of_a_topic_that_is_made_later() {
        let of = |topic, group| begins_at(ListAt::Last, topic, group);
        let (early, late) = (Some(TimestampMs(5)), Some(TimestampMs(6)));
        let new = |time: Option<TimestampMs>| At::New(time.unwrap());
        assert_eq!((of(early, late), of(late, early)), (new(late), At::First));
        assert_eq!((of(early, early), of(None, early)), (new(early), new(early)));
        assert_eq!((of(late, None), of(early, Some(TimestampMs(0)))), (At::Last, At::Last));
        assert_eq!(begins_at(ListAt::First, early, late), At::First);
        assert_eq!(begins_at(ListAt::Time(TimestampMs(3)), late, early), At::Time(TimestampMs(3)));
    }
}
