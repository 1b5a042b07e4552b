//! Looking after consumer groups: listing, describing, moving, removing them, and their dead letters.

use bytes::Bytes;
use futures_util::future::join_all;
use grus_protocol::batch::Record;
use grus_protocol::ids::BrokerAddress;
use grus_protocol::message::{
    DEAD_LETTERS_PAGE_DEFAULT, DEAD_LETTERS_PAGE_MAX, DeadLetter, DeadLetterPlace, DeleteGroup,
    DescribeGroup, DescribeGroupReply, GroupProgress, GroupSummary, ListAt, ListDeadLetters,
    ListGroups, ListOffsets, OffsetRange, PurgeDeadLetters, QueueProgress, RedriveDeadLetters,
    ResetGroup, ResetGroupReply, SubscribeAt,
};
use grus_protocol::{
    BrokerId, ErrorCode, ErrorReply, GroupId, GroupName, QueueId, Term, TopicName,
};

use crate::client::Client;
use crate::config::StartAt;
use crate::describe::LEADER_WAIT;
use crate::error::ClientError;
use crate::find::{read, take};

/// A dead letter of a group.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DeadLetterMessage {
    /// Where it is, where it came from, and why.
    pub letter: DeadLetter,
    /// The message itself; `None`: it was not asked for, or cannot be read now.
    pub record: Option<Record>,
}

impl DeadLetterMessage {
    fn place(&self) -> DeadLetterPlace {
        DeadLetterPlace { queue: self.letter.queue, offset: self.letter.offset }
    }
}

/// A page of dead letters.
#[derive(Debug, Clone, Default)]
pub struct DeadLettersPage {
    /// By queue of the dead-letter topic, and offset.
    pub letters: Vec<DeadLetterMessage>,
    /// Behind which place the next page begins; `None`: this was the last one.
    pub next: Option<DeadLetterPlace>,
    /// Brokers that could not be asked, and may have more, and why.
    pub unasked: Vec<(BrokerId, String)>,
    /// Queues of the dead-letter topic that no broker that is there leads now.
    pub unled: Vec<QueueId>,
}

impl DeadLettersPage {
    /// Puts the pages of several brokers together: as far as all of them have told, and at most
    /// `messages_max`.
    fn of_all(pages: Vec<Self>, messages_max: usize) -> Self {
        let told = pages.iter().filter_map(|page| page.next).min();
        let mut letters: Vec<_> = pages.into_iter().flat_map(|page| page.letters).collect();
        letters.sort_by_key(DeadLetterMessage::place);
        if let Some(told) = told {
            letters.retain(|one| one.place() <= told);
        }
        let is_cut = letters.len() > messages_max;
        letters.truncate(messages_max);
        let last = letters.last().map(DeadLetterMessage::place);
        Self { next: if is_cut { last } else { told }, letters, ..Self::default() }
    }
}

/// What the brokers that answered have of something that is spread over all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gathered<T> {
    /// What they have.
    pub items: Vec<T>,
    /// Brokers that could not be asked, and may have more, and why.
    pub unasked: Vec<(BrokerId, String)>,
}

impl Client {
    /// Lists the consumer groups of all brokers, by name. Each broker is waited for for 5 s at most;
    /// those that do not answer are named.
    ///
    /// # Errors
    /// What the last broker said when none answered; [`ClientError::Refused`],
    /// [`ClientError::Timeout`], [`ClientError::Closed`].
    pub async fn list_groups(&self) -> Result<Gathered<GroupSummary>, ClientError> {
        let mut listed = self.gather(async |broker| self.list_groups_of(&broker).await).await?;
        listed.items.sort_by(|one, other| one.group.cmp(&other.group));
        Ok(listed)
    }

    /// Asks each broker; an error only when none answers.
    async fn gather<T>(
        &self,
        ask: impl AsyncFn(BrokerAddress) -> Result<Vec<T>, ClientError>,
    ) -> Result<Gathered<T>, ClientError> {
        Self::gather_of(self.brokers().await?, ask).await
    }

