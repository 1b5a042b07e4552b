//! What was done for groups since the process started, counted where it is done. Pure.

use std::collections::BTreeMap;

use grus_protocol::ids::GroupId;

/// What was done for one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Messages sent to members.
    pub deliveries: u64,
    /// Those of them that had been sent before.
    pub redeliveries: u64,
    /// Answers that a message was handled in vain.
    pub nacks: u64,
    /// Requests of members that do not hold the queue, or not any more.
    pub fenced: u64,
}

impl Tally {
    /// Adds what was counted elsewhere.
    pub const fn add(&mut self, other: Self) {
        self.deliveries += other.deliveries;
        self.redeliveries += other.redeliveries;
        self.nacks += other.nacks;
        self.fenced += other.fenced;
    }
}

/// The groups of a shard. Only those that it knows are counted for, so there are no more of them.
#[derive(Debug, Default)]
pub struct GroupTallies {
    by_group: BTreeMap<GroupId, Tally>,
}

impl GroupTallies {
    /// That of a group which the shard knows.
    pub fn of(&mut self, group: GroupId) -> &mut Tally {
        self.by_group.entry(group).or_default()
    }

    /// What is counted of a group.
    #[must_use]
    pub fn get(&self, group: GroupId) -> Tally {
        self.by_group.get(&group).copied().unwrap_or_default()
    }

    /// A group is gone.
    pub fn forget(&mut self, group: GroupId) {
        self.by_group.remove(&group);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_group_is_counted_alone_until_it_is_gone() {
        let mut tallies = GroupTallies::default();
        tallies.of(GroupId(1)).deliveries += 3;
        tallies.of(GroupId(2)).fenced += 1;
        let mut sum = Tally::default();
        for group in [1, 2, 3] {
            sum.add(tallies.get(GroupId(group)));
        }
        assert_eq!(sum, Tally { deliveries: 3, fenced: 1, ..Tally::default() });
        tallies.forget(GroupId(1));
        assert_eq!(tallies.get(GroupId(1)), Tally::default());
        assert_eq!(tallies.get(GroupId(2)).fenced, 1);
    }
}
