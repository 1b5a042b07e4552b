//! The identities a producer stamps its batches with, and asks for.
//!
//! A producer without a name has one identity for all brokers, and any broker gives it. A name is
//! known to each broker by itself, so a named producer has an identity at each broker it sends to,
//! over whichever connection: connections come and go, and one may lead elsewhere when it is opened
//! again. Asking again raises the epoch there, which shuts out whatever is under way with the one before:
//! so a named producer asks again only when nothing of it is under way at that broker, and sends
//! nothing there meanwhile.

use grus_protocol::BrokerId;

use super::lane::Identity;
use crate::backoff::Backoff;
use crate::error::Refusal;
use crate::route::{Ask, LinkId};

/// Whom an identity is from: a broker, or any.
pub(crate) type Source = Option<BrokerId>;

#[derive(Debug)]
struct Given {
    source: Source,
    ask: Ask,
    /// The newest one and its number; numbers only grow.
    identity: Option<(u64, Identity)>,
}

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Identities {
    is_named: bool,
    given: Vec<Given>,
    numbers: u64,
    backoff: Backoff,
    last_refusal: Option<Refusal>,
}

impl Identities {
    pub(super) fn new(is_named: bool, backoff: Backoff) -> Self {
        Self { is_named, given: Vec::new(), numbers: 0, backoff, last_refusal: None }
    }

    pub(super) fn is_named(&self) -> bool {
        self.is_named
    }

    /// Where the identity for a queue of this broker comes from.
    pub(super) fn source(&self, broker: BrokerId) -> Source {
        self.is_named.then_some(broker)
    }

    fn at(&mut self, source: Source) -> &mut Given {
        let index = self.given.iter().position(|given| given.source == source);
        let index = index.unwrap_or_else(|| {
            self.given.push(Given { source, ask: Ask::Rest, identity: None });
            self.given.len() - 1
        });
        &mut self.given[index]
    }

    /// The newest identity and its number, unless another one is being asked for.
    pub(super) fn newest(&self, source: Source) -> Option<(u64, Identity)> {
        let given = self.given.iter().find(|given| given.source == source)?;
        given.identity.filter(|_| !self.is_named || given.ask == Ask::Rest)
    }

    /// Another identity is needed.
    pub(super) fn want(&mut self, source: Source) {
        self.at(source).ask.want();
    }

    /// One is needed if there is none yet.
    pub(super) fn want_first(&mut self, source: Source) {
        let given = self.at(source);
        if given.identity.is_none() {
            given.ask.want();
        }
    }

    /// Whom to ask now, and over which connection, if that matters. `way` leads to a broker.
    pub(super) fn poll(
        &mut self,
        now_ms: u64,
        way: impl Fn(BrokerId) -> Option<LinkId>,
    ) -> Option<(Source, Option<LinkId>)> {
        self.given.iter_mut().find_map(|given| {
            let over = match given.source {
                None => None,
                Some(broker) => Some(way(broker)?),
            };
            given.ask.poll(now_ms).then_some((given.source, over))
        })
    }

    /// An answer came. The refusal is given back when it is final.
    pub(super) fn answered(
        &mut self,
        source: Source,
        answer: Result<Identity, Refusal>,
        now_ms: u64,
    ) -> Result<(), Refusal> {
        match answer {
            Ok(identity) => {
                self.backoff.succeeded();
                self.last_refusal = None;
                self.numbers += 1;
                let number = self.numbers;
                let given = self.at(source);
                given.ask = Ask::Rest;
                given.identity = Some((number, identity));
                Ok(())
            }
            Err(refusal) if refusal.retriable => {
                let wait_ms = self.backoff.failed();
                self.at(source).ask = Ask::NotBefore(now_ms + wait_ms);
                self.last_refusal = Some(refusal);
                Ok(())
            }
            Err(refusal) => {
                self.at(source).ask = Ask::Rest;
                Err(refusal)
            }
        }
    }

    /// Why there is none yet, as the last broker said.
    pub(super) fn last_refusal(&self) -> Option<&Refusal> {
        self.last_refusal.as_ref()
    }

    /// Which sequences are taken is forgotten: no identity is used again.
    pub(super) fn forget(&mut self) {
        for given in &mut self.given {
            given.identity = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use grus_protocol::{ErrorCode, ErrorReply, ProducerEpoch, ProducerId};

    use super::*;

    fn identities(is_named: bool) -> Identities {
        Identities::new(is_named, Backoff::new(20, 1_000, 1))
    }

    fn identity(epoch: u32) -> Identity {
        Identity { producer: ProducerId(7), epoch: ProducerEpoch(epoch) }
    }

    #[test]
    fn a_named_producer_asks_each_broker_and_only_where_it_is_connected() {
        let mut named = identities(true);
        let (one, two) = (Some(BrokerId(1)), Some(BrokerId(2)));
        let way = |broker: BrokerId| (broker == BrokerId(2)).then_some(LinkId(7));
        named.want_first(one);
        named.want_first(two);
        assert_eq!(named.poll(0, way), Some((two, Some(LinkId(7)))));
        assert_eq!(named.poll(0, way), None);
        named.answered(two, Ok(identity(4)), 0).unwrap();
        assert_eq!(named.newest(two), Some((1, identity(4))));
        assert_eq!(named.newest(one), None);
        named.want(two);
        assert_eq!(named.newest(two), None, "the old one is given to nobody any more");
        named.want_first(two);
        let all = |broker: BrokerId| Some(LinkId(u32::try_from(broker.0).unwrap()));
        assert_eq!(named.poll(0, all), Some((one, Some(LinkId(1)))));
        assert_eq!(named.poll(0, all), Some((two, Some(LinkId(2)))));
    }

    #[test]
    fn a_refusal_is_waited_out_and_kept_for_those_who_time_out() {
        let mut any = identities(false);
        any.want(None);
        assert_eq!(any.poll(0, |_| None), Some((None, None)));
        let full = Refusal::from(ErrorReply::new(ErrorCode::StorageFull, "disk is full"));
        any.answered(None, Err(full.clone()), 0).unwrap();
        assert_eq!(any.last_refusal(), Some(&full));
        assert_eq!(any.poll(1, |_| None), None);
        assert_eq!(any.poll(1_000, |_| None), Some((None, None)));
        let fatal = Refusal::from(ErrorReply::new(ErrorCode::Unauthorized, ""));
        assert!(any.answered(None, Err(fatal), 0).is_err());
    }
}
