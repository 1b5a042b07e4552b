//! BrokerTable: who is there. Takes what brokers say to a registry that is a process of its own.
//!
//! ```text
//! Session --BrokerAsk--> [BrokerTable] --EnrolBroker, MarkBroker, DrainBroker, ...--> Registry
//!                              '--Loads--> Rebalance
//! ```
//!
//! * Owns: the leases ([`leases`]), and since when who is gone ([`rebuild`]). What must survive (who was live) is in the registry's log.
//! * Lives on: the registry's core arbiter.
//! * Inbox: [`BrokerAsk`], held until it is answered; `Answered` from its own reply ports; [`Tick`].
//! * Talks to: Registry, Rebalance.
//! * Stops: at once, before Registry; brokers register again with the next one.
//! * If it panics: it is rebuilt, and every live broker gets a full lease from then on.

pub mod leases;
pub mod rebuild;

use std::time::Duration;

use grus_mailbox::{
    ActorSpec, Credit, Dropped, Host, HostHandle, Inbox, Place, Port, Receive, Resident, Room,
    Tick, Weigh, reply,
};
use grus_protocol::error::ErrorReply;
use grus_protocol::ids::{BrokerAddress, BrokerId, TimestampMs};
use grus_protocol::message::{
    BrokerHeartbeat, BrokerHeartbeatReply, LeadShards, LeadShardsReply, LedShard, OfferTopics,
    OfferTopicsReply, RefusedTopic, RegisterBroker, RegisterBrokerReply, ShardClaim,
};

use crate::command::{AdoptTopic, MembershipClaim, StoredSettings, ToldMembers};
use crate::error::RegistryError;
use crate::rebalance::Loads;
use crate::request::{Enrolled, RefusedTopics, RegistryHandle, RegistryRequest};
use leases::Leases;
use rebuild::Rebuild;

/// Requests of brokers under way.
pub const BROKER_ASKS_MAX: u32 = 2_048;
/// How often leases are looked at.
const TICK: Duration = Duration::from_millis(250);
/// How long a broker waits before it asks again, in milliseconds.
const RETRY_AFTER_MS: u32 = 500;

type Answer<T> = Port<Result<T, ErrorReply>>;

/// What a broker says.
#[derive(Debug)]
pub enum BrokerAsk {
    /// It is there.
    Register(RegisterBroker, Answer<RegisterBrokerReply>),
    /// It is still there, or stops.
    Beat(BrokerHeartbeat, Answer<BrokerHeartbeatReply>),
    /// Its shards hold topics that the registry does not know.
    Offer(OfferTopics, Answer<OfferTopicsReply>),
    /// It leads shards; with the session by which it had registered.
    Lead(u64, LeadShards, Answer<LeadShardsReply>),
    /// The connection by which it had registered is gone.
    Disconnected(BrokerId, u64),
}

impl Weigh for BrokerAsk {}

/// The registry's log has answered.
#[derive(Debug)]
pub(crate) enum Answered {
    Enrolled {
        broker: BrokerId,
        session: u64,
        reply: Answer<RegisterBrokerReply>,
        result: Result<Enrolled, RegistryError>,
        _credit: Credit,
    },
    Adopted {
        reply: Answer<OfferTopicsReply>,
        result: Result<RefusedTopics, RegistryError>,
        _credit: Credit,
    },
    Led {
        reply: Answer<LeadShardsReply>,
        result: Result<(), RegistryError>,
        _credit: Credit,
    },
    Marked(BrokerId, Result<(), RegistryError>),
}

impl Weigh for Answered {}

/// How long leases are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseSettings {
    /// A broker that is not heard of for so long leaves the routes.
    pub lease: Duration,
    /// How often brokers are to be heard of.
    pub heartbeat: Duration,
    /// A broker that is gone for so long is replaced in the shards that it shares with others; 0: never.
    pub rebuild_after: Duration,
}

