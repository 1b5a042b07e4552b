//! What a broker says to its remote registry, and makes of what it hears.

use bytes::{Bytes, BytesMut};
use grus_protocol::error::{ErrorCode, ErrorReply};
use grus_protocol::frame::{Frame, FrameHead, FrameKind, ReplyError};
use grus_protocol::ids::{BrokerId, ShardId};
use grus_protocol::message::{
    BrokerHeartbeat, BrokerHeartbeatReply, Hello, OfferTopics, RegisterBroker, RegisterBrokerReply,
    Request, RoutesChanged, ShardClaim, ShardMembership, WatchRoutes, WatchRoutesReply, features,
};
use grus_protocol::opcode::Opcode;

use super::calls::{Answered, Ask, Wanted};
use super::{Connected, Phase, REFUSED_REST_MS, REST_MS, RemoteRegistry, RemoteState};
use crate::frames::{self, Outgoing};
use crate::routing::{RoutingTable, ShardPlace};

/// How this broker introduces itself.
pub(super) fn hello(broker: BrokerId) -> Hello {
    let software = concat!("grus-broker ", env!("CARGO_PKG_VERSION"));
    let mut hello = Hello::new(format!("broker-{broker}"), software);
    hello.features = features::WATCH_ROUTES;
    hello
}

/// Where the correlation stands in a frame's head.
const CORRELATION: std::ops::Range<usize> = 12..20;

fn encode_request<R: Request>(request: &R) -> Bytes {
    frames::encode(FrameHead::request(R::OPCODE, 0), request)
}

/// The replicated shards that a broker is a member of, as far as is known.
fn memberships_of(table: &RoutingTable, broker: BrokerId) -> Vec<ShardMembership> {
    let membership = |(shard, place): (ShardId, &ShardPlace)| ShardMembership {
        shard,
        durability: place.durability,
        members: place.members.clone(),
        group: place.group,
        wanted: place.wanted.clone(),
        members_at: place.members_at,
    };
    table.memberships_of(broker).map(membership).collect()
}

impl Connected {
    fn say<R: Request>(&self, correlation: u64, request: &R) {
        let frame = frames::encode(FrameHead::request(R::OPCODE, correlation), request);
        let _ = self.out.send(Outgoing::new(frame, None)); // a writer that is gone says so
    }
}

impl RemoteRegistry {
    /// Sends a request; gives it back when there is nobody to send it to.
    pub(super) fn send(&mut self, wanted: Wanted, now_ms: u64) -> Option<Wanted> {
        let Phase::Open(connected) = &self.phase else { return Some(wanted) };
        if !connected.is_registered {
            return Some(wanted);
        }
        // The correlation is known once the waiter is put away: it is filled in then.
        let encoded = match &wanted.ask {
            Ask::Create(ask) => encode_request(ask),
            Ask::Alter(ask) => encode_request(ask),
            Ask::Delete(ask) => encode_request(ask),
            Ask::Place(ask) => encode_request(ask),
            Ask::Change(ask) => encode_request(ask),
            Ask::Lead(ask) => encode_request(ask),
            Ask::Offer(broker, topics) => {
                let (broker, session, topics) = (*broker, self.settings.session, topics.clone());
                encode_request(&OfferTopics { broker, session, topics })
            }
            Ask::Nothing => return None,
        };
        let correlation = self.calls.sent(wanted, now_ms);
        let mut frame = BytesMut::from(&*encoded);
        frame[CORRELATION].copy_from_slice(&correlation.to_le_bytes());
        let _ = connected.out.send(Outgoing::new(frame.freeze(), None)); // as above
        None
    }

    /// Registers, or sends a heartbeat, when it is time; notices a connection that is dead.
    pub(super) fn pulse(&mut self, now_ms: u64) {
        if self.calls.is_overdue(now_ms) {
            return self.lost("no answer", now_ms);
        }
        let Phase::Open(connected) = &mut self.phase else { return };
        if connected.next_ms.is_none_or(|at_ms| now_ms < at_ms) {
            return;
        }
        connected.next_ms = None;
        let settings = &self.settings;
        if connected.is_registered {
            let total = (settings.produced_bytes)();
            let rate = connected.last_beat.map_or(0, |(at_ms, before)| {
                let span_ms = now_ms.saturating_sub(at_ms).max(1);
                total.saturating_sub(before).saturating_mul(1_000) / span_ms
            });
            connected.last_beat = Some((now_ms, total));
            let beat = BrokerHeartbeat {
                broker: settings.broker.id,
                session: settings.session,
                produced_bytes_per_second: rate,
                leaving: false,
                drained: *settings.drained.borrow(),
            };
            connected.say(self.calls.beat(now_ms), &beat);
        } else {
            let claim = |(shard, durability): &(_, _)| ShardClaim {
                shard: *shard,
                durability: *durability,
            };
            let known = self.newest.borrow();
            let register = RegisterBroker {
                broker: settings.broker.id,
                disk: settings.disk,
                session: settings.session,
                host: settings.broker.host.clone(),
                port: settings.broker.port,
                shards: settings.claims.shards.iter().map(claim).collect(),
                shards_wanted: settings.claims.wanted,
                memberships: memberships_of(&known, settings.broker.id),
                shards_below: settings.shards_below.max(known.shards_below()),
            };
            drop(known);
            connected.say(self.calls.register(now_ms), &register);
        }
    }