    async fn gather_of<T>(
        brokers: Vec<BrokerAddress>,
        ask: impl AsyncFn(BrokerAddress) -> Result<Vec<T>, ClientError>,
    ) -> Result<Gathered<T>, ClientError> {
        let asked = brokers.iter().map(|broker| ask(broker.clone()));
        let (mut items, mut unasked, mut failed) = (Vec::new(), Vec::new(), None);
        for (broker, answer) in brokers.iter().zip(join_all(asked).await) {
            match answer {
                Ok(some) => items.extend(some),
                Err(error) => {
                    unasked.push((broker.id, error.to_string()));
                    failed = Some(error);
                }
            }
        }
        match failed {
            Some(error) if unasked.len() == brokers.len() => Err(error),
            _ => Ok(Gathered { items, unasked }),
        }
    }

    async fn list_groups_of(
        &self,
        broker: &BrokerAddress,
    ) -> Result<Vec<GroupSummary>, ClientError> {
        let limit = LEADER_WAIT;
        let mut groups: Vec<GroupSummary> = Vec::new();
        loop {
            let after = groups.last().map(|last| last.group.clone());
            let page = self.ask_broker(broker, &ListGroups { after, groups_max: 0 }, limit).await?;
            let is_last = !page.more || page.groups.is_empty();
            groups.extend(page.groups);
            if is_last {
                return Ok(groups);
            }
        }
    }

    /// The members of a group, and whose which queue is.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `UnknownGroup` when there is no such group;
    /// [`ClientError::Timeout`], [`ClientError::Closed`].
    pub async fn describe_group(
        &self,
        group: &GroupName,
    ) -> Result<DescribeGroupReply, ClientError> {
        let make = |_| DescribeGroup { group: group.clone() };
        let coordinator = group.dead_letters();
        let told = self.ask_leader_with(&coordinator, QueueId(0), make, Bytes::new()).await;
        Ok(of_group(group, told)?.0)
    }

    /// How far a group has come in each queue that it has ever had, by topic and queue. Each broker is
    /// waited for for 5 s at most; those that do not answer are named.
    ///
    /// # Errors
    /// As [`Client::list_groups`].
    pub async fn group_progress(
        &self,
        group: &GroupName,
    ) -> Result<Gathered<QueueProgress>, ClientError> {
        let ask = async |broker| self.group_progress_of(broker, group).await;
        let mut told = self.gather(ask).await?;
        told.items.sort_by(|one, other| (&one.topic, one.queue).cmp(&(&other.topic, other.queue)));
        Ok(told)
    }

    async fn group_progress_of(
        &self,
        broker: BrokerAddress,
        group: &GroupName,
    ) -> Result<Vec<QueueProgress>, ClientError> {
        let limit = LEADER_WAIT;
        let (mut queues, mut after) = (Vec::new(), None);
        loop {
            let (group, group_id) = (group.clone(), GroupId::UNKNOWN);
            let ask = GroupProgress { group, group_id, after, queues_max: 0 };
            let page = self.ask_broker(&broker, &ask, limit).await?;
            queues.extend(page.queues);
            match page.next {
                None => return Ok(queues),
                next if next <= after => {
                    let text = "the next page does not come behind the one before".to_owned();
                    return Err(ClientError::BadReply(text));
                }
                next => after = next,
            }
        }
    }

    /// Moves a group's progress in one queue, or in all queues of a topic, also while it runs; the
    /// first offsets that are to be handled now.
    ///
    /// # Errors
    /// As [`Client::describe_group`]; of several queues some may have been moved.
    pub async fn reset_group(
        &self,
        group: &GroupName,
        topic: &TopicName,
        queue: Option<QueueId>,
        start: StartAt,
    ) -> Result<Vec<(QueueId, ResetGroupReply)>, ClientError> {
        let queues = match queue {
            Some(queue) => vec![queue],
            None => self.queues_of(topic).await?,
        };
        let at = match start {
            StartAt::First => SubscribeAt::First,
            StartAt::Last => SubscribeAt::Last,
            StartAt::Offset(offset) => SubscribeAt::Offset(offset, Term::UNKNOWN),
            StartAt::Time(time) => SubscribeAt::Time(time),
        };
        let reset = queues.into_iter().map(async |queue| {
            let make = |topic_id| {
                let (group, group_id) = (group.clone(), GroupId::UNKNOWN);
                ResetGroup { group, group_id, topic: topic.clone(), topic_id, queue, at }
            };
            let reply = self.ask_leader_with(topic, queue, make, Bytes::new()).await?.0;
            Ok((queue, reply))
        });
        join_all(reset).await.into_iter().collect()
    }

