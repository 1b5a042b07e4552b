//! The subscriptions of groups at a queue, and what is on its way into the log about their retries. Pure.

use std::collections::BTreeMap;
use std::ops::Deref;

use grus_protocol::ids::{GroupId, Offset};

use super::group_subscription::GroupSubscription;
use super::subscription::SubscriptionKey;
use crate::commands::groups::Delivered;

/// The subscriptions of groups at a queue, one of each group at most.
#[derive(Debug, Default)]
pub(super) struct GroupSubscriptions {
    all: BTreeMap<SubscriptionKey, GroupSubscription>,
    by_group: BTreeMap<GroupId, SubscriptionKey>,
    under_way: BTreeMap<GroupId, UnderWay>,
}

/// Retries of a group of which the state does not tell all yet, as items about them are on their way into
/// the log: nobody is sent them meanwhile. How many items there are about each.
#[derive(Debug, Default)]
struct UnderWay {
    /// Sent by subscriptions that have ended.
    sent: BTreeMap<Offset, u32>,
    /// Answered for by their members.
    answered: BTreeMap<Offset, u32>,
}

fn add(counts: &mut BTreeMap<Offset, u32>, offset: Offset) {
    *counts.entry(offset).or_default() += 1;
}

/// Takes one off; whether there was one.
fn take(counts: &mut BTreeMap<Offset, u32>, offset: Offset) -> bool {
    let Some(count) = counts.get_mut(&offset) else { return false };
    *count -= 1;
    if *count == 0 {
        counts.remove(&offset);
    }
    true
}

impl Deref for GroupSubscriptions {
    type Target = BTreeMap<SubscriptionKey, GroupSubscription>;

    fn deref(&self) -> &Self::Target {
        &self.all
    }
}

impl GroupSubscriptions {
    /// Takes one in, in place of an earlier one of its group, or of its key.
    pub(super) fn insert(&mut self, key: SubscriptionKey, one: GroupSubscription) {
        let group = one.holding.place.group;
        self.remove(key);
        if let Some(before) = self.key_of(group) {
            self.remove(before);
        }
        self.by_group.insert(group, key);
        self.all.insert(key, one);
    }

