//! Whose each queue is to be, and what follows from it.

use std::collections::BTreeSet;

use grus_protocol::ids::{Generation, MemberId, QueueKey, TopicId};
use grus_protocol::message::GroupStrategy;

use super::super::field::Field;
use super::super::strategy::{Target, divide};
use super::{Coordination, GATHER_MS, News, SIZE_PER_MS, UnderWay};
use crate::registry_link::routes::Routes;

/// Bytes of a queue that changes hands, in a change.
pub(super) const GRANT_BYTES: usize = 28;
/// Bytes of a member that goes, in a change.
pub(super) const GONE_BYTES: usize = 8;

/// Queues that change hands.
type Grants = Vec<(QueueKey, Option<MemberId>)>;

impl Coordination {
    /// The field may be another one: it is divided anew in a moment, so that members that start
    /// together are dealt with together.
    pub(super) fn want_rebalance(&mut self, now_ms: u64) {
        let size = self.book.members().len() + self.target.len();
        let wait_ms = GATHER_MS + u64::try_from(size / SIZE_PER_MS).unwrap_or(u64::MAX);
        self.rebalance_at_ms.get_or_insert(now_ms + wait_ms);
    }

    /// Queues that change hands: by a rebalance when its time has come, and those let go of.
    pub(super) fn change_of_queues(&mut self, now_ms: u64) -> Option<UnderWay> {
        let mut under_way = UnderWay { change: self.begun(), ..UnderWay::default() };
        let is_time = self.rebalance_at_ms.is_some_and(|at_ms| at_ms <= now_ms);
        let divided = self.routes.clone().filter(|_| is_time).and_then(|routes| {
            self.rebalance_at_ms = None;
            let (field, target) = self.division(&routes, now_ms)?;
            Some((routes, field, target))
        });
        if let Some((routes, field, target)) = divided {
            under_way.change.grants = self.grants(&routes, &target);
            // Who has no queues to let go of is told all the same of what else there is.
            let is_told = !self.told_otherwise(&field).is_empty();
            if under_way.change.grants.is_empty() && !self.revokes(&target) && !is_told {
                self.divided_alike(field, target);
                return None;
            }
            under_way.division = Some((field, target));
        } else if self.let_go.is_empty() {
            return None;
        } else {
            under_way.change.grants = self.grants_of_let_go(&self.target);
        }
        // The others with the next change.
        let most = (self.change_bytes_max / GRANT_BYTES).max(1);
        under_way.is_part = under_way.change.grants.len() > most;
        under_way.change.grants.truncate(most);
        Some(under_way)
    }

    /// Members of a broadcast group that have other queues by this field than before. The others are
    /// told nothing: of very many, that would be very much.
    fn told_otherwise(&self, field: &Field) -> BTreeSet<MemberId> {
        if !self.is_broadcast() {
            return BTreeSet::new();
        }
        let mut members = field.members_with_others_than(&self.field);
        members.retain(|member| self.book.members().contains_key(member));
        members
    }

    /// The field and whose each queue is to be; none while a member is asked to divide it.
    fn division(&mut self, routes: &Routes, now_ms: u64) -> Option<(Field, Target)> {
        let members = self.book.members().iter();
        let members = members.map(|(id, record)| (*id, &*record.subscriptions));
        let field = Field::of((&self.name, self.group), members, routes);
        if self.is_broadcast() {
            return Some((field, Target::new()));
        }
        if self.settings().strategy == GroupStrategy::Own {
            return self.own_division(&field, now_ms).map(|target| (field, target));
        }
        let owner = |queue| self.book.grants().get(&queue).map(|grant| grant.member);
        let target = divide(self.settings().strategy, &field, owner);
        Some((field, target))
    }

    /// What can change hands at once: queues that nobody has or that were let go of, and those
    /// that are no more.
    fn grants(&self, routes: &Routes, target: &Target) -> Grants {
        let mut grants = self.grants_of_let_go(target);
        let free = target.iter().filter(|(queue, _)| !self.book.grants().contains_key(queue));
        grants.extend(free.map(|(queue, member)| (*queue, Some(*member))));
        let held: BTreeSet<TopicId> = self.book.grants().keys().map(|queue| queue.topic).collect();
        let there: BTreeSet<TopicId> =
            routes.topics().map(|topic| topic.id).filter(|id| held.contains(id)).collect();
        let gone = self.book.grants().keys().filter(|queue| !there.contains(&queue.topic));
        let gone = gone.filter(|queue| !self.let_go.contains(queue));
        grants.extend(gone.map(|queue| (*queue, None)));
        grants
    }

    fn grants_of_let_go(&self, target: &Target) -> Grants {
        let next = |queue: &QueueKey| {
            let next = target.get(queue).copied();
            next.filter(|member| self.book.members().contains_key(member))
        };
        self.let_go.iter().map(|queue| (*queue, next(queue))).collect()
    }

    /// Whether a member has to let go of something that it may have kept before, or the other
    /// way round.
    fn revokes(&self, target: &Target) -> bool {
        self.book.grants().iter().any(|(queue, grant)| {
            let stays = target.get(queue) == Some(&grant.member);
            let presence = self.presences.get(&grant.member);
            let is_revoked = presence.is_some_and(|one| one.revoked.contains_key(queue));
            stays == is_revoked
        })
    }

    /// A rebalance changes nothing for anybody.
    fn divided_alike(&mut self, field: Field, target: Target) {
        (self.field, self.target) = (field, target);
        if !std::mem::replace(&mut self.is_divided, true) {
            // Heartbeats have waited for that.
            self.news.extend(self.book.members().keys().map(|member| News::Changed(*member)));
        }
    }

    /// A rebalance is written: whoever has a queue that is to be another's has to let go of it.
    pub(super) fn divided(
        &mut self,
        field: Field,
        target: Target,
        generation: Generation,
        changed: &mut BTreeSet<MemberId>,
    ) {
        changed.extend(self.told_otherwise(&field));
        self.divided_alike(field, target);
        for (queue, grant) in self.book.grants() {
            let Some(presence) = self.presences.get_mut(&grant.member) else { continue };
            let stays = self.target.get(queue) == Some(&grant.member);
            if stays && presence.revoked.remove(queue).is_some() {
                self.let_go.remove(queue); // it is told that it has it still
                changed.insert(grant.member);
            } else if !stays && !presence.revoked.contains_key(queue) {
                presence.revoked.insert(*queue, generation);
                changed.insert(grant.member);
            }
        }
    }
}
