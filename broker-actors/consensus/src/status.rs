//! What a group says of itself.

use std::time::Duration;

use crate::ballot::Standing;
use crate::types::NodeId;

/// A group's state at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Term of the last vote.
    pub term: u64,
    /// The leader as this member knows it.
    pub leader: Option<NodeId>,
    /// Whether this member believes it leads. A leader that is cut off believes so, too.
    pub is_leader: bool,
    /// Whether this member leads and has applied an entry of its own term: only then does its
    /// state hold everything that was acknowledged before.
    pub ready: bool,
    /// How long from now no other leader can be elected. Deliveries, leases, releases and "end of
    /// queue" only while this is not zero; plain reads always.
    pub lease_left: Duration,
    /// Index of the last entry in the log.
    pub last: Option<u64>,
    /// Index of the last entry known to be committed.
    pub committed: Option<u64>,
    /// Index of the last entry applied.
    pub applied: Option<u64>,
    /// Index up to which the log counts as durable by its class.
    pub durable: Option<u64>,
    /// Index up to which the log has been dropped.
    pub purged: Option<u64>,
    /// Whether this member may vote.
    pub standing: Standing,
}

/// How far another member is, as the leader knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberLag {
    /// The member.
    pub node: NodeId,
    /// The last entry that it is known to have.
    pub matched: Option<u64>,
    /// How long ago it last answered.
    pub heard: Option<Duration>,
    /// Whether it votes, by every list of members in force: one that comes gets the log before it does, and
    /// while the list is changed the majority of before is needed, too, in which it does not count.
    pub votes: bool,
}

/// Who leads; changes are worth telling.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Leadership {
    /// Term of the last vote.
    pub term: u64,
    /// The leader as this member knows it.
    pub leader: Option<NodeId>,
    /// Whether this member leads and is ready (see [`Status::ready`]).
    pub ready: bool,
    /// Whether this replica has stopped for good.
    pub stopped: bool,
}

/// How much is left of a lease of length `lease`, given `since_ack` since the last moment a
/// quorum was known to follow this leader. `drift` is given away to differing clocks.
pub(crate) fn lease_left(
    since_ack: Option<Duration>,
    lease: Duration,
    drift: Duration,
) -> Duration {
    since_ack.map_or(Duration::ZERO, |since| lease.saturating_sub(drift).saturating_sub(since))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_ends_before_another_leader_can_be_elected() {
        let ms = Duration::from_millis;
        assert_eq!(lease_left(Some(ms(0)), ms(1000), ms(50)), ms(950));
        assert_eq!(lease_left(Some(ms(900)), ms(1000), ms(50)), ms(50));
        assert_eq!(lease_left(Some(ms(950)), ms(1000), ms(50)), ms(0));
        assert_eq!(lease_left(None, ms(1000), ms(50)), ms(0));
    }
}