/// See the module documentation.
pub struct BrokerTable {
    registry: RegistryHandle,
    loads: Inbox<Loads>,
    settings: LeaseSettings,
    leases: Leases,
    rebuild: Rebuild,
    answered: Option<Inbox<Answered>>,
    /// Brokers of which it is being written that they are not live.
    marking: Vec<BrokerId>,
}

impl BrokerTable {
    /// Starts it at `place`.
    pub(crate) fn start(
        place: &Place,
        registry: RegistryHandle,
        loads: Inbox<Loads>,
        settings: LeaseSettings,
    ) -> HostHandle<Self> {
        let clock = place.process().clock;
        Host::spawn(place, ActorSpec::new("BrokerTable", "registry"), move || {
            let table = registry.routing();
            let live = table.brokers.iter().filter(|(_, broker)| broker.live).map(|(id, _)| *id);
            Self {
                leases: Leases::new(whole_ms(settings.lease), live, clock.monotonic_ms()),
                rebuild: Rebuild::new(whole_ms(settings.rebuild_after)),
                registry: registry.clone(),
                loads: loads.clone(),
                settings,
                answered: None,
                marking: Vec::new(),
            }
        })
    }

    /// The port for an answer of the registry that this actor hears as `heard`.
    fn port<T: Send + 'static>(
        &self,
        room: &Room<'_, Self>,
        heard: impl FnOnce(Result<T, RegistryError>) -> Answered + Send + 'static,
    ) -> Port<Result<T, RegistryError>> {
        let inbox = self.answered.clone().unwrap_or_else(|| room.inbox(BROKER_ASKS_MAX * 2));
        Port::call(move |answer: Result<Result<T, RegistryError>, Dropped>| {
            // Stopped: nobody is left to be told.
            let _ = inbox.try_put(heard(answer.unwrap_or(Err(RegistryError::Busy))));
        })
    }

    fn register(
        &mut self,
        ask: RegisterBroker,
        reply: Answer<RegisterBrokerReply>,
        credit: Credit,
        room: &mut Room<'_, Self>,
    ) {
        let RegisterBroker { broker, disk, session, host, port, .. } = ask;
        let RegisterBroker { shards, shards_wanted, memberships, shards_below, .. } = ask;
        let now_ms = room.clock().monotonic_ms();
        let known = self.registry.routing().brokers.get(&broker).map_or(0, |known| known.disk);
        if known != 0 && known != disk {
            // Told at once, whether or not the other one is alive.
            return reply
                .send(Err(RegistryError::BrokerIdTaken { broker, disk: known }.to_reply()));
        }
        if self.leases.check(broker, session, now_ms).is_err() {
            let alive = RegistryError::BrokerAlive { broker }.to_reply();
            return reply.send(Err(alive.with_retry_after_ms(RETRY_AFTER_MS)));
        }
        if self.marking.contains(&broker) {
            // It is being written that it is gone: what follows must stand behind that.
            let later = RegistryError::Busy.to_reply();
            return reply.send(Err(later.with_retry_after_ms(RETRY_AFTER_MS)));
        }
        self.leases.registers(broker, now_ms);
        let heard =
            move |result| Answered::Enrolled { broker, session, reply, result, _credit: credit };
        let request = RegistryRequest::EnrolBroker {
            address: BrokerAddress { id: broker, host, port },
            disk,
            shards: shards.into_iter().map(|claim| (claim.shard, claim.durability)).collect(),
            shards_wanted,
            memberships: memberships.into_iter().map(MembershipClaim::from).collect(),
            shards_below,
            reply: self.port(room, heard),
        };
        let _ = self.registry.ask.try_put(request); // refused: heard as busy
    }

    fn beat(
        &mut self,
        beat: &BrokerHeartbeat,
        now_ms: u64,
        reply: Answer<BrokerHeartbeatReply>,
        room: &mut Room<'_, Self>,
    ) {
        let BrokerHeartbeat { broker, session, produced_bytes_per_second, .. } = *beat;
        let BrokerHeartbeat { leaving, drained, .. } = *beat;
        let known = if leaving {
            self.leases.leaves(broker, session)
        } else {
            self.leases.beat(broker, session, produced_bytes_per_second, now_ms)
        };
        if !known {
            return reply.send(Err(RegistryError::UnknownBroker { broker }.to_reply()));
        }
        if leaving {
            tracing::info!(%broker, "broker leaves");
            self.give_up(room, now_ms);
        } else {
            self.follow_drained(broker, drained);
        }
        let lease_ms = u32::try_from(self.leases.lease_ms()).unwrap_or(u32::MAX);
        reply.send(Ok(BrokerHeartbeatReply { lease_ms }));
    }

    fn offer(
        &self,
        offer: OfferTopics,
        reply: Answer<OfferTopicsReply>,
        credit: Credit,
        room: &Room<'_, Self>,
    ) {
        let OfferTopics { broker, session, topics } = offer;
        if !self.leases.knows(broker, session) {
            return reply.send(Err(RegistryError::UnknownBroker { broker }.to_reply()));
        }
        let topics = topics.into_iter().map(|topic| AdoptTopic {
            name: topic.name,
            id: topic.id,
            settings: StoredSettings::from(&topic.settings),
            queues: topic.queues.into_iter().map(|queue| (queue.queue, queue.shard)).collect(),
            altered: topic.altered,
            created: TimestampMs(0),
        });
        let request = RegistryRequest::AdoptTopics {
            broker,
            topics: topics.collect(),
            reply: self.port(room, move |result| Answered::Adopted {
                reply,
                result,
                _credit: credit,
            }),
        };
        let _ = self.registry.ask.try_put(request); // as above
    }

    /// Has it written that a broker is drained, or is not, where the routes say otherwise. Whether that is refused or
    /// not: until they say so each heartbeat tells it again.
    fn follow_drained(&self, broker: BrokerId, drained: bool) {
        let table = self.registry.routing();
        if !table.brokers.contains_key(&broker) || table.drained.contains(&broker) == drained {
            return;
        }
        tracing::info!(%broker, drained, "broker is drained, or is not any more");
        let (reply, _) = reply::port();
        let request = RegistryRequest::DrainBroker { broker, drained, reply };
        let _ = self.registry.ask.try_put(request); // as above
    }

    /// Has it written which shards a broker leads; the registry's answer is the broker's.
    fn lead(
        &self,
        session: u64,
        ask: LeadShards,
        reply: Answer<LeadShardsReply>,
        credit: Credit,
        room: &Room<'_, Self>,
    ) {
        let LeadShards { broker, shards } = ask;
        if !self.leases.knows(broker, session) {
            return reply.send(Err(RegistryError::UnknownBroker { broker }.to_reply()));
        }
        let heard = move |result| Answered::Led { reply, result, _credit: credit };
        let request = RegistryRequest::LeadShards {
            broker,
            shards: shards.iter().map(|led| (led.shard, led.term)).collect(),
            members: shards.into_iter().filter_map(told).collect(),
            reply: self.port(room, heard),
        };
        let _ = self.registry.ask.try_put(request); // as above
    }

    /// Has it written that brokers whose lease is over are not live.
    fn give_up(&mut self, room: &Room<'_, Self>, now_ms: u64) {
        for broker in self.leases.tick(now_ms) {
            if self.marking.contains(&broker) {
                continue;
            }
            tracing::warn!(%broker, "broker is not there: it leaves the routes");
            self.marking.push(broker);
            let reply = self.port(room, move |result| Answered::Marked(broker, result));
            let request = RegistryRequest::MarkBroker { broker, live: false, reply };
            let _ = self.registry.ask.try_put(request); // as above
        }
    }
}