    /// Tells the registry that the broker leaves; whether there is somebody to tell.
    pub(super) fn say_farewell(&mut self, now_ms: u64) -> bool {
        let Phase::Open(connected) = &self.phase else { return false };
        if !connected.is_registered {
            return false;
        }
        let leaving = BrokerHeartbeat {
            broker: self.settings.broker.id,
            session: self.settings.session,
            produced_bytes_per_second: 0,
            leaving: true,
            drained: *self.settings.drained.borrow(),
        };
        connected.say(self.calls.beat(now_ms), &leaving);
        true
    }

    /// A frame came.
    pub(super) fn heard(&mut self, frame: &Frame, now_ms: u64) {
        match frame.head.kind {
            FrameKind::Reply => {
                let table = self.newest.borrow().clone();
                match self.calls.answered(frame.clone(), &table, now_ms) {
                    Answered::Register(answer) => self.registered(&answer, now_ms),
                    Answered::Beat(answer) => self.beaten(&answer, now_ms),
                    // Without routes the broker would serve nothing new, and not know it.
                    Answered::Watch(answer) => {
                        if let Err(error) = answer.reply::<WatchRoutesReply>() {
                            self.lost(&format!("it does not tell its routes: {error}"), now_ms);
                        }
                    }
                    Answered::Dealt => {}
                }
            }
            FrameKind::Push if frame.head.opcode == Opcode::RoutesChanged => {
                match frame.header::<RoutesChanged>() {
                    Ok(change) => self.routes_changed(change),
                    Err(error) => self.lost(&error.to_string(), now_ms),
                }
            }
            FrameKind::Push | FrameKind::Request => {} // of a later version
        }
    }

    fn routes_changed(&mut self, change: RoutesChanged) {
        let Phase::Open(connected) = &mut self.phase else { return };
        if let Some(table) = connected.follower.take(change) {
            self.calls.table_is(&table);
            self.publish(table);
        }
    }

    fn registered(&mut self, answer: &Frame, now_ms: u64) {
        let Phase::Open(connected) = &mut self.phase else { return };
        match answer.reply::<RegisterBrokerReply>() {
            Ok(reply) => {
                let was_watching = connected.is_registered;
                connected.is_registered = true;
                connected.heartbeat_ms = u64::from(reply.heartbeat_ms.max(10));
                connected.next_ms = Some(now_ms + connected.heartbeat_ms);
                if !was_watching {
                    connected.say(self.calls.watch(now_ms), &WatchRoutes { topics: Vec::new() });
                }
                self.rest_ms = REST_MS.0;
                self.has_warned = false;
                let (registry, address) = (reply.registry, self.address());
                tracing::info!(address, registry, "registered");
                let pair = |claim: ShardClaim| (claim.shard, claim.durability);
                let shards = reply.shards.into_iter().map(pair).collect();
                self.set_state(RemoteState::Registered { registry, shards });
            }
            Err(ReplyError::Refused(refusal)) => {
                connected.is_registered = false;
                connected.next_ms = Some(now_ms + REFUSED_REST_MS);
                self.refused(refusal);
            }
            Err(ReplyError::Header(error)) => self.lost(&error.to_string(), now_ms),
        }
    }

    fn refused(&mut self, refusal: ErrorReply) {
        if !self.has_warned {
            self.has_warned = true;
            tracing::error!(address = self.address(), error = %refusal, "registry refuses this broker");
        }
        if refusal.retriable {
            self.set_state(RemoteState::Away { reason: refusal.to_string() });
        } else {
            self.set_state(RemoteState::Refused(refusal));
        }
    }

    fn beaten(&mut self, answer: &Frame, now_ms: u64) {
        let Phase::Open(connected) = &mut self.phase else { return };
        match answer.reply::<BrokerHeartbeatReply>() {
            Ok(_) => connected.next_ms = Some(now_ms + connected.heartbeat_ms),
            Err(ReplyError::Refused(refusal)) if refusal.code == ErrorCode::UnknownBroker => {
                connected.is_registered = false;
                connected.next_ms = Some(now_ms);
                self.pulse(now_ms);
            }
            Err(ReplyError::Refused(_)) => {
                connected.next_ms = Some(now_ms + connected.heartbeat_ms);
            }
            Err(ReplyError::Header(error)) => self.lost(&error.to_string(), now_ms),
        }
    }
}
