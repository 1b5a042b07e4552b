//! Who is at the other end of a connection, as far as it has said or shown. Pure.

use grus_protocol::ids::{
    MemberId, Offset, ProducerEpoch, ProducerId, QueueId, SubscriptionId, TimestampMs,
};
use grus_protocol::message::Hello;
use grus_protocol::names::{GroupName, ProducerName, TopicName};

/// Most producers, and most readers, of a connection that are listed one by one.
pub const LISTED_MAX: usize = 32;
/// A queue that was not fetched for so long gives its place in the list to another one.
const STALE_MS: u64 = 120_000;

/// What a connection has shown of its peer. Bounded: a peer with many queues costs no more.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    client_id: String,
    software: String,
    producers: Vec<ProducerFact>,
    readers: Vec<ReaderFact>,
    members: Vec<MemberFact>,
    batches_unlisted: u64,
    fetches_unlisted: u64,
}

/// A producer seen on a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerFact {
    /// Its id; 0 = one without an identity.
    pub id: ProducerId,
    /// The name under which it asked for its id here.
    pub name: Option<ProducerName>,
    /// The epoch of its life.
    pub epoch: ProducerEpoch,
    /// The topic it sent to last.
    pub topic: Option<TopicName>,
    /// When it was first seen.
    pub since: TimestampMs,
    /// When it was seen last.
    pub last_seen: TimestampMs,
    /// Batches that passed the checks.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
}

/// A queue that is read by a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReaderFact {
    /// The topic.
    pub topic: TopicName,
    /// The queue in it.
    pub queue: QueueId,
    /// The subscription by which it is sent; none when it is fetched.
    pub subscription: Option<SubscriptionId>,
    /// When it was first read.
    pub since: TimestampMs,
    /// When it was last fetched, or given credit.
    pub last_seen: TimestampMs,
    /// The offset asked for last; none by subscription.
    pub offset: Option<Offset>,
    /// How often it was fetched.
    pub fetches: u64,
}

/// A member of a group that is heard of over a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberFact {
    /// The group.
    pub group: GroupName,
    /// Its id in it.
    pub member: MemberId,
    /// When it was first heard of.
    pub since: TimestampMs,
    /// When it was heard of last.
    pub last_seen: TimestampMs,
}

impl Facts {
    /// Hello was accepted.
    pub fn greeted(&mut self, hello: &Hello) {
        self.client_id.clone_from(&hello.client_id);
        self.software.clone_from(&hello.software);
    }

    /// A producer was given its identity.
    pub fn identified(
        &mut self,
        (id, epoch): (ProducerId, ProducerEpoch),
        name: Option<ProducerName>,
        now: TimestampMs,
    ) {
        if let Some(known) = self.producer(id, epoch, now) {
            known.name = name;
        }
    }

    /// A batch for a topic passed the checks.
    pub fn produced(
        &mut self,
        (id, epoch): (ProducerId, ProducerEpoch),
        topic: &TopicName,
        records: u32,
        now: TimestampMs,
    ) {
        let Some(known) = self.producer(id, epoch, now) else {
            self.batches_unlisted += 1;
            return;
        };
        known.batches += 1;
        known.records += u64::from(records);
        if known.topic.as_ref() != Some(topic) {
            known.topic = Some(topic.clone());
        }
    }

    /// A producer has said that it ends; a later life of it stays.
    pub fn producer_closed(&mut self, id: ProducerId, epoch: ProducerEpoch) {
        self.producers.retain(|known| known.id != id || known.epoch != epoch);
    }

    /// A queue is read.
    pub fn fetched(&mut self, topic: &TopicName, queue: QueueId, offset: Offset, now: TimestampMs) {
        let is_it =
            |is: &ReaderFact| is.subscription.is_none() && is.queue == queue && is.topic == *topic;
        if let Some(at) = self.readers.iter().position(is_it) {
            let known = &mut self.readers[at];
            known.offset = Some(offset);
            known.last_seen = now;
            known.fetches += 1;
            return;
        }
        let (topic, offset) = (topic.clone(), Some(offset));
        let (subscription, since, last_seen) = (None, now, now);
        self.list(ReaderFact { topic, queue, subscription, since, last_seen, offset, fetches: 1 });
    }

