//! How a producer gets its identity: from the first persisted shard, which keeps the names; before a
//! named one that came back hears of its new epoch, every other shard refuses its earlier one.

use grus_mailbox::{Credit, Dropped, Inbox, Port};
use grus_protocol::error::{ErrorCode, ErrorReply};
use grus_protocol::ids::{BrokerId, Durability, ProducerEpoch, ProducerId, ShardId};
use grus_protocol::message::{InitProducer, InitProducerReply};
use grus_registry::RoutingTable;

use super::messages::Answer;
use crate::error::QueueError;
use crate::machine::InitializedProducer;
use crate::shard::ShardRequest;

/// Set in identities that were drawn. Those that a shard gives begin with its number, far below.
const DRAWN: u64 = 1 << 63;
/// How long a client waits before it asks again for what takes an election, or an operator.
const NAME_RETRY_AFTER_MS: u32 = 500;

/// The shard that gives identities: of the persisted ones that are led here the first one that the broker
/// has alone, or began with before others got them, too; else the first of the others. None of those that
/// are kept in memory: one that forgets what it gave gives it again, and queues that remember the first
/// who had it would take the messages of the second for copies.
pub(super) fn source(
    led: impl Iterator<Item = (ShardId, Durability)>,
    broker: BrokerId,
    table: &RoutingTable,
) -> Option<ShardId> {
    let is_own = |shard: ShardId| {
        let place = table.shards.get(&shard).filter(|place| place.is_replicated());
        place.is_none_or(|place| place.members.first() == Some(&broker))
    };
    let persisted = led.filter(|(_, durability)| *durability == Durability::Persisted);
    persisted.map(|(shard, _)| shard).min_by_key(|shard| (!is_own(*shard), *shard))
}

/// The answer where no persisted shard is led, as where all that the broker had alone have grown and are
/// led by others. Nobody asks twice for an identity without a name, so that nothing need be kept of it:
/// it is drawn, in a range that no shard gives from. A name is to be known after everything.
pub(super) fn without_a_shard(
    ask: &InitProducer,
    drawn: u64,
) -> Result<InitProducerReply, ErrorReply> {
    if ask.name.is_some() {
        let text = "no persisted shard is led here now, in which the producer's name could be kept: \
                    a broker is given one when it is started again";
        let error = ErrorReply::new(ErrorCode::Unavailable, text);
        return Err(error.with_retry_after_ms(NAME_RETRY_AFTER_MS));
    }
    let (producer_id, producer_epoch) = (ProducerId(DRAWN | drawn), ProducerEpoch(0));
    Ok(InitProducerReply { producer_id, producer_epoch })
}

/// A request for an identity on its way.
struct Asked {
    reply: Answer<InitProducerReply>,
    _until_answered: Credit,
    /// The shards that must hear of the epoch yet.
    others: Vec<Inbox<ShardRequest>>,
}

/// Asks `first` for an identity, and answers when `others` know of it, too. A shard that does not
/// answer leaves the request unanswered: the client asks again, and gets a later epoch.
pub(super) fn give(
    ask: InitProducer,
    first: &Inbox<ShardRequest>,
    others: Vec<Inbox<ShardRequest>>,
    reply: Answer<InitProducerReply>,
    credit: Credit,
) {
    let others = if ask.name.is_some() { others } else { Vec::new() };
    let asked = Asked { reply, _until_answered: credit, others };
    let port =
        Port::call(move |answer: Result<Result<InitializedProducer, QueueError>, Dropped>| {
            match answer {
                Ok(Ok(given)) => fence_next(given, asked),
                Ok(Err(error)) => asked.reply.send(Err(error.to_reply())),
                Err(Dropped) => drop(asked),
            }
        });
    let _ = first.try_put(ShardRequest::InitProducer { name: ask.name, reply: port });
}

fn fence_next(given: InitializedProducer, mut asked: Asked) {
    let Some(shard) = asked.others.pop() else {
        let (producer_id, producer_epoch) = (given.producer, given.epoch);
        return asked.reply.send(Ok(InitProducerReply { producer_id, producer_epoch }));
    };
    let port = Port::call(move |answer: Result<Result<(), QueueError>, Dropped>| match answer {
        Ok(Ok(())) => fence_next(given, asked),
        Ok(Err(error)) => asked.reply.send(Err(error.to_reply())),
        Err(Dropped) => drop(asked),
    });
    let _ = shard.try_put(ShardRequest::Fence { producer: given, reply: port });
}

#[cfg(test)]
mod tests {
    use grus_registry::{ShardPlace, draw_number};

    use super::*;

    const OWN: BrokerId = BrokerId(1);

    fn table() -> RoutingTable {
        let mut table = RoutingTable::default();
        let alone = ShardPlace::alone(Durability::Persisted, OWN);
        let grown = |first| ShardPlace { members: vec![first, BrokerId(3)], ..alone.clone() };
        for (shard, place) in [(4, grown(BrokerId(2))), (5, grown(OWN)), (6, alone.clone())] {
            table.shards.insert(ShardId(shard), place);
        }
        table
    }

    fn from(led: &[(u32, Durability)]) -> Option<u32> {
        let led = led.iter().map(|(shard, durability)| (ShardId(*shard), *durability));
        source(led, OWN, &table()).map(|shard| shard.0)
    }

    #[test]
    fn identities_come_from_persisted_shards_alone_and_from_those_of_this_broker_first() {
        use Durability::{Persisted, Replicated};
        let all = [(0, Replicated), (4, Persisted), (5, Persisted), (6, Persisted)];
        assert_eq!(from(&all), Some(5));
        assert_eq!(from(&[(6, Persisted), (4, Persisted)]), Some(6));
        assert_eq!(from(&[(0, Replicated), (4, Persisted)]), Some(4));
        assert_eq!(from(&[(0, Replicated), (1, Durability::Memory)]), None);
    }

    #[test]
    fn where_none_is_led_an_identity_is_one_that_no_shard_gives_and_a_name_is_asked_for_again() {
        let nameless = InitProducer { name: None };
        let given = without_a_shard(&nameless, draw_number()).unwrap();
        let shard_of = given.producer_id.0 >> 48;
        assert!(shard_of > u64::from(u16::MAX >> 2), "{shard_of} may be a shard");
        assert_eq!(given.producer_epoch, ProducerEpoch(0));
        let other = without_a_shard(&nameless, draw_number()).unwrap();
        assert_ne!(given.producer_id, other.producer_id);
        let named = InitProducer { name: Some("n".try_into().unwrap()) };
        let refused = without_a_shard(&named, draw_number()).unwrap_err();
        assert!(refused.retriable && refused.retry_after_ms > 0, "{refused:?}");
        assert_eq!(refused.code, ErrorCode::Unavailable);
    }
}
