//! Two brokers, each with a shard of its own: the first coordinates the group, both have queues of its
//! topics. What members and the story need of them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use grus_broker::commands::groups::ProgressKey;
use grus_broker::consumer_group::GroupHandle;
use grus_broker::group_ties::GroupTies;
use grus_broker::registry_link::routes::{Leader, QueuePlace, Routes, TopicRoute};
use grus_broker::shard::{ShardHandle, TopicConfig};
use grus_broker::topic_queue::QueueHandle;
use grus_broker::topic_queue::letters::facts_of;
use grus_mailbox::{Outlet, outlet};
use grus_protocol::ids::{GroupId, Offset, QueueId, QueueKey, ShardId, TimestampMs, TopicId};
use grus_protocol::message::TopicSettings;
use grus_protocol::names::{GroupName, TopicName};
use grus_registry::RegistryRequest;
use tokio::sync::watch;

use super::facts::{Fact, Scribe};
use super::judge::Letter;
use crate::later::records;
use crate::world::{World, topic};

pub(crate) const GROUP: GroupId = GroupId(900);
pub(crate) const BROKERS: u32 = 2;
/// Each broker is alone in its world.
const NODE: u64 = 1;

/// What outlives brokers: where their queues are found.
pub(crate) struct Town {
    pub(crate) scribe: Scribe,
    handles: RefCell<BTreeMap<u32, ShardHandle>>,
    /// All brokers are members of one shard: a queue is where it is served.
    is_one_shard: bool,
}

impl Town {
    /// Brokers that each have some of the queues.
    fn divided(scribe: Scribe) -> Self {
        Self { scribe, handles: RefCell::default(), is_one_shard: false }
    }

    /// Brokers that are members of one shard.
    pub(crate) fn one_shard(scribe: Scribe) -> Self {
        Self { is_one_shard: true, ..Self::divided(scribe) }
    }

    /// A broker is there.
    pub(crate) fn enter(&self, broker: u32, handle: ShardHandle) {
        self.handles.borrow_mut().insert(broker, handle);
    }

    /// A broker is gone.
    pub(crate) fn leave(&self, broker: u32) {
        self.handles.borrow_mut().remove(&broker);
    }

    /// The way to a broker, if it is there.
    pub(crate) fn broker(&self, broker: u32) -> Option<ShardHandle> {
        self.handles.borrow().get(&broker).cloned()
    }

    pub(crate) fn queue(&self, key: QueueKey) -> Option<Arc<QueueHandle>> {
        let handles = self.handles.borrow();
        if self.is_one_shard {
            return handles.values().find_map(|handle| handle.queue(key));
        }
        handles.get(&broker_of(key))?.queue(key)
    }

    pub(crate) fn coordinator(&self) -> Option<Arc<GroupHandle>> {
        let handles = self.handles.borrow();
        if self.is_one_shard {
            return handles.values().find_map(|handle| handle.group(GROUP));
        }
        handles.get(&0)?.group(GROUP)
    }
}

/// The broker that has a queue.
pub(crate) fn broker_of(key: QueueKey) -> u32 {
    key.queue.0 % BROKERS
}

/// The brokers, with their disks.
pub(crate) struct Brokers {
    pub(crate) town: Rc<Town>,
    worlds: Vec<World>,
    topics: BTreeMap<u64, (TopicName, u32)>,
    routes: watch::Sender<Arc<Routes>>,
    /// What ends when nobody holds it.
    _held: (watch::Sender<bool>, Outlet<RegistryRequest>),
}

impl Brokers {
    /// Two brokers that run, with these topics: id, name, queues.
    pub(crate) async fn start(
        seed: u64,
        scribe: impl FnOnce(&World) -> Scribe,
        topics: &[(u64, &str, u32)],
    ) -> Self {
        let (routes, watched) = watch::channel(Arc::new(Routes::default()));
        let (settled, is_settled) = watch::channel(true);
        let (registry, questions) = outlet(64);
        let ties = GroupTies { registry, routes: watched, settled: is_settled };
        let mut worlds: Vec<World> =
            (0..BROKERS).map(|broker| World::of(&[NODE], seed ^ u64::from(broker) << 32)).collect();
        worlds[0].groups = Some(ties);
        let scribe = scribe(&worlds[0]);
        let town = Rc::new(Town::divided(scribe));
        let letters = GroupName::try_from("g").unwrap().dead_letters();
        let users = topics
            .iter()
            .map(|(id, name, queues)| (*id, (TopicName::try_from(*name).unwrap(), *queues)));
        let topics = users.chain([(GROUP.0, (letters, BROKERS))]).collect();
        let mut brokers = Self { town, worlds, topics, routes, _held: (settled, questions) };
        for broker in 0..BROKERS {
            brokers.start_one(broker).await;
        }
        brokers.open().await;
        brokers
    }

    fn world(&mut self, broker: u32) -> &mut World {
        &mut self.worlds[broker as usize]
    }

