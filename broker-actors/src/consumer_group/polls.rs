//! Heartbeats that wait for news, one of each member. Pure; `P` is whom to answer.

use std::collections::{BTreeMap, BTreeSet};

use grus_protocol::ids::MemberId;

/// See the module documentation.
#[derive(Debug)]
pub struct Polls<P> {
    parked: BTreeMap<MemberId, (u64, P)>,
    order: BTreeSet<(u64, MemberId)>,
}

impl<P> Default for Polls<P> {
    fn default() -> Self {
        Self { parked: BTreeMap::new(), order: BTreeSet::new() }
    }
}

impl<P> Polls<P> {
    /// A heartbeat waits until then; the one before it, if it still waits, is given back.
    pub fn park(&mut self, member: MemberId, until_ms: u64, port: P) -> Option<P> {
        let before = self.take(member);
        self.parked.insert(member, (until_ms, port));
        self.order.insert((until_ms, member));
        before
    }

    /// The heartbeat of a member, if one waits.
    pub fn take(&mut self, member: MemberId) -> Option<P> {
        let (until_ms, port) = self.parked.remove(&member)?;
        self.order.remove(&(until_ms, member));
        Some(port)
    }

    /// The next one that has waited long enough.
    pub fn take_over(&mut self, now_ms: u64) -> Option<(MemberId, P)> {
        let (until_ms, member) = self.order.first().copied()?;
        if until_ms > now_ms {
            return None;
        }
        Some((member, self.take(member)?))
    }

    /// All of them.
    pub fn take_all(&mut self) -> Vec<(MemberId, P)> {
        self.order.clear();
        std::mem::take(&mut self.parked).into_iter().map(|(id, (_, port))| (id, port)).collect()
    }

    /// When the first has waited long enough.
    #[must_use]
    pub fn next_ms(&self) -> Option<u64> {
        self.order.first().map(|(until_ms, _)| *until_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_each_member_waits_and_the_first_is_over_first() {
        let mut polls = Polls::default();
        assert_eq!(polls.park(MemberId(1), 30, 'a'), None);
        assert_eq!(polls.park(MemberId(2), 20, 'b'), None);
        assert_eq!(polls.park(MemberId(1), 10, 'c'), Some('a'));
        assert_eq!(polls.next_ms(), Some(10));
        assert_eq!(polls.take_over(9), None);
        assert_eq!(polls.take_over(20), Some((MemberId(1), 'c')));
        assert_eq!(polls.take_over(20), Some((MemberId(2), 'b')));
        assert_eq!((polls.take_over(99), polls.next_ms()), (None, None));
    }
}
