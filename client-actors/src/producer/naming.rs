//! As whom a producer sends to each queue, and which brokers know of it.

use std::collections::BTreeMap;

use grus_protocol::ErrorCode;
use grus_protocol::ids::BrokerAddress;
use grus_protocol::message::InitProducer;

use super::identities::Source;
use super::lane::Identity;
use super::state::{ProducerState, QueueLane};
use crate::error::{Refusal, SendError};
use crate::route::{ASK_MS_MAX, LinkId};

/// How long a question waits for a connection to the broker that another one has named: that may be
/// gone, and others know who is in its place.
const NAMED_MS_MAX: u64 = 2_000;

impl<P, F> ProducerState<P, F> {
    /// Gives a lane the identity it needs, or has one asked for.
    pub(super) fn care_for_identity(&mut self, queue: u32) {
        let entry = &mut self.lanes[queue as usize];
        let broker = entry.link.and_then(|link| self.brokers.get(&link));
        let Some(source) = (match broker {
            Some(broker) => Some(self.identities.source(*broker)),
            None => (!self.identities.is_by_broker()).then_some(None), // anybody's will do
        }) else {
            return; // not connected to it yet
        };
        if entry.identity_of != source {
            entry.lane.renew(); // another broker does not know it by that one
        }
        if !entry.lane.wants_identity() {
            return;
        }
        // One that it had before would begin again at a sequence that is taken.
        let unused = self.identities.above(source, entry.identity_number);
        if let Some((number, identity)) = unused {
            (entry.identity_number, entry.identity_of) = (number, source);
            return entry.lane.give_identity(identity);
        }
        if !self.identities.is_by_broker() {
            return self.identities.want(source);
        }
        // Another one shuts this one out, for all queues of the broker: not while it is at work.
        let brokers = &self.brokers;
        let of = |entry: &QueueLane<P>| entry.link.and_then(|link| brokers.get(&link)).copied();
        let same = self.lanes.iter_mut().filter(|entry| of(entry) == source);
        same.for_each(|entry| entry.lane.renew());
        let mut others = self.lanes.iter().filter(|entry| of(entry) == source);
        if others.all(|entry| entry.lane.is_drained()) {
            self.identities.want(source);
        }
    }

    /// A named producer needs its name at every broker it is connected to.
    pub(super) fn want_names(&mut self) {
        if self.fenced.is_some() {
            return;
        }
        let mut brokers = BTreeMap::new();
        for entry in &self.lanes {
            if let Some(broker) = entry.link.and_then(|link| self.brokers.get(&link)) {
                *brokers.entry(*broker).or_insert(false) |= !entry.is_announced;
            }
        }
        for (broker, is_new) in brokers {
            self.identities.want_at(broker, is_new);
        }
    }

    /// Whether a queue's broker knows of the producer's life, where that is what it is known by; if not,
    /// it is told.
    pub(super) fn is_announced(&mut self, queue: u32) -> bool {
        let entry = &self.lanes[queue as usize];
        if entry.is_announced || !self.identities.is_by_life() {
            return true;
        }
        let broker = entry.link.and_then(|link| self.brokers.get(&link));
        if let Some(broker) = broker.filter(|_| !entry.lane.is_idle()) {
            self.identities.want_at(*broker, true);
        }
        false
    }

    /// A broker was told of the producer's life, or is: of the queues that are known as its own then.
    pub(super) fn announce(&mut self, to: Source, is_done: bool) {
        for entry in &mut self.lanes {
            let broker = entry.link.and_then(|link| self.brokers.get(&link)).copied();
            if broker != to || broker.is_none() {
                continue;
            }
            if is_done {
                entry.is_announced |= entry.announced_to == to;
            } else {
                entry.announced_to = to;
            }
        }
    }

    /// What to ask for [`Need::Identity`](super::parts::Need::Identity), whom, where that was told, and
    /// for how many milliseconds.
    pub(crate) fn question(&self, source: Source) -> (InitProducer, Option<BrokerAddress>, u64) {
        let (question, whom) = self.identities.question(source);
        let wait_ms = if whom.is_some() { NAMED_MS_MAX } else { ASK_MS_MAX };
        (question, whom, wait_ms)
    }

    /// The answer to [`Need::Identity`](super::parts::Need::Identity): an identity, and how many epochs
    /// it has for itself.
    pub(crate) fn identity(
        &mut self,
        source: Source,
        answer: Result<(Identity, u32), Refusal>,
        now_ms: u64,
    ) {
        let is_given = answer.is_ok();
        match self.identities.answered(source, answer, now_ms) {
            Ok(()) if is_given => {
                self.announce(source, true);
                self.want_names();
            }
            Ok(()) => {}
            Err(refusal) if refusal.code == ErrorCode::ProducerFenced => self.is_shut_out(&refusal),
            Err(refusal) => self.fail_all(|_| SendError::Refused(refusal.clone())),
        }
        (0..self.queues()).for_each(|queue| self.list(queue));
    }

    /// By which identities the broker of a connection knows this producer.
    pub(crate) fn identities_at(&self, link: LinkId) -> Vec<Identity> {
        let of = self.brokers.get(&link).map(|broker| self.identities.source(*broker));
        let newest = of.and_then(|source| self.identities.newest(source));
        let lanes = self.lanes.iter().filter(|entry| entry.link == Some(link));
        let mut all: Vec<_> = lanes.filter_map(|entry| entry.lane.identity()).collect();
        all.extend(newest);
        all.sort_unstable_by_key(|identity| (identity.producer, identity.epoch));
        all.dedup();
        all
    }
}
