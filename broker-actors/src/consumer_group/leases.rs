//! Until when each member counts as there. Times are monotonic, in milliseconds. Pure.

use std::collections::{BTreeMap, BTreeSet};

use grus_protocol::ids::MemberId;

/// See the module documentation.
#[derive(Debug, Clone, Default)]
pub struct Leases {
    until: BTreeMap<MemberId, u64>,
    order: BTreeSet<(u64, MemberId)>,
}

impl Leases {
    /// A member counts as there until then.
    pub fn set(&mut self, member: MemberId, until_ms: u64) {
        self.remove(member);
        self.until.insert(member, until_ms);
        self.order.insert((until_ms, member));
    }

    /// A member counts as there until then at most.
    pub fn shorten(&mut self, member: MemberId, until_ms: u64) {
        if self.until.get(&member).is_some_and(|until| *until > until_ms) {
            self.set(member, until_ms);
        }
    }

    /// A member is gone.
    pub fn remove(&mut self, member: MemberId) {
        if let Some(until_ms) = self.until.remove(&member) {
            self.order.remove(&(until_ms, member));
        }
    }

    /// All of them are given this much more: nobody could be heard meanwhile.
    pub fn extend_all(&mut self, by_ms: u64) {
        for until_ms in self.until.values_mut() {
            *until_ms += by_ms;
        }
        self.order = self.until.iter().map(|(member, until_ms)| (*until_ms, *member)).collect();
    }

    /// Those whose time is over; they are forgotten.
    pub fn take_over(&mut self, now_ms: u64) -> Vec<MemberId> {
        let mut over = Vec::new();
        while let Some((until_ms, member)) = self.order.first().copied()
            && until_ms <= now_ms
        {
            self.remove(member);
            over.push(member);
        }
        over
    }

    /// When the first of them is over.
    #[must_use]
    pub fn next_ms(&self) -> Option<u64> {
        self.order.first().map(|(until_ms, _)| *until_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_over_first_and_a_renewal_counts() {
        let mut leases = Leases::default();
        leases.set(MemberId(1), 10);
        leases.set(MemberId(2), 20);
        assert_eq!(leases.next_ms(), Some(10));
        leases.set(MemberId(1), 30);
        assert_eq!(leases.take_over(19), []);
        leases.shorten(MemberId(1), 25);
        leases.shorten(MemberId(1), 99);
        assert_eq!(leases.take_over(25), [MemberId(2), MemberId(1)]);
        assert_eq!((leases.next_ms(), leases.take_over(u64::MAX)), (None, Vec::new()));
    }

    #[test]
    fn a_stall_of_the_broker_costs_no_member_its_lease() {
        let mut leases = Leases::default();
        leases.set(MemberId(1), 10);
        leases.extend_all(50);
        assert_eq!(leases.take_over(59), []);
        assert_eq!(leases.take_over(60), [MemberId(1)]);
    }
}
