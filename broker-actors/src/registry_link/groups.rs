//! The dead-letter topics of groups: made when a group is first joined, on a shard that also has the
//! group's coordinator.

use std::sync::Arc;

use grus_mailbox::{Credit, Dropped, Room};
use grus_protocol::error::{ErrorCode, ErrorReply};
use grus_protocol::ids::{Durability, ShardId, TopicId};
use grus_protocol::message::TopicKind;
use grus_protocol::names::{GroupName, TopicName};
use grus_registry::{RegistryError, RegistryRequest, RoutingTable};
use xxhash_rust::xxh3::xxh3_64;

use super::messages::Answer;
use super::routes::TopicRoute;
use super::{Heard, RETRY_AFTER_MS, RegistryLink, Waiter};
use crate::commands::TopicConfig;

impl RegistryLink {
    /// Finds or makes the group's dead-letter topic; answers once it is open.
    pub(super) fn open_group(
        &mut self,
        group: &GroupName,
        reply: Answer<Arc<TopicRoute>>,
        credit: Credit,
        room: &mut Room<'_, Self>,
    ) {
        let name = group.dead_letters();
        if let Some(topic) = self.ledger.in_table(&name).cloned() {
            let actions = self.ledger.wait_for(topic, Waiter::Group(reply, credit));
            return self.carry_out(actions, room);
        }
        let Some(home) = home_of(group, self.ledger.table()) else {
            let error = ErrorReply::new(ErrorCode::Unavailable, "no shard takes the group now");
            return reply.send(Err(error.with_retry_after_ms(RETRY_AFTER_MS)));
        };
        let waiter = Waiter::Group(reply, credit);
        let port = self.port(room, move |answer: Result<_, Dropped>| {
            Heard::Created(waiter, answer.unwrap_or(Err(RegistryError::Busy)))
        });
        let request = RegistryRequest::PlaceDeadLetters {
            name,
            id: TopicId::UNKNOWN,
            home: Some(home),
            shards: Vec::new(),
            reply: port,
        };
        let _ = self.parts.registry.ask.try_put(request); // refused: heard as busy
    }

    /// A queue of dead letters has the durability of its shard.
    pub(super) fn fit(&self, id: ShardId, config: &mut TopicConfig) {
        let is_dead_letter = config.kind == TopicKind::DeadLetter.number();
        if let Some(shard) = self.parts.shards.get(id).filter(|_| is_dead_letter) {
            config.durability = shard.durability;
        }
    }
}

/// Where a new group is coordinated: on a shard that keeps what it promised through anything, or a
/// generation could come back. Each group has its own order of the shards.
fn home_of(group: &GroupName, table: &RoutingTable) -> Option<ShardId> {
    let fits = |shard: &ShardId| {
        let place = &table.shards[shard];
        place.open && place.durability == Durability::Persisted && table.leader_of(*shard).is_some()
    };
    // Where there are shards of several members, a group outlives a broker.
    let rank = |shard: &ShardId| {
        (table.shards[shard].members_count(), xxh3_64(format!("{shard}/{group}").as_bytes()))
    };
    table.shards.keys().copied().filter(fits).max_by_key(rank)
}

/// Dead letters are made, changed and removed with their group.
pub(super) fn of_a_group(name: &TopicName) -> ErrorReply {
    let text = format!("{name} belongs to a group: change or delete the group");
    ErrorReply::new(ErrorCode::InvalidRequest, text)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use grus_protocol::ids::{BrokerAddress, BrokerId};
    use grus_registry::{BrokerPlace, ShardPlace};

    use super::*;

    #[test]
    fn groups_are_spread_over_persisted_shards_of_live_brokers() {
        let mut table = RoutingTable::default();
        for broker in 1..=3 {
            let id = BrokerId(broker);
            let address = BrokerAddress { id, host: "h".into(), port: 1 };
            table.brokers.insert(id, BrokerPlace { address, live: broker != 3, disk: 1 });
            for durability in [Durability::Persisted, Durability::Replicated] {
                let shard = ShardId(u32::try_from(table.shards.len()).unwrap());
                table.shards.insert(shard, ShardPlace::alone(durability, id));
            }
        }
        let homes = (0..50).filter_map(|number| {
            home_of(&GroupName::try_from(&*format!("g{number}")).unwrap(), &table)
        });
        assert_eq!(homes.collect::<BTreeSet<_>>(), BTreeSet::from([ShardId(0), ShardId(2)]));
        let group = GroupName::try_from("g").unwrap();
        assert_eq!(home_of(&group, &table), home_of(&group, &table));
        assert_eq!(home_of(&group, &RoutingTable::default()), None);
    }
}