    /// One ends, once what it had noted is proposed.
    pub(super) fn remove(&mut self, key: SubscriptionKey) {
        let Some(one) = self.all.remove(&key) else { return };
        let group = one.holding.place.group;
        self.by_group.remove(&group);
        if !one.sent.is_empty() {
            let sent = &mut self.under_way.entry(group).or_default().sent;
            for offset in one.sent {
                add(sent, offset);
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.all.clear();
        self.by_group.clear();
        self.under_way.clear();
    }

    /// That of a group.
    pub(super) fn key_of(&self, group: GroupId) -> Option<SubscriptionKey> {
        self.by_group.get(&group).copied()
    }

    pub(super) fn get_mut(&mut self, key: &SubscriptionKey) -> Option<&mut GroupSubscription> {
        self.all.get_mut(key)
    }

    pub(super) fn of_group_mut(&mut self, group: GroupId) -> Option<&mut GroupSubscription> {
        let key = self.by_group.get(&group)?;
        self.all.get_mut(key)
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut GroupSubscription> {
        self.all.values_mut()
    }

    /// Whether a retry was sent, by whichever subscription, and its delivery is not applied.
    pub(super) fn is_sent(&self, group: GroupId, offset: Offset) -> bool {
        let before = self.under_way.get(&group).is_some_and(|it| it.sent.contains_key(&offset));
        let one = self.key_of(group).and_then(|key| self.all.get(&key));
        before || one.is_some_and(|one| one.sent.contains(&offset))
    }

    /// Whether an item about a retry is on its way, so that the state does not tell what it is.
    pub(super) fn is_under_way(&self, group: GroupId, offset: Offset) -> bool {
        let answered = |it: &UnderWay| it.answered.contains_key(&offset);
        self.is_sent(group, offset) || self.under_way.get(&group).is_some_and(answered)
    }

    /// A member has answered for these retries, and the item is on its way.
    pub(super) fn answering(&mut self, group: GroupId, offsets: &[Offset]) {
        if !offsets.is_empty() {
            let answered = &mut self.under_way.entry(group).or_default().answered;
            for offset in offsets {
                add(answered, *offset);
            }
        }
    }

    /// The item is applied, or will not be.
    pub(super) fn answered(&mut self, group: GroupId, offsets: &[Offset]) {
        let Some(it) = self.under_way.get_mut(&group) else { return };
        for offset in offsets {
            take(&mut it.answered, *offset);
        }
        self.tidy(group);
    }

    /// Deliveries are applied, or will not be: what subscriptions that have ended had sent of them is owed
    /// to the member, if it is the same and has them in its hands.
    pub(super) fn were_sent(&mut self, delivered: &Delivered) {
        let group = delivered.holding.place.group;
        let Some(it) = self.under_way.get_mut(&group) else { return };
        let before = delivered.again.iter().filter(|offset| take(&mut it.sent, **offset));
        let before: Vec<Offset> = before.copied().collect();
        self.tidy(group);
        if let Some(one) = self.of_group_mut(group).filter(|it| it.holding == delivered.holding) {
            one.owed.extend(before);
        }
    }

    fn tidy(&mut self, group: GroupId) {
        let is_over = |it: &UnderWay| it.sent.is_empty() && it.answered.is_empty();
        if self.under_way.get(&group).is_some_and(is_over) {
            self.under_way.remove(&group);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use grus_protocol::ids::{Generation, SubscriptionId};

    use super::*;
    use crate::topic_queue::group_subscription::tests::subscription;

    #[test]
    fn nothing_is_sent_of_which_an_item_is_on_its_way() {
        let key = |connection| SubscriptionKey { connection, id: SubscriptionId(1) };
        let group = GroupId(9);
        let mut all = GroupSubscriptions::default();
        let under_way = |all: &GroupSubscriptions| -> Vec<u64> {
            (0..9).filter(|offset| all.is_under_way(group, Offset(*offset))).collect()
        };
        all.insert(key(1), subscription());
        let one = all.get_mut(&key(1)).expect("it is there");
        one.delivered_again(&[Offset(1), Offset(2)], false);
        let delivered = one.take_noted().expect("noted");
        all.remove(key(1));
        all.answering(group, &[Offset(4), Offset(5)]);
        all.answering(group, &[Offset(4)]);
        all.insert(key(2), subscription());
        assert_eq!(under_way(&all), [1, 2, 4, 5], "whoever has the queue by now");
        assert!(all.is_sent(group, Offset(1)) && !all.is_sent(group, Offset(4)));
        all.answered(group, &[Offset(4), Offset(5)]);
        assert_eq!(under_way(&all), [1, 2, 4], "there is one more about that");
        all.were_sent(&delivered);
        let owed = |all: &mut GroupSubscriptions, key| all.get_mut(&key).expect("it").owed.clone();
        assert_eq!(owed(&mut all, key(2)), BTreeSet::from([Offset(1), Offset(2)]));
        all.answered(group, &[Offset(4)]);
        assert!(under_way(&all).is_empty() && all.under_way.is_empty());
    }

    #[test]
    fn what_an_earlier_holder_was_sent_is_not_owed_to_the_next_one() {
        let key = |connection| SubscriptionKey { connection, id: SubscriptionId(1) };
        let mut all = GroupSubscriptions::default();
        all.insert(key(1), subscription());
        let one = all.get_mut(&key(1)).expect("it is there");
        one.delivered_again(&[Offset(1)], false);
        let delivered = one.take_noted().expect("noted");
        let mut next = subscription();
        next.holding.generation = Generation(2);
        all.insert(key(2), next);
        assert!(all.is_under_way(GroupId(9), Offset(1)));
        all.were_sent(&delivered);
        assert!(!all.is_under_way(GroupId(9), Offset(1)));
        assert!(all.get_mut(&key(2)).expect("it").owed.is_empty());
    }

    #[test]
    fn a_key_that_is_used_again_is_of_its_last_group_alone() {
        let key = SubscriptionKey { connection: 1, id: SubscriptionId(1) };
        let mut all = GroupSubscriptions::default();
        all.insert(key, subscription());
        let mut other = subscription();
        other.holding.place.group = GroupId(10);
        all.insert(key, other);
        assert_eq!([9, 10].map(|group| all.key_of(GroupId(group))), [None, Some(key)]);
    }
}
