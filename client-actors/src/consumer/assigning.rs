//! Queues that come to a member and go from it. No clock, no I/O.

use std::collections::{BTreeSet, HashMap};

use grus_protocol::TopicName;
use grus_protocol::message::{
    AssignedQueue, GroupSubscription, MessageFilter, QueuePlace, subscription_of,
};

use super::broadcast::Broadcast;
use super::local::LocalRetries;
use super::queue::{OwnedQueue, Phase};
use super::routing::link_of;
use super::state::{Change, ConsumerState, Way};
use crate::backoff::Backoff;
use crate::route::Ask as AskRoute;

impl<P> ConsumerState<P> {
    pub(super) fn lose_all(&mut self) {
        let slots: Vec<_> = self.queues.keys().copied().collect();
        let mut lost = Vec::new();
        for slot in slots {
            lost.extend(self.remove(slot));
        }
        self.forget_ways();
        self.tell(Change::Lost, lost);
    }

    /// Forgets the ways to topics that it has no queues of any more.
    fn forget_ways(&mut self) {
        let topics: BTreeSet<_> = self.queues.values().map(|queue| &queue.topic).collect();
        self.ways.retain(|topic, _| topics.contains(topic));
    }

    /// Forgets a queue; whoever waits for its broker's word hears that it does not come.
    pub(super) fn remove(&mut self, slot: u64) -> Option<(TopicName, QueuePlace)> {
        let mut queue = self.queues.remove(&slot)?;
        self.slots.remove(&queue.place);
        if let Some(number) = queue.subscription() {
            self.live.remove(&number);
            self.leaving.extend(queue.link.map(|link| (link, number)));
        }
        self.leftovers.extend(queue.leftovers());
        drop(queue.lose());
        Some((queue.topic, queue.place))
    }

    pub(super) fn assigned(&mut self, assigned: Vec<AssignedQueue>, now_ms: u64) {
        let of =
            |queue: &AssignedQueue| QueuePlace { topic_id: queue.topic_id, queue: queue.queue };
        let now: HashMap<_, _> = assigned.iter().map(|one| (of(one), one.generation)).collect();
        let (mut fenced, mut revoked, mut new) = (Vec::new(), Vec::new(), Vec::new());
        let known: Vec<_> = self.queues.iter().map(|(slot, queue)| (*slot, queue.place)).collect();
        for (slot, place) in known {
            let Some(queue) = self.queues.get_mut(&slot) else { continue };
            let granted = now.get(&place).copied();
            let is_same = granted == Some(queue.generation);
            if self.stopping_by_ms.is_some() || (is_same && queue.revoked_by_ms.is_none()) {
                continue;
            }
            if queue.phase == Phase::Fenced {
                fenced.extend(self.remove(slot)); // its loss was told before
                continue;
            }
            // What comes back, too, is first let go of, and begins anew then.
            queue.comes_back = granted;
            if queue.revoked_by_ms.is_none() {
                self.revoke(slot, now_ms + self.settings.revoke_ms_max);
                revoked.extend(self.queues.get(&slot).map(|gone| (gone.topic.clone(), place)));
            }
        }
        for queue in assigned {
            let place = of(&queue);
            if !self.slots.contains_key(&place) && self.stopping_by_ms.is_none() {
                new.push((queue.topic.clone(), place));
                self.begin(queue, place);
            }
        }
        if let Some(own) = &mut self.broadcast {
            own.has_begun();
        }
        self.tell(Change::Revoked, revoked);
        self.tell(Change::Assigned, new);
        self.release(now_ms);
    }

    /// Nothing more of a queue is handed out.
    pub(super) fn revoke(&mut self, slot: u64, by_ms: u64) {
        let Some(queue) = self.queues.get_mut(&slot) else { return };
        self.leaving.extend(queue.link.zip(queue.subscription()));
        if let Some(number) = queue.subscription() {
            self.live.remove(&number);
            queue.phase = Phase::Claimed;
        }
        queue.revoke(by_ms);
        self.look.insert(slot);
    }

    pub(super) fn begin(&mut self, queue: AssignedQueue, place: QueuePlace) {
        let slot = self.next_slot;
        self.next_slot += 1;
        let filter = filter_of(&self.subscriptions, &queue.topic);
        let seed = self.jitter.next();
        let way = self.ways.entry(queue.topic.clone()).or_insert_with(|| Way {
            ask: AskRoute::NotBefore(0),
            route: None,
            backoff: Backoff::new(20, 1_000, seed),
        });
        let link = way.route.as_ref().and_then(|route| link_of(route, place));
        let acks_before = self.settings.acks_before;
        let mut owned = OwnedQueue::new(slot, queue, filter, (acks_before, self.jitter.next()));
        owned.local = self.broadcast.as_ref().map(|_| LocalRetries::default());
        let is_first = self.broadcast.as_ref().is_some_and(Broadcast::is_first);
        owned.at_end_by = is_first.then_some(0);
        owned.link = link;
        if owned.link.is_none() {
            way.ask.want();
        }
        self.queues.insert(slot, owned);
        self.slots.insert(place, slot);
        self.look.insert(slot);
    }

    /// Lets go of what is to go and is not in work any more.
    pub(super) fn release(&mut self, now_ms: u64) {
        let is_up = |queue: &OwnedQueue<P>| queue.link.is_some_and(|link| self.up.contains(&link));
        let over = |queue: &OwnedQueue<P>| {
            let is_done = queue.is_drained() && !(queue.owes_hand_back() && is_up(queue));
            queue.revoked_by_ms.is_some_and(|by_ms| is_done || by_ms <= now_ms)
        };
        let slots: Vec<_> =
            self.queues.iter().filter(|(_, queue)| over(queue)).map(|(slot, _)| *slot).collect();
        if slots.is_empty() {
            return;
        }
        let (mut lost, mut new) = (Vec::new(), Vec::new());
        for slot in slots {
            let Some(queue) = self.queues.get(&slot) else { continue };
            let (was_in_work, comes_back) = (!queue.is_drained(), queue.comes_back);
            let gone = self.remove(slot);
            if let (Some(generation), Some((topic, place))) = (comes_back, gone.clone()) {
                let QueuePlace { topic_id, queue } = place;
                let queue = AssignedQueue { topic, topic_id, queue, generation };
                new.extend(gone.clone());
                self.begin(queue, place);
            }
            lost.extend(gone.filter(|_| was_in_work));
        }
        self.forget_ways();
        self.tell(Change::Lost, lost);
        self.tell(Change::Assigned, new);
        self.membership.tell();
    }
}

/// The filter that counts for a topic.
pub(super) fn filter_of(subscriptions: &[GroupSubscription], topic: &TopicName) -> MessageFilter {
    subscription_of(subscriptions, topic).map_or(MessageFilter::All, |one| one.filter.clone())
}
