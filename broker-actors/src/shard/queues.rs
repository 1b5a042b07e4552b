//! The queues that live in a shard: their actors, and the table that connections look them up in.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use grus_log::Disk;
use grus_mailbox::{ActorSpec, Host, HostHandle, Inbox, Place, Stopped};
use grus_protocol::ids::{GroupId, QueueId, QueueKey, TimestampMs, TopicId};
use grus_protocol::names::TopicName;

use super::ground::{ChangedPorts, Ground};
use super::{Propose, QueueTable, QueueTableSender};
use crate::delay_wheel::wheel::Wheel;
use crate::metrics::expired::ExpiredMetrics;
use crate::metrics::retained::RetainedMetrics;
use crate::reader::ReadCold;
use crate::topic_queue::{
    ASKS_MAX, Alarms, Applied, Expire, FETCHES_MAX, GROUP_BYTES_MAX, PRODUCE_BYTES_MAX,
    QueueHandle, SUBSCRIPTION_ASKS_MAX, TopicQueue, TopicQueueParts, Waiting,
};

/// What a queue's actor is made of, and where it is told things.
pub(super) struct QueueMaker<D: Disk> {
    pub(super) place: Place,
    pub(super) ground: Rc<Ground<D>>,
    pub(super) shard: Inbox<Propose>,
    pub(super) reader: Inbox<ReadCold>,
    pub(super) changed: ChangedPorts,
    pub(super) metrics: ExpiredMetrics,
    pub(super) retained: RetainedMetrics,
}

struct Living<D: Disk> {
    host: HostHandle<TopicQueue<D>>,
    handle: Arc<QueueHandle>,
    expire: Inbox<Expire>,
    reign: u64,
}

/// The living queues of a shard.
pub(super) struct Queues<D: Disk> {
    maker: QueueMaker<D>,
    living: BTreeMap<QueueKey, Living<D>>,
    table: QueueTableSender,
    /// Counts how often they were stopped: an actor of before may live still.
    reign: u64,
    /// Queues on which fetches are parked; each keeps itself in it.
    waiting: Waiting,
    /// When retries are due in them; each puts itself in.
    alarms: Alarms,
}

impl<D: Disk> Queues<D> {
    pub(super) fn new(maker: QueueMaker<D>, table: QueueTableSender) -> Self {
        let alarms = Rc::new(RefCell::new(Wheel::new(0)));
        let waiting = Waiting::default();
        Self { maker, living: BTreeMap::new(), table, reign: 0, waiting, alarms }
    }

    /// Starts what the state has and stops what it has not any more, over all topics.
    pub(super) fn follow_state(&mut self) {
        let ground = Rc::clone(&self.maker.ground);
        let topics: BTreeSet<TopicId> = {
            let machine = ground.machine.borrow();
            let known = machine.state.topics().map(|config| config.topic);
            known.chain(self.living.keys().map(|key| key.topic)).collect()
        };
        for topic in topics {
            self.follow_topic(topic);
        }
    }

    /// The same for one topic; its queues.
    pub(super) fn open(&mut self, topic: TopicId) -> Vec<Arc<QueueHandle>> {
        self.follow_topic(topic);
        self.of_topic(topic).map(|living| Arc::clone(&living.handle)).collect()
    }

    /// Has all queues look whether there is something for who waits.
    pub(super) fn wake(&self) {
        for port in self.maker.changed.borrow().values() {
            let _ = port.try_put(Applied); // full: one is waiting already
        }
    }

    /// Stops the queues of a topic that is gone.
    pub(super) fn close(&mut self, topic: TopicId) {
        self.maker.ground.tallies.borrow_mut().forget(GroupId::of(topic));
        self.maker.ground.rings.borrow_mut().forget(topic);
        self.follow_topic(topic);
    }

    fn of_topic(&self, topic: TopicId) -> impl Iterator<Item = &Living<D>> {
        let first = QueueKey { topic, queue: QueueId(0) };
        let last = QueueKey { topic, queue: QueueId(u32::MAX) };
        self.living.range(first..=last).map(|(_, living)| living)
    }