impl BrokerTable {
    /// Has others get the replicas of brokers that are lost.
    fn replace_lost(&mut self, now_ms: u64) {
        let table = self.registry.routing();
        for change in self.rebuild.look(&table, now_ms) {
            let (shard, add, remove) = (&change.shards, change.add, change.remove);
            tracing::warn!(?shard, ?add, ?remove, "a broker is lost: another one gets its replica");
            // Refused or not, what the routes do not say is asked again at the next tick.
            let (reply, _) = reply::port();
            let request = RegistryRequest::ChangeReplicas { change, reply };
            let _ = self.registry.ask.try_put(request);
        }
    }
}

impl Resident for BrokerTable {
    fn started(&mut self, room: &mut Room<'_, Self>) {
        self.answered = Some(room.inbox(BROKER_ASKS_MAX * 2));
        room.tick_every(TICK);
    }
}

impl Receive<BrokerAsk> for BrokerTable {
    fn receive(&mut self, ask: BrokerAsk, credit: Credit, room: &mut Room<'_, Self>) {
        let now_ms = room.clock().monotonic_ms();
        match ask {
            BrokerAsk::Register(ask, reply) => self.register(ask, reply, credit, room),
            BrokerAsk::Beat(beat, reply) => self.beat(&beat, now_ms, reply, room),
            BrokerAsk::Offer(offer, reply) => self.offer(offer, reply, credit, room),
            BrokerAsk::Lead(session, ask, reply) => self.lead(session, ask, reply, credit, room),
            BrokerAsk::Disconnected(broker, session) => self.leases.disconnected(broker, session),
        }
    }
}

