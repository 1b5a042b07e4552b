//! How a producer gets its identity: from the first shard, which keeps the names; before a named
//! one that came back hears of its new epoch, every other shard refuses its earlier one.

use grus_mailbox::{Credit, Dropped, Inbox, Port};
use grus_protocol::ids::{BrokerId, Durability};
use grus_protocol::message::{InitProducer, InitProducerReply};
use grus_registry::RoutingTable;

use super::messages::Answer;
use crate::error::QueueError;
use crate::machine::InitializedProducer;
use crate::shard::{ShardHandle, ShardRequest};

/// The shard that gives identities: the first one of those that the broker has alone, or began with
/// before others got them, too; else, while it has none, any that it leads.
pub(super) fn first<'a>(
    led: &'a [ShardHandle],
    broker: BrokerId,
    table: &RoutingTable,
) -> Option<&'a ShardHandle> {
    let is_own = |shard: &ShardHandle| {
        let place = table.shards.get(&shard.shard).filter(|place| place.is_replicated());
        place.is_none_or(|place| place.members.first() == Some(&broker))
    };
    let rank = |shard: &&ShardHandle| {
        (shard.durability != Durability::Persisted, !is_own(shard), shard.shard)
    };
    led.iter().min_by_key(rank)
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
