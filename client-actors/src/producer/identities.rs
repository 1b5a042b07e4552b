//! The identities a producer stamps its batches with, and asks for.
//!
//! A producer without a name has one identity for all brokers, and any broker gives it. A name is
//! known to each broker by itself, so a named producer has an identity at each broker it sends to.
//! Asking again raises the epoch there, which shuts out whatever is under way with the one before:
//! so a named producer asks again only when nothing of it is under way at that broker, and sends
//! nothing there meanwhile.

use super::lane::Identity;
use crate::backoff::Backoff;
use crate::error::Refusal;
use crate::route::{Ask, LinkId};

/// Whom an identity is from: the broker of a connection, or any.
pub(super) type Source = Option<LinkId>;

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

    /// Where the identity for a queue behind this connection comes from.
    pub(super) fn source(&self, link: LinkId) -> Source {
        self.is_named.then_some(link)
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

    /// Whom to ask now.
    pub(super) fn poll(&mut self, now_ms: u64, up: &[LinkId]) -> Option<Source> {
        let reachable = |source: Source| source.is_none_or(|link| up.contains(&link));
        let mut given = self.given.iter_mut().filter(|given| reachable(given.source));
        given.find_map(|given| given.ask.poll(now_ms).then_some(given.source))
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
        let (one, two) = (Some(LinkId(1)), Some(LinkId(2)));
        named.want_first(one);
        named.want_first(two);
        assert_eq!(named.poll(0, &[LinkId(2)]), Some(two));
        assert_eq!(named.poll(0, &[LinkId(2)]), None);
        named.answered(two, Ok(identity(4)), 0).unwrap();
        assert_eq!(named.newest(two), Some((1, identity(4))));
        assert_eq!(named.newest(one), None);
        named.want(two);
        assert_eq!(named.newest(two), None, "the old one is given to nobody any more");
        named.want_first(two);
        assert_eq!(named.poll(0, &[LinkId(1), LinkId(2)]), Some(one));
        assert_eq!(named.poll(0, &[LinkId(1), LinkId(2)]), Some(two));
    }

    #[test]
    fn a_refusal_is_waited_out_and_kept_for_those_who_time_out() {
        let mut any = identities(false);
        any.want(None);
        assert_eq!(any.poll(0, &[]), Some(None));
        let full = Refusal::from(ErrorReply::new(ErrorCode::StorageFull, "disk is full"));
        any.answered(None, Err(full.clone()), 0).unwrap();
        assert_eq!(any.last_refusal(), Some(&full));
        assert_eq!(any.poll(1, &[]), None);
        assert_eq!(any.poll(1_000, &[]), Some(None));
        let fatal = Refusal::from(ErrorReply::new(ErrorCode::Unauthorized, ""));
        assert!(any.answered(None, Err(fatal), 0).is_err());
    }
}