impl Receive<Answered> for BrokerTable {
    fn receive(&mut self, answered: Answered, _: Credit, room: &mut Room<'_, Self>) {
        match answered {
            Answered::Enrolled { broker, session, reply, result, .. } => match result {
                Ok(Enrolled { table, shards }) => {
                    self.leases.registered(broker, session, room.clock().monotonic_ms());
                    tracing::info!(%broker, shards = shards.len(), "broker is there");
                    let claim = |(shard, durability)| ShardClaim { shard, durability };
                    reply.send(Ok(RegisterBrokerReply {
                        registry: table.registry,
                        lease_ms: millis_u32(self.settings.lease),
                        heartbeat_ms: millis_u32(self.settings.heartbeat),
                        shards: shards.into_iter().map(claim).collect(),
                    }));
                }
                Err(error) => {
                    tracing::warn!(%broker, %error, "broker is refused");
                    reply.send(Err(error.to_reply()));
                }
            },
            Answered::Adopted { reply, result, .. } => {
                let refused = |(name, id, error): (_, _, RegistryError)| RefusedTopic {
                    name,
                    id,
                    error: error.to_reply(),
                };
                reply.send(match result {
                    Ok(RefusedTopics(topics)) => {
                        Ok(OfferTopicsReply { refused: topics.into_iter().map(refused).collect() })
                    }
                    Err(error) => Err(error.to_reply()),
                });
            }
            Answered::Led { reply, result, .. } => {
                let led = result.map(|()| LeadShardsReply {});
                reply.send(led.map_err(|error| error.to_reply()));
            }
            Answered::Marked(broker, result) => {
                self.marking.retain(|marking| *marking != broker);
                match result {
                    Ok(()) => self.leases.written(broker),
                    Err(error) => tracing::warn!(%broker, %error, "not written yet"),
                }
            }
        }
    }
}

impl Receive<Tick> for BrokerTable {
    fn receive(&mut self, tick: Tick, _: Credit, room: &mut Room<'_, Self>) {
        self.give_up(room, tick.monotonic_ms);
        self.replace_lost(tick.monotonic_ms);
        let _ = self.loads.try_put(Loads(self.leases.loads())); // the next one comes soon
    }
}

/// What a leader tells of a shard's members, if anything.
fn told(led: LedShard) -> Option<ToldMembers> {
    let LedShard { shard, term: _, members, members_at: at } = led;
    (!members.is_empty()).then_some(ToldMembers { shard, members, at })
}

fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn millis_u32(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
