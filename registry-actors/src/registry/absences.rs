//! Since when brokers are gone, by this process's own clock. Asked before a command is written, never while
//! one is applied: what follows from it is in the command. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use grus_protocol::ids::BrokerId;

/// Where brokers that are gone are replaced by hand alone, one that is gone for so long is not just being
/// started again.
const BY_HAND_GRACE: Duration = Duration::from_mins(30);

/// See the module documentation. A restart of the process begins anew.
#[derive(Debug)]
pub(super) struct Absences {
    grace_ms: u64,
    since_ms: BTreeMap<BrokerId, u64>,
}

impl Absences {
    /// A broker may be gone for less than `grace` and come back; 0: none is replaced but by hand.
    pub(super) fn new(grace: Duration) -> Self {
        let grace = if grace.is_zero() { BY_HAND_GRACE } else { grace };
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        Self { grace_ms, since_ms: BTreeMap::new() }
    }

    /// These are gone now, and no others.
    pub(super) fn look(&mut self, gone: impl Iterator<Item = BrokerId>, now_ms: u64) {
        let gone: BTreeSet<_> = gone.collect();
        self.since_ms.retain(|broker, _| gone.contains(broker));
        for broker in gone {
            self.since_ms.entry(broker).or_insert(now_ms);
        }
    }

    /// Those that are gone for so long that nobody waits for them.
    pub(super) fn long(&self, now_ms: u64) -> BTreeSet<BrokerId> {
        let is_long = |since: &u64| now_ms.saturating_sub(*since) >= self.grace_ms;
        let long = self.since_ms.iter().filter(|(_, since)| is_long(since));
        long.map(|(broker, _)| *broker).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_comes_back_in_time_is_waited_for_anew() {
        let mut absences = Absences::new(Duration::from_secs(1));
        let gone = |brokers: &[u64]| brokers.iter().copied().map(BrokerId).collect::<Vec<_>>();
        absences.look(gone(&[1, 2]).into_iter(), 500);
        assert!(absences.long(1_499).is_empty());
        absences.look(gone(&[2]).into_iter(), 1_000);
        absences.look(gone(&[1, 2]).into_iter(), 1_100);
        assert_eq!(absences.long(1_500), BTreeSet::from([BrokerId(2)]));
        assert_eq!(absences.long(2_100).len(), 2);
        let mut by_hand = Absences::new(Duration::ZERO);
        by_hand.look(gone(&[1]).into_iter(), 0);
        assert!(by_hand.long(60_000).is_empty(), "it may be starting again");
        assert_eq!(by_hand.long(30 * 60_000).len(), 1);
    }
}
