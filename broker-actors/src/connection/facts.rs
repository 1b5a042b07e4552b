//! Who is at the other end of a connection, as far as it has said or shown. Pure.

use grus_protocol::ids::{Offset, ProducerEpoch, ProducerId, QueueId, SubscriptionId};
use grus_protocol::message::Hello;
use grus_protocol::names::{ProducerName, TopicName};

/// Most producers, and most readers, of a connection that are listed one by one.
pub const LISTED_MAX: usize = 32;

/// What a connection has shown of its peer. Bounded: a peer with many queues costs no more.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    client_id: String,
    software: String,
    producers: Vec<ProducerFact>,
    readers: Vec<ReaderFact>,
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
    /// The offset asked for last; none by subscription.
    pub offset: Option<Offset>,
    /// How often it was fetched.
    pub fetches: u64,
}

impl Facts {
    /// Hello was accepted.
    pub fn greeted(&mut self, hello: &Hello) {
        self.client_id.clone_from(&hello.client_id);
        self.software.clone_from(&hello.software);
    }

    /// A producer was given its identity.
    pub fn identified(&mut self, id: ProducerId, epoch: ProducerEpoch, name: Option<ProducerName>) {
        if let Some(known) = self.producer(id, epoch) {
            known.name = name;
        }
    }

    /// A batch passed the checks.
    pub fn produced(&mut self, id: ProducerId, epoch: ProducerEpoch, records: u32) {
        match self.producer(id, epoch) {
            Some(known) => {
                known.batches += 1;
                known.records += u64::from(records);
            }
            None => self.batches_unlisted += 1,
        }
    }

    /// A producer has said that it ends.
    pub fn producer_closed(&mut self, id: ProducerId) {
        self.producers.retain(|known| known.id != id);
    }

    /// A queue is read.
    pub fn fetched(&mut self, topic: &TopicName, queue: QueueId, offset: Offset) {
        let is_it =
            |is: &ReaderFact| is.subscription.is_none() && is.queue == queue && is.topic == *topic;
        if let Some(at) = self.readers.iter().position(is_it) {
            self.readers[at].offset = Some(offset);
            self.readers[at].fetches += 1;
        } else if self.readers.len() < LISTED_MAX {
            let topic = topic.clone();
            let offset = Some(offset);
            self.readers.push(ReaderFact { topic, queue, subscription: None, offset, fetches: 1 });
        } else {
            self.fetches_unlisted += 1;
        }
    }

    /// A queue is to be sent.
    pub fn subscribed(&mut self, id: SubscriptionId, topic: &TopicName, queue: QueueId) {
        self.unsubscribed(id);
        if self.readers.len() < LISTED_MAX {
            let (topic, subscription) = (topic.clone(), Some(id));
            self.readers.push(ReaderFact { topic, queue, subscription, offset: None, fetches: 0 });
        } else {
            self.fetches_unlisted += 1;
        }
    }

    /// A queue is sent no more.
    pub fn unsubscribed(&mut self, id: SubscriptionId) {
        self.readers.retain(|known| known.subscription != Some(id));
    }

    fn producer(&mut self, id: ProducerId, epoch: ProducerEpoch) -> Option<&mut ProducerFact> {
        if let Some(at) = self.producers.iter().position(|known| known.id == id) {
            let known = &mut self.producers[at];
            known.epoch = epoch;
            return Some(known);
        }
        if self.producers.len() >= LISTED_MAX {
            return None;
        }
        self.producers.push(ProducerFact { id, name: None, epoch, batches: 0, records: 0 });
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

    /// Batches and fetches of those that are not listed.
    #[must_use]
    pub const fn unlisted(&self) -> (u64, u64) {
        (self.batches_unlisted, self.fetches_unlisted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn producers_and_readers_are_counted_and_those_beyond_the_limit_summed() {
        let mut facts = Facts::default();
        let topic = TopicName::try_from("t").unwrap();
        let epoch = ProducerEpoch(1);
        for number in 0..LISTED_MAX as u64 + 3 {
            facts.produced(ProducerId(number), epoch, 10);
            facts.produced(ProducerId(number), epoch, 5);
            let queue = QueueId(u32::try_from(number).unwrap());
            facts.fetched(&topic, queue, Offset(1));
            facts.fetched(&topic, queue, Offset(9));
        }
        assert_eq!(facts.producers().len(), LISTED_MAX);
        assert_eq!((facts.producers()[0].batches, facts.producers()[0].records), (2, 15));
        assert_eq!((facts.readers()[0].offset, facts.readers()[0].fetches), (Some(Offset(9)), 2));
        assert_eq!(facts.unlisted(), (6, 6));
    }

    #[test]
    fn a_closed_producer_leaves_at_once_and_a_new_epoch_takes_the_place_of_the_old() {
        let mut facts = Facts::default();
        let name = ProducerName::try_from("p").ok();
        facts.identified(ProducerId(7), ProducerEpoch(1), name.clone());
        facts.identified(ProducerId(7), ProducerEpoch(2), name.clone());
        assert_eq!(facts.producers().len(), 1);
        assert_eq!(
            (facts.producers()[0].epoch, &facts.producers()[0].name),
            (ProducerEpoch(2), &name)
        );
        facts.producer_closed(ProducerId(7));
        assert!(facts.producers().is_empty());
        let topic = TopicName::try_from("t").unwrap();
        facts.fetched(&topic, QueueId(0), Offset(0));
        facts.subscribed(SubscriptionId(3), &topic, QueueId(0));
        assert_eq!(facts.readers().len(), 2);
        facts.unsubscribed(SubscriptionId(3));
        assert_eq!(facts.readers().len(), 1, "the fetching one stays");
    }
}
