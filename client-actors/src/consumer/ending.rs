//! How a member stops: in order, or all at once as it is dropped. No clock, no I/O.

use super::membership::MemberAsk;
use super::queue::OwnedQueue;
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

    /// Whether it has stopped, or cannot go on.
    pub(crate) fn is_over(&self) -> bool {
        self.membership.is_over() && self.leftovers.is_empty()
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
        self.membership.leave();
        self.poll_member(now_ms)
    }
}
