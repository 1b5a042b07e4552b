//! What a queue counts of what it does for groups, for whoever looks at metrics.

use grus_log::Disk;
use grus_protocol::ids::GroupId;

use super::sifting::Marks;
use super::subscription::SubscriptionKey;
use super::{Fetched, QueueError, TopicQueue};
use crate::commands::groups::{Holding, Span};

impl<D: Disk> TopicQueue<D> {
    /// Batches are sent to a member: messages of them that are not for it do not count.
    pub(super) fn count_sent(&self, key: SubscriptionKey, fetched: &Fetched, marks: &Marks) {
        let Some(one) = self.groups.get(&key) else { return };
        let length = |span: &Span| span.to.0.saturating_sub(span.from.0);
        let messages: u64 = fetched.batches.iter().map(|batch| u64::from(batch.count)).sum();
        let skipped: u64 = marks.skipped.iter().map(length).sum();
        let again: u64 = marks.again.iter().map(|again| length(&again.span)).sum();
        let mut tallies = self.parts.ground.tallies.borrow_mut();
        let tally = tallies.of(one.holding.place.group);
        tally.deliveries += messages.saturating_sub(skipped);
        tally.redeliveries += again;
    }

    /// So many messages were handled in vain.
    pub(super) fn count_nacks(&self, group: GroupId, count: usize) {
        if count > 0 {
            self.parts.ground.tallies.borrow_mut().of(group).nacks += count as u64;
        }
    }

    /// A member was refused: counted if that is because it does not hold the queue.
    pub(super) fn count_refused(&self, group: GroupId, error: &QueueError) {
        if matches!(error, QueueError::NotHeld { .. }) {
            self.parts.ground.tallies.borrow_mut().of(group).fenced += 1;
        }
    }

    /// A claim that will be refused, as far as is known now, is counted.
    pub(super) fn count_claim(&self, holding: &Holding) {
        let machine = self.parts.ground.machine.borrow();
        let Some(held) = machine.state.progress(holding.place) else { return };
        let known = (held.numbers().generation, held.numbers().member);
        let is_same = known == (holding.generation, holding.member);
        if !is_same && holding.generation <= known.0 {
            self.parts.ground.tallies.borrow_mut().of(holding.place.group).fenced += 1;
        }
    }
}
