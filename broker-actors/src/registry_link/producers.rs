//! How a producer gets its identity.
//!
//! * Without a name: from the first persisted shard that is led here.
//! * With a name that is to be known to all brokers: the shard of the names gives it the next life, on
//!   whichever broker that is led; then each broker that it sends to is told, and has all shards that
//!   it leads refuse earlier ones. The shard of the names is found as the coordinator of a group is, so
//!   that it is on several brokers where there are such shards, and stays the same one for ever.
//! * With a name as older clients ask for it: from the broker's own first persisted shard, as if it had
//!   none; before it hears of its new epoch, every other shard refuses its earlier one.

use std::sync::Arc;

use grus_mailbox::{Credit, Dropped, Inbox, Port, Room};
use grus_protocol::error::{ErrorCode, ErrorReply};
use grus_protocol::ids::{BrokerId, Durability, ProducerEpoch, ProducerId, QueueId, ShardId};
use grus_protocol::message::{InitProducer, InitProducerReply, NameScope};
use grus_protocol::names::{GroupName, ProducerName};
use grus_registry::{RoutingTable, draw_number};

use super::messages::Answer;
use super::routes::TopicRoute;
use super::{RETRY_AFTER_MS, RegistryLink};
use crate::error::QueueError;
use crate::machine::InitializedProducer;
use crate::shard::{ShardRequest, ShardSet};

/// Set in identities that were drawn. Those that a shard gives begin with its number, far below.
const DRAWN: u64 = 1 << 63;
/// Set in identities of names that all brokers know: what the shard of the names counts by is its own, so
/// that no life is taken for one of a name that a broker knows by itself.
const OF_ALL_BROKERS: u64 = 1 << 62;
/// Epochs that each life of such a name has for itself: a producer goes on under the next one when it can
/// no longer say which of its sequences are taken, and asks nobody, or an earlier life could by asking
/// become the newest one.
const EPOCHS_OF_A_LIFE: u32 = 1 << 8;
/// How long a client waits before it asks again for what takes an election, or an operator.
const NAME_RETRY_AFTER_MS: u32 = 500;