    /// A queue is to be sent.
    pub fn subscribed(
        &mut self,
        id: SubscriptionId,
        topic: &TopicName,
        queue: QueueId,
        now: TimestampMs,
    ) {
        self.unsubscribed(id);
        let (topic, subscription) = (topic.clone(), Some(id));
        let (since, last_seen, offset) = (now, now, None);
        self.list(ReaderFact { topic, queue, subscription, since, last_seen, offset, fetches: 0 });
    }

    fn list(&mut self, reader: ReaderFact) {
        if self.readers.len() >= LISTED_MAX {
            let now = reader.last_seen;
            let is_stale = |known: &ReaderFact| {
                known.subscription.is_none() && now.0.saturating_sub(known.last_seen.0) >= STALE_MS
            };
            self.readers.retain(|known| !is_stale(known));
        }
        if self.readers.len() < LISTED_MAX {
            self.readers.push(reader);
        } else {
            self.fetches_unlisted += 1;
        }
    }

    /// A subscription was given credit, or sought in.
    pub fn heard(&mut self, id: SubscriptionId, now: TimestampMs) {
        let of_it = |known: &&mut ReaderFact| known.subscription == Some(id);
        self.readers.iter_mut().filter(of_it).for_each(|known| known.last_seen = now);
    }

    /// A queue is sent no more.
    pub fn unsubscribed(&mut self, id: SubscriptionId) {
        self.readers.retain(|known| known.subscription != Some(id));
    }

    /// A member of a group is there.
    pub fn member_heard(&mut self, group: &GroupName, member: MemberId, now: TimestampMs) {
        let is_it = |known: &&mut MemberFact| known.member == member && known.group == *group;
        if let Some(known) = self.members.iter_mut().find(is_it) {
            known.last_seen = now;
        } else if self.members.len() < LISTED_MAX {
            let group = group.clone();
            self.members.push(MemberFact { group, member, since: now, last_seen: now });
        }
    }

    /// A member has left its group.
    pub fn member_left(&mut self, group: &GroupName, member: MemberId) {
        self.members.retain(|known| known.member != member || known.group != *group);
    }

    fn producer(
        &mut self,
        id: ProducerId,
        epoch: ProducerEpoch,
        now: TimestampMs,
    ) -> Option<&mut ProducerFact> {
        if let Some(at) = self.producers.iter().position(|known| known.id == id) {
            let known = &mut self.producers[at];
            (known.epoch, known.last_seen) = (epoch, now);
            return Some(known);
        }
        if self.producers.len() >= LISTED_MAX {
            return None;
        }
        let (name, topic, since, last_seen) = (None, None, now, now);
        let (batches, records) = (0, 0);
        self.producers.push(ProducerFact {
            id,
            name,
            epoch,
            topic,
            since,
            last_seen,
            batches,
            records,
        });
        self.producers.last_mut()
    }

    /// What the client calls itself.
    #[must_use]
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// Program and version of the client's library.
    #[must_use]
    pub fn software(&self) -> &str {
        &self.software
    }

    /// Its producers, in order of appearance.
    #[must_use]
    pub fn producers(&self) -> &[ProducerFact] {
        &self.producers
    }

    /// The queues it reads, in order of appearance.
    #[must_use]
    pub fn readers(&self) -> &[ReaderFact] {
        &self.readers
    }

    /// The members of groups that are heard of over it, in order of appearance.
    #[must_use]
    pub fn members(&self) -> &[MemberFact] {
        &self.members
    }

