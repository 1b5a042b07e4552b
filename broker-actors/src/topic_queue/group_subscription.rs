//! What a queue knows of a subscription that a group's member has. Pure.

use std::collections::BTreeSet;

use grus_protocol::ids::{Offset, TimestampMs};
use grus_protocol::message::MessageFilter;

use super::sifting::push;
use crate::commands::groups::{Delivered, GroupItem, Holding, Span};

/// What is noted of deliveries is proposed at once when there is so much of it.
const NOTED_MAX: usize = 1_024;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct GroupSubscription {
    /// By what it is served.
    pub(super) holding: Holding,
    /// What the member wants.
    pub(super) filter: MessageFilter,
    /// Retries that were in the member's hands when it subscribed: it may have lost them.
    pub(super) owed: BTreeSet<Offset>,
    /// Retries that were sent, and whose deliveries are not applied yet.
    pub(super) sent: BTreeSet<Offset>,
    /// Dead letters are under way: what comes next waits for them.
    pub(super) is_burying: bool,
    /// They could not be stored, and are tried again then.
    pub(super) bury_again: Option<TimestampMs>,
    /// The last turn sent retries, so the next one is for what lies ahead.
    pub(super) was_retries: bool,
    /// Deliveries that were not proposed yet.
    end: Option<Offset>,
    passed: Vec<Span>,
    again: Vec<Offset>,
}

impl GroupSubscription {
    pub(super) fn new(holding: Holding, filter: MessageFilter, owed: BTreeSet<Offset>) -> Self {
        Self {
            holding,
            filter,
            owed,
            sent: BTreeSet::new(),
            is_burying: false,
            bury_again: None,
            was_retries: false,
            end: None,
            passed: Vec::new(),
            again: Vec::new(),
        }
    }

    /// The first retry that is owed is one that a member should have: others are over.
    pub(super) fn owe_only(&mut self, mut is_owed: impl FnMut(Offset) -> bool) {
        while self.owed.first().is_some_and(|offset| !is_owed(*offset)) {
            self.owed.pop_first();
        }
    }

    /// All before `end` was sent or passed over.
    pub(super) fn delivered_to(&mut self, end: Offset, passed: &[Span]) {
        self.end = Some(self.end.map_or(end, |before| before.max(end)));
        for span in passed {
            push(&mut self.passed, span.from.0, span.to.0);
        }
    }

    /// Retries were sent.
    pub(super) fn delivered_again(&mut self, offsets: &[Offset]) {
        for offset in offsets {
            self.owed.remove(offset);
            self.sent.insert(*offset);
            self.again.push(*offset);
        }
    }

    /// Whether deliveries were not proposed yet.
    pub(super) const fn has_noted(&self) -> bool {
        self.end.is_some() || !self.again.is_empty()
    }

    /// Whether they should be, now.
    pub(super) fn is_full(&self) -> bool {
        self.passed.len() + self.again.len() >= NOTED_MAX
    }

    /// What to propose of deliveries, and the retries among them.
    pub(super) fn take_noted(&mut self) -> Option<(GroupItem, Vec<Offset>)> {
        if !self.has_noted() {
            return None;
        }
        let (passed, again) = (std::mem::take(&mut self.passed), std::mem::take(&mut self.again));
        let end = self.end.take().unwrap_or(Offset(0));
        let delivered = Delivered { holding: self.holding, end, passed, again: again.clone() };
        Some((GroupItem::Delivered(delivered), again))
    }

    /// Deliveries of retries are applied, or will not be: the state tells from here on.
    pub(super) fn noted(&mut self, again: &[Offset]) {
        for offset in again {
            self.sent.remove(offset);
        }
    }
}

#[cfg(test)]
mod tests {
    use grus_protocol::ids::{Generation, GroupId, MemberId, QueueKey};

    use super::*;
    use crate::commands::groups::ProgressKey;

    #[test]
    fn deliveries_are_noted_until_they_are_taken_and_those_sent_until_they_are_applied() {
        let place = ProgressKey { queue: QueueKey::default(), group: GroupId(9) };
        let (generation, member) = (Generation(1), MemberId(1));
        let holding = Holding { place, generation, member, round: 0 };
        let owed = BTreeSet::from([Offset(3)]);
        let mut one = GroupSubscription::new(holding, MessageFilter::All, owed);
        assert!(!one.has_noted() && one.take_noted().is_none());
        let span = |from, to| Span { from: Offset(from), to: Offset(to) };
        one.delivered_to(Offset(10), &[span(4, 6)]);
        one.delivered_to(Offset(9), &[span(6, 7), span(8, 9)]);
        one.delivered_again(&[Offset(3), Offset(1)]);
        assert!(one.owed.is_empty() && one.sent.contains(&Offset(3)) && !one.is_full());
        let Some((GroupItem::Delivered(item), again)) = one.take_noted() else { panic!("noted") };
        assert_eq!((item.end, item.passed), (Offset(10), vec![span(4, 7), span(8, 9)]));
        assert_eq!(
            (&item.again, &again),
            (&vec![Offset(3), Offset(1)], &vec![Offset(3), Offset(1)])
        );
        assert!(!one.has_noted() && one.sent.len() == 2);
        one.noted(&again);
        assert!(one.sent.is_empty());
        for at in 0..NOTED_MAX as u64 {
            one.delivered_to(Offset(at), &[span(2 * at, 2 * at + 1)]);
        }
        assert!(one.is_full());
    }
}
