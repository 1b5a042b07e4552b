//! Brokers for what only brokers serve, while all that is connected is a registry: whom to ask for
//! them, and whose turn it is. No clock, no I/O.

use grus_protocol::ids::BrokerAddress;
use grus_protocol::{BrokerId, Opcode};

/// The broker id by which a registry introduces itself.
pub(super) const REGISTRY: BrokerId = BrokerId(0);
/// Between two attempts to reach a broker.
const AGAIN_MS: u64 = 500;
/// Where the opcode stands in a frame's head.
const OPCODE: std::ops::Range<usize> = 8..10;

/// Whether a request is served by brokers alone, not by a registry.
pub(super) fn is_for_brokers(frame: &[u8]) -> bool {
    let opcode = frame.get(OPCODE).map(|bytes| u16::from_le_bytes([bytes[0], bytes[1]]));
    let known = [
        Opcode::InitProducer,
        Opcode::FindMessages,
        Opcode::ListScheduled,
        Opcode::CountScheduled,
        Opcode::ListClients,
        Opcode::DescribeShards,
        Opcode::HandOverShards,
        Opcode::ChangeReplicas,
        Opcode::ListSchedules,
        Opcode::JoinGroup,
        Opcode::GroupHeartbeat,
        Opcode::LeaveGroup,
        Opcode::AssignQueues,
        Opcode::ListGroups,
        Opcode::DescribeGroup,
        Opcode::DeleteGroup,
        Opcode::GroupProgress,
        Opcode::ListDeadLetters,
    ];
    known.map(|known| Some(known.number())).contains(&opcode)
}

/// Looks for a broker, one after the other: the registry names those that are there, and a link is
/// opened to the next of them. The first one's place is drawn, so that clients spread.
#[derive(Debug)]
pub(super) struct Search {
    turn: usize,
    not_before_ms: u64,
}

impl Search {
    /// One that begins somewhere.
    pub(super) fn new(seed: u64) -> Self {
        Self { turn: usize::try_from(seed >> 33).unwrap_or(0), not_before_ms: 0 }
    }

    /// Whether to ask the registry now; if so, not again for a while.
    pub(super) fn is_time(&mut self, now_ms: u64) -> bool {
        let is_time = self.not_before_ms <= now_ms;
        if is_time {
            self.not_before_ms = now_ms + AGAIN_MS;
        }
        is_time
    }

    /// Whose turn it is.
    pub(super) fn next(&mut self, brokers: &[BrokerAddress]) -> Option<BrokerId> {
        let broker = brokers.get(self.turn.checked_rem(brokers.len())?)?;
        self.turn = self.turn.wrapping_add(1);
        Some(broker.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_have_their_turns_and_the_registry_is_not_asked_without_a_pause() {
        let mut search = Search::new(1 << 33);
        assert!(search.is_time(7) && !search.is_time(7 + AGAIN_MS - 1));
        assert!(search.is_time(7 + AGAIN_MS));
        let address = |id| BrokerAddress { id: BrokerId(id), host: "h".into(), port: 1 };
        let brokers = [address(4), address(6), address(9)];
        let turns: Vec<_> = (0..4).filter_map(|_| search.next(&brokers)).map(|id| id.0).collect();
        assert_eq!(turns, [6, 9, 4, 6]);
        assert_eq!(search.next(&[]), None);
    }
}