    async fn start_one(&mut self, broker: u32) {
        self.world(broker).start(NODE).await.expect("a broker starts on what its disk holds");
        let running = self.worlds[broker as usize].running(NODE);
        self.town.enter(broker, running.handle.clone());
        let machine = running.ground.machine.borrow();
        let (mut floors, mut retries) = (0, 0);
        for (_, held) in machine.state.progress_in(GROUP, None) {
            floors += held.numbers().floor.0;
            retries += held.retries() as u64;
        }
        self.town.scribe.note(Fact::Restored { broker: broker.into(), floors, retries });
    }

    /// Opens the queues there are to be, and tells the routes.
    async fn open(&mut self) {
        for broker in 0..BROKERS {
            for (id, (name, queues)) in &self.topics {
                let own = (0..*queues).filter(|queue| queue % BROKERS == broker);
                let queues = own.map(QueueId).collect();
                let config = TopicConfig { name: name.clone(), queues, ..topic(*id, 0) };
                let world = &self.worlds[broker as usize];
                assert!(
                    world.open_topics(NODE, &[config]).await,
                    "a broker that runs opens topics"
                );
            }
        }
        let mut routes = Routes::default();
        for (id, (name, queues)) in &self.topics {
            let place = |queue: u32| QueuePlace {
                shard: ShardId(queue % BROKERS),
                handle: None,
                leader: Leader::Here,
            };
            routes.put(TopicRoute {
                name: name.clone(),
                id: TopicId(*id),
                settings: TopicSettings::default(),
                created: TimestampMs(0),
                queues: (0..*queues).map(place).collect(),
            });
        }
        self.routes.send_replace(Arc::new(routes));
    }

    /// A topic has more queues, or is there.
    pub(crate) async fn grow(&mut self, id: u64, name: &str, more: u32) {
        let name = TopicName::try_from(name).unwrap();
        self.topics.entry(id).or_insert((name, 0)).1 += more;
        self.open().await;
    }

    /// The queues of users' topics.
    pub(crate) fn queues(&self) -> Vec<QueueKey> {
        let users = self.topics.iter().filter(|(id, _)| **id != GROUP.0);
        let queue = |topic: u64, number| QueueKey { topic: TopicId(topic), queue: QueueId(number) };
        users.flat_map(|(id, (_, queues))| (0..*queues).map(|number| queue(*id, number))).collect()
    }

    /// A broker ends from one moment to the next, by a kill or without power, and comes back after a
    /// while.
    pub(crate) async fn restart(&mut self, broker: u32, is_power: bool, down: std::time::Duration) {
        self.town.leave(broker);
        self.town.scribe.note(Fact::Ended { broker: broker.into() });
        if is_power {
            self.world(broker).cut_power(NODE).await;
        } else {
            self.world(broker).kill(NODE).await;
        }
        tokio::time::sleep(down).await;
        self.start_one(broker).await;
    }

    /// Whether the group has settled something in a broker's queues.
    pub(crate) fn has_progress(&self, broker: u32) -> bool {
        let machine = self.worlds[broker as usize].running(NODE).ground.machine.borrow();
        machine.state.progress_in(GROUP, None).any(|(_, held)| held.numbers().floor > Offset(0))
    }

    /// Messages that the group has not settled.
    pub(crate) fn lag(&self) -> BTreeMap<QueueKey, u64> {
        let mut all = BTreeMap::new();
        for queue in self.queues() {
            let running = self.worlds[broker_of(queue) as usize].running(NODE);
            let machine = running.ground.machine.borrow();
            let end = machine.state.queue(queue).map_or(Offset(0), |numbers| numbers.next_offset);
            let held = machine.state.progress(ProgressKey { queue, group: GROUP });
            let lag = held.map_or(end.0, |held| held.lag(Offset(0), end));
            if lag > 0 {
                all.insert(queue, lag);
            }
        }
        all
    }

    /// Each dead letter.
    pub(crate) fn dead(&self) -> Vec<Letter> {
        let mut dead = Vec::new();
        for broker in 0..BROKERS {
            let letters = QueueKey { topic: GROUP.dead_letters(), queue: QueueId(broker) };
            for (_, record, _) in records(self.worlds[broker as usize].running(NODE), letters, 0) {
                let facts = facts_of(&record).expect("a letter says where it came from");
                let topic = self.topics.iter().find(|(_, (name, _))| *name == facts.topic);
                let (topic, _) = topic.expect("it came from a topic that is there");
                let queue = QueueKey { topic: TopicId(*topic), queue: facts.queue };
                let (offset, deliveries) = (facts.offset.0, facts.deliveries);
                dead.push(Letter { queue, offset, deliveries, reason: facts.reason });
            }
        }
        dead
    }

    /// Ends all of it.
    pub(crate) async fn end(mut self) {
        for broker in 0..BROKERS {
            self.town.leave(broker);
            self.world(broker).kill(NODE).await;
        }
    }
}