    async fn queues_of(&self, topic: &TopicName) -> Result<Vec<QueueId>, ClientError> {
        let found = self.routes_of(topic).await?.1.map_err(ClientError::Refused)?;
        Ok(found.queues.iter().map(|route| route.queue).collect())
    }

    /// Removes a group that has no members: its progress, and its dead letters.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `GroupNotEmpty`; as [`Client::describe_group`].
    pub async fn delete_group(&self, group: &GroupName) -> Result<(), ClientError> {
        // By its incarnation: a repetition must not remove one that was made since.
        let make = |topic: grus_protocol::TopicId| DeleteGroup {
            group: group.clone(),
            group_id: GroupId::of(topic),
        };
        let coordinator = group.dead_letters();
        let told = self.ask_leader_with(&coordinator, QueueId(0), make, Bytes::new()).await;
        of_group(group, told).map(|_| ())
    }

    /// A page of a group's dead letters, without those that were sent back or removed: behind the
    /// place `after`, `messages_max` at most (0: 100). Each broker is waited for for 5 s at most; those
    /// that do not answer are named, and so are queues that nobody leads.
    ///
    /// # Errors
    /// As [`Client::describe_group`]; what the last broker said when none answered.
    pub async fn list_dead_letters(
        &self,
        group: &GroupName,
        after: Option<DeadLetterPlace>,
        messages_max: u32,
        with_bodies: bool,
    ) -> Result<DeadLettersPage, ClientError> {
        let messages_max = match messages_max {
            0 => DEAD_LETTERS_PAGE_DEFAULT,
            some => some.min(DEAD_LETTERS_PAGE_MAX),
        };
        let (name, group_id) = (group.clone(), GroupId::UNKNOWN);
        let request = ListDeadLetters { group: name, group_id, after, messages_max, with_bodies };
        let list = async |broker: BrokerAddress| {
            let (reply, mut body) = self.ask_broker_body(&broker, &request, LEADER_WAIT).await?;
            let letters = reply.letters.into_iter().map(|letter| message(letter, &mut body));
            let letters = letters.collect::<Result<_, _>>()?;
            Ok(vec![DeadLettersPage { letters, next: reply.next, ..DeadLettersPage::default() }])
        };
        let (mut brokers, topic) = self.routes_of(&group.dead_letters()).await?;
        let topic = of_group(group, topic.map_err(ClientError::Refused))?;
        let is_there = |leader| brokers.iter().any(|broker| broker.id == leader);
        let unled = topic.queues.iter().filter(|route| !route.leader_broker.is_some_and(is_there));
        let unled = unled.map(|route| route.queue).collect();
        brokers.retain(|at| topic.queues.iter().any(|route| route.leader_broker == Some(at.id)));
        let Gathered { items, unasked } = Self::gather_of(brokers, list).await?;
        let page = DeadLettersPage::of_all(items, messages_max as usize);
        Ok(DeadLettersPage { unasked, unled, ..page })
    }

    /// Sends dead letters of one queue of the dead-letter topic (all that are there now, where no
    /// offsets are named) back to the queues that they came from, each once; how many. One that dies
    /// again meanwhile is a new one, and stays. An attempt that failed
    /// may be repeated: what went back already does not go back again. Those whose topic is gone
    /// stay; where there are no others, it is refused with `UnknownTopic`.
    ///
    /// # Errors
    /// As [`Client::describe_group`]; some may have gone back.
    pub async fn redrive_dead_letters(
        &self,
        group: &GroupName,
        queue: QueueId,
        offsets: &[OffsetRange],
    ) -> Result<u64, ClientError> {
        let letters = group.dead_letters();
        let (mut wanted, mut redriven) = (offsets.to_vec(), 0);
        if wanted.is_empty() {
            let make = |topic_id| ListOffsets {
                topic: letters.clone(),
                topic_id,
                queue,
                at: ListAt::Last,
            };
            let (there, _) = self.ask_leader_with(&letters, queue, make, Bytes::new()).await?;
            wanted = vec![OffsetRange { from: there.log_start, to: there.end_offset }];
        }
        wanted.retain(|range| range.from < range.to);
        while !wanted.is_empty() {
            let make = |topic| RedriveDeadLetters {
                group: group.clone(),
                group_id: GroupId::of(topic),
                queue,
                offsets: wanted.clone(),
                messages_max: 0,
            };
            let reply = match self.ask_leader_with(&letters, queue, make, Bytes::new()).await {
                Ok((reply, _)) => reply,
                // The last ones have nowhere to go: they stay.
                Err(ClientError::Refused(refusal))
                    if redriven > 0 && refusal.code == ErrorCode::UnknownTopic =>
                {
                    return Ok(redriven);
                }
                Err(error) => return Err(error),
            };
            redriven += reply.redriven;
            let Some(next) = reply.next else { return Ok(redriven) };
            // Behind what this one looked at: some of it may have nowhere to go.
            wanted.retain(|range| range.to > next);
            for range in &mut wanted {
                range.from = range.from.max(next);
            }
        }
        Ok(redriven)
    }

