//! What the registry wants open, what the shards have opened, and who waits for it. Pure.
//!
//! The registry's table is what should be, the published routes are what is. The ledger compares
//! the two and says what to ask the shards; a topic is published once all its shards have opened
//! it. What fails is asked again at the next tick. Shards of other brokers are only named.
//!
//! What a shard holds is forgotten only when the registry that it belongs to ([`Home`]) says so: one
//! that lost its data, or another one, is offered what the shards hold instead.

mod leaders;
mod offered;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use grus_protocol::error::{ErrorCode, ErrorReply};
use grus_protocol::ids::{BrokerId, QueueId, ShardId, TopicId};
use grus_protocol::names::TopicName;
use grus_registry::{RoutingTable, TopicRoutes};

use crate::commands::TopicConfig;
use crate::error::QueueError;
use crate::registry_link::routes::{Leader, NO_SHARD, QueuePlace, Routes, TopicRoute};
use crate::topic_queue::QueueHandle;

/// How long a registry's routes may be behind its word that it has taken a topic, in ticks of a second.
const TAKEN_TICKS: u32 = 60;
/// Most topics asked for at once.
const OPENING_MAX: usize = 32;

/// What the shell carries out.
#[derive(Debug)]
pub enum Action<W> {
    /// Ask a shard to open a topic; answer with [`Ledger::opened`].
    Open(ShardId, TopicConfig),
    /// Ask a shard to forget a topic; answer with [`Ledger::dropped`].
    Drop(ShardId, TopicId),
    /// The routes have changed.
    Publish,
    /// Tell one who waited for a topic.
    Answer(W, Result<Arc<TopicRoute>, ErrorReply>),
}

/// The registry that the shards' data belongs to, as far as is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Home {
    /// Its number; 0: none yet.
    pub registry: u64,
    /// The version of its routes that was seen last.
    pub version: u64,
    /// Topics that were offered to it and not taken: they are never thrown away.
    pub refused: BTreeSet<TopicId>,
    /// Topics that were deleted, and the shards here that may have them still. One of several members
    /// is told by whoever leads it, which may be this broker only later.
    pub drops: BTreeSet<(ShardId, TopicId)>,
}

/// See the module documentation. `W` is whoever waits.
#[derive(Debug)]
pub struct Ledger<W> {
    broker: BrokerId,
    /// The shards whose queues are served here: those that this broker has alone, and those of several
    /// members that it leads.
    own: BTreeSet<ShardId>,
    /// Who leads the other ones that it is a member of, as their consensus says.
    followed: BTreeMap<ShardId, Option<BrokerId>>,
    /// The last reign of each of them here.
    reigns: BTreeMap<ShardId, u64>,
    home: Home,
    table: Arc<RoutingTable>,
    /// What is published.
    routes: Routes,
    /// What each published topic was opened as.
    opened: BTreeMap<TopicId, Arc<TopicRoutes>>,
    /// The newest shape of each topic that is to be opened.
    wanted: BTreeMap<TopicId, Arc<TopicRoutes>>,
    opening: BTreeMap<TopicId, Opening>,
    failed: BTreeSet<TopicId>,
    /// Deleted here, though the table may not say so yet. Their ids never come back.
    deleted: BTreeSet<TopicId>,
    /// Made just now, and in no table yet: one that lacks them is older than they are.
    fresh: BTreeSet<TopicId>,
    /// Those of them that a registry took, and how many ticks its routes may be behind.
    taken: BTreeMap<TopicId, u32>,
    /// What is offered to a registry that may not know it, until it is open or refused.
    offered: BTreeMap<TopicId, TopicName>,
    waiting: Vec<(W, Arc<TopicRoutes>)>,
}

#[derive(Debug)]
struct Opening {
    topic: Arc<TopicRoutes>,
    missing: BTreeSet<ShardId>,
    handles: BTreeMap<QueueId, Arc<QueueHandle>>,
    refused: Option<QueueError>,
}

impl<W> Ledger<W> {
    /// Of that broker. Begins with what is published; all of it is opened again, which changes nothing.
    #[must_use]
    pub fn new(broker: BrokerId, mut routes: Routes, own: BTreeSet<ShardId>, home: Home) -> Self {
        routes.awaited = Arc::default();
        Self {
            broker,
            own,
            followed: BTreeMap::new(),
            reigns: BTreeMap::new(),
            home,
            table: Arc::default(),
            routes,
            opened: BTreeMap::new(),
            wanted: BTreeMap::new(),
            opening: BTreeMap::new(),
            failed: BTreeSet::new(),
            deleted: BTreeSet::new(),
            fresh: BTreeSet::new(),
            taken: BTreeMap::new(),
            offered: BTreeMap::new(),
            waiting: Vec::new(),
        }
    }

