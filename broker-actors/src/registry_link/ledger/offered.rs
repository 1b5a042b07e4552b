//! What is offered to a registry that may not know it. Its answer, and then its routes, say what becomes
//! of it: until then nobody can say that there is no topic of such a name. Pure.

use std::sync::Arc;

use grus_protocol::error::ErrorReply;
use grus_protocol::ids::TopicId;
use grus_protocol::names::TopicName;
use grus_registry::command::AdoptTopic;

use super::{Action, Ledger, TAKEN_TICKS};

impl<W> Ledger<W> {
    /// The shards hold these topics, which the registry that speaks may not know: they are offered to it.
    pub fn offering(&mut self, offers: &[Vec<AdoptTopic>]) -> Vec<Action<W>> {
        let all = offers.iter().flatten().map(|topic| (topic.id, topic.name.clone()));
        self.offered.extend(all.filter(|(id, _)| !self.deleted.contains(id)));
        self.tell_awaited();
        vec![Action::Publish]
    }

    /// The shards' data belongs to the registry that speaks now: it was offered `offered`, and has not
    /// taken `refused`. A table that lacks what it has taken is older than its answer.
    pub fn settle(&mut self, offered: Vec<TopicId>, refused: Vec<TopicId>) -> Vec<Action<W>> {
        self.home.registry = self.table.registry;
        self.home.version = self.table.version;
        self.home.refused.extend(refused);
        let (table, refused) = (&self.table, self.home.refused.clone());
        let is_taken = |id: &TopicId| table.by_id(*id).is_none() && !refused.contains(id);
        self.taken.extend(offered.into_iter().filter(is_taken).map(|id| (id, TAKEN_TICKS)));
        self.fresh.extend(self.taken.keys());
        self.await_no_more(|id| refused.contains(id));
        vec![Action::Publish]
    }

    /// Some time has passed: what failed is asked again.
    pub fn tick(&mut self) -> Vec<Action<W>> {
        let (mut actions, mut over) = (Vec::new(), Vec::new());
        let fresh = &mut self.fresh;
        self.taken.retain(|id, left| {
            *left -= 1;
            let is_over = *left == 0 && fresh.remove(id); // deleted before its routes came
            over.extend(Some(*id).filter(|_| is_over));
            !is_over && fresh.contains(id)
        });
        if self.await_no_more(|id| over.contains(id)) {
            actions.push(Action::Publish);
        }
        // A member that follows says whether the one that leads has done it.
        let has_leader = |shard| matches!(self.followed.get(shard), Some(Some(_)));
        let asked =
            self.home.drops.iter().filter(|(at, _)| self.own.contains(at) || has_leader(at));
        actions.extend(asked.map(|(shard, id)| Action::Drop(*shard, *id)));
        let failed = std::mem::take(&mut self.failed);
        let again: Vec<_> = failed.iter().filter_map(|id| self.table.by_id(*id).cloned()).collect();
        for topic in again {
            self.want(&topic);
        }
        self.go_on(&mut actions);
        actions
    }

    /// What is said now to one who asks for a topic that is offered and that the registry has not told of:
    /// made anew, it would take the name of what the shards hold.
    #[must_use]
    pub fn awaited(&self, name: &TopicName) -> Option<ErrorReply> {
        let is_known = self.routes.get(name).is_some() || self.in_table(name).is_some();
        let is_awaited = !is_known && self.routes.awaited.contains(name);
        is_awaited.then(|| self.routes.no_topic(name))
    }

    /// Those of them are awaited no more; whether there were any.
    pub(super) fn await_no_more(&mut self, is_over: impl Fn(&TopicId) -> bool) -> bool {
        let before = self.offered.len();
        self.offered.retain(|id, _| !is_over(id));
        let were_any = self.offered.len() < before;
        if were_any {
            self.tell_awaited();
        }
        were_any
    }

    fn tell_awaited(&mut self) {
        self.routes.awaited = Arc::new(self.offered.values().cloned().collect());
    }
}