    /// Removes dead letters of one queue of the dead-letter topic (all of them, where no offsets
    /// are named); how many.
    ///
    /// # Errors
    /// As [`Client::describe_group`].
    pub async fn purge_dead_letters(
        &self,
        group: &GroupName,
        queue: QueueId,
        offsets: &[OffsetRange],
    ) -> Result<u64, ClientError> {
        let make = |topic| PurgeDeadLetters {
            group: group.clone(),
            group_id: GroupId::of(topic),
            queue,
            offsets: offsets.to_vec(),
        };
        let letters = group.dead_letters();
        let told = self.ask_leader_with(&letters, queue, make, Bytes::new()).await;
        Ok(of_group(group, told)?.0.purged)
    }

    /// The queues of a group's dead-letter topic.
    ///
    /// # Errors
    /// As [`Client::describe_group`].
    pub async fn dead_letter_queues(&self, group: &GroupName) -> Result<Vec<QueueId>, ClientError> {
        of_group(group, self.queues_of(&group.dead_letters()).await)
    }
}

/// A group that has no topic of dead letters is not there: that is what a caller is told, and not of
/// a topic that it never named.
fn of_group<T>(group: &GroupName, told: Result<T, ClientError>) -> Result<T, ClientError> {
    told.map_err(|error| match error {
        ClientError::Refused(refusal) if refusal.code == ErrorCode::UnknownTopic => {
            let text = format!("there is no group {group}");
            ClientError::Refused(ErrorReply::new(ErrorCode::UnknownGroup, text).into())
        }
        other => other,
    })
}

fn message(letter: DeadLetter, body: &mut Bytes) -> Result<DeadLetterMessage, ClientError> {
    let record = match letter.length {
        0 => None,
        some => Some(read(take(body, some)?)?.1),
    };
    Ok(DeadLetterMessage { letter, record })
}

#[cfg(test)]
mod tests {
    use grus_protocol::TimestampMs;

    use grus_protocol::Offset;

    use super::*;

    fn place(queue: u32, offset: u64) -> DeadLetterPlace {
        DeadLetterPlace { queue: QueueId(queue), offset: Offset(offset) }
    }

    fn page(places: &[(u32, u64)], next: Option<DeadLetterPlace>) -> DeadLettersPage {
        let one = |(queue, offset): &(u32, u64)| DeadLetterMessage {
            letter: DeadLetter {
                queue: QueueId(*queue),
                offset: Offset(*offset),
                stored: TimestampMs(1),
                origin_topic: TopicName::try_from("t").unwrap(),
                origin_queue: QueueId(0),
                origin_offset: Offset(0),
                reason: String::new(),
                deliveries: 1,
                length: 0,
            },
            record: None,
        };
        let letters = places.iter().map(one).collect();
        DeadLettersPage { letters, next, ..DeadLettersPage::default() }
    }

    #[test]
    fn pages_of_several_brokers_are_one_and_nothing_is_passed_over() {
        let of = |pages: &[DeadLettersPage], max| {
            let all = DeadLettersPage::of_all(pages.to_vec(), max);
            (all.letters.iter().map(DeadLetterMessage::place).collect::<Vec<_>>(), all.next)
        };
        let (one, other) = (page(&[(0, 5), (2, 1)], None), page(&[(1, 3)], None));
        let all = vec![place(0, 5), place(1, 3), place(2, 1)];
        assert_eq!(of(&[one.clone(), other.clone()], 9), (all.clone(), None));
        assert_eq!(of(&[one.clone(), other], 2), (all[..2].to_vec(), Some(place(1, 3))));
        // The second has told up to 1/3 only: 2/1 is left for the next page.
        let partly = page(&[(1, 3)], Some(place(1, 3)));
        assert_eq!(of(&[one, partly], 9), (all[..2].to_vec(), Some(place(1, 3))));
    }
}
