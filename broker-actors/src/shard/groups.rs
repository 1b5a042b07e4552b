//! The groups that a shard coordinates: their actors, and the table in which they are looked up.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use grus_consensus::Group;
use grus_log::Disk;
use grus_mailbox::{ActorSpec, Host, HostHandle, Inbox, Place, Stopped};
use grus_protocol::ids::{GroupId, QueueId, TopicId};
use grus_protocol::message::{GroupSettings, GroupSummary};
use grus_protocol::names::GroupName;
use grus_registry::RegistryRequest;

use super::Propose;
use super::ground::{Ground, ShardMachine};
use crate::consumer_group::records::{Head, decode};
use crate::consumer_group::{
    ASKS_MAX, Alarms, Awaken, ConsumerGroup, GroupHandle, GroupParts, GroupTable, KnownRoutes, Pace,
};
use crate::group_ties::GroupTableSender;
use crate::registry_link::routes::Routes;

/// What a group's actor is made of.
pub(super) struct GroupMaker<D: Disk> {
    pub(super) place: Place,
    pub(super) ground: Rc<Ground<D>>,
    pub(super) consensus: Group<ShardMachine, D>,
    pub(super) shard: Inbox<Propose>,
    pub(super) registry: Option<Inbox<RegistryRequest>>,
}

struct Living<D: Disk> {
    host: HostHandle<ConsumerGroup<D>>,
    awaken: Inbox<Awaken>,
}

/// See the module documentation.
pub(super) struct Groups<D: Disk> {
    maker: GroupMaker<D>,
    living: BTreeMap<GroupId, Living<D>>,
    table: GroupTableSender,
    routes: KnownRoutes,
    alarms: Alarms,
    pace: Rc<Pace>,
}

impl<D: Disk> Groups<D> {
    pub(super) fn new(maker: GroupMaker<D>, table: GroupTableSender) -> Self {
        Self {
            maker,
            living: BTreeMap::new(),
            table,
            routes: Rc::new(RefCell::new(None)),
            alarms: Alarms::default(),
            pace: Rc::default(),
        }
    }

    /// Starts what the state has and stops what it has not any more.
    pub(super) fn follow_state(&mut self) {
        let topics: Vec<TopicId> = {
            let machine = self.maker.ground.machine.borrow();
            machine.state.topics().map(|config| config.topic).collect()
        };
        let gone: Vec<_> = self.living.keys().map(|group| group.dead_letters()).collect();
        for topic in gone.into_iter().filter(|topic| !topics.contains(topic)).collect::<Vec<_>>() {
            self.follow(topic);
        }
        for topic in topics {
            self.follow(topic);
        }
    }

    /// The same for one topic: a group is coordinated where its first dead-letter queue is.
    pub(super) fn follow(&mut self, topic: TopicId) {
        let group = GroupId::of(topic);
        let name = {
            let machine = self.maker.ground.machine.borrow();
            let config = machine.state.topic(topic);
            let own = config.filter(|config| config.queues.contains(&QueueId(0)));
            let named = own.and_then(|config| GroupName::of_dead_letters(&config.name));
            named.filter(|name| !name.is_reserved())
        };
        match name {
            Some(name) if !self.living.contains_key(&group) => self.start(name, group),
            None => {
                if let Some(living) = self.living.remove(&group) {
                    drop(living.host.stop()); // nobody waits: it answers and goes
                    self.table.send_modify(|table| drop(Arc::make_mut(table).remove(&group)));
                }
            }
            Some(_) => {}
        }
    }

    fn start(&mut self, name: GroupName, group: GroupId) {
        let GroupMaker { place, ground, consensus, shard, registry } = &self.maker;
        let parts = Rc::new(GroupParts {
            name: name.clone(),
            group,
            ground: Rc::clone(ground),
            consensus: consensus.clone(),
            shard: shard.clone(),
            registry: registry.clone(),
            routes: Rc::clone(&self.routes),
            alarms: Rc::clone(&self.alarms),
            pace: Rc::clone(&self.pace),
        });
        let spec = ActorSpec::new("ConsumerGroup", name.to_string());
        let host = Host::spawn_local(place, spec, move || ConsumerGroup::new(Rc::clone(&parts)));
        let handle = Arc::new(GroupHandle { name, group, asks: host.inbox(ASKS_MAX) });
        let awaken = host.inbox::<Awaken>(1);
        self.living.insert(group, Living { host, awaken });
        self.table.send_modify(|table| drop(Arc::make_mut(table).insert(group, handle)));
    }

    /// The routes are these now.
    pub(super) fn routes_are(&mut self, routes: Arc<Routes>) {
        *self.routes.borrow_mut() = Some(routes);
        for living in self.living.values() {
            awaken(living);
        }
    }

    /// Some time has passed: awakens those whose time has come.
    pub(super) fn tick(&mut self, now_ms: u64) {
        if let Some(stalled_ms) = self.pace.tick(now_ms)
            && !self.living.is_empty()
        {
            tracing::warn!(stalled_ms, "nothing was done for a while: members get that much more");
        }
        loop {
            let mut alarms = self.alarms.borrow_mut();
            let Some((at_ms, group)) =
                alarms.first().copied().filter(|(at_ms, _)| *at_ms <= now_ms)
            else {
                break;
            };
            alarms.remove(&(at_ms, group));
            drop(alarms);
            if let Some(living) = self.living.get(&group) {
                awaken(living);
            }
        }
    }

    /// Stops them all; each resolves when its actor has stopped.
    pub(super) fn stop(&mut self) -> Vec<Stopped> {
        let all = std::mem::take(&mut self.living);
        self.table.send_replace(GroupTable::default());
        all.into_values().map(|living| living.host.stop()).collect()
    }

    /// All of them, in short, as the state has them.
    pub(super) fn summaries(&self) -> Vec<GroupSummary> {
        let machine = self.maker.ground.machine.borrow();
        let table = Arc::clone(&self.table.borrow());
        let groups = table.values().map(|handle| {
            let state = machine.state.group(handle.group);
            let head = state.and_then(|state| decode::<Head>(&state.head().bytes).ok());
            GroupSummary {
                group: handle.name.clone(),
                group_id: handle.group,
                settings: head.map_or_else(GroupSettings::default, |head| head.settings),
                generation: state.map(|state| state.head().generation).unwrap_or_default(),
                members: count(state.map_or(0, |state| state.members().count())),
                queues: count(state.map_or(0, |state| state.grants().count())),
            }
        });
        groups.collect()
    }
}

fn awaken<D: Disk>(living: &Living<D>) {
    // Full: one waits already, and looks at everything.
    let _ = living.awaken.try_put(Awaken);
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