    /// Batches and fetches of those that are not listed.
    #[must_use]
    pub const fn unlisted(&self) -> (u64, u64) {
        (self.batches_unlisted, self.fetches_unlisted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: ProducerEpoch = ProducerEpoch(1);

    fn topic() -> TopicName {
        TopicName::try_from("t").unwrap()
    }

    #[test]
    fn producers_and_readers_are_counted_and_those_beyond_the_limit_summed() {
        let mut facts = Facts::default();
        let topic = topic();
        let (first, second) = (TimestampMs(10), TimestampMs(30));
        for number in 0..LISTED_MAX as u64 + 3 {
            facts.produced((ProducerId(number), EPOCH), &topic, 10, first);
            facts.produced((ProducerId(number), EPOCH), &topic, 5, second);
            let queue = QueueId(u32::try_from(number).unwrap());
            facts.fetched(&topic, queue, Offset(1), first);
            facts.fetched(&topic, queue, Offset(9), second);
        }
        assert_eq!(facts.producers().len(), LISTED_MAX);
        let producer = &facts.producers()[0];
        assert_eq!((producer.batches, producer.records), (2, 15));
        assert_eq!((producer.since, producer.last_seen), (first, second));
        assert_eq!(producer.topic.as_ref(), Some(&topic));
        let reader = &facts.readers()[0];
        assert_eq!((reader.offset, reader.fetches), (Some(Offset(9)), 2));
        assert_eq!((reader.since, reader.last_seen), (first, second));
        assert_eq!(facts.unlisted(), (6, 6));
    }

    #[test]
    fn members_of_groups_are_listed_until_they_leave_up_to_the_limit() {
        let (mut facts, group) = (Facts::default(), GroupName::try_from("g").unwrap());
        for number in 0..LISTED_MAX as u64 + 3 {
            facts.member_heard(&group, MemberId(number), TimestampMs(10));
            facts.member_heard(&group, MemberId(number), TimestampMs(20));
        }
        assert_eq!(facts.members().len(), LISTED_MAX);
        let first = &facts.members()[0];
        assert_eq!((first.since, first.last_seen), (TimestampMs(10), TimestampMs(20)));
        facts.member_left(&group, MemberId(0));
        facts.member_left(&GroupName::try_from("other").unwrap(), MemberId(1));
        assert_eq!(facts.members()[0].member, MemberId(1));
    }

    #[test]
    fn a_queue_that_nobody_fetches_any_more_makes_room_for_another() {
        let mut facts = Facts::default();
        for number in 0..=LISTED_MAX as u64 {
            let queue = QueueId(u32::try_from(number).unwrap());
            facts.fetched(&topic(), queue, Offset(1), TimestampMs(number));
        }
        assert_eq!(facts.unlisted(), (0, 1));
        facts.fetched(&topic(), QueueId(99), Offset(1), TimestampMs(STALE_MS));
        assert_eq!((facts.readers().len(), facts.unlisted()), (LISTED_MAX, (0, 1)));
        assert_eq!(facts.readers().last().map(|last| last.queue), Some(QueueId(99)));
    }

    #[test]
    fn a_closed_producer_leaves_at_once_and_a_new_epoch_takes_the_place_of_the_old() {
        let mut facts = Facts::default();
        let name = ProducerName::try_from("p").ok();
        let now = TimestampMs(1);
        facts.identified((ProducerId(7), EPOCH), name.clone(), now);
        facts.identified((ProducerId(7), ProducerEpoch(2)), name.clone(), now);
        assert_eq!(facts.producers().len(), 1);
        let known = &facts.producers()[0];
        assert_eq!((known.epoch, &known.name), (ProducerEpoch(2), &name));
        facts.producer_closed(ProducerId(7), EPOCH);
        assert_eq!(facts.producers().len(), 1, "the earlier life is closed, not this one");
        facts.producer_closed(ProducerId(7), ProducerEpoch(2));
        assert!(facts.producers().is_empty());
        facts.fetched(&topic(), QueueId(0), Offset(0), now);
        facts.subscribed(SubscriptionId(3), &topic(), QueueId(0), now);
        facts.heard(SubscriptionId(3), TimestampMs(5));
        assert_eq!(facts.readers()[1].last_seen, TimestampMs(5));
        facts.unsubscribed(SubscriptionId(3));
        assert_eq!(facts.readers().len(), 1, "the fetching one stays");
    }
}