    /// What is published.
    #[must_use]
    pub fn routes(&self) -> &Routes {
        &self.routes
    }

    /// What the registry says.
    #[must_use]
    pub fn table(&self) -> &Arc<RoutingTable> {
        &self.table
    }

    /// The registry that the shards' data belongs to.
    #[must_use]
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// Whether the registry that speaks is the one that the shards' data belongs to.
    #[must_use]
    pub fn is_home(&self) -> bool {
        self.table.registry != 0 && self.table.registry == self.home.registry
    }

    /// What the registry says of a topic.
    #[must_use]
    pub fn in_table(&self, name: &TopicName) -> Option<&Arc<TopicRoutes>> {
        self.table.topics.get(name).filter(|topic| !self.deleted.contains(&topic.id))
    }

    /// Whether nothing is left to open that has not failed, and nothing that was offered.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let is_over = |id: &TopicId| self.opened.contains_key(id) || self.failed.contains(id);
        self.wanted.is_empty() && self.opening.is_empty() && self.offered.keys().all(is_over)
    }

    /// The registry's table is `table` now.
    pub fn table_changed(&mut self, table: Arc<RoutingTable>) -> Vec<Action<W>> {
        let mut actions = Vec::new();
        if table.registry == self.home.registry {
            if table.version < self.home.version {
                // Restored from an older copy: what it does not know may be there all the same.
                self.home.registry = 0;
            } else {
                self.home.version = table.version;
            }
        }
        let is_believed = table.registry != 0 && table.registry == self.home.registry;
        for (id, (name, was_there)) in self.gone_in(&table) {
            if is_believed && !self.fresh.contains(&id) {
                self.forget(&name, id, was_there, &mut actions);
            }
        }
        let moved = self.table.brokers != table.brokers || self.table.shards != table.shards;
        let ids: BTreeSet<_> = table.topics.values().map(|topic| topic.id).collect();
        self.fresh.retain(|id| !ids.contains(id));
        let (wanted, opening) = (&self.wanted, &self.opening);
        let is_on_its_way = |id: &TopicId| wanted.contains_key(id) || opening.contains_key(id);
        self.deleted.retain(|id| ids.contains(id) || is_on_its_way(id));
        // The registry came out of an older copy, or was told of it again: it is there after all.
        let deleted = &self.deleted;
        self.home.drops.retain(|(_, id)| !ids.contains(id) || deleted.contains(id));
        self.table = table;
        let topics: Vec<_> = self.table.topics.values().cloned().collect();
        for topic in topics {
            self.want(&topic);
        }
        self.routes.version = self.routes.version.max(self.table.version);
        if moved {
            self.find_leaders(&mut actions);
        }
        self.go_on(&mut actions);
        actions
    }

    /// Has `waiter` told once `topic` is open, or cannot be opened now.
    pub fn wait_for(&mut self, topic: Arc<TopicRoutes>, waiter: W) -> Vec<Action<W>> {
        if let Some(route) = self.open_route(&topic) {
            return vec![Action::Answer(waiter, Ok(route))];
        }
        let mut actions = Vec::new();
        if self.table.topics.get(&topic.name).is_none_or(|known| known.id != topic.id) {
            self.fresh.insert(topic.id);
        }
        self.want(&topic);
        self.waiting.push((waiter, topic));
        self.go_on(&mut actions);
        actions
    }

    /// A shard has opened its queues of a topic, or could not.
    pub fn opened(
        &mut self,
        shard: ShardId,
        id: TopicId,
        result: Result<Vec<Arc<QueueHandle>>, QueueError>,
    ) -> Vec<Action<W>> {
        let mut actions = Vec::new();
        let Some(opening) = self.opening.get_mut(&id) else { return actions };
        if !opening.missing.remove(&shard) {
            return actions;
        }
        match result {
            Ok(handles) => {
                opening.handles.extend(handles.into_iter().map(|queue| (queue.key.queue, queue)));
            }
            Err(error) => opening.refused = Some(error),
        }
        if opening.missing.is_empty()
            && let Some(opening) = self.opening.remove(&id)
        {
            self.finish(opening, &mut actions);
        }
        self.go_on(&mut actions);
        actions
    }

    /// The topic was deleted in the registry.
    pub fn topic_deleted(&mut self, name: &TopicName, id: TopicId) -> Vec<Action<W>> {
        let mut actions = Vec::new();
        self.deleted.insert(id);
        self.fresh.remove(&id);
        self.forget(name, id, true, &mut actions);
        self.go_on(&mut actions);
        actions
    }

    /// A shard's own log knows these topics. Those that the registry does not know were deleted
    /// while the shard could not be told. Only a registry that the data belongs to is believed.
    pub fn shard_lists(&mut self, shard: ShardId, ids: &[TopicId]) -> Vec<Action<W>> {
        if !self.is_home() {
            return Vec::new();
        }
        let known: BTreeSet<_> = self.table.topics.values().map(|topic| topic.id).collect();
        let refused = &self.home.refused;
        let kept =
            |id: &TopicId| known.contains(id) || refused.contains(id) || self.fresh.contains(id);
        let orphans: Vec<_> = ids.iter().filter(|id| !kept(id)).copied().collect();
        self.home.drops.extend(orphans.iter().map(|id| (shard, *id)));
        orphans.into_iter().map(|id| Action::Drop(shard, id)).collect()
    }

    /// The shards hold topics that are not known, and no registry can be asked: they are opened.
    pub fn open_found(&mut self, topics: Vec<Arc<TopicRoutes>>) -> Vec<Action<W>> {
        let mut actions = Vec::new();
        for topic in topics {
            self.want(&topic);
        }
        self.go_on(&mut actions);
        actions
    }

    /// A shard has forgotten a topic, or could not.
    pub fn dropped(&mut self, shard: ShardId, id: TopicId, done: bool) {
        if done {
            self.home.drops.remove(&(shard, id));
        }
    }

    fn open_route(&self, topic: &Arc<TopicRoutes>) -> Option<Arc<TopicRoute>> {
        let opened = self.opened.get(&topic.id)?;
        let covers = opened.queues.len() >= topic.queues.len() && **opened == **topic;
        covers.then(|| self.routes.get(&topic.name).cloned()).flatten()
    }

    fn want(&mut self, topic: &Arc<TopicRoutes>) {
        let known = self.opened.get(&topic.id).is_some_and(|opened| **opened == **topic);
        let under_way = self.opening.get(&topic.id).is_some_and(|at| *at.topic == **topic);
        if !known && !under_way && !self.deleted.contains(&topic.id) {
            self.wanted.insert(topic.id, Arc::clone(topic));
        }
    }

    /// Begins to open what is wanted, as much as may be under way.
    fn go_on(&mut self, actions: &mut Vec<Action<W>>) {
        while self.opening.len() < OPENING_MAX {
            // An older shape of the same topic may be under way: one after the other.
            let next = self.wanted.keys().find(|id| !self.opening.contains_key(id)).copied();
            let Some(topic) = next.and_then(|id| self.wanted.remove(&id)) else { break };
            if self.deleted.contains(&topic.id) {
                self.answer_waiting(&topic, &Err(gone(&topic)), actions);
            } else {
                self.begin(&topic, actions);
            }
        }
    }

    fn begin(&mut self, topic: &Arc<TopicRoutes>, actions: &mut Vec<Action<W>>) {
        let last = topic.queues.iter().filter_map(|spans| spans.last()).map(|span| span.shard);
        let shards: BTreeSet<_> = last.filter(|shard| self.own.contains(shard)).collect();
        for shard in &shards {
            actions.push(Action::Open(*shard, config_for(topic, *shard)));
        }
        let opening = Opening {
            topic: Arc::clone(topic),
            missing: shards,
            handles: BTreeMap::new(),
            refused: None,
        };
        if opening.missing.is_empty() {
            return self.finish(opening, actions); // all of it is elsewhere
        }
        self.opening.insert(topic.id, opening);
    }

    fn finish(&mut self, opening: Opening, actions: &mut Vec<Action<W>>) {
        let topic = opening.topic;
        if self.deleted.contains(&topic.id) {
            self.answer_waiting(&topic, &Err(gone(&topic)), actions);
            self.drop_in_shards(&topic, true, actions);
            return;
        }
        if let Some(error) = opening.refused {
            tracing::warn!(topic = %topic.name, %error, "topic cannot be opened now");
            self.failed.insert(topic.id);
            self.answer_waiting(&topic, &Err(error.to_reply()), actions);
            return;
        }
        let places = (0..).zip(&topic.queues).map(|(queue, spans)| {
            let shard = spans.last().map_or(NO_SHARD, |span| span.shard);
            let leader = self.leader(shard);
            let handle = opening.handles.get(&QueueId(queue)).cloned();
            let handle = handle.filter(|_| leader == Leader::Here);
            QueuePlace { shard, handle, leader }
        });
        self.routes.put(TopicRoute {
            name: topic.name.clone(),
            id: topic.id,
            settings: topic.settings.clone(),
            created: topic.created,
            queues: places.collect(),
        });
        self.routes.version += 1;
        self.opened.insert(topic.id, Arc::clone(&topic));
        self.await_no_more(|id| *id == topic.id);
        actions.push(Action::Publish);
        if let Some(route) = self.routes.get(&topic.name).cloned() {
            self.answer_waiting(&topic, &Ok(route), actions);
        }
    }

    /// Tells all who wait for this shape of the topic or an earlier one.
    fn answer_waiting(
        &mut self,
        topic: &Arc<TopicRoutes>,
        answer: &Result<Arc<TopicRoute>, ErrorReply>,
        actions: &mut Vec<Action<W>>,
    ) {
        let waiting = std::mem::take(&mut self.waiting);
        for (waiter, wanted) in waiting {
            if wanted.id == topic.id
                && (answer.is_err() || wanted.queues.len() <= topic.queues.len())
            {
                actions.push(Action::Answer(waiter, answer.clone()));
            } else {
                self.waiting.push((waiter, wanted));
            }
        }
    }

    /// The topic is gone; `is_deleted` when that is known, and not only that nobody knows it.
    fn forget(
        &mut self,
        name: &TopicName,
        id: TopicId,
        is_deleted: bool,
        actions: &mut Vec<Action<W>>,
    ) {
        self.failed.remove(&id);
        let was_awaited = self.await_no_more(|awaited| *awaited == id);
        let is_published = self.routes.get(name).is_some_and(|route| route.id == id);
        if is_published {
            self.routes.remove(name);
            self.routes.version += 1;
        }
        if is_published || was_awaited {
            actions.push(Action::Publish);
        }
        let wanted = self.wanted.get(&id).cloned();
        if is_deleted && (wanted.is_some() || self.opening.contains_key(&id)) {
            self.deleted.insert(id); // it is not published, and dropped behind its opening
        }
        if let Some(topic) = self.opened.remove(&id).or(wanted) {
            self.drop_in_shards(&topic, is_deleted, actions);
        }
    }

    /// Topics that were known and that `newest` lacks; whether the same registry had them before.
    fn gone_in(&self, newest: &RoutingTable) -> BTreeMap<TopicId, (TopicName, bool)> {
        let is_same = self.table.registry == newest.registry;
        let published = self.routes.topics().map(|topic| (topic.id, &topic.name, false));
        let told = self.table.topics.values().filter(|_| is_same);
        let told = told.map(|topic| (topic.id, &topic.name, true));
        let is_live = |name: &TopicName, id| newest.topics.get(name).is_some_and(|at| at.id == id);
        let gone = published.chain(told).filter(|(id, name, _)| !is_live(name, *id));
        gone.map(|(id, name, was_there)| (id, (name.clone(), was_there))).collect()
    }

    /// Has the shards here forget a topic. Those of several members only if it was deleted for certain:
    /// a registry without its data may have heard of it from none of them yet.
    fn drop_in_shards(
        &mut self,
        topic: &TopicRoutes,
        is_deleted: bool,
        actions: &mut Vec<Action<W>>,
    ) {
        if self.home.refused.contains(&topic.id) {
            return;
        }
        let spans = topic.queues.iter().flatten().map(|span| span.shard);
        let may_drop = |shard: &ShardId| {
            let place = self.table.shards.get(shard).filter(|place| place.is_replicated());
            let is_member = place.is_some_and(|place| place.is_on(self.broker));
            let is_own = self.own.contains(shard);
            if is_deleted { is_member || is_own } else { is_own && place.is_none() }
        };
        let shards: BTreeSet<_> = spans.filter(may_drop).collect();
        for shard in shards {
            self.home.drops.insert((shard, topic.id));
            if self.own.contains(&shard) {
                actions.push(Action::Drop(shard, topic.id));
            }
        }
    }
}

fn config_for(topic: &TopicRoutes, shard: ShardId) -> TopicConfig {
    TopicConfig {
        topic: topic.id,
        name: topic.name.clone(),
        queues: topic.queues_on(shard),
        durability: topic.settings.durability.of_shards(),
        retention_ms: topic.settings.retention_ms,
        retention_bytes: topic.settings.retention_bytes,
        kind: topic.settings.kind.number(),
        dedup_window_ms: topic.settings.dedup_window_ms,
        expired: topic.settings.expired,
        retention_messages: topic.settings.retention_messages,
        when_full: topic.settings.when_full,
        altered: topic.altered,
    }
}

fn gone(topic: &TopicRoutes) -> ErrorReply {
    ErrorReply::new(ErrorCode::UnknownTopic, format!("topic {} was deleted", topic.name))
}

#[cfg(test)]
mod leader_tests;
#[cfg(test)]
mod tests;