    fn follow_topic(&mut self, topic: TopicId) {
        let config = self.maker.ground.machine.borrow().state.topic(topic).cloned();
        let Some(config) = config else { return self.close_all_of(topic) };
        let mut opened = Vec::new();
        for queue in &config.queues {
            let key = QueueKey { topic, queue: *queue };
            if !self.living.contains_key(&key) {
                let living = self.start(key, &config.name);
                opened.push((key, Arc::clone(&living.handle)));
                self.living.insert(key, living);
            }
        }
        if !opened.is_empty() {
            // In place, as long as nobody holds the table itself.
            self.table.send_modify(|table| Arc::make_mut(table).extend(opened));
        }
    }

    fn close_all_of(&mut self, topic: TopicId) {
        let gone: Vec<QueueKey> = self.of_topic(topic).map(|living| living.handle.key).collect();
        for key in &gone {
            self.maker.changed.borrow_mut().remove(key);
            if let Some(living) = self.living.remove(key) {
                drop(living.host.stop()); // nobody waits: it answers its fetches and goes
            }
        }
        if !gone.is_empty() {
            self.table.send_modify(|table| {
                Arc::make_mut(table).retain(|key, _| key.topic != topic);
            });
        }
    }

    fn start(&self, key: QueueKey, topic: &TopicName) -> Living<D> {
        let QueueMaker { place, ground, shard, reader, changed, metrics, retained } = &self.maker;
        let parts = Rc::new(TopicQueueParts {
            key,
            reign: self.reign,
            topic: topic.clone(),
            ground: Rc::clone(ground),
            shard: shard.clone(),
            reader: reader.clone(),
            waiting: self.waiting.clone(),
            alarms: Rc::clone(&self.alarms),
            metrics: metrics.clone(),
            retained: retained.clone(),
        });
        let spec = ActorSpec::new("TopicQueue", format!("{topic}/{}", key.queue));
        let host = Host::spawn_local(place, spec, move || TopicQueue::new(Rc::clone(&parts)));
        let handle = Arc::new(QueueHandle {
            key,
            topic: topic.clone(),
            shard: ground.shard,
            durability: ground.durability,
            produce: host.inbox(PRODUCE_BYTES_MAX),
            fetch: host.inbox(FETCHES_MAX),
            subscribe: host.inbox(SUBSCRIPTION_ASKS_MAX),
            group: host.inbox(GROUP_BYTES_MAX),
            ask: host.inbox(ASKS_MAX),
        });
        changed.borrow_mut().insert(key, host.inbox::<Applied>(1));
        let expire = host.inbox::<Expire>(1);
        Living { host, handle, expire, reign: self.reign }
    }

    /// Tells the time to queues on which someone waits, or a retry is due.
    pub(super) fn expire(&self, now: TimestampMs, monotonic_ms: u64) {
        while let Some((_, key)) = self.alarms.borrow_mut().take(now.0) {
            if let Some(living) = self.living.get(&key) {
                self.waiting.note(key, living.reign, true); // it takes itself out again
            }
        }
        let of_now = |(key, reign): (QueueKey, u64)| {
            self.living.get(&key).filter(|living| living.reign == reign)
        };
        for living in self.waiting.all().into_iter().filter_map(of_now) {
            // Full: one waits already, and the next tick comes soon.
            let _ = living.expire.try_put(Expire { monotonic_ms });
        }
    }

    /// Stops them all; each resolves when its actor has stopped.
    pub(super) fn stop(&mut self) -> Vec<Stopped> {
        self.maker.changed.borrow_mut().clear();
        self.reign += 1;
        let all = std::mem::take(&mut self.living);
        self.table.send_replace(QueueTable::default());
        all.into_values().map(|living| living.host.stop()).collect()
    }

    /// How many live.
    pub(super) fn len(&self) -> usize {
        self.living.len()
    }
}
