//! How a member stops: in order, or all at once as it is dropped. No clock, no I/O.

use grus_protocol::Offset;
use grus_protocol::message::ACK_RANGES_MAX;

use super::broadcast::Broadcast;
use super::membership::MemberAsk;
use super::queue::OwnedQueue;
use super::settling::HandBack;
use super::state::{Change, ConsumerState, QueueAsk, QueueWord};
use crate::route::LinkId;

impl<P> ConsumerState<P> {
    /// It stops: nothing more is handed out, what is in work is waited for, so long at most.
    pub(crate) fn stop(&mut self, wait_ms_max: u64, now_ms: u64) {
        let by_ms = now_ms.saturating_add(wait_ms_max);
        self.stopping_by_ms = Some(by_ms);
        let mut revoked = Vec::new();
        for slot in self.queues.keys().copied().collect::<Vec<_>>() {
            let Some(queue) = self.queues.get_mut(&slot) else { continue };
            queue.comes_back = None;
            if queue.revoked_by_ms.is_none() {
                revoked.push((queue.topic.clone(), queue.place));
            }
            self.revoke(slot, by_ms);
        }
        self.tell(Change::Revoked, revoked);
        self.tick(now_ms);
    }

    /// Whether it has stopped, or cannot go on. The program is to hear a refusal first, and to take
    /// what was acked for it; but one that stops waits for it no longer than it said.
    pub(crate) fn is_over(&self, now_ms: u64) -> bool {
        let is_owed = match self.stopping_by_ms {
            Some(by_ms) => !self.leftovers.is_empty() && now_ms < by_ms,
            None => !self.leftovers.is_empty() || self.refused.is_some() || self.is_giving_up,
        };
        // Whoever hears that it has stopped may take its file; a disk that hangs is not waited for.
        let is_waited_for = self.stopping_by_ms.is_none_or(|by_ms| now_ms < by_ms);
        let is_writing =
            is_waited_for && self.broadcast.as_ref().is_some_and(Broadcast::is_writing);
        self.membership.is_over() && !is_owed && !is_writing
    }

    /// Its subscriptions that are to end, as it is dropped.
    pub(crate) fn abandon(&mut self) -> Vec<(LinkId, u64)> {
        let subscribed = |queue: &OwnedQueue<P>| queue.link.zip(queue.subscription());
        let mut left = std::mem::take(&mut self.leaving);
        left.extend(self.queues.values().filter_map(subscribed));
        left
    }

    /// What is not told yet, as it is dropped.
    pub(crate) fn abandon_acks(&mut self, now_ms: u64) -> Vec<QueueAsk> {
        let mut asks = Vec::new();
        if self.broadcast.is_some() {
            return asks; // its brokers know nothing of it
        }
        for queue in self.queues.values_mut().filter(|queue| queue.is_claimed()) {
            queue.hand_back(now_ms);
            queue.settling.hurry();
            let number = self.next_number + 1;
            if let (Some(link), Some(told)) = (queue.link, queue.settling.poll(number, now_ms)) {
                self.next_number = number;
                asks.push(QueueAsk { link, slot: queue.slot, number, what: QueueWord::Ack(told) });
            }
        }
        asks
    }

    /// Its word that it leaves, as it is dropped.
    pub(crate) fn abandon_membership(&mut self, now_ms: u64) -> Option<MemberAsk> {
        if self.membership.is_over() {
            return None;
        }
        self.membership.leave(now_ms);
        self.poll_member(now_ms)
    }
}

impl<P> OwnedQueue<P> {
    /// Whether the broker is to hear, before the queue goes, what of it nobody has seen.
    pub(crate) fn owes_hand_back(&self) -> bool {
        let is_owed = self.revoked_by_ms.is_some() && self.has_unseen && !self.is_handed_back;
        self.local.is_none() && self.is_claimed() && (is_owed || self.settling.is_handing_back())
    }

    /// Has the broker told what of it nobody has seen. What the program has answered for is told before, so
    /// nothing but what it still has counts: messages that were sent again lie far ahead of what was read
    /// for the first time.
    pub(crate) fn hand_back(&mut self, now_ms: u64) {
        if std::mem::replace(&mut self.is_handed_back, true) || !self.has_unseen {
            return;
        }
        let mut in_work: Vec<_> = self.taken().ranges().collect();
        let unseen_from = in_work.last().map_or(Offset(0), |range| range.to);
        in_work.truncate(ACK_RANGES_MAX);
        self.settling.hand_back(HandBack { unseen_from, in_work }, now_ms);
    }
}