/// The shard that gives identities: of the persisted ones that are led here the first one that the broker
/// has alone, or began with before others got them, too; else the first of the others. None of those that
/// are kept in memory: one that forgets what it gave gives it again, and queues that remember the first
/// who had it would take the messages of the second for copies.
fn source(
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
fn without_a_shard(ask: &InitProducer, drawn: u64) -> Result<InitProducerReply, ErrorReply> {
    if ask.name.is_some() {
        let text = "no persisted shard is led here now, in which the producer's name could be kept: \
                    a broker is given one when it is started again";
        let error = ErrorReply::new(ErrorCode::Unavailable, text);
        return Err(error.with_retry_after_ms(NAME_RETRY_AFTER_MS));
    }
    let (producer_id, producer_epoch) = (ProducerId(DRAWN | drawn), ProducerEpoch(0));
    Ok(InitProducerReply { producer_id, producer_epoch, epochs: 0 })
}

/// The identity of a life of a name that all brokers know, by what the shard of the names has counted.
fn life_of(counted: InitializedProducer) -> Result<InitProducerReply, ErrorReply> {
    let Some(first) = counted.epoch.0.checked_mul(EPOCHS_OF_A_LIFE) else {
        let lives = u32::MAX / EPOCHS_OF_A_LIFE + 1;
        let text = format!(
            "a producer of that name has begun {lives} times: take another name, or this one again \
             7 days after the last time"
        );
        return Err(ErrorReply::new(ErrorCode::TooManyTopics, text));
    };
    let producer_id = ProducerId(OF_ALL_BROKERS | counted.producer.0);
    let (producer_epoch, epochs) = (ProducerEpoch(first), EPOCHS_OF_A_LIFE);
    Ok(InitProducerReply { producer_id, producer_epoch, epochs })
}

/// Whether an identity is one that [`life_of`] makes.
const fn is_of_all_brokers(producer: ProducerId) -> bool {
    producer.0 & (DRAWN | OF_ALL_BROKERS) == OF_ALL_BROKERS
}

impl RegistryLink {
    /// Gives a producer its identity, or takes the word of one that has it.
    pub(super) fn init_producer(
        &mut self,
        ask: InitProducer,
        reply: Answer<InitProducerReply>,
        credit: Credit,
        room: &mut Room<'_, Self>,
    ) {
        match (ask.scope, ask.name.clone()) {
            (NameScope::Life, Some(name)) => self.next_life(name, reply, credit, room),
            (NameScope::Announce, Some(_)) => self.announce(&ask, reply, credit),
            (NameScope::Broker, _) | (_, None) => self.identity_of_the_broker(ask, reply, credit),
        }
    }

    /// The next life of a name, if the shard of the names is led here; else who leads it. The first
    /// producer that has a name has that shard chosen.
    fn next_life(
        &mut self,
        name: ProducerName,
        reply: Answer<InitProducerReply>,
        credit: Credit,
        room: &mut Room<'_, Self>,
    ) {
        let home = GroupName::of_producer_names();
        let shards = self.parts.shards.clone();
        if let Some(topic) = self.ledger.routes().get(&home.dead_letters()) {
            return next_life_at(topic, &shards, name, reply, credit);
        }
        let port = Port::call(move |opened: Result<Opened, Dropped>| match opened {
            Ok(Ok(topic)) => {
                // What the request held of this actor's room goes back with this answer.
                next_life_at(&topic, &shards, name, reply, Credit::unbounded());
            }
            Ok(Err(error)) => reply.send(Err(error)),
            Err(Dropped) => drop(reply),
        });
        self.open_group(&home, port, credit, room);
    }

    /// All shards that are led here refuse earlier lives, before that is said.
    fn announce(&self, ask: &InitProducer, reply: Answer<InitProducerReply>, credit: Credit) {
        if !is_of_all_brokers(ask.producer_id) {
            let text = "announced is what was given with the scope of a life, and nothing else";
            return reply.send(Err(ErrorReply::new(ErrorCode::InvalidRequest, text)));
        }
        let others = self.parts.shards.led().iter().map(|shard| shard.inbox.clone()).collect();
        let life = InitializedProducer { producer: ask.producer_id, epoch: ask.producer_epoch };
        let epochs = EPOCHS_OF_A_LIFE;
        fence_next(life, Asked { reply, _until_answered: credit, others, epochs });
    }

    /// Identities of its own are given by the broker's first persisted shard.
    fn identity_of_the_broker(
        &self,
        ask: InitProducer,
        reply: Answer<InitProducerReply>,
        credit: Credit,
    ) {
        // Those of several members that are led here hold what the producer sends to them.
        let led = self.parts.shards.led();
        let all = led.iter().map(|shard| (shard.shard, shard.durability));
        let from = source(all, self.parts.broker, self.ledger.table());
        let Some(first) = led.iter().find(|shard| Some(shard.shard) == from) else {
            return reply.send(without_a_shard(&ask, draw_number()));
        };
        let others = led.iter().filter(|shard| shard.shard != first.shard);
        let others = others.map(|shard| shard.inbox.clone()).collect();
        give(ask, &first.inbox, others, reply, credit);
    }
}

/// Asks the shard of the names, which is that of the first queue of `home`.
fn next_life_at(
    home: &TopicRoute,
    shards: &ShardSet,
    name: ProducerName,
    reply: Answer<InitProducerReply>,
    credit: Credit,
) {
    if let Err(error) = home.queue(home.id, QueueId(0)) {
        return reply.send(Err(error)); // who leads it, or that nobody does
    }
    let Some(shard) = shards.get(home.queues[0].shard) else {
        let error = ErrorReply::new(ErrorCode::Unavailable, "the shard of the names is going");
        return reply.send(Err(error.with_retry_after_ms(RETRY_AFTER_MS)));
    };
    let port =
        Port::call(move |answer: Result<Result<InitializedProducer, QueueError>, Dropped>| {
            match answer {
                Ok(Ok(counted)) => reply.send(life_of(counted)),
                Ok(Err(error)) => reply.send(Err(refused(&error))),
                Err(Dropped) => drop(reply),
            }
            drop(credit);
        });
    let _ = shard.inbox.try_put(ShardRequest::InitProducer { name: Some(name), reply: port });
}

/// What to answer. All that is asked here may be asked again, also where nobody knows what became of it:
/// then a life passes that nobody had.
fn refused(error: &QueueError) -> ErrorReply {
    let reply = error.to_reply();
    let is_unknown = matches!(error, QueueError::OutcomeUnknown);
    ErrorReply { retriable: reply.retriable || is_unknown, ..reply }
}

/// The topic that says where the names are, once it is open.
type Opened = Result<Arc<TopicRoute>, ErrorReply>;

/// A request for an identity on its way.
struct Asked {
    reply: Answer<InitProducerReply>,
    _until_answered: Credit,
    /// The shards that must hear of the epoch yet.
    others: Vec<Inbox<ShardRequest>>,
    /// How many epochs the answer says that it has for itself.
    epochs: u32,
}

/// Asks `first` for an identity, and answers when `others` know of it, too. A shard that does not
/// answer leaves the request unanswered: the client asks again, and gets a later epoch.
fn give(
    ask: InitProducer,
    first: &Inbox<ShardRequest>,
    others: Vec<Inbox<ShardRequest>>,
    reply: Answer<InitProducerReply>,
    credit: Credit,
) {
    let others = if ask.name.is_some() { others } else { Vec::new() };
    let asked = Asked { reply, _until_answered: credit, others, epochs: 0 };
    let port =
        Port::call(move |answer: Result<Result<InitializedProducer, QueueError>, Dropped>| {
            match answer {
                Ok(Ok(given)) => fence_next(given, asked),
                Ok(Err(error)) => asked.reply.send(Err(refused(&error))),
                Err(Dropped) => drop(asked),
            }
        });
    let _ = first.try_put(ShardRequest::InitProducer { name: ask.name, reply: port });
}

fn fence_next(given: InitializedProducer, mut asked: Asked) {
    let Some(shard) = asked.others.pop() else {
        let (producer_id, producer_epoch) = (given.producer, given.epoch);
        let epochs = asked.epochs;
        return asked.reply.send(Ok(InitProducerReply { producer_id, producer_epoch, epochs }));
    };
    let port = Port::call(move |answer: Result<Result<(), QueueError>, Dropped>| match answer {
        Ok(Ok(())) => fence_next(given, asked),
        Ok(Err(error)) => asked.reply.send(Err(refused(&error))),
        Err(Dropped) => drop(asked),
    });
    let _ = shard.try_put(ShardRequest::Fence { producer: given, reply: port });
}

#[cfg(test)]
mod tests {
    use grus_registry::ShardPlace;

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
        let nameless = InitProducer::of_the_broker(None);
        let given = without_a_shard(&nameless, draw_number()).unwrap();
        let shard_of = given.producer_id.0 >> 48;
        assert!(shard_of > u64::from(u16::MAX >> 2), "{shard_of} may be a shard");
        assert_eq!(given.producer_epoch, ProducerEpoch(0));
        let other = without_a_shard(&nameless, draw_number()).unwrap();
        assert_ne!(given.producer_id, other.producer_id);
        let named = InitProducer::of_the_broker(Some("n".try_into().unwrap()));
        let refused = without_a_shard(&named, draw_number()).unwrap_err();
        assert!(refused.retriable && refused.retry_after_ms > 0, "{refused:?}");
        assert_eq!(refused.code, ErrorCode::Unavailable);
    }

    #[test]
    fn lives_of_a_name_have_epochs_of_their_own_and_an_id_that_no_broker_gives_by_itself() {
        let counted = |epoch| {
            let producer = ProducerId((9_999 << 48) + 7);
            InitializedProducer { producer, epoch: ProducerEpoch(epoch) }
        };
        let (one, two) = (life_of(counted(3)).unwrap(), life_of(counted(4)).unwrap());
        assert_eq!(one.producer_id, two.producer_id);
        assert_eq!(one.producer_epoch.0 + one.epochs, two.producer_epoch.0, "none in two lives");
        assert!(is_of_all_brokers(one.producer_id));
        let drawn = without_a_shard(&InitProducer::of_the_broker(None), draw_number()).unwrap();
        for other in [counted(3).producer, drawn.producer_id, ProducerId(u64::MAX)] {
            assert!(!is_of_all_brokers(other), "{other:?} is not for others to announce");
        }
        let last = life_of(counted((1 << 24) - 1)).unwrap();
        assert_eq!(last.producer_epoch.0.checked_add(last.epochs - 1), Some(u32::MAX));
        let refused = life_of(counted(1 << 24)).unwrap_err();
        assert!(!refused.retriable && refused.message.contains("16777216"), "{refused}");
    }

    #[test]
    fn what_a_leader_that_falls_leaves_open_is_asked_for_again() {
        let unknown = refused(&QueueError::OutcomeUnknown);
        assert!(unknown.retriable && unknown.code == ErrorCode::OutcomeUnknown);
        let fenced = QueueError::ProducerFenced { epoch: ProducerEpoch(7) };
        assert!(!refused(&fenced).retriable);
    }
}
